package crsql

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// script runs statements one by one.
func (d *testDB) script(statements ...string) {
	d.t.Helper()
	for _, sql := range statements {
		d.run(sql)
	}
}

// refuses runs sql, which must fail with an error that says each of the words.
func (d *testDB) refuses(sql string, words ...string) {
	d.t.Helper()
	_, err := d.try(sql)
	for _, word := range words {
		if err == nil || !strings.Contains(err.Error(), word) {
			d.t.Errorf("%s: %v, want %q", sql, err, word)
		}
	}
}

func (d *testDB) expect(query, want string) {
	d.t.Helper()
	if got := dump(d.run(query)); got != want {
		d.t.Errorf("%s gives\n%s\nwant\n%s", query, got, want)
	}
}

// everything returns all that a database holds.
func (d *testDB) everything() string {
	d.t.Helper()
	all := dump(d.run("SELECT type, name, tbl_name, sql FROM sqlite_master"))
	for _, row := range d.run("SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'") {
		name := string(row[0].Bytes())
		all += "\n" + name + "\n" + dump(d.run("SELECT * FROM main."+ident(name)))
	}
	return all
}

const clocks = "SELECT col_name, col_version, db_version, seq, key FROM t__crsql_clock"

func TestAlterColumns(t *testing.T) {
	d := openTest(t, ":memory:")
	d.script(
		"CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, keep, a, b TEXT DEFAULT 'x')",
		"SELECT crsql_as_crr('t')",
		"INSERT INTO t VALUES (1, 1, 2, 'x'), (2, 2, 3, 'y')",
		"SELECT crsql_begin_alter('t')",
		"ALTER TABLE t ADD COLUMN c DEFAULT 5",
		"ALTER TABLE t DROP COLUMN a",
		"ALTER TABLE t RENAME COLUMN b TO d",
		"UPDATE t SET c = 6 WHERE id = 2",
	)
	d.expect("SELECT crsql_commit_alter('main', 'T')", "NULL")
	// The renamed column is a new one; its default and that of the added one need no clocks.
	const kept = "\"keep\" | 1 | 1 | 0 | 1\n\"keep\" | 1 | 1 | 3 | 2"
	d.expect(clocks, "\"c\" | 1 | 2 | 1 | 2\n\"d\" | 1 | 2 | 0 | 2\n"+kept)
	d.expect("SELECT * FROM t", "1 | 1 | \"x\" | 5\n2 | 2 | \"y\" | 6")
	d.expect("SELECT crsql_db_version()", "2")
	d.script("UPDATE t SET c = 7 WHERE id = 1", "INSERT INTO t(id) VALUES (3)", "DELETE FROM t WHERE id = 2")
	d.expect("SELECT pk, cid, val, db_version FROM crsql_changes WHERE cid <> 'keep'",
		"x'010901' | \"c\" | 7 | 3\nx'010902' | \"-1\" | NULL | 5\nx'010903' | \"c\" | 5 | 4\nx'010903' | \"d\" | \"x\" | 4")
}

// Clocks of rows and keys that are gone go too, those that say that a row was deleted stay.
func TestAlterCompacts(t *testing.T) {
	d := openTest(t, ":memory:")
	d.script(
		"CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, a, b)",
		"SELECT crsql_as_crr('t')",
		"INSERT INTO t VALUES (1, 1, 1), (2, 2, 2), (3, 3, 3)",
		"DELETE FROM t WHERE id = 2",
		"SELECT crsql_begin_alter('t')",
		"DELETE FROM t WHERE id = 3",
		"ALTER TABLE t DROP COLUMN b",
		"SELECT crsql_commit_alter('t')",
	)
	d.expect(clocks, "\"-1\" | 2 | 2 | 0 | 2\n\"a\" | 1 | 1 | 0 | 1")
	d.expect("SELECT * FROM t__crsql_pks", "1 | 1\n2 | 2")
	// A column is all that a table had: its rows keep a sentinel.
	d.script("SELECT crsql_begin_alter('t')", "ALTER TABLE t DROP COLUMN a", "SELECT crsql_commit_alter('t')")
	d.expect(clocks, "\"-1\" | 1 | 3 | 0 | 3\n\"-1\" | 2 | 2 | 0 | 2")
}

