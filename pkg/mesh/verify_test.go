package mesh

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
	"github.com/crmesh/crmesh/pkg/signaling"
)

func (n *testNode) verify(t testing.TB, o VerifyOptions) VerifyReport {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := n.Verify(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// live waits until both sides have said hello.
func live(t testing.TB, a, b *testNode) {
	t.Helper()
	a.await(t, Condition{Links: 1})
	b.await(t, Condition{Links: 1})
}

// keysOf returns the keys of the rows that a report of one member lists, and which side has the better one.
func keysOf(m MemberReport) []string {
	out := []string{}
	for _, t := range m.Tables {
		for _, r := range t.Rows {
			out = append(out, fmt.Sprintf("%s %s %s", t.Table, r.Key[0].Bytes(), r.Better))
		}
	}
	slices.Sort(out)
	return out
}

func keys(name string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprint(name, i)
	}
	return out
}

// TestVerify: a store that loses some rows and takes the claims for them all the same looks in sync to everybody. Verify finds
// exactly these rows, Repair mends them, and then both are identical.
func TestVerify(t *testing.T) {
	r := newRoom(t)
	a, b := r.add("a", 1), r.add("b", 2)
	lost := map[string]bool{"k7": true, "k77": true, "k777": true}
	key := func(c changeset.Change) string {
		values, _ := changeset.ParsePacked(c.PK)
		return string(values[0].Bytes())
	}
	b.store.drop = func(c changeset.Change) bool { return lost[key(c)] }
	live(t, a, b)
	if got := a.verify(t, VerifyOptions{}); got.Identical != 1 || got.Total != 1 || got.Members[0].Questions != 1 {
		t.Fatalf("before anything was written: %+v", got)
	}
	a.store.writeText("v", keys("k", 2000)...)
	b.store.writeText("w", keys("j", 100)...)
	a.await(t, Condition{Links: 1, Synced: true})
	b.await(t, Condition{Links: 1, Synced: true})

	want := []string{"t k7 only ours", "t k77 only ours", "t k777 only ours"}
	got := a.verify(t, VerifyOptions{Rows: 10})
	if m := got.Members[0]; got.Identical != 0 || m.Outcome != VerifyDifferent || !slices.Equal(keysOf(m), want) ||
		m.Tables[0].Different != 3 || m.Tables[0].Unsettled != 0 || m.Tables[0].Ours != 2100 || m.Tables[0].Theirs != 2097 {
		t.Fatalf("got %+v %v", got, keysOf(m))
	}
	theirs := b.verify(t, VerifyOptions{Rows: 2}).Members[0] // the same from the other side, and fewer rows listed
	if theirs.Tables[0].Different != 3 || len(theirs.Tables[0].Rows) != 2 || theirs.Tables[0].Rows[0].Better != OnlyTheirs {
		t.Fatalf("got %+v", theirs)
	}
	// While the rows are still lost there is nothing to be mended, and an end to it.
	if m := a.verify(t, VerifyOptions{Repair: true}).Members[0]; m.Outcome != VerifyDifferent || m.Repaired != 0 {
		t.Fatalf("got %+v", m)
	}
	b.store.mu.Lock()
	b.store.drop = nil
	b.store.mu.Unlock()
	if m := a.verify(t, VerifyOptions{Repair: true}).Members[0]; m.Outcome != VerifyIdentical || m.Repaired != 3 {
		t.Fatalf("got %+v", m)
	}
	if m := b.verify(t, VerifyOptions{}).Members[0]; m.Outcome != VerifyIdentical || m.Questions != 1 {
		t.Fatalf("got %+v", m)
	}
	r.equal(a, b)
}

// TestVerifyRepairsFromTheOther: the side that lacks rows asks for them, a reader, too; and one that has others keeps them.
func TestVerifyRepairsFromTheOther(t *testing.T) {
	r := newRoom(t)
	a, b := r.add("a", 1), r.add("b", 2, func(c *Config) { c.Keys.WriterPrivate = nil })
	live(t, a, b)
	a.store.writeText("v", keys("k", 100)...)
	a.await(t, Condition{Links: 1, Synced: true})
	r.equal(a, b)
	b.store.mu.Lock()
	n := 0
	for k, c := range b.store.cells { // 70 rows: more than one resend
		if n++; n <= 70 {
			delete(b.store.cells, k)
		} else if n == 71 {
			c.change.ColVersion++
		}
	}
	b.store.mu.Unlock()
	m := b.verify(t, VerifyOptions{Repair: true, Rows: 5}).Members[0]
	if m.Repaired != 70 || m.Outcome != VerifyDifferent || m.Tables[0].Different != 1 || m.Tables[0].Rows[0].Better != BetterOurs {
		t.Fatalf("got %+v", m)
	}
	m = a.verify(t, VerifyOptions{Repair: true, Rows: 5}).Members[0]
	if m.Role != "reader" || m.Repaired != 0 || m.Outcome != VerifyDifferent || m.Tables[0].Rows[0].Better != BetterTheirs {
		t.Fatalf("got %+v", m)
	}
}

// TestVerifyMuch: where more differs than is looked at, the report says so, and Repair goes on until all of it is mended.
func TestVerifyMuch(t *testing.T) {
	r := newRoom(t)
	a, b := r.add("a", 1), r.add("b", 2)
	live(t, a, b)
	const rows = syncproto.MaxDifferences + 500
	a.store.writeText("v", keys("k", rows)...)
	a.await(t, Condition{Links: 1, Synced: true})
	r.equal(a, b)
	b.store.mu.Lock()
	clear(b.store.cells)
	b.store.mu.Unlock()
	m := a.verify(t, VerifyOptions{}).Members[0]
	if m.Outcome != VerifyDifferent || !m.Tables[0].More || m.Tables[0].Different != syncproto.MaxDifferences || m.Tables[0].Ours != rows ||
		m.Tables[0].Theirs != 0 {
		t.Errorf("got %+v", m)
	}
	if m = a.verify(t, VerifyOptions{Repair: true}).Members[0]; m.Outcome != VerifyIdentical || m.Repaired != rows {
		t.Errorf("got %+v", m)
	}
	t.Logf("%d questions", m.Questions)
}

// TestVerifyWhileBothWrite ends with identical: what differs because it is under way does not count.
func TestVerifyWhileBothWrite(t *testing.T) {
	r := newRoom(t)
	a, b := r.add("a", 1), r.add("b", 2)
	live(t, a, b)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i, n := range []*testNode{a, b} {
		wg.Go(func() {
			for k := 0; ; k++ {
				select {
				case <-stop:
					return
				case <-time.After(2 * time.Millisecond):
					n.store.writeText(fmt.Sprint("v", k), fmt.Sprint("own ", i, " ", k%3000), fmt.Sprint("shared ", k%50))
				}
			}
		})
	}
	until(t, "there are rows", patience, func() bool { return b.store.get("own 0 200") != "" && a.store.get("own 1 200") != "" })
	for range 3 {
		if m := a.verify(t, VerifyOptions{Rows: 5}).Members[0]; m.Outcome == VerifyDifferent || m.Outcome == VerifyNoAnswer {
			t.Errorf("got %+v", m)
		}
	}
	close(stop)
	wg.Wait()
	if m := a.verify(t, VerifyOptions{}).Members[0]; m.Outcome != VerifyIdentical {
		t.Errorf("got %+v", m)
	}
}

// TestVerifyManyRows: of 10,000 rows 3 differ. They are found with few questions and few bytes.
func TestVerifyManyRows(t *testing.T) {
	r := newRoom(t)
	sa, sb := newMemStore("a"), newMemStore("b")
	sa.writeText("same", keys("row ", 10_000)...)
	sa.rowSums("t")                   // once for both
	for key, cell := range sa.cells { // as if it had been exchanged
		twin := *cell
		sb.cells[key] = &twin
	}
	sb.newest, sb.log[1], sb.vector = 1, memOrigin{sa.site, 1}, syncproto.Vector{sa.site: 1}
	a, b := r.addStore(sa, "a", 1), r.addStore(sb, "b", 2)
	live(t, a, b)
	a.await(t, Condition{Links: 1, Synced: true})
	b.store.mu.Lock()
	for _, key := range []string{"row 5", "row 5005", "row 9999"} {
		pk, _ := changeset.AppendPacked(nil, []changeset.Value{changeset.TextString(key)})
		b.store.cells[string(pk)].change.Val = changeset.TextString("damaged")
	}
	b.store.mu.Unlock()
	traffic := func() uint64 {
		s := a.await(t, Condition{Links: 1})
		return s.Members[0].BytesIn + s.Members[0].BytesOut
	}
	before := traffic()
	m := a.verify(t, VerifyOptions{Rows: 10}).Members[0]
	bytes := traffic() - before
	want := []string{"t row 5 none", "t row 5005 none", "t row 9999 none"}
	if !slices.Equal(keysOf(m), want) {
		t.Errorf("got %+v %v", m, keysOf(m))
	}
	t.Logf("%d questions, %d bytes", m.Questions, bytes)
	if m.Questions > 10 || bytes > 20_000 {
		t.Errorf("that took %d questions and %d bytes", m.Questions, bytes)
	}
}

// TestVerifyTables: a table that one side lacks, and one with other columns, are named as such.
func TestVerifyTables(t *testing.T) {
	r := newRoom(t)
	a, b := newMemStore("a"), newMemStore("b")
	a.tables = append(a.tables, syncproto.TableSchema{Name: "u", SQL: "CREATE TABLE u (k, v)"})
	b.tables = append(b.tables, syncproto.TableSchema{Name: "u", SQL: "CREATE TABLE u (k, w)"})
	a.tables = append(a.tables, syncproto.TableSchema{Name: "x", SQL: "CREATE TABLE x (k, v)"})
	b.refused = "x"
	na, nb := r.addStore(a, "a", 1), r.addStore(b, "b", 2)
	live(t, na, nb)
	report := na.verify(t, VerifyOptions{}).Members[0]
	if len(report.Tables) != 2 || report.Tables[0].State != TableColumns || report.Tables[1].State != TableOurs ||
		report.Outcome != VerifyDifferent {
		t.Errorf("got %+v", report)
	}
	report = nb.verify(t, VerifyOptions{Table: "t"}).Members[0]
	if report.Outcome != VerifyIdentical {
		t.Errorf("got %+v", report)
	}
	if _, err := na.Verify(t.Context(), VerifyOptions{Table: "none"}); err == nil {
		t.Error("a table that does not exist was compared")
	}
}

// TestVerifyNotLinked: members without a link count, and are not asked.
func TestVerifyNotLinked(t *testing.T) {
	r := newRoom(t)
	a := r.add("a", 1)
	r.hub.join(peerID(9)) // says nothing
	until(t, "the member is known", patience, func() bool {
		s, err := a.Status(t.Context())
		return err == nil && len(s.Members) == 1
	})
	got := a.verify(t, VerifyOptions{})
	if got.Total != 1 || got.Identical != 0 || got.NotAsked != 1 || got.Members[0].Outcome != VerifyNotLinked || got.Members[0].Error != errNoLink.Error() {
		t.Errorf("got %+v", got)
	}
}

// TestVerifyTwoReaders: a reader says why it does not ask another one, also where links are made for it.
func TestVerifyTwoReaders(t *testing.T) {
	r := newRoom(t)
	a, b := r.addMeta("a", signaling.Meta{Reader: true}), r.addMeta("b", signaling.Meta{Reader: true})
	until(t, "they know of each other", patience, func() bool {
		s, err := a.Status(t.Context())
		return err == nil && len(s.Members) == 1 && s.Members[0].Peer == b.id.String()
	})
	got := a.verify(t, VerifyOptions{All: true})
	if got.Total != 1 || got.NotAsked != 1 || got.Members[0].Error != errTwoReaders.Error() {
		t.Errorf("got %+v", got)
	}
}

// TestVerifyNoAnswer: a member that does not answer in time is named, also where it is still at it when asked again.
func TestVerifyNoAnswer(t *testing.T) {
	r := newRoom(t)
	a, b := r.add("a", 1), r.add("b", 2)
	live(t, a, b)
	a.await(t, Condition{Links: 1, Synced: true})
	b.store.mu.Lock() // whatever reads it waits
	unlock := sync.OnceFunc(b.store.mu.Unlock)
	defer unlock()
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		got, err := a.Verify(ctx, VerifyOptions{})
		cancel()
		if err != nil || got.Members[0].Outcome != VerifyNoAnswer || got.Members[0].Error == "" {
			t.Errorf("got %+v, %v", got, err)
		}
	}
	unlock()
	until(t, "it answers again", patience, func() bool {
		return a.verify(t, VerifyOptions{}).Identical == 1
	})
}

