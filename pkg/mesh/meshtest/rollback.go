package meshtest

import (
	"fmt"
	"math/rand/v2"

	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
)

// Machine is a Database on a machine that is put back as a whole, or runs twice: nothing that the database keeps shows it.
type Machine interface {
	Database
	// Backup returns what the machine holds now. The machine goes on as it is.
	Backup() Backup
	// Renew gives the database a new site id, because its own versions may be in use elsewhere, and returns the commits that
	// are under it now. Unless again is false, which is wrong, what is in doubt is written anew.
	Renew(site syncproto.SiteID, again bool) []Commit
	// ForgetReached forgets how far the walk of a site was followed.
	ForgetReached(site syncproto.SiteID)
}

// Backup is what a Machine held.
type Backup interface {
	// Last is the highest local version that was ever used in it.
	Last() int64
	// Restore puts the machine back, and returns its database, which is to be opened anew.
	Restore() Database
	// Start starts another machine from what the first one's disk holds.
	Start(name string) Machine
}

// copies are the misfortunes of a simulation's machines: they are put back as a whole, and run twice. Nobody sees that when a
// store is opened.
type copies struct {
	rnd   *rand.Rand // of its own, so that a seed without misfortunes runs as it would anyway
	often float64
	again bool // a renewal writes anew what is in doubt

	saved map[*Peer]Backup
	at    map[*Peer]bool // whose own versions may be in use elsewhere
	// What was written under numbers that were used twice. Whoever takes it for covered may lack it, and nobody can tell.
	doubtful map[string]map[Cell]bool
	sites    map[syncproto.SiteID]bool // whose numbers those are
	// The one whom a peer meets for some steps after a misfortune, and again once it has a new site: so that what it wrote under
	// numbers in doubt goes by the way of somebody who knows it already.
	only     map[*Peer]*Peer
	friend   map[*Peer]*Peer
	until    map[*Peer]int
	renewals int
	keys     int // that were written to under such numbers only

	numbers map[number][]Commit // what was written under each of them
	feud    *feud
	before  map[*Peer]Backup // of the last commit; only for LosesCommit
}

// number is the number of a write.
type number struct {
	site    syncproto.SiteID
	version int64
}

// aloneSteps is for how many steps a peer meets nobody but one.
const aloneSteps = 100

func newCopies(seed uint64, variant Variant) *copies {
	c := &copies{rnd: rand.New(rand.NewPCG(seed, 1)), again: variant != RenewalRelogs,
		saved: map[*Peer]Backup{}, at: map[*Peer]bool{}, only: map[*Peer]*Peer{}, friend: map[*Peer]*Peer{}, until: map[*Peer]int{},
		doubtful: map[string]map[Cell]bool{}, sites: map[syncproto.SiteID]bool{}, numbers: map[number][]Commit{}, before: map[*Peer]Backup{}}
	if seed%3 == 0 || variant == RenewalRelogs {
		c.often = []float64{0.01, 0.03}[c.rnd.IntN(2)]
	}
	return c
}

// misfortune does something to a machine now and then, and reports whether it did.
func (s *sim) misfortune() bool {
	c := s.copies
	if c.feud != nil && s.feudGoesOn() {
		return true
	}
	if c.rnd.Float64() >= c.often {
		return false
	}
	p := s.net.Peers[c.rnd.IntN(len(s.net.Peers))]
	switch saved := c.saved[p]; {
	case !p.Writer || c.quarrels(p):
	case c.rnd.IntN(3) == 0 && s.beginFeud(p):
		return true
	case c.rnd.IntN(2) == 0 || saved == nil:
		c.saved[p] = machine(p).Backup()
	case c.rnd.IntN(3) > 0 || len(s.net.Peers) >= 8 || s.names == maxNames:
		s.putBack(p, saved)
		s.inDoubt(p)
		return true
	case !c.at[p]:
		q := s.twin(p)
		s.inDoubt(p)
		s.inDoubt(q)
		return true
	}
	return false
}

// forget forgets a peer that has left.
func (c *copies) forget(p *Peer) {
	delete(c.saved, p)
	delete(c.before, p)
	for q, friend := range c.friend {
		if friend == p {
			delete(c.friend, q)
		}
	}
}

func machine(p *Peer) Machine { return p.Store.(Machine) }

// putBack replaces a peer's machine with a backup of it. What others have reached in the walk of the lost time they forget
// here. Peers do not, unless they had come further than the backup goes: docs/PROTOCOL.md names it among what is not healed.
func (s *sim) putBack(p *Peer, to Backup) {
	s.dispute(p, to)
	for _, q := range s.net.Peers {
		machine(q).ForgetReached(p.Store.State().Site)
	}
	s.net.Crash(p, func() { p.Store = to.Restore() })
	delete(s.checked, p)
	s.tally.PutBack++
}

// dispute takes what a peer's site has written since an older state of its store out of the history, as it is in doubt.
func (s *sim) dispute(p *Peer, to Backup) {
	c, site := s.copies, p.stored().Site
	c.at[p], c.sites[site] = true, true
	writes := s.history[site]
	kept := len(writes)
	for kept > 0 && writes[kept-1].Version > to.Last() {
		kept--
		c.doubt(site, writes[kept])
	}
	s.history[site] = writes[:kept]
	for _, checked := range s.checked {
		checked[site] = min(checked[site], kept)
	}
}

