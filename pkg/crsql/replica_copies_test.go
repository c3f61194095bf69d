package crsql

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// How many random histories TestCopies goes through unless CRMESH_COPIES says otherwise.
const defaultCopies = 100

// errStale is what a peer answers whose database is older than what it has announced: docs/PROTOCOL.md, stale-copy.
var errStale = errors.New("a peer has seen more of this site than it holds")

// A fleet is replicas whose files are copied, cloned, moved and put back, while they write and sync as peers do: with
// vectors, claims and resumed walks.
type fleet struct {
	t      *testing.T
	random *rand.Rand
	dir    string
	nodes  []*node
	saved  []string       // copies of files, of any node
	names  int            // given to files and rows
	acked  map[string]int // rows that nobody deletes, and a node that wrote each
	renew  bool           // false: copies are kept from showing, as if there were no renewal
}

func (f *fleet) name() string { f.names++; return fmt.Sprint(f.names) }

func (f *fleet) check(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *fleet) open(i int, path string) {
	f.t.Helper()
	db, err := Open(context.Background(), path, Options{Readers: 1})
	f.check(err)
	w := <-db.writer
	err = w.run(context.Background(), "PRAGMA synchronous=OFF") // nobody cuts the power here
	db.writer <- w
	f.check(err)
	r, err := OpenReplica(context.Background(), db)
	f.check(err)
	n := &node{t: f.t, name: filepath.Base(path), path: path, db: db, Replica: r}
	if i == len(f.nodes) {
		f.nodes = append(f.nodes, nil)
	}
	f.nodes[i] = n
}

// hide makes a file look as if it had always been where it is, and held the newest that was there.
func (f *fleet) hide(path string) {
	f.t.Helper()
	if f.renew {
		return
	}
	h, err := homeOf(path)
	f.check(err)
	text, err := json.Marshal(h)
	f.check(err)
	db, err := sql.Open("sqlite3", path)
	f.check(err)
	_, err = db.Exec("INSERT OR REPLACE INTO crmesh_meta VALUES ('home', ?)", string(text))
	f.check(err)
	f.check(db.Close())
	if err := os.Remove(path + LockSuffix); err != nil && !os.IsNotExist(err) {
		f.t.Fatal(err)
	}
}

// write is a transaction at a node, through its replica or, as other programs do, without one.
func (f *fleet) write(n *node, db *DB) {
	f.t.Helper()
	k, row := f.random.IntN(4), f.name()
	statements := []string{
		fmt.Sprintf("INSERT OR REPLACE INTO note VALUES (%d, '%s', %s, 1)", k, row, row),
		fmt.Sprintf("UPDATE note SET body = %s WHERE id >= %d", row, k),
		fmt.Sprintf("DELETE FROM note WHERE id = %d", k),
		fmt.Sprintf("UPDATE OR REPLACE note SET id = %d WHERE id = %d", f.random.IntN(4), k),
		fmt.Sprintf(`INSERT INTO "pär" VALUES ('x', %d, %s, 1) ON CONFLICT DO UPDATE SET w = excluded.w + %s`, k, row, row),
		fmt.Sprintf(`DELETE FROM "pär" WHERE b = %d`, k),
	}
	f.check(db.Write(context.Background(), func(tx *Tx) error {
		if _, err := tx.Exec(statements[f.random.IntN(len(statements))]); err != nil {
			return err
		}
		_, err := tx.Exec("INSERT INTO tag VALUES (?)", values(row)...)
		return err
	}))
	f.acked[row] = slices.Index(f.nodes, n)
}

// sync lets one node read another as over a link that ends after so many changes.
func (f *fleet) sync(to, from *node, limit int) error {
	ctx := context.Background()
	mine, theirs := to.state(), from.state()
	stale := theirs.Vector[mine.Site] > mine.Heads.Own || mine.Vector[theirs.Site] > theirs.Heads.Own
	if mine.Site == theirs.Site || stale && f.renew { // without renewal: what would be lost if nobody refused
		return errStale
	}
	q := all(Position{L: mine.Resume[theirs.Site], Seq: EntryEnd})
	if q.After.L > theirs.Heads.Newest {
		q.After.L = 0
	}
	if limit > 0 {
		q.MaxChanges = limit
	}
	q.Decide = func(site changeset.SiteID, v int64) Decision {
		if site == mine.Site && v <= mine.Heads.Own || mine.Vector[site] >= v {
			return Skip
		}
		return Send
	}
	for {
		got := from.read(q)
		apply := ApplyRequest{Resume: map[changeset.SiteID]int64{theirs.Site: got.Next.L}}
		if got.Next.Seq != EntryEnd {
			apply.Resume[theirs.Site]--
		}
		for _, e := range got.Entries {
			apply.Groups = append(apply.Groups, Group{Origin: e.Origin, Version: e.Version, Changes: e.Changes})
		}
		if got.End {
			apply.Claims = map[changeset.SiteID]int64{theirs.Site: theirs.Heads.Own}
			for site, v := range theirs.Vector {
				apply.Claims[site] = v
			}
			delete(apply.Claims, mine.Site)
			for site, v := range apply.Claims {
				if v == 0 {
					delete(apply.Claims, site)
				}
			}
		}
		_, err := to.Apply(ctx, apply)
		f.check(err)
		if got.End || limit > 0 {
			return nil
		}
		q.After = got.Next
	}
}

func (f *fleet) close(n *node) {
	f.t.Helper()
	f.check(n.db.Close())
}

