package mesh

import (
	"slices"
	"strings"
	"testing"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
)

// TestSchemaDifference: a table that one store refuses costs no other table of the message, both sides say what differs, and
// both know when nothing does any more.
func TestSchemaDifference(t *testing.T) {
	r := newRoom(t)
	from, to := newMemStore("a"), newMemStore("b")
	s := syncproto.TableSchema{Name: "s", SQL: "CREATE TABLE s (k PRIMARY KEY NOT NULL)"}
	from.tables = append([]syncproto.TableSchema{s}, from.tables...)
	to.tables, to.refused = nil, "s"
	to.parked = ParkedStatus{Changes: 7, Tables: []ParkedTable{{"s", "there is no such table", 7}}}
	a, b := r.addStore(from, "a", 1), r.addStore(to, "b", 2)
	linked(t, a, b)
	differ := func(n *testNode, want ...string) {
		t.Helper()
		until(t, n.id.String()+" says how the schemas differ: "+strings.Join(want, ", "), patience, func() bool {
			m := statusOf(t, n).Members[0]
			return slices.Equal(m.SchemaDifference, want) && m.SameSchema == (len(want) == 0)
		})
	}
	differ(a, "s: table is missing there")
	differ(b, "s: table is missing here")
	if tables, err := to.Schema(t.Context()); err != nil || len(tables) != 1 || tables[0].Name != "t" {
		t.Errorf("the tables are %v, %v", tables, err)
	}
	if p := statusOf(t, b).Parked; p.Changes != 7 || len(p.Tables) != 1 {
		t.Errorf("parked %+v", p)
	}
	a.store.writeText("goes on", "x")
	r.equal(a, b)
	to.addTable(s)
	differ(a)
	differ(b)
}

// TestFullStore: the link that brings what a store can put aside no more ends with its reason, and others go on.
func TestFullStore(t *testing.T) {
	r := newRoom(t)
	from, to := newMemStore("a"), newMemStore("b")
	from.table, to.full = "u", true
	a, b, c := r.addStore(from, "a", 1), r.addStore(to, "b", 2), r.add("c", 3)
	c.store.full = true // or it would bring b what a wrote
	linked(t, a, b)
	linked(t, b, c)
	from.write(changeset.Integer(1), "x")
	until(t, "b refuses a", patience, func() bool {
		m := statusOf(t, b).Members
		return slices.ContainsFunc(m, func(m MemberStatus) bool { return strings.Contains(m.Error, "no more is put aside") })
	})
	c.store.writeText("goes on", "y")
	until(t, "b goes on with c", patience, func() bool { return to.get("y") == "goes on" })
	if _, known := statusOf(t, b).Vector[from.site.String()]; known {
		t.Error("b claims what it refused")
	}
}

func statusOf(t *testing.T, n *testNode) Status {
	t.Helper()
	s, err := n.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestParkedReadsCross: what was put aside is read by jobs beside each other, of which the one that read first may be the last to
// bring its result. That changes nothing.
func TestParkedReadsCross(t *testing.T) {
	n := newRoom(t).add("a", 1)
	n.inspect(t, func(l *loop) {
		read := func(changes int64) parkedRead {
			n.store.mu.Lock()
			n.store.parked.Changes = changes
			n.store.mu.Unlock()
			p, err := l.parkedReads.read(t.Context(), l.store)
			if err != nil {
				t.Error(err)
			}
			return p
		}
		before, after := read(0), read(2)
		l.jobs += 2
		l.result(result{apply: &syncproto.ApplyResult{}, parked: &after})
		l.result(result{heads: &headsResult{heads: l.known, schema: true, tables: n.store.tables, parked: before}})
	})
	if p := statusOf(t, n).Parked; p.Changes != 2 {
		t.Errorf("%d changes are said to be put aside", p.Changes)
	}
}
