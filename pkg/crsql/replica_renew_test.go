package crsql

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// everything reads all of a database's clocks as cr-sqlite shows them, except for how the own site is named.
const everything = `SELECT "table", pk, cid, val, col_version, db_version, coalesce(site_id, crsql_site_id()), cl, seq
	FROM crsql_changes ORDER BY "table", pk, cid`

func closeNode(t *testing.T, n *node) {
	t.Helper()
	if err := n.db.Close(); err != nil {
		t.Fatal(err)
	}
}

// copyFile copies a database that nobody has open. An existing file is written over: it stays the same one.
func copyFile(t fataler, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// openSQL opens a database as a program without cr-sqlite does.
func openSQL(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite3", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// origins returns where each entry comes from, by local version.
func (n *node) origins() map[int64]string {
	origins := map[int64]string{}
	q := all(Position{})
	q.MaxBytes, q.MaxChanges = 1<<30, 1<<30
	for _, e := range n.read(q).Entries {
		origins[e.L] = fmt.Sprint(e.Origin, " ", e.Version)
	}
	return origins
}

// history makes a node with entries of all kinds, own and merged.
func history(t *testing.T) *node {
	t.Helper()
	n, other := newNode(t, "n"), newNode(t, "other")
	for _, x := range []*node{n, other} {
		x.script(noteSQL + ";" + pairSQL + ";" + tagSQL)
	}
	n.exec("INSERT INTO note VALUES (1, 'a', 1, 1), (2, 'b', 2, 2), (3, 'c', 3, 3)")
	n.exec(`INSERT INTO "pär" VALUES ('x', 1, 1, 1), ('y', 2, 2, 2)`)
	n.exec("INSERT INTO tag VALUES ('t'), ('u')")
	other.exec("INSERT INTO note VALUES (7, 'theirs', 7, 7)")
	other.exec("DELETE FROM note WHERE id = 7")
	other.exec("INSERT INTO note VALUES (8, 'theirs', 8, 8)")
	n.pull(other, all(Position{}))
	n.exec("UPDATE note SET title = 'mine' WHERE id = 8")
	n.exec("DELETE FROM note WHERE id = 2")
	n.exec("UPDATE note SET id = 9 WHERE id = 3")
	n.exec(`UPDATE "pär" SET b = 5 WHERE a = 'y'`)
	n.exec("DELETE FROM tag WHERE name = 'u'")
	pk, err := changeset.AppendPacked(nil, values(1))
	if err != nil {
		t.Fatal(err)
	}
	n.apply(Group{Origin: other.state().Site, Version: 99, Changes: []changeset.Change{
		{Table: "unknown", PK: pk, CID: "v", Val: changeset.Integer(1), ColVersion: 1, CL: 1, Site: other.state().Site},
	}})
	return n
}

// TestRenewal: a copy has another site id, and nothing else is different: neither what cr-sqlite shows nor where any entry
// comes from. A peer that knew the original gets nothing twice.
func TestRenewal(t *testing.T) {
	n := history(t)
	peer := newNode(t, "peer")
	peer.script(noteSQL + ";" + pairSQL + ";" + tagSQL)
	peer.pull(n, all(Position{}))
	before, clocks, origins := n.state(), n.query(everything), n.origins()
	closeNode(t, n)
	path := filepath.Join(t.TempDir(), "copy")
	copyFile(t, n.path, path)
	c := openNode(t, path)
	after := c.state()
	if after.Site == before.Site || len(after.Site) != changeset.SiteIDLen {
		t.Fatalf("the copy's site is %v, the original's %v", after.Site, before.Site)
	}
	equal(t, "clocks", c.query(everything), clocks)
	for l, want := range origins {
		if got := c.origins()[l]; got != want {
			t.Errorf("entry %d comes from %s, was from %s", l, got, want)
		}
	}
	if after.Heads != (Heads{Own: 0, Newest: before.Heads.Newest}) {
		t.Errorf("heads are %+v, were %+v", after.Heads, before.Heads)
	}
	if got := after.Vector[before.Site]; got != before.Heads.Own {
		t.Errorf("the copy covers version %d of the old site, which was at %d", got, before.Heads.Own)
	}
	q := all(Position{})
	q.Decide = func(site changeset.SiteID, v int64) Decision {
		if site == before.Site && v <= before.Heads.Own || before.Vector[site] >= v || site != after.Site && v == 99 {
			return Skip
		}
		return Send
	}
	for _, e := range c.read(q).Entries {
		if e.Origin == after.Site || e.Origin == before.Site {
			t.Errorf("a peer that knew the original is sent %+v", e)
		}
	}
	// What is written from now on is the new site's, above every number that was used.
	c.exec("INSERT INTO note VALUES (20, 'new', 0, 0)")
	now := c.state()
	if now.Heads.Own <= before.Heads.Newest || now.Heads.Own != now.Heads.Newest {
		t.Errorf("after a write the heads are %+v, were %+v", now.Heads, before.Heads)
	}
	if got, want := c.origins()[now.Heads.Own], fmt.Sprint(after.Site, " ", now.Heads.Own); got != want {
		t.Errorf("the new entry comes from %s, want %s", got, want)
	}
	peer.pull(c, all(Position{L: before.Heads.Newest, Seq: EntryEnd}))
	equal(t, "changes", peer.query(changesSQL), c.query(changesSQL))
}

// TestRenewedForStockEngine: cr-sqlite itself finds the new site and the old one where they belong.
func TestRenewedForStockEngine(t *testing.T) {
	n := history(t)
	old := n.state().Site
	closeNode(t, n)
	path := filepath.Join(t.TempDir(), "copy")
	copyFile(t, n.path, path)
	c := openNode(t, path)
	site, clocks := c.state().Site, c.query(everything)
	c.exec("INSERT INTO tag VALUES ('own')")
	closeNode(t, c)
	db := openSQL(t, path)
	if _, err := db.Exec("PRAGMA journal_mode=DELETE"); err != nil { // theirs opens no other file
		t.Fatal(err)
	}
	theirs := openTheirs(t, path)
	for sql, want := range map[string]string{
		"SELECT hex(crsql_site_id())":                                                                      hexOf(site),
		"SELECT hex(site_id) FROM crsql_site_id WHERE ordinal = 0":                                         hexOf(site),
		"SELECT hex(site_id) FROM crsql_site_id WHERE ordinal > 0 AND hex(site_id) = '" + hexOf(old) + "'": hexOf(old),
	} {
		if got := theirs.text(sql); !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", sql, got, want)
		}
	}
	for sql, want := range map[string]int{
		"SELECT count(*) FROM crsql_changes WHERE hex(site_id) = '" + hexOf(site) + "'":                   1,
		"SELECT count(*) FROM crsql_changes":                                                              1 + len(clocks),
		"SELECT count(*) FROM note__crsql_clock WHERE site_id NOT IN (SELECT ordinal FROM crsql_site_id)": 0,
	} {
		if got := theirs.int(sql); got != int64(want) {
			t.Errorf("%s: %d, want %d", sql, got, want)
		}
	}
}

func hexOf(site changeset.SiteID) string { return fmt.Sprintf("%X", string(site)) }

// TestHome: what counts as another file, and what does not.
func TestHome(t *testing.T) {
	type lab struct {
		dir, path, old string // old: a copy of the file as it was before its last write
	}
	write := func(t *testing.T, path, name string) {
		n := openNode(t, path)
		n.exec("INSERT INTO tag VALUES (?)", name)
		if n.state().Heads.Own == 0 { // which reports it
			t.Fatal("nothing was written")
		}
		closeNode(t, n)
	}
	move := func(t *testing.T, from, to string) {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name    string
		renewed bool
		do      func(t *testing.T, l *lab)
	}{
		{"nothing", false, func(*testing.T, *lab) {}},
		{"renamed", false, func(t *testing.T, l *lab) { move(t, l.path, l.path+"2"); l.path += "2" }},
		{"renamed with the file beside it", false, func(t *testing.T, l *lab) {
			move(t, l.path, l.path+"2")
			move(t, l.path+LockSuffix, l.path+"2"+LockSuffix)
			l.path += "2"
		}},
		{"the file beside it is gone", false, func(t *testing.T, l *lab) {
			if err := os.Remove(l.path + LockSuffix); err != nil {
				t.Fatal(err)
			}
		}},
		{"the file beside it is damaged", false, func(t *testing.T, l *lab) {
			if err := os.WriteFile(l.path+LockSuffix, []byte("crmesh ?"), 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		{"copied", true, func(t *testing.T, l *lab) { copyFile(t, l.path, l.path+"2"); l.path += "2" }},
		{"written over", true, func(t *testing.T, l *lab) { copyFile(t, l.old, l.path) }},
		{"replaced", true, func(t *testing.T, l *lab) { move(t, l.old, l.path) }},
		{"moved to another machine", true, func(t *testing.T, l *lab) {
			db := openSQL(t, l.path)
			if _, err := db.Exec(`UPDATE crmesh_meta SET value = json_set(value, '$.machine', 'another') WHERE key = 'home'`); err != nil {
				t.Fatal(err)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
		}},
		{"restored from before a renewal", true, func(t *testing.T, l *lab) {
			copyFile(t, l.old, l.path)
			closeNode(t, openNode(t, l.path)) // renewed, and nothing written since
			copyFile(t, l.old, l.path)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := &lab{dir: t.TempDir()}
			l.path, l.old = filepath.Join(l.dir, "db"), filepath.Join(l.dir, "old")
			n := openNode(t, l.path)
			n.script(tagSQL)
			n.exec("INSERT INTO tag VALUES ('first')")
			site := n.state().Site
			closeNode(t, n)
			copyFile(t, l.path, l.old)
			write(t, l.path, "second")
			c.do(t, l)
			for range 2 { // once and no more
				n = openNode(t, l.path)
				if renewed := n.state().Site != site; renewed != c.renewed {
					t.Errorf("renewed: %v, want %v", renewed, c.renewed)
				}
				site, c.renewed = n.state().Site, false
				closeNode(t, n)
			}
		})
	}
}

// TestDoubt: a restore that nothing showed, after which something was written, is a doubt that a later renewal heeds: what
// was written may have a number that the old site used for something else.
func TestDoubt(t *testing.T) {
	dir := t.TempDir()
	path, old := filepath.Join(dir, "db"), filepath.Join(dir, "old")
	n := openNode(t, path)
	n.script(tagSQL)
	n.exec("INSERT INTO tag VALUES ('first')")
	site, certain := n.state().Site, n.state().Heads.Own
	closeNode(t, n)
	copyFile(t, path, old)
	n = openNode(t, path)
	n.exec("INSERT INTO tag VALUES ('lost')")
	closeNode(t, n)
	copyFile(t, old, path)
	if err := os.Remove(path + LockSuffix); err != nil {
		t.Fatal(err)
	}
	n = openNode(t, path)
	n.exec("INSERT INTO tag VALUES ('again')")
	again := n.state().Heads.Own
	if n.state().Site != site || again <= certain {
		t.Fatalf("the restore was noticed, or nothing written: %+v", n.state())
	}
	// A peer that holds the lost row under the number that 'again' has now left it out of its walk, up to here.
	if _, err := n.Apply(context.Background(), ApplyRequest{Resume: map[changeset.SiteID]int64{"0123456789abcdef": 5}}); err != nil {
		t.Fatal(err)
	}
	closeNode(t, n)
	copyFile(t, path, path+"2")
	c := openNode(t, path+"2")
	s := c.state()
	if len(s.Resume) != 0 {
		t.Errorf("walks go on from %v, behind what they left out", s.Resume)
	}
	if s.Site == site || s.Vector[site] != certain || s.Heads.Own <= again {
		t.Errorf("state %+v; want version %d of the old site to be covered, and what came after it above %d", s, certain, again)
	}
	if got, want := c.origins()[s.Heads.Own], fmt.Sprint(s.Site, " ", s.Heads.Own); got != want {
		t.Errorf("what is in doubt comes from %s, want %s", got, want)
	}
}

// TestClone: a copy of a database in use, with a site of its own, that overwrites nothing and leaves nothing behind.
func TestClone(t *testing.T) {
	ctx := context.Background()
	n := history(t)
	for i := range 200 {
		n.exec("INSERT INTO note VALUES (?, ?, ?, 0)", 100+i, "large", make([]byte, 20_000))
	}
	dir := t.TempDir()
	to := filepath.Join(dir, "clone")
	var last CloneProgress
	clone := func(to string) error {
		return Clone(ctx, n.path, to, func(p CloneProgress) { last = p }, Options{})
	}
	if err := clone(to); err != nil {
		t.Fatal(err)
	}
	if last.Total < 4_000_000 || last.Done != last.Total {
		t.Errorf("the last progress was %+v", last)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f.Name() != "clone" && f.Name() != "clone"+LockSuffix {
			t.Errorf("%s was left behind", f.Name())
		}
	}
	before, clocks := n.state(), n.query(everything)
	c := openNode(t, to)
	site := c.state().Site
	if site == before.Site || c.state().Vector[before.Site] != before.Heads.Own {
		t.Errorf("the clone's state is %+v, the original's %+v", c.state(), before)
	}
	equal(t, "clocks", c.query(everything), clocks)
	if err := clone(to); err == nil {
		t.Error("a clone wrote over a file")
	}
	if c.state().Site != site {
		t.Error("the refused clone changed the file")
	}
	closed, cancel := context.WithCancel(ctx)
	cancel()
	if err := Clone(closed, n.path, filepath.Join(dir, "no"), nil, Options{}); err == nil {
		t.Error("a clone went on after its context")
	}
	if err := Clone(ctx, filepath.Join(dir, "missing"), filepath.Join(dir, "no"), nil, Options{}); err == nil {
		t.Error("a clone of nothing")
	}
	if _, err := os.Lstat(filepath.Join(dir, "no")); err == nil {
		t.Error("a failed clone left a file")
	}
	// One of a closed database that no replica has ever opened.
	plain := filepath.Join(t.TempDir(), "plain")
	db, err := Open(ctx, plain, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.ExecScript(ctx, tagSQL+"; INSERT INTO tag VALUES ('x')"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Clone(ctx, plain, filepath.Join(dir, "of plain"), nil, Options{}); err != nil {
		t.Fatal(err)
	}
	a, b := openNode(t, plain), openNode(t, filepath.Join(dir, "of plain"))
	if a.state().Site == b.state().Site {
		t.Error("the clone of a database without a home has its site id")
	}
}

// The copy of a damaged database is what shows the damage; the error names the source, and no copy is left.
func TestCloneOfDamaged(t *testing.T) {
	n := newNode(t, "n")
	n.script(noteSQL)
	dir := t.TempDir()
	source, to := filepath.Join(dir, "source"), filepath.Join(dir, "to")
	if err := Clone(context.Background(), n.path, source, nil, Options{}); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(source, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := f.WriteAt(bytes.Repeat([]byte{0xff}, 20_000), 5000); err != nil {
		t.Fatal(err)
	}
	err = Clone(context.Background(), source, to, nil, Options{})
	if err == nil || !strings.Contains(err.Error(), source+" is damaged: restore it") || strings.Contains(err.Error(), to) {
		t.Errorf("got %v", err)
	}
	if left, err := filepath.Glob(to + "*"); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}
