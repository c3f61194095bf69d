package crsql

import (
	"errors"
	"strings"
	"testing"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// refusesPinned runs a statement that has to fail because something is pinned, naming all of words.
func refusesPinned(d *testDB, sql string, words ...string) {
	d.t.Helper()
	before := d.everything()
	_, err := d.try(sql)
	if err == nil {
		d.t.Fatalf("%s: it is carried out", sql)
	}
	for _, word := range append(words, "pinned", "9007199254740991") {
		if !strings.Contains(err.Error(), word) {
			d.t.Errorf("%s: the error does not say %q: %v", sql, word, err)
		}
	}
	if got := d.everything(); got != before {
		d.t.Errorf("%s: it was refused, and left\n%s\nin place of\n%s", sql, got, before)
	}
}

// A cell that a peer has set to the highest version takes no write here, or nobody else would take it. The row can be
// deleted and made anew, which begins its versions again.
func TestPinnedColumn(t *testing.T) {
	a, b := openTest(t, ":memory:"), openTest(t, ":memory:")
	for _, d := range []*testDB{a, b} {
		d.run("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, x, y); SELECT crsql_as_crr('t')")
	}
	a.run("INSERT INTO t VALUES (1, 'one', 'uno'), (2, 'two', 'due')")
	pin := func(d *testDB, version int64) {
		t.Helper()
		d.run("INSERT INTO crsql_changes VALUES ('t', x'010901', 'x', 'pinned', ?, 1, x'aa', 1, 0)", version)
	}
	pin(a, changeset.MaxVersion-1)
	a.run("UPDATE t SET x = 'the last one' WHERE id = 1")
	a.expect("SELECT col_version FROM crsql_changes WHERE pk = x'010901' AND cid = 'x'", "9007199254740991")
	words := []string{`table "t"`, "key (1)", `column "x"`, "delete the row"}
	refusesPinned(a, "UPDATE t SET x = 'more' WHERE id = 1", words...)
	refusesPinned(a, "UPDATE t SET x = 'more', y = 'more'", words...)
	refusesPinned(a, "INSERT OR REPLACE INTO t VALUES (1, 'more', 'more')", `table "t"`, "key (1)", "one of its columns")
	refusesPinned(a, "UPDATE OR IGNORE t SET id = 3, x = 'more' WHERE id = 1", `table "t"`, "key (3)", `column "x"`)
	refusesPinned(a, "UPDATE OR REPLACE t SET id = 1 WHERE id = 2", `table "t"`, "key (1)", `column "x"`)
	a.run("UPDATE t SET y = 'goes on', x = x WHERE id = 1")
	a.run("UPDATE t SET id = 3 WHERE id = 1")
	b.pull(a, 0)
	b.expect("SELECT * FROM t", "2 | \"two\" | \"due\"\n3 | \"the last one\" | \"goes on\"")
	refusesPinned(b, "UPDATE t SET x = 'more' WHERE id = 3", `table "t"`, "key (3)", `column "x"`)
	seen := b.int("SELECT crsql_db_version()")
	b.run("DELETE FROM t WHERE id = 3")
	b.run("INSERT INTO t VALUES (3, 'free', 'again')")
	b.run("UPDATE t SET x = 'and free' WHERE id = 3")
	a.pull(b, seen)
	a.expect("SELECT * FROM t WHERE id = 3", `3 | "and free" | "again"`)
	if _, err := a.try("INSERT INTO crsql_changes VALUES ('t', x'010901', 'x', 'beyond', 9007199254740992, 1, x'aa', 1, 0)"); err == nil {
		t.Error("a change beyond the bound is taken")
	}
}

// The same for a causal length: the row stays as it is, there or gone, and its columns go on.
func TestPinnedRow(t *testing.T) {
	a, b := openTest(t, ":memory:"), openTest(t, ":memory:")
	for _, d := range []*testDB{a, b} {
		d.run("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, x); SELECT crsql_as_crr('t')")
		d.run("CREATE TABLE k(id INTEGER PRIMARY KEY NOT NULL); SELECT crsql_as_crr('k')")
	}
	a.run("INSERT INTO crsql_changes VALUES ('t', x'010901', '-1', NULL, ?1, 1, x'aa', ?1, 0), ('t', x'010902', '-1', NULL, ?2, 1, x'aa', ?2, 0),"+
		"('k', x'010901', '-1', NULL, ?2, 1, x'aa', ?2, 0)", int64(changeset.MaxVersion), int64(changeset.MaxVersion-1))
	a.expect("SELECT id FROM t", "1")
	refusesPinned(a, "DELETE FROM t WHERE id = 1", `table "t"`, "key (1)", "the row", "another key")
	refusesPinned(a, "UPDATE t SET id = 5 WHERE id = 1", `table "t"`, "at the key that it leaves", "the row")
	refusesPinned(a, "INSERT OR REPLACE INTO t VALUES (1, 1)", `table "t"`, "key (1)", "the row")
	a.run("UPDATE t SET x = 'goes on' WHERE id = 1")
	a.run("INSERT INTO t VALUES (2, 'back')") // the last causal length that there is
	a.run("INSERT INTO k VALUES (1)")
	refusesPinned(a, "DELETE FROM t WHERE id = 2", `table "t"`, "key (2)", "the row")
	refusesPinned(a, "DELETE FROM k", `table "k"`, "key (1)", "the row")
	b.pull(a, 0)
	b.expect("SELECT * FROM t", "1 | \"goes on\"\n2 | \"back\"")
	b.expect("SELECT * FROM k", "1")
	if a.everything() == "" || b.int("SELECT max(cl) FROM crsql_changes") != changeset.MaxVersion {
		t.Error("the causal length did not travel")
	}
}

// Whatever a peer sets, two replicas hold the same afterwards: what one of them may write, the other takes.
func TestPinnedReplicasAgree(t *testing.T) {
	a, b := newNode(t, "a"), newNode(t, "b")
	for _, n := range []*node{a, b} {
		n.script(noteSQL)
		n.apply(Group{Origin: siteX, Version: 1, Changes: []changeset.Change{
			title(1, "pinned", changeset.MaxVersion), title(2, "nearly", changeset.MaxVersion-1), title(3, "beyond", changeset.MaxVersion+1)}})
	}
	for _, id := range []int{1, 2, 2} { // the first and the last are refused
		_, err := a.db.Exec(t.Context(), "UPDATE note SET title = 'mine' WHERE id = ?", changeset.Integer(int64(id)))
		if err != nil && (!strings.Contains(err.Error(), "pinned") || errors.Is(err, ErrLimit)) {
			t.Fatal(err)
		}
	}
	b.pull(a, all(Position{}))
	for _, n := range []*node{a, b} {
		equal(t, n.name, n.query("SELECT id, title FROM note"), []string{`1 "pinned" `, `2 "mine" `})
		equal(t, n.name+" clocks", n.query(`SELECT pk, cid, col_version FROM crsql_changes WHERE cid = 'title' ORDER BY pk`),
			[]string{`x'010901' "title" 9007199254740991 `, `x'010902' "title" 9007199254740991 `})
		if parked := n.state().Parked; parked != 1 {
			t.Errorf("%s: %d changes are parked, not the one beyond the bound", n.name, parked)
		}
	}
}
