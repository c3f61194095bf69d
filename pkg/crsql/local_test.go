package crsql

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

const allChanges = `SELECT "table", pk, cid, val, col_version, db_version, site_id, cl, seq FROM crsql_changes WHERE db_version > ?`

// pull merges what other has stored since the version, as a peer would that has seen everything before.
func (d *testDB) pull(other *testDB, since int64) {
	d.t.Helper()
	for _, row := range other.run(allChanges, since) {
		args := make([]any, len(row))
		for i, v := range row {
			args[i] = toDriver(v)
		}
		d.run("INSERT INTO crsql_changes VALUES (?,?,?,?,?,?,?,?,?)", args...)
	}
}

// The stock engine moves the columns of a row whose key changes with their old db_version, so that a peer which is up to
// date never gets them.
func TestKeyUpdateReachesPeers(t *testing.T) {
	a, b := openTest(t, ":memory:"), openTest(t, ":memory:")
	for _, d := range []*testDB{a, b} {
		d.run("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, x, y DEFAULT 'd'); SELECT crsql_as_crr('t')")
	}
	a.run("INSERT INTO t VALUES (1, 'one', 'uno'), (5, 'five', 'zzz')")
	b.pull(a, 0)
	seen := a.int("SELECT crsql_db_version()")
	a.run("UPDATE t SET id = 2 WHERE id = 1")
	b.pull(a, seen)
	if got := dump(b.run("SELECT * FROM t")); got != "2 | \"one\" | \"uno\"\n5 | \"five\" | \"zzz\"" {
		t.Errorf("b holds\n%s", got)
	}
	// Onto a key in use, and with a smaller value: it has to win all the same.
	seen = a.int("SELECT crsql_db_version()")
	a.run("UPDATE OR REPLACE t SET id = 5, x = 'a' WHERE id = 2")
	b.pull(a, seen)
	if got := dump(b.run("SELECT * FROM t")); got != `5 | "a" | "uno"` {
		t.Errorf("b holds\n%s", got)
	}
	if got := dump(a.run("SELECT cid, col_version FROM crsql_changes WHERE pk = x'010905' AND cid = 'x'")); got != `"x" | 2` {
		t.Errorf("the clock of x at the new key: %s", got)
	}
}

// Databases that write, move keys and pull only what is new agree in the end.
func TestKeyUpdatesConverge(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var dbs []*testDB
		seen := map[[2]int]int64{}
		for range 3 {
			d := openTest(t, ":memory:")
			defer d.close()
			d.run("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, x, y); SELECT crsql_as_crr('t')")
			dbs = append(dbs, d)
		}
		pull := func(to, from int) {
			pair := [2]int{to, from}
			// What is read must be seen as of the version that is noted.
			version := dbs[from].int("SELECT coalesce(max(db_version), 0) FROM crsql_changes")
			dbs[to].pull(dbs[from], seen[pair])
			seen[pair] = version
		}
		key := rapid.IntRange(1, 3)
		for range rapid.IntRange(1, 20).Draw(rt, "steps") {
			i := rapid.IntRange(0, 2).Draw(rt, "database")
			switch rapid.IntRange(0, 6).Draw(rt, "step") {
			case 0, 1:
				dbs[i].run("INSERT OR REPLACE INTO t VALUES (?, ?, ?)", key.Draw(rt, "key"), key.Draw(rt, "x"), key.Draw(rt, "y"))
			case 2:
				dbs[i].run("UPDATE t SET x = ? WHERE id = ?", key.Draw(rt, "x"), key.Draw(rt, "key"))
			case 3:
				dbs[i].run("DELETE FROM t WHERE id = ?", key.Draw(rt, "key"))
			case 4:
				dbs[i].run("UPDATE OR REPLACE t SET id = ?, y = ? WHERE id = ?", key.Draw(rt, "new key"), key.Draw(rt, "y"), key.Draw(rt, "key"))
			default:
				pull(i, (i+rapid.IntRange(1, 2).Draw(rt, "from"))%3)
			}
		}
		for range 3 {
			for i := range dbs {
				for j := range dbs {
					if i != j {
						pull(i, j)
					}
				}
			}
		}
		want := dump(dbs[0].run("SELECT * FROM t"))
		for i, d := range dbs[1:] {
			if got := dump(d.run("SELECT * FROM t")); got != want {
				rt.Fatalf("database %d holds\n%s\nthe first\n%s", i+1, got, want)
			}
		}
	})
}

