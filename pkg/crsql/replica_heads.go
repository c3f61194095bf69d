package crsql

import (
	"context"
	"database/sql/driver"
	"fmt"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// versions is what a database holds of local versions at one moment.
type versions struct {
	clocks  int64 // highest of the clock tables
	parked  int64 // highest of the parked changes
	high    int64 // highest that was ever reported; a version above it was committed by another program just now
	ownHigh int64 // highest own one that was ever reported
	unmet   int64 // the own version at the first open since a peer was met; unknown: one was met
}

func (v versions) newest() int64 { return max(v.clocks, v.parked) }
func (v versions) heads() Heads  { return Heads{Own: v.ownHigh, Newest: v.newest()} }

// readVersions reads them in the session's transaction.
func (e *engine) readVersions() (versions, error) {
	v := versions{unmet: unknown}
	for _, clock := range e.clockTables {
		n, err := e.newestOf(clock)
		if err != nil {
			return v, err
		}
		v.clocks = max(v.clocks, n)
	}
	var err error
	if v.parked, err = e.number(stmtNewest, "SELECT max(local_version) FROM main.crmesh_parked"); err != nil {
		return v, err
	}
	st, err := e.stmts.get(statementKey{kind: stmtHighWaters}, func() string {
		return "SELECT key, value FROM main.crmesh_meta WHERE key IN (" + metaVersions + ")"
	})
	if err != nil {
		return v, err
	}
	return v, st.each(nil, func(row []driver.Value) error {
		switch toText(row[0]) {
		case metaHigh:
			v.high = toInt64(row[1])
		case metaOwnHigh:
			v.ownHigh = toInt64(row[1])
		default:
			v.unmet = toInt64(row[1])
		}
		return nil
	})
}

// seal runs at the end of each write transaction. It stores the high waters, so that nothing is ever reported that a
// restart would forget, and lifts the floor of the next db_version where the clocks have fallen below them.
func (r *Replica) seal(s *session) error {
	v, err := s.seal()
	if err != nil || v.unmet == unknown || !r.met.Load() {
		return err
	}
	return s.engine.exec("DELETE FROM main.crmesh_meta WHERE key = '" + metaUnmet + "'")
}

// seal is that for what is there by now, and returns the versions, as they are sealed.
func (s *session) seal() (versions, error) {
	if err := s.current(); err != nil { // the transaction may have changed the schema
		return versions{}, err
	}
	e := s.engine
	v, err := e.readVersions()
	if err != nil {
		return v, err
	}
	if newest := v.newest(); newest > v.high {
		// An applier stores the high water of what it applies: this was written here, or by another program.
		v.high, v.ownHigh = newest, newest
		if err := e.setMeta(metaHigh, v.high); err != nil {
			return v, err
		}
		if err := e.setMeta(metaOwnHigh, v.ownHigh); err != nil {
			return v, err
		}
	}
	if v.clocks < v.high {
		return v, e.liftFloor(v.high)
	}
	return v, nil
}

func (e *engine) setMeta(key string, n int64) error {
	return e.write(stmtSetMeta, "INSERT INTO main.crmesh_meta VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", key, n)
}

// metaNumber returns a number of crmesh_meta, 0 where there is none.
func (e *engine) metaNumber(key string) (int64, error) {
	return e.number(stmtMeta, "SELECT value FROM main.crmesh_meta WHERE key = ?", key)
}

// settled runs f in a snapshot whose local versions are all within the high waters. Where another program has committed
// since, they are stored first.
func (r *Replica) settled(ctx context.Context, f func(*session, versions) error) error {
	const attempts = 10 // another program may commit between any two
	for range attempts {
		done := false
		err := r.db.snapshot(ctx, func(s *session) error {
			v, err := s.engine.readVersions()
			if err != nil || v.newest() > v.high {
				return err
			}
			done = true
			r.remember(s.engine.siteID, v.ownHigh) // before anybody hears of it
			return f(s, v)
		})
		if err != nil || done {
			return err
		}
		if err := r.db.transact(ctx, func(*session) error { return nil }); err != nil { // seals
			return err
		}
	}
	return fmt.Errorf("another program writes to the database without pause: it could not be read in %d attempts", attempts)
}

// Heads returns how far the database is. It costs little.
func (r *Replica) Heads(ctx context.Context) (Heads, error) {
	var heads Heads
	err := r.settled(ctx, func(_ *session, v versions) error {
		heads = v.heads()
		return nil
	})
	return heads, err
}

// State returns what a replica starts from.
func (r *Replica) State(ctx context.Context) (State, error) {
	var state State
	err := r.settled(ctx, func(s *session, v versions) (err error) {
		state = State{Site: s.engine.siteID, Heads: v.heads()}
		if state.Vector, err = s.engine.siteNumbers("SELECT site, version FROM main.crmesh_vector"); err != nil {
			return err
		}
		if state.Resume, err = s.engine.siteNumbers("SELECT site, reached FROM main.crmesh_resume"); err != nil {
			return err
		}
		parked, err := s.engine.parkedSum()
		if err != nil {
			return err
		}
		tried, err := s.engine.metaNumber(metaTried)
		if err != nil {
			return err
		}
		state.Parked, state.Untried = parked.changes, parked.changes > 0 && tried != s.engine.schemaVersion
		state.Schema, err = r.readSchema(s.engine)
		return err
	})
	return state, err
}

func (e *engine) siteNumbers(sql string) (map[changeset.SiteID]int64, error) {
	rows, err := e.query(sql)
	if err != nil {
		return nil, err
	}
	numbers := make(map[changeset.SiteID]int64, len(rows))
	for _, row := range rows {
		numbers[changeset.SiteID(toBytes(row[0]))] = toInt64(row[1])
	}
	return numbers, nil
}

// Commits returns the DB's channel of commits. See DB.Commits.
func (r *Replica) Commits() <-chan struct{} { return r.db.Commits() }
