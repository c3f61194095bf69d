package mesh

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/transport/v5"
	"github.com/pion/transport/v5/stdnet"

	"github.com/crmesh/crmesh/pkg/signaling"
)

// mortal is the network of the machine until it is dead: from then on nothing is sent.
type mortal struct {
	transport.Net
	dead atomic.Bool
}

type mortalConn struct {
	transport.UDPConn
	net *mortal
}

func (m *mortal) ListenUDP(network string, local *net.UDPAddr) (transport.UDPConn, error) {
	c, err := m.Net.ListenUDP(network, local)
	return mortalConn{c, m}, err
}

func (c mortalConn) WriteTo(p []byte, to net.Addr) (int, error) {
	if c.net.dead.Load() {
		return len(p), nil
	}
	return c.UDPConn.WriteTo(p, to)
}

// addMortal starts a node with meta that can be killed.
func (r *room) addMortal(name string, meta signaling.Meta) (*testNode, *mortal) {
	r.t.Helper()
	std, err := stdnet.NewNet()
	if err != nil {
		r.t.Fatal(err)
	}
	m := &mortal{Net: std}
	n := r.addMeta(name, meta, onNet(m))
	return n, m
}

// addMeta starts a node that the hub announces with meta, under a random id.
func (r *room) addMeta(name string, meta signaling.Meta, change ...func(*Config)) *testNode {
	r.t.Helper()
	store, id := newMemStore(name), peerID(byte(rand.IntN(256)))
	cfg := Config{Store: store, Signaler: r.hub.join(id, meta), Peer: id, Keys: r.keys, Replica: meta.Replica, Logger: r.logger(name)}
	if meta.Reader {
		cfg.Keys = signaling.ReaderKeys(r.keys.Read, r.keys.WriterPublic)
	}
	for _, f := range change {
		f(&cfg)
	}
	node, err := start(r.t.Context(), cfg, r.timing)
	if err != nil {
		r.t.Fatal(err)
	}
	n := &testNode{node, store, id}
	r.nodes = append(r.nodes, n)
	r.t.Cleanup(func() { r.stop(n) })
	return n
}

// neighbourhood is what a node has chosen, and what has come of it.
type neighbourhood struct {
	wanted, graph, live, members []signaling.PeerID
	complete                     bool // each wanted member is linked, or others take its place
	settled                      bool // and those do: nobody is tried only because it may be late
}

func (n *testNode) neighbourhood(t testing.TB) (out neighbourhood) {
	t.Helper()
	n.inspect(t, func(l *loop) {
		out.complete = true
		out.wanted = slices.Collect(maps.Keys(l.near.wanted))
		out.graph = slices.Collect(maps.Keys(l.near.graph))
		out.members = slices.Collect(maps.Keys(l.members))
		live := map[signaling.PeerID]bool{}
		for _, s := range l.core.Status().Links {
			if k := l.links[s.Link]; k != nil && s.Live {
				live[k.conn.peer] = true
				out.live = append(out.live, k.conn.peer)
			}
		}
		for id := range l.near.wanted {
			out.complete = out.complete && (live[id] || l.near.out(id))
		}
		out.settled = out.complete && l.near.pace == 0
		for _, note := range l.near.notes {
			out.settled = out.settled && !note.doubted
		}
	})
	return out
}

// TestLargeRoom: everybody commits, and all become equal over a sparse graph; then 30 of 100 are killed without a word to
// anybody, the rest write again and become equal again. In the end nothing is left of it.
func TestLargeRoom(t *testing.T) {
	count := 16
	if s := os.Getenv("CRMESH_MEMBERS"); s != "" {
		var err error
		if count, err = strconv.Atoi(s); err != nil || count < 14 || count > 200 {
			t.Fatalf("CRMESH_MEMBERS: %q is no number from 14 to 200", s)
		}
	}
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	t.Run("room", func(t *testing.T) { largeRoom(t, count) })
	until(t, "all goroutines and sockets are gone", 10*time.Second, func() bool {
		return runtime.NumGoroutine() <= goroutines && openFiles(t) <= files
	})
}

