package crsql

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

var (
	siteX = changeset.SiteID("xxxxxxxxxxxxxxxx")
	siteY = changeset.SiteID("yyyyyyyyyyyyyyyy")
)

// noteKey is the packed key of a note.
func noteKey(id int64) []byte {
	pk, err := changeset.AppendPacked(nil, values(id))
	if err != nil {
		panic(err)
	}
	return pk
}

func title(id int64, text string, version int64) changeset.Change {
	return changeset.Change{Table: "note", PK: noteKey(id), CID: "title", Val: changeset.TextString(text), ColVersion: version, Site: siteX, CL: 1}
}

func TestApplyRecords(t *testing.T) {
	n := newNode(t, "n")
	n.script(noteSQL)
	n.exec("INSERT INTO note VALUES (1, 'mine', NULL, NULL)")
	got := n.apply(
		Group{Origin: siteX, Version: 70, Changes: []changeset.Change{title(2, "a", 1), title(3, "b", 1)}},
		Group{Origin: siteY, Version: 9, Changes: []changeset.Change{title(2, "a", 1)}}, // known by then
		Group{Origin: siteY, Version: 10, Changes: []changeset.Change{title(2, "c", 2)}},
	)
	equal(t, "local versions", got.Ls, []int64{2, 0, 3})
	equal(t, "changed", got.Changed, []int64{2, 0, 1})
	if got.Heads != (Heads{Own: 1, Newest: 3}) {
		t.Errorf("heads %+v", got.Heads)
	}
	n.exec("UPDATE note SET body = 1 WHERE id = 3")
	var entries []string
	for _, e := range n.readAll(4096) {
		entries = append(entries, fmt.Sprintf("%d %.4x %d %d", e.L, []byte(e.Origin), e.Version, len(e.Changes)))
	}
	self := fmt.Sprintf("%.4x", []byte(n.state().Site))
	equal(t, "entries", entries, []string{"1 " + self + " 1 3", "2 78787878 70 1", "3 79797979 10 1", "4 " + self + " 4 1"})
	if heads := n.state().Heads; heads != (Heads{Own: 4, Newest: 4}) {
		t.Errorf("heads %+v", heads)
	}
	// Our own write comes back to us: recorded under our site, and no new version of ours.
	site := n.state().Site
	if got := n.apply(Group{Origin: site, Version: 1000, Changes: []changeset.Change{title(1, "lost", 9)}}); got.Heads != (Heads{Own: 4, Newest: 5}) {
		t.Errorf("heads %+v", got.Heads)
	}
	if heads := n.state().Heads; heads != (Heads{Own: 4, Newest: 5}) {
		t.Errorf("heads %+v", heads)
	}
}

