package crsql

import (
	"slices"
	"strings"
	"testing"
)

// fuzzTables is what the database holds that FuzzAutomigrate brings to random schemas.
const fuzzTables = "CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, a TEXT DEFAULT 'x', b); SELECT crsql_as_crr('t'); CREATE INDEX ta ON t(a, b);" +
	"CREATE TABLE u(k TEXT NOT NULL, n NOT NULL, v INTEGER NOT NULL DEFAULT 7, PRIMARY KEY(n, k)) WITHOUT ROWID; SELECT crsql_as_crr('u')"

// FuzzAutomigrate brings a database with rows to a random schema. Either that fails and nothing has changed, or the tables
// are those of the schema, and doing it again changes nothing.
func FuzzAutomigrate(f *testing.F) {
	for _, schema := range []string{
		"", fuzzTables, noteSchema, fuzzTables + ";" + noteSchema, strings.ToUpper(fuzzTables),
		strings.Replace(fuzzTables, ", b)", ", c REAL DEFAULT 1.5, d COLLATE NOCASE CHECK (d > 0))", 1),
		strings.Replace(fuzzTables, "a TEXT DEFAULT 'x', b", "b, g AS (b || 'g') STORED", 1) + "; DROP TABLE t",
		strings.Replace(strings.Replace(fuzzTables, "a TEXT DEFAULT 'x', b", "b, g AS (b || 'g')", 1), "(a, b)", "(b DESC) WHERE b > 1", 1),
		strings.Replace(fuzzTables, "v INTEGER NOT NULL DEFAULT 7, ", "", 1) + "; CREATE VIEW w AS SELECT * FROM u; CREATE TRIGGER x INSTEAD OF DELETE ON w BEGIN DELETE FROM u WHERE n = OLD.n; END",
		strings.Replace(fuzzTables, "a TEXT DEFAULT 'x', b", `"new ""col" DEFAULT "dq", [b] /* ; */, -- , (`+"\n `c`", 1),
		strings.Replace(fuzzTables, "CREATE TABLE u(", "CREATE UNIQUE INDEX tb ON t(b); CREATE TABLE u(", 1),
		"CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL); SELECT crsql_as_crr('t'); CREATE TABLE v(x UNIQUE, y REFERENCES t(id)) STRICT; ATTACH 'x' AS y",
		"CREATE TABLE T(id INTEGER PRIMARY KEY NOT NULL, a TEXT DEFAULT 'x', b);SELECT crsql_as_crr('T'), crsql_as_crr(\"main\", 'u');CREATE TABLE s(id INTEGER PRIMARY KEY AUTOINCREMENT)",
		"CREATE TABLE IF NOT EXISTS main.t(id INT PRIMARY KEY); CREATE TEMP TABLE x(y); PRAGMA user_version = 1; CREATE TABLE z AS SELECT 1",
	} {
		f.Add(schema)
	}
	f.Fuzz(func(t *testing.T, schema string) {
		d := openTest(t, ":memory:")
		defer d.close()
		d.migrate(fuzzTables)
		d.script("INSERT INTO t VALUES (1, 'x', 1), (2, 'y', NULL), (3, 'z', x'00')", "INSERT INTO u VALUES ('a', 1, 2), ('b', 1.5, 3)",
			"DELETE FROM t WHERE id = 3", "UPDATE u SET v = 5", "SELECT count(*) FROM crsql_changes")
		before, version := d.everything(), d.int("SELECT crsql_db_version()")
		_, err := d.try("SELECT crsql_automigrate(?)", schema)
		after := d.everything()
		if err != nil {
			if after != before {
				t.Fatalf("after %v\n%s", err, difference(after, before))
			}
		} else {
			matches(t, d, schema)
			d.migrate(schema)
			if again := d.everything(); again != after {
				t.Fatalf("the second time\n%s", difference(again, after))
			}
		}
		if now := d.int("SELECT crsql_db_version()"); now < version {
			t.Fatalf("db_version falls from %d to %d", version, now)
		}
		d.expect("PRAGMA integrity_check", `"ok"`)
		d.run("SELECT * FROM crsql_changes")
	})
}

// matches checks that the tables of a database are those that the schema makes where there are none.
func matches(t *testing.T, d *testDB, schema string) {
	want, err := readWanted(schema)
	if err != nil {
		t.Fatal(err)
	}
	have, err := readShape(d.engine.sqlite)
	if err != nil {
		t.Fatal(err)
	}
	if len(have.tables) != len(want.shape.tables) {
		t.Fatalf("%d tables, the schema has %d", len(have.tables), len(want.shape.tables))
	}
	for name, table := range want.shape.tables {
		other := have.tables[name]
		if other == nil {
			t.Fatalf("there is no table %q", name)
		}
		byName := func(a, b columnShape) int { return strings.Compare(a.name, b.name) }
		columns := slices.SortedFunc(slices.Values(table.columns), byName)
		others := slices.SortedFunc(slices.Values(other.columns), byName)
		if table.name != other.name || table.options != other.options || !slices.EqualFunc(columns, others, func(a, b columnShape) bool { return a.differs(&b) == "" }) {
			t.Fatalf("the table %+v, the schema has %+v", other, table)
		}
	}
	for key, object := range want.shape.objects {
		if other, ok := have.objects[key]; !ok || object.kind != "table" && !sameSQL(object.sql, other.sql) {
			t.Fatalf("%s is %q, and in the schema %q", key, other.sql, object.sql)
		}
	}
	for key, object := range have.objects {
		if _, ok := want.shape.objects[key]; !ok && object.kind == "index" && !reserved(object.table) {
			t.Fatalf("the index %q is not in the schema", object.name)
		}
	}
	for name := range want.crrs {
		if !have.isCRR(name) {
			t.Fatalf("%q is no CRR", name)
		}
	}
}