// A row that was deleted, and is put back during the alteration, is there for peers as well. The stock engine leaves it
// deleted for them.
func TestAlterRevives(t *testing.T) {
	a, b := openTest(t, ":memory:"), openTest(t, ":memory:")
	for _, d := range []*testDB{a, b} {
		d.script("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, a)", "SELECT crsql_as_crr('t')")
	}
	a.script("INSERT INTO t VALUES (1, 1)", "DELETE FROM t")
	b.pull(a, 0)
	seen := a.int("SELECT crsql_db_version()")
	a.script("SELECT crsql_begin_alter('t')", "INSERT INTO t VALUES (1, 'back')", "SELECT crsql_commit_alter('t')")
	b.pull(a, seen)
	b.expect("SELECT * FROM t", "1 | \"back\"")
}

// alterations are pairs of statements inside an alteration: what every database runs, and what the first one sets.
var alterations = map[string]struct{ schema, set []string }{
	"a column added": {
		[]string{"ALTER TABLE t ADD COLUMN c DEFAULT 'd'"},
		[]string{"UPDATE t SET c = 777 WHERE id = 1"},
	},
	"another key": {
		[]string{
			"CREATE TABLE u(id INTEGER NOT NULL, a NOT NULL, b, c DEFAULT 'd', PRIMARY KEY(id, a))",
			"INSERT INTO u(id, a, b) SELECT id, a, b FROM t", "DROP TABLE t", "ALTER TABLE u RENAME TO t",
		},
		[]string{"UPDATE t SET c = 777 WHERE id = 1"},
	},
	"a column renamed": {
		[]string{"ALTER TABLE t RENAME COLUMN b TO c"},
		[]string{"UPDATE t SET c = 777 WHERE id = 1"},
	},
}

// What a migration sets reaches peers that have seen everything before it, and have the new schema already. With the stock
// engine it does not: it stores the values under a version that they have seen.
func TestAlterReachesPeers(t *testing.T) {
	setup := []string{
		"CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, a NOT NULL DEFAULT 0, b)", "SELECT crsql_as_crr('t')",
	}
	const insert = "INSERT INTO t VALUES (1, 1, 1), (2, 2, 2)"
	const pull = `SELECT "table", pk, cid, val, col_version, db_version, site_id, cl, seq FROM crsql_changes WHERE db_version > ?`
	const version = "SELECT crsql_db_version()"
	const rows = "SELECT id, a, c FROM t"
	alteration := func(statements ...string) []string {
		return append(append([]string{"SELECT crsql_begin_alter('t')"}, statements...), "SELECT crsql_commit_alter('t')")
	}
	o := startOracle(t)
	for name, alter := range alterations {
		// Ours.
		a, b := openTest(t, ":memory:"), openTest(t, ":memory:")
		a.script(append(setup, insert)...)
		b.script(setup...)
		b.pull(a, 0)
		seen := a.int(version)
		b.script(alteration(alter.schema...)...)
		a.script(alteration(append(alter.schema, alter.set...)...)...)
		b.pull(a, seen)
		want := dump(a.run(rows))
		if got := dump(b.run(rows)); got != want || !strings.Contains(got, "777") {
			t.Errorf("%s: the peer holds\n%s\nwhere the first holds\n%s", name, got, want)
		}

		// The stock engine.
		x, y := name+" x", name+" y"
		ask := func(db string, statements ...string) (last [][]changeset.Value) {
			for _, sql := range statements {
				got := o.ask(db, false, oracleStep{SQL: sql})[0]
				if got.err != nil {
					t.Fatalf("%s: %s: %v", name, sql, got.err)
				}
				last = got.rows
			}
			return last
		}
		stockPull := func(since int64) {
			for _, row := range o.ask(x, false, oracleStep{SQL: pull, Args: []any{encodeTyped(changeset.Integer(since))}})[0].rows {
				step := oracleStep{SQL: "INSERT INTO crsql_changes VALUES (?,?,?,?,?,?,?,?,?)"}
				for _, v := range row {
					step.Args = append(step.Args, encodeTyped(v))
				}
				if err := o.ask(y, false, step)[0].err; err != nil {
					t.Fatal(err)
				}
			}
		}
		ask(x, append(setup, insert)...)
		ask(y, setup...)
		stockPull(0)
		seen = ask(x, version)[0][0].Int64()
		ask(y, alteration(alter.schema...)...)
		ask(x, alteration(append(alter.schema, alter.set...)...)...)
		stockPull(seen)
		if got := dump(ask(x, rows)); got != want {
			t.Errorf("%s: the stock engine's first holds\n%s", name, got)
		}
		if got := dump(ask(y, rows)); strings.Contains(got, "777") {
			t.Errorf("%s: the stock engine loses nothing any more, its peer holds\n%s", name, got)
		}
		o.ask(x, true)
		o.ask(y, true)
	}
}

