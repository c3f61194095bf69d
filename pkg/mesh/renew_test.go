package mesh

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
)

// holds waits until every node has a value for all keys.
func (r *room) holds(nodes []*testNode, keys ...string) {
	r.t.Helper()
	for _, n := range nodes {
		until(r.t, fmt.Sprintf("%s has %v", n.id, keys), patience, func() bool {
			for _, key := range keys {
				if n.store.get(key) == "" {
					return false
				}
			}
			return true
		})
	}
}

// TestPutBack: a peer whose whole machine was put back, and that has written since, goes on under a new site id by itself. It gets
// back what was lost, and everybody gets what it wrote, also those who hold other writes under the same numbers.
func TestPutBack(t *testing.T) {
	for _, id := range []byte{1, 9} { // it asks for offers, or makes them
		t.Run(fmt.Sprint(id), func(t *testing.T) {
			r := newRoom(t)
			a, b, c := r.add("a", id), r.add("b", 5), r.add("c", 6)
			a.store.writeText("before", "x", "y")
			r.holds([]*testNode{b, c}, "x", "y")
			old := a.store.copy()
			for i := range 5 {
				a.store.writeText("lost", fmt.Sprint("lost", i))
			}
			r.holds([]*testNode{b, c}, "lost4")
			r.stop(a)
			r.nodes = r.nodes[1:]
			old.writeText("new", "x", "new")
			site := old.siteID()
			a = r.addStore(old, "a", id+1)
			r.holds([]*testNode{a, b, c}, "new", "lost0", "lost4")
			linked(t, a, b, c)
			a.await(t, Condition{Links: 2, Synced: true})
			r.equal(a, b, c)
			if got := b.store.get("x"); got != "new" || old.siteID() == site || old.asked() != 1 {
				t.Errorf("x is %q; the site %v, was %v; %d renewals", got, old.siteID(), site, old.asked())
			}
			if s := a.await(t, Condition{}); s.Site != old.siteID().String() || s.Applied.Changes == 0 || s.Renewals != 1 {
				t.Errorf("status %+v", s)
			}
			a.store.writeText("goes on", "z")
			r.holds([]*testNode{b, c}, "z")
		})
	}
}

// TestLiveTwins: two machines made of one disk, both writing, while a third one looks on: each takes an id of its own.
func TestLiveTwins(t *testing.T) {
	r := newRoom(t)
	one := newMemStore("one")
	one.writeText("before", "x")
	two := one.copy()
	one.opened = one.own
	one.writeText("one", "of one", "x")
	two.writeText("two", "of two", "x")
	a, c, b := r.addStore(one, "a", 1), r.add("c", 5), r.addStore(two, "b", 9)
	all := []*testNode{a, b, c}
	r.holds(all, "of one", "of two")
	linked(t, all...)
	a.store.writeText("later", "later of one")
	b.store.writeText("later", "later of two")
	r.holds(all, "later of one", "later of two")
	r.equal(all...)
	if one.siteID() == two.siteID() {
		t.Error("both have one site id still")
	}
	if n := max(one.asked(), two.asked()); n > 2 {
		t.Errorf("%d renewals", n)
	}
}

// liar says in its hello that it holds any number of writes of the site of n, and returns what it was told.
func liar(r *room, n *testNode, writer bool) *syncproto.Error {
	s := meetStranger(r.t, r, n)
	defer s.leave()
	said := s.refusal()
	h := s.hello(nil)
	if writer {
		h = s.hello(s.proof())
	}
	h.Vector = syncproto.Vector{n.store.siteID(): changeset.MaxVersion}
	s.send(h)
	return said()
}

// TestHostileClaims: who claims writes that never were makes a peer take new site ids so many times, and so often, and no
// more. Whoever may not write is not believed at all.
func TestHostileClaims(t *testing.T) {
	r := newRoom(t)
	r.timing.renewal = 0
	a, b := r.add("a", 1), r.add("b", 2)
	linked(t, a, b)
	if err := liar(r, a, false); err == nil || err.Code != syncproto.CodeStaleCopy {
		t.Errorf("a reader was told %v", err)
	}
	if n := a.store.asked(); n != 0 {
		t.Fatalf("a reader's word was taken: %d renewals", n)
	}
	for i := range MaxRenewals {
		liar(r, a, true)
		until(t, "the site is renewed", patience, func() bool { return a.store.asked() == i+1 })
	}
	linked(t, a, b)
	site := a.store.siteID()
	if err := liar(r, a, true); err == nil || err.Code != syncproto.CodeStaleCopy {
		t.Errorf("the last liar was told %v", err)
	}
	a.store.writeText("still there", "x")
	r.holds([]*testNode{b}, "x")
	if n := a.store.asked(); n != MaxRenewals || a.store.siteID() != site {
		t.Errorf("%d renewals", n)
	}
}

// TestRenewalPause: a second claim so soon after the first is not followed.
func TestRenewalPause(t *testing.T) {
	r := newRoom(t)
	a, b := r.add("a", 1), r.add("b", 2)
	liar(r, a, true)
	until(t, "the site is renewed", patience, func() bool { return a.store.asked() == 1 })
	linked(t, a, b)
	if err := liar(r, a, true); err == nil || err.Code != syncproto.CodeStaleCopy {
		t.Errorf("the second liar was told %v", err)
	}
	a.store.writeText("still there", "x")
	r.holds([]*testNode{b}, "x")
	if n := a.store.asked(); n != 1 {
		t.Errorf("%d renewals", n)
	}
}

