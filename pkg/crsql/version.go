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
	st, err := e.stmts.get(statementKey{kind: stmtVersionFloor}, func() string {
		return "SELECT value FROM main.crsql_master WHERE key = 'pre_compact_dbversion'"
	})
	if err != nil {
		return 0, err
	}
	version, _, err := st.int64()
	if err != nil {
		return 0, err
	}
	for _, name := range e.clockTables {
		st, err := e.stmts.get(statementKey{kind: stmtMaxVersion, cols: name}, func() string {
			return "SELECT max(db_version) FROM main." + ident(name)
		})
		if err != nil {
			return 0, err
		}
		n, _, err := st.int64()
		if err != nil {
			return 0, err
		}
		version = max(version, n)
	}
	e.dbVersion = max(version, 0)
	return e.dbVersion, nil
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
	e.pending = max(current+1, e.pending, atLeast)
	return e.pending, nil
}

// nextSeq returns the first of n consecutive seq numbers of this transaction.
func (e *engine) nextSeq(n int) int64 {
	first := e.seq
	e.seq += int64(n)
	return first
}
