package signalcluster_test

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/crmesh/crmesh/pkg/signaling"
	"github.com/crmesh/crmesh/pkg/signaling/signalcluster"
)

// site is a server in the property test: its room, as the signaling server drives it, and what its clients see.
type site struct {
	id    signalcluster.ServerID
	room  *signalcluster.Room
	clock uint64
	seen  map[signaling.PeerID]signaling.Meta // what a client here that was there all the time has been told
}

// world is some servers with one room, and what is on the way between them.
type world struct {
	t     *rapid.T
	now   time.Time
	sites []*site
	wires [][]packet // from site i to site j: wires[i*n+j]

	last   map[signaling.PeerID]uint64 // the gen of the last join
	where  map[signaling.PeerID]int    // and its site
	left   map[signaling.PeerID]bool   // whether it has left there
	tokens map[signaling.PeerID]map[string]bool
}

type packet struct {
	clock uint64
	delta signalcluster.Delta
}

var roomID = signaling.RoomID{7}

func newWorld(t *rapid.T, n int) *world {
	w := &world{t: t, now: time.Unix(1_000_000, 0), wires: make([][]packet, n*n), last: map[signaling.PeerID]uint64{},
		where: map[signaling.PeerID]int{}, left: map[signaling.PeerID]bool{}, tokens: map[signaling.PeerID]map[string]bool{}}
	for i := range n {
		id := signalcluster.ServerID{byte(i + 1)}
		w.sites = append(w.sites, &site{id: id, room: signalcluster.NewRoom(id), clock: uint64(1000 * (i + 1)), seen: map[signaling.PeerID]signaling.Meta{}})
	}
	return w
}

func (s *site) tick() uint64 {
	s.clock++
	return s.clock
}

func (w *world) send(from int, d signalcluster.Delta) {
	for to := range w.sites {
		if to != from {
			w.wires[from*len(w.sites)+to] = append(w.wires[from*len(w.sites)+to], packet{w.sites[from].clock, d})
		}
	}
}

// settle does what a server does after each change: it gives up whom it has lost, and tells its clients.
func (w *world) settle(i int) {
	s := w.sites[i]
	for _, loss := range s.room.Losses() {
		w.send(i, s.room.Move(s.tick(), loss.Peer))
	}
	changes, more := s.room.Changes(1 << 20)
	if more {
		w.t.Fatal("there are more changes than can be")
	}
	for _, c := range changes {
		old, known := s.seen[c.Peer]
		switch {
		case c.Left && !known:
			w.t.Fatalf("site %d: %v left and was not there", i, c.Peer)
		case c.Left:
			delete(s.seen, c.Peer)
		case known && old == c.Meta:
			w.t.Fatalf("site %d: %v joined twice", i, c.Peer)
		default:
			s.seen[c.Peer] = c.Meta
		}
	}
}

func (w *world) join(i int, peer signaling.PeerID, token string, meta signaling.Meta) {
	s := w.sites[i]
	hash := signalcluster.HashToken(token)
	rec := signalcluster.Record{Peer: peer, Meta: meta, Gen: s.tick(), Token: hash, Live: true}
	rec.Began = rec.Gen
	if old, _, known := s.room.Winner(peer); known {
		if old.Token != hash {
			return // refused
		}
		rec.Began = old.Began
	}
	w.send(i, s.room.Set(s.tick(), rec))
	s.seen[peer] = meta
	if w.tokens[peer] == nil {
		w.tokens[peer] = map[string]bool{}
	}
	w.tokens[peer][token] = true
	if rec.Gen > w.last[peer] || rec.Gen == w.last[peer] && i >= w.where[peer] { // of two at one instant the server decides
		w.last[peer], w.where[peer], w.left[peer] = rec.Gen, i, false
	}
	w.settle(i)
}

func (w *world) leave(i int, peer signaling.PeerID) {
	s := w.sites[i]
	rec, here := s.room.Own(peer)
	if !here {
		return
	}
	delete(s.seen, peer)
	w.send(i, s.room.Leave(s.tick(), peer))
	if w.last[peer] == rec.Gen {
		w.left[peer] = true
	}
	w.settle(i)
}

func (w *world) deliver(from, to int) {
	wire := &w.wires[from*len(w.sites)+to]
	p := (*wire)[0]
	*wire = (*wire)[1:]
	s := w.sites[to]
	s.clock = max(s.clock, p.clock)
	s.room.Delta(w.now, w.sites[from].id, p.delta) // a question that it asks is what quiet answers
	w.settle(to)
}

