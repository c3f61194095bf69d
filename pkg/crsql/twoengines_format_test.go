package crsql

import (
	"database/sql"
	"path/filepath"
	"strings"
	"testing"
)

type namedTable struct{ name, sql string }

// Tables of all kinds, beside the shapes of the random scripts.
var oddTables = []namedTable{
	{"UPPER", `create table UPPER (ID integer primary key not null, V text)`},
	{"columns", `CREATE TABLE columns ([k e y] TEXT PRIMARY KEY NOT NULL, "1", "x'y" DEFAULT 'it''s', "order", "ключ")`},
	{"three", `CREATE TABLE three (a TEXT NOT NULL, v, b INTEGER NOT NULL, w, c BLOB NOT NULL, PRIMARY KEY (c, a, b)) WITHOUT ROWID`},
	{"strict_keys", `CREATE TABLE strict_keys (a INT NOT NULL, b TEXT NOT NULL, PRIMARY KEY (b, a)) STRICT, WITHOUT ROWID`},
	{"stored", `CREATE TABLE stored (id INTEGER PRIMARY KEY NOT NULL, a, g AS (a || 'x') STORED, h INT AS (length(a)) VIRTUAL)`},
	{"defaults", `CREATE TABLE defaults (id INTEGER PRIMARY KEY NOT NULL, a NOT NULL DEFAULT (1 + 1), b TEXT DEFAULT CURRENT_TIMESTAMP, c CHECK (c > 0))`},
	{"таблица", `CREATE TABLE "таблица" (id ANY PRIMARY KEY NOT NULL, v)`},
}

// Tables that the original refuses, for want of quotes in its own statements, and works with once they are CRRs.
var quotedTables = []namedTable{
	{"select", `CREATE TABLE "select" ("from" INTEGER PRIMARY KEY NOT NULL, v)`},
	{"a b.c-d", `CREATE TABLE "a b.c-d" (id INTEGER PRIMARY KEY NOT NULL, v)`},
	{"hash#%$@", `CREATE TABLE "hash#%$@" (id INTEGER PRIMARY KEY NOT NULL, v)`},
	{`say "a"`, `CREATE TABLE "say ""a""" ("i""d" INTEGER PRIMARY KEY NOT NULL, v)`},
	{"columns", `CREATE TABLE columns (id INTEGER PRIMARY KEY NOT NULL, v, "w""w")`},
}

// insertSQL inserts a row of nothing but its key.
func insertSQL(name string, pks []string) string {
	return "INSERT INTO " + ident(name) + " (" + idents("", pks, ",") + ") VALUES (" + marks(len(pks)) + ")"
}

// TestSameFile: the same statements on a fresh file leave the same schema, to the letter, and the same clocks.
func TestSameFile(t *testing.T) {
	dir := t.TempDir()
	ours := openOurs(t, fast(filepath.Join(dir, "ours")))
	theirs := openTheirs(t, filepath.Join(dir, "theirs"))
	both := []*engineDB{ours, theirs}
	compare := func(what, sql string) {
		t.Helper()
		if ours, theirs := ours.text(sql), theirs.text(sql); ours != theirs {
			t.Errorf("%s: %s\nours:\n%s\ntheirs:\n%s", what, sql, ours, theirs)
		}
	}
	inOrder := masterSQL + " ORDER BY rowid"
	compare("a new file", inOrder)
	tables := oddTables
	for i := range shapes {
		tables = append(tables, namedTable{shapes[i].name, shapes[i].sql()})
	}
	rows := int64(0)
	for _, table := range tables {
		for _, d := range both {
			d.run(table.sql)
			d.run("SELECT crsql_as_crr(?)", table.name)
			pks := d.keyColumns(table.name)
			for _, v := range []any{1, "1", []byte("1")} { // a STRICT table refuses some
				key := make([]any, len(pks))
				for i := range key {
					key[i] = v
				}
				_, _ = d.try(insertSQL(table.name, pks), key...)
			}
			if n := d.int("SELECT count(*) FROM " + ident(table.name)); d == ours {
				rows += n
			}
		}
		compare(table.name, "SELECT * FROM "+ident(table.name+pksSuffix))
		compare(table.name, "SELECT * FROM "+ident(table.name+clockSuffix))
		compare(table.name, `SELECT "table", pk, cid, typeof(val), col_version, db_version, cl, seq FROM crsql_changes`)
	}
	compare("all tables", inOrder)
	for _, d := range both {
		d.script("SELECT crsql_as_table('three')", "SELECT crsql_as_table('Stored')", "DROP TABLE UPPER")
	}
	compare("some gone", inOrder)
	if rows < 20 {
		t.Errorf("the tables hold %d rows only", rows)
	}
}

