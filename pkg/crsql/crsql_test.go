package crsql

import (
	"context"
	"database/sql"
	"testing"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// A testDB is one connection to a database, whose answers keep their types.
type testDB struct {
	t      testing.TB
	db     *sql.DB
	conn   *sql.Conn
	engine *engine
}

func openTest(t testing.TB, dsn string) *testDB {
	t.Helper()
	db, err := sql.Open(DriverName, dsn)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := db.Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	d := &testDB{t: t, db: db, conn: conn}
	if err := conn.Raw(func(c any) error { d.engine, err = engineOf(c); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.close)
	return d
}

func (d *testDB) close() {
	if d.conn == nil {
		return
	}
	if err := d.conn.Close(); err != nil {
		d.t.Error(err)
	}
	if err := d.db.Close(); err != nil {
		d.t.Error(err)
	}
	d.conn = nil
}

// try runs sql and returns its rows.
func (d *testDB) try(query string, args ...any) ([][]changeset.Value, error) {
	rows, err := d.conn.QueryContext(context.Background(), query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	var all [][]changeset.Value
	for rows.Next() {
		cells := make([]any, len(columns))
		into := make([]any, len(columns))
		for i := range cells {
			into[i] = &cells[i]
		}
		if err := rows.Scan(into...); err != nil {
			return nil, err
		}
		row := make([]changeset.Value, len(columns))
		for i, cell := range cells {
			row[i] = fromDriver(cell)
		}
		all = append(all, row)
	}
	return all, rows.Err()
}

// tryPrepared runs a prepared statement that returns no rows.
func (d *testDB) tryPrepared(query string, args ...any) ([][]changeset.Value, error) {
	stmt, err := d.conn.PrepareContext(context.Background(), query)
	if err != nil {
		return nil, err
	}
	defer stmt.Close()
	_, err = stmt.Exec(args...)
	return nil, err
}

func (d *testDB) run(query string, args ...any) [][]changeset.Value {
	d.t.Helper()
	rows, err := d.try(query, args...)
	if err != nil {
		d.t.Fatalf("%s: %v", query, err)
	}
	return rows
}

func (d *testDB) int(query string, args ...any) int64 {
	d.t.Helper()
	return d.run(query, args...)[0][0].Int64()
}

func TestSmoke(t *testing.T) {
	a, b := openTest(t, ":memory:"), openTest(t, ":memory:")
	for _, d := range []*testDB{a, b} {
		d.run("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, x TEXT, y REAL)")
		d.run("SELECT crsql_as_crr('t')")
	}
	a.run("INSERT INTO t VALUES (1, 'one', 1.0), (2, 'two', 2.0)")
	a.run("UPDATE t SET x = 'uno' WHERE id = 1")
	a.run("DELETE FROM t WHERE id = 2")
	for _, row := range a.run("SELECT * FROM crsql_changes") {
		args := make([]any, len(row))
		for i, v := range row {
			args[i] = toDriver(v)
		}
		b.run("INSERT INTO crsql_changes VALUES (?,?,?,?,?,?,?,?,?)", args...)
	}
	got := b.run("SELECT id, x, +y FROM t")
	if len(got) != 1 || string(got[0][1].Bytes()) != "uno" || got[0][2].Kind() != changeset.KindReal {
		t.Fatalf("b holds %v", got)
	}
	if n := b.int("SELECT count(*) FROM crsql_changes"); n != 3 {
		t.Fatalf("b has %d changes", n)
	}
}
