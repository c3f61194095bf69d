package mesh

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"testing"
	"time"

	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
	"github.com/crmesh/crmesh/pkg/signaling"
)

// connTo returns n's open conn to other, nil if there is none.
func (n *testNode) connTo(t testing.TB, other *testNode) *conn {
	t.Helper()
	for _, c := range n.openConns(t) {
		if c.peer == other.id {
			return c
		}
	}
	return nil
}

// relinked waits for a link between a and b that is another than before.
func relinked(t *testing.T, a, b *testNode, before ...*conn) {
	t.Helper()
	until(t, "there is another link", patience, func() bool {
		ca, cb := a.connTo(t, b), b.connTo(t, a)
		return ca != nil && cb != nil && ca != before[0] && cb != before[1] && a.state(t, b) == LinkOpen && b.state(t, a) == LinkOpen
	})
}

// TestRelay: the server is dead, a link is cut without a word, and comes back over the third member.
func TestRelay(t *testing.T) {
	for name, reader := range map[string]bool{"over a writer": false, "over a reader": true} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t)
			a, b := r.add("a", 1), r.add("b", 2)
			c := r.add("c", 3, func(c *Config) {
				if reader {
					c.Keys.WriterPrivate = nil
				}
			})
			linked(t, a, b, c)
			for _, n := range r.nodes {
				n.await(t, Condition{Links: 2})
			}
			r.hub.setDown(true)
			for range 3 {
				ca, cb := a.connTo(t, b), b.connTo(t, a)
				ca.close(errDead)
				cb.close(errDead)
				relinked(t, a, b, ca, cb)
			}
			a.store.writeText("from a", "x")
			b.store.writeText("from b", "y")
			r.equal(a, b, c)
			if s := c.status(t).Relay; s.Passed == 0 {
				t.Errorf("nothing went over the third member: %+v", s)
			}
			if s := a.status(t).Relay; s.Sent == 0 || s.Received == 0 {
				t.Errorf("nothing was relayed for the first member: %+v", s)
			}
		})
	}
}

