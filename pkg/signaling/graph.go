package signaling

import (
	"cmp"
	"hash/fnv"
	"slices"
)

// Numbers of the graph, see docs/SIGNALING.md. All members of a room must have the same.
const (
	// FullMeshMembers is the greatest number of members, oneself included, that are all linked with each other.
	FullMeshMembers = 12
	// Picks is how many writers each writer picks besides its neighbours on the ring, and besides one replica.
	Picks = 3
	// ReaderLinks is how many writers a reader hangs on.
	ReaderLinks = 3
	// BrowserLinks and ReplicaLinks are how many links a writer has at most that is none, or is a replica.
	BrowserLinks = 12
	ReplicaLinks = 64
	// ReplicaWriters is how many links of a replica are with writers at most, so that readers find room.
	ReplicaWriters = 32
)

// Graph returns the members of a room that self is to be linked with, in no particular order. Each id stands in the list
// once, self is among them, and the order of the list does not matter. The result is symmetric: a is in that of b where b is
// in that of a. It takes some milliseconds at most for a room of 512. A peer that is no member has no links.
func Graph(members []Member, self PeerID) []PeerID {
	g := newGraph(members)
	var out []PeerID
	for i, n := range g.nodes {
		if n.Peer != self {
			continue
		}
		for _, j := range g.links[i] {
			out = append(out, g.nodes[j].Peer)
		}
	}
	return out
}

// graph is who is linked with whom. Members are named by their place in nodes.
type graph struct {
	nodes []node  // in the order of their hash
	links [][]int // of each node
}

type node struct {
	Member
	hash uint32
}

// pick is an edge that its first end asks for.
type pick struct {
	weight   uint32
	from, to int
}

func newGraph(members []Member) *graph {
	g := &graph{nodes: make([]node, len(members)), links: make([][]int, len(members))}
	for i, m := range members {
		g.nodes[i] = node{m, hashPeer(m.Peer)}
	}
	slices.SortFunc(g.nodes, func(a, b node) int { return cmp.Or(cmp.Compare(a.hash, b.hash), a.Peer.Compare(b.Peer)) })
	if len(members) <= FullMeshMembers {
		g.mesh()
		return g
	}
	var writers, readers []int
	for i, n := range g.nodes {
		if n.Meta.Reader {
			readers = append(readers, i)
		} else {
			writers = append(writers, i)
		}
	}
	g.ring(writers)
	g.pick(writers)
	for range ReaderLinks {
		for _, r := range readers {
			g.hang(r, writers)
		}
	}
	return g
}

// mesh links all but two readers.
func (g *graph) mesh() {
	for i := range g.nodes {
		for j := range i {
			if !g.nodes[i].Meta.Reader || !g.nodes[j].Meta.Reader {
				g.link(i, j)
			}
		}
	}
}

// ring links each writer with the next one.
func (g *graph) ring(writers []int) {
	for i, w := range writers {
		if next := writers[(i+1)%len(writers)]; next != w && !g.linked(w, next) {
			g.link(w, next)
		}
	}
}

// pick lets each writer pick a replica, and others of any kind. Where more pick a writer than it takes, those with the least weight do.
func (g *graph) pick(writers []int) {
	var first, rest []pick
	for _, w := range writers {
		weights := g.weights(w, writers)
		taken := []int{w}
		if p, ok := g.best(w, writers, weights, func(to int) bool { return to != w && g.nodes[to].Meta.Replica }); ok {
			first, taken = append(first, p), append(taken, p.to)
		}
		for range Picks {
			if p, ok := g.best(w, writers, weights, func(to int) bool { return !slices.Contains(taken, to) }); ok {
				rest, taken = append(rest, p), append(taken, p.to)
			}
		}
	}
	byWeight := func(a, b pick) int {
		return cmp.Or(cmp.Compare(a.weight, b.weight), cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to))
	}
	slices.SortFunc(first, byWeight)
	slices.SortFunc(rest, byWeight)
	takes := func(i int) bool {
		if g.nodes[i].Meta.Replica {
			return len(g.links[i]) < ReplicaWriters
		}
		return len(g.links[i]) < BrowserLinks
	}
	for _, p := range append(first, rest...) {
		if !g.linked(p.from, p.to) && takes(p.from) && takes(p.to) {
			g.link(p.from, p.to)
		}
	}
}

// hang gives a reader one more writer: a replica that has room, or another writer that has. A reader that would have none at
// all takes one that has none, replicas before others: better too many links than nothing.
func (g *graph) hang(reader int, writers []int) {
	weights := g.weights(reader, writers)
	fresh := func(to int) bool { return !g.linked(reader, to) }
	p, ok := g.best(reader, writers, weights, func(to int) bool {
		return g.nodes[to].Meta.Replica && len(g.links[to]) < ReplicaLinks && fresh(to)
	})
	if !ok {
		p, ok = g.best(reader, writers, weights, func(to int) bool {
			return !g.nodes[to].Meta.Replica && len(g.links[to]) < BrowserLinks && fresh(to)
		})
	}
	if !ok && len(g.links[reader]) == 0 {
		p, ok = g.best(reader, writers, weights, func(to int) bool { return g.nodes[to].Meta.Replica })
		if !ok {
			p, ok = g.best(reader, writers, weights, func(int) bool { return true })
		}
	}
	if ok {
		g.link(reader, p.to)
	}
}

// best returns the pick of least weight among those that fit. weights has one for each writer.
func (g *graph) best(from int, writers []int, weights []uint32, fits func(to int) bool) (pick, bool) {
	best, found := pick{from: from}, false
	for i, to := range writers {
		if (!found || weights[i] < best.weight) && fits(to) {
			best.weight, best.to, found = weights[i], to, true
		}
	}
	return best, found
}

// weights returns how far each of the writers is from a member, by chance.
func (g *graph) weights(from int, writers []int) []uint32 {
	out := make([]uint32, len(writers))
	for i, to := range writers {
		out[i] = mix(g.nodes[from].hash*pairFactor + g.nodes[to].hash)
	}
	return out
}

func (g *graph) link(i, j int) {
	g.links[i], g.links[j] = append(g.links[i], j), append(g.links[j], i)
}

func (g *graph) linked(i, j int) bool { return slices.Contains(g.links[i], j) }

// pairFactor makes the weight of a pair another one than that of the pair turned round: 2^32 by the golden ratio, odd.
const pairFactor = 0x9e3779b1

// hashPeer is FNV-1a, 32 bits, of the bytes of the id, mixed.
func hashPeer(id PeerID) uint32 {
	h := fnv.New32a()
	_, _ = h.Write(id[:]) // never fails
	return mix(h.Sum32())
}

// mix is the last step of MurmurHash3, 32 bits: each bit in changes each bit out half of the time.
func mix(h uint32) uint32 {
	h ^= h >> 16
	h *= 0x85ebca6b
	h ^= h >> 13
	h *= 0xc2b2ae35
	return h ^ h>>16
}