// TestQuotedTables: what we make of tables that the original refuses, it reads and writes all the same.
func TestQuotedTables(t *testing.T) {
	for _, table := range quotedTables {
		t.Run(table.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x")
			refusing := openTheirs(t, ":memory:")
			refusing.run(table.sql)
			if _, err := refusing.try("SELECT crsql_as_crr(?)", table.name); err == nil {
				t.Error("theirs makes it a CRR")
			}
			refusing.close()

			d := openOurs(t, path)
			d.run(table.sql)
			d.run("SELECT crsql_as_crr(?)", table.name)
			pks := d.keyColumns(table.name)
			d.run(insertSQL(table.name, pks), 1)
			want := d.text("SELECT * FROM crsql_changes")
			d.close()
			d = openTheirs(t, path)
			defer d.close()
			if got := d.text("SELECT * FROM crsql_changes"); got != want {
				t.Errorf("theirs reads\n%s\nours wrote\n%s", got, want)
			}
			d.run(insertSQL(table.name, pks), 2)
			d.run("UPDATE "+ident(table.name)+" SET v = 3 WHERE "+ident(pks[0])+" = ?", 2)
			row := d.run("SELECT * FROM crsql_changes WHERE cid = 'v' AND pk = x'010901'")[0]
			row[3], row[4] = values("merged")[0], values(9)[0]
			d.merge(row)
			d.check(table.name)
			if got := d.text("SELECT v FROM " + ident(table.name)); got != "\"merged\"\n3" {
				t.Errorf("it holds %s", got)
			}
		})
	}
}

// TestApostrophe: the original cannot use a file at all that has a CRR with a ' in its name. So we refuse it too.
func TestApostrophe(t *testing.T) {
	create := `CREATE TABLE "it's" (id INTEGER PRIMARY KEY NOT NULL, v)`
	for _, d := range []*engineDB{openOurs(t, ":memory:"), openTheirs(t, ":memory:")} {
		d.run(create)
		if _, err := d.try("SELECT crsql_as_crr(?)", "it's"); err == nil {
			t.Errorf("%s makes it a CRR", d.name)
		}
		d.close()
	}
}

// TestSpelling: the original names the clocks as it was told to, in whatever case; we as the table is named. A file of
// its own goes on under its names.
func TestSpelling(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	d := openTheirs(t, path)
	d.script("CREATE TABLE note (id INTEGER PRIMARY KEY NOT NULL, v)", "SELECT crsql_as_crr('NOTE')", "INSERT INTO note VALUES (1, 1)")
	d.close()
	d = openOurs(t, path)
	d.script("INSERT INTO note VALUES (2, 1)", "SELECT crsql_as_crr('note')", "INSERT INTO note VALUES (3, 1)",
		"DROP TABLE note", "CREATE TABLE note (id INTEGER PRIMARY KEY NOT NULL, v)", "SELECT crsql_as_crr('note')", "INSERT INTO note VALUES (4, 1)")
	d.close()
	d = openTheirs(t, path)
	if got := d.text(`SELECT DISTINCT "table" FROM crsql_changes`); got != `"NOTE"` {
		t.Errorf("the changes are of %s", got)
	}
	if n := d.int(`SELECT count(*) FROM crsql_changes WHERE pk IN (x'010901', x'010902', x'010903', x'010904')`); n != 4 {
		t.Errorf("%d changes", n)
	}
	d.close()
	d = openOurs(t, ":memory:")
	d.script("CREATE TABLE note (id INTEGER PRIMARY KEY NOT NULL, v)", "SELECT crsql_as_crr('NOTE')", "INSERT INTO note VALUES (1, 1)")
	if got := d.text(`SELECT DISTINCT "table" FROM crsql_changes`); got != `"note"` {
		t.Errorf("the changes are of %s", got)
	}
}

