package crsql

import (
	"errors"
	"fmt"
	"time"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// A renewal is what renew did, for the log.
type renewal struct {
	reason   string
	old, new changeset.SiteID
	entries  int64 // that keep the old site as their origin
	took     time.Duration
}

// renew gives the database a new site id in the open transaction. What it wrote under the old one stays what it is to
// others: (old site, L), now recorded in crmesh_log, and a claim of the old site up to there. Own versions above those
// that are certain may have other content in another file of the old site; they stay own entries, and are
// offered anew under the new site.
//
// The clocks of cr-sqlite name sites by ordinal, and ordinal 0 is the database's own: the old site gets another one, in
// crsql_site_id and in each clock. All of it is one transaction, so that a crash leaves the old site or the new one and
// nothing between; its time and the room that it takes in the write-ahead log are in proportion to the clocks.
func (e *engine) renew(v versions, reason string) (*renewal, error) {
	begun := time.Now()
	done := &renewal{reason: reason, old: e.siteID}
	certain, err := e.certain(v)
	if err != nil {
		return nil, err
	}
	if done.entries, err = e.logFormerOwn(done.old, certain); err != nil {
		return nil, err
	}
	if done.new, err = e.replaceSite(); err != nil {
		return nil, err
	}
	own := int64(0)
	for _, clock := range e.clockTables {
		rows, err := e.query(fmt.Sprintf(`SELECT max(db_version) FROM main.%s WHERE db_version > ? AND db_version <= ?
			AND db_version NOT IN (SELECT local_version FROM main.crmesh_log)`, ident(clock)), certain, int64(changeset.MaxVersion))
		if err != nil {
			return nil, err
		}
		own = max(own, toInt64(rows[0][0]))
	}
	if err := e.setMeta(metaHigh, max(v.high, v.newest())); err != nil {
		return nil, err
	}
	if err := e.setMeta(metaOwnHigh, own); err != nil {
		return nil, err
	}
	if certain > 0 {
		if err := e.exec("INSERT INTO main.crmesh_vector VALUES (?, ?) ON CONFLICT DO UPDATE SET version = max(version, excluded.version)",
			siteBytes(done.old), certain); err != nil {
			return nil, err
		}
	}
	for _, sql := range []string{
		// A claim for the new site there cannot be. What was reached in the walks of others was reached while they left out
		// what the old site was said to have: they start anew, and still leave out what the vector covers.
		"DELETE FROM main.crmesh_resume",
		"DELETE FROM main.crmesh_meta WHERE key = '" + metaCertain + "'",
	} {
		if err := e.exec(sql); err != nil {
			return nil, err
		}
	}
	done.took = time.Since(begun)
	return done, nil
}

// logFormerOwn records the own entries up to certain as the old site's, and returns how many they are.
func (e *engine) logFormerOwn(old changeset.SiteID, certain int64) (int64, error) {
	const count = "SELECT count(*) FROM main.crmesh_log"
	before, err := e.query(count)
	if err != nil {
		return 0, err
	}
	for _, clock := range e.clockTables {
		if err := e.exec(fmt.Sprintf(`INSERT OR IGNORE INTO main.crmesh_log
			SELECT DISTINCT db_version, ?, db_version FROM main.%s WHERE db_version BETWEEN 1 AND ?`, ident(clock)), siteBytes(old), certain); err != nil {
			return 0, err
		}
	}
	after, err := e.query(count)
	if err != nil {
		return 0, err
	}
	return toInt64(after[0][0]) - toInt64(before[0][0]), nil
}

// replaceSite makes a new id the database's own, and gives the old one an ordinal like that of any other site.
func (e *engine) replaceSite() (changeset.SiteID, error) {
	id, err := randomSite()
	if err != nil {
		return "", err
	}
	rows, err := e.query("SELECT max(ordinal) + 1 FROM main.crsql_site_id")
	if err != nil {
		return "", err
	}
	ordinal := toInt64(rows[0][0])
	if ordinal <= 0 {
		return "", errors.New("crsql_site_id was changed by hand: its highest ordinal leaves no room for another")
	}
	if err := e.exec("UPDATE main.crsql_site_id SET ordinal = ? WHERE ordinal = 0", ordinal); err != nil {
		return "", err
	}
	if err := e.exec("INSERT INTO main.crsql_site_id (site_id, ordinal) VALUES (?, 0)", id); err != nil {
		return "", err
	}
	for _, clock := range e.clockTables {
		if err := e.exec("UPDATE main."+ident(clock)+" SET site_id = ? WHERE site_id = 0", ordinal); err != nil {
			return "", err
		}
	}
	// Other connections see another data_version; this one reads all of it again at its next statement.
	e.dataVersion = unknown
	e.outdate()
	return changeset.SiteID(id), nil
}
