package main

import (
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/crmesh/crmesh/pkg/crsql"
)

const renewedLine = "the database goes on under a new site id"

// renewedTimes checks how often a running peer took a new site id.
func renewedTimes(t *testing.T, r *replica, want int) {
	t.Helper()
	if n := strings.Count(r.out.String(), renewedLine); n != want {
		t.Errorf("%s: %d lines about the new site id, want %d:\n%s", r.db, n, want, r.out)
	}
}

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
			renewedTimes(t, a, 1)
			a.stop()
			b.stop()
			sameContent(t, a, b, "SELECT * FROM note ORDER BY id")
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
		renewedTimes(t, p, want)
		p.stop()
	}
	first := content(t, a.db, "SELECT * FROM note ORDER BY id")
	for _, p := range all[1:] {
		if got := content(t, p.db, "SELECT * FROM note ORDER BY id"); got != first {
			t.Errorf("%s differs: %s and %s", p.db, got, first)
		}
	}
}

// machine is a peer's part of a machine's disk, as a backup of the whole of it has it: the database and the file beside it.
type machine struct{ db, kept string }

func backUp(t *testing.T, db, kept string) machine {
	t.Helper()
	save(t, db, kept)
	save(t, db+crsql.LockSuffix, kept+crsql.LockSuffix)
	return machine{db, kept}
}

// putBack restores the disk: the files are the same ones, and nothing shows that they were put back.
func (m machine) putBack(t *testing.T) {
	t.Helper()
	save(t, m.kept, m.db)
	save(t, m.kept+crsql.LockSuffix, m.db+crsql.LockSuffix)
}

// homeless takes out of a database where it was, so that nothing shows that it is somewhere else: as on a machine that is a
// copy of another.
func homeless(t *testing.T, path string) {
	t.Helper()
	db, err := sql.Open(crsql.DriverName, path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("DELETE FROM crmesh_meta WHERE key = 'home'"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// sites is how many different site ids the peers have.
func sites(peers ...*replica) int {
	ids := map[string]bool{}
	for _, p := range peers {
		ids[p.query("SELECT hex(crsql_site_id())")] = true
	}
	return len(ids)
}

// everywhere waits until all peers answer a query so, and then compares what they hold.
func everywhere(t *testing.T, sql, want string, peers ...*replica) {
	t.Helper()
	for _, p := range peers {
		eventually(t, want+" at "+p.db, func() bool { return p.query(sql) == want })
	}
}

// TestMachinePutBack: a machine is put back as a whole, and its peer commits other things under numbers that the others hold
// already. When it meets one of them it goes on under a new site id, and both end with all rows, and nobody does anything for it. A
// peer that has got the new rows before passes them on.
func TestMachinePutBack(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.signal()
	a := l.peer("a", l.write, "--schema", l.file("notes.sql", notes))
	b := l.peer("b", l.write)
	a.exec("INSERT INTO note VALUES (1, 'the day before', 1), (2, 'the day before', 2)")
	b.synced(1)
	a.synced(1)
	a.stop()
	disk := backUp(t, a.db, filepath.Join(l.dir, "disk"))
	a = l.peer("a", l.write)
	for i := range 10 {
		a.exec("INSERT INTO note VALUES (" + strconv.Itoa(100+i) + ", 'lost here', 2)")
	}
	a.exec("UPDATE note SET body = 'changed' WHERE id = 1")
	a.synced(1)
	b.synced(1)
	a.stop()
	b.stop()
	disk.putBack(t)
	a = l.peer("a", l.write)
	if strings.Contains(a.out.String(), renewedLine) {
		t.Fatal("it was noticed at open; this test is about the other case")
	}
	a.exec("INSERT INTO note VALUES (3, 'new', 3)")
	a.stop()
	a = l.peer("a", l.write) // a part of what is in doubt is older than this opening
	a.exec("DELETE FROM note WHERE id = 2")
	c := l.peer("c", l.write)
	c.synced(1)
	a.synced(1)
	c.stop()
	a.exec("INSERT INTO note VALUES (4, 'new', 4)")
	b = l.peer("b", l.write)
	const ids = "SELECT group_concat(id) FROM (SELECT id FROM note ORDER BY id)"
	everywhere(t, ids, `"1,3,4,100,101,102,103,104,105,106,107,108,109"`, a, b)
	everywhere(t, "SELECT body FROM note WHERE id = 1", `"changed"`, a, b)
	a.synced(1)
	b.synced(1)
	a.stop()
	c = l.peer("c", l.write) // it takes what came anew, and passes it on
	everywhere(t, "SELECT group_concat(id) FROM (SELECT id FROM note WHERE id < 100 ORDER BY id)", `"1,3,4"`, b, c)
	c.synced(1)
	renewedTimes(t, a, 1)
	b.stop()
	c.stop()
	sameContent(t, a, b, "SELECT * FROM note ORDER BY id")
}

// TestTwinMachines: two machines run with disks that are copies of one, and both write, as a third peer looks on. Each takes a
// site id of its own, and all rows are everywhere.
func TestTwinMachines(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.signal()
	a := l.peer("a", l.write, "--schema", l.file("notes.sql", notes))
	c := l.peer("c", l.write)
	a.exec("INSERT INTO note VALUES (1, 'before', 1)")
	c.synced(1)
	a.synced(1)
	a.stop()
	twin := filepath.Join(l.dir, "b.db")
	save(t, a.db, twin)
	save(t, a.db+crsql.LockSuffix, twin+crsql.LockSuffix)
	homeless(t, twin)
	a = l.peer("a", l.write)
	a.exec("INSERT INTO note VALUES (2, 'of a', 2)")
	b := l.peer("b", l.write)
	for _, p := range []*replica{a, b} {
		if p.query("SELECT count(*) FROM note WHERE id = 1") != "1" {
			t.Error("the twin has not got what was there before")
		}
	}
	a.exec("INSERT INTO note VALUES (3, 'of a', 3)")
	b.exec("INSERT INTO note VALUES (4, 'of b', 4)")
	all := []*replica{a, b, c}
	everywhere(t, "SELECT group_concat(id) FROM (SELECT id FROM note ORDER BY id)", `"1,2,3,4"`, all...)
	for _, p := range all {
		p.synced(2)
	}
	if sites(all...) != 3 {
		t.Errorf("%d site ids for 3 peers", sites(all...))
	}
	for _, p := range all {
		p.stop()
	}
	first := content(t, a.db, "SELECT * FROM note ORDER BY id")
	for _, p := range all[1:] {
		if got := content(t, p.db, "SELECT * FROM note ORDER BY id"); got != first {
			t.Errorf("%s differs: %s and %s", p.db, got, first)
		}
	}
}
