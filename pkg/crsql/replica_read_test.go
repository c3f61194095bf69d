package crsql

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// readAll reads everything behind after in parts of at most limit changes.
func (n *node) readAll(limit int) (entries []Entry) {
	n.t.Helper()
	q := all(Position{})
	q.MaxChanges = limit
	for {
		got := n.read(q)
		entries = append(entries, got.Entries...)
		q.After = got.Next
		if got.End {
			return entries
		}
	}
}

// mixed fills a node with tables of several shapes and entries of several kinds.
func mixed(t testing.TB) *node {
	n := newNode(t, "mixed")
	n.script(noteSQL + ";" + pairSQL + ";" + tagSQL)
	n.script(`INSERT INTO note VALUES (1, 'one', x'', 2.0), (2, NULL, 9007199254740993, NULL), (3, 'drei', 'x', -0.5);
		INSERT INTO "pär" VALUES ('a', 1, 2, 3), ('', 2, NULL, x'00ff');
		INSERT INTO tag VALUES ('grün'), ('')`)
	n.exec("UPDATE note SET title = 'zwei' WHERE id = 2")
	n.exec("DELETE FROM note WHERE id = 3")
	n.exec("DELETE FROM tag WHERE name = ''")
	n.exec("INSERT INTO note VALUES (3, 'three', NULL, 0)")
	n.exec("INSERT INTO tag VALUES ('')")
	other := newNode(t, "other")
	other.script(noteSQL)
	other.exec("INSERT INTO note VALUES (7, 'seven', ?, 7)", "a\x00b")
	n.pull(other, all(Position{}))
	return n
}

func TestReadEqualsView(t *testing.T) {
	n := mixed(t)
	want := n.query(`SELECT db_version, "table", pk, cid, val, col_version, site_id, cl, seq FROM crsql_changes ORDER BY 1, 2, 3, 4`)
	if len(want) < 19 {
		t.Fatalf("only %d changes", len(want))
	}
	for _, limit := range []int{1, 3, 4096} {
		var got []string
		for _, e := range n.readAll(limit) {
			for _, c := range e.Changes {
				if c.DBVersion != e.L {
					t.Fatalf("a change of version %d in entry %d", c.DBVersion, e.L)
				}
				got = append(got, fmt.Sprintf("%d %q x'%x' %q %s %d x'%x' %d %d ", c.DBVersion, c.Table, c.PK, c.CID, show(c.Val), c.ColVersion, []byte(c.Site), c.CL, c.Seq))
			}
		}
		byKey := func(a, b string) int { return strings.Compare(a, b) }
		slices.SortFunc(got, byKey)
		slices.SortFunc(want, byKey)
		equal(t, fmt.Sprintf("changes in parts of %d", limit), got, want)
	}
}

func TestReadDecisions(t *testing.T) {
	n := mixed(t)
	site := n.state().Site
	entries := n.readAll(4096)
	last := entries[len(entries)-1]
	if last.Origin == site || last.Version == 0 {
		t.Fatalf("the last entry should be the other's: %+v", last)
	}
	q := all(Position{})
	q.Count = true
	q.Decide = func(origin changeset.SiteID, version int64) Decision {
		if origin != site {
			return Hold
		}
		return Skip
	}
	got := n.read(q)
	if len(got.Entries) != 1 || !got.Entries[0].Held || got.Entries[0].L != last.L || len(got.Entries[0].Changes) != 0 || !got.End {
		t.Fatalf("got %+v, want the header of the other's entry only", got)
	}
	if got.Next != (Position{L: last.L, Seq: EntryEnd}) || got.Heads.Newest != last.L || got.Heads.Own != last.L-1 {
		t.Errorf("got to %+v with heads %+v", got.Next, got.Heads)
	}
	total := int64(0)
	for _, e := range entries {
		total += int64(len(e.Changes))
	}
	if got.Remaining != total {
		t.Errorf("%d changes counted, want %d", got.Remaining, total)
	}

	q = all(Position{})
	q.Decide = func(_ changeset.SiteID, version int64) Decision {
		if version == entries[1].Version {
			return Stop
		}
		return Send
	}
	if got = n.read(q); got.End || got.Next != (Position{L: entries[0].L, Seq: EntryEnd}) || len(got.Entries) != 1 {
		t.Errorf("stopped at %+v with %d entries", got.Next, len(got.Entries))
	}

	q = all(Position{})
	q.Only = []int64{entries[0].L, entries[2].L, entries[2].L + 1000}
	q.MaxChanges = 2
	var ls []int64
	changes := 0
	for end := false; !end; q.After = got.Next {
		got = n.read(q)
		end = got.End
		for _, e := range got.Entries {
			changes += len(e.Changes)
			if !slices.Contains(ls, e.L) {
				ls = append(ls, e.L)
			}
		}
	}
	equal(t, "entries", ls, []int64{entries[0].L, entries[2].L})
	if want := len(entries[0].Changes) + len(entries[2].Changes); changes != want {
		t.Errorf("%d changes, want %d", changes, want)
	}
}

