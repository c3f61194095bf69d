package crsql

import (
	"context"
	"database/sql"
	"fmt"
	"testing"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

func (n *node) digest(q DigestRequest) DigestResult {
	n.t.Helper()
	d, err := n.Digest(context.Background(), q)
	if err != nil {
		n.t.Fatal(err)
	}
	return d
}

func (n *node) tables() string {
	n.t.Helper()
	return fmt.Sprint(n.digest(DigestRequest{}).Tables)
}

// rowSums returns all rows of a table by the way that a comparison takes: from the whole down to the rows.
func (n *node) rowSums(table string) map[string]changeset.RowSum {
	n.t.Helper()
	out := map[string]changeset.RowSum{}
	work := []changeset.Prefix{{}}
	for len(work) > 0 {
		took := min(len(work), 64)
		asked := work[:took]
		work = work[took:]
		for i, part := range n.digest(DigestRequest{Table: table, Prefixes: asked}).Parts {
			for _, r := range part.Rows {
				out[string(r.Place[:])] = r
			}
			for child, sum := range part.Children {
				if sum.Count > 0 {
					work = append(work, asked[i].Child(child))
				}
			}
		}
	}
	return out
}

// TestDigestFindsWhatWasDamaged: a value, a clock, a tombstone, a missing and a stray row, each changed past cr-sqlite, show.
func TestDigestFindsWhatWasDamaged(t *testing.T) {
	a := newNode(t, "a")
	a.script(noteSQL)
	for i := range 40 {
		a.exec("INSERT INTO note VALUES (?, 't', 'b', 1)", i)
	}
	a.exec("DELETE FROM note WHERE id = 5")
	before := a.digest(DigestRequest{}).Tables[0]
	if before.Sum.Count != 40 || before.Stray != 0 {
		t.Fatalf("got %+v", before)
	}
	other := behind(t, a.path)
	for _, damage := range []struct {
		name, sql, undo string
		stray           int64
	}{
		{"value", "UPDATE note SET title = 'x' WHERE id = 3", "UPDATE note SET title = 't' WHERE id = 3", 0},
		{"kind", "UPDATE note SET title = x'74' WHERE id = 3", "UPDATE note SET title = 't' WHERE id = 3", 0},
		{"clock", "UPDATE note__crsql_clock SET col_version = 9 WHERE key = 3 AND col_name = 'title'",
			"UPDATE note__crsql_clock SET col_version = 1 WHERE key = 3 AND col_name = 'title'", 0},
		{"tombstone", "UPDATE note__crsql_clock SET col_version = 4 WHERE col_name = '-1' AND col_version = 2",
			"UPDATE note__crsql_clock SET col_version = 2 WHERE col_name = '-1' AND col_version = 4", 0},
		{"missing", "DELETE FROM note WHERE id = 7", "INSERT INTO note VALUES (7, 't', 'b', 1)", 0},
		{"stray", "INSERT INTO note VALUES (70, 't', 'b', 1)", "DELETE FROM note WHERE id = 70", 1},
	} {
		other(damage.sql)
		got := a.digest(DigestRequest{}).Tables[0]
		if damage.stray == 0 && got.Sum.Digest == before.Sum.Digest || got.Stray != damage.stray {
			t.Errorf("%s does not show: %+v", damage.name, got)
		}
		other(damage.undo)
		if got := a.digest(DigestRequest{}).Tables[0]; got != before {
			t.Errorf("%s, undone, shows: %+v", damage.name, got)
		}
	}
}

// TestDigestParts: the parts of a table, down to its rows, add up to it, also when it changes in between.
func TestDigestParts(t *testing.T) {
	a := newNode(t, "a")
	a.script(noteSQL)
	a.exec("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) INSERT INTO note SELECT i, 'title ' || i, NULL, 2.5 FROM n")
	for _, changed := range []bool{false, true} {
		if changed {
			a.exec("UPDATE note SET title = 'new' WHERE id % 7 = 0")
			a.exec("DELETE FROM note WHERE id % 11 = 0")
		}
		rows := a.rowSums("note") // by a tree that is made for it
		whole := a.digest(DigestRequest{Table: "note"}).Tables[0].Sum
		var sum changeset.Sum
		for _, r := range rows {
			sum.Add(r.Digest)
			if changeset.PlaceOf(r.Key) != r.Place {
				t.Fatalf("key %x is not at place %x", r.Key, r.Place)
			}
		}
		if sum != whole || whole.Count != 3000 {
			t.Errorf("the rows add up to %+v, the table to %+v", sum, whole)
		}
	}
	if !a.digest(DigestRequest{Table: "none", Prefixes: []changeset.Prefix{{}}}).Missing {
		t.Error("a table that is not there is not missing")
	}
}

// TestDigestKeepsUp: the sums below a prefix, answered from what a look at the whole has left, are those of now.
func TestDigestKeepsUp(t *testing.T) {
	a := newNode(t, "a")
	a.script(noteSQL)
	a.exec("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) INSERT INTO note SELECT i, 'x', NULL, 2.5 FROM n")
	for range 2 {
		whole := a.digest(DigestRequest{}).Tables[0].Sum
		a.exec("UPDATE note SET title = title || 'y' WHERE id = 5")
		var sum changeset.Sum
		for _, child := range a.digest(DigestRequest{Table: "note", Prefixes: []changeset.Prefix{{}}}).Parts[0].Children {
			sum.AddSum(child)
		}
		if now := a.digest(DigestRequest{}).Tables[0].Sum; sum != now || sum == whole {
			t.Errorf("the parts add up to %+v, the table to %+v, before to %+v", sum, now, whole)
		}
	}
}

// TestDigestKeyOnly: where a row is nothing but its key, it shows all the same that it is gone.
func TestDigestKeyOnly(t *testing.T) {
	a := newNode(t, "a")
	a.script(tagSQL)
	a.exec("INSERT INTO tag VALUES ('x'), ('y')")
	before := a.tables()
	behind(t, a.path)("DELETE FROM tag WHERE name = 'x'")
	if a.tables() == before {
		t.Error("a missing row does not show")
	}
}

// TestDigestOrderOfColumns: it does not matter.
func TestDigestOrderOfColumns(t *testing.T) {
	a, b := newNode(t, "a"), newNode(t, "b")
	a.script("CREATE TABLE t (id PRIMARY KEY NOT NULL, x, a, z); SELECT crsql_as_crr('t')")
	b.script("CREATE TABLE t (z, a, id PRIMARY KEY NOT NULL, x); SELECT crsql_as_crr('t')")
	a.exec("INSERT INTO t VALUES (1, 2, 3, 4)")
	b.pull(a, all(Position{}))
	if got, want := b.tables(), a.tables(); got != want {
		t.Errorf("got\n%s, not\n%s", got, want)
	}
}

// TestDigestEqual: replicas that hold the same by different ways have the same digests, and those that do not have not.
func TestDigestEqual(t *testing.T) {
	a, b := newNode(t, "a"), newNode(t, "b")
	for _, n := range []*node{a, b} {
		n.script(noteSQL + ";" + pairSQL + ";" + tagSQL)
	}
	a.exec("INSERT INTO note VALUES (1, 'x', NULL, 1), (2, 'y', x'00ff', 2.5), (3, 'z', 7, 1)")
	a.exec("DELETE FROM note WHERE id = 2")
	a.exec("UPDATE note SET id = 9 WHERE id = 3")
	a.exec(`INSERT INTO "pär" (a, b) VALUES ('ü', 1), ('', -5)`)
	b.exec("INSERT INTO tag VALUES ('t'), ('ü')")
	b.exec("INSERT INTO note VALUES (1, 'x', NULL, 1)") // the same write, made twice
	if a.tables() == b.tables() {
		t.Fatal("they are equal before anything was exchanged")
	}
	q := all(Position{})
	a.pull(b, q)
	b.pull(a, q)
	if got, want := b.tables(), a.tables(); got != want {
		t.Errorf("got\n%s, not\n%s", got, want)
	}
}

// TestRowsMend: all that is known of rows, applied by another, makes that one's equal.
func TestRowsMend(t *testing.T) {
	a, b := newNode(t, "a"), newNode(t, "b")
	for _, n := range []*node{a, b} {
		n.script(noteSQL)
	}
	a.exec("INSERT INTO note VALUES (1, 'x', NULL, 1), (2, 'y', 'b', 2.5), (3, 'z', 7, 1), (4, 'long', zeroblob(1000), 1)")
	a.exec("UPDATE note SET title = 'new' WHERE id = 1")
	a.exec("DELETE FROM note WHERE id = 2")
	a.exec("UPDATE note SET id = 9 WHERE id = 3")
	var places []changeset.Place
	for _, r := range a.rowSums("note") {
		places = append(places, r.Place)
	}
	entries, err := a.Rows(context.Background(), "note", places, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	var groups []Group
	for i, e := range entries {
		if e.Origin != a.state().Site || i > 0 && e.L <= entries[i-1].L {
			t.Errorf("entry %d of %s at %d", e.L, e.Origin, i)
		}
		groups = append(groups, Group{Origin: e.Origin, Version: e.Version, Changes: e.Changes})
	}
	b.apply(groups...)
	if got, want := b.tables(), a.tables(); got != want {
		t.Errorf("got\n%s, not\n%s", got, want)
	}
	one, err := a.Rows(context.Background(), "note", places, 1)
	if err != nil || len(one) == 0 || len(one) >= len(entries) {
		t.Errorf("with one byte of room came %d entries of %d, %v", len(one), len(entries), err)
	}
}

// behind returns what runs statements on a database file from outside, past cr-sqlite's triggers.
func behind(t *testing.T, path string) func(sql string) {
	t.Helper()
	db, err := sql.Open("crsqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return func(text string) {
		t.Helper()
		if _, err := db.Exec("SELECT crsql_internal_sync_bit(1); " + text); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
}

// BenchmarkDigest reads 100,000 rows of three columns for their digest, and then looks for single rows of them.
func BenchmarkDigest(b *testing.B) {
	n := newNode(b, "a")
	const rows = 100_000
	n.script(noteSQL)
	n.exec("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) INSERT INTO note SELECT i, 'title ' || i, 'some text', 2.5 FROM n", rows)
	b.Run("table", func(b *testing.B) {
		for b.Loop() {
			n.digest(DigestRequest{})
		}
		b.ReportMetric(rows*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
	})
	b.Run("rows", func(b *testing.B) {
		prefixes := make([]changeset.Prefix, 64)
		for i := range prefixes {
			prefixes[i] = changeset.PrefixOf(changeset.PlaceOf([]byte{byte(i)}), 4)
		}
		for b.Loop() {
			n.digest(DigestRequest{Table: "note", Prefixes: prefixes})
		}
		b.ReportMetric(rows*float64(b.N)/b.Elapsed().Seconds(), "keys/s")
	})
}