func TestAlterKeepsVersion(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.db")
	d := openTest(t, file)
	d.script(
		"CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, a)", "SELECT crsql_as_crr('t')",
		"INSERT INTO t VALUES (1, 1)", "UPDATE t SET a = 2",
		"SELECT crsql_begin_alter('t')", "DELETE FROM t", "SELECT crsql_commit_alter('t')",
	)
	d.expect("SELECT crsql_db_version(), (SELECT count(*) FROM crsql_changes)", "2 | 0")
	// Also the version of clocks that are of the same transaction.
	d.script(
		"BEGIN", "INSERT INTO t VALUES (2, 2)",
		"SELECT crsql_begin_alter('t')", "DELETE FROM t", "ALTER TABLE t ADD COLUMN b", "SELECT crsql_commit_alter('t')", "COMMIT",
	)
	d.expect("SELECT crsql_db_version(), (SELECT count(*) FROM crsql_changes)", "3 | 0")
	d.close()
	d = openTest(t, file)
	d.expect("SELECT crsql_db_version()", "3")
	// Also where the clocks are made anew.
	d.script(
		"SELECT crsql_begin_alter('t')", "ALTER TABLE t RENAME COLUMN id TO name", "SELECT crsql_commit_alter('t')",
		"INSERT INTO t(name) VALUES (1)",
	)
	d.expect("SELECT DISTINCT db_version FROM crsql_changes", "4")
}

// An alteration that cannot be committed is undone. What the transaction did before it is not: the stock engine rolls
// that back too.
func TestAlterFails(t *testing.T) {
	d := openTest(t, ":memory:")
	d.script("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, a, b)", "SELECT crsql_as_crr('t')", "INSERT INTO t VALUES (1, 1, 1)")
	for what, alter := range map[string][]string{
		"checked foreign key":   {"ALTER TABLE t ADD COLUMN c REFERENCES t(id)"},
		"UNIQUE index":          {"CREATE UNIQUE INDEX one ON t(a)"},
		"there is no table":     {"DROP TABLE t"},
		"has no primary key":    {"DROP TABLE t", "CREATE TABLE t(id)"},
		"may be NULL":           {"DROP TABLE t", "CREATE TABLE t(id PRIMARY KEY)"},
		"NOT NULL column":       {"DROP TABLE t", "CREATE TABLE t(id PRIMARY KEY NOT NULL, a NOT NULL)"},
		"AUTOINCREMENT":         {"DROP TABLE t", "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL)"},
		"is a view":             {"DROP TABLE t", "CREATE VIEW t AS SELECT 1"},
		"is a virtual table":    {"DROP TABLE t", "CREATE VIRTUAL TABLE t USING rtree(a, b, c)"},
		"has a column named -1": {`ALTER TABLE t ADD COLUMN "-1"`},
	} {
		for _, begin := range []string{"", "BEGIN", "SAVEPOINT s"} {
			before := d.everything()
			if begin != "" {
				d.run(begin)
				d.run("UPDATE t SET a = a + 1")
				before = d.everything()
			}
			d.run("SELECT crsql_begin_alter('t')")
			d.script(alter...)
			d.refuses("SELECT crsql_commit_alter('t')", what, "has been undone")
			if after := d.everything(); after != before {
				t.Errorf("%s: the failure leaves\n%s", what, difference(after, before))
			}
			if auto := d.engine.sqlite.AutoCommit(); auto != (begin == "") {
				t.Errorf("%s after %q: autocommit is %t", what, begin, auto)
			}
			if begin != "" {
				d.run(map[string]string{"BEGIN": "COMMIT", "SAVEPOINT s": "RELEASE s"}[begin])
			}
			d.run("UPDATE t SET b = b + 1")
		}
	}
	d.expect("SELECT cid, col_version = val FROM crsql_changes", "\"a\" | 1\n\"b\" | 1") // every update has its clock
}

