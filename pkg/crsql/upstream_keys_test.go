package crsql

import (
	"testing"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

const (
	fooSQL = "CREATE TABLE foo (a INTEGER PRIMARY KEY NOT NULL, b TEXT)"
	barSQL = "CREATE TABLE bar (a NOT NULL, b NOT NULL, PRIMARY KEY (a, b))"
)

// wantKeys checks which short keys rows have: each a number and the columns of the primary key.
func (w *twins) wantKeys(table string, lines ...string) {
	w.t.Helper()
	w.want("SELECT * FROM "+table+"__crsql_pks", lines...)
}

// A row gets a short key when it is first heard of, and keeps it whatever happens to it.
func TestUpstreamLookasideKeys(t *testing.T) {
	w := crrTwins(t, fooSQL)
	w.makeCRR(barSQL)
	for _, sql := range []string{
		"INSERT INTO foo VALUES (1, 2)", "INSERT INTO bar VALUES (1, 2)",
		"INSERT OR REPLACE INTO foo VALUES (1, 2)", "INSERT OR REPLACE INTO bar VALUES (1, 2)",
		"INSERT OR IGNORE INTO foo VALUES (1, 2)", "INSERT OR IGNORE INTO bar VALUES (1, 2)",
		"INSERT INTO foo VALUES (1, 2) ON CONFLICT DO UPDATE SET b = 3", "UPDATE foo SET b = 4 WHERE a = 1",
		"DELETE FROM foo", "DELETE FROM bar", "INSERT INTO foo VALUES (1, 5)", "INSERT INTO bar VALUES (1, 2)",
	} {
		w.run(sql)
		w.wantKeys("foo", "1 | 1")
		if sql != "INSERT INTO foo VALUES (1, 2)" {
			w.wantKeys("bar", "1 | 1 | 2")
		}
	}
	// A new key is a new row's; the old one keeps its number, for its sentinel.
	w.script("UPDATE foo SET a = 2", "UPDATE bar SET b = 3", "UPDATE bar SET b = 4")
	w.wantKeys("foo", "1 | 1", "2 | 2")
	w.wantKeys("bar", "1 | 1 | 2", "2 | 1 | 3", "3 | 1 | 4")
}

// A merge makes a short key for each row that it names, also one that it deletes or where it loses, and no second one.
func TestUpstreamLookasideKeysOfMerges(t *testing.T) {
	for name, test := range map[string]struct{ there, here []string }{
		"new row":          {[]string{"INSERT INTO foo VALUES (1, 2)", "INSERT INTO bar VALUES (1, 2)"}, nil},
		"known row":        {[]string{"INSERT INTO foo VALUES (1, 2)", "INSERT INTO bar VALUES (1, 2)"}, []string{"INSERT INTO foo VALUES (1, 2)", "INSERT INTO bar VALUES (1, 2)"}},
		"delete unseen":    {[]string{"INSERT INTO foo VALUES (1, 2)", "INSERT INTO bar VALUES (1, 2)", "DELETE FROM foo", "DELETE FROM bar"}, nil},
		"delete known row": {[]string{"INSERT INTO foo VALUES (1, 2)", "INSERT INTO bar VALUES (1, 2)", "DELETE FROM foo", "DELETE FROM bar"}, []string{"INSERT INTO foo VALUES (1, 2)", "INSERT INTO bar VALUES (1, 2)"}},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := crrTwins(t, fooSQL), crrTwins(t, fooSQL)
			a.makeCRR(barSQL)
			b.makeCRR(barSQL)
			a.script(test.there...)
			b.script(test.here...)
			for range 2 {
				b.pull(a, 0)
				b.wantKeys("foo", "1 | 1")
				b.wantKeys("bar", "1 | 1 | 2")
			}
		})
	}
	w := crrTwins(t, fooSQL) // of a change that is nothing
	w.run("INSERT INTO crsql_changes VALUES ('foo', x'010909', 'b', 'x', 1, 1, x'aa', 0, 0)")
	w.want("SELECT count(*) FROM foo", "0")
	w.wantKeys("foo", "1 | 9")
}

// What is in a key comes back from its packed form, of whatever kind.
func TestUpstreamPackedKeys(t *testing.T) {
	const create = "CREATE TABLE foo (a ANY NOT NULL, b BLOB NOT NULL, c, PRIMARY KEY (b, a))"
	a, b := crrTwins(t, create), crrTwins(t, create)
	for i, v := range edgeValues {
		if v.Kind() == changeset.KindNull {
			continue // no key
		}
		a.run("INSERT INTO foo VALUES (?, ?, ?)", v, i, v)
	}
	b.pull(a, 0)
	for _, w := range []*twins{a, b} {
		w.run("SELECT typeof(+a), +a, typeof(+b), +b, typeof(+c), +c FROM foo")
	}
	if a, b := dump(a.run("SELECT +a, +b, +c FROM foo")), dump(b.run("SELECT +a, +b, +c FROM foo")); a != b {
		t.Errorf("a holds\n%s\nb\n%s", a, b)
	}
	a.want("SELECT hex(crsql_pack_columns(1, 'ab', NULL, 2.0, x'')), hex(crsql_pack_columns(-1, 0, 255, 256))",
		`"0509010B0261620502400000000000000004" | "0441FFFFFFFFFFFFFFFF0109FF110100"`)
}

// Generated columns are none to replicate; a WITHOUT ROWID table is like any other.
func TestUpstreamOddColumns(t *testing.T) {
	const create = "CREATE TABLE foo (a TEXT NOT NULL, v INTEGER DEFAULT 5, g INTEGER GENERATED ALWAYS AS (v * 2) STORED, b INTEGER NOT NULL, w TEXT NOT NULL DEFAULT 'w', PRIMARY KEY (b, a)) WITHOUT ROWID"
	a, b := crrTwins(t, create), crrTwins(t, create)
	a.script("INSERT INTO foo (a, b) VALUES ('x', 1)", "INSERT INTO foo (a, b, v, w) VALUES ('y', 1, 6, 'z')", "UPDATE foo SET v = 7 WHERE a = 'x'")
	a.want("SELECT hex(pk), cid, val, col_version FROM crsql_changes",
		`"0209010B0178" | "v" | 7 | 2`, `"0209010B0178" | "w" | "w" | 1`, `"0209010B0179" | "v" | 6 | 1`, `"0209010B0179" | "w" | "z" | 1`)
	b.pull(a, 0)
	b.want("SELECT * FROM foo", `"x" | 7 | 14 | 1 | "w"`, `"y" | 6 | 12 | 1 | "z"`)
}

// A value that is the default was written, and has a clock, in a row that was inserted into a CRR; and where rows were
// there before, the larger value wins, as everywhere.
func TestUpstreamDefaults(t *testing.T) {
	const create = "CREATE TABLE foo (a PRIMARY KEY NOT NULL, b DEFAULT 4)"
	a, b := newTwins(t), crrTwins(t, create)
	a.script(create, "INSERT INTO foo (a) VALUES (1), (2)", "SELECT crsql_as_crr('foo')")
	a.want("SELECT cid, val, col_version, db_version, seq FROM crsql_changes", `"b" | 4 | 1 | 1 | 0`, `"b" | 4 | 1 | 1 | 1`)
	b.script("INSERT INTO foo VALUES (1, 2)", "INSERT INTO foo VALUES (2, 9)")
	a.pull(b, 0)
	b.pull(a, 0)
	for _, w := range []*twins{a, b} {
		w.want("SELECT * FROM foo", "1 | 4", "2 | 9")
	}
}
