package crsql

import (
	"reflect"
	"strings"
	"testing"

	"github.com/mattn/go-sqlite3"
)

var scripts = []string{
	"", ";", ";;;", " \t\r\n\f", "\v", "SELECT 1", "SELECT 1;", "SELECT 1; SELECT 2", "; ;SELECT 1 ;;", "-- a;b\nSELECT 1; -- c", "SELECT 1 /* ; */; SELECT 2", "/*", "/*/", "/**/ SELECT 1; /* open ; ",
	"SELECT ';' || ';;'; SELECT 2", "SELECT 'it''s;'; SELECT 2", `SELECT 1 AS "a;b"";"; SELECT 2`, "SELECT 1 AS `;``;`; SELECT 2", "SELECT 1 AS [a;b]; SELECT 2", "SELECT x'3b'; SELECT 2", "SELECT 'open;", `SELECT "open;`, "SELECT [open;",
	"CREATE TRIGGER a AFTER INSERT ON t BEGIN SELECT 1; SELECT 2; END; SELECT 3", "CREATE TEMP TRIGGER a AFTER INSERT ON t BEGIN SELECT CASE 1 WHEN 1 THEN 2 END; END; SELECT 3",
	"create temporary trigger a after insert on t begin select 1; end; select 3", "EXPLAIN CREATE TRIGGER a AFTER INSERT ON t BEGIN SELECT 1; END; SELECT 3", "EXPLAIN QUERY PLAN CREATE TRIGGER a AFTER INSERT ON t BEGIN SELECT 1; END; SELECT 3",
	"CREATE TRIGGER IF NOT EXISTS a AFTER UPDATE OF x ON t WHEN NEW.x = ';' BEGIN UPDATE t SET x = ';'; DELETE FROM t; END ; SELECT 3", "CREATE /* TRIGGER */ TABLE u(a); SELECT 1", "CREATE TABLE trigger_(a); SELECT 1; END; SELECT 2",
	"CREATE TABLE u(a DEFAULT ';', b CHECK (b <> ';')); SELECT 1", "SELECT $a(;); SELECT 2", "SELECT $a::b(x;y), :c, @d, #e; SELECT 2", "SELECT ?1, ?; SELECT 2", "SELECT a$b FROM (SELECT 1 AS a$b); SELECT 2", "\ufeffSELECT 1; \ufeffSELECT 2", "SELECT \ufeff1; SELECT 2",
	"BEGIN; END; SELECT 1", "SELECT 1 AS end; END; SELECT 1", "SELECT 1 AS 日本; SELECT 2", "SELECT 1.5e10, 0x1f, .5; SELECT 2", "SELECT 1 -- no line end", "SELECT 1 - -1; SELECT 2", "SELECT 2/1; SELECT 2", "WITH x AS (SELECT ';') SELECT * FROM x; SELECT 2",
	"SELECT 1;SELECT", "CREATE TRIGGER a AFTER INSERT ON t BEGIN SELECT 1; SELECT 1 AS end; END; SELECT 2", "CREATE TRIGGER a AFTER INSERT ON t BEGIN SELECT 1;; END; SELECT 2", "CREATE TRIGGER", "CREATE TRIGGER a; END; x", "EXPLAIN", "EXPLAIN;", "EXPLAIN SELECT 1; SELECT 2",
}

// What no user of a DB may run, in more spellings than one.
var forbidden = []string{
	"PRAGMA x=1", "EXPLAIN PRAGMA x", "BEGIN", "COMMIT", "END", "ROLLBACK TO s", "SAVEPOINT s", "RELEASE s", "ATTACH 'x' AS y", "DETACH y", "VACUUM", "CREATE TEMP TABLE u(a)", "CREATE TABLE temp.u(a)",
	"CREATE TABLE\"temp\".u(a)", "CREATE TABLE 'temp'.u(a)", "CREATE TABLE IF NOT EXISTS[temp].[u](a)", "CREATE VIEW temp.v AS SELECT 1", "CREATE TEMPORARY TRIGGER x AFTER INSERT ON t BEGIN SELECT 1; END",
	"CREATE TRIGGER temp.x AFTER INSERT ON t BEGIN SELECT 1; END", " \vPRAGMA x", "\ufeffPRAGMA x", "/**/--\n\fPRAGMA x", ";;BEGIN", "CREATE TABLE temp.u AS SELECT 1",
}

