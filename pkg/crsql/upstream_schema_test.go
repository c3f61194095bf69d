package crsql

import (
	"fmt"
	"path/filepath"
	"testing"
)

// Making a table a CRR again changes nothing, and making it one after it was none starts anew.
func TestUpstreamCRRTwice(t *testing.T) {
	w := crrTwins(t, idSQL)
	w.run("INSERT INTO foo VALUES (1, 2)")
	w.run("UPDATE foo SET a = 3")
	before, schema := dump(w.run("SELECT * FROM crsql_changes")), dump(w.run(masterSQL))
	for range 2 {
		w.want("SELECT crsql_as_crr('foo')", `"OK"`)
		w.want("SELECT * FROM crsql_changes", before)
		w.want(masterSQL, schema)
	}
	w.run("SELECT crsql_as_table('foo')")
	w.want("SELECT name FROM sqlite_master WHERE name LIKE 'foo%'", `"foo"`)
	w.want("SELECT * FROM crsql_changes")
	w.run("UPDATE foo SET a = 4")
	w.run("SELECT crsql_as_crr('foo')")
	w.want("SELECT * FROM foo", "1 | 4")
	w.want("SELECT hex(pk), cid, val, col_version FROM crsql_changes", `"010901" | "a" | 4 | 1`)
	w.run("SELECT crsql_as_table('nowhere')") // no error
	w.refuse("SELECT crsql_as_crr('nowhere')")
	w.refuse("SELECT crsql_as_crr()")
}

// Rows that are there already are backfilled, in the order of their keys.
func TestUpstreamBackfill(t *testing.T) {
	w := newTwins(t)
	w.script("CREATE TABLE foo (id PRIMARY KEY NOT NULL, name)", "INSERT INTO foo VALUES (2, 'baz'), (1, 'bar')", "INSERT INTO foo (id) VALUES (3)", "SELECT crsql_as_crr('foo')")
	w.want("SELECT hex(pk), cid, val, col_version, db_version, cl, seq FROM crsql_changes",
		`"010901" | "name" | "bar" | 1 | 1 | 1 | 0`, `"010902" | "name" | "baz" | 1 | 1 | 1 | 1`, `"010903" | "name" | NULL | 1 | 1 | 1 | 2`)
	w.script("CREATE TABLE jx (a NOT NULL, b NOT NULL, PRIMARY KEY (a, b))", "INSERT INTO jx VALUES (1, 2)", "SELECT crsql_as_crr('jx')")
	w.want(`SELECT hex(pk), cid, col_version, db_version FROM crsql_changes WHERE "table" = 'jx'`, `"0209010902" | "-1" | 1 | 2`)
}

// Names in whichever quotes, and which tables cannot be CRRs.
func TestUpstreamEligible(t *testing.T) {
	w := newTwins(t)
	for _, create := range []string{`CREATE TABLE "foo" (a primary key not null)`, "CREATE TABLE `bar` (a primary key not null)", "CREATE TABLE [baz] (a primary key not null)",
		"CREATE TABLE strict (a TEXT PRIMARY KEY NOT NULL) STRICT, WITHOUT ROWID", "CREATE TABLE idx (a PRIMARY KEY NOT NULL, b)"} {
		w.run(create)
	}
	w.run("CREATE INDEX plain_index ON idx (b)")
	for _, name := range []string{"foo", "bar", "baz", "strict", "idx"} {
		w.run("SELECT crsql_as_crr(?)", name)
		w.run("SELECT * FROM " + name + "__crsql_clock")
	}
	for name, create := range map[string]string{
		"no_key":      "CREATE TABLE no_key (a)",
		"nullable":    "CREATE TABLE nullable (a PRIMARY KEY, b)",
		"rowid":       "CREATE TABLE rowid (a INTEGER PRIMARY KEY, b)",
		"uniq":        "CREATE TABLE uniq (a PRIMARY KEY NOT NULL, b UNIQUE)",
		"required":    "CREATE TABLE required (a PRIMARY KEY NOT NULL, b NOT NULL)",
		"counter":     "CREATE TABLE counter (a INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, b)",
		"referencing": "CREATE TABLE referencing (a PRIMARY KEY NOT NULL, b REFERENCES foo (a))",
	} {
		w.run(create)
		w.refuse("SELECT crsql_as_crr(?)", name)
		w.want("SELECT count(*) FROM sqlite_master WHERE name LIKE '"+name+"\\_\\_crsql%' ESCAPE '\\'", "0")
	}
}

// Connections that are open see CRRs come and go that another one makes, with rows, in both engines and across them.
func TestUpstreamSchemaChangesElsewhere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	conns := []*engineDB{openOurs(t, fast(path)), openTheirs(t, path), openOurs(t, fast(path))}
	for _, d := range conns {
		d.run("SELECT * FROM crsql_changes") // so that it knows of no table
	}
	// The original looks at the schema again after a commit of its own only: see TestMendedReader.
	commit := func() { conns[1].run("DELETE FROM crsql_tracked_peers") }
	rows := 0
	for i, d := range conns {
		name := string(rune('a' + i))
		makeCRR(d, "CREATE TABLE "+name+" (id PRIMARY KEY NOT NULL, x)")
		commit()
		for j, e := range conns {
			e.run("INSERT INTO "+name+" VALUES (?, ?)", j, e.name)
			rows++
			commit()
			for _, reader := range conns {
				expect(t, reader, true, "SELECT count(*), max(db_version), crsql_db_version() FROM crsql_changes", "", fmt.Sprintf("%d | %d | %d", rows, rows, rows))
			}
		}
	}
	conns[1].run("SELECT crsql_as_table('a')")
	commit()
	for _, d := range conns {
		expect(t, d, true, `SELECT DISTINCT "table" FROM crsql_changes`, "", "\"b\"\n\"c\"")
		d.run("INSERT INTO a VALUES (?, 1)", "plain "+d.name+d.text("SELECT count(*) FROM a"))
	}
	for _, d := range conns {
		d.check("b", "c")
	}
}