func (n *testNode) status(t testing.TB) Status {
	t.Helper()
	s, err := n.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestRelayFar: nobody is a neighbour of both ends; the way is found over two members.
func TestRelayFar(t *testing.T) {
	net := newCuttable(t)
	var nets []func(*Config)
	for i := range 4 {
		nets = append(nets, onNet(net.host(t, i+1)))
	}
	net.start(t)
	r := newRoom(t)
	// The first and the last hear nothing of each other from the server, and others cannot be linked: 1 - 2 - 3 - 4.
	r.hub.hook(func(from, to signaling.PeerID, _ signaling.Description) bool {
		return from[0]+to[0] != 5 || from[0] == 2 || from[0] == 3
	})
	net.blockBetween(1, 3, true)
	net.blockBetween(2, 4, true)
	var n []*testNode
	for i, on := range nets {
		n = append(n, r.add(fmt.Sprint("n", i+1), byte(i+1), on))
	}
	for i := range 3 {
		linked(t, n[i], n[i+1])
		n[i].await(t, Condition{Links: 1})
		n[i+1].await(t, Condition{Links: 1})
	}
	r.hub.setDown(true)
	linked(t, n[0], n[3])
}

// TestRelayRestart: the server is dead and the path of one link is cut. An ICE restart, offered over the third member, finds
// the other path, and the channel goes on.
func TestRelayRestart(t *testing.T) {
	net := newCuttable(t)
	netA, netB, netC := net.host(t, 1), net.host(t, 2), net.host(t, 3)
	net.start(t)
	r := newRoom(t)
	r.timing.dead, r.timing.restart = 10*time.Second, 5*time.Second
	a, b, c := r.add("a", 1, onNet(netA)), r.add("b", 2, onNet(netB)), r.add("c", 3, onNet(netC))
	linked(t, a, b, c)
	a.store.writeText(fmt.Sprintf("%01000d", 1), "before")
	b.store.writeText(fmt.Sprintf("%01000d", 2), "too")
	r.equal(a, b, c)
	ca, cb := a.connTo(t, b), b.connTo(t, a)
	r.hub.setDown(true)
	net.cutBetween(t, 1, 2)
	until(t, "the restart has begun", patience, func() bool { return a.state(t, b) == LinkRestarting || b.state(t, a) == LinkRestarting })
	start := time.Now()
	until(t, "both hear each other", patience, func() bool {
		ca.sendControl(pingFrame(ca))
		cb.sendControl(pingFrame(cb))
		return ca.heardSince(start) && cb.heardSince(start)
	})
	linked(t, a, b)
	if a.connTo(t, b) != ca || b.connTo(t, a) != cb {
		t.Error("the channel did not survive")
	}
	if s := c.status(t).Relay; s.Passed == 0 {
		t.Errorf("nothing went over the third member: %+v", s)
	}
}

// TestRelayUnreachable: one member alone has lost the server. While that still lists it, and after it does not, its links come
// back over another member; it is forgotten once it takes its leave.
func TestRelayUnreachable(t *testing.T) {
	r := newRoom(t)
	r.timing.mourn = time.Hour
	patient(&r.timing) // without its last link a member that has lost the server is gone
	a, b, c := r.add("a", 1), r.add("b", 2), r.add("c", 3)
	linked(t, a, b, c)
	r.hub.cutOff(b.id)
	for _, n := range []*testNode{a, c} { // each of them once the one that offers, once the one that asks
		ca, cb := n.connTo(t, b), b.connTo(t, n)
		ca.close(errDead)
		cb.close(errDead)
		relinked(t, n, b, ca, cb)
	}
	r.hub.giveUp(b.id)
	for _, n := range []*testNode{a, c} {
		until(t, "the member is not listed", patience, func() bool {
			listed := true
			n.inspect(t, func(l *loop) { _, listed = l.listed[b.id] })
			return !listed
		})
	}
	for _, n := range []*testNode{a, c} {
		ca, cb := n.connTo(t, b), b.connTo(t, n)
		ca.close(errDead)
		cb.close(errDead)
		relinked(t, n, b, ca, cb)
	}
	r.stop(b)
	for _, n := range []*testNode{a, c} {
		until(t, "the member is forgotten", patience, func() bool { return n.state(t, b) == "none" })
	}
}

// TestGhostIsNotMourned: what is left of a peer that has come again under another id is forgotten once the room does not list it,
// whereas it would be looked for over other members.
func TestGhostIsNotMourned(t *testing.T) {
	r := newRoom(t)
	r.timing.mourn = time.Hour
	a, c := r.add("a", 5), r.add("c", 6)
	ghost, machine := r.addMortal("same", signaling.Meta{})
	t.Cleanup(func() { r.stop(ghost) })
	linked(t, a, c, ghost)
	machine.dead.Store(true)
	r.hub.die(ghost.id)
	for _, n := range []*testNode{a, c} {
		n.connTo(t, ghost).close(errDead)
	}
	r.hub.giveUp(ghost.id)
	for _, n := range []*testNode{a, c} {
		until(t, "the member is looked for", patience, func() bool {
			listed := true
			n.inspect(t, func(l *loop) { _, listed = l.listed[ghost.id] })
			return !listed && n.state(t, ghost) != "none"
		})
	}
	fresh := r.add("same", 1)
	for _, n := range []*testNode{a, c} {
		until(t, "the member is forgotten", patience, func() bool { return n.state(t, ghost) == "none" })
		until(t, "the one that has come again is linked", patience, func() bool { return n.state(t, fresh) == LinkOpen })
	}
}

// inject sends relays over from's link to via, as fast as they are taken.
func inject(t *testing.T, from, via *testNode, list ...*syncproto.Relay) {
	t.Helper()
	c := from.connTo(t, via)
	for _, m := range list {
		until(t, "the envelope is taken", patience, func() bool { return c.offer(m) })
	}
}

func randomRelay(from, to signaling.PeerID) *syncproto.Relay {
	m := &syncproto.Relay{Hops: syncproto.MaxRelayHops, From: from, To: to, Sealed: make([]byte, 100)}
	_, _ = rand.Read(m.Sealed)
	m.Sealed[0] = 1
	return m
}

// TestRelayDamaged: what does not open, comes from nobody we know, or was made for another pair, is dropped.
func TestRelayDamaged(t *testing.T) {
	r := newRoom(t)
	a, b, c := r.add("a", 1), r.add("b", 2), r.add("c", 3)
	linked(t, a, b, c)
	for _, n := range r.nodes {
		n.await(t, Condition{Links: 2})
	}
	before := a.connTo(t, b)
	want := signaling.Description{Kind: signaling.KindBye, Session: before.session}
	seal := func(from, to signaling.PeerID) []byte {
		sealed, err := r.keys.SealEnvelope(rand.Reader, from, to, want)
		if err != nil {
			t.Fatal(err)
		}
		return sealed
	}
	changed := seal(b.id, a.id)
	changed[len(changed)-1] ^= 1
	stranger := peerID(9)
	inject(t, c, a,
		&syncproto.Relay{From: b.id, To: a.id, Sealed: changed},
		&syncproto.Relay{From: b.id, To: a.id, Sealed: seal(c.id, a.id)},
		&syncproto.Relay{From: b.id, To: a.id, Sealed: seal(b.id, c.id)},
		&syncproto.Relay{From: b.id, To: a.id, Sealed: bytes.Repeat([]byte{1}, syncproto.MaxRelayed)},
		&syncproto.Relay{From: stranger, To: a.id, Sealed: seal(stranger, a.id)},
		&syncproto.Relay{From: c.id, To: stranger, Sealed: seal(c.id, stranger)}, // no hops to go
	)
	until(t, "all are dropped", patience, func() bool { return a.status(t).Relay.Dropped == 6 })
	if s := a.status(t).Relay; s.Received != 0 || s.Passed != 0 || a.connTo(t, b) != before {
		t.Errorf("an envelope was believed: %+v", s)
	}
	// The real one does what it says.
	inject(t, c, a, &syncproto.Relay{From: b.id, To: a.id, Sealed: seal(b.id, a.id)})
	until(t, "the link is closed", patience, func() bool { return a.connTo(t, b) != before })
}

// TestBeforeHello: what is for the mesh alone, an envelope or a need, ends a link that is not live.
func TestBeforeHello(t *testing.T) {
	for _, m := range []syncproto.Message{randomRelay(peerID(2), peerID(9)), &syncproto.Need{}} {
		r := newRoom(t)
		a, b := r.add("a", 1), r.add("b", 2)
		linked(t, a, b)
		before := a.connTo(t, b)
		a.inspect(t, func(l *loop) {
			for _, k := range l.links {
				k.live = false
				l.message(k, m)
			}
		})
		until(t, "the link is refused", patience, func() bool { return a.connTo(t, b) != before })
		if e, ok := before.reason().(*syncproto.Error); !ok || e.Code != syncproto.CodeMalformed {
			t.Errorf("%T: the link ended with %v", m, before.reason())
		}
	}
}

// TestRelayFlood: a member that floods another has most of it dropped there, keeps its link, and takes nothing from what the
// flooded member may still send to its neighbours.
func TestRelayFlood(t *testing.T) {
	r := newRoom(t)
	a, b, c := r.add("a", 1), r.add("b", 2), r.add("c", 3)
	linked(t, a, b, c)
	for _, n := range r.nodes {
		n.await(t, Condition{Links: 2})
	}
	ac, ab, ba := a.connTo(t, c), a.connTo(t, b), b.connTo(t, a)
	const total = 4 * RelayBurst / relayCost
	var flood []*syncproto.Relay
	for range total {
		flood = append(flood, randomRelay(c.id, b.id))
	}
	start := time.Now()
	inject(t, c, a, flood...)
	until(t, "all have come", patience, func() bool {
		s := a.status(t).Relay
		return s.Dropped+s.Passed == total
	})
	most := (RelayBurst/relayShare + int(time.Since(start).Seconds()+1)*RelayRate/relayShare) / relayCost
	if s := a.status(t).Relay; s.Passed == 0 || s.Passed > uint64(most) {
		t.Errorf("%d of %d were passed on, at most %d should be", s.Passed, total, most)
	}
	if left := ba.limit.in.Tokens(); left < RelayBurst/2 {
		t.Errorf("only %v bytes of the bucket for the flooded member are left", left)
	}
	// One and the same costs no more than what the bucket lets through.
	again := randomRelay(c.id, b.id)
	for i := range flood {
		flood[i] = again
	}
	inject(t, c, a, flood...)
	dropped := a.status(t).Relay.Dropped
	until(t, "all have come", patience, func() bool {
		s := a.status(t).Relay
		return s.Dropped+s.Passed+a.relays.repeated.Load() >= 2*total
	})
	if now := a.status(t).Relay.Dropped; now <= dropped || a.relays.repeated.Load() > total/2 {
		t.Errorf("%d repeated envelopes were looked at", a.relays.repeated.Load())
	}
	a.store.writeText("from a", "x")
	r.equal(a, b, c)
	if a.connTo(t, c) != ac || a.connTo(t, b) != ab {
		t.Error("a link did not survive the flood")
	}
}

// TestRelayLoops: an envelope for somebody who is not there goes once through each member, and ends.
func TestRelayLoops(t *testing.T) {
	r := newRoom(t)
	for i := range 4 {
		r.add(fmt.Sprint("n", i), byte(i+1))
	}
	linked(t, r.nodes...)
	for _, n := range r.nodes {
		n.await(t, Condition{Links: 3})
	}
	first := r.nodes[0]
	first.inspect(t, func(l *loop) { l.sendRelay(randomRelay(first.id, peerID(9))) })
	var passed, repeated uint64
	// Three get it; each passes it on, once, to one or two others, where it has been.
	until(t, "it has ended", patience, func() bool {
		passed, repeated = 0, 0
		for _, n := range r.nodes {
			passed += n.relays.passed.Load()
			repeated += n.relays.repeated.Load()
		}
		return passed == 3 && repeated >= 3
	})
}

// TestSeenIsBounded: old envelopes are forgotten, the newest ones are not.
func TestSeenIsBounded(t *testing.T) {
	r := &relays{}
	var list []*syncproto.Relay
	for range 3*maxSeen + 10 {
		m := randomRelay(peerID(1), peerID(2))
		list = append(list, m)
		if !r.first(m) {
			t.Fatal("a new envelope counts as old")
		}
		if len(r.seen)+len(r.older) > 2*maxSeen {
			t.Fatalf("%d envelopes are remembered", len(r.seen)+len(r.older))
		}
	}
	for _, m := range list[len(list)-maxSeen:] {
		if r.first(m) {
			t.Fatal("one of the newest envelopes was forgotten")
		}
	}
	other := *list[len(list)-1]
	other.Hops--
	if r.first(&other) {
		t.Error("the hops make another envelope of it")
	}
}