// A table that is dropped and made again finds the clocks of the old one. Rows that it holds when it becomes a CRR are
// insertions, also where the old clocks say that they were deleted: the stock engine keeps them from everybody else.
func TestTableMadeAgain(t *testing.T) {
	a, b := openTest(t, ":memory:"), openTest(t, ":memory:")
	for _, d := range []*testDB{a, b} {
		d.run("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, x); SELECT crsql_as_crr('t')")
	}
	a.run("INSERT INTO t VALUES (1, 'one'), (2, 'two')")
	a.run("DELETE FROM t")
	b.pull(a, 0)
	seen := a.int("SELECT crsql_db_version()")
	a.run("DROP TABLE t; CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, x, y DEFAULT 'd')")
	a.run("INSERT INTO t(id, x) VALUES (1, 'uno'), (3, 'tre')")
	a.run("SELECT crsql_as_crr('t')")
	b.run("ALTER TABLE t ADD COLUMN y DEFAULT 'd'")
	b.pull(a, seen)
	if got := dump(b.run("SELECT * FROM t")); got != "1 | \"uno\" | \"d\"\n3 | \"tre\" | \"d\"" {
		t.Errorf("b holds\n%s", got)
	}
}

func TestVersionFloor(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.db")
	d := openTest(t, file)
	d.run("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, x); SELECT crsql_as_crr('t')")
	d.run("INSERT OR REPLACE INTO crsql_master VALUES ('pre_compact_dbversion', 41)")
	if n := d.int("SELECT crsql_db_version()"); n != 41 {
		t.Errorf("db_version %d", n)
	}
	d.run("INSERT INTO t VALUES (1, 2)")
	d.run("DELETE FROM crsql_master WHERE key = 'pre_compact_dbversion'")
	d.close()
	if n := openTest(t, file).int("SELECT crsql_db_version()"); n != 42 {
		t.Errorf("db_version %d after opening again", n)
	}
}

// Two connections of one file share the version and the sites.
func TestConnectionsSeeEachOther(t *testing.T) {
	file := "file:" + filepath.Join(t.TempDir(), "a.db") + "?_journal_mode=WAL"
	a, b := openTest(t, file), openTest(t, file)
	a.run("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, x); SELECT crsql_as_crr('t')")
	for i := range int64(6) {
		d := []*testDB{a, b}[i%2]
		d.run("INSERT INTO t VALUES (?, 1)", i)
		for _, d := range []*testDB{a, b} {
			if n := d.int("SELECT crsql_db_version()"); n != i+1 {
				t.Fatalf("db_version %d after %d commits", n, i+1)
			}
		}
	}
	// A site that one of them names in a transaction that comes to nothing has no ordinal on either.
	insert := "INSERT INTO crsql_changes VALUES ('t', x'010909', 'x', 5, 7, 1, ?, 1, 0)"
	for _, undo := range []string{"ROLLBACK", "ROLLBACK TO s"} {
		a.run("BEGIN")
		a.run("SAVEPOINT s")
		a.run(insert, []byte("first site"))
		a.run(undo)
		a.run(insert, []byte("second site"))
		if undo != "ROLLBACK" {
			a.run("ROLLBACK TO s")
			a.run("COMMIT")
		}
	}
	a.run("DELETE FROM crsql_site_id WHERE ordinal > 0; DELETE FROM t__crsql_clock WHERE site_id > 0")
	b.run(insert, []byte("third site"))
	a.run("INSERT INTO crsql_changes VALUES ('t', x'010909', 'x', 6, 8, 1, ?, 1, 0)", []byte("third site"))
	if got := dump(a.run("SELECT site_id FROM crsql_changes WHERE pk = x'010909'")); got != fmt.Sprintf("x'%x'", "third site") {
		t.Errorf("site %s", got)
	}
}

