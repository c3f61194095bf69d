//go:build sqlite_vtable || vtable

package crsql

import (
	"errors"
	"fmt"
	"strings"

	"github.com/mattn/go-sqlite3"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// HasVirtualTables reports whether the program was built with mattn/go-sqlite3's tag sqlite_vtable, and so has
// crsql_unpack_columns, clset, and crsql_changes in views and triggers of the schema. Nothing else depends on it.
const HasVirtualTables = true

// registerModules makes the virtual tables known to the connection.
func (e *engine) registerModules() error {
	if err := e.sqlite.CreateModule("crsql_unpack_columns", unpackModule{}); err != nil {
		return fmt.Errorf("crsql_unpack_columns: %w", err)
	}
	if err := e.sqlite.CreateModule("clset", &clsetModule{e}); err != nil {
		return fmt.Errorf("clset: %w", err)
	}
	if err := e.sqlite.CreateModule("crsql_changes", &changesModule{e: e}); err != nil {
		return fmt.Errorf("crsql_changes: %w", err)
	}
	return nil
}

// lacksModule says what a build without virtual tables lacks; this one lacks nothing.
func lacksModule(string) string { return "" }

// rescue makes a panic an error: it would have to pass through C code on its way up, which ends the process.
func rescue(name string, err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%s: internal error: %v", name, p)
	}
}

// readOnly is the part of a virtual table that ours have in common: nothing to set up or to give up.
type readOnly struct{}

func (readOnly) DestroyModule()    {}
func (readOnly) Disconnect() error { return nil }

// unpackModule is crsql_unpack_columns(package), a row for each value of a packed key.
type unpackModule struct{ readOnly }

// EponymousOnlyModule says that it needs no CREATE VIRTUAL TABLE, and allows none.
func (unpackModule) EponymousOnlyModule() {}

func (m unpackModule) Create(c *sqlite3.SQLiteConn, args []string) (sqlite3.VTab, error) {
	return m.Connect(c, args)
}

func (unpackModule) Connect(c *sqlite3.SQLiteConn, _ []string) (sqlite3.VTab, error) {
	return unpackTable{}, c.DeclareVTab("CREATE TABLE x(cell ANY, package BLOB HIDDEN)")
}

type unpackTable struct{ readOnly }

// The columns of crsql_unpack_columns.
const (
	unpackCell = iota
	unpackPackage
)

func (unpackTable) BestIndex(constraints []sqlite3.InfoConstraint, _ []sqlite3.InfoOrderBy) (*sqlite3.IndexResult, error) {
	// A plan without a package keeps SQLite's own estimate, which is beyond all others: it is taken if there is none else.
	result := &sqlite3.IndexResult{Used: make([]bool, len(constraints))}
	for i, c := range constraints {
		if c.Usable && c.Column == unpackPackage && c.Op == sqlite3.OpEQ {
			result.Used[i] = true
			result.EstimatedCost, result.EstimatedRows = 1, 2
			break
		}
	}
	return result, nil
}

func (unpackTable) Destroy() error                    { return nil }
func (unpackTable) Open() (sqlite3.VTabCursor, error) { return &unpackCursor{}, nil }

// An unpackCursor stands at one value of a package.
type unpackCursor struct {
	packed any // the argument
	values []changeset.Value
	at     int
}

func (u *unpackCursor) Close() error          { return nil }
func (u *unpackCursor) Next() error           { u.at++; return nil }
func (u *unpackCursor) EOF() bool             { return u.at >= len(u.values) }
func (u *unpackCursor) Rowid() (int64, error) { return int64(u.at), nil }

func (u *unpackCursor) Filter(_ int, _ string, args []any) (err error) {
	defer rescue("crsql_unpack_columns", &err)
	*u = unpackCursor{}
	if len(args) == 0 {
		return errors.New("crsql_unpack_columns: give the package: FROM crsql_unpack_columns(?)")
	}
	u.packed = args[0]
	packed := toBytes(args[0])
	if packed == nil {
		return fmt.Errorf("crsql_unpack_columns: a package is a blob that crsql_pack_columns made, not %v", args[0])
	}
	if len(packed) > 0 && packed[0] == 0 {
		return nil // what crsql_pack_columns() makes of no values
	}
	if u.values, err = changeset.ParsePacked(packed); err != nil {
		return fmt.Errorf("crsql_unpack_columns: %w", err)
	}
	return nil
}

func (u *unpackCursor) Column(c *sqlite3.SQLiteContext, column int) (err error) {
	defer rescue("crsql_unpack_columns", &err)
	v := changeset.Null()
	if column == unpackPackage {
		v = fromDriver(u.packed)
	} else if u.at < len(u.values) {
		v = u.values[u.at]
	}
	setResult(c, v)
	return nil
}

// setResult makes v what a virtual table gives for a column.
func setResult(c *sqlite3.SQLiteContext, v changeset.Value) {
	switch v := toDriver(v).(type) {
	case int64:
		c.ResultInt64(v)
	case float64:
		c.ResultDouble(v)
	case string:
		c.ResultText(v)
	case []byte:
		if len(v) == 0 {
			c.ResultZeroblob(0) // an empty blob would come out as NULL
		} else {
			c.ResultBlob(v)
		}
	default:
		c.ResultNull()
	}
}