// offline writes to a file now and then as a program without a replica does.
func (f *fleet) offline(n *node) {
	for range f.random.IntN(3) {
		db, err := Open(context.Background(), n.path, Options{Readers: 1})
		f.check(err)
		f.write(n, db)
		f.check(db.Close())
	}
}

// restore puts a saved file in the place of a node's. Rows that no other node has are gone, and so they should be.
func (f *fleet) restore(i int) {
	n := f.nodes[i]
	saved := f.saved[f.random.IntN(len(f.saved))]
	f.close(n)
	if f.random.IntN(2) == 0 {
		copyFile(f.t, saved, n.path)
	} else {
		next := filepath.Join(f.dir, f.name())
		copyFile(f.t, saved, next)
		f.check(os.Rename(next, n.path))
	}
	f.hide(n.path)
	f.open(i, n.path)
	f.close(f.nodes[i])
	left := map[string]bool{}
	f.open(i, n.path)
	for _, n := range f.nodes {
		for _, row := range n.query("SELECT name FROM tag") {
			left[row] = true
		}
	}
	for row := range f.acked {
		if !left[fmt.Sprintf("%q ", row)] {
			delete(f.acked, row)
		}
	}
}

func (f *fleet) step() {
	i := f.random.IntN(len(f.nodes))
	n := f.nodes[i]
	switch f.random.IntN(14) {
	default:
		f.write(n, n.db)
	case 4, 5, 6, 7, 8:
		if j := f.random.IntN(len(f.nodes)); j != i {
			_ = f.sync(n, f.nodes[j], []int{0, 0, 1, 3}[f.random.IntN(4)]) // one that is refused is refused
		}
	case 9: // restarted, perhaps under another name
		f.close(n)
		if f.random.IntN(2) == 0 {
			path := filepath.Join(f.dir, f.name())
			f.check(os.Rename(n.path, path))
			n.path = path
		}
		f.offline(n)
		f.open(i, n.path)
	case 10: // saved
		f.close(n)
		f.offline(n)
		f.saved = append(f.saved, filepath.Join(f.dir, f.name()))
		copyFile(f.t, n.path, f.saved[len(f.saved)-1])
		f.open(i, n.path)
	case 11:
		if len(f.saved) > 0 {
			f.restore(i)
		}
	case 12: // a saved file becomes one more
		if len(f.saved) > 0 && len(f.nodes) < 5 {
			path := filepath.Join(f.dir, f.name())
			copyFile(f.t, f.saved[f.random.IntN(len(f.saved))], path)
			f.hide(path)
			f.open(len(f.nodes), path)
		}
	case 13:
		if len(f.nodes) < 5 && f.renew {
			path := filepath.Join(f.dir, f.name())
			f.check(Clone(context.Background(), n.path, path, nil, Options{}))
			f.open(len(f.nodes), path)
		}
	}
}

// rest lets all sync with all, and returns what is wrong then.
func (f *fleet) rest() error {
	for range len(f.nodes) + 1 {
		for _, to := range f.nodes {
			for _, from := range f.nodes {
				if to != from {
					if err := f.sync(to, from, 0); err != nil && f.renew {
						return err
					}
				}
			}
		}
	}
	want := f.nodes[0].query(changesSQL)
	for _, n := range f.nodes {
		if !slices.Equal(n.query(changesSQL), want) {
			return fmt.Errorf("%s and %s differ", n.name, f.nodes[0].name)
		}
		rows := n.query("SELECT name FROM tag")
		for row := range f.acked {
			if !slices.Contains(rows, fmt.Sprintf("%q ", row)) {
				return fmt.Errorf("%s lacks row %s", n.name, row)
			}
		}
	}
	return nil
}

// runFleet goes through the random history of a seed.
func runFleet(t *testing.T, seed uint64, renew bool) error {
	f := &fleet{t: t, random: rand.New(rand.NewPCG(seed, 0)), dir: t.TempDir(), acked: map[string]int{}, renew: renew}
	defer func() {
		for _, n := range f.nodes {
			_ = n.db.Close()
		}
		_ = os.RemoveAll(f.dir)
	}()
	for i := range 2 + f.random.IntN(2) {
		f.open(i, filepath.Join(f.dir, f.name()))
		f.nodes[i].script(noteSQL + ";" + pairSQL + ";" + tagSQL)
	}
	for range 10 + f.random.IntN(25) {
		f.step()
	}
	return f.rest()
}

// TestCopies: whatever is copied, cloned, moved and put back, nothing is lost that was committed before a copy was made or
// after one was put back, and in the end all are equal.
func TestCopies(t *testing.T) {
	const renamedThenPutBackTwice = 12931921655663372310
	if err := runFleet(t, renamedThenPutBackTwice, true); err != nil {
		t.Errorf("seed %d: %v", uint64(renamedThenPutBackTwice), err)
	}
	first := rand.Uint64()
	for i := range uint64(envInt(t, "CRMESH_COPIES", defaultCopies)) {
		if err := runFleet(t, first+i, true); err != nil {
			t.Fatalf("seed %d: %v", first+i, err)
		}
	}
}

// TestCopiesWithoutRenewal: the same histories go wrong where a copy keeps the site id; TestCopies would see it.
func TestCopiesWithoutRenewal(t *testing.T) {
	for seed := range uint64(50) {
		if err := runFleet(t, seed, false); err != nil {
			t.Logf("seed %d: %v", seed, err)
			return
		}
	}
	t.Error("nothing goes wrong without renewal: the histories test nothing")
}
