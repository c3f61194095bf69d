package crsql

import "testing"

// The longer causal length wins, whatever the columns' versions and values are.
func TestUpstreamLongerWins(t *testing.T) {
	for _, test := range []struct {
		name        string
		left, right []string
		want        []string // in right, after it pulled from left
	}{
		{"deleted here, alive there", []string{"INSERT INTO foo VALUES (1, 1)", "DELETE FROM foo"}, []string{"INSERT INTO foo VALUES (1, 9)", "UPDATE foo SET b = 99"}, nil},
		{"longer there", []string{"INSERT INTO foo VALUES (1, 1)", "DELETE FROM foo"}, []string{"INSERT INTO foo VALUES (1, 1)", "DELETE FROM foo", "INSERT INTO foo VALUES (1, 1)"}, []string{"1 | 1"}},
		{"updated, and longer there", []string{"INSERT INTO foo VALUES (1, 1)", "UPDATE foo SET b = 123"}, []string{"INSERT INTO foo VALUES (1, 1)", "DELETE FROM foo", "INSERT INTO foo VALUES (1, 1)"}, []string{"1 | 1"}},
		{"made again", []string{"INSERT INTO foo VALUES (1, 1)", "DELETE FROM foo", "INSERT INTO foo VALUES (1, 2)"}, []string{"INSERT INTO foo VALUES (1, 9)", "UPDATE foo SET b = 10", "UPDATE foo SET b = 11"}, []string{"1 | 2"}},
		{"deleted by both", []string{"INSERT INTO foo VALUES (1, 1)", "DELETE FROM foo"}, []string{"INSERT INTO foo VALUES (1, 9)", "DELETE FROM foo"}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			left, right := crrTwins(t, abSQL), crrTwins(t, abSQL)
			left.script(test.left...)
			right.script(test.right...)
			right.pull(left, 0)
			right.want("SELECT * FROM foo", test.want...)
			left.pull(right, 0)
			left.want("SELECT * FROM foo", test.want...)
		})
	}
}

// At one length the larger col_version wins, then the larger value.
func TestUpstreamColumnsWin(t *testing.T) {
	for _, test := range []struct {
		name        string
		left, right []string
		want        string
	}{
		{"version", []string{"INSERT INTO foo VALUES (1, 1)", "UPDATE foo SET b = 0"}, []string{"INSERT INTO foo VALUES (1, 1)"}, "1 | 0"},
		{"value", []string{"INSERT INTO foo VALUES (1, 4)"}, []string{"INSERT INTO foo VALUES (1, 1)"}, "1 | 4"},
		{"smaller value", []string{"INSERT INTO foo VALUES (1, 1)"}, []string{"INSERT INTO foo VALUES (1, 4)"}, "1 | 4"},
		{"NULL is least", []string{"INSERT INTO foo VALUES (1, NULL)"}, []string{"INSERT INTO foo VALUES (1, -5)"}, "1 | -5"},
	} {
		t.Run(test.name, func(t *testing.T) {
			left, right := crrTwins(t, abSQL), crrTwins(t, abSQL)
			left.script(test.left...)
			right.script(test.right...)
			right.pull(left, 0)
			left.pull(right, 0)
			left.want("SELECT * FROM foo", test.want)
			right.want("SELECT * FROM foo", test.want)
		})
	}
}

// What two databases hold alike moves nothing when it is merged: no version, no clock, no site.
func TestUpstreamEqualMovesNothing(t *testing.T) {
	a, b := crrTwins(t, abSQL), crrTwins(t, abSQL)
	for _, w := range []*twins{a, b} {
		w.script("INSERT INTO foo VALUES (1, 2), (2, 3)", "INSERT INTO foo VALUES (3, 4)", "DELETE FROM foo WHERE a = 3")
	}
	before := dump(b.run("SELECT * FROM crsql_changes"))
	b.pull(a, 0)
	b.want("SELECT crsql_db_version()", "3")
	if after := dump(b.run("SELECT * FROM crsql_changes")); after != before {
		t.Errorf("from\n%s\nto\n%s", before, after)
	}
	b.want("SELECT count(*) FROM crsql_site_id", "1")
}

