package crsql

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// Whatever a trigger's function is called with by hand, the answer is an answer or an error, and no clock loses its key.
func TestTriggerFunctionsByHand(t *testing.T) {
	d := openTest(t, ":memory:")
	n := newNeighbour(d)
	d.run("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, x, y); SELECT crsql_as_crr('t'); INSERT INTO t VALUES (1, 1, 1)")
	d.run("CREATE TABLE keys(a NOT NULL, b NOT NULL, PRIMARY KEY(b, a)) WITHOUT ROWID; SELECT crsql_as_crr('keys'); INSERT INTO keys VALUES (1, 1)")
	for _, begin := range []bool{false, true} {
		for _, f := range []string{"crsql_after_insert", "crsql_after_update", "crsql_after_delete"} {
			for _, table := range []string{"'t'", "'keys'", "CAST('t' AS BLOB)", "NULL", "1", "'T'", "'nowhere'", "'neighbour__crsql_pks'", "zeroblob(100000)"} {
				for _, args := range []string{
					"", "1", "1, 2", "1, 2, 3", "1, 1, 2, 3", "NULL", "NULL, NULL", "1, NULL, 1, 1, 1, 1", "NULL, 1, 1, 1, 1, 1", "'x', x'', 1e300, 5, 6, 7",
					"9223372036854775807", "-9223372036854775808, 1", "1e999", "zeroblob(2000000), 1", "char(0), ''", "1, 1, 1, 1, 1, 1", "2, 1, 1, 1, 1, 1",
				} {
					if begin {
						d.run("BEGIN")
					}
					sql := strings.Replace("SELECT "+f+"("+table+", "+args+")", ", )", ")", 1)
					_, err := d.try(sql)
					if err != nil && strings.Contains(err.Error(), "internal error") {
						t.Errorf("%s: %v", sql, err)
					}
					if strings.Contains(args, "NULL") && err == nil && table[0] == '\'' {
						t.Errorf("%s: a key with a NULL is taken", sql)
					}
					if begin {
						d.run("COMMIT")
					}
				}
			}
		}
	}
	n.unharmed("calls by hand")
	d.run("INSERT INTO t VALUES (2, 2, 2); DELETE FROM t WHERE id = 1; UPDATE t SET id = 7, x = 8 WHERE id = 2")
	if got := dump(d.run("SELECT * FROM t")); got != "7 | 8 | 2" {
		t.Errorf("t holds %s", got)
	}
}

// A panic in any function ends as an error of the statement. Without the guard it would end this process.
func TestPanicsBecomeErrors(t *testing.T) {
	d := openTest(t, ":memory:")
	n := newNeighbour(d)
	for name, f := range map[string]any{
		"p0": func() int64 { panic("zero") },
		"p1": func(any) (any, error) { panic(errors.New("one")) },
		"pn": func(...any) (any, error) { var t *table; return t.name, nil },
		"ps": func(...any) string { panic(nil) },
		"ok": func(a, b any) (any, error) { return a, nil },
		"no": func(a any) (any, error) { return nil, errors.New("no") },
	} {
		if err := d.engine.sqlite.RegisterFunc(name, d.engine.callback(name, f), false); err != nil {
			t.Fatal(err)
		}
	}
	for _, begin := range []bool{false, true} {
		if begin {
			d.run("BEGIN")
		}
		for _, call := range []string{"p0()", "p1(1)", "pn()", "pn(1, 2, 3)", "ps(4)"} {
			if _, err := d.try("SELECT " + call); err == nil || !strings.Contains(err.Error(), call[:2]+": internal error") {
				t.Errorf("%s: %v", call, err)
			}
		}
		if got := dump(d.run("SELECT ok(7, 8), ok(NULL, 1), ok(x'05', 1), ok('a', 1)")); got != `7 | NULL | x'05' | "a"` {
			t.Errorf("ok gives %s", got)
		}
		for call, want := range map[string]string{"no(1)": "no", "ok(1)": "wrong number of arguments", "p0(1)": "wrong number of arguments"} {
			if _, err := d.try("SELECT " + call); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %s", call, err, want)
			}
		}
		if d.engine.nesting != 0 {
			t.Errorf("the nesting is %d", d.engine.nesting)
		}
		n.unharmed("panics")
		if begin {
			d.run("COMMIT")
		}
	}
	// In the middle of a local write: the statement is undone, the transaction is not.
	d.run("CREATE TRIGGER bad AFTER UPDATE ON neighbour WHEN NEW.n > 1000 BEGIN SELECT pn(); END")
	d.run("BEGIN; INSERT INTO neighbour VALUES (5, 5)")
	if _, err := d.try("UPDATE neighbour SET n = n + 1000"); err == nil {
		t.Error("the trigger did not fail")
	}
	n.unharmed("a panic in a trigger")
	d.run("COMMIT; DELETE FROM neighbour WHERE id = 5")
	n.unharmed("a transaction with a panic in it")
}

