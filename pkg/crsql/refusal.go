package crsql

import (
	"errors"

	"github.com/mattn/go-sqlite3"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

func refuse(c *changeset.Change, index int, reason string, err error) *ChangeError {
	return &ChangeError{Index: index, Table: c.Table, PK: c.PK, CID: c.CID, Reason: reason, Err: err}
}

func refuseAll(run []changeset.Change, offset int, reason string, err error) ChangeErrors {
	failed := make(ChangeErrors, len(run))
	for i := range run {
		failed[i] = refuse(&run[i], offset+i, reason, err)
	}
	return failed
}

// A refusal is the base table's no to what a merge writes to it, before anything else is written.
type refusal struct{ err error }

func (r refusal) Error() string { return r.err.Error() }

func (r refusal) Unwrap() error { return r.err }

// refused reports whether err is a refusal that left the transaction as it was.
func (m *rowMerge) refused(err error) bool {
	return errors.As(err, new(refusal)) && m.e.sqlite.AutoCommit() == m.e.mergeAuto
}

// refusable reports whether err says something about the row, rather than about the database or the machine.
func (e *engine) refusable(err error) bool {
	var sqlite sqlite3.Error
	if e.full || !errors.As(err, &sqlite) {
		return false
	}
	switch sqlite.Code {
	case sqlite3.ErrError, sqlite3.ErrConstraint, sqlite3.ErrMismatch, sqlite3.ErrTooBig, sqlite3.ErrRange:
		return true
	}
	return false
}
