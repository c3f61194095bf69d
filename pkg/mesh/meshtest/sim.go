package meshtest

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
)

// Ticks that a simulation waits at its end: for stillness, and at most.
const (
	quietTicks  = syncproto.FeedTimeoutTicks / 4
	settleTicks = 4 * syncproto.FeedTimeoutTicks
)

// Variant is a way to get the protocol wrong, which a simulation has to notice.
type Variant string

// The variants. Correct is none.
const (
	Correct          Variant = ""
	NoDeps           Variant = "no deps"
	DepsFromVector   Variant = "deps from the vector, not from the log"
	ResumePastHeld   Variant = "resume past held entries"
	ClaimsAtSending  Variant = "claims as of sending, not of the read"
	ClaimsInTheMidst Variant = "claims in the middle of a walk"
)

// mutate returns what makes a sender wrong in that way.
func (v Variant) mutate() func(*Conn, *Peer, *syncproto.Changes) {
	switch v {
	case NoDeps:
		return func(_ *Conn, _ *Peer, m *syncproto.Changes) {
			if m.Claims != nil {
				m.Deps = syncproto.Vector{}
			}
		}
	case DepsFromVector:
		return func(_ *Conn, _ *Peer, m *syncproto.Changes) {
			deps := syncproto.Vector{}
			for site, version := range m.Deps {
				if m.Claims.Covers(site, version) {
					deps[site] = version
				}
			}
			m.Deps = deps
		}
	case ResumePastHeld:
		return func(c *Conn, p *Peer, m *syncproto.Changes) {
			m.Reached = max(m.Reached, c.Walked[slices.Index(c.Ends[:], p)])
		}
	case ClaimsAtSending:
		return func(_ *Conn, p *Peer, m *syncproto.Changes) {
			if m.Claims != nil {
				m.Claims = p.Core.Vector()
			}
		}
	case ClaimsInTheMidst:
		return func(_ *Conn, p *Peer, m *syncproto.Changes) {
			if m.Claims == nil {
				m.Claims, m.Deps = p.Core.Vector(), syncproto.Vector{}
			}
		}
	}
	return nil
}

// write is a commit, for the invariant.
type write struct {
	version int64
	cells   map[string]Cell
}

// sim is one random run.
type sim struct {
	rnd     *rand.Rand
	net     Network
	history map[syncproto.SiteID][]write
	checked map[*Peer]map[syncproto.SiteID]int // how many writes of a site are known to be covered; that never ends
	keys    int
	delay   float64 // how often a request is left waiting
	lazy    float64 // how often a core is left alone after a call

	slowness float64 // how many connections are slow
	slow     map[*Conn]bool
}

// Simulate makes one random run of the protocol over simulated peers with seeded faults, and returns what went wrong. After
// every step each write within a peer's vector must be covered by that peer. In the end, once all can reach each
// other and time has passed, replicas and vectors must be equal, and nothing may be said any more.
func Simulate(seed uint64, variant Variant) error {
	s := &sim{
		rnd: rand.New(rand.NewPCG(seed, 0)), history: map[syncproto.SiteID][]write{},
		checked: map[*Peer]map[syncproto.SiteID]int{}, slow: map[*Conn]bool{},
	}
	s.net.Mutate = variant.mutate()
	s.net.Chunk = []int{0, 0, 1, 2, 3}[s.rnd.IntN(5)]
	s.keys = 1 + s.rnd.IntN(12)
	s.delay = []float64{0, 0.3, 0.7}[s.rnd.IntN(3)]
	s.lazy = []float64{0, 0.3}[s.rnd.IntN(2)]
	s.slowness = []float64{0, 0.3, 0.6}[s.rnd.IntN(3)]
	readers := s.rnd.IntN(4) == 0
	for i := range 2 + s.rnd.IntN(5) {
		s.net.Add(string(rune('a'+i)), !readers || i < 2 || s.rnd.IntN(2) == 0)
	}
	faults := []float64{0.02, 0.08, 0.2}[s.rnd.IntN(3)]
	for step := range 100 + s.rnd.IntN(900) {
		p := s.step(faults)
		if p != nil && s.rnd.Float64() >= s.lazy {
			s.net.Pump(p)
		}
		if err := s.check(); err != nil {
			return fmt.Errorf("step %d: %w", step, err)
		}
	}
	return s.stabilize(readers)
}

// step does one random thing, and returns whose core was called; nil: none, or it was pumped already.
func (s *sim) step(faults float64) *Peer {
	p := s.net.Peers[s.rnd.IntN(len(s.net.Peers))]
	if s.rnd.Float64() < faults {
		return s.fault(p)
	}
	switch s.rnd.IntN(12) {
	case 0:
		s.commit(p)
	case 1:
		p.Core.Tick()
	case 2, 3, 4, 5, 6:
		return s.answer()
	default:
		return s.deliver()
	}
	return p
}

