package mesh

import (
	"fmt"
	"testing"
	"time"

	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
	"github.com/crmesh/crmesh/pkg/signaling"
)

// state returns the state of n's link to other.
func (n *testNode) state(t testing.TB, other *testNode) LinkState {
	t.Helper()
	s, err := n.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range s.Members {
		if m.Peer == other.id.String() {
			return m.State
		}
	}
	return "none"
}

func linked(t testing.TB, nodes ...*testNode) {
	t.Helper()
	for _, a := range nodes {
		for _, b := range nodes {
			if a != b {
				until(t, fmt.Sprintf("%s has a link to %s", a.id, b.id), 15*time.Second, func() bool { return a.state(t, b) == LinkOpen })
			}
		}
	}
}

// openConns asks the loop of n for its conns.
func (n *testNode) openConns(t testing.TB) []*conn {
	t.Helper()
	reply := make(chan []*conn, 1)
	n.inspect(t, func(l *loop) {
		var out []*conn
		for _, k := range l.links {
			out = append(out, k.conn)
		}
		reply <- out
	})
	return <-reply
}

// inspect runs f on the goroutine of the loop.
func (n *testNode) inspect(t testing.TB, f func(*loop)) {
	t.Helper()
	done := make(chan struct{})
	select {
	case n.requests <- request{inspect: func(l *loop) { f(l); close(done) }}:
		<-done
	case <-n.done:
		t.Fatal("the node has ended")
	}
}

// TestGlare lets both sides restart ICE at the same time, 200 times. Each time the offers cross, exactly one of them
// is answered, and the same channel goes on.
func TestGlare(t *testing.T) {
	rounds := 200
	if testing.Short() {
		rounds = 20
	}
	r := newRoom(t)
	a, b := r.add("a", 1), r.add("b", 2)
	linked(t, a, b)
	ca, cb := a.openConns(t)[0], b.openConns(t)[0]

	type held struct {
		from, to signaling.PeerID
		d        signaling.Description
	}
	offers := make(chan held, 1024)
	answers := make(chan signaling.PeerID, 1024)
	r.hub.hook(func(from, to signaling.PeerID, d signaling.Description) bool {
		switch d.Kind {
		case signaling.KindOffer:
			offers <- held{from, to, d}
			return false
		case signaling.KindAnswer:
			answers <- from
		}
		return true
	})
	for round := range rounds {
		ca.doubt(ca, true)
		cb.doubt(cb, true)
		first, second := receive(t, offers), receive(t, offers)
		if first.from == second.from {
			t.Fatalf("round %d: both offers are from one side", round)
		}
		r.hub.mu.Lock()
		for _, h := range []held{first, second} {
			if err := r.hub.deliver(h.from, h.to, h.d); err != nil {
				t.Fatal(err)
			}
		}
		r.hub.mu.Unlock()
		if from := receive(t, answers); from != a.id {
			t.Fatalf("round %d: the impolite side answered", round)
		}
		// Both hear each other again over the new path, and nothing is left of the restart.
		start := time.Now()
		until(t, fmt.Sprintf("round %d: both hear each other", round), 5*time.Second, func() bool {
			ca.sendControl(pingFrame(ca))
			cb.sendControl(pingFrame(cb))
			return ca.heardSince(start) && cb.heardSince(start)
		})
		ca.doubt(ca, false)
		cb.doubt(cb, false)
	}
	select {
	case <-answers:
		t.Error("there were more answers than collisions")
	default:
	}
	linked(t, a, b)
	if a.openConns(t)[0] != ca || b.openConns(t)[0] != cb {
		t.Error("the channel did not survive the restarts")
	}
}

// TestCandidatesBeforeDescriptions holds the description of one side back until its candidates have passed it, and drops
// the candidates of the other side: without those that came too early there is no path.
func TestCandidatesBeforeDescriptions(t *testing.T) {
	for name, kind := range map[string]signaling.Kind{"offer": signaling.KindOffer, "answer": signaling.KindAnswer} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t)
			var late signaling.Description
			var side signaling.PeerID // who sends the description that is held back
			candidates := 0
			r.hub.hook(func(from, to signaling.PeerID, d signaling.Description) bool {
				switch {
				case d.Kind == kind:
					late, side = d, from
					return false
				case d.Kind == signaling.KindCandidate && from != side:
					return false
				case d.Kind == signaling.KindCandidate && d.Candidate != nil:
					candidates++
				case d.Kind == signaling.KindCandidate: // the end of candidates
					_ = r.hub.deliver(from, to, late)
				}
				return true
			})
			a, b := r.add("a", 1), r.add("b", 2)
			linked(t, a, b)
			r.hub.mu.Lock()
			defer r.hub.mu.Unlock()
			if candidates == 0 {
				t.Error("no candidates were seen")
			}
		})
	}
}