// quiet lets all servers ask each other until nothing changes.
func (w *world) quiet() {
	for range 4 {
		for from, a := range w.sites {
			for to, b := range w.sites {
				if from == to {
					continue
				}
				w.wires[from*len(w.sites)+to] = nil
				for _, state := range a.room.State(roomID, a.tick()) {
					b.clock = max(b.clock, a.clock)
					b.room.ApplyState(w.now, a.id, state)
				}
				w.settle(to)
			}
		}
		w.now = w.now.Add(signalcluster.Linger)
		for i, s := range w.sites {
			s.room.Tick(w.now)
			w.settle(i)
		}
	}
}

// Servers that have heard all of each other agree on who is a member and where; each peer is with one of them; their
// clients were told exactly that; and nobody who came last to a server and did not leave it is missing. Whatever was
// lost, late, cut off, or joined at two servers at once before that.
func TestRoomsMerge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 4).Draw(t, "servers")
		w := newWorld(t, n)
		site := func(t *rapid.T) int { return rapid.IntRange(0, n-1).Draw(t, "site") }
		peer := func(t *rapid.T) signaling.PeerID {
			return signaling.PeerID{byte(rapid.IntRange(1, 4).Draw(t, "peer"))}
		}
		t.Repeat(map[string]func(*rapid.T){
			"join": func(t *rapid.T) {
				token := rapid.SampledFrom([]string{"own", "own", "own", "other"}).Draw(t, "token")
				w.join(site(t), peer(t), token, signaling.Meta{Replica: rapid.Bool().Draw(t, "replica")})
			},
			"away": func(t *rapid.T) {
				i := site(t)
				if rec, here := w.sites[i].room.Own(peer(t)); here {
					rec.Live = false
					w.send(i, w.sites[i].room.Set(w.sites[i].tick(), rec))
					w.settle(i)
				}
			},
			"leave": func(t *rapid.T) { w.leave(site(t), peer(t)) },
			"deliver": func(t *rapid.T) {
				from, to := site(t), site(t)
				for range rapid.IntRange(1, 5).Draw(t, "packets") {
					if len(w.wires[from*n+to]) > 0 {
						w.deliver(from, to)
					}
				}
			},
			"lose": func(t *rapid.T) {
				if wire := &w.wires[site(t)*n+site(t)]; len(*wire) > 0 {
					*wire = (*wire)[1:]
				}
			},
			"cut": func(t *rapid.T) {
				i, j := site(t), site(t)
				w.sites[i].room.Lost(w.sites[j].id, w.now.Add(15*time.Second))
				w.settle(i)
			},
			"time": func(t *rapid.T) {
				w.now = w.now.Add(time.Duration(rapid.IntRange(0, 20).Draw(t, "seconds")) * time.Second)
				i := site(t)
				w.sites[i].room.Tick(w.now)
				w.settle(i)
			},
			"": func(t *rapid.T) {
				for i, s := range w.sites {
					if err := s.told(); err != nil {
						t.Fatalf("site %d: %v", i, err)
					}
				}
			},
		})
		w.quiet()
		home := map[signaling.PeerID]int{}
		for i, s := range w.sites {
			for _, m := range s.room.Members(signaling.PeerID{}) {
				if _, here := s.room.Own(m.Peer); here {
					if other, twice := home[m.Peer]; twice {
						t.Fatalf("%v is with both %d and %d", m.Peer, other, i)
					}
					home[m.Peer] = i
				}
			}
		}
		for i, s := range w.sites {
			if err := s.told(); err != nil {
				t.Fatalf("site %d: %v", i, err)
			}
			if len(s.seen) != len(home) {
				t.Fatalf("site %d sees %d members of %d", i, len(s.seen), len(home))
			}
			for p, at := range home {
				if rec, server, ok := s.room.Winner(p); !ok || server != w.sites[at].id || rec.Meta != s.seen[p] {
					t.Fatalf("site %d has %v at %v, it is with %d", i, p, server, at)
				}
			}
		}
		for p, at := range w.where {
			if h, member := home[p]; !w.left[p] && len(w.tokens[p]) == 1 && (!member || h != at) {
				t.Fatalf("%v came last to %d and did not leave, and is with %d (%v)", p, at, h, member)
			}
		}
	})
}