// What SQLite's authorizer calls the actions that sqlStatement.refused is to keep out, VACUUM excepted, which has none.
var forbiddenActions = map[int]string{
	3: "a temporary index", 4: "a temporary table", 5: "a temporary trigger", 6: "a temporary view",
	19: "PRAGMA", 22: "a transaction", 24: "ATTACH", 25: "DETACH", 32: "a savepoint",
}

// The scanner ends, covers the script, and cuts it where SQLite does; what SQLite makes of a statement is refused if it
// is one that no user may run.
func FuzzScanner(f *testing.F) {
	for _, script := range append(scripts, forbidden...) {
		f.Add(script)
	}
	for _, script := range forbidden {
		if st, err := oneStatement(script); err != nil || st.refused() == "" {
			f.Errorf("%q is not refused (%v)", script, err)
		}
	}
	c, err := (&sqlite3.SQLiteDriver{}).Open(":memory:")
	if err != nil {
		f.Fatal(err)
	}
	defer c.Close()
	sqlite := c.(*sqlite3.SQLiteConn)
	if _, err := sqlite.Exec("CREATE TABLE t(id INTEGER PRIMARY KEY, x)", nil); err != nil {
		f.Fatal(err)
	}
	saw := ""
	sqlite.RegisterAuthorizer(func(op int, _, _, _ string) int {
		if what, ok := forbiddenActions[op]; ok {
			saw = what
			return sqlite3.SQLITE_DENY // some take effect when they are prepared
		}
		return sqlite3.SQLITE_OK
	})
	f.Fuzz(func(t *testing.T, script string) {
		scanner := newSQLScanner(script)
		end, line := 0, 1
		for first := true; ; first = false {
			st, ok, err := scanner.next()
			if scanner.pos > len(script) || scanner.pos < end {
				t.Fatalf("the scanner goes from %d to %d of %d", end, scanner.pos, len(script))
			}
			if err != nil {
				break
			}
			if !ok {
				if scanner.pos != len(script) {
					t.Fatalf("the scanner ends at %d of %d", scanner.pos, len(script))
				}
				break
			}
			at := strings.Index(script[end:scanner.pos], st.sql)
			if at < 0 || st.sql == "" || len(st.words) > maxWords {
				t.Fatalf("%q is no statement of %q", st.sql, script[end:scanner.pos])
			}
			if st.line < line || st.line > 1+strings.Count(script[:scanner.pos], "\n") {
				t.Fatalf("line %d of %q", st.line, script)
			}
			line = st.line
			one, err := oneStatement(st.sql)
			if err != nil || one.sql != st.sql || !reflect.DeepEqual(one.words, st.words) || one.explain != st.explain {
				t.Fatalf("%q alone is %+v, %v", st.sql, one, err)
			}
			_, _ = st.notQuery(), hasKeyword(st.sql, "AUTOINCREMENT")
			if first {
				checkTail(t, sqlite, script, script[scanner.pos:])
			}
			saw = ""
			if prepared, err := sqlite.Prepare(st.sql); err == nil {
				_ = prepared.Close()
			}
			if saw != "" && st.refused() == "" && strings.IndexByte(st.sql, 0) < 0 {
				t.Fatalf("%q is not refused, it is %s", st.sql, saw)
			}
			end = scanner.pos
		}
	})
}

// checkTail compares what follows the first statement with what SQLite leaves of the script, if SQLite takes it.
func checkTail(t *testing.T, c *sqlite3.SQLiteConn, script, tail string) {
	t.Helper()
	for rest := script; ; {
		if strings.IndexByte(rest, 0) >= 0 {
			return
		}
		prepared, err := c.Prepare(rest)
		if err != nil {
			return
		}
		st := reflect.ValueOf(prepared).Elem()
		empty, left := st.FieldByName("s").IsNil(), st.FieldByName("t").String() // of mattn's statement, trimmed
		if err := prepared.Close(); err != nil {
			t.Fatal(err)
		}
		if !empty {
			if want := strings.TrimSpace(tail); left != want {
				t.Fatalf("of %q SQLite leaves %q, the scanner %q", script, left, want)
			}
			return
		}
		if left == "" {
			t.Fatalf("in %q SQLite finds no statement", script)
		}
		rest = left
	}
}
