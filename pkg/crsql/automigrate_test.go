package crsql

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/mattn/go-sqlite3"
)

func (d *testDB) migrate(schema string) {
	d.t.Helper()
	rows, err := d.try("SELECT crsql_automigrate(?, 'SELECT crsql_finalize()')", schema)
	if err != nil || dump(rows) != `"migration complete"` {
		d.t.Fatalf("migrate to %s: %v %v", schema, rows, err)
	}
}

// objects returns the user's objects, a line each.
const objects = `SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'crsql_%' AND name NOT LIKE '%\_\_crsql\_%' ESCAPE '\'`

const noteSchema = `
	CREATE TABLE note(id INTEGER PRIMARY KEY NOT NULL, title TEXT DEFAULT '', body);
	SELECT crsql_as_crr('note');
	CREATE INDEX note_title ON note(title);
	CREATE TABLE IF NOT EXISTS setting(name TEXT PRIMARY KEY, value);
	CREATE VIEW titles AS SELECT title FROM note;
	CREATE TRIGGER note_once AFTER INSERT ON setting BEGIN SELECT 1; SELECT 2; END;
`

func TestAutomigrateFromNothing(t *testing.T) {
	d := openTest(t, ":memory:")
	d.migrate("")
	d.expect(objects, "")
	d.migrate(noteSchema)
	d.run("INSERT INTO note VALUES (1, 'one', x'01')")
	d.expect("SELECT cid, val FROM crsql_changes", "\"body\" | x'01'\n\"title\" | \"one\"")
	d.expect(objects, strings.Join([]string{
		`"CREATE INDEX note_title ON note(title)"`,
		`"CREATE TABLE note(id INTEGER PRIMARY KEY NOT NULL, title TEXT DEFAULT '', body)"`,
		`"CREATE TABLE setting(name TEXT PRIMARY KEY, value)"`,
		`"CREATE TRIGGER note_once AFTER INSERT ON setting BEGIN SELECT 1; SELECT 2; END"`,
		`"CREATE VIEW titles AS SELECT title FROM note"`,
	}, "\n"))
	// The empty schema drops the tables; what a view names is gone then. The clocks stay, and with them the version.
	d.migrate("")
	d.expect("SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'crsql_%'", "\"note__crsql_clock\"\n\"note__crsql_pks\"\n\"titles\"")
	d.expect("SELECT crsql_db_version()", "1")
	d.migrate(noteSchema)
	d.run("INSERT INTO note VALUES (2, 'two', 2)")
	d.expect("SELECT DISTINCT db_version FROM crsql_changes WHERE pk = x'010902'", "2")
}

// A migration to the schema that is there writes nothing at all.
func TestAutomigrateAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.db")
	d, other := openTest(t, file), openTest(t, file)
	d.migrate(noteSchema)
	d.script("INSERT INTO note VALUES (1, 'one', 1), (2, 'two', 2)", "DELETE FROM note WHERE id = 2", "INSERT INTO setting VALUES (1, 2)")
	before := d.everything()
	version := other.int("PRAGMA data_version")
	for _, schema := range []string{noteSchema, strings.ToLower(noteSchema), strings.ReplaceAll(noteSchema, " ", " /* */ \n")} {
		d.migrate(schema)
		if after := d.everything(); after != before {
			t.Errorf("%s changes\n%s", schema, difference(after, before))
		}
	}
	if now := other.int("PRAGMA data_version"); now != version {
		t.Error("a migration to the same schema writes to the file")
	}
}

