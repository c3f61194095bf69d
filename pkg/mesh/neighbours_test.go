package mesh

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/crmesh/crmesh/pkg/signaling"
)

// modelIDs returns as many ids, the same ones each time.
func modelIDs(n int) []signaling.PeerID {
	random, ids := rand.New(rand.NewPCG(1, 2)), make([]signaling.PeerID, n)
	for i := range ids {
		for j := range ids[i] {
			ids[i][j] = byte(random.IntN(256))
		}
	}
	return ids
}

// chooser is neighbours in a room of many writers, with links and a clock that the test moves.
type chooser struct {
	*neighbours
	t     *testing.T
	now   time.Time
	links map[signaling.PeerID]linkNow
}

func newChooser(t *testing.T, others int) *chooser {
	listed := map[signaling.PeerID]signaling.Meta{}
	ids := modelIDs(others + 1)
	for _, id := range ids[1:] {
		listed[id] = signaling.Meta{}
	}
	c := &chooser{newNeighbours(signaling.Member{Peer: ids[0]}, defaultTiming(), listed), t, time.Unix(1_000_000, 0),
		map[signaling.PeerID]linkNow{}}
	c.choose()
	return c
}

// pass lets time pass in steps of a second, in which open links are heard.
func (c *chooser) pass(d time.Duration, alone bool) {
	c.t.Helper()
	for range d / time.Second {
		c.now = c.now.Add(time.Second)
		for id, k := range c.links {
			if k.open {
				k.heard = c.now
				c.links[id] = k
			}
		}
		if c.look(c.now, alone, c.at) {
			c.choose()
		}
	}
}

func (c *chooser) at(id signaling.PeerID) linkNow { return c.links[id] }

// link opens links to all that are wanted but some.
func (c *chooser) link(but ...signaling.PeerID) {
	for id := range c.wanted {
		if !slices.Contains(but, id) {
			c.links[id] = linkNow{open: true, heard: c.now, live: true, writer: true}
		}
	}
}

func (c *chooser) replaced() (n int) {
	for id := range c.wanted {
		if _, ok := c.graph[id]; !ok {
			n++
		}
	}
	return n
}

// ringNeighbour is a neighbour without whom another one takes its place.
func (c *chooser) ringNeighbour() signaling.PeerID {
	for _, id := range slices.SortedFunc(maps.Keys(c.graph), signaling.PeerID.Compare) {
		rest := c.compute(func(other signaling.PeerID) bool { return other != id })
		for other := range rest {
			if _, ok := c.graph[other]; !ok {
				return id
			}
		}
	}
	c.t.Fatal("nobody would take the place of anybody")
	return signaling.PeerID{}
}

func TestNeighbourThatDoesNotAnswer(t *testing.T) {
	c := newChooser(t, 100)
	lost := c.ringNeighbour()
	graph := maps.Clone(c.graph)
	c.link(lost)
	c.pass(RepairAfter-time.Second, false)
	if c.replaced() != 0 {
		t.Error("a neighbour was given up too early")
	}
	c.pass(3*time.Second, true)
	if c.replaced() != 0 {
		t.Error("a neighbour was given up though nobody can be reached at all")
	}
	c.links[lost] = linkNow{coming: true}
	c.pass(time.Minute, false)
	if c.replaced() != 0 {
		t.Error("a neighbour was given up during its first attempt")
	}
	c.links[lost] = linkNow{}
	c.pass(time.Second, false)
	if c.replaced() == 0 || !c.wants(lost) || c.complete(c.at) {
		t.Error("nobody is to take the place of the neighbour, or it is not tried any more")
	}
	c.link(lost)
	c.pass(time.Second, false)
	if !c.complete(c.at) {
		t.Error("the others are linked, and that is not enough")
	}
	for id := range c.wanted {
		if _, ok := graph[id]; !ok && c.surplus(c.now, id, true) {
			t.Error("a link in the place of another is surplus at once")
		}
	}
	c.link()
	c.pass(time.Second, false)
	if c.replaced() != 0 || !maps.Equal(c.wanted, graph) {
		t.Error("the neighbour is linked, and another still has its place")
	}
}

// given is how many in the place of others others are asked for.
func (c *chooser) given() (n int) {
	for id := range c.listed {
		if _, ok := c.graph[id]; !ok && c.out(id) {
			n++
		}
	}
	return n
}

// instead returns somebody in the place of another for whom nobody else is asked yet.
func (c *chooser) instead() signaling.PeerID {
	c.t.Helper()
	for id := range c.wanted {
		if _, ok := c.graph[id]; !ok && !c.out(id) {
			return id
		}
	}
	c.t.Fatal("nobody is to take the place of anybody")
	return signaling.PeerID{}
}

// TestSubstitutesGivenUpSlowly: where nobody answers, those in the place of others are given up more and more slowly, and few are
// asked at a time.
func TestSubstitutesGivenUpSlowly(t *testing.T) {
	c := newChooser(t, 100)
	var when []int
	last := 0
	for second := range 200 {
		c.pass(time.Second, false)
		if n := c.given(); n > last {
			when, last = append(when, second+1), n
		}
		if n := c.replaced(); n > 4 {
			t.Fatalf("%d are asked at the same time to take places", n)
		}
	}
	if len(when) < 5 || when[0] < 22 || when[0] > 30 || when[1] < when[0]+10 || when[2] < when[1]+20 || when[3] < when[2]+40 || when[4] < when[3]+40 {
		t.Errorf("those in the place of others were given up after %v seconds", when)
	}
}

