package crsql

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// A database made here must look like one that cr-sqlite made, to the letter.
func TestSchemaIsTheOriginals(t *testing.T) {
	o := startOracle(t)
	d := openTest(t, ":memory:")
	const schema = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY rowid"
	compare := func(when string) {
		t.Helper()
		theirs := o.ask("schema", false, oracleStep{SQL: schema})[0]
		if ours, theirs := dump(d.run(schema)), dump(theirs.rows); ours != theirs {
			t.Errorf("%s\nours:\n%s\ntheirs:\n%s", when, ours, theirs)
		}
	}
	compare("a new database")
	for i := range shapes {
		s := &shapes[i]
		for _, step := range []struct {
			sql  string
			args []changeset.Value
		}{{s.sql(), nil}, {"SELECT crsql_as_crr(?)", []changeset.Value{changeset.TextString(s.name)}}, {"SELECT crsql_as_crr('main', ?)", []changeset.Value{changeset.TextString(s.name)}}} {
			theirs := oracleStep{SQL: step.sql}
			var ours []any
			for _, v := range step.args {
				theirs.Args, ours = append(theirs.Args, encodeTyped(v)), append(ours, toDriver(v))
			}
			if err := o.ask("schema", false, theirs)[0].err; err != nil {
				t.Fatal(err)
			}
			d.run(step.sql, ours...)
		}
	}
	compare("all CRRs")
	if err := o.ask("schema", false, oracleStep{SQL: "SELECT crsql_as_table('t2')"})[0].err; err != nil {
		t.Fatal(err)
	}
	d.run("SELECT crsql_as_table('t2')")
	compare("one a table again")
	o.ask("schema", true)
	if n := d.int("SELECT value FROM crsql_master WHERE key = 'crsqlite_version'"); n != formatVersion {
		t.Errorf("the recorded version is %d", n)
	}
	if id := d.run("SELECT crsql_site_id()")[0][0].Bytes(); len(id) != 16 || id[6]>>4 != 4 || id[8]>>6 != 2 {
		t.Errorf("the site id %x is no UUIDv4", id)
	}
}

func TestRefusedTables(t *testing.T) {
	d := openTest(t, ":memory:")
	for name, test := range map[string]struct{ sql, say string }{
		"nowhere":       {"", "no table"},
		"a view":        {"CREATE VIEW %s AS SELECT 1", "is a view"},
		"no key":        {"CREATE TABLE %s(a)", "no primary key"},
		"nullable key":  {"CREATE TABLE %s(a PRIMARY KEY, b)", "may be NULL"},
		"half nullable": {"CREATE TABLE %s(a NOT NULL, b, PRIMARY KEY(a, b))", "may be NULL"},
		"rowid key":     {"CREATE TABLE %s(a INTEGER PRIMARY KEY)", "may be NULL"},
		"unique":        {"CREATE TABLE %s(a INTEGER PRIMARY KEY NOT NULL, b UNIQUE)", "UNIQUE index"},
		"not null":      {"CREATE TABLE %s(a INTEGER PRIMARY KEY NOT NULL, b NOT NULL)", "DEFAULT"},
		"counter":       {"CREATE TABLE %s(a INTEGER PRIMARY KEY autoIncrement NOT NULL, b)", "AUTOINCREMENT"},
		"foreign key":   {"CREATE TABLE %s(a INTEGER PRIMARY KEY NOT NULL, b REFERENCES other(id))", "foreign key"},
		"minus one":     {`CREATE TABLE %s(a INTEGER PRIMARY KEY NOT NULL, "-1")`, "named -1"},
		"it's":          {"CREATE TABLE %s(a INTEGER PRIMARY KEY NOT NULL, b)", "holds a '"},
		"crsql_mine":    {"CREATE TABLE %s(a INTEGER PRIMARY KEY NOT NULL)", "belongs to the system"},
	} {
		if test.sql != "" {
			d.run(fmt.Sprintf(test.sql, ident(name)))
		}
		before := dump(d.run("SELECT * FROM sqlite_master"))
		_, err := d.try("SELECT crsql_as_crr(?)", name)
		if err == nil || !strings.Contains(err.Error(), test.say) {
			t.Errorf("%s: %v, want %q", name, err, test.say)
		}
		if after := dump(d.run("SELECT * FROM sqlite_master")); before != after {
			t.Errorf("%s: the refusal left something behind:\n%s", name, after)
		}
	}
	// The word in quotes or a comment is not the keyword.
	d.run("CREATE TABLE fine(a INTEGER PRIMARY KEY NOT NULL, \"autoincrement\" DEFAULT 'it''s AUTOINCREMENT', [x AUTOINCREMENT] /* AUTOINCREMENT */ -- AUTOINCREMENT\n)")
	d.run("SELECT crsql_as_crr('FINE')")
	d.run("INSERT INTO fine(a) VALUES (1)")
	if n := d.int("SELECT count(*) FROM crsql_changes WHERE \"table\" = 'fine'"); n != 2 {
		t.Errorf("%d changes", n)
	}
}

// A refusal inside a transaction undoes itself and nothing else.
func TestRefusalKeepsTransaction(t *testing.T) {
	d := openTest(t, ":memory:")
	d.run("CREATE TABLE good(a INTEGER PRIMARY KEY NOT NULL, b); SELECT crsql_as_crr('good')")
	d.run("CREATE TABLE bad(a)")
	d.run("BEGIN")
	d.run("INSERT INTO good VALUES (1, 2)")
	if _, err := d.try("SELECT crsql_as_crr('bad')"); err == nil {
		t.Error("a table without a key became a CRR")
	}
	d.run("INSERT INTO good VALUES (2, 2)")
	d.run("COMMIT")
	if n := d.int("SELECT count(*) FROM crsql_changes WHERE db_version = 1"); n != 2 {
		t.Errorf("%d changes", n)
	}
}

