package crsql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// fill lets the node's database grow by so many pages and no more, as a full disk does; a negative number: without end.
func (n *node) fill(pages int) {
	n.t.Helper()
	s := <-n.db.writer
	defer func() { n.db.writer <- s }()
	limit := "4294967294"
	if pages >= 0 {
		rows, err := s.engine.query("PRAGMA page_count")
		if err != nil {
			n.t.Fatal(err)
		}
		limit = fmt.Sprint(toInt64(rows[0][0]) + int64(pages))
	}
	if err := s.run(context.Background(), "PRAGMA max_page_count="+limit); err != nil {
		n.t.Fatal(err)
	}
}

// TestFull: where there is no room, each write says so, leaves what was there, and goes through once there is room.
func TestFull(t *testing.T) {
	const schema = "CREATE TABLE a (id INTEGER PRIMARY KEY NOT NULL, v); SELECT crsql_as_crr('a')"
	ctx := context.Background()
	source, n := newNode(t, "source"), newNode(t, "n")
	source.script(schema)
	n.script(schema)
	for i := range 20 {
		source.exec("INSERT INTO a VALUES (?, ?)", i, strings.Repeat("x", 2000))
	}
	groups := func() (list []Group) {
		for _, e := range source.readAll(64 << 10) {
			list = append(list, Group{Origin: e.Origin, Version: e.Version, Changes: e.Changes})
		}
		return list
	}
	rows := groups()
	source.script("CREATE TABLE b (id INTEGER PRIMARY KEY NOT NULL, v); SELECT crsql_as_crr('b')")
	source.exec("INSERT INTO b VALUES (1, ?)", strings.Repeat("y", 9000))
	everything := groups()
	source.script("SELECT crsql_begin_alter('a'); ALTER TABLE a ADD COLUMN w DEFAULT 1; SELECT crsql_commit_alter('a')")
	offer := source.offer()

	for _, c := range []struct {
		name  string
		write func() error
	}{
		{"a local write", func() error {
			_, err := n.db.Exec(ctx, "INSERT INTO a VALUES (1000, ?)", values(strings.Repeat("z", 9000))...)
			return err
		}},
		{"its clocks", func() error { // rows of almost nothing, beside what the triggers write of them
			_, err := n.db.Exec(ctx, "WITH RECURSIVE c(x) AS (VALUES (2000) UNION ALL SELECT x+1 FROM c WHERE x < 6000) INSERT INTO a SELECT x, NULL FROM c")
			return err
		}},
		{"an apply", func() error {
			_, err := n.Apply(ctx, ApplyRequest{Groups: rows, Claims: map[changeset.SiteID]int64{source.state().Site: 20}})
			return err
		}},
		{"parking", func() error {
			_, err := n.Apply(ctx, ApplyRequest{Groups: everything})
			return err
		}},
		{"tables and columns of another", func() error {
			_, err := n.TakeSchema(ctx, offer, AcceptAdditive)
			return err
		}},
		{"what was parked", func() error {
			_, err := n.ReplayParked(ctx)
			return err
		}},
	} {
		before := n.state()
		n.fill(0)
		err := c.write()
		if !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "free some space") {
			t.Errorf("%s: %v", c.name, err)
		}
		if after := n.state(); after.Vector[source.state().Site] != before.Vector[source.state().Site] {
			t.Errorf("%s: it failed, and the state became %+v", c.name, after)
		}
		n.fill(-1)
		if err := c.write(); err != nil {
			t.Errorf("%s, with room again: %v", c.name, err)
		}
	}
	n.exec("DELETE FROM a WHERE id >= 1000")
	equal(t, "a", n.query("SELECT * FROM a"), source.query("SELECT * FROM a"))
	equal(t, "b", n.query("SELECT * FROM b"), source.query("SELECT * FROM b"))
	equal(t, "the check of the file", n.query("SELECT * FROM pragma_integrity_check"), []string{`"ok" `})
}

// TestLockedRead: what is read waits for its turn to store what another program wrote, and says who is in the way.
func TestLockedRead(t *testing.T) {
	n := newNode(t, "n")
	n.script("CREATE TABLE a (id INTEGER PRIMARY KEY NOT NULL, v); SELECT crsql_as_crr('a')")
	n.db.busy = 10 * time.Millisecond
	other, err := sql.Open(DriverName, n.path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	conn, err := other.Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	for _, statement := range []string{"INSERT INTO a VALUES (1, 'theirs')", "BEGIN IMMEDIATE"} {
		if _, err := conn.ExecContext(context.Background(), statement); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := n.Heads(context.Background()); !errors.Is(err, ErrWriteLocked) {
		t.Errorf("Heads: %v", err)
	}
	if _, err := n.Read(context.Background(), all(Position{})); !errors.Is(err, ErrWriteLocked) {
		t.Errorf("Read: %v", err)
	}
	if _, err := conn.ExecContext(context.Background(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	if heads, err := n.Heads(context.Background()); err != nil || heads.Own == 0 {
		t.Errorf("Heads: %+v, %v", heads, err)
	}
}
