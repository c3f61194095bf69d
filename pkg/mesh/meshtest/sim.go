package meshtest

import (
	"fmt"
	"math/rand/v2"

	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
)

// Ticks that a simulation waits at its end: for stillness, and at most.
const (
	quietTicks  = syncproto.FeedTimeoutTicks / 4
	settleTicks = 4 * syncproto.FeedTimeoutTicks
)

// maxPeers is how many peers a run has at most; one run in largeRooms may have more than six.
const (
	maxPeers   = 40
	largeRooms = 25
)

// Commit is what a commit has made of the keys that it changed, under which own version.
type Commit struct {
	Version int64
	Cells   map[string]Cell
	anew    bool // by a renewal
}

// sim is one random run.
type sim struct {
	rnd     *rand.Rand
	net     Network
	variant Variant
	history map[syncproto.SiteID][]Commit
	checked map[*Peer]map[syncproto.SiteID]int // how many writes of a site are known to be covered since the peer was started
	now     int                                // the step
	keys    int
	delay   float64 // how often a request is left waiting
	lazy    float64 // how often a core is left alone after a call

	deletes  bool    // commits delete keys, too
	slowness float64 // how many connections are slow
	slow     map[*Conn]bool

	copies *copies
	room
	tally Tally
}

// Simulate makes one random run of the protocol over simulated peers with seeded faults, and returns what it did and what went
// wrong. After every step each write within a peer's vector must be covered by that peer, and each own one whatever the vector
// says. In the end, once all can reach each other and time has passed, replicas and vectors must be equal, and nothing may be
// said any more.
//
// Each peer's rows are in what newDatabase makes for it; nil: in a Store.
func Simulate(seed uint64, variant Variant, newDatabase func(name string) (Machine, error)) (Tally, error) {
	s := &sim{
		rnd: rand.New(rand.NewPCG(seed, 0)), variant: variant, history: map[syncproto.SiteID][]Commit{},
		checked: map[*Peer]map[syncproto.SiteID]int{}, slow: map[*Conn]bool{}, copies: newCopies(seed, variant),
		room: room{newDatabase: newDatabase},
	}
	err := s.run()
	s.tally.Runs, s.tally.Chunks, s.tally.Held, s.tally.Resumed = 1, s.net.Chunks, s.net.Held, s.net.Resumed
	s.tally.Messages = s.net.Messages
	return s.tally, err
}

func (s *sim) run() error {
	s.net.Copies = s.copies.often > 0
	s.net.Mutate, s.net.MutateApply = s.variant.mutate(), s.variant.mutateApply()
	s.deletes = s.newDatabase != nil
	s.net.Chunk = []int{0, 0, 1, 2, 3}[s.rnd.IntN(5)]
	s.keys = 1 + s.rnd.IntN(12)
	s.delay = []float64{0, 0.3, 0.7}[s.rnd.IntN(3)]
	s.lazy = []float64{0, 0.3, 0.7}[s.rnd.IntN(3)]
	s.slowness = []float64{0, 0.3, 0.6}[s.rnd.IntN(3)]
	s.readers = s.rnd.IntN(4) == 0
	s.splits, s.churn = s.rnd.IntN(3) == 0, s.rnd.IntN(3) == 0
	peers := 2 + s.rnd.IntN(5)
	if s.rnd.IntN(largeRooms) == 0 {
		peers += s.rnd.IntN(maxPeers - peers + 1)
	}
	for i := range peers {
		if err := s.join(!s.readers || i < 2 || s.rnd.IntN(2) == 0); err != nil {
			return err
		}
	}
	s.tally.Largest = peers
	faults := []float64{0.02, 0.08, 0.2}[s.rnd.IntN(3)]
	for range 100 + s.rnd.IntN(900) {
		s.now++
		var p *Peer
		var err error
		if !s.misfortune() {
			p, err = s.step(faults)
		}
		if err != nil {
			return err
		}
		if p != nil && s.rnd.Float64() >= s.lazy {
			s.net.Pump(p)
		}
		s.renewals()
		if err := s.check(); err != nil {
			return fmt.Errorf("step %d: %w", s.now, err)
		}
	}
	return s.stabilize()
}

// step does one random thing, and returns whose core was called; nil: none, or it was pumped already.
func (s *sim) step(faults float64) (*Peer, error) {
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
		return s.answer(), nil
	default:
		return s.deliver(), nil
	}
	return p, nil
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

// fault cuts a connection, for good or to make it anew at once, makes one, crashes a peer, makes its store refuse a group, splits
// the room, or lets a peer go for good or another one come.
func (s *sim) fault(p *Peer) (*Peer, error) {
	q, r := s.net.Peers[s.rnd.IntN(len(s.net.Peers))], s.rnd.IntN(24)
	switch {
	case r == 0 && !s.copies.at[p]: // a machine that was put back is not started again before it met somebody who knows
		s.crash(p)
	case r == 8:
		setFull(p, true)
	case r < 8 && len(s.net.Conns) > 0:
		c := s.net.Conns[s.rnd.IntN(len(s.net.Conns))]
		s.net.Cut(c)
		s.tally.Cuts++
		if r < 7 && s.mayMeet(c.Ends[0], c.Ends[1]) {
			s.connect(c.Ends[0], c.Ends[1])
		}
	case r == 9 && s.splits:
		s.split()
	case r == 10 && s.churn:
		return nil, s.comeOrGo(p)
	case r >= 9 && p != q && s.net.Find(p, q) == nil && s.mayMeet(p, q):
		s.connect(p, q)
	}
	return p, nil
}