func TestAutomigrateColumns(t *testing.T) {
	d := openTest(t, ":memory:")
	d.migrate(noteSchema)
	d.script("INSERT INTO note VALUES (1, 'one', 'long'), (2, 'two', NULL), (3, '', '')", "INSERT INTO setting VALUES ('a', 'b')", "DELETE FROM note WHERE id = 3")
	// All on one line, which the stock engine would leave out: it drops lines that name a function.
	d.migrate(`CREATE TABLE note(done INTEGER NOT NULL DEFAULT 0, id INTEGER PRIMARY KEY NOT NULL, title TEXT DEFAULT '', due TEXT COLLATE NOCASE CHECK (due <> 'never') /* a date */, tags DEFAULT 'x' -- more
		, n AS (length(title))); CREATE TABLE setting(name TEXT PRIMARY KEY); CREATE TABLE other(id PRIMARY KEY NOT NULL); SELECT crsql_as_crr('note'), crsql_as_crr('main', 'other')`)
	d.expect("SELECT id, title, done, due, tags, n FROM note", "1 | \"one\" | 0 | NULL | \"x\" | 3\n2 | \"two\" | 0 | NULL | \"x\" | 3")
	d.expect("SELECT * FROM setting", `"a"`)
	d.expect(`SELECT pk, cid, db_version FROM crsql_changes`, "x'010901' | \"title\" | 1\nx'010902' | \"title\" | 1\nx'010903' | \"-1\" | 2")
	d.expect("SELECT name FROM pragma_index_list('note')", "")
	d.script("INSERT INTO note(id, done) VALUES (4, 1)", "INSERT INTO other VALUES (1)", "UPDATE note SET due = 'soon' WHERE id = 1")
	d.expect("SELECT pk, cid, val, db_version FROM crsql_changes WHERE db_version > 2", strings.Join([]string{
		`x'010901' | "-1" | NULL | 4`, `x'010901' | "due" | "soon" | 5`, `x'010904' | "done" | 1 | 3`, `x'010904' | "due" | NULL | 3`, `x'010904' | "tags" | "x" | 3`, `x'010904' | "title" | "" | 3`,
	}, "\n"))
	if _, err := d.try("UPDATE note SET due = 'never'"); !IsConstraint(err) {
		t.Errorf("the CHECK was lost: %v", err)
	}
	d.expect("SELECT count(*) FROM note WHERE due = 'SOON'", "1")
}

// An index that changed is made anew; the stock engine sees only whether it is UNIQUE.
func TestAutomigrateIndexes(t *testing.T) {
	d := openTest(t, ":memory:")
	const table = "CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, a, b, c); CREATE TABLE u(a);"
	d.migrate(table)
	before := ""
	for _, index := range []string{
		"CREATE INDEX i ON t(a)", "CREATE INDEX i ON t(a, b)", "CREATE INDEX i ON t(b, a)", "CREATE INDEX i ON t(b)", "CREATE INDEX i ON t(b DESC)",
		"CREATE INDEX i ON t(b COLLATE NOCASE)", "CREATE INDEX i ON t(b) WHERE a > 1", "CREATE INDEX i ON t(lower(b))", "CREATE UNIQUE INDEX i ON t(b)",
		"CREATE INDEX i ON u(a)", "CREATE INDEX j ON u(a)", "",
	} {
		d.migrate(table + index)
		if got := dump(d.run("SELECT sql FROM sqlite_master WHERE type = 'index' AND name IN ('i', 'j')")); got != strings.TrimSuffix(`"`+index+`"`, `""`) {
			t.Errorf("%s: the indexes are %s", index, got)
		}
		if got := d.everything(); got == before {
			t.Errorf("%s changes nothing", index)
		} else {
			before = got
		}
		d.migrate(table + strings.ToUpper(index))
		if got := d.everything(); got != before {
			t.Errorf("%s is made twice: %s", index, difference(got, before))
		}
	}
	// The index on a column that goes is no hindrance. With the stock engine it is.
	d.migrate(table + "CREATE INDEX i ON t(c); CREATE INDEX j ON t(c) WHERE b > 5")
	d.migrate("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, a); CREATE INDEX j ON t(a)")
	d.expect(objects, "\"CREATE INDEX j ON t(a)\"\n\"CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, a)\"")
}

// Views and triggers follow the schema too; those that it does not hold are left alone.
func TestAutomigrateViews(t *testing.T) {
	d := openTest(t, ":memory:")
	d.migrate("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, a); CREATE VIEW v AS SELECT a FROM t; CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT NEW.a; END; CREATE TRIGGER w INSTEAD OF INSERT ON v BEGIN INSERT INTO t(a) VALUES (NEW.a); END")
	d.run("CREATE VIEW own AS SELECT id FROM t")
	d.migrate("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, b); CREATE VIEW v AS SELECT b FROM t; CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT NEW.b; END; CREATE TRIGGER w INSTEAD OF INSERT ON v BEGIN INSERT INTO t(b) VALUES (NEW.b); END")
	d.script("INSERT INTO v VALUES (1)", "INSERT INTO v VALUES (2)")
	d.expect("SELECT * FROM v, own", "1 | 1\n1 | 2\n2 | 1\n2 | 2")
	before := d.everything()
	d.refuses("SELECT crsql_automigrate('CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL)')", `drop the column "b" of "t"`, "view v")
	if after := d.everything(); after != before {
		t.Errorf("the failure leaves\n%s", difference(after, before))
	}
}

