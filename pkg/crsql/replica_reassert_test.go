package crsql

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// A machine's disk, as a backup of the whole of it holds it: the database and the file beside it.
type diskImage struct{ path, dir string }

// backUp keeps a closed node's files.
func backUp(t fataler, path, dir string) diskImage {
	t.Helper()
	b := diskImage{path, dir}
	copyFile(t, path, filepath.Join(dir, "db"))
	copyFile(t, path+LockSuffix, filepath.Join(dir, "lock"))
	return b
}

// putBack puts them in place again, as if nothing had happened since: the files are the same ones.
func (b diskImage) putBack(t fataler) {
	t.Helper()
	copyFile(t, filepath.Join(b.dir, "db"), b.path)
	copyFile(t, filepath.Join(b.dir, "lock"), b.path+LockSuffix)
}

// lostTime makes x, a replica that was put back with its machine to a time before its last commits, and has committed
// other things since under the same numbers; knows, which has what was lost; and ignorant, which has what came
// instead, under those numbers.
func lostTime(t *testing.T) (x, knows, ignorant *node, f *fleet) {
	f = &fleet{t: t, renew: true}
	x, knows, ignorant = newNode(t, "x"), newNode(t, "knows"), newNode(t, "ignorant")
	for _, n := range []*node{x, knows, ignorant} {
		n.script(noteSQL + ";" + pairSQL + ";" + tagSQL)
	}
	x.exec("INSERT INTO note VALUES (1, 'a', 1, 1), (2, 'b', 2, 2), (3, 'c', 3, 3), (4, 'd', 4, 4)")
	x.exec(`INSERT INTO "pär" VALUES ('x', 1, 1, 1), ('y', 2, 2, 2), ('z', 3, 3, 3)`)
	x.exec("INSERT INTO tag VALUES ('t'), ('u'), ('v')")
	f.meet(knows, x)
	f.meet(ignorant, x)
	f.meet(x, knows)
	path, site := x.path, x.state().Site
	closeNode(t, x)
	b := backUp(t, path, t.TempDir())
	x = openNode(t, path)
	for i := range 20 {
		x.exec("INSERT INTO note VALUES (?, 'lost', 0, 0)", 100+i)
	}
	x.exec("UPDATE note SET title = 'lost' WHERE id = 1")
	f.meet(knows, x)
	closeNode(t, x)
	b.putBack(t)
	x = openNode(t, path)
	if x.state().Site != site {
		t.Fatal("it was noticed at open; this test is about the other case")
	}
	x.exec("UPDATE note SET body = 'new' WHERE id = 1")
	x.exec("INSERT INTO note VALUES (5, 'new', 5, 5)")
	x.exec("DELETE FROM note WHERE id = 2")
	x.exec("DELETE FROM note WHERE id = 3")
	x.exec("INSERT INTO note VALUES (3, 'again', 3, 3)")
	x.exec("UPDATE note SET id = 9 WHERE id = 4")
	x.exec(`UPDATE "pär" SET w = 'new' WHERE a = 'x'`)
	x.exec(`DELETE FROM "pär" WHERE a = 'y'`)
	x.exec(`UPDATE "pär" SET b = 30 WHERE a = 'z'`)
	x.exec("INSERT INTO tag VALUES ('new')")
	x.exec("DELETE FROM tag WHERE name = 'u'")
	x.exec("DELETE FROM tag WHERE name = 'v'")
	x.exec("INSERT INTO tag VALUES ('v')")
	f.meet(ignorant, x)
	// Of this row the causal length is in doubt, and the columns are somebody else's.
	ignorant.exec("UPDATE note SET title = 'theirs', body = 33, n = 33 WHERE id = 3")
	f.meet(x, ignorant)
	return x, knows, ignorant, f
}

// meet lets one node read all of another's.
func (f *fleet) meet(to, from *node) {
	f.t.Helper()
	f.check(f.sync(to, from, 0))
}

func (n *node) renew() {
	n.t.Helper()
	if err := n.Renew(context.Background(), "the test says so"); err != nil {
		n.t.Fatal(err)
	}
}