// TestNoRenewal: a store that keeps its site id is asked once, and the node goes on with those who do not dispute it.
func TestNoRenewal(t *testing.T) {
	r := newRoom(t)
	a, b := r.add("a", 1), r.add("b", 2)
	a.store.noNew = &NoRenewalError{errors.New("it has no room for another")}
	linked(t, a, b)
	for range 2 {
		liar(r, a, true)
	}
	until(t, "the store was asked", patience, func() bool { return a.store.asked() == 1 })
	a.store.writeText("goes on", "x")
	r.holds([]*testNode{b}, "x")
	a.await(t, Condition{Links: 1, Synced: true})
	if n := a.store.asked(); n != 1 {
		t.Errorf("the store was asked %d times", n)
	}
}

// disputedMeanwhile has a's site disputed while a applies what b wrote to x; closing held lets the apply go on.
func disputedMeanwhile(r *room, a, b *testNode) (held chan struct{}) {
	t := r.t
	t.Helper()
	linked(t, a, b)
	held = a.store.block(&a.store.hold)
	b.store.writeText("under way", "x")
	until(t, "an apply is under way", patience, func() bool { return a.store.waits() > 0 })
	liar(r, a, true)
	until(t, "the links are gone", patience, func() bool { return len(a.openConns(t)) == 0 })
	return held
}

// TestNoRenewalMeanwhile: what was under way when a store was asked in vain is lost on nobody.
func TestNoRenewalMeanwhile(t *testing.T) {
	r := newRoom(t)
	a, b := r.add("a", 1), r.add("b", 2)
	a.store.noNew = &NoRenewalError{errors.New("it has no room for another")}
	held := disputedMeanwhile(r, a, b)
	close(held)
	b.store.writeText("later", "y")
	r.holds([]*testNode{a}, "x", "y")
	a.await(t, Condition{Links: 1, Synced: true})
}

// TestRenewalFails: any other error of the store ends the node, as always.
func TestRenewalFails(t *testing.T) {
	r := newRoom(t)
	a := r.add("a", 1)
	a.store.noNew = errDiskFull
	liar(r, a, true)
	<-a.Done()
	if err := a.Err(); !errors.Is(err, errDiskFull) {
		t.Errorf("the node ended with %v", err)
	}
	a.store.breakWith(errDiskFull) // so that stop expects it
}

// TestRenewalWaits: the store is asked once what the old core has begun is done, and that is lost on nobody.
func TestRenewalWaits(t *testing.T) {
	r := newRoom(t)
	a, b := r.add("a", 1), r.add("b", 2)
	held := disputedMeanwhile(r, a, b)
	a.inspect(t, func(l *loop) {
		if l.renewals.reason == "" || l.renewals.asked {
			t.Errorf("the store was asked while an apply was under way: %+v", l.renewals)
		}
	})
	close(held)
	until(t, "the site is renewed", patience, func() bool { return a.store.asked() == 1 })
	r.holds([]*testNode{a}, "x")
	linked(t, a, b)
	a.await(t, Condition{Links: 1, Synced: true})
}

// TestCloseWhileRenewing: Close does not wait for the new site id.
func TestCloseWhileRenewing(t *testing.T) {
	r := newRoom(t)
	a, b := r.add("a", 1), r.add("b", 2)
	linked(t, a, b)
	a.store.block(&a.store.renewing)
	liar(r, a, true)
	until(t, "the links are gone", patience, func() bool { return len(a.openConns(t)) == 0 })
	if s := a.await(t, Condition{}); s.Synced {
		t.Error("it is synced without links")
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
}

// fullChannel is a channel on which nothing moves until low is called.
type fullChannel struct {
	stuck  atomic.Bool
	closed chan struct{}
	onLow  atomic.Pointer[func()]
}

func (c *fullChannel) Read([]byte) (int, error) {
	<-c.closed
	return 0, io.EOF
}

func (c *fullChannel) Write(frame []byte) (int, error) { return len(frame), nil }

func (c *fullChannel) BufferedAmount() uint64 {
	if c.stuck.Load() {
		return 1
	}
	return 0
}

func (c *fullChannel) OnLow(_ uint64, f func()) { c.onLow.Store(&f) }

func (c *fullChannel) low() {
	c.stuck.Store(false)
	(*c.onLow.Load())()
}

func (c *fullChannel) Close() error {
	close(c.closed)
	return nil
}

// TestRenewalTakesLeave: a link under the old site id ends once the other side has what was said last, and the next one begins at once.
func TestRenewalTakesLeave(t *testing.T) {
	n := newRoom(t).add("a", 1)
	m := &member{node: n.Node, id: peerID(2), log: n.log, pion: make(chan pionEvent, maxPion)}
	a, err := m.newAttempt(1)
	if err != nil {
		t.Fatal(err)
	}
	ch := &fullChannel{closed: make(chan struct{})}
	ch.stuck.Store(true)
	c := &conn{peer: m.id, ch: ch, log: n.log, timing: n.timing, doubt: func(*conn, bool) {}}
	c.timing.flush = time.Hour
	c.init()
	m.att, a.conn = a, c
	c.start()
	c.send(&syncproto.Bye{})
	c.finish(errRenewing)
	m.begin()
	select {
	case <-c.done:
		t.Error("the channel was closed before all was sent")
	default:
	}
	ch.low()
	<-c.done
	m.linkEnded()
	if m.att != nil || m.next.After(time.Now()) {
		t.Errorf("the attempt %v goes on, or the next one waits until %v", m.att, m.next)
	}
}