// What belongs to others is left alone: cr-sqlite's tables, the replica's, virtual tables and what they keep.
func TestAutomigrateLeavesAlone(t *testing.T) {
	n := newNode(t, "n")
	n.script("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, a); SELECT crsql_as_crr('t'); CREATE VIRTUAL TABLE box USING rtree(id, low, high); INSERT INTO box VALUES (1, 2, 3); ANALYZE; CREATE TABLE counter(id INTEGER PRIMARY KEY AUTOINCREMENT)")
	const names = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT IN ('t', 'counter') ORDER BY 1"
	before := n.query(names)
	n.script("SELECT crsql_automigrate('')")
	equal(t, "tables", n.query("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1"), before)
	equal(t, "rows", n.query("SELECT id FROM box"), []string{"1 "})
	if len(before) < 14 {
		t.Errorf("tables: %q", before)
	}
}

// What a migration cannot do is said, and changes nothing, in a transaction or not.
func TestAutomigrateRefuses(t *testing.T) {
	d := openTest(t, ":memory:")
	const have = "CREATE TABLE t(id INTEGER NOT NULL, a TEXT DEFAULT 'd', b NOT NULL DEFAULT 1, g AS (a), PRIMARY KEY(id));"
	const crr = "SELECT crsql_as_crr('t');"
	d.migrate(have + crr + "CREATE TABLE p(a, b)")
	d.script("INSERT INTO t(id, a) VALUES (1, 'one')", "INSERT INTO p VALUES (1, 2)")
	const rest = ", a TEXT DEFAULT 'd', b NOT NULL DEFAULT 1, g AS (a)"
	for schema, say := range map[string]string{
		have: `the table "t" is a CRR, and the schema does not make it one`,
		"CREATE TABLE t(id INTEGER NOT NULL, a TEXT DEFAULT 'd', b NOT NULL DEFAULT 1, g AS (a), PRIMARY KEY(id, b));" + crr: `the column "b" at place 0 of its primary key`,
		"CREATE TABLE t(id INTEGER NOT NULL, c NOT NULL DEFAULT 0" + rest + ", PRIMARY KEY(id, c));" + crr:                   `lacks the column "c", which is in the primary key`,
		"CREATE TABLE t(c INTEGER NOT NULL PRIMARY KEY" + rest + ");" + crr:                                                  `the column "id" in its primary key`,
		"CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY" + rest + ");" + crr:                                                    `the column "id" of the type "INTEGER", and the schema of the type "TEXT"`,
		strings.Replace(have, "'d'", "'e'", 1) + crr:                                                                         `the column "a" with the default 'd', and the schema with the default 'e'`,
		strings.Replace(have, "DEFAULT 'd'", "", 1) + crr:                                                                    `the column "a" with the default 'd', and the schema with no default`,
		strings.Replace(have, "b NOT NULL", "b", 1) + crr:                                                                    `the column "b" NOT NULL, and the schema one that may be NULL`,
		strings.Replace(have, "g AS (a)", "g", 1) + crr:                                                                      `the column "g" generated VIRTUAL, and the schema not generated`,
		strings.Replace(have, "id))", "id)) WITHOUT ROWID", 1) + crr:                                                         "STRICT or WITHOUT ROWID",
		strings.Replace(have, "a TEXT", "A TEXT", 1) + crr:                                                                   `which the schema calls "A"`,
		strings.Replace(have, "TABLE t", "TABLE T", 1) + crr:                                                                 `is called "T" in the schema`,
		strings.Replace(have, "a TEXT", "n NOT NULL, a TEXT", 1) + crr:                                                       `add the column "n" to "t"`,
		strings.Replace(have, "a TEXT", "n DEFAULT CURRENT_TIME, a TEXT", 1) + crr:                                           "give it a constant default",
		strings.Replace(have, "a TEXT", "n UNIQUE, a TEXT", 1) + crr:                                                         `add the column "n" to "t"`,
		strings.Replace(have, "a TEXT", "n REFERENCES p(a), a TEXT", 1) + crr:                                                "checked foreign key",
		have + crr + "CREATE UNIQUE INDEX i ON t(a)":                                                                         "UNIQUE index",
		have + crr + "SELECT crsql_as_crr('p'); CREATE TABLE p(a, b)":                                                        `line 1 of the schema: crsql_as_crr: the table "p" has no primary key`,
		have + crr + "SELECT crsql_as_crr('nowhere')":                                                                        "there is no table",
		have + crr + "CREATE INDEX i ON nowhere(a)":                                                                          "no such table",
		have + crr + "CREATE INDEX i ON t(nowhere + 1)":                                                                      "no such column",
		have + crr + "CREATE TABLE t(id)":                                                                                    "already exists",
		have + crr + "\n\nCREATE TABLE ,":                                                                                    "line 3 of the schema",
		have + crr + "CREATE TABLE 'x":                                                                                       "never closed",
		have + crr + "CREATE TABLE p(a PRIMARY KEY, b)":                                                                      `the column "a" at place 0 of its primary key`,
		have + crr + "CREATE TABLE p(a, b, c NOT NULL)":                                                                      "copy its rows to a new table of that name",
		have + crr + "CREATE VIEW p AS SELECT 1; CREATE TABLE crsql_x(a)":                                                    "belongs to the system",
		have + crr + "CREATE TABLE crmesh_log(a)":                                                                            "belongs to the system",
		have + crr + "CREATE TABLE x__crsql_clock(a)":                                                                        "belongs to the system",
	} {
		for _, begin := range []string{"", "BEGIN", "SAVEPOINT s"} {
			if begin != "" {
				d.script(begin, "UPDATE t SET b = b + 1")
			}
			before := d.everything()
			_, err := d.try("SELECT crsql_automigrate(?)", schema)
			if err == nil || !strings.Contains(err.Error(), say) {
				t.Errorf("%s: %v, want %q", schema, err, say)
			}
			if after := d.everything(); after != before {
				t.Fatalf("%s leaves\n%s", schema, difference(after, before))
			}
			if begin != "" {
				d.run(map[string]string{"BEGIN": "COMMIT", "SAVEPOINT s": "RELEASE s"}[begin])
			}
		}
	}
	d.expect("SELECT col_version = val FROM crsql_changes WHERE cid = 'b'", "1") // every update has its clock
	for _, sql := range []string{"SELECT crsql_automigrate()", "SELECT crsql_automigrate(NULL)", "SELECT crsql_automigrate(5)", "SELECT crsql_automigrate(x'00')", "SELECT crsql_automigrate('', '', '')"} {
		d.refuses(sql, "give the schema as a text")
	}
}