// TestRecordedVersion: each engine records the format that it writes, and neither lowers what the other has recorded.
func TestRecordedVersion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	version := func(d *engineDB, want int64) {
		t.Helper()
		if n := d.int("SELECT value FROM crsql_master WHERE key = 'crsqlite_version'"); n != want {
			t.Errorf("%s has recorded version %d, want %d", d.name, n, want)
		}
		d.close()
	}
	version(openTheirs(t, path), 150000) // 0.16.0, as the wasm package is numbered
	version(openOurs(t, path), 160300)
	version(openTheirs(t, path), 160300)
	version(openOurs(t, path), 160300)
}

// TestOlderFormats: neither opens a file of cr-sqlite before 0.15, which kept its keys elsewhere.
func TestOlderFormats(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	d := openOurs(t, path)
	d.run("UPDATE crsql_master SET value = 140000 WHERE key = 'crsqlite_version'")
	d.close()
	_, err := tryTheirs(t, sharedOracle(t), path)
	t.Logf("theirs: %v", err)
	if err == nil {
		t.Error("theirs opens it")
	}
	if err := connectError(path); err == nil || !strings.Contains(err.Error(), "version 140000") || !strings.Contains(err.Error(), "new database") {
		t.Errorf("ours: %v", err)
	}
	// A file whose making was cut short has the table and no version. The original never opens it again.
	raw, err := sql.Open("sqlite3", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := raw.Exec("DELETE FROM crsql_master"); err != nil {
		t.Fatal(err)
	}
	if err := raw.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := tryTheirs(t, sharedOracle(t), path); err == nil {
		t.Error("theirs opens a file without a version")
	}
	d = openOurs(t, path)
	d.script("CREATE TABLE t (id INTEGER PRIMARY KEY NOT NULL, x)", "SELECT crsql_as_crr('t')", "INSERT INTO t VALUES (1, 2)")
	d.close()
	d = openTheirs(t, path)
	d.check("t")
	d.close()
}

// connectError returns what is wrong with opening a file through this package.
func connectError(path string) error {
	db, err := sql.Open(DriverName, path)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	return db.Ping()
}

// TestReadOnlyFile: a file that has cr-sqlite's tables is read without a write.
func TestReadOnlyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	d := openTheirs(t, path)
	d.script("CREATE TABLE t (id INTEGER PRIMARY KEY NOT NULL, x)", "SELECT crsql_as_crr('t')", "INSERT INTO t VALUES (1, 2)")
	want := d.text("SELECT * FROM crsql_changes")
	d.close()
	ro := "file:" + path + "?mode=ro"
	d = openOurs(t, ro) // it records the older version, which is left alone
	if got := d.text("SELECT * FROM crsql_changes"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if _, err := d.try("INSERT INTO t VALUES (2, 2)"); err == nil {
		t.Error("a read-only file was written")
	}
}

// TestWALFile: a build of the original without shared memory, as in browsers and in Node, does not open a file in WAL
// mode. It says so, and the file is fine once it is out of that mode.
func TestWALFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	d := openOurs(t, path)
	d.script("PRAGMA journal_mode=WAL", "CREATE TABLE t (id INTEGER PRIMARY KEY NOT NULL, x)", "SELECT crsql_as_crr('t')", "INSERT INTO t VALUES (1, 2)")
	want := d.text("SELECT * FROM crsql_changes")
	d.close()
	_, err := tryTheirs(t, sharedOracle(t), path)
	t.Logf("theirs: %v", err)
	if err == nil {
		t.Fatal("theirs opens it")
	}
	d = openOurs(t, path)
	d.check("t")
	d.run("PRAGMA journal_mode=DELETE")
	d.close()
	d = openTheirs(t, path)
	d.check("t")
	if got := d.text("SELECT * FROM crsql_changes"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	// And when it is put into that mode while it has it open: an error, until it is out of it again.
	d2 := openOurs(t, path)
	d2.run("PRAGMA journal_mode=WAL")
	d2.run("INSERT INTO t VALUES (2, 2)")
	_, err = d.try("INSERT INTO t VALUES (3, 2)")
	t.Logf("theirs: %v", err)
	if err == nil {
		t.Error("theirs writes a file in WAL mode")
	}
	d2.run("PRAGMA journal_mode=DELETE")
	d.run("INSERT INTO t VALUES (3, 2)")
	for _, d := range []*engineDB{d, d2} {
		d.check("t")
		if n := d.int("SELECT max(db_version) FROM crsql_changes"); n != 3 {
			t.Errorf("%s is at %d", d.name, n)
		}
	}
	d.close()
}