func TestValuesKeepTheirKinds(t *testing.T) {
	a, b := openTest(t, ":memory:"), openTest(t, ":memory:")
	for _, d := range []*testDB{a, b} {
		d.run(`CREATE TABLE "日本 ""x"" y"(id INTEGER PRIMARY KEY NOT NULL, "a ""b"" 'c'", d BOOLEAN, e TIMESTAMP, f DATE)`)
		d.run("SELECT crsql_as_crr(?)", `日本 "x" y`)
	}
	for i, v := range edgeValues {
		x := toDriver(v)
		a.run(`INSERT INTO "日本 ""x"" y" VALUES (?, ?, ?, ?, ?)`, i, x, x, x, x)
	}
	b.pull(a, 0)
	const all = `SELECT id, +"a ""b"" 'c'", +d, +e, +f, typeof(d), typeof(e) FROM "日本 ""x"" y"`
	want := dump(a.run(all))
	if !strings.Contains(want, "nul\\x00in") || !strings.Contains(want, "x''") || !strings.Contains(want, "real 2") {
		t.Fatalf("a does not hold what was written:\n%s", want)
	}
	if got := dump(b.run(all)); got != want {
		t.Errorf("b holds\n%s\na\n%s", got, want)
	}
	if got, want := dump(b.run("SELECT pk, cid, val, typeof(val) FROM crsql_changes")), dump(a.run("SELECT pk, cid, val, typeof(val) FROM crsql_changes")); got != want {
		t.Errorf("b's changes\n%s\na's\n%s", got, want)
	}
	packed := a.run("SELECT crsql_pack_columns(1, 'ab', NULL, 2.0), crsql_pack_columns(x'', '')")[0]
	if fmt.Sprintf("%x %x", packed[0].Bytes(), packed[1].Bytes()) != "0409010b02616205024000000000000000 020403" {
		t.Errorf("packed: %x", packed)
	}
}

// What a trigger's function is given by hand must not end the process or leave the transaction in pieces.
func TestHostileCalls(t *testing.T) {
	d := openTest(t, ":memory:")
	d.run("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, x); SELECT crsql_as_crr('t'); INSERT INTO t VALUES (1, 'x')")
	before := dump(d.run("SELECT * FROM crsql_changes"))
	for _, sql := range []string{
		"SELECT crsql_as_crr()", "SELECT crsql_as_crr(NULL)", "SELECT crsql_as_crr('a', 'b', 'c')", "SELECT crsql_as_crr('temp', 't')", "SELECT crsql_as_table()",
		"SELECT crsql_after_insert()", "SELECT crsql_after_insert('t')", "SELECT crsql_after_insert('t', 1, 2)", "SELECT crsql_after_insert('nowhere', 1)",
		"SELECT crsql_after_insert(NULL, NULL)", "SELECT crsql_after_update('t', 1)", "SELECT crsql_after_delete('t')",
		"SELECT crsql_next_db_version(9223372036854775807)", "SELECT crsql_internal_merge()",
		"INSERT INTO crsql_changes VALUES ('t', NULL, 'x', 1, 9, 1, NULL, 1, 0)",
		"INSERT INTO crsql_changes VALUES ('t', x'', 'x', 1, 9, 1, NULL, 1, 0)",
		"INSERT INTO crsql_changes VALUES ('t', x'00', 'x', 1, 9, 1, NULL, 1, 0)",
		"INSERT INTO crsql_changes VALUES ('t', x'0209', 'x', 1, 9, 1, NULL, 1, 0)",
		"INSERT INTO crsql_changes VALUES ('t', x'020901', 'x', 1, 9, 1, NULL, 1, 0)",
		"INSERT INTO crsql_changes VALUES ('t', x'0209010901', 'x', 1, 9, 1, NULL, 1, 0)",
		"INSERT INTO crsql_changes VALUES ('t', x'0144ffffffffffffffff', 'x', 1, 9, 1, NULL, 1, 0)",
		"INSERT INTO crsql_changes VALUES ('t', x'0105', 'x', 1, 9, 1, NULL, 3, 0)",
		"INSERT INTO crsql_changes VALUES ('t', x'010b0161', 'x', 1, 9, 1, NULL, 1, 0)",
		"INSERT INTO crsql_changes VALUES (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
		"INSERT INTO crsql_changes VALUES ('nowhere', x'010901', 'x', 1, 9, 1, NULL, 1, 0)",
		"INSERT INTO crsql_changes VALUES ('t', x'010901', 'nowhere', 1, 9, 1, NULL, 1, 0)",
		"INSERT INTO crsql_changes VALUES ('t', x'010901', 'x', 1, 9, 1, zeroblob(17), 1, 0)",
		"INSERT INTO crsql_changes VALUES ('t', x'010901', 'x', 1, 9223372036854775807, 1, NULL, 1, 0)",
		"INSERT INTO crsql_changes VALUES ('t', x'010901', 'x', 1, -1, 1, NULL, 1, 0)",
		"INSERT INTO crsql_changes VALUES ('t', x'010901', '-1', 1, 9, 1, NULL, 9223372036854775807, 0)",
		"INSERT INTO crsql_changes VALUES ('t', x'010901', 'x', 1, 9, 9223372036854775807, NULL, 1, 0)",
		"INSERT INTO crsql_changes VALUES ('t', x'010901', 'x', 1, 9, 1, NULL, 1, -5)",
		"DELETE FROM crsql_changes", "UPDATE crsql_changes SET val = 1",
	} {
		for _, begin := range []bool{false, true} {
			if begin {
				d.run("BEGIN")
			}
			if _, err := d.try(sql); err == nil {
				t.Errorf("%s succeeds", sql)
			}
			if begin {
				d.run("COMMIT")
			}
			if after := dump(d.run("SELECT * FROM crsql_changes")); after != before {
				t.Fatalf("%s changed\n%s\nto\n%s", sql, before, after)
			}
		}
	}
	// Triggers work on, and a later local write to the row too.
	d.run("UPDATE t SET x = 'y'; DELETE FROM t; INSERT INTO t VALUES (1, 'z')")
	if got := dump(d.run("SELECT cid, val, cl FROM crsql_changes")); got != "\"-1\" | NULL | 3\n\"x\" | \"z\" | 3" {
		t.Errorf("changes:\n%s", got)
	}
}