// What is called out of order says what to do, and changes nothing.
func TestAlterMisused(t *testing.T) {
	d := openTest(t, ":memory:")
	d.script("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, a)", "SELECT crsql_as_crr('t')", "INSERT INTO t VALUES (1, 1)", "CREATE TABLE plain(id)")
	before := d.everything()
	for _, begin := range []string{"", "BEGIN"} {
		if begin != "" {
			d.run(begin)
		}
		for sql, say := range map[string]string{
			"SELECT crsql_begin_alter()":                                       "give the name",
			"SELECT crsql_begin_alter('a', 'b', 'c')":                          "give the name",
			"SELECT crsql_begin_alter('temp', 't')":                            "main database",
			"SELECT crsql_begin_alter('nowhere')":                              "there is no CRR \"nowhere\"",
			"SELECT crsql_begin_alter(NULL)":                                   "there is no CRR",
			"SELECT crsql_begin_alter('plain')":                                "alter it directly",
			"SELECT crsql_commit_alter()":                                      "give the name",
			"SELECT crsql_commit_alter('nowhere')":                             "there is no CRR \"nowhere\"",
			"SELECT crsql_commit_alter('plain')":                               "is no CRR",
			"SELECT crsql_commit_alter('t')":                                   "call SELECT crsql_begin_alter('t') first",
			"UPDATE t SET a = crsql_begin_alter('t')":                          "a SELECT of its own",
			"INSERT INTO plain SELECT crsql_commit_alter('t')":                 "begin_alter('t') first",
			"INSERT INTO plain SELECT crsql_automigrate('SELECT 1')":           "a SELECT in a schema",
			"INSERT INTO plain SELECT crsql_automigrate('') FROM crsql_master": "a SELECT of its own",
		} {
			d.refuses(sql, say)
			if after := d.everything(); after != before {
				t.Fatalf("%s leaves\n%s", sql, difference(after, before))
			}
		}
		if begin != "" {
			d.run("COMMIT")
		}
	}
	// With an alteration under way, only the misuse itself fails.
	d.script("SELECT crsql_begin_alter('t')", "ALTER TABLE t ADD COLUMN b")
	d.script("CREATE TABLE other(id INTEGER PRIMARY KEY NOT NULL)", "SELECT crsql_as_crr('other')")
	d.refuses("SELECT crsql_commit_alter('plain')", "is no CRR")
	d.refuses("SELECT crsql_commit_alter('other')", "begin_alter('other') first")
	d.refuses("INSERT INTO plain SELECT crsql_commit_alter('t')", "a SELECT of its own")
	d.script("SELECT crsql_commit_alter('t')", "UPDATE t SET b = 1")
	d.expect("SELECT cid FROM crsql_changes", "\"a\"\n\"b\"")
}

