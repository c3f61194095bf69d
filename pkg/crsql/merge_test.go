package crsql

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

func packedInt(t testing.TB, n int64) []byte {
	t.Helper()
	pk, err := changeset.AppendPacked(nil, []changeset.Value{changeset.Integer(n)})
	if err != nil {
		t.Fatal(err)
	}
	return pk
}

// Changes that cannot be applied are named one by one; everything else is applied, and the transaction goes on.
func TestApplyLeavesOutTheRefused(t *testing.T) {
	d := openTest(t, ":memory:")
	d.run("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, x, y CHECK (y <> 'bad')); SELECT crsql_as_crr('t')")
	cell := func(table string, pk []byte, cid, val string) changeset.Change {
		return changeset.Change{Table: table, PK: pk, CID: cid, Val: changeset.TextString(val), ColVersion: 1, CL: 1, Site: "0123456789abcdef"}
	}
	one, two := packedInt(t, 1), packedInt(t, 2)
	d.run("BEGIN")
	impacted, err := d.engine.applyChanges(5, []changeset.Change{
		cell("t", one, "x", "fine"), cell("t", one, "y", "bad"), cell("t", one, "x", "known"),
		cell("nowhere", one, "x", "?"), cell("t", two, "nowhere", "?"), cell("t", two, "y", "fine"),
		cell("t", []byte{9}, "x", "?"), cell("t", nil, "x", "?"),
	})
	var failed ChangeErrors
	if !errors.As(err, &failed) {
		t.Fatalf("applyChanges: %v", err)
	}
	var said []string
	for _, f := range failed {
		said = append(said, fmt.Sprintf("%d %s.%s: %s", f.Index, f.Table, f.CID, f.Reason))
	}
	want := `1 t.y: the table refuses it
3 nowhere.x: the table is not a CRR of this database
4 t.nowhere: the table has no such column
6 t.x: its primary key is damaged
7 t.x: its primary key is damaged`
	if got := strings.Join(said, "\n"); got != want {
		t.Errorf("refused:\n%s\nwant:\n%s", got, want)
	}
	if one := new(ChangeError); !errors.As(err, &one) || !strings.Contains(failed[0].Error(), "CHECK") || !strings.Contains(err.Error(), "and 2 more") {
		t.Errorf("the error says %q, its first %q", err, failed[0])
	}
	if impacted != 3 || d.int("SELECT crsql_rows_impacted()") != 3 { // fine, then known, which is larger; and fine
		t.Errorf("%d impacted", impacted)
	}
	d.run("COMMIT")
	if got := dump(d.run("SELECT * FROM t")); got != "1 | \"known\" | NULL\n2 | NULL | \"fine\"" {
		t.Errorf("t holds\n%s", got)
	}
	if n := d.int("SELECT count(*) FROM crsql_changes WHERE db_version = 5 AND site_id = CAST('0123456789abcdef' AS BLOB)"); n != 2 {
		t.Errorf("%d changes", n)
	}
}

// A constraint that undoes the whole transaction is no refusal that the caller could go on from.
func TestApplyReportsALostTransaction(t *testing.T) {
	d := openTest(t, ":memory:")
	d.run("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, x, y); SELECT crsql_as_crr('t')")
	d.run("CREATE TRIGGER strict BEFORE INSERT ON t WHEN NEW.x = 'bad' BEGIN SELECT RAISE(ROLLBACK, 'no'); END")
	d.run("BEGIN")
	_, err := d.engine.applyChanges(1, []changeset.Change{{Table: "t", PK: packedInt(t, 1), CID: "x", Val: changeset.TextString("bad"), ColVersion: 1, CL: 1}})
	if err == nil || errors.As(err, new(ChangeErrors)) {
		t.Errorf("applyChanges: %v", err)
	}
	if _, err := d.try("COMMIT"); err == nil {
		t.Error("there still is a transaction")
	}
}

func TestApplyVersions(t *testing.T) {
	d := openTest(t, ":memory:")
	d.run("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, x); SELECT crsql_as_crr('t')")
	change := changeset.Change{Table: "t", PK: packedInt(t, 1), CID: "x", Val: changeset.Integer(1), ColVersion: 1, CL: 1, DBVersion: 1 << 60}
	for _, step := range []struct{ version, col, impacted, stored int64 }{
		{10, 1, 1, 10}, {11, 1, 0, 10}, {11, 2, 1, 11}, {3, 3, 1, 12},
	} {
		change.ColVersion = step.col
		d.run("BEGIN")
		impacted, err := d.engine.applyChanges(step.version, []changeset.Change{change})
		if err != nil {
			t.Fatal(err)
		}
		d.run("COMMIT")
		if stored := d.int("SELECT db_version FROM crsql_changes"); impacted != step.impacted || stored != step.stored || d.int("SELECT crsql_db_version()") != step.stored {
			t.Errorf("%+v: impacted %d, stored under %d", step, impacted, stored)
		}
	}
	if _, err := d.engine.applyChanges(changeset.MaxVersion+1, nil); err == nil {
		t.Error("a db_version out of range is accepted")
	}
}

