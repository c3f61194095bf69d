package crsql

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// A renewal is what renew did, for the log.
type renewal struct {
	reason     string
	old, new   changeset.SiteID
	entries    int64 // that keep the old site as their origin
	reasserted int64 // cells that were written anew
	own        int64 // the highest own version afterwards
	took       time.Duration
}

// Renew gives the database a new site id, because others have seen writes of its site that it does not hold, or another
// live database has the same one: reason says which, in the log's one line. All that the database holds stays.
//
// Own versions up to the one at which the database was opened keep the old site as their origin. Above it, another file may
// have used the same numbers for other writes, which nobody can tell apart. What is left of those own writes here is therefore written
// anew, as one commit of the new site: no value changes, but every clock rises, so that each replica takes it, whatever it
// holds under the old numbers, and passes it on. A concurrent change of such a cell may lose to it as to any later write.
//
// No trigger fires. All is one transaction: a crash leaves the old site or the new one. It blocks as DB.Write does, for a time in
// proportion to the clocks that the database holds. A database that knows as many sites as it can is refused, and the error wraps ErrLimit.
func (r *Replica) Renew(ctx context.Context, reason string) error {
	var done *renewal
	err := r.db.transact(ctx, func(s *session) error {
		// What is there by now was written under the old site, and may have been reported.
		v, err := s.seal()
		if err != nil {
			return err
		}
		certain, err := s.engine.certain(v)
		if err != nil {
			return err
		}
		done, err = s.engine.renew(v, min(certain, r.openedAt()), reason)
		return err
	})
	if err != nil {
		return fmt.Errorf("give the database a new site id, because %s: %w", reason, err)
	}
	r.met.Store(true)
	r.mu.Lock()
	r.opened = done.own
	r.mu.Unlock()
	r.remember(done.new, done.own)
	r.db.logRenewal(done)
	return nil
}

func (r *Replica) openedAt() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.opened
}

func (db *DB) logRenewal(done *renewal) {
	db.log.Warn("the database goes on under a new site id: "+done.reason, "old", done.old.String(), "new", done.new.String(),
		"entries", done.entries, "reasserted", done.reasserted, "took", done.took.Round(time.Millisecond))
}

// renew gives the database a new site id in the open transaction. What it wrote under the old one up to version certain
// stays what it is to others: (old site, L), now recorded in crmesh_log, and a claim of the old site up to there. Own
// versions above that were reported may have other content in another file of the old site: they are written anew, see
// reassert. Those above the own high water nobody knows yet. They stay own entries, and are offered under the new site.
//
// The clocks of cr-sqlite name sites by ordinal, and ordinal 0 is the database's own: the old site gets another one, in
// crsql_site_id and in each clock. All of it is one transaction, so that a crash leaves the old site or the new one and
// nothing between; its time and the room that it takes in the write-ahead log are in proportion to the clocks.
func (e *engine) renew(v versions, certain int64, reason string) (*renewal, error) {
	begun := time.Now()
	done := &renewal{reason: reason, old: e.siteID}
	if err := e.roomForSite(done.old); err != nil {
		return nil, err
	}
	var err error
	if done.entries, err = e.logFormerOwn(done.old, certain); err != nil {
		return nil, err
	}
	if done.new, err = e.replaceSite(); err != nil {
		return nil, err
	}
	high := max(v.high, v.newest())
	if done.reasserted, err = e.reassert(certain, v.ownHigh, high+1); err != nil {
		return nil, err
	}
	if done.reasserted > 0 {
		high++
	}
	for _, clock := range e.clockTables {
		rows, err := e.query(fmt.Sprintf(`SELECT max(db_version) FROM main.%s WHERE db_version > ? AND db_version <= ?
			AND db_version NOT IN (SELECT local_version FROM main.crmesh_log)`, ident(clock)), certain, int64(changeset.MaxVersion))
		if err != nil {
			return nil, err
		}
		done.own = max(done.own, toInt64(rows[0][0]))
	}
	if err := e.setMeta(metaHigh, high); err != nil {
		return nil, err
	}
	if err := e.setMeta(metaOwnHigh, done.own); err != nil {
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
		"DELETE FROM main.crmesh_meta WHERE key IN ('" + metaCertain + "', '" + metaUnmet + "')",
	} {
		if err := e.exec(sql); err != nil {
			return nil, err
		}
	}
	done.took = time.Since(begun)
	return done, nil
}