// A column of a later life that comes before its sentinel makes it, and puts the others of an earlier life at version 0,
// so that whatever comes of the new life wins.
func TestUpstreamOutOfOrder(t *testing.T) {
	const create = "CREATE TABLE foo (a PRIMARY KEY NOT NULL, b, c, d)"
	for _, dead := range []bool{false, true} {
		a, b := crrTwins(t, create), crrTwins(t, create)
		a.script("INSERT INTO foo VALUES (1, 'b', 'c', 'd')")
		b.pull(a, 0)
		a.script("DELETE FROM foo")
		if dead {
			b.pull(a, 1)
		}
		a.script("INSERT INTO foo VALUES (1, 'b1', 'c1', 'd1')", "UPDATE foo SET b = 'b2', c = 'c2'")
		b.pullWhere(a, "db_version = 4") // before 3, which has the sentinel
		if dead {
			b.want("SELECT cid, col_version, cl FROM crsql_changes", `"-1" | 3 | 3`, `"b" | 2 | 3`, `"c" | 2 | 3`)
			b.want("SELECT * FROM foo", `1 | "b2" | "c2" | NULL`)
		} else {
			b.want("SELECT cid, col_version, cl FROM crsql_changes", `"-1" | 3 | 3`, `"b" | 2 | 3`, `"c" | 2 | 3`, `"d" | 0 | 3`)
			b.want("SELECT * FROM foo", `1 | "b2" | "c2" | "d"`)
		}
		b.pullWhere(a, "db_version = 3")
		for _, w := range []*twins{a, b} {
			w.want("SELECT cid, val, col_version, cl FROM crsql_changes", `"-1" | NULL | 3 | 3`, `"b" | "b2" | 2 | 3`, `"c" | "c2" | 2 | 3`, `"d" | "d1" | 1 | 3`)
		}
	}
}

// Columns put to version 0 count as written now, so that they are told to those who have seen the database before.
func TestUpstreamZeroedClocksMove(t *testing.T) {
	a, b := crrTwins(t, abSQL), crrTwins(t, abSQL)
	b.script("INSERT INTO foo VALUES (1, 1)", "INSERT INTO foo VALUES (2, 1)")
	a.script("INSERT INTO foo VALUES (1, 1)", "DELETE FROM foo", "INSERT INTO foo VALUES (1, 5)")
	b.pullWhere(a, "cid = '-1'")
	b.want("SELECT cid, col_version, db_version, cl, site_id IS crsql_site_id() FROM crsql_changes WHERE pk = x'010901'",
		`"-1" | 3 | 3 | 3 | 0`, `"b" | 0 | 3 | 3 | 1`)
}

// Three databases in a row: what one writes comes through the one in the middle under its own site.
func TestUpstreamThroughAProxy(t *testing.T) {
	a, b, c := crrTwins(t, abSQL), crrTwins(t, abSQL), crrTwins(t, abSQL)
	site := dump(a.run("SELECT crsql_site_id()"))
	a.script("INSERT INTO foo VALUES (1, 2)", "INSERT INTO foo VALUES (2, 3)")
	b.pull(a, 0)
	c.pull(b, 0)
	c.want("SELECT DISTINCT site_id FROM crsql_changes", site)
	a.script("UPDATE foo SET b = 9 WHERE a = 1", "DELETE FROM foo WHERE a = 2")
	b.pull(a, 2)
	c.pull(b, 2)
	c.want("SELECT * FROM foo", "1 | 9")
	c.want("SELECT DISTINCT site_id FROM crsql_changes", site)
	c.refuse("INSERT INTO foo VALUES (3, 'x')") // the table is STRICT
	c.run("INSERT INTO foo VALUES (3, 3)")
	b.pull(c, 4)
	a.pull(b, 4)
	a.want("SELECT * FROM foo", "1 | 9", "3 | 3")
}