// TestVerifyOwnFault: what fails in our own database is an error, and no fault of a member.
func TestVerifyOwnFault(t *testing.T) {
	r := newRoom(t)
	a, b := r.add("a", 1), r.add("b", 2)
	live(t, a, b)
	a.await(t, Condition{Links: 1, Synced: true})
	a.store.breakWith(errDiskFull)
	if _, err := a.Verify(t.Context(), VerifyOptions{}); !errors.Is(err, errDiskFull) {
		t.Errorf("got %v", err)
	}
}

// TestVerifyAll: in a large room a member has links to some only. The others are asked over links that are made for it, and
// closed later; one that cannot be linked is named with the reason.
func TestVerifyAll(t *testing.T) {
	r := newRoom(t)
	r.timing = defaultTiming() // on a machine that is busy with many handshakes, silence means little
	r.timing.surplus = time.Second
	const count = 16
	for i := range count {
		r.addMeta(fmt.Sprint("n", i), signaling.Meta{})
	}
	a := r.nodes[0]
	until(t, "everybody has its links", 3*time.Minute, func() bool {
		return !slices.ContainsFunc(r.nodes, func(n *testNode) bool { return !n.neighbourhood(t).complete })
	})
	a.store.writeText("v", "k")
	until(t, "all stores are equal", patience, func() bool {
		return !slices.ContainsFunc(r.nodes, func(n *testNode) bool { return n.store.content() != a.store.content() })
	})
	neighbours := a.verify(t, VerifyOptions{}).Identical
	if neighbours == 0 || neighbours >= count-1 {
		t.Fatalf("identical on %d members without any link made for it", neighbours)
	}
	if got := a.verify(t, VerifyOptions{All: true}); got.Identical != count-1 {
		t.Fatalf("identical on %d of %d: %+v", got.Identical, got.Total, got.Members)
	}
	until(t, "the links that were made for it are closed", patience, func() bool { return len(a.neighbourhood(t).live) <= neighbours })

	r.hub.hook(func(from, to signaling.PeerID, _ signaling.Description) bool { return from != a.id && to != a.id })
	for limit := 3 * time.Second; ; limit *= 3 { // it is taken up whole; a busy machine gets more
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		got, err := a.Verify(ctx, VerifyOptions{All: true})
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		unlinked := 0
		for _, m := range got.Members {
			if m.Outcome == VerifyNotLinked && m.Error == errVerifyTime.Error() {
				unlinked++
			}
		}
		switch {
		case unlinked == count-1-neighbours && got.NotAsked == unlinked:
			return
		case limit > patience:
			t.Fatalf("%d members could not be linked, want %d: %+v", unlinked, count-1-neighbours, got.Members)
		}
	}
}
