package main

import (
	"context"
	"database/sql"
	"slices"
	"strings"
	"testing"

	"github.com/crmesh/crmesh/pkg/crsql"
	"github.com/crmesh/crmesh/pkg/mesh"
)

// schemaOf is a schema file of two tables.
func schemaOf(noteColumns string, more ...string) string {
	return "CREATE TABLE note (id INTEGER PRIMARY KEY NOT NULL, body TEXT" + noteColumns + ");\nSELECT crsql_as_crr('note');\n" +
		strings.Join(more, "\n")
}

const tagTable = "CREATE TABLE tag (k TEXT PRIMARY KEY NOT NULL);\nSELECT crsql_as_crr('tag');\nINSERT OR IGNORE INTO tag VALUES ('of the file');\n"

func (r *replica) status() mesh.Status {
	r.t.Helper()
	var s mesh.Status
	if err := r.flags().call(context.Background(), "/v1/status", nil, &s); err != nil {
		r.t.Fatal(err)
	}
	return s
}

// have waits until peers have a column.
func have(t *testing.T, table, column string, peers ...*replica) {
	t.Helper()
	eventually(t, "there is "+table+"."+column, func() bool {
		return !slices.ContainsFunc(peers, func(p *replica) bool {
			return p.query("SELECT count(*) FROM pragma_table_info(?) WHERE name = ?", table, column) != "1"
		})
	})
}

// sameSchemas waits until the peers have the same tables, and know it.
func sameSchemas(t *testing.T, generation int64, peers ...*replica) {
	t.Helper()
	eventually(t, "the schemas are the same", func() bool {
		for _, p := range peers {
			s := p.status()
			if s.SchemaHash != peers[0].status().SchemaHash || s.Generation != generation || s.Parked.Changes != 0 {
				return false
			}
			for _, m := range s.Members {
				if !m.SameSchema || len(m.SchemaDifference) > 0 {
					return false
				}
			}
		}
		return true
	})
}

