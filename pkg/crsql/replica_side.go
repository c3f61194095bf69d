package crsql

import (
	"encoding/hex"
	"fmt"
	"os"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// A sideRecord is what the file named by LockSuffix holds: the highest own version that was ever reported, as far as this
// file knows. It stays behind when somebody puts an older copy of the database in its place, and so shows that.
//
// It is written once the commit is durable, and not synced: the loss of power may take it back, which costs the detection
// only, and never puts it ahead of the database.
type sideRecord struct {
	valid bool
	site  changeset.SiteID
	own   int64
}

const (
	sideFormat = "crmesh %032x %016x\n" // site, own version: of one length, written at once
	sideLen    = 7 + 32 + 1 + 16 + 1
)

// readSide reads the record. One that is missing or damaged is not valid.
func readSide(f *os.File) sideRecord {
	buf := make([]byte, sideLen)
	if n, err := f.ReadAt(buf, 0); n < sideLen {
		_ = err // it is empty at first
		return sideRecord{}
	}
	var r sideRecord
	site, err := hex.DecodeString(string(buf[7:39]))
	if err != nil {
		return sideRecord{}
	}
	r.site = changeset.SiteID(site)
	if n, err := fmt.Sscanf(string(buf[40:56]), "%x", &r.own); n != 1 || err != nil {
		return sideRecord{}
	}
	r.valid = sideText(r) == string(buf)
	return r
}

func sideText(r sideRecord) string { return fmt.Sprintf(sideFormat, []byte(r.site), r.own) }

// remember records that the own version was reported. Nothing depends on it but what readSide is for, so that a failure is
// logged, once.
func (r *Replica) remember(site changeset.SiteID, own int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := sideRecord{valid: true, site: site, own: own}
	if r.side.valid && r.side.site == site && r.side.own >= own || len(site) != changeset.SiteIDLen {
		return
	}
	if _, err := r.db.lock.WriteAt([]byte(sideText(now)), 0); err != nil {
		if !r.sideFailed {
			r.sideFailed = true
			r.db.log.Warn("if an older copy of the database is put in its place, that will not be noticed", "error", err)
		}
		return
	}
	r.side = now
}