func largeRoom(t *testing.T, count int) {
	r := newRoom(t)
	// On a machine that is busy with many handshakes, silence means little: as in life.
	r.timing = defaultTiming()
	limit := 4 * time.Minute // for a machine that has much else to do
	nets := map[*testNode]*mortal{}
	for i := range count {
		meta := signaling.Meta{Replica: i%16 == 1, Reader: i%8 == 7}
		n, m := r.addMortal(fmt.Sprint("n", i), meta)
		nets[n] = m
	}
	settle := func(when string, nodes []*testNode) {
		t.Helper()
		began := time.Now()
		until(t, when+": everybody has its links", limit, func() bool {
			for _, n := range nodes {
				if !n.neighbourhood(t).complete {
					return false
				}
			}
			return true
		})
		report(t, when, time.Since(began), nodes)
	}
	commit := func(when string, nodes []*testNode) {
		t.Helper()
		for i, n := range nodes {
			if n.cfg.Keys.CanWrite() {
				n.store.writeText(when, fmt.Sprint(when, " own ", i), fmt.Sprint(when, " shared ", i%4))
			}
		}
		began := time.Now()
		until(t, when+": all stores are equal", limit, func() bool {
			for _, n := range nodes[1:] {
				if n.store.content() != nodes[0].store.content() {
					return false
				}
			}
			return true
		})
		t.Logf("%s: equal after %v", when, time.Since(began).Round(time.Millisecond))
	}
	settle("start", r.nodes)
	for _, n := range r.nodes {
		// A link that comes early, before the list is complete, may be surplus; but nobody was linked with everybody.
		if s := n.neighbourhood(t); len(s.members) >= count-1 && count > 2*signaling.FullMeshMembers && !n.cfg.Replica {
			t.Errorf("a member looks after %d others", len(s.members))
		}
	}
	commit("first", r.nodes)

	killed := r.nodes[:count*3/10]
	rest := r.nodes[count*3/10:]
	died := time.Now()
	for _, n := range killed {
		r.hub.die(n.id)
		nets[n].dead.Store(true)
	}
	var closing sync.WaitGroup
	for _, n := range killed {
		closing.Go(func() {
			if err := n.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	closing.Wait()
	commit("second", rest)
	settle("after the killing", rest)
	dead := map[signaling.PeerID]bool{}
	for _, n := range killed {
		dead[n.id] = true
	}
	until(t, "everybody has live links in the place of dead ones", limit, func() bool {
		return !slices.ContainsFunc(rest, func(n *testNode) bool {
			s := n.neighbourhood(t)
			return !s.complete || len(s.live) < signaling.ReaderLinks || slices.ContainsFunc(s.live, func(id signaling.PeerID) bool { return dead[id] })
		})
	})
	t.Logf("all places of the dead are filled after %v", time.Since(died).Round(time.Millisecond))
	commit("third", rest)
	for _, n := range rest {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		s, err := n.Wait(ctx, Condition{Links: 1, Synced: true})
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if len(s.Members) != count-1 {
			t.Errorf("the status has %d members, the room %d others", len(s.Members), count-1)
		}
	}
}

// report logs how many links the nodes have.
func report(t *testing.T, when string, took time.Duration, nodes []*testNode) {
	t.Helper()
	for kind, of := range map[string]func(*testNode) bool{
		"writers":  func(n *testNode) bool { return n.cfg.Keys.CanWrite() && !n.cfg.Replica },
		"replicas": func(n *testNode) bool { return n.cfg.Keys.CanWrite() && n.cfg.Replica },
		"readers":  func(n *testNode) bool { return !n.cfg.Keys.CanWrite() },
	} {
		var links []int
		sum := 0
		for _, n := range nodes {
			if of(n) {
				links = append(links, len(n.neighbourhood(t).live))
				sum += links[len(links)-1]
			}
		}
		if len(links) > 0 {
			t.Logf("%s, after %v: %d %s have %d to %d links, %.1f in the mean", when, took.Round(time.Millisecond), len(links), kind,
				slices.Min(links), slices.Max(links), float64(sum)/float64(len(links)))
		}
	}
}

// crowd is a server that lists many members of whom none answers.
type crowd struct {
	events chan SignalEvent
	mu     sync.Mutex
	asked  map[signaling.PeerID]bool // who got a description
}

func (c *crowd) Events() <-chan SignalEvent { return c.events }

func (c *crowd) Check() {}

func (c *crowd) Send(to signaling.PeerID, _ signaling.Description) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked[to] = true
	return nil
}

// TestLargeList: of 511 other members, a node tries to be linked with about 8.
func TestLargeList(t *testing.T) {
	c := &crowd{events: make(chan SignalEvent, 1), asked: map[signaling.PeerID]bool{}}
	joined := Joined{}
	for i := range 511 {
		joined.Members = append(joined.Members, signaling.Member{Peer: peerID(byte(i))})
	}
	c.events <- joined
	timing := quick()
	timing.repair = time.Hour // nobody takes the place of those that do not answer
	n, err := start(t.Context(), Config{Store: newMemStore("a"), Signaler: c, Peer: peerID(128), Keys: newKeys(t)}, timing)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = n.Close() }()
	a := &testNode{Node: n}
	var wanted []signaling.PeerID
	until(t, "every neighbour was addressed", 5*time.Second, func() bool {
		wanted = a.neighbourhood(t).wanted
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(wanted) > 0 && len(c.asked) >= len(wanted)
	})
	s := a.await(t, Condition{})
	unlinked := 0
	for _, m := range s.Members {
		if m.State == LinkUnlinked {
			unlinked++
		}
	}
	if len(wanted) > signaling.BrowserLinks || len(s.Members) != 511 || unlinked != 511-len(wanted) || s.Connections > len(wanted) {
		t.Errorf("%d neighbours, %d members of which %d are unlinked, %d connections", len(wanted), len(s.Members), unlinked, s.Connections)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.asked) != len(wanted) {
		t.Errorf("%d members got a description, %d are neighbours", len(c.asked), len(wanted))
	}
}

// TestSubstituteIsAskedAtOnce: who is to take the place of another is asked for an offer at once, though a neighbour is given some
// time to offer by itself.
func TestSubstituteIsAskedAtOnce(t *testing.T) {
	c := &crowd{events: make(chan SignalEvent, 1), asked: map[signaling.PeerID]bool{}}
	joined := Joined{}
	for range 40 {
		joined.Members = append(joined.Members, signaling.Member{Peer: peerID(byte(1 + rand.IntN(255)))})
	}
	c.events <- joined
	timing := quick()
	timing.want, timing.repair = time.Hour, 100*time.Millisecond
	n, err := start(t.Context(), Config{Store: newMemStore("a"), Signaler: c, Peer: peerID(0), Keys: newKeys(t)}, timing)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = n.Close() }()
	until(t, "somebody is asked", 20*time.Second, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.asked) > 0
	})
	graph := (&testNode{Node: n}).neighbourhood(t).graph
	c.mu.Lock()
	defer c.mu.Unlock()
	for id := range c.asked {
		if slices.Contains(graph, id) {
			t.Error("a neighbour was asked before its time to offer was over")
		}
	}
}

