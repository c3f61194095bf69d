package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crmesh/crmesh/pkg/crsql"
)

const renewedLine = "the database goes on under a new site id"

// save copies a database file that nobody has open.
func save(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o600); err != nil { // an existing file stays the same one
		t.Fatal(err)
	}
}

// offline writes to a database as some other program does, without a peer.
func offline(t *testing.T, path, sql string) {
	t.Helper()
	db, err := crsql.Open(context.Background(), path, crsql.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(context.Background(), sql); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestRestoreYesterday: yesterday's file is put in the place of today's, something is written to it, and the peer starts:
// it gets back what others have of the lost day, and they get what was written.
func TestRestoreYesterday(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"written over", "replaced"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.signal()
			a := l.peer("a", l.write, "--schema", l.file("notes.sql", notes))
			b := l.peer("b", l.write)
			a.exec("INSERT INTO note VALUES (1, 'the day before', 1)")
			b.synced(1)
			a.stop()
			yesterday := filepath.Join(l.dir, "yesterday.db")
			save(t, a.db, yesterday)
			a = l.peer("a", l.write)
			a.exec("INSERT INTO note VALUES (2, 'lost here', 2)")
			a.exec("UPDATE note SET body = 'changed' WHERE id = 1")
			a.synced(1)
			equal(t, "SELECT * FROM note ORDER BY id", a, b)
			a.stop()
			if strings.Contains(a.out.String(), renewedLine) {
				t.Error("the file was the same all the time, and got a new site id")
			}
			if how == "written over" {
				save(t, yesterday, a.db)
			} else if err := os.Rename(yesterday, a.db); err != nil {
				t.Fatal(err)
			}
			offline(t, a.db, "INSERT INTO note VALUES (3, 'written offline', 3)")
			a = l.peer("a", l.write)
			a.synced(1)
			b.synced(1)
			const want = "1 \"changed\"\n2 \"lost here\"\n3 \"written offline\""
			if got := equal(t, "SELECT id, body FROM note ORDER BY id", a, b); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			if n := strings.Count(a.out.String(), renewedLine); n != 1 {
				t.Errorf("%d lines about the new site id, want one:\n%s", n, a.out)
			}
			a.stop()
			b.stop()
			if x, y := content(t, a.db, "SELECT * FROM note ORDER BY id"), content(t, b.db, "SELECT * FROM note ORDER BY id"); x != y {
				t.Errorf("the databases differ: %s and %s", x, y)
			}
		})
	}
}

// TestCopyBesideOriginal: a copied file and a clone that was made of the running peer join as peers of their own.
func TestCopyBesideOriginal(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.signal()
	a := l.peer("a", l.write, "--schema", l.file("notes.sql", notes))
	b := l.peer("b", l.write)
	a.exec("INSERT INTO note VALUES (1, 'before', 1)")
	b.synced(1)
	a.stop()
	save(t, a.db, filepath.Join(l.dir, "c.db"))
	a = l.peer("a", l.write)
	a.exec("INSERT INTO note VALUES (2, 'of a, then in the clone', 2)")
	clone := filepath.Join(l.dir, "d.db")
	l.ok("clone", a.db, clone)
	if out, err := l.try("clone", a.db, clone); err == nil || !strings.Contains(out, "exists already") {
		t.Errorf("a clone over a file that exists: %v, %s", err, out)
	}
	a.exec("INSERT INTO note VALUES (3, 'of a', 3)")
	c, d := l.peer("c", l.write), l.peer("d", l.write)
	c.exec("INSERT INTO note VALUES (4, 'of the copy', 4)")
	d.exec("INSERT INTO note VALUES (5, 'of the clone', 5)")
	all := []*replica{a, b, c, d}
	eventually(t, "every row is everywhere", func() bool {
		for _, p := range all {
			if p.query("SELECT group_concat(id) FROM (SELECT id FROM note ORDER BY id)") != `"1,2,3,4,5"` {
				return false
			}
		}
		return true
	})
	sites := map[string]bool{}
	for _, p := range all {
		p.synced(3)
		sites[p.query("SELECT hex(crsql_site_id())")] = true
	}
	if len(sites) != len(all) {
		t.Errorf("%d site ids for %d peers", len(sites), len(all))
	}
	for _, p := range all {
		want := 0
		if p == c { // the clone had its new id before it ran
			want = 1
		}
		if n := strings.Count(p.out.String(), renewedLine); n != want {
			t.Errorf("%s: %d lines about the new site id, want %d", p.db, n, want)
		}
		p.stop()
	}
	first := content(t, a.db, "SELECT * FROM note ORDER BY id")
	for _, p := range all[1:] {
		if got := content(t, p.db, "SELECT * FROM note ORDER BY id"); got != first {
			t.Errorf("%s differs: %s and %s", p.db, got, first)
		}
	}
}