// clsetModule makes a CRR and its tables with one statement, and drops them with one:
//
//	CREATE VIRTUAL TABLE note_schema USING clset(id INTEGER PRIMARY KEY NOT NULL, body)   -- the CRR note
//	DROP TABLE note_schema
//
// The virtual table stands for the schema. It has no rows.
type clsetModule struct{ e *engine }

// clsetSuffix ends the name of the virtual table; what is before it names the CRR.
const clsetSuffix = "_schema"

func (*clsetModule) DestroyModule() {}

func (m *clsetModule) Create(c *sqlite3.SQLiteConn, args []string) (table sqlite3.VTab, err error) {
	defer rescue("clset", &err)
	name, err := clsetBase(args)
	if err != nil {
		return nil, fmt.Errorf("clset: %w", err)
	}
	if table, err = m.connect(c, name); err != nil {
		return nil, err
	}
	if err := m.e.createSet(name, strings.Join(args[3:], ",")); err != nil {
		return nil, fmt.Errorf("clset: %w", err)
	}
	return table, nil
}

func (m *clsetModule) Connect(c *sqlite3.SQLiteConn, args []string) (table sqlite3.VTab, err error) {
	defer rescue("clset", &err)
	name, err := clsetBase(args)
	if err != nil {
		name = "" // it has been renamed, and stands for nothing; it can still be dropped
	}
	return m.connect(c, name)
}

func (m *clsetModule) connect(c *sqlite3.SQLiteConn, name string) (sqlite3.VTab, error) {
	return &clsetTable{e: m.e, name: name}, c.DeclareVTab("CREATE TABLE x(alteration TEXT HIDDEN, schema TEXT HIDDEN)")
}

// clsetBase returns the name of the CRR. The arguments are the module, the schema, the virtual table, and what stood in
// parentheses.
func clsetBase(args []string) (string, error) {
	if len(args) < 3 {
		return "", errors.New("internal: SQLite names no table")
	}
	name, ok := strings.CutSuffix(args[2], clsetSuffix)
	if !ok || name == "" {
		return "", fmt.Errorf("the virtual table's name %q is that of the table to make, and %s: call it %s%s for the table %s", args[2], clsetSuffix, name, clsetSuffix, name)
	}
	if !strings.EqualFold(args[1], "main") {
		return "", fmt.Errorf("only tables of the main database can be CRRs, not those of %q", args[1])
	}
	return name, nil
}

// createSet creates the table and makes it a CRR. It runs inside CREATE VIRTUAL TABLE, where there can be no savepoint; when
// it fails, SQLite undoes the whole statement.
func (e *engine) createSet(name, columns string) error {
	if err := e.exec("CREATE TABLE main." + ident(name) + " (" + columns + ")"); err != nil {
		return err
	}
	err := e.createCRR(name)
	if err == nil {
		err = e.ensureView()
	}
	if err != nil {
		e.readInTx = true
		e.forget()
	}
	return err
}

// dropSet drops a CRR with its clocks and keys. A table that is no CRR stays: somebody has renamed the virtual table, or made
// its own an ordinary one.
func (e *engine) dropSet(name string) error {
	clocks, err := e.query("SELECT 1 FROM main.sqlite_master WHERE type = 'table' AND name = ? COLLATE NOCASE", name+clockSuffix)
	if err != nil || len(clocks) == 0 {
		return err
	}
	if err := e.keepVersion(); err != nil {
		return err
	}
	e.stmts.release() // a table cannot be dropped while a statement looks at it
	for _, table := range []string{name, name + clockSuffix, name + pksSuffix} {
		if err := e.exec("DROP TABLE IF EXISTS main." + ident(table)); err != nil {
			return err
		}
	}
	e.outdate()
	return e.ensureView()
}

// A clsetTable is the virtual table.
type clsetTable struct {
	readOnly
	e    *engine
	name string // of the CRR; empty: none
}

func (t *clsetTable) BestIndex(constraints []sqlite3.InfoConstraint, _ []sqlite3.InfoOrderBy) (*sqlite3.IndexResult, error) {
	return &sqlite3.IndexResult{Used: make([]bool, len(constraints))}, nil
}

func (t *clsetTable) Open() (sqlite3.VTabCursor, error) { return clsetCursor{}, nil }

func (t *clsetTable) Destroy() (err error) {
	defer rescue("clset", &err)
	if t.name == "" {
		return nil
	}
	if err := t.e.dropSet(t.name); err != nil {
		return fmt.Errorf("clset: drop the table %q: %w", t.name, err)
	}
	return nil
}

// A clsetCursor has no rows. The stock engine's has rows without end.
type clsetCursor struct{}

func (clsetCursor) Close() error                             { return nil }
func (clsetCursor) Filter(int, string, []any) error          { return nil }
func (clsetCursor) Next() error                              { return nil }
func (clsetCursor) EOF() bool                                { return true }
func (clsetCursor) Column(*sqlite3.SQLiteContext, int) error { return nil }
func (clsetCursor) Rowid() (int64, error)                    { return 0, nil }