// TestRenewReasserts: what was written under numbers that others hold with other content reaches also those who hold them, and
// by the way of a peer that has it already.
func TestRenewReasserts(t *testing.T) {
	x, knows, ignorant, f := lostTime(t)
	if err := f.sync(x, knows, 0); !errors.Is(err, errStale) {
		t.Fatalf("nobody noticed: %v", err)
	}
	before, opened, rows := x.state(), x.opened, x.rows()
	if _, err := x.db.Exec(context.Background(), "CREATE TABLE fired (n)"); err != nil {
		t.Fatal(err)
	}
	for _, table := range []string{"note", `"pär"`, "tag"} {
		for _, op := range []string{"INSERT", "UPDATE", "DELETE"} {
			x.script(fmt.Sprintf("CREATE TRIGGER %s AFTER %s ON %s BEGIN INSERT INTO fired VALUES (1); END", "t"+op+table[1:2], op, table))
		}
	}
	x.renew()
	after := x.state()
	equal(t, "rows", x.rows(), rows)
	if fired := x.query("SELECT * FROM fired"); len(fired) > 0 {
		t.Error("triggers fired")
	}
	if after.Site == before.Site || after.Heads.Own <= before.Heads.Newest || after.Heads.Own != after.Heads.Newest {
		t.Errorf("after the renewal the state is %+v, was %+v", after, before)
	}
	if got := after.Vector[before.Site]; got != opened || opened == 0 || opened >= before.Heads.Own {
		t.Errorf("version %d of the old site is covered, want %d, that of the opening", got, opened)
	}
	for l, origin := range x.origins() {
		if own := l == after.Heads.Own; own != strings.HasPrefix(origin, after.Site.String()) {
			t.Errorf("entry %d comes from %s", l, origin)
		}
	}
	if got := x.query(`SELECT group_concat(col_version) FROM (SELECT c.col_version FROM note__crsql_clock AS c JOIN note__crsql_pks AS k
		ON k.__crsql_key = c.key WHERE k.id = 3 AND c.db_version = (SELECT max(db_version) FROM note__crsql_clock) ORDER BY c.col_name)`); got[0] != `"5,3,3,3" ` {
		t.Errorf("of a row that was deleted and made again, these versions were written anew: %s", got)
	}
	// The way of what is new is through a peer that has it already. The one who knows what was lost never meets x itself.
	f.meet(ignorant, x)
	equal(t, "rows at the ignorant", ignorant.rows(), rows)
	f.meet(knows, ignorant)
	for _, row := range rows {
		if !slices.Contains(knows.rows(), row) && !strings.Contains(row, "note 1 ") {
			t.Errorf("the one who knows lacks %s", row)
		}
	}
	for _, row := range knows.rows() {
		if !slices.Contains(rows, row) && !strings.Contains(row, "lost") {
			t.Errorf("the one who knows has %s still", row)
		}
	}
	// And what was lost comes back from there.
	f.meet(x, knows)
	equal(t, "changes", x.query(changesSQL), knows.query(changesSQL))
	if got := x.query("SELECT title, body FROM note WHERE id = 1"); got[0] != `"lost" "new" ` {
		t.Errorf("a row that was changed on both sides is %s", got)
	}
	// A second renewal finds nothing in doubt.
	own := x.state().Heads.Own
	x.renew()
	if s := x.state(); s.Heads.Own != 0 || s.Vector[after.Site] != own {
		t.Errorf("after a second renewal the state is %+v", s)
	}
}

// rows is what all tables hold.
func (n *node) rows() []string {
	n.t.Helper()
	return n.query(`SELECT 'note ' || id || ' ' || quote(title) || quote(body) || quote(n) FROM note
		UNION ALL SELECT 'pair ' || a || ' ' || b || quote("wért") || quote(w) FROM "pär" UNION ALL SELECT 'tag ' || name FROM tag ORDER BY 1`)
}

// TestRenewBetweenTwins: two files of one site that both went on, with ties, end with all rows.
func TestRenewBetweenTwins(t *testing.T) {
	f := &fleet{t: t, renew: true}
	a := newNode(t, "a")
	a.script(noteSQL + ";" + pairSQL + ";" + tagSQL)
	a.exec("INSERT INTO note VALUES (1, 'before', 1, 1), (2, 'before', 2, 2), (3, 'before', 3, 3)")
	site := a.state().Site
	path := a.path
	closeNode(t, a)
	b := openNode(t, liveTwin(t, path))
	a = openNode(t, path)
	if a.state().Site != site || b.state().Site != site {
		t.Fatal("the twin was noticed at open; this test is about the other case")
	}
	third := newNode(t, "third")
	third.script(noteSQL + ";" + pairSQL + ";" + tagSQL)
	for _, n := range []*node{a, b} {
		n.exec("UPDATE note SET title = 'same' WHERE id = 1")
		n.exec("UPDATE note SET title = ? WHERE id = 2", n.name)
		n.exec("INSERT INTO tag VALUES ('same'), (?)", n.name)
	}
	a.exec("DELETE FROM note WHERE id = 3")
	b.exec("UPDATE note SET body = 'kept?' WHERE id = 3")
	f.meet(third, a)
	if err := f.sync(a, b, 0); !errors.Is(err, errStale) {
		t.Fatalf("nobody noticed: %v", err)
	}
	a.renew()
	b.renew()
	if a.state().Site == b.state().Site {
		t.Fatal("both have one site id still")
	}
	all := []*node{a, b, third}
	for range all {
		for _, to := range all {
			for _, from := range all {
				if to != from {
					f.meet(to, from)
				}
			}
		}
	}
	for _, n := range all {
		equal(t, n.name, n.query(changesSQL), a.query(changesSQL))
		for sql, want := range map[string]string{
			"SELECT group_concat(name) FROM (SELECT name FROM tag ORDER BY name)": fmt.Sprintf("%q ", strings.Join(sorted("same", a.name, b.name), ",")),
			"SELECT count(*) FROM note WHERE id = 3":                              "0 ",
		} {
			if got := n.query(sql); got[0] != want {
				t.Errorf("%s: %s is %s, want %s", n.name, sql, got, want)
			}
		}
	}
}