// answer carries out a request of some peer, or answers it.
func (s *sim) answer() *Peer {
	at := s.rnd.IntN(len(s.net.Peers))
	for i := range s.net.Peers {
		p := s.net.Peers[(at+i)%len(s.net.Peers)]
		n := p.Pending()
		switch {
		case p.committed && s.rnd.IntN(2) == 0:
			p.Notify()
		case n == 0:
			continue
		case s.rnd.Float64() < s.delay:
			p.CarryOut(s.rnd.IntN(n))
		default:
			p.Answer(s.rnd.IntN(n))
		}
		return p
	}
	return nil
}

// deliver delivers a message of some connection; one of a slow connection not always.
func (s *sim) deliver() *Peer {
	if len(s.net.Conns) == 0 {
		return nil
	}
	at, from := s.rnd.IntN(len(s.net.Conns)), s.rnd.IntN(2)
	for i := range s.net.Conns {
		c := s.net.Conns[(at+i)%len(s.net.Conns)]
		if len(c.Queues[from]) > 0 && (!s.slow[c] || s.rnd.IntN(20) == 0) {
			s.net.Deliver(c, from)
			return c.Ends[1-from]
		}
	}
	return nil
}

// fault cuts a connection, for good or to make it anew at once, makes one, or crashes a peer.
func (s *sim) fault(p *Peer) *Peer {
	q, r := s.net.Peers[s.rnd.IntN(len(s.net.Peers))], s.rnd.IntN(20)
	switch {
	case r == 0:
		s.net.Crash(p)
	case r < 9 && len(s.net.Conns) > 0:
		c := s.net.Conns[s.rnd.IntN(len(s.net.Conns))]
		s.net.Cut(c)
		if r < 7 {
			s.connect(c.Ends[0], c.Ends[1])
		}
	case r >= 9 && p != q && s.net.Find(p, q) == nil:
		s.connect(p, q)
	}
	return p
}

// connect makes a connection, which may be a slow one.
func (s *sim) connect(p, q *Peer) {
	c := s.net.Connect(p, q)
	s.slow[c] = s.rnd.Float64() < s.slowness
}

func (s *sim) commit(p *Peer) {
	if !p.Writer {
		return
	}
	var writes []Write
	for _, key := range s.rnd.Perm(s.keys)[:1+s.rnd.IntN(s.keys)] {
		writes = append(writes, Write{Key: fmt.Sprintf("k%d", key), Value: int64(s.rnd.IntN(6))})
	}
	p.Commit(writes...)
	w := write{version: p.Store.State().Own, cells: map[string]Cell{}}
	for _, x := range writes {
		w.cells[x.Key] = p.Store.CellOf(x.Key)
	}
	s.history[p.Store.site] = append(s.history[p.Store.site], w)
}

// check asserts the invariant: what a peer's vector says is so, in its core as in its store.
func (s *sim) check() error {
	if len(s.net.Errors) > 0 {
		return s.net.Errors[0]
	}
	for _, p := range s.net.Peers {
		if s.checked[p] == nil {
			s.checked[p] = map[syncproto.SiteID]int{}
		}
		core, stored := p.Core.Vector(), p.Store.vector
		for site, writes := range s.history {
			version := max(core[site], stored[site])
			for n := s.checked[p][site]; n < len(writes) && writes[n].version <= version; n++ {
				for key, c := range writes[n].cells {
					if !p.Store.CellOf(key).Covers(c) {
						return fmt.Errorf("%s claims %.1s:%d and lacks %s of %.1s:%d", p.Name, string(site), version, key, string(site), writes[n].version)
					}
				}
				s.checked[p][site] = n + 1
			}
		}
	}
	return nil
}

// stabilize connects all peers, directly or through others, and asserts what must be so once everything has come to rest.
func (s *sim) stabilize(readers bool) error {
	mesh := readers || s.rnd.IntN(3) > 0
	for i, p := range s.net.Peers {
		for _, q := range s.net.Peers[:i] {
			if (mesh || q == s.net.Peers[i-1]) && s.net.Find(p, q) == nil {
				s.net.Connect(p, q)
			}
		}
	}
	if !s.net.Run(quietTicks, settleTicks) {
		return fmt.Errorf("messages are still sent after %d ticks", settleTicks)
	}
	if err := s.check(); err != nil {
		return fmt.Errorf("in the end: %w", err)
	}
	first := s.net.Peers[0].Store.Cells()
	for _, p := range s.net.Peers {
		for key, c := range p.Store.Cells() {
			if first[key] != c {
				return fmt.Errorf("in the end %s of %s is %v, of %s %v", key, s.net.Peers[0].Name, first[key], p.Name, c)
			}
		}
		if len(p.Store.Cells()) != len(first) {
			return fmt.Errorf("in the end %s has %d keys, %s %d", p.Name, len(p.Store.Cells()), s.net.Peers[0].Name, len(first))
		}
		status := p.Core.Status()
		for site, writes := range s.history {
			if last := writes[len(writes)-1].version; status.Vector[site] != last {
				return fmt.Errorf("in the end %s covers %.1s:%d, not %d", p.Name, string(site), status.Vector[site], last)
			}
		}
		if !status.Synced {
			return fmt.Errorf("in the end %s is not synced: %+v", p.Name, status.Links)
		}
	}
	return nil
}
