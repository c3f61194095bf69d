package crsql

import (
	"fmt"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// currentVersion returns crsql_db_version(): the highest db_version of all clock tables and of pre_compact_dbversion, as
// of the last commit. An UPDATE that changed nothing may have raised it further, until the next commit without rows.
func (e *engine) currentVersion() (int64, error) {
	if err := e.refresh(); err != nil {
		return 0, err
	}
	if e.dbVersion != unknown {
		return e.dbVersion, nil
	}
	version, err := e.storedFloor()
	if err != nil {
		return 0, err
	}
	version = max(version, e.floor)
	for _, name := range e.clockTables {
		n, err := e.newestOf(name)
		if err != nil {
			return 0, err
		}
		version = max(version, n)
	}
	e.dbVersion = max(version, 0)
	return e.dbVersion, nil
}

// newestOf returns the highest db_version in a table of clocks, 0 if there is none. Numbers that are no versions, which
// the stock engine takes from anybody, do not count: there would be none above them.
func (e *engine) newestOf(clock string) (int64, error) {
	st, err := e.stmts.get(statementKey{kind: stmtMaxVersion, cols: clock}, func() string {
		return fmt.Sprintf("SELECT max(db_version) FROM main.%s WHERE db_version <= %d", ident(clock), int64(changeset.MaxVersion))
	})
	if err != nil {
		return 0, err
	}
	n, _, err := st.int64()
	return n, err
}

// maxRaise bounds how far a merged change's own db_version raises this database's: half the way to the end. No peer can
// use up the numbers, which would leave none for what is written here.
const maxRaise = changeset.MaxVersion / 2

// storedFloor returns pre_compact_dbversion, below which cr-sqlite's next db_version never falls; 0 if there is none.
func (e *engine) storedFloor() (int64, error) {
	st, err := e.stmts.get(statementKey{kind: stmtVersionFloor}, func() string {
		return "SELECT value FROM main.crsql_master WHERE key = 'pre_compact_dbversion'"
	})
	if err != nil {
		return 0, err
	}
	floor, _, err := st.int64()
	return floor, err
}

// liftFloor makes cr-sqlite, here and in other programs, give its next commit a db_version above floor.
func (e *engine) liftFloor(floor int64) error {
	present, err := e.storedFloor()
	if err != nil || present >= floor {
		return err
	}
	e.pending, e.unsure = max(e.pending, floor), true // go on from there; after the commit it is read again
	return e.exec("INSERT INTO main.crsql_master VALUES ('pre_compact_dbversion', ?) ON CONFLICT DO UPDATE SET value = excluded.value", floor)
}

// keepVersion keeps the db_version from falling when clocks are dropped, which is to be done next: numbers would come
// back with other content, and a peer that has seen them never asks again. The stock engine lets it fall.
func (e *engine) keepVersion() error {
	current, err := e.currentVersion()
	if err != nil {
		return err
	}
	return e.liftFloor(max(current, e.pending))
}

// nextVersion returns the db_version for a row written now: above the last commit's, the same for all local rows of a
// transaction, and never below atLeast, a merged row's.
func (e *engine) nextVersion(atLeast int64) (int64, error) {
	if atLeast > changeset.MaxVersion {
		return 0, fmt.Errorf("the db_version %d is too large: at most %d", atLeast, changeset.MaxVersion)
	}
	current, err := e.currentVersion()
	if err != nil {
		return 0, err
	}
	next := max(current+1, e.pending, atLeast)
	if next > changeset.MaxVersion {
		return 0, fmt.Errorf("the database has used up its versions: it has reached %d; move its rows to a new one", current)
	}
	e.pending = next
	return next, nil
}

// nextSeq returns the first of n consecutive seq numbers of this transaction.
func (e *engine) nextSeq(n int) int64 {
	first := e.seq
	e.seq += int64(n)
	return first
}