func (c *copies) doubt(site syncproto.SiteID, w Commit) {
	c.numbers[number{site, w.Version}] = append(c.numbers[number{site, w.Version}], w)
	for key, x := range w.Cells {
		if c.doubtful[key] == nil {
			c.doubtful[key] = map[Cell]bool{}
		}
		c.doubtful[key][x] = true
	}
}

// beaten reports whether a doubtful write beats the cell, or made the same: then it may be missing where that is missing,
// because whoever holds that passes on nothing else. What a renewal wrote anew has to be another thing than what it was.
func (c *copies) beaten(key string, x Cell, anew bool) bool {
	for d := range c.doubtful[key] {
		if d.Covers(x) && !(anew && d == x) {
			return true
		}
	}
	return false
}

// twin starts a second machine with what the first one's disk holds.
func (s *sim) twin(p *Peer) *Peer {
	to := machine(p).Backup()
	s.dispute(p, to)
	name := s.name()
	q := s.net.AddWith(name, true, to.Start(name))
	s.copies.at[q] = true
	s.tally.Twins++
	return q
}

// alone lets a peer meet nobody but a friend for some steps.
func (s *sim) alone(p, friend *Peer) {
	c := s.copies
	c.only[p], c.friend[p], c.until[p] = friend, friend, s.now+aloneSteps
	if friend != nil && s.net.Find(p, friend) == nil && s.mayMeet(p, friend) {
		s.connect(p, friend)
	}
}

// inDoubt lets a peer write under numbers that are used twice, and then meet a friend.
func (s *sim) inDoubt(p *Peer) {
	c := s.copies
	for range c.rnd.IntN(3) {
		s.commit(p)
	}
	if q := s.net.Peers[c.rnd.IntN(len(s.net.Peers))]; q != p {
		s.alone(p, q)
	}
}

// mayMeet reports whether two peers are not kept apart by what happened to their machines.
func (c *copies) mayMeet(p, q *Peer, now int) bool {
	for _, x := range []*Peer{p, q} {
		if now > c.until[x] {
			delete(c.only, x)
		}
	}
	return (c.only[p] == nil || c.only[p] == q) && (c.only[q] == nil || c.only[q] == p)
}

// renewals gives those peers a new site that were told to take one.
func (s *sim) renewals() {
	for _, p := range s.net.Peers {
		if !p.disputed {
			continue
		}
		c := s.copies
		c.renewals++
		s.tally.Renewals++
		if s.parted(p) {
			s.tally.Parted++
		}
		site := syncproto.SiteID(fmt.Sprintf("%s%015d", p.Name[:1], c.renewals))
		s.net.Crash(p, func() {
			if writes := machine(p).Renew(site, c.again); len(writes) > 0 {
				for i := range writes {
					writes[i].anew = true
				}
				s.history[machine(p).State().Site] = writes
			}
		})
		delete(c.saved, p)
		delete(s.checked, p)
		c.at[p] = false
		s.alone(p, c.friend[p])
	}
}

// parted reports whether one other peer holds what p wrote under a number that was used twice, and another one takes it for
// covered and lacks it: what p writes anew then gets to it by way of the first one, who knows it already.
func (s *sim) parted(p *Peer) bool {
	site := p.stored().Site
	for at, commits := range s.copies.numbers {
		for _, w := range commits {
			holds, lacks := false, false
			for key, c := range w.Cells {
				if at.site != site || key[0] != 'x' || p.Store.CellOf(key) != c {
					continue
				}
				for _, q := range s.net.Peers {
					has := q.Store.CellOf(key) == c
					holds = holds || q != p && has
					lacks = lacks || q.stored().Vector[site] >= at.version && !has
				}
			}
			if holds && lacks {
				return true
			}
		}
	}
	return false
}

// doubtfulOnly reports whether what peers hold under a key differs only where a doubtful write is the highest.
func (c *copies) doubtfulOnly(key string, peers []*Peer) bool {
	var highest Cell
	for _, p := range peers {
		if x := p.Store.CellOf(key); !c.doubtful[key][x] && x.Covers(highest) {
			highest = x
		}
	}
	for _, p := range peers {
		if !p.Store.CellOf(key).Covers(highest) && !c.beaten(key, highest, true) {
			return false
		}
	}
	return true
}

// rest connects all peers, directly or through others, until nothing is said any more: also while some go on under a new site, or
// take a link from each other, since they have one.
func (s *sim) rest(mesh bool) error {
	before := -1
	for range 4 * (len(s.net.Peers) + 1) {
		missing := 0
		for i, p := range s.net.Peers {
			for _, q := range s.net.Peers[:i] {
				if (mesh || q == s.net.Peers[i-1]) && s.net.Find(p, q) == nil {
					s.net.Connect(p, q)
					missing++
				}
			}
		}
		if missing == 0 && s.copies.renewals == before {
			return nil
		}
		before = s.copies.renewals
		if !s.net.Run(quietTicks, settleTicks) {
			return fmt.Errorf("messages are still sent after %d ticks", settleTicks)
		}
		if s.renewals(); !s.net.Copies {
			return nil
		}
	}
	return fmt.Errorf("peers go on taking new sites: %d by now", s.copies.renewals)
}