// TestReadFromAnywhere: behind every position there is, one Read finds everything that is left.
func TestReadFromAnywhere(t *testing.T) {
	n := mixed(t)
	list := func(r ReadResult) (changes []string) {
		for _, e := range r.Entries {
			for _, c := range e.Changes {
				changes = append(changes, fmt.Sprintf("%d %s %x %s", e.L, c.Table, c.PK, c.CID))
			}
		}
		return changes
	}
	whole := list(n.read(all(Position{})))
	step := all(Position{})
	step.MaxChanges = 1
	for passed := 0; ; {
		got := n.read(step)
		passed += len(list(got))
		equal(t, fmt.Sprintf("behind %+v", got.Next), list(n.read(all(got.Next))), whole[passed:])
		if step.After = got.Next; got.End {
			break
		}
	}
}

// TestReadTakesNoSort: a read inside a large entry costs what it returns, and not what the entry holds.
func TestReadTakesNoSort(t *testing.T) {
	n := mixed(t)
	err := n.db.snapshot(context.Background(), func(s *session) error {
		for _, source := range []*source{{table: s.engine.order[1]}, {}} {
			version, key, index := "db_version", "key", "_dbv_idx"
			if source.table == nil {
				version, key, index = "local_version", "id", "crmesh_parked_version"
			}
			for _, condition := range []string{version + " > 1", version + " = 1 AND " + key + " > 1"} {
				rows, err := s.engine.query("EXPLAIN QUERY PLAN " + source.scan(condition))
				if err != nil {
					return err
				}
				plan := toText(rows[0][3])
				where := strings.NewReplacer(" > 1", ">?", " = 1", "=?").Replace(condition)
				where = strings.Replace(where, "id>?", "rowid>?", 1)
				if len(rows) != 1 || !strings.HasPrefix(plan, "SEARCH") || !strings.Contains(plan, index) || !strings.Contains(plan, "("+where+")") {
					t.Errorf("%s: %v", condition, rows)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestCountWithin: what is counted behind any position is what is read behind it.
func TestCountWithin(t *testing.T) {
	n := mixed(t)
	q := all(Position{})
	q.MaxChanges, q.Count = 2, true
	read, total := int64(0), int64(-1)
	for {
		got := n.read(q)
		if total < 0 {
			total = got.Remaining
		}
		if got.Remaining != total-read {
			t.Fatalf("%d counted behind %+v, want %d", got.Remaining, q.After, total-read)
		}
		for _, e := range got.Entries {
			read += int64(len(e.Changes))
		}
		if q.After = got.Next; got.End {
			break
		}
	}
	if read != total {
		t.Errorf("%d read, %d counted", read, total)
	}
}

// TestPositionHolds: a position within an entry stays right when tables come and go and rows move on.
func TestPositionHolds(t *testing.T) {
	n := newNode(t, "n")
	n.script(noteSQL + ";" + pairSQL)
	n.script(`INSERT INTO note VALUES (1, 'a', 1, 1), (2, 'b', 2, 2); INSERT INTO "pär" VALUES ('p', 1, 1, 1), ('q', 1, 1, 1)`)
	q := all(Position{})
	q.MaxChanges = 4 // the first row and a bit
	got := n.read(q)
	if got.End || len(got.Entries) != 1 {
		t.Fatalf("got %+v", got)
	}
	n.exec("DROP TABLE note")
	n.exec("DROP TABLE note__crsql_clock")
	n.exec("DROP TABLE note__crsql_pks")
	n.script("CREATE TABLE aaa (id INTEGER PRIMARY KEY NOT NULL, v); SELECT crsql_as_crr('aaa'); INSERT INTO aaa VALUES (1, 1)")
	var rest []string
	for q.After = got.Next; ; q.After = got.Next {
		got = n.read(q)
		for _, e := range got.Entries {
			for _, c := range e.Changes {
				rest = append(rest, fmt.Sprintf("%s %x %s", c.Table, c.PK, c.CID))
			}
		}
		if got.End {
			break
		}
	}
	equal(t, "rest", rest, []string{
		"pär 020b01700901 wért", "pär 020b01700901 w", "pär 020b01710901 wért", "pär 020b01710901 w", "aaa 010901 v",
	})
}

// TestOlderColumns: columns that the stock engine left at an old version when their key was updated go out with the
// sentinel of the new key, and those written later do not.
func TestOlderColumns(t *testing.T) {
	n := newNode(t, "n")
	n.script(noteSQL)
	n.exec("INSERT INTO note VALUES (1, 'a', 1, 1)")
	n.exec("UPDATE note SET id = 2")
	n.exec("UPDATE note SET n = 5")
	moved := n.state().Heads.Newest - 1
	n.exec("UPDATE note__crsql_clock SET db_version = 1 WHERE col_name IN ('title', 'body')")
	q := all(Position{})
	q.Only = []int64{moved}
	var got []string
	for _, e := range n.read(q).Entries {
		for _, c := range e.Changes {
			got = append(got, fmt.Sprintf("%x %s", c.PK, c.CID))
		}
	}
	slices.Sort(got)
	equal(t, "changes", got, []string{"010901 -1", "010902 -1", "010902 body", "010902 title"})
}

func TestValues(t *testing.T) {
	a, b := newNode(t, "a"), newNode(t, "b")
	for _, n := range []*node{a, b} {
		n.script(`CREATE TABLE "ключ ""x""" ("имя [1]" TEXT NOT NULL, k BLOB NOT NULL, "значение'" , when_ TIMESTAMP, d DATE, ok BOOLEAN, PRIMARY KEY ("имя [1]", k));
			SELECT crsql_as_crr('ключ "x"')`)
	}
	blob := bytes.Repeat([]byte("0123456789abcdef"), 10<<20/16)
	list := values(nil, int64(math.MaxInt64), int64(math.MinInt64), int64(1)<<53+1, 2.0, math.Inf(-1), math.SmallestNonzeroFloat64,
		"", []byte{}, "a\x00b", "naïve ☃", "\xff", []byte{0}, blob)
	for i, v := range list {
		a.exec(`INSERT INTO "ключ ""x""" VALUES (?, ?, ?, ?, ?, ?)`, fmt.Sprint(i), []byte{byte(i)}, v, 1700000000, "2024-02-30", 5)
	}
	a.exec(`INSERT INTO "ключ ""x""" VALUES ('', x'', 1, 'soon', 2.5, 'maybe')`)
	b.pull(a, all(Position{}))
	const sql = `SELECT * FROM "ключ ""x""" ORDER BY 1, 2`
	got := b.query(sql)
	equal(t, "rows", got, a.query(sql))
	if len(got) != len(list)+1 {
		t.Fatalf("%d rows, want %d", len(got), len(list)+1)
	}
	for i, v := range list {
		row := b.query(`SELECT "значение'", when_, d, ok FROM "ключ ""x""" WHERE k = ?`, []byte{byte(i)})
		if want := show(v) + ` 1700000000 "2024-02-30" 5 `; len(row) != 1 || row[0] != want {
			t.Errorf("value %d came back as %.80s, want %.80s", i, row, want)
		}
	}
}

func TestReadEndsWithContext(t *testing.T) {
	n := mixed(t)
	ctx, cancel := context.WithCancel(context.Background())
	q := all(Position{})
	q.Decide = func(changeset.SiteID, int64) Decision { cancel(); return Skip }
	if _, err := n.Read(ctx, q); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
