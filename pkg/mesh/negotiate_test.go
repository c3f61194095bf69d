package mesh

import (
	"fmt"
	"testing"
	"time"

	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
	"github.com/crmesh/crmesh/pkg/signaling"
)

// member returns what n's status says of other; nothing if it does not know it.
func (n *testNode) member(t testing.TB, other *testNode) MemberStatus {
	t.Helper()
	s, err := n.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range s.Members {
		if m.Peer == other.id.String() {
			return m
		}
	}
	return MemberStatus{State: "none"}
}

// state returns the state of n's link to other.
func (n *testNode) state(t testing.TB, other *testNode) LinkState {
	t.Helper()
	return n.member(t, other).State
}

func linked(t testing.TB, nodes ...*testNode) {
	t.Helper()
	for _, a := range nodes {
		for _, b := range nodes {
			if a != b {
				until(t, fmt.Sprintf("%s has a link to %s", a.id, b.id), patience, func() bool { return a.state(t, b) == LinkOpen })
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
	// On a machine that is busy a round takes long, and another restart would begin, whose offer nobody passes on.
	r.timing.restart, r.timing.dead, r.timing.suspect, r.timing.path = time.Hour, time.Hour, time.Hour, time.Hour
	a, b := r.add("a", 1), r.add("b", 2)
	linked(t, a, b)
	ca, cb := a.openConns(t)[0], b.openConns(t)[0]

	type held struct {
		from, to signaling.PeerID
		d        signaling.Description
	}
	offers := make(chan held, 1024)
	answers := make(chan signaling.PeerID, 1024)
	last, repeated := "", 0 // of the impolite side, which repeats an offer that was not lost
	r.hub.hook(func(from, to signaling.PeerID, d signaling.Description) bool {
		switch d.Kind {
		case signaling.KindOffer:
			if from == b.id && d.SDP == last {
				repeated++
				return false
			}
			if from == b.id {
				last = d.SDP
			}
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
		// Both hear each other again over the new path, and nothing is left of the restart: it counts as over only once the answer is
		// taken, which may be after the first ping has come.
		start := time.Now()
		until(t, fmt.Sprintf("round %d: both hear each other, and the restart is over", round), patience, func() bool {
			ca.sendControl(pingFrame(ca))
			cb.sendControl(pingFrame(cb))
			ca.doubt(ca, false)
			cb.doubt(cb, false)
			return ca.heardSince(start) && cb.heardSince(start) && a.state(t, b) == LinkOpen && b.state(t, a) == LinkOpen
		})
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
	r.hub.mu.Lock()
	defer r.hub.mu.Unlock()
	if repeated != rounds {
		t.Errorf("an offer was repeated in %d of %d rounds", repeated, rounds)
	}
}

// TestGlareLost: of two restarts that cross, the one that is to be answered is lost. It is repeated as the other one comes, long
// before the restart has taken its time, and the same channel goes on.
func TestGlareLost(t *testing.T) {
	r := newRoom(t)
	r.timing.restart, r.timing.dead, r.timing.suspect, r.timing.path = time.Hour, time.Hour, time.Hour, time.Hour
	a, b := r.add("a", 1), r.add("b", 2)
	linked(t, a, b)
	ca, cb := a.openConns(t)[0], b.openConns(t)[0]
	both := make(chan struct{})
	var ofA signaling.Description
	lost := false
	r.hub.hook(func(from, to signaling.PeerID, d signaling.Description) bool {
		if d.Kind != signaling.KindOffer || ofA.SDP != "" && lost {
			return true
		}
		if from == b.id {
			lost = true
		} else {
			ofA = d
		}
		if ofA.SDP != "" && lost {
			_ = r.hub.deliver(a.id, b.id, ofA)
			close(both)
		}
		return false
	})
	ca.doubt(ca, true)
	cb.doubt(cb, true)
	<-both
	start := time.Now()
	until(t, "both hear each other", patience, func() bool {
		ca.sendControl(pingFrame(ca))
		cb.sendControl(pingFrame(cb))
		return ca.heardSince(start) && cb.heardSince(start)
	})
	if a.openConns(t)[0] != ca || b.openConns(t)[0] != cb {
		t.Error("the channel did not survive")
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

// TestOfferLost drops the first offer: the other side asks, and gets it again at once, not when the attempt has taken its time.
func TestOfferLost(t *testing.T) {
	r := newRoom(t)
	r.timing.attempt = time.Hour
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

// TestAnswerUnsent: the server goes away with the offer, so that the answer cannot be sent. It is when the server is back,
// and the same attempt comes to its end.
func TestAnswerUnsent(t *testing.T) {
	r := newRoom(t)
	r.timing.attempt, r.timing.want = time.Hour, time.Hour
	r.timing.minBackoff, r.timing.maxBackoff = time.Hour, time.Hour
	r.hub.hook(func(_, _ signaling.PeerID, d signaling.Description) bool {
		r.hub.down = r.hub.down || d.Kind == signaling.KindOffer
		return true
	})
	a, b := r.add("a", 1), r.add("b", 2)
	until(t, "the offer is answered", patience, func() bool {
		m := a.member(t, b)
		return m.State == LinkChecking || m.Error != ""
	})
	r.hub.hook(nil)
	r.hub.setDown(false)
	linked(t, a, b)
}

// TestAskedOften: the side that asks has given the attempt up, and the side that offers does not know, for no answer came. What
// the one asks for and the other repeats does not make them talk without a pause.
func TestAskedOften(t *testing.T) {
	r := newRoom(t)
	r.timing.want = 200 * time.Millisecond
	wants := make(chan time.Time, 1024)
	r.hub.hook(func(_, _ signaling.PeerID, d signaling.Description) bool {
		if d.Kind == signaling.KindWant {
			wants <- time.Now()
		}
		return d.Kind != signaling.KindAnswer
	})
	r.timing.attempt = time.Hour
	r.add("offers", 2)
	r.timing.attempt = 100 * time.Millisecond
	r.add("asks", 1)
	const asked = 10
	first := receive(t, wants)
	var last time.Time
	for range asked {
		last = receive(t, wants)
	}
	if span := last.Sub(first); span < asked/2*r.timing.want {
		t.Errorf("it was asked %d times in %v", asked, span)
	}
}

// TestAnswerLost drops the answer to the first offer, and what goes with it. When the server has been away and is back, both
// sides repeat what they said, and the same attempt comes to its end.
func TestAnswerLost(t *testing.T) {
	r := newRoom(t)
	r.timing.attempt, r.timing.want = time.Hour, time.Hour
	a, b := r.add("a", 1), r.add("b", 2)
	linked(t, a, b)
	before := a.openConns(t)[0]
	lost := make(chan struct{}, 1024)
	sessions := map[uint64]bool{}
	r.hub.hook(func(from, to signaling.PeerID, d signaling.Description) bool {
		if d.Kind == signaling.KindOffer {
			sessions[d.Session] = true
		}
		if from == a.id && d.Kind == signaling.KindAnswer {
			lost <- struct{}{}
		}
		return from != a.id
	})
	other := b.openConns(t)[0]
	before.close(errDead)
	receive(t, lost)
	r.hub.hook(nil)
	r.hub.setDown(true)
	r.hub.setDown(false)
	relinked(t, a, b, before, other)
	if len(sessions) != 1 || !sessions[a.openConns(t)[0].session] {
		t.Errorf("it took other sessions than the one whose answer was lost: %v", sessions)
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
	until(t, "the link answers", patience, func() bool {
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
	until(t, "the node knows", patience, func() bool {
		s, err := a.Status(t.Context())
		return err == nil && !s.Server.Joined && s.Server.Error != ""
	})
	r.hub.setDown(false)
	until(t, "the node is back", patience, func() bool {
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
		until(t, "there is another link", patience, func() bool {
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
	// The ghost is what is left of a page: it says nothing to the newer one, or both would renew their site.
	r.hub.hook(func(from, to signaling.PeerID, _ signaling.Description) bool { return from == a.id || to == a.id })
	fresh := r.add("same", 1)
	until(t, "the newer link is the only one", patience, func() bool {
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
	case <-time.After(patience):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

func pingFrame(c *conn) []byte { return syncproto.AppendPing(nil, c.pingToken()) }

// TestAttemptOverAtOneSide: an attempt finds no path, and one side gives it up long before the other. What the other side
// then says of it, or what the one that gave it up asks for, makes both begin anew at once: nobody waits for its own time.
func TestAttemptOverAtOneSide(t *testing.T) {
	for name, side := range map[string]struct {
		early, late byte // by which the ids of the sides are ordered: the greater offers
		announces   bool // the late side announces new addresses; otherwise the early one asks for an offer
	}{
		"the side that offers gets a restart": {2, 1, true},
		"the side that asks gets a restart":   {1, 2, true},
		"the side that offers is asked":       {1, 2, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t)
			r.timing.minBackoff, r.timing.maxBackoff = time.Hour, time.Hour
			r.timing.want, r.timing.path, r.timing.repair = time.Hour, time.Hour, time.Hour
			r.hub.hook(func(_, _ signaling.PeerID, d signaling.Description) bool { return d.Kind != signaling.KindCandidate })
			r.timing.attempt = time.Hour
			late := r.add("late", side.late)
			r.timing.attempt = time.Second
			early := r.add("early", side.early)
			until(t, "one side has given the attempt up, the other has not", patience, func() bool {
				return early.state(t, late) == LinkWaiting && early.member(t, late).Error != "" && late.state(t, early) == LinkChecking
			})
			r.hub.hook(nil)
			moved := early
			if side.announces {
				moved = late
			}
			moved.inspect(t, func(l *loop) { l.networkChanged(&network{l.node.addresses(), time.Now()}) })
			linked(t, early, late)
		})
	}
}
