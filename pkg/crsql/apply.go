package crsql

import (
	"errors"
	"fmt"
	"strings"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// ErrBusy is returned where a trigger that a merge, or the writing of clocks, set off tries to do the same on the
// connection.
var ErrBusy = errors.New("a trigger cannot write to crsql_changes, or to a CRR's clocks, while they are being written")

// A ChangeError says why one change cannot be applied to this database: its table or column is unknown here, its packed
// key does not parse, a number is out of range, or a constraint of the table refuses the value. Nothing of that change
// has been written, and the transaction can go on.
type ChangeError struct {
	Index  int    // of the change in the slice that was applied
	Table  string // the change's
	PK     []byte // the change's, packed; not to be modified
	CID    string // the change's
	Reason string // a sentence without its full stop
	Err    error  // the underlying error, if there is one
}

// Key returns the values of the change's primary key as SQL, such as (1, 'ab'), cut to about 100 characters. One that
// does not parse is shown as a blob.
func (e *ChangeError) Key() string { return keyText(e.PK) }

// Error returns the table, the key, the column, the reason and the underlying error. Long names are cut.
func (e *ChangeError) Error() string {
	reason := e.Reason
	if e.Err != nil {
		reason += ": " + e.Err.Error()
	}
	return fmt.Sprintf("change to table %s, key %s, column %s: %s", nameText(e.Table), e.Key(), nameText(e.CID), reason)
}

// Unwrap returns the underlying error.
func (e *ChangeError) Unwrap() error { return e.Err }

// ChangeErrors are the changes that could not be applied, in order of Index. All others have been.
type ChangeErrors []*ChangeError

// Error joins the reasons of the first few.
func (e ChangeErrors) Error() string {
	const shown = 3
	var b strings.Builder
	for i, err := range e {
		if i == shown {
			fmt.Fprintf(&b, "; and %d more", len(e)-shown)
			break
		}
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(err.Error())
	}
	return b.String()
}

// Unwrap returns them one by one, for errors.As with a *ChangeError.
func (e ChangeErrors) Unwrap() []error {
	errs := make([]error, len(e))
	for i, err := range e {
		errs[i] = err
	}
	return errs
}

// applyChanges merges changes on this connection, inside the transaction that the caller has open, in order. It stores
// the winners under dbVersion, or under the transaction's own next version if that is higher (crsql_next_db_version);
// the changes' own DBVersion is ignored. It returns how many rows were impacted, as crsql_rows_impacted counts, and adds
// them to that.
//
// Changes that cannot be applied here are left out and returned as ChangeErrors: the rest is applied, and the caller
// may park those and commit. After any other error the caller must roll back.
//
// Consecutive changes to one row cost least: they are decided together and written with one statement a table.
func (e *engine) applyChanges(dbVersion int64, changes []changeset.Change) (impacted int64, err error) {
	e.fresh, e.multi = e.freshTx, false
	if err := e.refresh(); err != nil {
		return 0, err
	}
	impacted, err = e.merge(dbVersion, changes)
	if err != nil && !errors.As(err, new(ChangeErrors)) {
		e.forget()
	}
	return impacted, err
}

// merge does the work of applyChanges, and of INSERT INTO crsql_changes. The engine is fresh.
func (e *engine) merge(dbVersion int64, changes []changeset.Change) (impacted int64, err error) {
	if e.merging {
		return 0, ErrBusy
	}
	if dbVersion > changeset.MaxVersion {
		return 0, fmt.Errorf("the db_version %d is too large: at most %d", dbVersion, changeset.MaxVersion)
	}
	before := e.syncBit
	e.merging, e.mergeAuto, e.syncBit, e.full = true, e.sqlite.AutoCommit(), 1, false
	defer func() {
		e.merging, e.syncBit = false, before
		e.merger.ahead.reset(nil)
	}()

	e.merger.ahead.reset(changes)
	var failed ChangeErrors
	for start := 0; start < len(changes); {
		end := start + 1
		for end < len(changes) && sameRow(&changes[start], &changes[end]) {
			end++
		}
		n, errs, err := e.mergeRun(dbVersion, changes[start:end], start)
		impacted += n
		e.rowsImpacted += n
		if err != nil {
			return impacted, err
		}
		failed = append(failed, errs...)
		start = end
	}
	if len(failed) > 0 {
		return impacted, failed
	}
	return impacted, nil
}

func sameRow(a, b *changeset.Change) bool {
	return a.Table == b.Table && string(a.PK) == string(b.PK)
}