func TestFinalizeAndGoOn(t *testing.T) {
	d := openTest(t, ":memory:")
	d.run("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, x); SELECT crsql_as_crr('t'); INSERT INTO t VALUES (1, 2)")
	if len(d.engine.stmts.byKey) == 0 {
		t.Error("no statement is kept")
	}
	d.run("SELECT crsql_finalize()")
	if n := len(d.engine.stmts.byKey); n != 0 {
		t.Errorf("%d statements are left", n)
	}
	d.run("INSERT INTO t VALUES (2, 2)")
	if n := d.int("SELECT crsql_db_version()"); n != 2 {
		t.Errorf("db_version %d", n)
	}
}

// A trigger on a CRR runs when a merge writes to it; it may read crsql's functions, write other tables, and not merge.
func TestTriggersDuringMerge(t *testing.T) {
	d := openTest(t, ":memory:")
	d.run("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, x); CREATE TABLE other(id INTEGER PRIMARY KEY NOT NULL, v); SELECT crsql_as_crr('t'); SELECT crsql_as_crr('other')")
	d.run("SELECT * FROM crsql_changes")
	d.run("CREATE TRIGGER note AFTER INSERT ON t BEGIN INSERT INTO other VALUES (NEW.id, crsql_db_version()); END")
	pk, err := changeset.AppendPacked(nil, []changeset.Value{changeset.Integer(7)})
	if err != nil {
		t.Fatal(err)
	}
	insert := "INSERT INTO crsql_changes VALUES ('t', ?, 'x', 5, 1, 1, x'aa', 1, 0)"
	d.run(insert, pk)
	if got := dump(d.run("SELECT * FROM other")); got != "7 | 0" {
		t.Errorf("other holds %s", got)
	}
	if n := d.int("SELECT count(*) FROM crsql_changes WHERE \"table\" = 'other'"); n != 0 {
		t.Error("what a merge's trigger writes has clocks: each database would make its own")
	}
	d.run("CREATE TEMP TRIGGER again AFTER UPDATE ON t BEGIN INSERT INTO crsql_changes VALUES ('t', x'010908', 'x', 5, 1, 1, x'aa', 1, 0); END")
	if _, err := d.try("INSERT INTO crsql_changes VALUES ('t', ?, 'x', 6, 2, 1, x'aa', 1, 0)", pk); err == nil || !strings.Contains(err.Error(), "trigger") {
		t.Errorf("merging within a merge: %v", err)
	}
}
