package crsql

import (
	"context"
	"fmt"
	"math"
	"path/filepath"
	"testing"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// A node is a replica of a test, with what it knows of the others.
type node struct {
	t    fataler
	name string
	path string
	db   *DB
	*Replica
}

func openNode(t testing.TB, path string) *node {
	t.Helper()
	db, err := Open(context.Background(), path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	r, err := OpenReplica(context.Background(), db)
	if err != nil {
		t.Fatal(err)
	}
	return &node{t: t, name: filepath.Base(path), path: path, db: db, Replica: r}
}

func newNode(t testing.TB, name string) *node {
	t.Helper()
	return openNode(t, filepath.Join(t.TempDir(), name))
}

func (n *node) exec(sql string, args ...any) Result {
	n.t.Helper()
	r, err := n.db.Exec(context.Background(), sql, values(args...)...)
	if err != nil {
		n.t.Fatalf("%s: %s: %v", n.name, sql, err)
	}
	return r
}

func (n *node) script(sql string) {
	n.t.Helper()
	if err := n.db.ExecScript(context.Background(), sql); err != nil {
		n.t.Fatalf("%s: %v", n.name, err)
	}
}

// query returns the rows as text, each value with its kind.
func (n *node) query(sql string, args ...any) []string {
	n.t.Helper()
	var rows []string
	_, err := n.db.Query(context.Background(), sql, values(args...), func(row []changeset.Value) error {
		text := ""
		for _, v := range row {
			text += show(v) + " "
		}
		rows = append(rows, text)
		return nil
	})
	if err != nil {
		n.t.Fatalf("%s: %s: %v", n.name, sql, err)
	}
	return rows
}

func (n *node) state() State {
	n.t.Helper()
	state, err := n.State(context.Background())
	if err != nil {
		n.t.Fatal(err)
	}
	return state
}

// all returns a request for everything behind after.
func all(after Position) ReadRequest {
	return ReadRequest{
		After: after, MaxBytes: 64 << 10, MaxChanges: 4096,
		Decide: func(changeset.SiteID, int64) Decision { return Send },
	}
}

func (n *node) read(q ReadRequest) ReadResult {
	n.t.Helper()
	result, err := n.Read(context.Background(), q)
	if err != nil {
		n.t.Fatal(err)
	}
	return result
}

func (n *node) apply(groups ...Group) ApplyResult {
	n.t.Helper()
	result, err := n.Apply(context.Background(), ApplyRequest{Groups: groups})
	if err != nil {
		n.t.Fatal(err)
	}
	return result
}

// pull applies everything of from's that lies behind after, in the chunks that q's limits make, and returns where it got.
func (n *node) pull(from *node, q ReadRequest) Position {
	n.t.Helper()
	for {
		got := from.read(q)
		var groups []Group
		for _, e := range got.Entries {
			groups = append(groups, Group{Origin: e.Origin, Version: e.Version, Changes: e.Changes})
		}
		n.apply(groups...)
		q.After = got.Next
		if got.End {
			return got.Next
		}
	}
}

func values(args ...any) []changeset.Value {
	list := make([]changeset.Value, len(args))
	for i, arg := range args {
		switch arg := arg.(type) {
		case changeset.Value:
			list[i] = arg
		case int:
			list[i] = changeset.Integer(int64(arg))
		case int64:
			list[i] = changeset.Integer(arg)
		case float64:
			list[i] = changeset.Real(arg)
		case string:
			list[i] = changeset.TextString(arg)
		case []byte:
			list[i] = changeset.Blob(arg)
		case nil:
			list[i] = changeset.Null()
		default:
			panic(fmt.Sprintf("no value: %T", arg))
		}
	}
	return list
}

func show(v changeset.Value) string {
	switch v.Kind() {
	case changeset.KindInteger:
		return fmt.Sprint(v.Int64())
	case changeset.KindReal:
		return fmt.Sprintf("%x", math.Float64bits(v.Float64()))
	case changeset.KindText:
		return fmt.Sprintf("%q", v.Bytes())
	case changeset.KindBlob:
		return fmt.Sprintf("x'%x'", v.Bytes())
	default:
		return "NULL"
	}
}

func equal[T comparable](t fataler, what string, got, want []T) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			t.Fatalf("%s: at %d of %d and %d:\n got %v\nwant %v", what, i, len(got), len(want), at(got, i), at(want, i))
		}
	}
}

func at[T any](list []T, i int) []T { return list[min(i, len(list)):min(i+2, len(list))] }

// changesSQL reads what two replicas have to agree on: everything but where each keeps it. The first creation of a row
// needs no sentinel, and an update of a key writes one all the same, which only those store who have not got the row's
// columns yet.
const changesSQL = `SELECT "table", pk, cid, val, col_version, cl FROM crsql_changes WHERE NOT (cid = '-1' AND cl = 1) ORDER BY "table", pk, cid`

const noteSQL = `CREATE TABLE note (id INTEGER PRIMARY KEY NOT NULL, title TEXT, body, n REAL); SELECT crsql_as_crr('note')`

func TestExchange(t *testing.T) {
	a, b := newNode(t, "a"), newNode(t, "b")
	for _, n := range []*node{a, b} {
		n.script(noteSQL)
	}
	a.exec("INSERT INTO note VALUES (?, ?, ?, ?)", 1, "one", []byte{}, 2.0)
	a.exec("INSERT INTO note VALUES (2, 'two', NULL, 1), (3, 'three', x'00', 3.5)")
	b.exec("INSERT INTO note VALUES (3, 'drei', 1, 3)")
	b.pull(a, all(Position{}))
	a.pull(b, all(Position{}))
	b.pull(a, all(Position{}))
	equal(t, "changes", b.query(changesSQL), a.query(changesSQL))
	equal(t, "notes", b.query("SELECT * FROM note"), a.query("SELECT * FROM note"))
	if got := len(a.query("SELECT * FROM note")); got != 3 {
		t.Fatalf("%d notes, want 3", got)
	}
	if got := a.query("SELECT body FROM note WHERE id = 1"); got[0] != "x'' " {
		t.Errorf("the empty blob came back as %s", got)
	}
}

// A fataler is a *testing.T or a *rapid.T.
type fataler interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}