// A panic of the owner's hook passes on to whoever ran the statement, past SQLite.
func TestPanicInHook(t *testing.T) {
	opened, err := (&Driver{}).Open(":memory:")
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	c := opened.(*conn)
	run := func(query string) {
		if _, err := c.ExecContext(t.Context(), query, nil); err != nil {
			t.Fatal(err)
		}
	}
	c.engine.onRollback = func() { panic("in the hook") }
	func() {
		defer func() {
			if p := recover(); p != "in the hook" {
				t.Errorf("the panic is %v", p)
			}
		}()
		run("BEGIN; CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL); ROLLBACK")
	}()
	c.engine.onRollback = nil
	run("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL); SELECT crsql_as_crr('t'); INSERT INTO t VALUES (1)")
}

// Functions that set each other off through triggers on the engine's own tables are stopped before the stack ends.
func TestEndlessNesting(t *testing.T) {
	for name, trigger := range map[string]string{
		"local write": "CREATE TRIGGER again AFTER INSERT ON t__crsql_clock BEGIN INSERT INTO t VALUES (NEW.key + 1000, 1); END",
		"with new statements each time": "CREATE TRIGGER again AFTER INSERT ON t__crsql_clock BEGIN SELECT crsql_finalize(); " +
			"INSERT INTO t VALUES (abs(random()), 1); END",
		"by hand":  "CREATE TRIGGER again AFTER INSERT ON t__crsql_pks BEGIN SELECT crsql_finalize(); SELECT crsql_after_insert('t', NEW.__crsql_key + 1); END",
		"as crr":   "CREATE TRIGGER again AFTER INSERT ON t__crsql_pks BEGIN SELECT crsql_as_crr('plain'); END",
		"as table": "CREATE TRIGGER again AFTER INSERT ON t__crsql_pks BEGIN SELECT crsql_as_table('t'); END",
		"view": "CREATE TABLE log(a); CREATE VIEW v AS SELECT 1 AS a; CREATE TRIGGER again INSTEAD OF INSERT ON v BEGIN INSERT INTO v VALUES (NEW.a + 1); END;" +
			"CREATE TRIGGER onto AFTER INSERT ON t__crsql_pks BEGIN INSERT INTO v VALUES (1); END",
		"merge": "CREATE TEMP TRIGGER again AFTER INSERT ON t BEGIN SELECT crsql_finalize(); " +
			"INSERT INTO crsql_changes VALUES ('t', crsql_pack_columns(NEW.id + 1), 'x', 1, 1, 1, x'aa', 1, 0); END",
	} {
		for _, recursive := range []int{0, 1} {
			t.Run(fmt.Sprintf("%s/recursive_triggers %d", name, recursive), func(t *testing.T) {
				d := openTest(t, ":memory:")
				n := newNeighbour(d)
				d.run(fmt.Sprintf("PRAGMA recursive_triggers = %d", recursive))
				d.run("CREATE TABLE plain(id INTEGER PRIMARY KEY NOT NULL); CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, x); SELECT crsql_as_crr('t')")
				d.run("SELECT count(*) FROM crsql_changes")
				d.run(trigger)
				for _, sql := range []string{
					"INSERT INTO t VALUES (1, 1)", "INSERT INTO crsql_changes VALUES ('t', x'010905', 'x', 5, 9, 1, x'aa', 1, 0)", "UPDATE t SET id = id + 50",
					"INSERT OR REPLACE INTO t VALUES (1, 1)", "DELETE FROM t",
				} {
					_, err := d.try(sql)
					if err != nil && (strings.Contains(err.Error(), "internal error") || len(err.Error()) > 5000) {
						t.Errorf("%s: %v", sql, err)
					}
					n.unharmed(sql)
				}
				if d.engine.nesting != 0 {
					t.Errorf("the nesting is %d", d.engine.nesting)
				}
				n.autocommit("endless nesting")
			})
		}
	}
}

// A statement that is closed while it runs is closed when it has run, not by the garbage collector.
func TestCloseWhileRunning(t *testing.T) {
	d := openTest(t, ":memory:")
	n := newNeighbour(d)
	st, err := d.engine.stmts.get(statementKey{kind: stmtSchemaVersion}, func() string { return "PRAGMA main.schema_version" })
	if err != nil {
		t.Fatal(err)
	}
	closed := func() bool { return reflect.ValueOf(st.sqlite).Elem().FieldByName("closed").Bool() }
	if err := st.each(nil, func([]driver.Value) error { d.engine.finalize(); return nil }); err != nil || !closed() {
		t.Errorf("closed: %v, %v", closed(), err)
	}
	if err := st.exec(); err == nil {
		t.Error("a closed statement runs")
	}
	n.unharmed("a statement that was closed while it ran")
}
