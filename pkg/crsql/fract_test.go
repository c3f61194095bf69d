package crsql

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// newTwin is newPair, closed at the end of the test.
func newTwin(t *testing.T, o *oracle, name string) *twin {
	t.Helper()
	w := newPair(t, o, name)
	t.Cleanup(func() { o.ask(name, true) })
	return w
}

// agree runs a statement in both engines, which must agree whether it is an error.
func (p *twin) agree(sql string, args ...changeset.Value) (ours, theirs answer) {
	p.t.Helper()
	if ours, theirs = p.ask(sql, args...); (ours.err == nil) != (theirs.err == nil) {
		p.t.Errorf("%s: %s\nours:   %v\ntheirs: %v", p.name, sql, ours.err, theirs.err)
	}
	return ours, theirs
}

const allSchema = "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name NOT LIKE 'crsql_%'"

// What makes a table ordered is the stock engine's, to the letter, before and after a second call.
func TestFractSchemaIsTheOriginals(t *testing.T) {
	o := startOracle(t)
	for i, shape := range []struct{ create, call string }{
		{"CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, ord, x)", "'t', 'ord'"},
		{"CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, list, ord TEXT, x)", "'t', 'ord', 'list'"},
		{"CREATE TABLE t(a, b, c, ord, l1, l2, PRIMARY KEY(b, a))", "'t', 'ord', 'l1', 'l2'"},
		{`CREATE TABLE "a table"("the key" INTEGER PRIMARY KEY NOT NULL, "the order", "ünïcødé")`, "'a table', 'the order', 'ünïcødé'"},
		{"CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, ord, g AS (ord || 'x'))", "'T', 'ord'"},
		{`CREATE TABLE "it's"("k'y" INTEGER PRIMARY KEY NOT NULL, ord, "l'st")`, "'it''s', 'ord', 'l''st'"},
	} {
		w := newTwin(t, o, fmt.Sprintf("schema %d", i))
		w.agree(shape.create)
		for range 2 {
			w.both("SELECT crsql_fract_as_ordered(" + shape.call + ")")
			w.both(allSchema)
		}
	}
}

func TestFractRefused(t *testing.T) {
	o := startOracle(t)
	w := newTwin(t, o, "A")
	w.agree("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, ord, x)")
	w.agree("CREATE TABLE keyless(ord, x)")
	w.agree("CREATE VIEW v AS SELECT * FROM t")
	for _, call := range []string{
		"", "'t'", "'t', 'nowhere'", "'t', 'ord', 'nowhere'", "'t', 'ord', 'ord'", "'t', 'ord', 'x', 'x'", "'t', 'ORD'", "'nowhere', 'ord'", "'keyless', 'ord'",
		"'v', 'ord'", "NULL, 'ord'", "'t', NULL", "'t', 'ord', NULL", "1, 2",
	} {
		ours, _ := w.agree("SELECT crsql_fract_as_ordered(" + call + ")")
		if ours.err == nil || !strings.Contains(ours.err.Error(), "crsql_fract_as_ordered") {
			t.Errorf("(%s): %v", call, ours.err)
		}
	}
	w.both(allSchema)
	for _, call := range []string{
		"", "'t'", "'t', 'ord'", "'t', 'ord', -1", "'t', 'ord', -1, 'id'", "'t', 'ord', -1, 'id', 7", "'t', 'ord', -1, 'id', 7, 8", "'nowhere', 'ord', -1, 'id', 7",
		"'t', 'ord', 'x', 'id', 7",
	} {
		w.agree("SELECT crsql_fract_fix_conflict_return_old_key(" + call + ")")
	}
}