func TestAlterInTransactions(t *testing.T) {
	d := openTest(t, ":memory:")
	d.script("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, a)", "SELECT crsql_as_crr('t')", "INSERT INTO t VALUES (1, 1)")
	d.script("CREATE TABLE u(id INTEGER PRIMARY KEY NOT NULL, a)", "SELECT crsql_as_crr('u')", "INSERT INTO u VALUES (1, 1)")
	before := d.everything()
	d.run("SELECT * FROM crsql_changes")
	for _, end := range []string{"ROLLBACK", "ROLLBACK TO s"} {
		for _, committed := range []bool{true, false} {
			d.script("BEGIN", "SAVEPOINT s", "SELECT crsql_begin_alter('t')", "ALTER TABLE t DROP COLUMN a", "ALTER TABLE t ADD COLUMN b DEFAULT 7")
			if committed {
				d.run("SELECT crsql_commit_alter('t')")
				d.script("UPDATE t SET b = 8")
				d.expect(`SELECT "table", cid, val FROM crsql_changes`, "\"t\" | \"b\" | 8\n\"u\" | \"a\" | 1")
			}
			d.run(end)
			if after := d.everything(); after != before {
				t.Errorf("%s leaves\n%s", end, difference(after, before))
			}
			d.refuses("SELECT crsql_commit_alter('t')", "begin_alter('t') first")
			d.run("UPDATE t SET a = a + 1")
			if end == "ROLLBACK" {
				before = d.everything()
			} else {
				d.run("ROLLBACK")
			}
			d.expect(`SELECT "table", cid FROM crsql_changes`, "\"t\" | \"a\"\n\"u\" | \"a\"")
		}
	}

	// Two tables, and one of them twice, in any nesting.
	d.script(
		"BEGIN", "INSERT INTO t VALUES (2, 2)",
		"SELECT crsql_begin_alter('t')", "ALTER TABLE t ADD COLUMN b", "UPDATE t SET b = 1",
		"SELECT crsql_begin_alter('u')", "ALTER TABLE u RENAME COLUMN id TO key", "SELECT crsql_commit_alter('u')",
		"SELECT crsql_commit_alter('t')",
		"INSERT INTO u VALUES (2, 2)",
		"SELECT crsql_begin_alter('t')", "ALTER TABLE t ADD COLUMN c DEFAULT 'c'", "SELECT crsql_begin_alter('u')",
		"SELECT crsql_commit_alter('t')", "SELECT crsql_commit_alter('u')",
		"INSERT INTO t VALUES (3, 3, 3, 3)", "UPDATE u SET a = 5 WHERE key = 1",
		"COMMIT",
	)
	d.expect(`SELECT "table", pk, cid, val, col_version FROM crsql_changes WHERE db_version = crsql_db_version()`, strings.Join([]string{
		`"t" | x'010901' | "b" | 1 | 1`, `"t" | x'010902' | "a" | 2 | 1`, `"t" | x'010902' | "b" | 1 | 1`,
		`"t" | x'010903' | "a" | 3 | 1`, `"t" | x'010903' | "b" | 3 | 1`, `"t" | x'010903' | "c" | 3 | 1`,
		`"u" | x'010901' | "a" | 5 | 2`, `"u" | x'010902' | "a" | 2 | 1`,
	}, "\n"))

	// A failure goes back to the beginning of its own alteration, and of those that began later.
	d.run("BEGIN")
	d.run("UPDATE t SET a = 9")
	before = d.everything()
	d.script("SELECT crsql_begin_alter('t')", "ALTER TABLE t ADD COLUMN bad REFERENCES u(key)", "SELECT crsql_begin_alter('u')", "ALTER TABLE u ADD COLUMN lost")
	d.refuses("SELECT crsql_commit_alter('t')", "foreign key")
	if after := d.everything(); after != before {
		t.Errorf("the failure leaves\n%s", difference(after, before))
	}
	d.refuses("SELECT crsql_commit_alter('u')", "begin_alter('u') first")
	d.run("COMMIT")
	d.expect("SELECT count(*) FROM crsql_changes WHERE val = 9", "3")
}

// The original's own statements fail for most of these names.
func TestAlterAnyName(t *testing.T) {
	for _, name := range []string{"a table", "a-b", `a"b`, "a.b", "a[b]", "a`b", "select", "日本", "main.t", "%s", "a;b", "--", "1"} {
		d := openTest(t, ":memory:")
		table, col := ident(name), ident(name+" é")
		create := fmt.Sprintf("CREATE TABLE IF NOT EXISTS %s(id INTEGER PRIMARY KEY NOT NULL, %s DEFAULT 'it''s')", table, col)
		d.script(create, "INSERT INTO "+table+" VALUES (1, 'x')")
		d.run("SELECT crsql_as_crr(?)", name)
		d.run("SELECT crsql_begin_alter(?)", name)
		d.script(
			"ALTER TABLE "+table+" RENAME COLUMN id TO "+ident(name+"\"key"),
			"ALTER TABLE "+table+" ADD COLUMN "+ident(name)+" TEXT DEFAULT 'd'",
			"UPDATE "+table+" SET "+ident(name)+" = 'set'",
		)
		d.run("SELECT crsql_commit_alter(?)", name)
		d.expect("SELECT val FROM crsql_changes WHERE \"table\" = "+literal(name), "\"set\"\n\"x\"")
		d.run("SELECT crsql_automigrate(?)", "CREATE TABLE "+table+"("+ident(name+"\"key")+" INTEGER PRIMARY KEY NOT NULL, "+ident("new "+name)+" DEFAULT 3);SELECT crsql_as_crr("+literal(name)+")")
		d.run("UPDATE " + table + " SET " + ident("new "+name) + " = 4")
		d.expect("SELECT val, col_version, db_version FROM crsql_changes", "4 | 2 | 4")
		d.close()
	}
}

