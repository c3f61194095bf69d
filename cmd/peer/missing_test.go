package main

import (
	"database/sql"
	"strings"
	"testing"

	"github.com/crmesh/crmesh/pkg/crsql"
)

// TestDroppedByAnother: where another program drops a table that syncs, log and status say what to do, and that does it.
func TestDroppedByAnother(t *testing.T) {
	l := newLab(t)
	l.signal()
	a := l.peer("a", l.write, "--schema", l.file("schema.sql", noteSchema))
	b := l.peer("b", l.write)
	a.synced(1)
	a.exec("INSERT INTO note VALUES (1, 'one'), (2, 'two')")
	equal(t, "SELECT * FROM note", a, b)
	other, err := sql.Open(crsql.DriverName, b.db)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	if _, err := other.Exec("DROP TABLE note"); err != nil {
		t.Fatal(err)
	}
	says := func(text string) func() bool {
		return func() bool { return strings.Contains(l.ok("status", "--api", b.api), text) }
	}
	eventually(t, "the status tells of the table", says("2 rows of note: another program dropped this table"))
	if !strings.Contains(b.out.String(), "another program dropped this table") {
		t.Error("the log does not tell")
	}
	b.stop()
	b = l.peer("b", l.write)
	b.synced(1)
	eventually(t, "the status tells of the rows", says("2 rows of note: another program dropped this table and made it again"))
	b.stop()
	b = l.peer("b", l.write)
	eventually(t, "and after one more start", says("2 rows of note: another program dropped this table and made it again"))
	b.synced(1)
	l.ok("verify", "--api", b.api, "--repair")
	equal(t, "SELECT * FROM note", a, b)
	eventually(t, "the status has nothing to tell", func() bool { return !says("missing")() })
}