// told checks that the clients here see exactly the members.
func (s *site) told() error {
	members := map[signaling.PeerID]signaling.Meta{}
	for _, m := range s.room.Members(signaling.PeerID{}) {
		members[m.Peer] = m.Meta
	}
	if !maps.Equal(members, s.seen) {
		return fmt.Errorf("clients see %v, members are %v", s.seen, members)
	}
	return nil
}

// Who counts does not depend on the order in which records become known.
func TestWinnerHasNoOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 6).Draw(t, "records")
		var states []signalcluster.State
		for range n {
			began := rapid.Uint64Range(1, 3).Draw(t, "began")
			states = append(states, signalcluster.State{Room: roomID, Version: 9, Parts: 1, Members: []signalcluster.Record{{
				Peer: signaling.PeerID{1}, Began: began, Gen: began + rapid.Uint64Range(0, 2).Draw(t, "later"),
				Token: signalcluster.TokenHash{rapid.Byte().Filter(func(b byte) bool { return b < 3 }).Draw(t, "token")},
			}}})
		}
		order := rapid.Permutation(states).Draw(t, "order")
		winner := func(list []signalcluster.State) (signalcluster.Record, signalcluster.ServerID) {
			room := signalcluster.NewRoom(signalcluster.ServerID{99})
			for _, s := range list {
				for i, original := range states {
					if &original.Members[0] == &s.Members[0] {
						room.ApplyState(time.Unix(1, 0), signalcluster.ServerID{byte(i + 1)}, s)
					}
				}
			}
			rec, server, ok := room.Winner(signaling.PeerID{1})
			if !ok {
				t.Fatal("nobody wins")
			}
			return rec, server
		}
		rec, server := winner(states)
		if rec2, server2 := winner(order); rec2 != rec || server2 != server {
			t.Fatalf("%v of %v, and %v of %v", rec, server, rec2, server2)
		}
		for _, s := range states {
			other := s.Members[0]
			if other.Began < rec.Began && other.Token != rec.Token && rec.Began == minBegan(states, rec.Token) {
				t.Fatalf("%v wins over %v, which began before", rec, other)
			}
			if other.Token == rec.Token && other.Gen > rec.Gen {
				t.Fatalf("%v wins over %v, which is later", rec, other)
			}
		}
	})
}

func minBegan(states []signalcluster.State, token signalcluster.TokenHash) uint64 {
	least := ^uint64(0)
	for _, s := range states {
		if s.Members[0].Token == token {
			least = min(least, s.Members[0].Began)
		}
	}
	return least
}

// A room that does not fit into one message comes in parts; one that lacks a part is not taken.
func TestStateInParts(t *testing.T) {
	const n = 2*signalcluster.PartRecords + 10
	a, b := signalcluster.NewRoom(signalcluster.ServerID{1}), signalcluster.NewRoom(signalcluster.ServerID{2})
	for i := range n {
		a.Set(uint64(i+1), signalcluster.Record{Peer: signaling.PeerID{byte(i), byte(i >> 8), 1}, Gen: 1, Began: 1})
	}
	now := time.Unix(1, 0)
	parts := a.State(roomID, 0)
	if len(parts) != 3 {
		t.Fatalf("%d parts", len(parts))
	}
	for _, p := range []signalcluster.State{parts[0], parts[2], parts[2]} {
		if b.ApplyState(now, signalcluster.ServerID{1}, p) {
			t.Fatal("it is complete without a part")
		}
	}
	if _, others := b.Counts(); others != 0 {
		t.Fatalf("%d members", others)
	}
	for i, p := range parts {
		if b.ApplyState(now, signalcluster.ServerID{1}, p) != (i == 2) {
			t.Fatalf("part %d", i)
		}
	}
	if got := len(b.Members(signaling.PeerID{})); got != n {
		t.Fatalf("%d members", got)
	}
	told := 0
	for more := true; more; {
		var list []signalcluster.Change
		if list, more = b.Changes(64); len(list) > 64 {
			t.Fatalf("%d at once", len(list))
		}
		told += len(list)
	}
	if told != n {
		t.Fatalf("%d told", told)
	}
	// What an inventory does not have the latest version of is asked for, once a second.
	if b.Confirm(now, signalcluster.ServerID{1}, n) || !b.Confirm(now, signalcluster.ServerID{1}, n+1) || b.Confirm(now, signalcluster.ServerID{1}, n+1) {
		t.Fatal("the inventory")
	}
	if late := now.Add(signalcluster.StaleAfter); len(b.Stale(late)) != 1 || len(b.Stale(late)) != 0 {
		t.Fatal("what was in no inventory is not asked for once")
	}
}
