//go:build sqlite_vtable || vtable

package crsql

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/mattn/go-sqlite3"
)

// changesModule is crsql_changes as a virtual table. It is for what cannot name the temporary view (view.go): views and
// triggers of the schema, and main.crsql_changes. All else goes to the view, which costs less.
type changesModule struct {
	readOnly
	e *engine
}

// EponymousOnlyModule says that it needs no CREATE VIRTUAL TABLE, and allows none.
func (*changesModule) EponymousOnlyModule() {}

func (m *changesModule) Create(c *sqlite3.SQLiteConn, args []string) (sqlite3.VTab, error) {
	return m.Connect(c, args)
}

func (m *changesModule) Connect(c *sqlite3.SQLiteConn, _ []string) (sqlite3.VTab, error) {
	return &changesTable{e: m.e}, c.DeclareVTab(`CREATE TABLE x("table" TEXT NOT NULL, pk BLOB NOT NULL, cid TEXT NOT NULL, val ANY, ` +
		`col_version INTEGER NOT NULL, db_version INTEGER NOT NULL, site_id BLOB NOT NULL, cl INTEGER NOT NULL, seq INTEGER NOT NULL)`)
}

type changesTable struct {
	readOnly
	e *engine
}

func (*changesTable) Destroy() error                      { return nil }
func (t *changesTable) Open() (sqlite3.VTabCursor, error) { return &changesCursor{e: t.e}, nil }

// The columns of crsql_changes that a condition is handed down for, by index, and the operators.
var (
	changesIndexed = map[int]string{2: "cid", 4: "col_version", 5: "db_version", 6: "site_id", 7: "cl", 8: "seq"}
	changesOps     = map[sqlite3.Op]string{
		sqlite3.OpEQ: "=", sqlite3.OpGT: ">", sqlite3.OpGE: ">=", sqlite3.OpLT: "<", sqlite3.OpLE: "<=",
		sqlite3.OpNE: "<>", sqlite3.OpIS: "IS", sqlite3.OpISNOT: "IS NOT",
	}
)

// What is known of how many rows a query reads.
const (
	changesSome = 10      // that are newer than a version
	changesAll  = 1 << 31 // that there may be
)

func (t *changesTable) BestIndex(constraints []sqlite3.InfoConstraint, order []sqlite3.InfoOrderBy) (*sqlite3.IndexResult, error) {
	result := &sqlite3.IndexResult{Used: make([]bool, len(constraints)), EstimatedCost: changesAll, EstimatedRows: changesAll}
	var conditions []string
	for i, c := range constraints {
		column, op := changesIndexed[c.Column], changesOps[c.Op]
		if !c.Usable || column == "" || op == "" {
			continue
		}
		result.Used[i] = true
		conditions = append(conditions, column+" "+op+" ?")
		if column == "db_version" {
			result.EstimatedCost, result.EstimatedRows = changesSome, changesSome
		}
	}
	if len(conditions) > 0 {
		result.IdxStr = " WHERE " + strings.Join(conditions, " AND ")
	}
	sorted := len(order) <= 2
	for i, o := range order {
		sorted = sorted && !o.Desc && changesIndexed[o.Column] == []string{"db_version", "seq"}[min(i, 1)]
	}
	result.AlreadyOrdered = sorted
	return result, nil
}

// Insert merges the change in a row, as INSERT INTO the view does.
func (t *changesTable) Insert(_ any, row []any) (int64, error) {
	_, err := t.e.safely("crsql_changes", func() (any, error) { return t.e.mergeRow(row) })
	if err != nil {
		return 0, fmt.Errorf("crsql_changes: %w", err)
	}
	return 0, nil
}

var errChangesFixed = errors.New("crsql_changes: rows can be read and inserted, not updated or deleted")

// Update refuses.
func (*changesTable) Update(any, []any) error { return errChangesFixed }

// Delete refuses.
func (*changesTable) Delete(any) error { return errChangesFixed }

// A changesCursor reads changes, in the order of db_version and seq.
type changesCursor struct {
	e    *engine
	sql  string // of st
	st   *statement
	rows driver.Rows
	row  []driver.Value // rowid, and the columns; nil at the end
}

// changesSlab is the distance of the rowids of a table's changes from those of the next: the stock engine's. A rowid is
// the short key of the row that a change is about.
const changesSlab = 10_000_000_000_000

func (c *changesCursor) Filter(_ int, where string, args []any) (err error) {
	defer rescue("crsql_changes", &err)
	if err := c.endRows(); err != nil {
		return err
	}
	if err := c.e.refresh(); err != nil {
		return err
	}
	sql := "WITH changes(id, " + changesColumns + ") AS (" +
		c.e.allChangesSQL(func(i int) string { return "c.key + " + strconv.Itoa(i*changesSlab) + ", " }) +
		") SELECT * FROM changes" + where + " ORDER BY db_version, seq"
	if sql != c.sql {
		c.endStatement()
		if c.st, err = prepare(c.e.sqlite, sql); err != nil {
			return err
		}
		c.sql = sql
	}
	values := make([]driver.Value, len(args))
	for i, arg := range args {
		values[i] = arg
	}
	if err := c.st.bind(values); err != nil {
		return err
	}
	if c.rows, err = c.st.sqlite.QueryContext(context.Background(), c.st.args); err != nil {
		return err
	}
	c.row = make([]driver.Value, len(c.rows.Columns()))
	return c.Next()
}

func (c *changesCursor) Next() (err error) {
	defer rescue("crsql_changes", &err)
	if err = c.rows.Next(c.row); err == nil {
		return nil
	}
	c.row = nil
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return errors.Join(err, c.endRows())
}

func (c *changesCursor) EOF() bool { return c.row == nil }

func (c *changesCursor) Column(context *sqlite3.SQLiteContext, column int) (err error) {
	defer rescue("crsql_changes", &err)
	setResult(context, fromDriver(c.row[1+column]))
	return nil
}

func (c *changesCursor) Rowid() (int64, error) { return toInt64(c.row[0]), nil }

func (c *changesCursor) Close() (err error) {
	defer rescue("crsql_changes", &err)
	err = c.endRows()
	c.endStatement()
	return err
}

func (c *changesCursor) endRows() error {
	if c.rows == nil {
		return nil
	}
	rows := c.rows
	c.rows = nil
	return rows.Close()
}

func (c *changesCursor) endStatement() {
	if c.st != nil {
		c.st.close()
		c.st, c.sql = nil, ""
	}
}