// TestUnlinkable: two neighbours that cannot be linked find others in each other's place, which keep those links though they
// are not in their graph; links that the graph has no more go away.
func TestUnlinkable(t *testing.T) {
	const limit = 3 * time.Minute // for a machine that has much else to do
	r := newRoom(t)
	r.timing.ping, r.timing.suspect, r.timing.dead = PingAfter, SuspectAfter, DeadAfter // nobody is silent but for being busy
	r.timing.repair, r.timing.attempt = 4*time.Second, AttemptTimeout
	for i := range signaling.FullMeshMembers {
		r.add(fmt.Sprint("n", i), byte(17*i))
	}
	until(t, "the first ones are linked", limit, func() bool {
		return !slices.ContainsFunc(r.nodes[:3], func(n *testNode) bool { return len(n.neighbourhood(t).live) < 2 })
	})
	for i := range 4 {
		r.add(fmt.Sprint("late ", i), byte(17*i+5))
	}
	graphOnly := func(except ...*testNode) bool {
		for _, n := range r.nodes {
			s := n.neighbourhood(t)
			if !slices.Contains(except, n) && (!s.complete || len(s.live) != len(s.graph)) {
				return false
			}
		}
		return true
	}
	until(t, "there are links of the graph only", limit, func() bool { return graphOnly() })

	a, b := r.irreplaceable()
	r.hub.hook(func(from, to signaling.PeerID, _ signaling.Description) bool {
		return (from != a.id || to != b.id) && (from != b.id || to != a.id)
	})
	for _, c := range a.openConns(t) {
		if c.peer == b.id {
			c.close(errDead)
		}
	}
	instead := func(n *testNode) []signaling.PeerID {
		s := n.neighbourhood(t)
		return slices.DeleteFunc(s.live, func(id signaling.PeerID) bool {
			return slices.Contains(s.graph, id) || !slices.Contains(s.wanted, id)
		})
	}
	var others []signaling.PeerID
	until(t, "both have links in the place of the lost one", limit, func() bool {
		others = instead(a) // while not all is settled, somebody else may be asked, too
		return len(others) > 0 && len(instead(b)) > 0 && a.neighbourhood(t).settled && b.neighbourhood(t).settled
	})
	// They outlast the time after which a link that nobody wants is closed.
	began := time.Now()
	until(t, "the time is over", 20*time.Second, func() bool { return time.Since(began) > 2*r.timing.surplus })
	for _, id := range others {
		if !slices.Contains(instead(a), id) {
			t.Error("a link in the place of another was closed")
		}
	}
	r.hub.hook(nil)
	until(t, "the two are linked and the other links are gone", limit, func() bool { return graphOnly() })
}

