package crsql

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// Changes that nobody honest makes, each beside a good one in the same group and transaction.
func TestHostileChanges(t *testing.T) {
	edges := []int64{math.MinInt64, math.MinInt64 + 1, -1, 0, 1, 2, 3, changeset.MaxVersion - 1, changeset.MaxVersion, changeset.MaxVersion + 1, math.MaxInt64 - 1, math.MaxInt64}
	n := newNode(t, "n")
	n.script(checkedNoteSQL + "; CREATE TRIGGER no BEFORE INSERT ON note WHEN NEW.id = 666 BEGIN SELECT RAISE(ABORT, 'no'); END;" +
		"CREATE TRIGGER fail BEFORE INSERT ON note WHEN NEW.id = 667 BEGIN SELECT RAISE(FAIL, 'no'); END")
	n.exec("INSERT INTO note VALUES (1, 'mine', NULL, NULL)")
	version := int64(1)
	good := 0
	try := func(what string, change changeset.Change) {
		t.Helper()
		good++
		version++
		beside := title(int64(1000+good), "good", 1)
		got, err := n.Apply(context.Background(), ApplyRequest{Groups: []Group{{Origin: siteX, Version: version, Changes: []changeset.Change{change, beside}}}})
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if got.Changed[0] < 1 {
			t.Errorf("%s: the good change beside it is lost: %+v", what, got)
		}
	}
	base := title(2, "bad", 1)
	with := func(f func(*changeset.Change)) changeset.Change {
		c := base
		f(&c)
		return c
	}
	for _, cid := range []string{"title", "n", changeset.SentinelCID, "nothing", "", "\x00", "\xff"} {
		for _, e := range edges {
			try(fmt.Sprint(cid, " CL ", e), with(func(c *changeset.Change) { c.CID, c.CL = cid, e }))
			try(fmt.Sprint(cid, " ColVersion ", e), with(func(c *changeset.Change) { c.CID, c.ColVersion = cid, e }))
			try(fmt.Sprint(cid, " both ", e), with(func(c *changeset.Change) { c.CID, c.CL, c.ColVersion = cid, e, e }))
			try(fmt.Sprint(cid, " Seq ", e), with(func(c *changeset.Change) { c.CID, c.Seq = cid, e }))
			try(fmt.Sprint(cid, " DBVersion ", e), with(func(c *changeset.Change) { c.CID, c.DBVersion = cid, e }))
		}
	}
	for size := 0; size <= changeset.SiteIDLen; size++ {
		try(fmt.Sprint("site of ", size), with(func(c *changeset.Change) { c.Site = siteX[:size]; c.ColVersion = int64(size + 1) }))
	}
	for _, table := range []string{"", "note\x00", "NOTE", "\xff", `no"te`, "note__crsql_clock", "crsql_site_id", "crmesh_log", "crmesh_parked", "sqlite_master", "crsql_changes", strings.Repeat("x", MaxName)} {
		try("table "+table, with(func(c *changeset.Change) { c.Table = table }))
	}
	for _, pk := range [][]byte{
		nil, {}, {0}, {1}, {255}, {1, 5}, {1, 0x49, 1}, {1, 9, 2, 9, 2}, {2, 9, 2, 9, 2}, {1, 0x0b, 1, 'a'}, {1, 0x0c, 1, 'a'}, {1, 2, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0},
		{1, 2, 0x7f, 0xf0, 0, 0, 0, 0, 0, 0}, {1, 2, 0x40, 0, 0, 0, 0, 0, 0, 0}, {1, 0x41, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, {1, 0x11, 0, 2}, {1, 4 << 3, 0xff, 0xff, 0xff, 0xff},
		{1, 4<<3 | 3, 0xff, 0xff, 0xff, 0xff}, {1, 6}, {1, 7}, append([]byte{255}, make([]byte, 300)...), keyOfSize(t, MaxKey), keyOfSize(t, MaxKey+1),
		noteKey(666), noteKey(667), noteKey(math.MinInt64),
	} {
		try(fmt.Sprintf("key %.20x", pk), with(func(c *changeset.Change) { c.PK = pk }))
		try(fmt.Sprintf("key %.20x of a sentinel", pk), with(func(c *changeset.Change) { c.PK, c.CID, c.CL = pk, changeset.SentinelCID, 3 }))
		try(fmt.Sprintf("key %.20x deleted", pk), with(func(c *changeset.Change) { c.PK, c.CID, c.CL = pk, changeset.SentinelCID, 4 }))
	}
	for _, v := range append(append([]changeset.Value(nil), edgeValues...), oddValues...) {
		for _, cid := range []string{"title", "body", "n", changeset.SentinelCID} {
			try("value", with(func(c *changeset.Change) { c.CID, c.Val, c.ColVersion = cid, v, version }))
		}
	}
	if got := n.query("SELECT count(*) FROM note WHERE id > 1000 AND title = 'good'"); got[0] != fmt.Sprintf("%d ", good) {
		t.Errorf("%s of %d good changes are there", got[0], good)
	}
	// All of it can be read, and replayed, and another replica takes it.
	if _, err := n.ReplayParked(context.Background()); err != nil {
		t.Fatal(err)
	}
	to := newNode(t, "to")
	to.script(checkedNoteSQL)
	to.pull(n, all(Position{}))
	equal(t, "good notes at the next", to.query("SELECT count(*) FROM note WHERE id > 1000 AND title = 'good'"), []string{fmt.Sprintf("%d ", good)})
	n.exec("DELETE FROM note WHERE id NOT IN (1, 2)")
	// One of the changes has set note 2 to the highest causal length.
	if _, err := n.db.Exec(t.Context(), "DELETE FROM note WHERE id = 2"); err == nil || !strings.Contains(err.Error(), "pinned") {
		t.Errorf("deleting a pinned row: %v", err)
	}
	n.tracks("hostile changes")
}

// A table of a peer runs nothing of ours and stands beside no other.
func TestHostileTables(t *testing.T) {
	n := newNode(t, "n")
	n.script(noteSQL)
	n.exec("INSERT INTO note VALUES (1, 'mine', NULL, NULL)")
	create := func(columns string) string {
		return "CREATE TABLE t (id INTEGER PRIMARY KEY NOT NULL, " + columns + ")"
	}
	for _, sql := range []string{
		create("x DEFAULT (crsql_internal_sync_bit(1))"), create(`x CHECK ("crsql_internal_sync_bit"(1) + 1)`), create("x CHECK ([CRSQL_FINALIZE]() = 1)"),
		create("x CHECK (`crsql_next_db_version`(9007199254740990))"), create("x GENERATED ALWAYS AS (crsql_db_version())"),
		create("x REFERENCES note(id)"), create("x UNIQUE"), create("x, UNIQUE(x, id)"), create("x NOT NULL"), create("x GENERATED ALWAYS AS (random())"), create("x CHECK (x IN (SELECT 1))"),
		"CREATE TABLE t (id)", "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL)", "CREATE TABLE t (\x00)", "CREATE TABLE t (id INTEGER PRIMARY KEY NOT NULL); SELECT 1",
		"CREATE TABLE t (id INTEGER PRIMARY KEY NOT NULL) /* ", "CREATE TABLE t (id INTEGER PRIMARY KEY NOT NULL)) --", "CREATE TABLE t (" + strings.Repeat("(", 2000) + ")",
		create(strings.Repeat("x,", 3000) + "y"), create("x DEFAULT (" + strings.Repeat("-", 9000) + "1)"),
		"CREATE TEMP TABLE t (id INTEGER PRIMARY KEY NOT NULL)", "CREATE TABLE temp.t (id INTEGER PRIMARY KEY NOT NULL)", "CREATE TABLE \"t\"\"\" (id INTEGER PRIMARY KEY NOT NULL)",
		"CREATE TABLE t (id INTEGER PRIMARY KEY NOT NULL) STRICTLY", "\ufeffCREATE TABLE t (id INTEGER PRIMARY KEY NOT NULL)", "EXPLAIN CREATE TABLE t (id INTEGER PRIMARY KEY NOT NULL)",
	} {
		created, err := n.CreateTables(context.Background(), []TableSchema{{Name: "good", SQL: "CREATE TABLE good (id INTEGER PRIMARY KEY NOT NULL)"}, {Name: "t", SQL: sql}})
		switch {
		case err == nil && created == 2 && (strings.HasSuffix(sql, "/* ") || strings.HasPrefix(sql, byteOrderMark)): // as SQLite reads them
			n.script("DROP TABLE t; DROP TABLE good; DROP TABLE t__crsql_clock; DROP TABLE t__crsql_pks; DROP TABLE good__crsql_clock; DROP TABLE good__crsql_pks")
		case !errors.As(err, new(*SchemaError)) || len(err.Error()) > 2000:
			t.Errorf("%.80q: %.200v", sql, err)
		}
		if got := n.query("SELECT name FROM sqlite_master WHERE name IN ('t', 'good', 't\"')"); len(got) != 0 {
			t.Fatalf("%.80q leaves %v", sql, got)
		}
		n.whole("a hostile table")
	}
}