// TestSubstitutesDoubtedSoon: where most answer, others are asked soon in the place of one that does not; it is tried on, and if
// it answers all the same, those that come next get more time.
func TestSubstitutesDoubtedSoon(t *testing.T) {
	c := newChooser(t, 100)
	c.link(c.ringNeighbour())
	c.pass(RepairAfter+time.Second, false)
	gone := c.instead()
	c.pass(3*time.Second, false) // it is seen not to answer after the first of them
	if c.out(gone) {
		t.Error("others are asked too soon")
	}
	c.pass(time.Second, false)
	if !c.out(gone) || !c.wants(gone) {
		t.Error("no others are asked, or the one that does not answer is not tried any more")
	}
	slow := c.instead()
	c.pass(4*time.Second, false)
	if !c.out(slow) || !c.wants(gone) {
		t.Error("the next one is not doubted, or the first one is not tried any more")
	}
	c.links[slow] = linkNow{coming: true}
	c.pass(time.Second, false)
	if c.out(slow) || !c.wants(slow) || c.pause() != RepairAfter/2 {
		t.Errorf("one that answers after all is not wanted, or those that come next get %v to answer", c.pause())
	}
	c.pass(2*time.Second, false)
	if !c.out(gone) || c.wants(gone) {
		t.Error("one that has not answered in time is tried on")
	}
	c.links[slow] = linkNow{open: true, heard: c.now, live: true, writer: true}
	c.pass(time.Second, false)
	if !c.complete(c.at) || c.pace != 0 {
		t.Error("each place is taken, and that is not enough")
	}
}

// TestFailedAgain: who could not be linked in the place of another is as good as any again after a while, which is longer each time
// and where there are enough links; and at once if it is linked all the same.
func TestFailedAgain(t *testing.T) {
	c := newChooser(t, 100)
	c.pass(time.Minute, false)
	var failed []signaling.PeerID
	for id := range c.listed {
		if _, ok := c.graph[id]; !ok && c.out(id) {
			failed = append(failed, id)
		}
	}
	if len(failed) < 2 {
		t.Fatalf("%d have failed", len(failed))
	}
	id := failed[0]
	c.notes[id].failed = c.now
	c.pass(ForgetAfter-time.Second, false)
	if !c.out(id) {
		t.Error("one that failed counts again too soon")
	}
	c.pass(2*time.Second, false)
	if c.out(id) {
		t.Error("one that failed never counts again")
	}
	c.notes[id].failed, c.notes[id].times = c.now, 2
	c.pass(2*ForgetAfter-time.Second, false)
	if !c.out(id) {
		t.Error("one that failed twice counts again as soon as one that failed once")
	}
	c.pass(2*time.Second, false)
	if c.out(id) {
		t.Error("one that failed twice never counts again")
	}

	c.notes[failed[1]].failed = c.now
	for id := range c.graph {
		c.links[id] = linkNow{open: true, heard: c.now, live: true, writer: true}
	}
	c.pass(ForgetAfter<<maxForget-time.Second, false)
	if !c.out(failed[1]) || c.pace != 0 {
		t.Error("one that failed counts again though there are enough links")
	}
	c.links[failed[1]] = linkNow{open: true, heard: c.now, live: true, writer: true}
	c.pass(time.Second, false)
	if c.out(failed[1]) {
		t.Error("one that is linked is still left out")
	}
}

// TestFalseWriter: a neighbour that is listed as a writer and has shown a reader passes nothing on; another takes its place.
func TestFalseWriter(t *testing.T) {
	c := newChooser(t, 100)
	c.link()
	liar := c.ringNeighbour()
	k := c.links[liar]
	k.writer = false
	c.links[liar] = k
	c.pass(time.Second, false)
	if c.replaced() == 0 {
		t.Error("nobody takes the place of a writer that is none")
	}
	delete(c.listed, liar)
	c.choose()
	if c.notes[liar] != nil {
		t.Error("a member that left is not forgotten")
	}
}

func TestSurplus(t *testing.T) {
	c := newChooser(t, 100)
	var id signaling.PeerID
	for id = range c.listed {
		if !c.wants(id) {
			break
		}
	}
	if c.surplus(c.now, id, true) || c.surplus(c.now.Add(SurplusAfter-1), id, true) {
		t.Error("a link is closed before its time")
	}
	if c.surplus(c.now.Add(SurplusAfter), id, false) {
		t.Error("a link is closed before those are there that take its place")
	}
	if !c.surplus(c.now.Add(SurplusAfter), id, true) {
		t.Error("a link that nobody wants stays")
	}
}

func TestTwoReadersAreNotLinked(t *testing.T) {
	n := newNeighbours(signaling.Member{Peer: peerID(1), Meta: signaling.Meta{Reader: true}}, defaultTiming(),
		map[signaling.PeerID]signaling.Meta{peerID(2): {Reader: true}, peerID(3): {}})
	n.choose()
	if len(n.wanted) != 1 || n.mayLink(signaling.Meta{Reader: true}) || !n.mayLink(signaling.Meta{}) {
		t.Errorf("a reader wants %d links, with one writer and another reader in the room", len(n.wanted))
	}
}