func sorted(list ...string) []string { slices.Sort(list); return list }

// liveTwin copies a closed database as a clone of its whole machine has it: it takes itself for the original.
func liveTwin(t *testing.T, path string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "twin")
	copyFile(t, path, to)
	(&fleet{t: t}).hide(to)
	return to
}

// TestRenewAfterRestarts: what was committed in several openings since the last peer was met is in doubt, all of it.
func TestRenewAfterRestarts(t *testing.T) {
	n := newNode(t, "n")
	n.script(tagSQL)
	n.exec("INSERT INTO tag VALUES ('certain')")
	want := n.meetSomebody()
	n.reopen()
	n.exec("INSERT INTO tag VALUES ('1')")
	n.reopen()
	n.exec("INSERT INTO tag VALUES ('2')")
	n.reopen()
	site := n.state().Site
	if n.opened != want {
		t.Fatalf("what is certain ends with version %d, want %d", n.opened, want)
	}
	n.exec("INSERT INTO tag VALUES ('3')")
	n.renew()
	if got := n.state().Vector[site]; got != want {
		t.Errorf("version %d of the old site is covered, want %d", got, want)
	}
	if got := n.query("SELECT count(*) FROM crsql_changes WHERE cl = 3 AND db_version = (SELECT max(db_version) FROM crsql_changes)"); got[0] != "3 " {
		t.Errorf("%s rows were written anew, want 3", got)
	}
	// Once a peer was met, the next opening is the one that counts.
	n.reopen()
	n.exec("INSERT INTO tag VALUES ('4')")
	want = n.meetSomebody()
	n.reopen()
	if n.opened != want {
		t.Errorf("what is certain ends with version %d, want %d", n.opened, want)
	}
}

// meetSomebody lets a node take something from somebody, and returns its own version.
func (n *node) meetSomebody() int64 {
	n.t.Helper()
	if _, err := n.Apply(context.Background(), ApplyRequest{Claims: map[changeset.SiteID]int64{"0123456789abcdef": 5}}); err != nil {
		n.t.Fatal(err)
	}
	return n.state().Heads.Own
}

// reopen closes a node's database and opens it again.
func (n *node) reopen() {
	n.t.Helper()
	if err := n.db.Close(); err != nil {
		n.t.Fatal(err)
	}
	db, err := Open(context.Background(), n.path, Options{})
	if err != nil {
		n.t.Fatal(err)
	}
	if t, ok := n.t.(testing.TB); ok {
		t.Cleanup(func() { _ = db.Close() })
	}
	n.db = db
	if n.Replica, err = OpenReplica(context.Background(), db); err != nil {
		n.t.Fatal(err)
	}
}

