package signaling

import (
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// randomRoom returns members with random ids: writers, of which some are replicas, and readers.
func randomRoom(rng *rand.Rand, writers, replicas, readers int) []Member {
	out := make([]Member, writers+readers)
	for i := range out {
		for j := range out[i].Peer {
			out[i].Peer[j] = byte(rng.Uint32())
		}
		out[i].Meta = Meta{Replica: i < replicas, Reader: i >= writers}
	}
	rng.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// distances returns how many links away from a node the others are that can be reached over writers.
func (g *graph) distances(from int) map[int]int {
	out := map[int]int{from: 0}
	for queue := []int{from}; len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		if g.nodes[at].Meta.Reader && at != from {
			continue // readers pass nothing on
		}
		for _, to := range g.links[at] {
			if _, seen := out[to]; !seen {
				out[to] = out[at] + 1
				queue = append(queue, to)
			}
		}
	}
	return out
}

func (g *graph) names() map[[2]PeerID]bool {
	out := map[[2]PeerID]bool{}
	for i, links := range g.links {
		for _, j := range links {
			out[[2]PeerID{g.nodes[i].Peer, g.nodes[j].Peer}] = true
		}
	}
	return out
}

// TestGraphProperties: what docs/SIGNALING.md promises of the graph holds for any room.
func TestGraphProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		writers := rapid.IntRange(0, 60).Draw(t, "writers")
		replicas := rapid.IntRange(0, min(writers, 5)).Draw(t, "replicas")
		readers := rapid.IntRange(0, 80).Draw(t, "readers")
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		all := randomRoom(rng, writers, replicas, readers)
		g := newGraph(all)
		checkGraph(t, g, writers)
		names := g.names()
		rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		count := 0
		for _, m := range all {
			for _, other := range Graph(all, m.Peer) {
				if !names[[2]PeerID{m.Peer, other}] || !names[[2]PeerID{other, m.Peer}] {
					t.Fatal("another order of the list makes another graph, or it is not symmetric")
				}
				count++
			}
		}
		if count != len(names) {
			t.Fatalf("the members have %d ends of links, the whole graph has %d", count, len(names))
		}
	})
}

// checkGraph looks at the bounds of one graph.
func checkGraph(t rapid.TB, g *graph, writers int) {
	t.Helper()
	mesh := len(g.nodes) <= FullMeshMembers
	room := 0 // places for readers
	g.checkRing(t)
	for i, n := range g.nodes {
		if slices.Contains(g.links[i], i) || len(slices.Compact(slices.Sorted(slices.Values(g.links[i])))) != len(g.links[i]) {
			t.Fatalf("%v is linked with itself, or twice with another", n.Peer)
		}
		toWriters := 0
		for _, j := range g.links[i] {
			if !g.nodes[j].Meta.Reader {
				toWriters++
			} else if n.Meta.Reader {
				t.Fatal("two readers are linked")
			}
		}
		toReaders := len(g.links[i]) - toWriters
		most, mostWriters := BrowserLinks, BrowserLinks
		if n.Meta.Replica {
			most, mostWriters = ReplicaLinks, ReplicaWriters
		}
		switch {
		case mesh:
		case n.Meta.Reader && toWriters < min(1, writers), n.Meta.Reader && toWriters > ReaderLinks:
			t.Fatalf("a reader hangs on %d writers", toWriters)
		case n.Meta.Reader:
		case toWriters > mostWriters:
			t.Fatalf("a writer has links with %d writers", toWriters)
		default:
			room += max(0, most-len(g.links[i]))
		}
		if mesh && toReaders+toWriters != len(g.nodes)-1 && !n.Meta.Reader {
			t.Fatal("a writer of a small room is not linked with all")
		}
		if d := g.distances(i); !n.Meta.Reader && len(d) != len(g.nodes) || n.Meta.Reader && writers > 0 && len(d) < writers+1 {
			t.Fatalf("only %d of %d members are reached", len(d), len(g.nodes))
		}
	}
	if mesh {
		return
	}
	for i, n := range g.nodes {
		// One that has less than it may want has asked where there was no room; one with too many links is somebody's only one.
		if want := min(ReaderLinks, writers); n.Meta.Reader && len(g.links[i]) < want && g.roomFor(i) {
			t.Fatalf("a reader hangs on %d writers, and there is room at another", len(g.links[i]))
		}
		if most := g.most(i); !n.Meta.Reader && len(g.links[i]) > most && room > 0 && slices.ContainsFunc(g.links[i][most:], func(r int) bool { return len(g.links[r]) > 1 }) {
			t.Fatalf("a writer has %d links, %d are the most", len(g.links[i]), most)
		}
	}
}