// A member brings a new schema; one takes what is missing, one all of it, one nothing until it is told to. What that one
// could not apply it has kept, also over a restart.
func TestUpgrade(t *testing.T) {
	l := newLab(t)
	l.signal()
	first := l.file("first.sql", schemaOf(", old TEXT"))
	a := l.peer("a", l.write, "--schema", first)
	b := l.peer("b", l.write)
	c := l.peer("c", l.write, "--accept-schema", "any")
	d := l.peer("d", l.write)
	a.exec("INSERT INTO note VALUES (1, 'one', 'x')")
	have(t, "note", "body", b, c, d)
	equal(t, "SELECT * FROM note", a, b, c, d)
	a.stop()
	d.stop()
	d = l.peer("d", l.write, "--accept-schema", "never")

	second := l.file("second.sql", schemaOf(", tags TEXT DEFAULT 'none', n INTEGER NOT NULL DEFAULT 0", tagTable))
	a = l.peer("a", l.write, "--schema", second)
	for _, want := range []string{"migrating the database", "columns dropped", "note.old", "tables created"} {
		if !strings.Contains(a.out.String(), want) {
			t.Errorf("the log of the migration lacks %q", want)
		}
	}
	a.exec("INSERT INTO tag VALUES ('k')")
	a.exec("INSERT INTO note (id, body, tags, n) VALUES (2, 'two', 'red', 5)")
	b.exec("UPDATE note SET body = 'changed' WHERE id = 1")
	equal(t, "SELECT id, body FROM note ORDER BY id", a, b, c, d)
	have(t, "note", "n", b, c)
	have(t, "tag", "k", b, c)
	equal(t, "SELECT id, tags, n FROM note ORDER BY id", a, b, c)
	if got := equal(t, "SELECT * FROM tag", a, b, c); got != `"k"` {
		t.Errorf("the tags are %s", got)
	}
	if got := b.query("SELECT old FROM note WHERE id = 1"); got != `"x"` {
		t.Errorf("b has lost what nobody let it lose: %s", got)
	}
	if got := c.query("SELECT count(*) FROM pragma_table_info('note') WHERE name = 'old'"); got != "0" {
		t.Error("c keeps a column that the newer schema lacks")
	}
	eventually(t, "d says what it put aside and how it differs", func() bool {
		out := l.ok("status", "--api", d.api)
		return strings.Contains(out, "1 changes to tag: there is no such table here") && strings.Contains(out, "note: column tags is missing here") &&
			strings.Contains(out, "tag: table is missing here") && strings.Contains(d.out.String(), "tag: table is missing here") && d.status().Parked.Changes == 3
	})
	// Another program adds a column that changes wait for: they are applied while the peer runs.
	other, err := sql.Open(crsql.DriverName, d.db)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Exec("ALTER TABLE note ADD COLUMN n INTEGER NOT NULL DEFAULT 0"); err != nil {
		t.Fatal(err)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	equal(t, "SELECT id, n FROM note ORDER BY id", a, d)
	eventually(t, "d says that two changes are still put aside", func() bool { return d.status().Parked.Changes == 2 }) // after it has applied the third
	d.stop()
	d = l.peer("d", l.write)
	have(t, "note", "tags", d)
	have(t, "tag", "k", d)
	equal(t, "SELECT id, body, tags, n FROM note ORDER BY id", a, b, c, d)
	equal(t, "SELECT * FROM tag", a, b, c, d)
	// The same file again does nothing; one that cannot be is refused with what to do.
	a.stop()
	out, err := l.try("run", "--db", a.db, "--room", l.write, "--api", a.api, "--schema",
		l.file("third.sql", strings.Replace(schemaOf(", tags TEXT DEFAULT 'none', n INTEGER NOT NULL DEFAULT 0", tagTable), "body TEXT", "body BLOB", 1)))
	if err == nil || !strings.Contains(out, "cannot be migrated") || !strings.Contains(out, "copy its rows") {
		t.Errorf("a schema that cannot be: %v, %s", err, out)
	}
	// b and d have what the first file had besides: their owners bring them to the second one.
	a = l.peer("a", l.write, "--schema", second)
	for name, p := range map[string]**replica{"b": &b, "d": &d} {
		for _, file := range []string{first, second} {
			(*p).stop()
			*p = l.peer(name, l.write, "--schema", file)
		}
		(*p).synced(3)
	}
	sameSchemas(t, 3, a, b, c, d)
	equal(t, "SELECT id, body, tags, n FROM note ORDER BY id", a, b, c, d)
}

// What was put aside is applied, too, where the migration comes with a start: nobody is there to see the schema change.
func TestUpgradeAtStart(t *testing.T) {
	l := newLab(t)
	l.signal()
	first, second := l.file("first.sql", schemaOf("")), l.file("second.sql", schemaOf(", n INTEGER NOT NULL DEFAULT 0", tagTable))
	a := l.peer("a", l.write, "--schema", first)
	b := l.peer("b", l.write, "--schema", first, "--accept-schema", "never")
	a.exec("INSERT INTO note VALUES (1, 'one')")
	equal(t, "SELECT id, body FROM note", a, b)
	a.stop()
	a = l.peer("a", l.write, "--schema", second)
	a.exec("UPDATE note SET n = 5")
	a.exec("INSERT INTO tag VALUES ('k')")
	eventually(t, "b has put aside what does not fit", func() bool { return b.status().Parked.Changes == 2 })
	b.stop()
	b = l.peer("b", l.write, "--schema", second, "--accept-schema", "never")
	equal(t, "SELECT * FROM note", a, b)
	equal(t, "SELECT * FROM tag", a, b)
	eventually(t, "nothing is put aside", func() bool { return b.status().Parked.Changes == 0 })
}

// A table that syncs is not dropped by a statement: it would come back without its rows, and newcomers would get NULL for them. One
// whose sync was ended is.
func TestDropRefused(t *testing.T) {
	l := newLab(t)
	l.signal()
	a := l.peer("a", l.write, "--schema", l.file("notes.sql", schemaOf("")))
	a.exec("INSERT INTO note VALUES (1, 'one')")
	a.exec("CREATE TABLE plain (a)")
	for _, sql := range []string{"DROP TABLE note", "/* all of it */ drop table if exists NOTE", "ALTER TABLE note RENAME TO other"} {
		out, err := l.try("exec", "--api", a.api, sql)
		if err == nil || !strings.Contains(out, `the table "note" syncs`) || !strings.Contains(out, "crsql_as_table") {
			t.Errorf("%s: %v, %s", sql, err, out)
		}
	}
	if got := a.query("SELECT * FROM note"); got != `1 "one"` {
		t.Errorf("the table holds %s", got)
	}
	a.exec("DROP TABLE plain")
	a.exec("UPDATE note SET body = 'drop it'")
	a.exec("SELECT crsql_as_table('note')")
	a.exec("DROP TABLE note")
}