// Whatever stands in a schema, it reaches no file, reads and writes nothing, and does not take the process with it.
func TestAutomigrateHostile(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	d := openTest(t, ":memory:")
	d.migrate(noteSchema)
	d.run("INSERT INTO note VALUES (1, 'secret', 1)")
	before := d.everything()
	many := func(n int, f string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, f, i)
		}
		return b.String()
	}
	for what, schema := range map[string]string{
		"a file":                   "ATTACH 'x.db' AS x",
		"a file made":              "VACUUM INTO 'x.db'",
		"a setting":                "PRAGMA writable_schema = ON",
		"a setting, quoted":        `"PRAGMA" writable_schema`,
		"an extension":             "SELECT load_extension('x')",
		"an insert":                "INSERT INTO note VALUES (2, 2, 2)",
		"a delete":                 "CREATE TABLE a(x); DELETE FROM a",
		"a CTE":                    "WITH a AS (SELECT 1) SELECT crsql_as_crr('note')",
		"an endless CTE":           "CREATE TABLE a AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x FROM c) SELECT x FROM c",
		"a copy":                   "CREATE TABLE a AS SELECT * FROM sqlite_master",
		"a temporary table":        "CREATE TEMP TABLE a(x)",
		"a temporary schema":       "CREATE TABLE temp.a(x)",
		"a temporary view":         "CREATE TEMPORARY VIEW a AS SELECT 1",
		"a virtual table":          "CREATE VIRTUAL TABLE a USING rtree(x, y, z)",
		"an alteration":            "CREATE TABLE a(x); ALTER TABLE a ADD COLUMN y",
		"a drop":                   "DROP TABLE note",
		"a transaction":            "BEGIN; COMMIT",
		"a plan":                   "EXPLAIN CREATE TABLE a(x)",
		"another function":         "SELECT crsql_as_table('note')",
		"automigrate":              "SELECT crsql_automigrate('')",
		"a computed name":          "SELECT crsql_as_crr('no' || 'te')",
		"a query":                  "SELECT crsql_as_crr('note') FROM sqlite_master",
		"no arguments":             "SELECT crsql_as_crr()",
		"half a call":              "SELECT crsql_as_crr('note'",
		"half a list":              "SELECT crsql_as_crr('note'),",
		"nothing":                  "SELECT",
		"a number":                 "SELECT crsql_as_crr(1)",
		"a name":                   "SELECT crsql_as_crr(note)",
		"an extension in an index": "CREATE TABLE a(x); CREATE INDEX b ON a(load_extension(x))",
		"a subquery":               "CREATE TABLE a(x CHECK (x IN (SELECT 1)))",
		"a NUL":                    "CREATE TABLE a(x);\x00DROP TABLE note",
		"size":                     many(1, "CREATE TABLE a(x);"+strings.Repeat(" ", MaxSchemaBytes)),
		"statements":               many(MaxSchemaStatements+1, "CREATE TABLE a%d(x);"),
		"pages":                    many(50, "CREATE TABLE a%d("+strings.TrimSuffix(many(400, "x%[1]d UNIQUE,"), ",")+");"),
		"depth":                    "CREATE TABLE a(x CHECK (" + strings.Repeat("(", 5000) + "1" + strings.Repeat(")", 5000) + "))",
		"columns":                  "CREATE TABLE a(" + many(40_000, "x%d,") + "y)",
		"not UTF-8":                "CREATE TABLE a\xff\xfe(x",
		"an open comment":          "CREATE TABLE a(x /* ",
		"a semicolon":              "CREATE TABLE a(x;y)",
	} {
		_, err := d.try("SELECT crsql_automigrate(?)", schema)
		if err == nil {
			t.Errorf("%s is accepted", what)
		} else if len(err.Error()) > 1000 {
			t.Errorf("%s: an error of %d bytes", what, len(err.Error()))
		}
		if after := d.everything(); after != before {
			t.Fatalf("%s leaves\n%s", what, difference(after, before))
		}
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
		t.Errorf("files: %v, %v", files, err)
	}
	// A trigger is only described, not run.
	d.migrate(noteSchema + "CREATE TRIGGER x AFTER INSERT ON note BEGIN SELECT load_extension('x'); END")
}

