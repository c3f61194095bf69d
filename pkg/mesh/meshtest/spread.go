package meshtest

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

// roundsPerTick is how many rounds pass in a tick: a message takes a round, which makes 12.5 ms one way.
const roundsPerTick = 4

// Spread is a network in which every message takes one round. It measures how a change gets around.
type Spread struct {
	Network
	rnd    *rand.Rand
	rounds int
	dirty  map[*Peer]bool
}

// NewSpread returns writers of which everybody is linked to everybody, or in a ring and to others at random up to about
// degree links each.
func NewSpread(seed uint64, peers, degree int) *Spread {
	s := &Spread{rnd: rand.New(rand.NewPCG(seed, 1)), dirty: map[*Peer]bool{}}
	for i := range peers {
		s.Add(fmt.Sprintf("%04x", i), true)
	}
	links := map[*Peer]int{}
	connect := func(p, q *Peer) {
		if p != q && s.Find(p, q) == nil {
			s.Connect(p, q)
			links[p]++
			links[q]++
		}
	}
	for i, p := range s.Peers {
		connect(p, s.Peers[(i+1)%peers])
	}
	for i, p := range s.Peers {
		if degree >= peers-1 {
			for _, q := range s.Peers[:i] {
				connect(p, q)
			}
			continue
		}
		for tries := 0; links[p] < degree; tries++ {
			q := s.Peers[s.rnd.IntN(peers)]
			if links[q] <= degree+tries/(8*peers) { // the last ones may find all others taken
				connect(p, q)
			}
		}
	}
	return s
}

// Round delivers what was sent in the round before, and lets every peer do what follows from it.
func (s *Spread) Round() {
	type delivery struct {
		conn *Conn
		from int
		n    int
	}
	var list []delivery
	for _, c := range s.Conns {
		for from := range 2 {
			if n := len(c.Queues[from]); n > 0 {
				list = append(list, delivery{c, from, n})
			}
		}
	}
	for _, d := range list {
		for range d.n {
			s.Deliver(d.conn, d.from)
		}
		s.dirty[d.conn.Ends[1-d.from]] = true
	}
	if s.rounds++; s.rounds%roundsPerTick == 0 {
		for _, p := range s.Peers {
			p.Core.Tick()
			s.dirty[p] = true
		}
	}
	for _, p := range s.Peers {
		if s.dirty[p] {
			s.Work(p)
		}
	}
	clear(s.dirty)
}

// Work lets a peer do all that it has to do.
func (s *Spread) Work(p *Peer) {
	p.Notify()
	s.Pump(p)
	for p.Pending() > 0 {
		p.Answer(0)
		s.Pump(p)
	}
}

// Rest lets rounds pass until ticks have passed without a message, and reports whether that took at most limit ticks.
func (s *Spread) Rest(ticks, limit int) bool {
	for still, n := 0, 0; n < limit*roundsPerTick; n++ {
		before := s.Messages
		s.Round()
		if still++; s.Messages != before {
			still = 0
		}
		if still >= ticks*roundsPerTick {
			return true
		}
	}
	return false
}

// Received returns how many changes all peers received, and how many of them they had already.
func (s *Spread) Received() (changes, redundant int64) {
	for _, p := range s.Peers {
		a := p.Core.Status().Applied
		changes += a.Changes
		redundant += a.Redundant
	}
	return changes, redundant
}

// Hops writes a key at p and returns after how many rounds every peer holds it; 0 if not within limit.
func (s *Spread) Hops(p *Peer, key string, limit int) int {
	p.Commit(Write{Key: key, Value: int64(s.rounds)})
	want := p.Store.CellOf(key)
	s.Work(p)
	for hops := 1; hops <= limit; hops++ {
		s.Round()
		if !slices.ContainsFunc(s.Peers, func(q *Peer) bool { return !q.Store.CellOf(key).Covers(want) }) {
			return hops
		}
	}
	return 0
}

// Differ returns what is not equal between peers at rest; nil if all is.
func (s *Spread) Differ() error {
	if len(s.Errors) > 0 {
		return s.Errors[0]
	}
	first := s.Peers[0]
	cells, vector := first.Store.Cells(), first.Core.Vector()
	for _, p := range s.Peers[1:] {
		other := p.Store.Cells()
		for key, c := range cells {
			if other[key] != c {
				return fmt.Errorf("%s of %s is %v, of %s %v", key, first.Name, c, p.Name, other[key])
			}
		}
		v := p.Core.Vector()
		if len(other) != len(cells) || !v.CoversAll(vector) || !vector.CoversAll(v) {
			return fmt.Errorf("%s and %s differ in their keys or vectors", first.Name, p.Name)
		}
	}
	return nil
}

// Kill ends n peers, as a crash does, and mends the ring of the others.
func (s *Spread) Kill(n int) {
	for range n {
		at := s.rnd.IntN(len(s.Peers))
		p := s.Peers[at]
		for _, c := range slices.Clone(s.Conns) {
			if c.Ends[0] == p || c.Ends[1] == p {
				s.Cut(c)
			}
		}
		s.Peers = slices.Delete(s.Peers, at, at+1)
	}
	for i, p := range s.Peers {
		if q := s.Peers[(i+1)%len(s.Peers)]; p != q && s.Find(p, q) == nil {
			s.Connect(p, q)
		}
	}
}