// TestRenewUndone: a renewal that is rolled back leaves no trace in what the connection remembers.
func TestRenewUndone(t *testing.T) {
	n, ctx := newNode(t, "n"), context.Background()
	n.script(tagSQL)
	n.exec("INSERT INTO tag VALUES ('x')")
	site, undo := n.state().Site, errors.New("undo")
	err := n.db.transact(ctx, func(s *session) error {
		v, err := s.seal()
		if err != nil {
			return err
		}
		if _, err := s.engine.renew(v, 0, "the test says so"); err != nil {
			return err
		}
		if err := s.current(); err != nil {
			return err
		}
		if s.engine.siteID == site {
			t.Error("the connection does not know of the new site")
		}
		return undo
	})
	if !errors.Is(err, undo) {
		t.Fatal(err)
	}
	if err := n.db.transact(ctx, func(s *session) error {
		if s.engine.siteID != site {
			t.Errorf("after a rollback the connection has site %v, not %v", s.engine.siteID, site)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// TestRenewWithoutRoom: a database that knows as many sites as it can keeps its site id, and says what to do.
func TestRenewWithoutRoom(t *testing.T) {
	n := newNode(t, "n")
	n.script(tagSQL)
	n.exec("INSERT INTO tag VALUES ('x')")
	n.meetSomebody()
	n.reopen()
	site := n.state().Site
	n.script(fmt.Sprintf(`INSERT INTO crmesh_vector WITH RECURSIVE i(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM i WHERE n < %d)
		SELECT randomblob(16), 1 FROM i`, MaxSites-1))
	clocks := n.query(everything)
	err := n.Renew(context.Background(), "the test says so")
	if !errors.Is(err, ErrLimit) || !strings.Contains(err.Error(), "empty database") {
		t.Fatalf("a renewal beyond the bound: %v", err)
	}
	equal(t, "clocks", n.query(everything), clocks)
	if n.state().Site != site || n.query("SELECT hex(crsql_site_id())")[0] != fmt.Sprintf("%q ", hexOf(site)) {
		t.Error("the refused renewal changed the site")
	}
	n.exec("INSERT INTO tag VALUES ('goes on')")
	n.script("DELETE FROM crmesh_vector WHERE site = (SELECT min(site) FROM crmesh_vector)")
	n.renew() // the last place
	if s := n.state(); s.Site == site || len(s.Vector) != MaxSites-1 {
		t.Errorf("the vector has %d sites after the last renewal that fits", len(s.Vector))
	}
}

func init() { children["renew"] = renewAndWrite }

// renewAndWrite writes rows and takes new site ids until it is killed, and says what is durable.
func renewAndWrite(args []string) error {
	ctx := context.Background()
	db, err := Open(ctx, args[0], Options{})
	if err != nil {
		return err
	}
	r, err := OpenReplica(ctx, db)
	if err != nil {
		return err
	}
	if err := db.ExecScript(ctx, "CREATE TABLE IF NOT EXISTS tag (name TEXT PRIMARY KEY NOT NULL) WITHOUT ROWID; SELECT crsql_as_crr('tag');"+
		"CREATE TABLE IF NOT EXISTS note (id INTEGER PRIMARY KEY NOT NULL, title TEXT, body, n REAL); SELECT crsql_as_crr('note')"); err != nil {
		return err
	}
	for i := 0; ; i++ {
		name := args[1] + "-" + fmt.Sprint(i)
		if _, err := db.Exec(ctx, "INSERT INTO tag VALUES (?)", values(name)...); err != nil {
			return err
		}
		fmt.Println(name)
		if _, err := db.Exec(ctx, "INSERT OR REPLACE INTO note VALUES (?, ?, 0, 0)", values(i%50, name)...); err != nil {
			return err
		}
		if i%3 == 0 {
			if err := r.Renew(ctx, "the test says so"); err != nil {
				return err
			}
		}
	}
}

// TestRenewKilled: a process that takes new site ids is killed at any instant. The file then has one site or the next, and
// every entry is one of its own or of a site that it covers.
func TestRenewKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	acked := map[string]bool{}
	for round := range (envInt(t, "CRMESH_KILLS", defaultKills) + 1) / 2 {
		cmd := child(t, "renew", path, fmt.Sprint(round))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		left := 5 + rand.IntN(40)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			acked[lines.Text()] = true
			if left--; left == 0 {
				_ = cmd.Process.Kill()
			}
		}
		_ = cmd.Wait() // it was killed
		n := openNode(t, path)
		names := n.query("SELECT name FROM tag")
		for name := range acked {
			if !slices.Contains(names, fmt.Sprintf("%q ", name)) {
				t.Errorf("round %d: %s is gone", round, name)
			}
		}
		s := n.state()
		for l, origin := range n.origins() {
			var version int64
			site, _, _ := strings.Cut(origin, " ")
			if _, err := fmt.Sscanf(origin, site+" %d", &version); err != nil {
				t.Fatal(err)
			}
			covered := site == s.Site.String() && version <= s.Heads.Own
			for known, v := range s.Vector {
				covered = covered || known.String() == site && version <= v
			}
			if !covered {
				t.Errorf("round %d: entry %d comes from %s, which is not covered", round, l, origin)
			}
		}
		for _, table := range []string{"note", "tag"} {
			for sql, want := range map[string]string{
				"SELECT count(*) FROM %s__crsql_clock WHERE site_id NOT IN (SELECT ordinal FROM crsql_site_id)":                    "0 ",
				"SELECT count(*) FROM %s__crsql_clock WHERE db_version > (SELECT value FROM crmesh_meta WHERE key = 'high_water')": "0 ",
				"SELECT count(*) FROM (SELECT 1 FROM %s__crsql_clock GROUP BY db_version, seq HAVING count(*) > 1)":                "0 ",
			} {
				if got := n.query(fmt.Sprintf(sql, table)); got[0] != want {
					t.Errorf("round %d: %s: %s, want %s", round, fmt.Sprintf(sql, table), got[0], want)
				}
			}
		}
		closeNode(t, n)
	}
	if len(acked) < 20 {
		t.Errorf("only %d rows were written", len(acked))
	}
}