func TestMigrate(t *testing.T) {
	ctx := context.Background()
	n := newNode(t, "n")
	report, err := n.db.Migrate(ctx, noteSchema)
	if err != nil {
		t.Fatal(err)
	}
	want := MigrateReport{
		TablesCreated: []string{"note", "setting"}, IndexesCreated: []string{"note_title"}, Others: []string{"titles", "note_once"}, CRRs: []string{"note"},
	}
	if !reflect.DeepEqual(report, want) {
		t.Errorf("the first migration reports %+v", report)
	}
	n.script("INSERT INTO note VALUES (1, 'one', 1), (2, 'two', 2)")
	const next = `
		CREATE TABLE note(name INTEGER PRIMARY KEY NOT NULL, title TEXT DEFAULT '' CHECK (title <> 'bad'), kind DEFAULT 'k');
		SELECT crsql_as_crr('note');
		CREATE INDEX note_title ON note(title, kind);
		CREATE TABLE tag(name TEXT PRIMARY KEY NOT NULL);
		SELECT crsql_as_crr('tag')`
	if _, err := n.db.Migrate(ctx, next); err == nil || !strings.Contains(err.Error(), `"id" in its primary key`) {
		t.Errorf("another key: %v", err)
	}
	file := func() string {
		return strings.Join(n.query("SELECT * FROM sqlite_master"), "\n") + strings.Join(n.query("SELECT * FROM crsql_changes"), "\n")
	}
	before := file()
	schema := strings.Replace(next, "(name INTEGER", "(id INTEGER", 1)
	want = MigrateReport{
		TablesCreated: []string{"tag"}, TablesDropped: []string{"setting"}, ColumnsAdded: []string{"note.kind"}, ColumnsDropped: []string{"note.body"},
		IndexesCreated: []string{"note_title"}, IndexesDropped: []string{"note_title"}, CRRs: []string{"tag"},
		Ignored: []string{`the column "title" of the table "note" is written differently in the schema`},
	}
	<-n.db.Commits()
	planned, err := n.db.PlanMigration(ctx, schema)
	if err != nil || !reflect.DeepEqual(planned, want) {
		t.Errorf("the plan: %+v, %v", planned, err)
	}
	if after := file(); after != before {
		t.Errorf("the plan leaves\n%s", difference(after, before))
	}
	select {
	case <-n.db.Commits():
		t.Error("a plan is announced")
	default:
	}
	if report, err = n.db.Migrate(ctx, schema); err != nil || !reflect.DeepEqual(report, want) {
		t.Errorf("the migration: %+v, %v", report, err)
	}
	<-n.db.Commits()
	n.script("INSERT INTO note VALUES (3, 'three', 3)")
	if report, err = n.db.Migrate(ctx, schema); err != nil || !reflect.DeepEqual(report, MigrateReport{Ignored: want.Ignored}) {
		t.Errorf("the second time: %+v, %v", report, err)
	}
	if _, err := n.db.Migrate(ctx, "CREATE TABLE a(x\x00)"); err == nil || !strings.Contains(err.Error(), "NUL") {
		t.Errorf("a NUL: %v", err)
	}
}