// TestSurplusOfBoth: a link that neither side needs is closed, though each may believe that the other asked for it; one that a side
// needs is kept by the other, also when that had said before that it needs none.
func TestSurplusOfBoth(t *testing.T) {
	r := newRoom(t)
	a, b := r.add("a", 1), r.add("b", 2)
	linked(t, a, b)
	// need makes n want a link to the other or not, as a change of the room's list would.
	need := func(n, other *testNode, needed bool) {
		n.inspect(t, func(l *loop) {
			if needed {
				l.near.wanted[other.id] = struct{}{}
				l.lookAfter(other.id)
				return
			}
			delete(l.near.wanted, other.id)
			l.members[other.id].list(false)
			l.members[other.id].asked.Store(true) // a request that was sent before comes late
		})
	}
	told := func(n *testNode) (here, there bool) {
		n.inspect(t, func(l *loop) {
			for _, k := range l.links {
				here, there = k.spareHere, k.spareThere
			}
		})
		return here, there
	}
	need(a, b, false)
	until(t, "b knows that a does not need the link", patience, func() bool { _, there := told(b); return there })
	need(a, b, true)
	until(t, "b knows that a needs it", patience, func() bool { _, there := told(b); return !there })
	need(b, a, false)
	until(t, "a knows that b does not", patience, func() bool { _, there := told(a); return there })
	if here, _ := told(a); here || len(a.openConns(t)) != 1 {
		t.Error("the link that a needs is gone, or a does not need it")
	}
	need(a, b, false)
	until(t, "the link is closed, and nobody looks after it", patience, func() bool {
		members := 0
		for _, n := range []*testNode{a, b} {
			n.inspect(t, func(l *loop) { members += len(l.members) + len(l.links) })
		}
		return members == 0
	})
}

// irreplaceable returns two neighbours that both have somebody new in their graph when the other is not there.
func (r *room) irreplaceable() (a, b *testNode) {
	r.t.Helper()
	var all []signaling.Member
	for _, n := range r.nodes {
		all = append(all, signaling.Member{Peer: n.id})
	}
	finds := func(a, without *testNode) bool {
		now := signaling.Graph(all, a.id)
		rest := slices.DeleteFunc(slices.Clone(all), func(m signaling.Member) bool { return m.Peer == without.id })
		return slices.Contains(now, without.id) &&
			slices.ContainsFunc(signaling.Graph(rest, a.id), func(id signaling.PeerID) bool { return !slices.Contains(now, id) })
	}
	for _, a := range r.nodes {
		for _, b := range r.nodes {
			if a != b && finds(a, b) && finds(b, a) {
				return a, b
			}
		}
	}
	r.t.Fatal("there are no such two")
	return nil, nil
}