// TestOfferLost drops the first offer: the other side asks, and gets a new one.
func TestOfferLost(t *testing.T) {
	r := newRoom(t)
	r.timing.attempt = 500 * time.Millisecond
	offers, wants := 0, 0
	r.hub.hook(func(_, _ signaling.PeerID, d signaling.Description) bool {
		switch d.Kind {
		case signaling.KindOffer:
			offers++
			return offers > 1
		case signaling.KindWant:
			wants++
		}
		return true
	})
	a, b := r.add("a", 1), r.add("b", 2)
	linked(t, a, b)
	r.hub.mu.Lock()
	defer r.hub.mu.Unlock()
	if offers < 2 || wants == 0 {
		t.Errorf("%d offers and %d wants were seen", offers, wants)
	}
}

// TestStaleDescriptions repeats old offers, answers and candidates: the link that is there does not care.
func TestStaleDescriptions(t *testing.T) {
	r := newRoom(t)
	type sent struct {
		from, to signaling.PeerID
		d        signaling.Description
	}
	var all []sent
	r.hub.hook(func(from, to signaling.PeerID, d signaling.Description) bool {
		all = append(all, sent{from, to, d})
		return true
	})
	a, b := r.add("a", 1), r.add("b", 2)
	linked(t, a, b)
	before := a.openConns(t)[0]
	r.hub.mu.Lock()
	r.hub.pass = nil
	for _, s := range all {
		if s.d.Kind == signaling.KindOffer {
			s.d.Nonce[0] ^= 1 // with the right one it would be a restart
		}
		_ = r.hub.deliver(s.from, s.to, s.d)
		s.d.Session--
		_ = r.hub.deliver(s.from, s.to, s.d)
	}
	r.hub.mu.Unlock()
	start := time.Now()
	until(t, "the link answers", 5*time.Second, func() bool {
		before.sendControl(pingFrame(before))
		return before.heardSince(start)
	})
	linked(t, a, b)
	if a.openConns(t)[0] != before {
		t.Error("old descriptions replaced the link")
	}
}

// TestServerGone: without the server the link lives on, and its members are back as they were when it returns.
func TestServerGone(t *testing.T) {
	r := newRoom(t)
	a, b := r.add("a", 1), r.add("b", 2)
	linked(t, a, b)
	before := a.openConns(t)[0]
	r.hub.setDown(true)
	until(t, "the node knows", time.Second, func() bool {
		s, err := a.Status(t.Context())
		return err == nil && !s.Server.Joined && s.Server.Error != ""
	})
	r.hub.setDown(false)
	until(t, "the node is back", time.Second, func() bool {
		s, err := a.Status(t.Context())
		return err == nil && s.Server.Joined && s.Server.Error == ""
	})
	linked(t, a, b)
	if a.openConns(t)[0] != before {
		t.Error("the link was made anew")
	}
}

// TestRebuild ends a channel without a word; both sides make a new link.
func TestRebuild(t *testing.T) {
	r := newRoom(t)
	a, b := r.add("a", 1), r.add("b", 2)
	linked(t, a, b)
	for _, n := range []*testNode{a, b} {
		before := n.openConns(t)[0]
		before.close(errDead)
		until(t, "there is another link", 15*time.Second, func() bool {
			c := n.openConns(t)
			return len(c) == 1 && c[0] != before
		})
		linked(t, a, b)
	}
}

// TestGhost: a second peer with the same site, as after a reload of a page, takes the place of the first at once. That it is
// the core which replaces the link is syncproto's TestNewerLinkOfASiteReplacesTheOlder.
func TestGhost(t *testing.T) {
	r := newRoom(t)
	a := r.add("a", 5)
	ghost := r.add("same", 2)
	linked(t, a, ghost)
	// The ghost knows nothing of the newer one: they would refuse each other for having one site.
	fresh := r.add("same", 1)
	until(t, "the newer link is the only one", 15*time.Second, func() bool {
		c := a.openConns(t)
		return len(c) == 1 && c[0].peer == fresh.id
	})
}

// receive takes a value that must come soon.
func receive[T any](t testing.TB, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(5 * time.Second):
		t.Fatal("nothing came for 5 s")
		panic("unreachable")
	}
}

func pingFrame(c *conn) []byte { return syncproto.AppendPing(nil, c.pingToken()) }
