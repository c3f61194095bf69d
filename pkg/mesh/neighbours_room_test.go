package mesh

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/crmesh/crmesh/pkg/signaling"
)

// modelRoom is the neighbours of all members of a room on one machine, in virtual time. Attempts at links share the machine.
type modelRoom struct {
	now     time.Time
	ids     []signaling.PeerID
	near    map[signaling.PeerID]*neighbours // of those that live
	links   map[[2]signaling.PeerID]struct{}
	tries   map[[2]signaling.PeerID]time.Duration // work that went into an attempt
	begun   int                                   // attempts
	inVain  int                                   // of these, at dead members
	died    time.Time
	workers float64 // seconds of work done in a second
	work    float64 // pieces that can be done now
	random  *rand.Rand
}

const (
	modelStep   = 500 * time.Millisecond
	modelPiece  = 100 * time.Millisecond // of the work at an attempt, done at once
	modelAnswer = 200 * time.Millisecond // work until the other side has answered
	modelOpen   = 500 * time.Millisecond // work until the link is open
)

func newModelRoom(members int, workers float64) *modelRoom {
	random := rand.New(rand.NewPCG(1, 2))
	r := &modelRoom{now: time.Unix(1_000_000, 0), ids: modelIDs(members), near: map[signaling.PeerID]*neighbours{},
		links: map[[2]signaling.PeerID]struct{}{}, tries: map[[2]signaling.PeerID]time.Duration{}, workers: workers, random: random}
	metas := map[signaling.PeerID]signaling.Meta{}
	for i, id := range r.ids {
		metas[id] = signaling.Meta{Replica: i%16 == 1, Reader: i%8 == 7}
	}
	for _, id := range r.ids {
		listed := maps.Clone(metas)
		delete(listed, id)
		r.near[id] = newNeighbours(signaling.Member{Peer: id, Meta: metas[id]}, defaultTiming(), listed)
		r.near[id].choose()
	}
	return r
}

func modelPair(a, b signaling.PeerID) [2]signaling.PeerID {
	if a.Compare(b) > 0 {
		a, b = b, a
	}
	return [2]signaling.PeerID{a, b}
}

// kill ends members without a word.
func (r *modelRoom) kill(n int) {
	r.died = r.now
	for _, id := range r.ids[:n] {
		delete(r.near, id)
	}
}

func (r *modelRoom) at(self, id signaling.PeerID) linkNow {
	p := modelPair(self, id)
	_, open := r.links[p]
	switch lives := r.near[id] != nil; {
	case open && lives:
		return linkNow{open: true, heard: r.now, live: true, writer: !r.near[id].self.Meta.Reader}
	case open && r.now.Sub(r.died) < DeadAfter:
		return linkNow{open: true, heard: r.died, live: true, writer: true}
	default:
		return linkNow{coming: r.tries[p] >= modelAnswer}
	}
}

// step lets the attempts go on, and everybody look at its neighbours.
func (r *modelRoom) step() {
	r.now = r.now.Add(modelStep)
	wanted := map[[2]signaling.PeerID]struct{}{}
	for self, near := range r.near {
		for id := range near.wanted {
			wanted[modelPair(self, id)] = struct{}{}
		}
	}
	var busy [][2]signaling.PeerID
	maps.DeleteFunc(r.tries, func(p [2]signaling.PeerID, _ time.Duration) bool { _, ok := wanted[p]; return !ok })
	for p := range wanted {
		lives := r.near[p[0]] != nil && r.near[p[1]] != nil
		if _, open := r.links[p]; open && lives {
			continue
		}
		if _, on := r.tries[p]; !on {
			r.begun++
			r.tries[p] = 0
			if !lives {
				r.inVain++
			}
		}
		if lives {
			busy = append(busy, p)
		}
	}
	slices.SortFunc(busy, func(a, b [2]signaling.PeerID) int { return cmp.Or(a[0].Compare(b[0]), a[1].Compare(b[1])) })
	r.random.Shuffle(len(busy), func(i, j int) { busy[i], busy[j] = busy[j], busy[i] })
	// Each link takes its own time, and the machine takes up as many as it can.
	for r.work += r.workers * modelStep.Seconds() / modelPiece.Seconds(); r.work >= 1 && len(busy) > 0; r.work-- {
		p := busy[0]
		busy = busy[1:]
		if r.tries[p] += modelPiece; r.tries[p] >= modelOpen {
			r.links[p] = struct{}{}
			delete(r.tries, p)
		}
	}
	r.work = min(r.work, 1)
	for self, near := range r.near {
		if near.look(r.now, false, func(id signaling.PeerID) linkNow { return r.at(self, id) }) {
			near.choose()
		}
	}
}

// until lets time pass until everybody has live links in each place, and returns how long that took.
func (r *modelRoom) until(t *testing.T, limit time.Duration) time.Duration {
	t.Helper()
	for began := r.now; r.now.Sub(began) < limit; {
		r.step()
		if !slices.ContainsFunc(r.ids, func(self signaling.PeerID) bool { return r.near[self] != nil && !r.filled(self) }) {
			return r.now.Sub(began)
		}
	}
	t.Fatalf("after %v the graph is still not whole", limit)
	return 0
}

// filled reports whether a member is linked with all that it wants but those that are out.
func (r *modelRoom) filled(self signaling.PeerID) bool {
	for id := range r.near[self].wanted {
		if k := r.at(self, id); !r.near[self].out(id) && (!k.open || r.near[id] == nil) {
			return false
		}
	}
	return true
}

// TestManyGone: where 30 of 100 members die and nobody tells, all places are filled soon after their links are seen to be silent,
// and stay so: who is dead is not tried again and again.
func TestManyGone(t *testing.T) {
	r := newModelRoom(64, 1000)
	r.until(t, time.Minute)
	r.kill(64 * 3 / 10)
	before := r.begun
	if took := r.until(t, 10*time.Minute); took > 3*RepairAfter {
		t.Errorf("after %v each place is filled, want %v at most", took, 3*RepairAfter)
	} else {
		t.Logf("each place is filled after %v, with %d attempts, of which %d at dead members", took, r.begun-before, r.inVain)
	}
	inVain := r.inVain
	for range (ForgetAfter + 30*time.Second) / modelStep {
		r.step()
		for self := range r.near {
			if !r.filled(self) {
				t.Fatal("a place that was filled is empty again")
			}
		}
	}
	if r.inVain != inVain {
		t.Errorf("%d more attempts at dead members though each place is filled", r.inVain-inVain)
	}
}

// TestSlowMachine: where the machine is too slow to make all links in time, members do not ask for so many others that it becomes
// slower still.
func TestSlowMachine(t *testing.T) {
	for _, workers := range []float64{4, 1} {
		r := newModelRoom(64, workers)
		needed := 0
		for _, near := range r.near {
			needed += len(near.graph)
		}
		needed /= 2
		took := r.until(t, time.Hour)
		least := time.Duration(float64(needed) * float64(modelOpen) / workers)
		t.Logf("%v workers: %v, at least %v are needed; %d attempts for %d links", workers, took, least, r.begun, needed)
		if r.begun > 4*needed || took > 2*least {
			t.Errorf("%v workers: %d attempts for %d links, and %v where %v is the least", workers, r.begun, needed, took, least)
		}
	}
}