// checkRing looks whether each writer is linked with the next one in order: that holds the room together whoever picks whom.
func (g *graph) checkRing(t rapid.TB) {
	t.Helper()
	first, last := -1, -1
	for i, n := range g.nodes {
		if n.Meta.Reader {
			continue
		}
		if last >= 0 && !g.linked(last, i) {
			t.Fatal("two writers that follow each other on the ring are not linked")
		}
		if last = i; first < 0 {
			first = i
		}
	}
	if first != last && !g.linked(last, first) {
		t.Fatal("the ring is not closed")
	}
}

func (g *graph) most(i int) int {
	if g.nodes[i].Meta.Replica {
		return ReplicaLinks
	}
	return BrowserLinks
}

// roomFor reports whether a writer has room for the reader.
func (g *graph) roomFor(reader int) bool {
	for i, n := range g.nodes {
		if !n.Meta.Reader && len(g.links[i]) < g.most(i) && !g.linked(reader, i) {
			return true
		}
	}
	return false
}

// TestGraphOfLargeRooms: in rooms of 512, any writer is at most six links away from any other, writers have about 8 links, 10
// where there are many replicas, and one member less or more changes few of them.
func TestGraphOfLargeRooms(t *testing.T) {
	for seed := range uint64(2) {
		for _, replicas := range []int{0, 1, 20} {
			rng := rand.New(rand.NewPCG(seed, 1))
			all := randomRoom(rng, 512, replicas, 0)
			g := newGraph(all)
			checkGraph(t, g, 512)
			ends := 0
			for i := range g.nodes {
				ends += len(g.links[i])
				for _, d := range g.distances(i) {
					if d > 6 {
						t.Fatalf("%d replicas: two members are %d links from each other", replicas, d)
					}
				}
			}
			if mean := float64(ends) / 512; mean < 7.5 || mean > 10 {
				t.Errorf("%d replicas: a member has %.1f links in the mean", replicas, mean)
			}
			before := g.names()
			for i := range 20 {
				after := newGraph(slices.Delete(slices.Clone(all), i, i+1)).names()
				own, changed := 0, 0
				for e := range before {
					if !after[e] {
						changed++
					}
					if e[0] == all[i].Peer {
						own++
					}
				}
				for e := range after {
					if !before[e] {
						changed++
					}
				}
				// Each link is counted at both ends.
				if changed/2 > 2*own+16 {
					t.Errorf("%d replicas: a member with %d links went, and %d links changed", replicas, own, changed/2)
				}
			}
		}
	}
}

// TestGraphOfManyReaders: readers share the replicas while these have room, and the rest go to other writers.
func TestGraphOfManyReaders(t *testing.T) {
	g := newGraph(randomRoom(rand.New(rand.NewPCG(1, 1)), 112, 2, 400))
	checkGraph(t, g, 112)
	for i, n := range g.nodes {
		if n.Meta.Replica && len(g.links[i]) != ReplicaLinks {
			t.Errorf("a replica has %d links, with so many readers it should be full", len(g.links[i]))
		}
	}
}

func BenchmarkGraph(b *testing.B) {
	all := randomRoom(rand.New(rand.NewPCG(1, 2)), 512, 8, 0)
	for b.Loop() {
		Graph(all, all[0].Peer)
	}
}