// A failed call leaves the transaction and what it replaces alone. The stock engine rolls the whole transaction back.
func TestFractFailureUndoesItselfOnly(t *testing.T) {
	d := openTest(t, ":memory:")
	d.run("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, ord, x)")
	d.run("SELECT crsql_fract_as_ordered('t', 'ord')")
	before := dump(d.run(allSchema))
	d.run("BEGIN")
	d.run("INSERT INTO t VALUES (1, 1, 'kept')")
	if _, err := d.try("SELECT crsql_fract_as_ordered('t', 'ord', 'nowhere')"); err == nil {
		t.Error("a column that is not there is accepted")
	}
	d.run("COMMIT")
	if after := dump(d.run(allSchema)); after != before || d.int("SELECT count(*) FROM t WHERE ord = 'a '") != 1 {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// Random inserts, moves and deletes give the same keys in both engines, and where the table is a CRR the same changes.
func TestFractOrderIsTheOriginals(t *testing.T) {
	o := startOracle(t)
	random := rand.New(rand.NewPCG(3, 4))
	runs := 12
	if testing.Short() {
		runs = 6
	}
	for run := range runs {
		w := newTwin(t, o, fmt.Sprintf("order %d", run))
		lists := run%2 == 1
		w.agree("CREATE TABLE item(id INTEGER PRIMARY KEY NOT NULL, list, ord TEXT, x DEFAULT 'new')")
		ordered, crr := "SELECT crsql_fract_as_ordered('item', 'ord')", "SELECT crsql_as_crr('item')"
		if lists {
			ordered = "SELECT crsql_fract_as_ordered('item', 'ord', 'list')"
		}
		switch run / 2 % 3 {
		case 0:
			w.agree(ordered)
		case 1:
			w.agree(ordered)
			w.agree(crr)
		default:
			w.agree(crr)
			w.agree(ordered)
		}
		id := func() int { return 1 + random.IntN(12) }
		for range 60 {
			list := "NULL"
			if n := random.IntN(8); n < 6 {
				list = fmt.Sprintf("'l%d'", n%2)
			}
			switch random.IntN(9) {
			case 0, 1:
				at := id()
				w.agree(fmt.Sprintf("DELETE FROM item WHERE id = %d", at))
				w.agree(fmt.Sprintf("INSERT INTO item(id, list, ord) VALUES (%d, %s, %s)", at, list, []string{"1", "-1", "'1'"}[random.IntN(3)]))
			case 2:
				w.agree(fmt.Sprintf("UPDATE item SET ord = %s WHERE id = %d", []string{"1", "-1", "'-1'"}[random.IntN(3)], id()))
			case 3: // as two databases do, apart
				w.agree(fmt.Sprintf("UPDATE item SET ord = (SELECT ord FROM item WHERE id = %d AND ord IS NOT NULL) WHERE id = %d", id(), id()))
			case 4:
				w.agree(fmt.Sprintf("DELETE FROM item WHERE id = %d", id()))
			case 5:
				w.agree(fmt.Sprintf("UPDATE item_fractindex SET after_id = %d WHERE id = %d", id(), id()))
			default:
				at, after := id(), id()
				w.agree(fmt.Sprintf("DELETE FROM item WHERE id = %d", at))
				w.agree(fmt.Sprintf("INSERT INTO item_fractindex(id, list, x, after_id) VALUES (%d, coalesce((SELECT list FROM item WHERE id = %d), %s), 'v', %d)", at, after, list, after))
			}
			w.both("SELECT id, +list, +ord, +x FROM item")
			if t.Failed() {
				t.Fatalf("run %d", run)
			}
		}
		if run/2%3 > 0 {
			w.both("SELECT * FROM crsql_changes")
			w.both("SELECT * FROM item__crsql_clock")
		}
	}
}

// The changes that ordering gives a CRR are the stock engine's.
func TestFractChangesAreTheOriginals(t *testing.T) {
	o := startOracle(t)
	for i, setup := range [][]string{
		{"SELECT crsql_fract_as_ordered('item', 'ord', 'list')", "SELECT crsql_as_crr('item')"},
		{"SELECT crsql_as_crr('item')", "SELECT crsql_fract_as_ordered('item', 'ord', 'list')"},
	} {
		w := newTwin(t, o, fmt.Sprintf("changes %d", i))
		w.agree("CREATE TABLE item(id INTEGER PRIMARY KEY NOT NULL, list, ord)")
		for _, sql := range setup {
			w.agree(sql)
		}
		w.agree("BEGIN")
		w.agree("INSERT INTO item VALUES (1, 'l', 1), (2, 'l', 1), (3, 'l', -1)")
		w.agree("INSERT INTO item_fractindex(id, list, after_id) VALUES (4, 'l', 1)")
		w.agree("COMMIT")
		w.agree("UPDATE item SET ord = (SELECT ord FROM item WHERE id = 1) WHERE id = 2")
		w.agree("INSERT INTO item_fractindex(id, list, after_id) VALUES (5, 'l', 1)")
		w.agree("UPDATE item_fractindex SET after_id = 3 WHERE id = 5")
		w.agree("UPDATE item SET ord = 1 WHERE id = 4")
		w.agree("DELETE FROM item WHERE id = 3")
		w.both("SELECT id, ord FROM item")
		w.both("SELECT * FROM crsql_changes")
		w.both("SELECT * FROM item__crsql_clock")
		// A row that another database placed keeps its place: the triggers touch what is -1 or 1 only.
		for _, col := range []string{"list", "ord"} {
			w.agree("INSERT INTO crsql_changes VALUES ('item', x'010909', ?, ?, 1, 50, x'aa', 1, 0)", changeset.TextString(col), changeset.TextString("a#"))
		}
		w.agree("INSERT INTO crsql_changes VALUES ('item', x'01090a', 'ord', 1, 1, 51, x'aa', 1, 0)")
		w.both("SELECT id, list, ord FROM item")
		w.both("SELECT * FROM crsql_changes")
	}
}

// Two databases that insert at one place end with two rows of one key. A row that is to follow one of them moves it.
func TestFractCollision(t *testing.T) {
	for _, shape := range []struct{ create, insert string }{
		{"CREATE TABLE %s(id INTEGER PRIMARY KEY NOT NULL, list, ord)", "(%d, 'l', %s)"},
		// The stock engine makes invalid SQL of a key of two columns, and of a table named t with lists.
		{"CREATE TABLE %s(id NOT NULL, other NOT NULL DEFAULT 'o', list, ord, PRIMARY KEY(id, other))", "(%d, 'o', 'l', %s)"},
		{"CREATE TABLE %s(id NOT NULL PRIMARY KEY, list, ord) WITHOUT ROWID", "(%d, 'l', %s)"},
	} {
		for _, name := range []string{"t", `ta"ble s`} {
			d := openTest(t, ":memory:")
			d.run(fmt.Sprintf(shape.create, ident(name)))
			d.run("SELECT crsql_as_crr(?)", name)
			d.run("SELECT crsql_fract_as_ordered(?, 'ord', 'list')", name)
			for id, place := range []string{"1", "1", "1", "-1"} {
				d.run("INSERT INTO " + ident(name) + " VALUES " + fmt.Sprintf(shape.insert, id, place))
			}
			view := ident(name + "_fractindex")
			d.run("UPDATE " + ident(name) + " SET ord = (SELECT ord FROM " + ident(name) + " WHERE id = 1) WHERE id = 2")
			others := ""
			if strings.Contains(shape.create, "other") {
				others = ", other, after_other"
			}
			values := strings.Repeat(", 'o'", strings.Count(others, ","))
			d.run("INSERT INTO " + view + "(id, list, after_id" + others + ") VALUES (9, 'l', 2" + values + ")")
			got := dump(d.run("SELECT group_concat(id, ' ') FROM (SELECT id FROM " + ident(name) + " ORDER BY ord)"))
			if got != `"3 0 2 9 1"` {
				t.Errorf("%s: the order is %s", fmt.Sprintf(shape.create, ident(name)), got)
			}
			d.run("UPDATE " + view + " SET after_id = 3" + strings.ReplaceAll(others, ", other, after_other", ", after_other = 'o'") + " WHERE id = 1")
			if got = dump(d.run("SELECT group_concat(id, ' ') FROM (SELECT id FROM " + ident(name) + " ORDER BY ord)")); got != `"3 1 0 2 9"` {
				t.Errorf("%s: the order is %s after a move", fmt.Sprintf(shape.create, ident(name)), got)
			}
		}
	}
}

// Names with quotes in them work for every object.
func TestFractQuotedNames(t *testing.T) {
	d := openTest(t, ":memory:")
	table, key, list, order := `t"a b[l]e`, `k"e'y`, `l"i'st`, `o"r'd`
	d.run("CREATE TABLE " + ident(table) + "(" + ident(key) + " INTEGER PRIMARY KEY NOT NULL, " + ident(list) + ", " + ident(order) + ")")
	d.run("SELECT crsql_as_crr(?)", table)
	d.run("SELECT crsql_fract_as_ordered(?, ?, ?)", table, order, list)
	for i, place := range []int{1, 1, -1} {
		d.run("INSERT INTO "+ident(table)+" VALUES (?, 'l', ?)", i, place)
	}
	view, after := ident(table+"_fractindex"), ident("after_"+key)
	d.run("INSERT INTO " + view + "(" + ident(key) + ", " + ident(list) + ", " + after + ") VALUES (7, 'l', 0)")
	d.run("UPDATE " + ident(table) + " SET " + ident(order) + " = (SELECT " + ident(order) + " FROM " + ident(table) + " WHERE " + ident(key) + " = 0) WHERE " + ident(key) + " = 1")
	d.run("INSERT INTO " + view + "(" + ident(key) + ", " + ident(list) + ", " + after + ") VALUES (8, 'l', 0)")
	d.run("UPDATE " + view + " SET " + after + " = 2 WHERE " + ident(key) + " = 7")
	if got := dump(d.run("SELECT group_concat(k, ' ') FROM (SELECT " + ident(key) + " AS k FROM " + ident(table) + " ORDER BY " + ident(order) + ")")); got != `"2 7 0 8 1"` {
		t.Errorf("the order is %s", got)
	}
	if n := d.int("SELECT count(*) FROM crsql_changes WHERE cid = ?", order); n != 5 {
		t.Errorf("%d changes of the order", n)
	}
}

// A second call with another column drops what the first made for its own. The stock engine leaves a trigger behind.
func TestFractOtherColumn(t *testing.T) {
	d := openTest(t, ":memory:")
	d.run("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, a, b)")
	d.run("SELECT crsql_fract_as_ordered('t', 'a'); SELECT crsql_fract_as_ordered('t', 'b')")
	d.run("INSERT INTO t VALUES (1, 1, 1); UPDATE t SET a = -1")
	if got := dump(d.run("SELECT a, b FROM t")); got != `-1 | "a "` {
		t.Errorf("the row holds %s", got)
	}
}