// A table loses its last columns: its rows are written anew, and peers get them. The report counts what they get.
func TestMigrateReachesPeers(t *testing.T) {
	ctx := context.Background()
	const first = "CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, a); SELECT crsql_as_crr('t')"
	const second = "CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, b DEFAULT 7); SELECT crsql_as_crr('t')"
	x, y := newNode(t, "x"), newNode(t, "y")
	for _, n := range []*node{x, y} {
		if _, err := n.db.Migrate(ctx, first); err != nil {
			t.Fatal(err)
		}
	}
	x.script("INSERT INTO t VALUES (1, 1), (2, 2)")
	at := y.pull(x, all(Position{}))
	planned, err := x.db.PlanMigration(ctx, second)
	if err != nil || planned.Changes != 2 {
		t.Errorf("the plan counts %d, %v", planned.Changes, err)
	}
	report, err := x.db.Migrate(ctx, second)
	if err != nil || report.Changes != 2 {
		t.Errorf("the report counts %d, %v", report.Changes, err)
	}
	x.script("UPDATE t SET b = 8 WHERE id = 2")
	if _, err := y.db.Migrate(ctx, second); err != nil {
		t.Fatal(err)
	}
	y.pull(x, all(at))
	equal(t, "rows", y.query("SELECT * FROM t"), x.query("SELECT * FROM t"))
}

// The context ends while the schema is being applied: nothing has changed, and the connection is as it was.
func TestMigrateEndsWithContext(t *testing.T) {
	const have = "CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, a); SELECT crsql_as_crr('t')"
	const schema = "CREATE TABLE u(x); CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, b DEFAULT (cancel())); SELECT crsql_as_crr('t')"
	// cancel ends the context, and returns once SQLite has been told.
	register := func(s *sqlite3.SQLiteConn) context.Context {
		ctx, cancel := context.WithCancel(context.Background())
		deadline := time.Now().Add(10 * time.Second)
		err := s.RegisterFunc("cancel", func() error {
			cancel()
			for time.Now().Before(deadline) {
				if _, err := queryOn(s, "SELECT 1"); err != nil {
					return err
				}
			}
			return errors.New("not interrupted")
		}, false)
		if err != nil {
			t.Fatal(err)
		}
		return ctx
	}

	n := newNode(t, "n")
	n.script(have)
	w := <-n.db.writer
	ctx := register(w.conn.sqlite)
	n.db.writer <- w
	before := n.query("SELECT * FROM sqlite_master")
	if _, err := n.db.Migrate(ctx, schema); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that ends: %v", err)
	}
	equal(t, "objects", n.query("SELECT * FROM sqlite_master"), before)
	if _, err := n.db.Migrate(ctx, schema); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
	n.script("INSERT INTO t VALUES (1, 1)")
	equal(t, "changes", n.query("SELECT cid, db_version FROM crsql_changes"), []string{`"a" 1 `})

	// In a transaction of the caller's, which goes on.
	d := openTest(t, ":memory:")
	d.script(have, "BEGIN", "INSERT INTO t VALUES (1, 1)", "DELETE FROM t")
	all := d.everything()
	rows, err := d.conn.QueryContext(register(d.engine.sqlite), "SELECT crsql_automigrate(?)", schema)
	if err == nil {
		rows.Next()
		err = errors.Join(rows.Err(), rows.Close())
	}
	if !errors.Is(err, context.Canceled) && (err == nil || !strings.Contains(err.Error(), "interrupted")) {
		t.Errorf("in a transaction: %v", err)
	}
	if d.engine.sqlite.AutoCommit() {
		t.Error("the transaction is gone")
	}
	if after := d.everything(); after != all {
		t.Errorf("in a transaction, it leaves\n%s", difference(after, all))
	}
	d.script("INSERT INTO t VALUES (2, 2)", "COMMIT")
	d.expect("SELECT pk, cid, db_version FROM crsql_changes", "x'010901' | \"-1\" | 1\nx'010902' | \"a\" | 1")
}
