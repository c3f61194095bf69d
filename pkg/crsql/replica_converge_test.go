package crsql

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

const (
	pairSQL = `CREATE TABLE "pär" (a TEXT NOT NULL, b INTEGER NOT NULL, "wért" INTEGER DEFAULT 7, w, PRIMARY KEY (a, b)); SELECT crsql_as_crr('pär')`
	tagSQL  = `CREATE TABLE tag (name TEXT PRIMARY KEY NOT NULL) WITHOUT ROWID; SELECT crsql_as_crr('tag')`
)

var convergeTables = []string{"note", "pär", "tag"}

// A cluster is some replicas and how far each has read each.
type cluster struct {
	t     *rapid.T
	nodes []*node
	at    map[[2]int]Position // of reader and source
}

func (c *cluster) open(i int, path string) {
	db, err := Open(context.Background(), path, Options{Readers: 1})
	if err != nil {
		c.t.Fatal(err)
	}
	w := <-db.writer
	err = w.run(context.Background(), "PRAGMA synchronous=OFF") // nobody cuts the power here
	db.writer <- w
	if err != nil {
		c.t.Fatal(err)
	}
	r, err := OpenReplica(context.Background(), db)
	if err != nil {
		c.t.Fatal(err)
	}
	c.nodes[i] = &node{t: c.t, name: filepath.Base(path), path: path, db: db, Replica: r}
}

func (c *cluster) pick(label string) int {
	return rapid.IntRange(0, len(c.nodes)-1).Draw(c.t, label)
}

// write runs a random transaction at a random node.
func (c *cluster) write() {
	n := c.nodes[c.pick("writer")]
	key := func() int { return rapid.IntRange(1, 4).Draw(c.t, "key") }
	name := func() string { return rapid.SampledFrom([]string{"x", "ü", ""}).Draw(c.t, "name") }
	val := func() changeset.Value {
		return rapid.SampledFrom(values(1, 2, 2.0, "a", "b\x00c", []byte{}, []byte("z"), nil, int64(1)<<60)).Draw(c.t, "value")
	}
	err := n.db.Write(context.Background(), func(tx *Tx) error {
		for range rapid.IntRange(1, 3).Draw(c.t, "statements") {
			var err error
			switch rapid.IntRange(0, 10).Draw(c.t, "statement") {
			case 0, 1:
				_, err = tx.Exec("INSERT INTO note VALUES (?, ?, ?, 1) ON CONFLICT DO UPDATE SET body = excluded.body", values(key(), val(), val())...)
			case 2:
				_, err = tx.Exec("INSERT OR REPLACE INTO note VALUES (?, ?, ?, 2.5)", values(key(), val(), val())...)
			case 3:
				_, err = tx.Exec("UPDATE note SET title = ?, body = body WHERE id >= ?", values(val(), key())...)
			case 4:
				_, err = tx.Exec("DELETE FROM note WHERE id = ?", values(key())...)
			case 5:
				_, err = tx.Exec("UPDATE OR REPLACE note SET id = ? WHERE id = ?", values(key(), key())...)
			case 6:
				_, err = tx.Exec(`INSERT INTO "pär" VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET w = excluded.w`, values(name(), key(), key(), val())...)
			case 7:
				_, err = tx.Exec(`DELETE FROM "pär" WHERE a = ?`, values(name())...)
			case 8:
				_, err = tx.Exec(`UPDATE OR REPLACE "pär" SET b = ? WHERE a = ?`, values(key(), name())...)
			case 9:
				_, err = tx.Exec("INSERT OR IGNORE INTO tag VALUES (?)", values(name())...)
			case 10:
				_, err = tx.Exec("DELETE FROM tag WHERE name = ?", values(name())...)
			}
			if err != nil && !IsConstraint(err) {
				return err
			}
		}
		return nil
	})
	if err != nil {
		c.t.Fatalf("%s: %v", n.name, err)
	}
}

// sync lets one node apply a part of what it has not read of another.
func (c *cluster) sync(to, from int, limit int) (done bool) {
	q := all(c.at[[2]int{to, from}])
	q.MaxChanges = limit
	got := c.nodes[from].read(q)
	var groups []Group
	for _, e := range got.Entries {
		groups = append(groups, Group{Origin: e.Origin, Version: e.Version, Changes: e.Changes})
	}
	c.nodes[to].apply(groups...)
	c.at[[2]int{to, from}] = got.Next
	return got.End
}

// reopen closes a node and opens it again. Positions within its entries end with it.
func (c *cluster) reopen(i int) {
	path := c.nodes[i].path
	if err := c.nodes[i].db.Close(); err != nil {
		c.t.Fatal(err)
	}
	c.open(i, path)
	for link, at := range c.at {
		if link[1] == i && at.Seq != EntryEnd {
			c.at[link] = Position{L: at.L, Seq: EntryStart}
		}
	}
}

// TestConvergence: whatever happens at whichever replica, and however it travels in parts, once everybody has read
// everybody all are equal.
func TestConvergence(t *testing.T) {
	dir := t.TempDir()
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		c := &cluster{t: t, nodes: make([]*node, rapid.IntRange(2, 3).Draw(t, "nodes")), at: make(map[[2]int]Position)}
		here := filepath.Join(dir, fmt.Sprint(run))
		if err := os.Mkdir(here, 0o755); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = os.RemoveAll(here) }()
		for i := range c.nodes {
			c.open(i, filepath.Join(here, string(rune('a'+i))))
			defer func() { _ = c.nodes[i].db.Close() }()
			c.nodes[i].script(noteSQL + ";" + pairSQL + ";" + tagSQL)
		}
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "step") {
			default:
				c.write()
			case 5, 6, 7, 8:
				to := c.pick("reader")
				if from := c.pick("source"); from != to {
					c.sync(to, from, rapid.SampledFrom([]int{1, 2, 5, 4096}).Draw(t, "limit"))
				}
			case 9:
				c.reopen(c.pick("reopened"))
			}
		}
		for range c.nodes {
			for to := range c.nodes {
				for from := range c.nodes {
					for to != from && !c.sync(to, from, 3) {
					}
				}
			}
		}
		for _, n := range c.nodes[1:] {
			equal(t, n.name+"'s changes", n.query(changesSQL), c.nodes[0].query(changesSQL))
			for _, table := range convergeTables {
				order := map[string]string{"note": "id", "pär": "a, b", "tag": "name"}[table]
				sql := fmt.Sprintf("SELECT * FROM %s ORDER BY %s", ident(table), order)
				equal(t, n.name+"'s "+table, n.query(sql), c.nodes[0].query(sql))
			}
		}
	})
}
