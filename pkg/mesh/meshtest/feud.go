package meshtest

import "fmt"

// A feud is the story that a renewal is made for. Two files write different things under the same numbers; witness hears of those
// of the first file, friend of those of the other one, and nobody else of either. Then the other file meets witness, and is told to
// take a new site. Next it meets friend, who knows its writes already, and at last friend meets witness.
type feud struct {
	first, other    *Peer // one and the same, if it is put back
	witness, friend *Peer
	saved           Backup // that other is put back to; nil: it is a twin
	phase           feudPhase
	till            int       // the step at which the phase ends in any case
	keys            [2]string // that the first file and the other one wrote to under such numbers; empty: it has not
}

type feudPhase int

// The phases, each named by who meet in it.
const (
	firstAndWitness feudPhase = iota
	otherAndFriend
	otherAndWitness
	renewedAndFriend
	friendAndWitness
)

// quarrels reports whether a peer takes part in a feud.
func (c *copies) quarrels(p *Peer) bool {
	f := c.feud
	return f != nil && (p == f.first || p == f.other || p == f.witness || p == f.friend)
}

// beginFeud begins one about a peer's site, and reports whether there is anybody to take part in it.
func (s *sim) beginFeud(p *Peer) bool {
	c := s.copies
	var others []*Peer
	for _, i := range c.rnd.Perm(len(s.net.Peers)) {
		if q := s.net.Peers[i]; q != p && q.Writer && !c.at[q] {
			others = append(others, q)
		}
	}
	if c.feud != nil || c.at[p] || len(others) < 2 || s.names == maxNames {
		return false
	}
	f := &feud{first: p, other: p, witness: others[0], friend: others[1]}
	c.feud = f
	if len(s.net.Peers) < maxPeers && c.rnd.IntN(2) == 0 {
		f.other = s.twin(p)
		f.keys[1] = s.commitInDoubt(f.other)
	} else {
		f.saved = machine(p).Backup()
	}
	for range 2 + c.rnd.IntN(2) { // more than other, or witness would not notice
		f.keys[0] = s.commitInDoubt(p)
	}
	s.feudPhase(firstAndWitness)
	return true
}

// commitInDoubt lets a peer write, and returns the key that nobody else writes to; none if the numbers are not in doubt, or not yet.
func (s *sim) commitInDoubt(p *Peer) string {
	s.commit(p)
	if !s.copies.at[p] {
		return ""
	}
	return fmt.Sprintf("x%d", s.copies.keys)
}

// feudPhase lets those meet whose turn it is, and nobody else of the feud anybody.
func (s *sim) feudPhase(phase feudPhase) {
	f := s.copies.feud
	f.phase, f.till = phase, s.now+aloneSteps
	a, b := f.meeting()
	for _, p := range []*Peer{f.first, f.other, f.witness, f.friend} {
		s.copies.only[p], s.copies.until[p] = p, f.till
	}
	s.copies.only[a], s.copies.only[b] = b, a
	if s.side != nil {
		s.side[b] = s.side[a]
	}
	s.net.CutUnless(s.mayMeet)
	if s.net.Find(a, b) == nil {
		s.connect(a, b)
	}
	if s.copies.rnd.IntN(2) == 0 {
		s.net.Converse(a, b)
	}
}

func (f *feud) meeting() (a, b *Peer) {
	switch f.phase {
	case firstAndWitness:
		return f.first, f.witness
	case otherAndWitness:
		return f.other, f.witness
	case friendAndWitness:
		return f.friend, f.witness
	default:
		return f.other, f.friend
	}
}

// feudGoesOn brings it to its next phase, if it is time for that, and reports whether it did.
func (s *sim) feudGoesOn() bool {
	f := s.copies.feud
	late := s.now > f.till
	if !s.feudReady(late) {
		if late {
			s.copies.feud = nil
		}
		return false
	}
	s.feudPhase(f.phase + 1)
	return true
}

// feudReady reports whether its next phase can begin, and does what that takes.
func (s *sim) feudReady(late bool) bool {
	c, f := s.copies, s.copies.feud
	knows := func(p *Peer, key string) bool { return key != "" && p.Store.CellOf(key) != Cell{} }
	switch f.phase {
	case firstAndWitness:
		if f.saved == nil {
			return knows(f.witness, f.keys[0])
		}
		if f.witness.stored().Vector[f.first.stored().Site] <= f.saved.Last()+1 {
			return false
		}
		s.putBack(f.first, f.saved)
		f.keys[1] = s.commitInDoubt(f.other)
		return true
	case otherAndFriend:
		c.friend[f.other] = f.friend
		return late || knows(f.friend, f.keys[1])
	case otherAndWitness:
		return late || !c.at[f.other]
	case renewedAndFriend:
		if late && !c.at[f.other] {
			s.tally.Feuds++
		}
		return late
	default:
		return false
	}
}
