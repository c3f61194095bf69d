package meshtest

// Bounds of what a room goes through.
const (
	maxNames   = 60  // peers that there ever are in a run: a name is one printable letter
	splitSteps = 250 // a split lasts for so many steps at most
)

// room is who takes part in a simulation, and who may meet whom.
type room struct {
	newDatabase func(name string) (Machine, error)
	readers     bool // some are readers
	churn       bool // peers come and go
	splits      bool
	names       int // that were given away

	side      map[*Peer]bool // of the last split
	splitTill int
}

// join adds a peer with an empty database.
func (s *sim) join(writer bool) error {
	name := s.name()
	if s.newDatabase == nil {
		s.net.Add(name, writer)
		return nil
	}
	d, err := s.newDatabase(name)
	if err == nil {
		s.net.AddWith(name, writer, d)
	}
	return err
}

func (r *room) name() string {
	r.names++
	return string(rune('A' + r.names - 1))
}

// comeOrGo lets a new peer come, or one go for good, with all that nobody else has. Readers pass nothing on: where there are
// some, writers stay, as what only readers hold gets to nobody.
func (s *sim) comeOrGo(p *Peer) error {
	if s.rnd.IntN(2) == 0 {
		if s.names == maxNames || len(s.net.Peers) == maxPeers {
			return nil
		}
		s.tally.Joined++
		s.tally.Largest = max(s.tally.Largest, len(s.net.Peers)+1)
		return s.join(!s.readers || s.rnd.IntN(2) == 0)
	}
	if len(s.net.Peers) > 2 && !(s.readers && p.Writer) && !s.copies.quarrels(p) {
		s.tally.Left++
		s.net.Remove(p)
		delete(s.checked, p)
		s.copies.forget(p)
	}
	return nil
}

// split divides the room in two for a while.
func (s *sim) split() {
	if s.now < s.splitTill {
		return
	}
	s.splitTill = s.now + 1 + s.rnd.IntN(splitSteps)
	s.side = map[*Peer]bool{}
	halves := map[bool]bool{}
	for _, p := range s.net.Peers {
		s.side[p] = s.rnd.IntN(2) == 0
		halves[s.side[p]] = true
	}
	if len(halves) == 2 {
		s.tally.Splits++
	}
	s.net.CutUnless(s.mayMeet)
}

// mayMeet reports whether two peers are not kept apart.
func (s *sim) mayMeet(p, q *Peer) bool {
	if s.now < s.splitTill && s.side[p] != s.side[q] {
		return false
	}
	return s.copies.mayMeet(p, q, s.now)
}
