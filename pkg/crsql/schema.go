package crsql

import (
	"strings"
)

// The names of a CRR's companions are its own with these endings.
const (
	clockSuffix = "__crsql_clock"
	pksSuffix   = "__crsql_pks"
)

// A table is what the engine knows of a CRR.
type table struct {
	name   string
	pks    []string       // the columns of the primary key, in its order
	cols   []string       // the other columns, without generated ones, in order
	column map[string]int // index in cols by name
	all    string         // names all of cols in statementKey.cols
}

func (t *table) base() string  { return "main." + ident(t.name) }
func (t *table) clock() string { return "main." + ident(t.name+clockSuffix) }
func (t *table) keys() string  { return "main." + ident(t.name+pksSuffix) }

// readSchema reads which tables are CRRs, and drops the statements prepared for those that were.
func (e *engine) readSchema() error {
	e.stmts.release()
	rows, err := e.query(`SELECT name FROM main.sqlite_master WHERE type = 'table' AND name LIKE '%\_\_crsql\_clock' ESCAPE '\' ORDER BY rowid`)
	if err != nil {
		return err
	}
	e.tables, e.order, e.clockTables = make(map[string]*table), nil, nil
	for _, row := range rows {
		clock := toText(row[0])
		name, ok := strings.CutSuffix(clock, clockSuffix)
		if !ok { // LIKE ignores case
			continue
		}
		e.clockTables = append(e.clockTables, clock)
		t, err := e.readTable(name)
		if err != nil {
			return err
		}
		keys, err := e.query("SELECT 1 FROM main.sqlite_master WHERE type = 'table' AND name = ?", name+pksSuffix)
		if err != nil {
			return err
		}
		if len(t.pks) == 0 || len(keys) == 0 {
			continue // clocks that outlived their table
		}
		e.tables[name] = t
		e.order = append(e.order, t)
	}
	return nil
}

// readTable reads the columns of a table of the main schema. One that does not exist has none.
func (e *engine) readTable(name string) (*table, error) {
	rows, err := e.query("SELECT name, pk FROM pragma_table_info(?, 'main') ORDER BY cid", name)
	if err != nil {
		return nil, err
	}
	t := &table{name: name, column: make(map[string]int)}
	for _, row := range rows {
		if row[1].(int64) > 0 {
			t.pks = append(t.pks, "")
		}
	}
	for _, row := range rows {
		column := toText(row[0])
		if pk := row[1].(int64); pk > 0 {
			t.pks[pk-1] = column
			continue
		}
		t.column[column] = len(t.cols)
		t.cols = append(t.cols, column)
	}
	t.all = strings.Repeat("\x01", len(t.cols))
	return t, nil
}
