package crsql

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// changeColumns are the columns of crsql_changes.
var changeColumns = [...]string{"table", "pk", "cid", "val", "col_version", "db_version", "site_id", "cl", "seq"}

// A directMerge is a prepared INSERT INTO crsql_changes of one row of parameters. Within a transaction its changes are
// merged without a detour through SQLite's view, trigger and function, which costs more than the merge.
type directMerge struct {
	order [len(changeColumns)]int // of each column: which parameter it gets
}

// readDirectMerge returns nil for a statement that is anything else.
func readDirectMerge(query string) *directMerge {
	st, err := oneStatement(query)
	if err != nil {
		return nil
	}
	scanner := newSQLScanner(st.sql)
	next := func(want string) bool {
		_, text, err := scanner.significant()
		return err == nil && strings.EqualFold(text, want)
	}
	if !next("INSERT") || !next("INTO") || !next("crsql_changes") {
		return nil
	}
	d := &directMerge{}
	for i := range d.order {
		d.order[i] = i
	}
	_, text, err := scanner.significant()
	if err == nil && text == "(" {
		if !d.readColumns(scanner) {
			return nil
		}
		_, text, err = scanner.significant()
	}
	if err != nil || !strings.EqualFold(text, "VALUES") || !next("(") {
		return nil
	}
	for i := range d.order {
		if !next("?") || i+1 < len(d.order) && !next(",") {
			return nil
		}
	}
	if !next(")") {
		return nil
	}
	if kind, _, _ := scanner.significant(); kind != tokenEnd {
		return nil
	}
	return d
}

// readColumns reads a list of all columns in any order, behind its parenthesis.
func (d *directMerge) readColumns(scanner *sqlScanner) bool {
	var seen [len(changeColumns)]bool
	for i := range changeColumns {
		kind, text, err := scanner.significant()
		if err != nil || kind != tokenWord && kind != tokenQuoted {
			return false
		}
		column := indexFold(changeColumns[:], unquote(text))
		if column < 0 || seen[column] {
			return false
		}
		seen[column], d.order[column] = true, i
		want := ","
		if i+1 == len(changeColumns) {
			want = ")"
		}
		if _, text, err := scanner.significant(); err != nil || text != want {
			return false
		}
	}
	return true
}

func indexFold(list []string, s string) int {
	for i, item := range list {
		if strings.EqualFold(item, s) {
			return i
		}
	}
	return -1
}

// change returns the change that the arguments make; false if the driver would convert one of them first.
func (d *directMerge) change(args []driver.NamedValue) (changeset.Change, bool) {
	if len(args) != len(d.order) {
		return changeset.Change{}, false
	}
	var row [len(changeColumns)]any
	for column, i := range d.order {
		switch args[i].Value.(type) {
		case nil, int64, float64, string, []byte:
		default:
			return changeset.Change{}, false
		}
		if args[i].Name != "" {
			return changeset.Change{}, false
		}
		row[column] = args[i].Value
	}
	return changeOfRow(row[:]), true
}

// changeOfRow returns a row of crsql_changes as a change.
func changeOfRow(row []any) changeset.Change {
	return changeset.Change{
		Table: toText(row[0]), PK: toBytes(row[1]), CID: toText(row[2]), Val: fromDriver(row[3]),
		ColVersion: toInt64(row[4]), DBVersion: toInt64(row[5]), Site: changeset.SiteID(toBytes(row[6])),
		CL: toInt64(row[7]), Seq: toInt64(row[8]),
	}
}

// mergeDirect merges a change within the transaction that is open, as a statement. An error undoes the statement; where
// half of a change has been written, which takes a full disk or the like, it undoes the transaction.
func (c *conn) mergeDirect(ctx context.Context, t text, args []driver.NamedValue, change changeset.Change) (driver.Result, error) {
	w, err := c.start(ctx, t, args)
	if err != nil {
		return nil, err
	}
	e := c.engine
	err = e.mergeOne(change)
	w.work(false) // half a change is undone, whatever ctx says
	if err != nil && e.merger.half {
		if undo := e.exec("ROLLBACK"); undo != nil {
			err = errors.Join(err, undo)
		} else {
			err = fmt.Errorf("the transaction was rolled back: %w", err)
		}
	}
	if err := c.finish(ctx, t, w, err); err != nil {
		return nil, err
	}
	return driver.RowsAffected(1), nil
}

// mergeOne merges a change as a statement of its own does.
func (e *engine) mergeOne(change changeset.Change) error {
	if err := e.refresh(); err != nil {
		return err
	}
	e.mergeList[0] = change
	version := change.DBVersion
	if version <= changeset.MaxVersion { // beyond that it is refused
		version = min(version, maxRaise)
	}
	_, err := e.merge(version, e.mergeList[:])
	return err
}