// A column whose value is its default needs no clock, whatever the default is written as. The stock engine compares with
// the words of the default, in the place where they stand then.
func TestAlterDefaults(t *testing.T) {
	for _, test := range []struct{ def, set string }{
		{"", "0"}, {"DEFAULT NULL", "0"}, {"DEFAULT 5", "6"}, {"DEFAULT -5", "5"}, {"DEFAULT +2.5", "2"}, {"DEFAULT .5", "0"}, {"DEFAULT 1e3", "1"},
		{"DEFAULT 0x10", "15"}, {"DEFAULT 'it''s'", "'its'"}, {"TEXT DEFAULT 7", "8"}, {"INTEGER DEFAULT '7'", "8"}, {"DEFAULT x'00ff'", "x'00'"},
		{`DEFAULT "id"`, "'x'"}, {`DEFAULT "a"`, "'x'"}, {"DEFAULT word", "'other'"}, {"DEFAULT [word two]", "'other'"}, {"DEFAULT TRUE", "5"}, {"DEFAULT FALSE", "NULL"},
		{"DEFAULT (1 OR 0)", "0"}, {"DEFAULT (1 -- one\n)", "0"}, {"DEFAULT (abs(-3) /* three */)", "2"}, {"DEFAULT ('a' || 'b')", "'a'"},
		{"TEXT COLLATE NOCASE DEFAULT 'A'", "'a'"}, {"TEXT COLLATE RTRIM DEFAULT 'A'", "'A  '"}, {"DEFAULT (1 = 1)", "0"}, {"DEFAULT (NULL)", "0"},
	} {
		d := openTest(t, ":memory:")
		d.script(
			"CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, a)", "SELECT crsql_as_crr('t')", "INSERT INTO t VALUES (1, 1), (2, 2)",
			"SELECT crsql_begin_alter('t')", // remade: a default that is no constant cannot be added
			"CREATE TABLE u(id INTEGER PRIMARY KEY NOT NULL, a, c "+test.def+")", "INSERT INTO u(id, a) SELECT id, a FROM t",
			"DROP TABLE t", "ALTER TABLE u RENAME TO t", "UPDATE t SET c = "+test.set+" WHERE id = 2",
			"SELECT crsql_commit_alter('t')",
		)
		if got := dump(d.run("SELECT pk FROM crsql_changes WHERE cid = 'c'")); got != "x'010902'" {
			t.Errorf("%s: %q has clocks", test.def, got)
		}
		d.close()
	}
	// One that is another each time.
	d := openTest(t, ":memory:")
	d.script(
		"CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, a)", "INSERT INTO t VALUES (1, 1)", "SELECT crsql_as_crr('t')",
		"SELECT crsql_begin_alter('t')", "DROP TABLE t", "CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, a, c DEFAULT CURRENT_TIMESTAMP)",
		"INSERT INTO t VALUES (1, 1, '1970-01-01 00:00:00')", "SELECT crsql_commit_alter('t')",
	)
	d.expect("SELECT cid FROM crsql_changes", "\"a\"\n\"c\"")
}

// crsql_changes is a view of the tables: it must not stand in the way of ALTER TABLE, of whatever table.
func TestChangesAllowAlter(t *testing.T) {
	d := openTest(t, ":memory:")
	d.script("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, a, b)", "SELECT crsql_as_crr('t')", "INSERT INTO t VALUES (1, 1, 1)", "CREATE TABLE plain(a, b)")
	prepared, err := d.conn.PrepareContext(context.Background(), "SELECT count(*) FROM crsql_changes")
	if err != nil {
		t.Fatal(err)
	}
	defer prepared.Close()
	count := func(want int) {
		t.Helper()
		var n int
		if err := prepared.QueryRow().Scan(&n); err != nil || n != want {
			t.Errorf("%d changes, %v, want %d", n, err, want)
		}
	}
	count(2)
	d.run("SELECT crsql_begin_alter('t')")
	count(2)
	d.run("alter TABLE t DROP COLUMN b")
	count(2) // its clocks go at the end
	d.run("/**/ALTER TABLE t ADD COLUMN c DEFAULT 5")
	count(2)
	d.run("SELECT crsql_commit_alter('t')")
	count(1)
	// Several statements in one text.
	d.run("CREATE TABLE u(id INTEGER PRIMARY KEY NOT NULL, a, b); SELECT crsql_as_crr('u'); INSERT INTO u VALUES (1, 1, 1);" +
		"SELECT crsql_begin_alter('t'); ALTER TABLE t ADD COLUMN d; SELECT crsql_commit_alter('t');" +
		"SELECT crsql_begin_alter('u'); ALTER TABLE u DROP COLUMN b; SELECT crsql_commit_alter('u'); INSERT INTO t VALUES (2, 2, 2, 2)")
	count(5)
	d.run("DROP TABLE t")
	d.run("ALTER TABLE plain DROP COLUMN b")
	count(1)
}