// crsql_changes follows the schema, whoever changes it, and on whichever statement it is first used.
func TestChangesFollowSchema(t *testing.T) {
	file := "file:" + filepath.Join(t.TempDir(), "a b.db") + "?_journal_mode=WAL"
	a, b := openTest(t, file), openTest(t, file)
	b.run("PRAGMA query_only=1")
	prepared, err := b.conn.PrepareContext(context.Background(), "SELECT count(*) FROM CRSQL_changes")
	if err != nil {
		t.Fatal(err)
	}
	defer prepared.Close()
	expect := func(want int64) {
		t.Helper()
		for name, d := range map[string]*testDB{"a": a, "b": b} {
			if n := d.int("SELECT count(*) FROM crsql_changes"); n != want {
				t.Errorf("%s has %d changes, want %d", name, n, want)
			}
		}
		var n int64
		if err := prepared.QueryRow().Scan(&n); err != nil || n != want {
			t.Errorf("the prepared statement counts %d, %v, want %d", n, err, want)
		}
	}
	expect(0)
	a.run("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, x); SELECT crsql_as_crr('t'); INSERT INTO t VALUES (1, 2)")
	expect(1)
	a.run("CREATE TABLE u(id INTEGER PRIMARY KEY NOT NULL, x); SELECT crsql_as_crr('u'); INSERT INTO u VALUES (1, 2)")
	expect(2)
	// The same schema_version twice, with other content.
	for _, undo := range []string{"ROLLBACK", "ROLLBACK TO s"} {
		a.run("BEGIN")
		a.run("SAVEPOINT s")
		a.run("CREATE TABLE v(id INTEGER PRIMARY KEY NOT NULL, x); SELECT crsql_as_crr('v')")
		a.run("INSERT INTO v VALUES (1, 2)")
		if n := a.int("SELECT count(*) FROM crsql_changes"); n != 3 {
			t.Errorf("%d changes inside the transaction", n)
		}
		a.run(undo)
		a.run("CREATE TABLE w(id INTEGER PRIMARY KEY NOT NULL, y, z); SELECT crsql_as_crr('w')")
		a.run("INSERT INTO w VALUES (1, 2, 3)")
		if n := a.int("SELECT count(*) FROM crsql_changes"); n != 4 {
			t.Errorf("after %s: %d changes", undo, n)
		}
		a.run("SELECT crsql_as_table('w'); DROP TABLE w")
		if undo != "ROLLBACK" {
			a.run("COMMIT")
		}
		expect(2)
	}
	if on := b.int("PRAGMA query_only"); on != 1 {
		t.Error("the reader may write now")
	}
	a.run("SELECT crsql_as_table('t')")
	expect(1)
	a.run("DROP TABLE u")
	expect(0)
}

// A condition on db_version is an index search in every table, and the order needs no sorting of all changes.
func TestChangesPlan(t *testing.T) {
	d := openTest(t, ":memory:")
	for _, name := range []string{"t", "u"} {
		d.run(fmt.Sprintf("CREATE TABLE %s(id INTEGER PRIMARY KEY NOT NULL, x); SELECT crsql_as_crr('%s')", name, name))
	}
	plan := dump(d.run("EXPLAIN QUERY PLAN SELECT * FROM crsql_changes WHERE db_version > 5"))
	if n := strings.Count(plan, "dbv_idx (db_version>?)"); n != 2 {
		t.Errorf("%d index searches:\n%s", n, plan)
	}
	if n := strings.Count(plan, "SCAN "); n > 1 || n == 1 && !strings.Contains(plan, "SCAN crsql_changes") {
		t.Errorf("a scan:\n%s", plan)
	}
}

// More CRRs than SQLite takes SELECTs in one compound.
func TestManyTables(t *testing.T) {
	if testing.Short() {
		t.Skip("makes 600 tables")
	}
	d := openTest(t, ":memory:")
	d.run("BEGIN")
	for i := range 600 {
		d.run(fmt.Sprintf("CREATE TABLE t%d(id INTEGER PRIMARY KEY NOT NULL, x)", i))
	}
	for i := range 600 {
		if i < 2 || i > 597 {
			d.run("SELECT crsql_as_crr(?)", fmt.Sprintf("t%d", i))
			continue
		}
		// As crsql_as_crr makes them, without the rest of the work: this test is about the view.
		table, err := d.engine.readTable(fmt.Sprintf("t%d", i))
		if err != nil {
			t.Fatal(err)
		}
		d.run(strings.Join(table.schemaSQL(), ";"))
	}
	d.run("COMMIT")
	d.run("INSERT INTO t0 VALUES (1, 2)")
	d.run("INSERT INTO t599 VALUES (1, 2)")
	d.run("INSERT INTO t300 VALUES (1, 2)")
	if got := dump(d.run("SELECT \"table\", db_version FROM crsql_changes WHERE db_version > 1")); got != "\"t300\" | 3\n\"t599\" | 2" {
		t.Errorf("changes:\n%s", got)
	}
	if n := len(d.engine.stmts.byKey); n > maxStatements {
		t.Errorf("%d prepared statements", n)
	}
	if n := d.int("SELECT crsql_db_version()"); n != 3 {
		t.Errorf("db_version %d", n)
	}
}
