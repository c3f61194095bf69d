package crsql

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
)

// A home is where a database was when a Replica opened it last: crmesh_meta keeps it. A copy of the file takes it along,
// and so shows that it is one.
type home struct {
	Machine string `json:"machine"` // a hash of the machine's id, which is nobody's business; empty: it has none
	Path    string `json:"path"`
	Device  uint64 `json:"device"`
	Inode   uint64 `json:"inode"`
}

func homeOf(path string) (home, error) {
	h := home{Path: path}
	if id := machineID(); id != "" {
		sum := sha256.Sum256([]byte("crmesh home " + id))
		h.Machine = hex.EncodeToString(sum[:16])
	}
	var err error
	if h.Device, h.Inode, err = fileID(path); err != nil {
		return h, pathError(path, err)
	}
	return h, nil
}

// moved returns why the file is another one than it was at home before; empty: it is the same one, perhaps under another
// name. The number of a device may change when the machine starts anew, and the first files of two disks may have one
// inode: so either the device has to be the same or the path.
func (h home) moved(before home) string {
	switch {
	case h.Machine != before.Machine:
		return "the file came from another machine"
	case h.Inode != before.Inode, h.Device != before.Device && h.Path != before.Path:
		return "the file is a copy, or was put back from one"
	}
	return ""
}

// foundHome is what a database and the file beside it tell about its past.
type foundHome struct {
	reason string // why a new site id is due; empty: it is not
	doubt  bool   // nothing beside the database can tell whether it is the newest state of the file
}

// lookHome compares where the database is with where it was, and what it holds with what side recorded. It runs in the
// transaction that acts upon it.
func (e *engine) lookHome(now home, side sideRecord, v versions) (foundHome, error) {
	rows, err := e.query("SELECT value FROM main.crmesh_meta WHERE key = ?", metaHome)
	if err != nil {
		return foundHome{}, err
	}
	if len(rows) == 0 {
		return foundHome{doubt: v.newest() > 0}, nil
	}
	found := foundHome{}
	var before home
	if err := json.Unmarshal([]byte(toText(rows[0][0])), &before); err != nil {
		found.reason = "the file is a copy" // Clone leaves no home
		return found, nil
	}
	if found.reason = now.moved(before); found.reason != "" {
		return found, nil
	}
	if !side.valid {
		found.doubt = true
		return found, nil
	}
	if side.site == e.siteID {
		if side.own > v.ownHigh {
			found.reason = "the file was put back from an older copy"
		}
		return found, nil
	}
	// The record may lag behind a renewal that a crash cut off from it: then the database knows the site. Where it does not, the
	// record is of a renewal that this file lacks, or of another database that was here before this one was moved in: nobody can
	// tell, and a new site id too many costs little.
	former, err := e.query("SELECT 1 FROM main.crsql_site_id WHERE site_id = ?", siteBytes(side.site))
	switch {
	case err != nil:
	case len(former) == 0:
		found.reason = "the file was put back from an older copy"
	case now.Path != before.Path:
		found.doubt = true
	}
	return found, err
}

func (e *engine) storeHome(h home) error {
	text, err := json.Marshal(h)
	if err != nil {
		return err
	}
	return e.exec("INSERT OR REPLACE INTO main.crmesh_meta VALUES (?, ?)", metaHome, string(text))
}

// settledHome is what settleHome did.
type settledHome struct {
	renewed *renewal // nil: the file is what it was
	// Own versions above it may be in use elsewhere, if the whole machine was put back: the version at this opening, or
	// where no peer was met since, at an earlier one.
	own int64
}

// settleHome finds out whether the database is a copy, or was restored from one, and gives it a new site id if so: in one
// transaction, the first that a Replica makes, so that nothing was written or announced under numbers that another
// file may have used.
func (s *session) settleHome(now home, side sideRecord) (settledHome, error) {
	e := s.engine
	v, err := e.readVersions()
	if err != nil {
		return settledHome{}, err
	}
	found, err := e.lookHome(now, side, v)
	if err != nil {
		return settledHome{}, err
	}
	done := settledHome{own: v.ownHigh}
	if found.reason != "" {
		certain, err := e.certain(v)
		if err != nil {
			return done, err
		}
		if done.renewed, err = e.renew(v, certain, found.reason); err != nil {
			return done, fmt.Errorf("give the database a new site id, because %s: %w", found.reason, err)
		}
		done.own = done.renewed.own
	} else if found.doubt {
		if err := e.doubt(v); err != nil {
			return done, err
		}
	}
	if v.unmet != unknown && done.renewed == nil {
		done.own = min(done.own, v.unmet)
	} else if err := e.setMeta(metaUnmet, done.own); err != nil {
		return done, err
	}
	return done, e.storeHome(now)
}

// doubt records that own versions from now on may be in use elsewhere: a renewal that comes later must not take them for
// the old site's.
func (e *engine) doubt(v versions) error {
	certain, err := e.certain(v)
	if err != nil {
		return err
	}
	return e.setMeta(metaCertain, certain)
}

// certain returns the highest own version up to which the old site's numbers stand for what this database holds.
func (e *engine) certain(v versions) (int64, error) {
	rows, err := e.query("SELECT value FROM main.crmesh_meta WHERE key = ?", metaCertain)
	if err != nil || len(rows) == 0 {
		return v.ownHigh, err
	}
	return min(v.ownHigh, toInt64(rows[0][0])), nil
}