func TestApplyClaims(t *testing.T) {
	n := newNode(t, "n")
	site := n.state().Site
	apply := func(x, reached int64) {
		_, err := n.Apply(context.Background(), ApplyRequest{
			Claims: map[changeset.SiteID]int64{siteX: x, site: 99}, Resume: map[changeset.SiteID]int64{siteY: reached},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	apply(5, 50)
	apply(4, 40)
	state := n.state()
	if len(state.Vector) != 1 || state.Vector[siteX] != 5 {
		t.Errorf("vector %v, want the higher claim and not our own", state.Vector)
	}
	if len(state.Resume) != 1 || state.Resume[siteY] != 40 {
		t.Errorf("resume %v, want the last", state.Resume)
	}
}

func TestApplyUndone(t *testing.T) {
	n := newNode(t, "n")
	n.script(noteSQL)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := n.Apply(ctx, ApplyRequest{Groups: []Group{{Origin: siteX, Version: 1, Changes: []changeset.Change{title(1, "a", 1)}}}})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if got := n.query("SELECT * FROM note"); len(got) != 0 {
		t.Errorf("got %v", got)
	}
}

// hostile are changes that no table can take, beside good ones.
func hostile() []changeset.Change {
	bad := func(change func(*changeset.Change)) changeset.Change {
		c := title(2, "bad", 1)
		change(&c)
		return c
	}
	return []changeset.Change{
		title(1, "good", 1),
		bad(func(c *changeset.Change) { c.Table = "nowhere" }),
		bad(func(c *changeset.Change) { c.CID = "nothing" }),
		bad(func(c *changeset.Change) { c.PK = nil }),
		bad(func(c *changeset.Change) { c.PK = []byte{}; c.CID = "body" }),
		bad(func(c *changeset.Change) { c.PK = []byte{2, 9, 1} }),
		bad(func(c *changeset.Change) { c.CID = "n"; c.Val = changeset.Integer(-1) }), // CHECK
		title(3, "good", 1),
	}
}

const checkedNoteSQL = `CREATE TABLE note (id INTEGER PRIMARY KEY NOT NULL, title TEXT, body, n REAL CHECK (n >= 0)); SELECT crsql_as_crr('note')`

func TestParking(t *testing.T) {
	n, next := newNode(t, "n"), newNode(t, "next")
	n.script(checkedNoteSQL)
	got := n.apply(Group{Origin: siteX, Version: 7, Changes: hostile()})
	equal(t, "parked", got.Parked, []int{6})
	equal(t, "titles", n.query("SELECT id, title FROM note"), []string{`1 "good" `, `3 "good" `})
	if parked := n.state().Parked; parked != 6 {
		t.Errorf("%d parked", parked)
	}
	// Again: nothing happens. Later ones take the place of earlier ones, earlier ones don't.
	if got := n.apply(Group{Origin: siteX, Version: 7, Changes: hostile()}); got.Ls[0] != 0 {
		t.Errorf("the second time it had an effect: %+v", got)
	}
	later := changeset.Change{Table: "nowhere", PK: noteKey(2), CID: "title", Val: changeset.TextString("later"), ColVersion: 2, Site: siteX, CL: 1}
	earlier := later
	earlier.ColVersion, earlier.Val = 1, changeset.TextString("zzz")
	if got := n.apply(Group{Origin: siteX, Version: 8, Changes: []changeset.Change{later}}, Group{Origin: siteY, Version: 1, Changes: []changeset.Change{earlier}}); got.Ls[0] != 2 || got.Ls[1] != 0 {
		t.Errorf("got %+v", got)
	}
	if parked := n.state().Parked; parked != 6 {
		t.Errorf("%d parked", parked)
	}
	// The local version of an entry of parked changes only is not given out again.
	n.exec("INSERT INTO note VALUES (9, 'mine', NULL, NULL)")
	if heads := n.state().Heads; heads != (Heads{Own: 3, Newest: 3}) {
		t.Fatalf("heads %+v", heads)
	}
	// They are passed on like others, to somebody who has a table for one of them.
	next.script(checkedNoteSQL + `; CREATE TABLE nowhere (id INTEGER PRIMARY KEY NOT NULL, title TEXT); SELECT crsql_as_crr('nowhere')`)
	next.pull(n, all(Position{}))
	equal(t, "nowhere", next.query("SELECT * FROM nowhere"), []string{`2 "later" `})
	if parked := next.state().Parked; parked != 5 {
		t.Errorf("%d parked at the next", parked)
	}
}

func TestReplay(t *testing.T) {
	n := newNode(t, "n")
	n.script(checkedNoteSQL)
	n.apply(Group{Origin: siteX, Version: 7, Changes: hostile()})
	late := title(4, "four", 1)
	late.CID = "late"
	n.apply(Group{Origin: siteY, Version: 3, Changes: []changeset.Change{late}})
	if applied, err := n.ReplayParked(context.Background()); err != nil || applied != 0 {
		t.Fatalf("%d applied, %v", applied, err)
	}
	if _, err := n.CreateTables(context.Background(), []TableSchema{{Name: "nowhere", SQL: "CREATE TABLE nowhere (id INTEGER PRIMARY KEY NOT NULL, title TEXT)"}}); err != nil {
		t.Fatal(err)
	}
	before := n.state().Heads
	applied, err := n.ReplayParked(context.Background())
	if err != nil || applied != 1 {
		t.Fatalf("%d applied, %v", applied, err)
	}
	equal(t, "nowhere", n.query("SELECT * FROM nowhere"), []string{`2 "bad" `})
	entries := n.readAll(4096)
	last := entries[len(entries)-1]
	if last.L != before.Newest+1 || last.Origin != siteX || last.Version != 7 || len(last.Changes) != 1 {
		t.Errorf("the entry of what was replayed is %+v", last)
	}
	if state := n.state(); state.Parked != 6 || state.Heads.Own != before.Own {
		t.Errorf("%d parked, heads %+v", state.Parked, state.Heads)
	}
}

func TestCreateTables(t *testing.T) {
	a, b := newNode(t, "a"), newNode(t, "b")
	a.script(noteSQL + ";" + pairSQL + ";" + tagSQL)
	schema := a.state().Schema
	if (schema.Hash == [32]byte{}) || len(schema.Tables) != 3 || schema.Tables[1].Name != "pär" {
		t.Fatalf("schema %+v", schema)
	}
	if b.state().Schema.Hash != [32]byte{} {
		t.Error("a database without CRRs has a schema hash")
	}
	for want := 3; want >= 0; want -= 3 {
		created, err := b.CreateTables(context.Background(), schema.Tables)
		if err != nil || created != want {
			t.Fatalf("%d created, %v", created, err)
		}
	}
	if b.state().Schema.Hash != schema.Hash {
		t.Error("the schema hashes differ")
	}
	a.exec("INSERT INTO tag VALUES ('x')")
	b.pull(a, all(Position{}))
	equal(t, "tags", b.query("SELECT * FROM tag"), []string{`"x" `})

	for sql, want := range map[string]string{
		"CREATE TABLE t (id INTEGER PRIMARY KEY NOT NULL); DROP TABLE note":  "more than one",
		"CREATE TABLE other (id INTEGER PRIMARY KEY NOT NULL)":               "another table",
		"CREATE TABLE main.t (id INTEGER PRIMARY KEY NOT NULL)":              "another table",
		"CREATE TABLE t AS SELECT 1 AS id":                                   "no list of columns",
		"CREATE TEMP TABLE t (id INTEGER PRIMARY KEY NOT NULL)":              "no CREATE TABLE",
		"CREATE VIRTUAL TABLE t USING fts3(a)":                               "no CREATE TABLE",
		"DELETE FROM note":                                                   "no CREATE TABLE",
		"CREATE TABLE t (id INTEGER PRIMARY KEY NOT NULL, u UNIQUE)":         "",
		"CREATE TABLE t (id)":                                                "",
		"CREATE TABLE t (id INTEGER PRIMARY KEY NOT NULL":                    "",
		"CREATE TABLE t (id INTEGER PRIMARY KEY NOT NULL, x DEFAULT 'open) ": "never closed",
		"": "no SQL statement",
		"CREATE TABLE IF NOT EXISTS 'note2' (id INTEGER PRIMARY KEY NOT NULL)": "another table",
	} {
		_, err := b.CreateTables(context.Background(), []TableSchema{{Name: "t", SQL: sql}})
		var refused *SchemaError
		if !errors.As(err, &refused) || !strings.Contains(refused.Reason, want) {
			t.Errorf("%s: got %v, want %q", sql, err, want)
		}
		if got := b.query("SELECT name FROM sqlite_master WHERE name IN ('t', 'other', 'note2')"); len(got) != 0 {
			t.Fatalf("%s created %v", sql, got)
		}
	}
	for _, name := range []string{"crsql_x", "CRMESH_log2", "sqlite_y", "t__crsql_clock", ""} {
		if _, err := b.CreateTables(context.Background(), []TableSchema{{Name: name, SQL: "CREATE TABLE " + ident(name) + " (id INTEGER PRIMARY KEY NOT NULL)"}}); !errors.As(err, new(*SchemaError)) {
			t.Errorf("the name %q: got %v", name, err)
		}
	}
}