// crash ends a peer, and starts it again.
func (s *sim) crash(p *Peer) {
	s.tally.Crashes++
	s.net.Crash(p, func() {
		switch before := s.copies.before[p]; {
		case s.variant == LosesCommit && before != nil:
			p.Store = before.Restore()
		case s.variant == TornApply && p.apply != nil && p.apply.result == nil:
			p.Store.Apply(syncproto.ApplyRequest{Claims: p.apply.request.Claims, Resume: p.apply.request.Resume})
		}
	})
	delete(s.copies.before, p)
	delete(s.checked, p)
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
		w := Write{Key: fmt.Sprintf("k%d", key), Value: int64(s.rnd.IntN(6))}
		if s.deletes && s.rnd.IntN(6) == 0 {
			w.Value = Deleted
		}
		writes = append(writes, w)
	}
	if s.copies.at[p] { // and a key that nobody else writes to, so that nothing beats it
		s.copies.keys++
		writes = append(writes, Write{Key: fmt.Sprintf("x%d", s.copies.keys), Value: 1})
	}
	if s.variant == LosesCommit {
		s.copies.before[p] = machine(p).Backup()
	}
	version, cells := p.Commit(writes...)
	if len(cells) == 0 {
		return // it changed nothing
	}
	w, site := Commit{Version: version, Cells: cells}, p.stored().Site
	if s.copies.at[p] {
		s.copies.doubt(site, w)
		return
	}
	s.history[site] = append(s.history[site], w)
}

// check asserts the invariant: what a peer's vector says is so, in its core as in its store, and what it wrote it holds.
func (s *sim) check() error {
	if len(s.net.Errors) > 0 {
		return s.net.Errors[0]
	}
	for _, p := range s.net.Peers {
		cellOf := p.Store.CellOf
		if s.checked[p] == nil {
			s.checked[p] = map[syncproto.SiteID]int{}
			cells := p.Store.Cells() // at once: all is looked up
			cellOf = func(key string) Cell { return cells[key] }
		}
		core, stored := p.Core.Vector(), p.stored()
		for site, writes := range s.history {
			claimed := max(core[site], stored.Vector[site])
			n := s.checked[p][site]
			for ; n < len(writes) && (writes[n].Version <= claimed || site == stored.Site); n++ {
				for key, c := range writes[n].Cells {
					switch w := writes[n]; {
					case cellOf(key).Covers(c) || s.copies.beaten(key, c, w.anew):
					case site == stored.Site:
						return fmt.Errorf("%s lacks %s of %.1s:%d, which it wrote itself", p.Name, key, string(site), w.Version)
					default:
						return fmt.Errorf("%s claims %.1s:%d and lacks %s of %.1s:%d", p.Name, string(site), claimed, key, string(site), w.Version)
					}
				}
			}
			s.checked[p][site] = n
		}
	}
	return nil
}

// setFull makes a peer's store refuse a group of its next apply, or not. Not every database can.
func setFull(p *Peer, full bool) {
	if store, ok := p.Store.(*Store); ok {
		store.SetFull(full)
	}
}

// stabilize connects all peers, directly or through others, and asserts what must be so once everything has come to rest.
func (s *sim) stabilize() error {
	mesh := s.readers || s.rnd.IntN(3) > 0 || s.net.Copies
	for _, p := range s.net.Peers {
		setFull(p, false)
		for p.apply != nil { // it may have been carried out, and cost a link
			p.Answer(len(p.reads))
			s.net.Pump(p)
		}
	}
	s.net.Settle()
	if err := s.rest(mesh); err != nil {
		return err
	}
	if err := s.check(); err != nil {
		return fmt.Errorf("in the end: %w", err)
	}
	first := s.net.Peers[0].Store.Cells()
	told := syncproto.Vector{} // of peers that have left: what the first one heard of them
	for site := range s.history {
		told[site] = s.net.Peers[0].Core.Status().Vector[site]
	}
	for _, p := range s.net.Peers {
		state := p.Store.State()
		told[state.Site] = state.Own
	}
	for _, p := range s.net.Peers {
		for key, c := range p.Store.Cells() {
			if first[key] != c && !s.copies.doubtfulOnly(key, s.net.Peers) {
				return fmt.Errorf("in the end %s of %s is %v, of %s %v", key, s.net.Peers[0].Name, first[key], p.Name, c)
			}
		}
		if len(p.Store.Cells()) != len(first) && !s.net.Copies {
			return fmt.Errorf("in the end %s has %d keys, %s %d", p.Name, len(p.Store.Cells()), s.net.Peers[0].Name, len(first))
		}
		status := p.Core.Status()
		for site := range s.history {
			if s.copies.sites[site] {
				continue
			}
			if last := told[site]; status.Vector[site] != last {
				return fmt.Errorf("in the end %s covers %.1s:%d, not %d", p.Name, string(site), status.Vector[site], last)
			}
		}
		if !status.Synced {
			return fmt.Errorf("in the end %s is not synced: %+v", p.Name, status.Links)
		}
	}
	return nil
}