// roomForSite refuses a renewal that would make the vector longer than peers take. The old site's entry stays in it for
// good, and the new one is the database's own.
func (e *engine) roomForSite(old changeset.SiteID) error {
	rows, err := e.query("SELECT count(*) FROM main.crmesh_vector WHERE site <> ?", siteBytes(old))
	if err != nil {
		return err
	}
	if n := toInt64(rows[0][0]); n+2 > MaxSites {
		return fmt.Errorf("it knows %d sites already, and with a new id they would be more than the %d that peers take: "+
			"let a new, empty database take its place, and fetch the rows from the room: %w", n+1, MaxSites, ErrLimit)
	}
	return nil
}

// reassert writes own cells anew that have a version above certain and up to ownHigh: under local version l, by the new
// site, and with clocks that beat what others may hold under those versions. It returns how many.
//
// A column's version rises by one. Where a row's causal length is all that is in doubt, which is so for what was deleted and
// for rows that have nothing but a key, that rises by two, so that a delete stays a delete; and all columns of the row come
// along, since receivers set theirs to zero. Where columns are in doubt as well, they carry the causal length to others.
func (e *engine) reassert(certain, ownHigh, l int64) (int64, error) {
	const doubtful = `db_version > ?1 AND db_version <= ?2 AND db_version NOT IN (SELECT local_version FROM main.crmesh_log)`
	total := int64(0)
	for _, name := range e.clockTables {
		clock := "main." + ident(name)
		rows, err := e.query("SELECT 1 FROM "+clock+" WHERE "+doubtful+" LIMIT 1", certain, ownHigh)
		if err != nil {
			return 0, err
		}
		if len(rows) == 0 {
			continue
		}
		if l > changeset.MaxVersion {
			return 0, fmt.Errorf("the database has used up its versions: it has reached %d", l-1)
		}
		for _, step := range []struct {
			sql  string
			args []driver.Value
		}{
			{"UPDATE " + clock + " SET col_version = iif(col_version <= " + maxVersion + " - 2, col_version + 2, col_version), db_version = ?3, site_id = 0 " +
				"WHERE " + doubtful + " AND col_name = " + sentinel + " AND key NOT IN " +
				"(SELECT key FROM " + clock + " WHERE " + doubtful + " AND col_name <> " + sentinel + ")", []driver.Value{certain, ownHigh, l}},
			{"UPDATE " + clock + " SET col_version = min(col_version + 1, " + maxVersion + "), db_version = ?1, site_id = 0 " +
				"WHERE col_name <> " + sentinel + " AND key IN (SELECT key FROM " + clock + " WHERE db_version = ?1)", []driver.Value{l}},
			{"UPDATE " + clock + " SET col_version = min(col_version + (col_name <> " + sentinel + "), " + maxVersion + "), db_version = ?3, site_id = 0 " +
				"WHERE " + doubtful, []driver.Value{certain, ownHigh, l}},
			{"UPDATE " + clock + " SET seq = d.n FROM (SELECT key AS k, col_name AS c, ?2 + row_number() OVER (ORDER BY key, seq) - 1 AS n " +
				"FROM " + clock + " WHERE db_version = ?1) AS d WHERE key = d.k AND col_name = d.c", []driver.Value{l, total}},
		} {
			if err := e.exec(step.sql, step.args...); err != nil {
				return 0, err
			}
		}
		if rows, err = e.query("SELECT count(*) FROM "+clock+" WHERE db_version = ?", l); err != nil {
			return 0, err
		}
		total += toInt64(rows[0][0])
	}
	return total, nil
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
	e.dataVersion, e.resited = unknown, true
	e.outdate()
	return changeset.SiteID(id), nil
}
