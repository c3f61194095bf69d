package meshtest

import (
	"flag"
	"fmt"
	"testing"
)

var cores = flag.Int("cores", 1000, "cores of TestSpread")

const (
	spreadDegree = 8
	maxHops      = 6
	maxCopies    = 1.15 // per member, of a change, once a site's tree has settled
	settling     = 3    // commits of a site until it has
)

// A change reaches everybody within a few hops, and over about one link each once the tree of its site has settled.
func TestSpread(t *testing.T) {
	skipUnderRace(t)
	s := NewSpread(1, *cores, spreadDegree)
	if !s.Rest(20, 400) {
		t.Fatal("the links are never done with their hellos")
	}
	for site := range 3 {
		p := s.Peers[site*len(s.Peers)/3]
		for commit := range settling + 2 {
			before, _ := s.Received()
			hops := s.Hops(p, fmt.Sprintf("%d/%d", site, commit), 20)
			if !s.Rest(20, 400) {
				t.Fatal("messages are still sent")
			}
			after, _ := s.Received()
			copies := float64(after-before) / float64(len(s.Peers)-1)
			t.Logf("site %d, commit %d: %d hops, %.3f copies", site, commit, hops, copies)
			if hops == 0 || hops > maxHops {
				t.Errorf("site %d, commit %d: %d hops, not 1 to %d", site, commit, hops, maxHops)
			}
			if commit >= settling && copies > maxCopies {
				t.Errorf("site %d, commit %d: %.3f copies, not %.2f", site, commit, copies, maxCopies)
			}
		}
	}
	if err := s.Differ(); err != nil {
		t.Error(err)
	}
}

// With writers everywhere, few changes come twice: in a full mesh next to none, in a sparse graph few once the trees have settled.
// Then a third of the peers goes without a goodbye, and those left are equal all the same.
func TestSpreadUnderLoad(t *testing.T) {
	skipUnderRace(t)
	for _, c := range []struct {
		peers, degree int
		settle, write int // rounds
		most          float64
	}{
		{8, 7, 0, 400, 0.02},
		{64, spreadDegree, 120, 60, 0.15},
	} {
		t.Run(fmt.Sprint(c.peers), func(t *testing.T) {
			s := NewSpread(2, c.peers, c.degree)
			s.Rest(20, 400)
			s.write(c.settle)
			before, redundantBefore := s.Received()
			s.write(c.write)
			if !s.Rest(20, 400) {
				t.Fatal("messages are still sent")
			}
			after, redundant := s.Received()
			changes, redundant := after-before, redundant-redundantBefore
			t.Logf("%d changes received, %d of them twice", changes, redundant)
			if float64(redundant) > c.most*float64(changes) {
				t.Errorf("%d of %d changes came twice, more than %.0f percent", redundant, changes, 100*c.most)
			}
			if err := s.Differ(); err != nil {
				t.Fatal(err)
			}
			s.Kill(c.peers / 3)
			s.write(c.write)
			if !s.Rest(20, 400) {
				t.Fatal("messages are still sent after some are gone")
			}
			if err := s.Differ(); err != nil {
				t.Errorf("after some are gone: %v", err)
			}
		})
	}
}

// write lets each peer commit in one round in twenty.
func (s *Spread) write(rounds int) {
	for range rounds {
		for _, p := range s.Peers {
			if s.rnd.IntN(20) == 0 {
				p.Commit(Write{Key: fmt.Sprint("k", s.rnd.IntN(1000)), Value: int64(s.rnd.IntN(1000))})
				s.dirty[p] = true
			}
		}
		s.Round()
	}
}