// The owner of a connection hears of each commit once it has succeeded, however it is made, and of no other.
func TestCommitNotice(t *testing.T) {
	d := openTest(t, ":memory:")
	commits, rollbacks := 0, 0
	d.engine.onCommit = func() {
		commits++
		if n, err := d.engine.currentVersion(); err != nil || n < 0 {
			t.Errorf("the connection cannot be used in onCommit: %v", err)
		}
	}
	d.engine.onRollback = func() { rollbacks++ }
	expect := func(what string, c, r int) {
		t.Helper()
		if commits != c || rollbacks != r {
			t.Errorf("%s: %d commits and %d rollbacks, want %d and %d", what, commits, rollbacks, c, r)
		}
		commits, rollbacks = 0, 0
	}
	d.run("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, x)")
	expect("CREATE TABLE", 1, 0)
	d.run("SELECT crsql_as_crr('t')")
	expect("crsql_as_crr", 1, 0)
	d.run("SELECT * FROM crsql_changes")
	expect("reading", 0, 0)
	d.run("INSERT INTO t VALUES (1, 2) RETURNING id")
	expect("RETURNING", 1, 0)
	d.run("BEGIN")
	d.run("INSERT INTO t VALUES (2, 2)")
	expect("inside a transaction", 0, 0)
	d.run("COMMIT")
	expect("COMMIT", 1, 0)
	tx, err := d.conn.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec("INSERT INTO t VALUES (3, 2)"); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	expect("Tx.Commit", 1, 0)
	if tx, err = d.conn.BeginTx(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec("INSERT INTO t VALUES (4, 2)"); err != nil {
		t.Fatal(err)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	expect("Tx.Rollback", 0, 1)
	if _, err := d.try("INSERT INTO t VALUES (1, 2)"); err == nil {
		t.Error("a key stands twice")
	}
	expect("a failed statement", 0, 1)
	stmt, err := d.conn.PrepareContext(t.Context(), "INSERT INTO t VALUES (?, 2)")
	if err != nil {
		t.Fatal(err)
	}
	defer stmt.Close()
	for i := range 3 {
		if _, err := stmt.Exec(10 + i); err != nil {
			t.Fatal(err)
		}
	}
	expect("a prepared statement", 3, 0)
	if n := d.int("SELECT crsql_db_version()"); n != 6 {
		t.Errorf("db_version %d", n)
	}
}

// With a context that can end, mattn runs statements on another goroutine and watches them; functions run there too.
func TestCancelledStatement(t *testing.T) {
	d := openTest(t, ":memory:")
	d.run("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, x); SELECT crsql_as_crr('t')")
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := d.conn.ExecContext(ctx, "INSERT INTO crsql_changes VALUES ('t', x'010909', 'x', 5, 7, 1, x'aa', 1, 0)"); err != nil {
		t.Fatal(err)
	}
	started := make(chan struct{})
	if err := d.conn.Raw(func(c any) error {
		return c.(*conn).sqlite.RegisterFunc("started", func(n int64) int64 {
			if n == 1000 {
				close(started)
			}
			return n
		}, false)
	}); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		<-started
		cancel()
	}()
	_, err := d.conn.ExecContext(ctx, "WITH RECURSIVE n(i) AS (VALUES (1000) UNION ALL SELECT i + 1 FROM n) INSERT INTO t SELECT started(i), i FROM n")
	<-done
	if !errors.Is(err, context.Canceled) {
		t.Errorf("an endless insert: %v", err)
	}
	d.run("INSERT INTO t VALUES (1, 2)")
	if got := dump(d.run("SELECT cid, db_version, seq FROM crsql_changes")); got != "\"x\" | 1 | 0\n\"x\" | 2 | 0" {
		t.Errorf("changes:\n%s", got)
	}
}

// A key may come as another kind than its column makes of it: the row is found all the same, however it is looked for.
func TestKeyOfAnotherKind(t *testing.T) {
	w := newTwins(t)
	w.run("CREATE TABLE t(k TEXT NOT NULL, n INTEGER NOT NULL, v, PRIMARY KEY(k, n))")
	w.run("SELECT crsql_as_crr('t')")
	for version := range 2 { // the second time there are rows to compare with
		for n := range 3 {
			pk, err := changeset.AppendPacked(nil, values(n, "x"))
			if err != nil {
				t.Fatal(err)
			}
			w.run("INSERT INTO crsql_changes VALUES ('t', ?, 'v', ?, 1, 1, x'0123456789abcdef0123456789abcdef', 1, 0)", pk, 10+n-version)
			w.run("SELECT * FROM crsql_changes")
		}
	}

	n := newNode(t, "n")
	n.script("CREATE TABLE t(k TEXT NOT NULL, n INTEGER NOT NULL, v, PRIMARY KEY(k, n)); SELECT crsql_as_crr('t')")
	group := Group{Origin: siteX, Version: 1}
	for key := range 2 * aheadRows {
		pk, err := changeset.AppendPacked(nil, values(key, "x"))
		if err != nil {
			t.Fatal(err)
		}
		group.Changes = append(group.Changes, changeset.Change{Table: "t", PK: pk, CID: "v", Val: changeset.Integer(7), ColVersion: 1, Site: siteX, CL: 1, Seq: int64(key)})
	}
	n.apply(group)
	if got := n.apply(group); got.Changed[0] != 0 {
		t.Errorf("known changes have changed %d rows", got.Changed[0])
	}
	read := 0
	for _, e := range n.readAll(4096) {
		for _, c := range e.Changes {
			if read++; !c.Val.Equal(changeset.Integer(7)) {
				t.Errorf("the key %x has the value %s", c.PK, show(c.Val))
			}
		}
	}
	if read != len(group.Changes) {
		t.Errorf("%d changes were read", read)
	}
}
