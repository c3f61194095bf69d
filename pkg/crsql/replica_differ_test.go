package crsql

import (
	"path/filepath"
	"strings"
	"testing"
)

// Databases whose schemas differ exchange what both know. The rest is put aside, passed on, kept over a restart, and
// applied once the schema fits, however it comes to that.
func TestSchemasDiffer(t *testing.T) {
	const full = "id INTEGER PRIMARY KEY NOT NULL, title TEXT, tags TEXT"
	crr := func(columns string) string {
		return "CREATE TABLE note (" + columns + "); SELECT crsql_as_crr('note');"
	}
	alter := func(sql string) string {
		return "SELECT crsql_begin_alter('note'); " + sql + "; SELECT crsql_commit_alter('note');"
	}
	remake := alter("CREATE TABLE new (" + full + "); INSERT INTO new SELECT id, title, tags FROM note; DROP TABLE note; ALTER TABLE new RENAME TO note")
	for name, test := range map[string]struct {
		schema string // of the other one, beside full
		write  string // there
		shared string // what it has of a's rows at first
		parked int64  // there at first
		fit    string // brings it to full
		lost   bool   // its own row does not survive that
	}{
		"column added":        {crr("id INTEGER PRIMARY KEY NOT NULL, title TEXT"), "(10, 'b')", "SELECT id, title FROM note WHERE id < 10", 2, alter("ALTER TABLE note ADD COLUMN tags TEXT"), false},
		"plain ALTER":         {crr("id INTEGER PRIMARY KEY NOT NULL, title TEXT"), "(10, 'b')", "SELECT id, title FROM note WHERE id < 10", 2, "ALTER TABLE note ADD COLUMN tags TEXT", false},
		"automigrate":         {crr("id INTEGER PRIMARY KEY NOT NULL, title TEXT"), "(10, 'b')", "SELECT id, title FROM note WHERE id < 10", 2, "SELECT crsql_automigrate('" + strings.ReplaceAll(crr(full), "'", "''") + "')", false},
		"table unknown":       {"SELECT 1", "", "", 4, crr(full), false},
		"table does not sync": {"CREATE TABLE note (" + full + ")", "(10, 'b', 'x')", "", 4, "SELECT crsql_as_crr('note')", false},
		"column renamed":      {crr("id INTEGER PRIMARY KEY NOT NULL, title TEXT, labels TEXT"), "(10, 'b', 'x')", "SELECT id, title FROM note WHERE id < 10", 2, alter("ALTER TABLE note RENAME COLUMN labels TO tags"), false},
		"column has a CHECK":  {crr("id INTEGER PRIMARY KEY NOT NULL, title TEXT, tags TEXT CHECK (tags = 'x')"), "(10, 'b', 'x')", "SELECT id, title FROM note WHERE id < 10", 2, remake, false},
		"another key": {crr("id INTEGER NOT NULL, title TEXT NOT NULL, tags TEXT, PRIMARY KEY (id, title)"), "(10, 'b', 'x')", "", 4,
			alter("DROP TABLE note; CREATE TABLE note (" + full + ")"), true},
		"another type of key": {crr("id TEXT PRIMARY KEY NOT NULL, title TEXT, tags TEXT"), "('k', 'b', 'x')", "SELECT CAST(id AS INTEGER), title FROM note WHERE id <> 'k'", 0, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, third := newNode(t, "a"), newNode(t, "third")
			path := filepath.Join(t.TempDir(), "b")
			b := openNode(t, path)
			a.script(crr(full))
			third.script(crr(full))
			b.script(test.schema)
			a.exec("INSERT INTO note VALUES (1, 'one', 'red')")
			a.exec("INSERT INTO note VALUES (2, 'two', 'blue')")
			if test.write != "" {
				b.exec("INSERT INTO note VALUES " + test.write)
			}
			b.pull(a, all(Position{}))
			a.pull(b, all(Position{}))
			if test.shared != "" {
				equal(t, "shared", b.query(test.shared), []string{`1 "one" `, `2 "two" `})
			}
			if p := b.parked(); p.Changes != test.parked {
				t.Fatalf("parked %+v", p)
			}
			// It is passed on, also after a restart.
			if err := b.db.Close(); err != nil {
				t.Fatal(err)
			}
			b = openNode(t, path)
			third.pull(b, all(Position{}))
			if test.fit == "" {
				return
			}
			equal(t, "passed on", third.query("SELECT * FROM note WHERE id < 10"), a.query("SELECT * FROM note WHERE id < 10"))
			b.script(test.fit)
			b.replay()
			a.pull(b, all(Position{}))
			a.replay()
			if p := b.parked(); p.Changes != 0 {
				t.Errorf("still parked %+v", p)
			}
			rows := "SELECT * FROM note ORDER BY id"
			if test.lost {
				rows = "SELECT * FROM note WHERE id < 10 ORDER BY id"
			}
			equal(t, "rows", b.query(rows), a.query(rows))
			if b.state().Schema.Hash != a.state().Schema.Hash {
				t.Errorf("the schemas differ still: %s", b.columns("note"))
			}
		})
	}
}