// Another connection follows, and one that reads meanwhile has the old schema until the end.
func TestAlterAndOtherConnections(t *testing.T) {
	file := "file:" + filepath.Join(t.TempDir(), "a.db") + "?_journal_mode=WAL"
	a, b := openTest(t, file), openTest(t, file)
	a.script("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, a)", "SELECT crsql_as_crr('t')", "INSERT INTO t VALUES (1, 1)")
	b.expect("SELECT cid FROM crsql_changes", "\"a\"")
	a.script("SELECT crsql_begin_alter('t')", "ALTER TABLE t RENAME COLUMN a TO b")
	b.expect("SELECT cid FROM crsql_changes", "\"a\"")
	a.run("SELECT crsql_commit_alter('t')")
	b.expect("SELECT cid, db_version FROM crsql_changes", "\"b\" | 2")
	b.run("UPDATE t SET b = 5")
	a.expect("SELECT cid, db_version, col_version FROM crsql_changes", "\"b\" | 3 | 2")
}

// Where the commit cannot be done for another connection that reads, nothing is left open.
func TestSchemaChangeThatCannotCommit(t *testing.T) {
	file := "file:" + filepath.Join(t.TempDir(), "a.db") + "?_busy_timeout=1"
	a, b := openTest(t, file), openTest(t, file)
	a.script("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, a)", "INSERT INTO t VALUES (1, 1)")
	before := a.everything()
	for name, sql := range map[string][]string{
		"as_crr":      {"SELECT crsql_as_crr('t')"},
		"automigrate": {"SELECT crsql_automigrate('CREATE TABLE u(x)')"},
	} {
		b.script("BEGIN", "SELECT count(*) FROM t")
		a.script(sql[:len(sql)-1]...)
		a.refuses(sql[len(sql)-1], "locked")
		if !a.engine.sqlite.AutoCommit() {
			t.Errorf("%s leaves a transaction open", name)
		}
		b.run("COMMIT")
		if after := a.everything(); after != before {
			t.Errorf("%s leaves\n%s", name, difference(after, before))
		}
	}
	a.run("SELECT crsql_as_crr('t')")
	before = a.everything()
	b.script("BEGIN", "SELECT count(*) FROM t")
	a.script("SELECT crsql_begin_alter('t')", "ALTER TABLE t ADD COLUMN b")
	a.refuses("SELECT crsql_commit_alter('t')", "locked")
	b.run("COMMIT")
	if after := a.everything(); after != before {
		t.Errorf("commit_alter leaves\n%s", difference(after, before))
	}
	a.script("SELECT crsql_begin_alter('t')", "ALTER TABLE t ADD COLUMN b", "SELECT crsql_commit_alter('t')", "UPDATE t SET b = 1")
	b.expect("SELECT cid, val FROM crsql_changes", "\"a\" | 1\n\"b\" | 1")
}

// A write transaction of a DB does not end between the two calls: the table would take writes without clocks.
func TestWriteNeedsCommitAlter(t *testing.T) {
	n := newNode(t, "n")
	n.script("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, a); SELECT crsql_as_crr('t'); INSERT INTO t VALUES (1, 1)")
	err := n.db.ExecScript(context.Background(), "INSERT INTO t VALUES (2, 2); SELECT crsql_begin_alter('t'); ALTER TABLE t ADD COLUMN b")
	if err == nil || !strings.Contains(err.Error(), "crsql_commit_alter('t') in the same transaction") {
		t.Errorf("a script without crsql_commit_alter: %v", err)
	}
	equal(t, "rows", n.query("SELECT * FROM t"), []string{"1 1 "})
	n.script("SELECT crsql_begin_alter('t'); ALTER TABLE t ADD COLUMN b; UPDATE t SET b = 'set'; SELECT crsql_commit_alter('t')")
	n.script("UPDATE t SET a = 2")
	equal(t, "changes", n.query("SELECT cid, val, db_version FROM crsql_changes ORDER BY 1"), []string{`"a" 2 3 `, `"b" "set" 2 `})
}
