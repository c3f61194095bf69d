package mesh

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/pion/transport/v5"
	"go.uber.org/goleak"

	"github.com/crmesh/crmesh/pkg/signaling"
	"github.com/crmesh/crmesh/pkg/signaling/signaltest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// quick is the timing of tests: what is seconds in life is tenths of them here.
func quick() timing {
	t := defaultTiming()
	t.ping, t.suspect, t.dead = 200*time.Millisecond, 600*time.Millisecond, 2*time.Second
	t.want, t.restart, t.attempt = 300*time.Millisecond, time.Second, 5*time.Second
	t.repair, t.surplus, t.forget = 2*time.Second, time.Second, 10*time.Second
	t.mourn = 2 * time.Second
	t.watch, t.probe = 20*time.Millisecond, 200*time.Millisecond
	t.minBackoff, t.maxBackoff, t.refused = 50*time.Millisecond, 500*time.Millisecond, time.Second
	t.verify = 20 * time.Millisecond
	t.minStorePause, t.maxStorePause = 10*time.Millisecond, 50*time.Millisecond
	return t
}

// peerID returns an id by which peers are ordered as n.
func peerID(n byte) signaling.PeerID {
	var id signaling.PeerID
	_, _ = rand.Read(id[:])
	id[0] = n
	return id
}

func newKeys(t testing.TB) signaling.Keys {
	t.Helper()
	keys, err := signaling.NewRoom(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

type testNode struct {
	*Node
	store *memStore
	id    signaling.PeerID
}

// room is a hub and the nodes in it.
type room struct {
	t      testing.TB
	hub    *hub
	keys   signaling.Keys
	timing timing
	nodes  []*testNode
}

func newRoom(t testing.TB) *room {
	return &room{t: t, hub: newHub(), keys: newKeys(t), timing: quick()}
}

func (r *room) logger(name string) *slog.Logger {
	if os.Getenv("MESH_LOG") == "" {
		return nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", name)
}

// add starts a node. n orders its peer id.
func (r *room) add(name string, n byte, change ...func(*Config)) *testNode {
	r.t.Helper()
	return r.addStore(newMemStore(name), name, n, change...)
}

func (r *room) addStore(store *memStore, name string, n byte, change ...func(*Config)) *testNode {
	r.t.Helper()
	id := peerID(n)
	cfg := Config{Store: store, Signaler: r.hub.join(id), Peer: id, Keys: r.keys, Logger: r.logger(name)}
	for _, f := range change {
		f(&cfg)
	}
	node, err := start(r.t.Context(), cfg, r.timing)
	if err != nil {
		r.t.Fatal(err)
	}
	tn := &testNode{node, store, id}
	r.nodes = append(r.nodes, tn)
	r.t.Cleanup(func() { r.stop(tn) })
	return tn
}

func (r *room) stop(n *testNode) {
	r.t.Helper()
	if err := n.Close(); err != nil && n.store.broken == nil {
		r.t.Errorf("Close: %v", err)
	}
	if c := n.Connections(); c != 0 {
		r.t.Errorf("%d PeerConnections are left", c)
	}
	r.hub.leave(n.id)
}

func onNet(n transport.Net) func(*Config) { return func(c *Config) { c.Net = n } }

// patience is how long a test waits for what must come. It costs nothing where that comes, and a busy machine may be slow.
const patience = time.Minute

func until(t testing.TB, what string, limit time.Duration, ok func() bool) {
	t.Helper()
	signaltest.Until(t, limit, what, ok)
}

func (n *testNode) await(t testing.TB, c Condition) Status {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, err := n.Wait(ctx, c)
	if err != nil {
		now, _ := n.Status(t.Context())
		t.Fatalf("waiting for %+v: %v; status %+v", c, err, now)
	}
	return s
}

// equal waits until all nodes hold the same.
func (r *room) equal(nodes ...*testNode) {
	r.t.Helper()
	until(r.t, "all stores are equal", patience, func() bool {
		for _, n := range nodes[1:] {
			if n.store.content() != nodes[0].store.content() {
				return false
			}
		}
		return true
	})
}

func TestTwoNodesSyncBothWays(t *testing.T) {
	r := newRoom(t)
	a, b := r.add("a", 1), r.add("b", 2)
	a.store.writeText("from a", "x")
	b.store.writeText("from b", "y")
	a.await(t, Condition{Links: 1})
	b.await(t, Condition{Links: 1})
	r.equal(a, b)
	if got := a.store.get("y") + b.store.get("x"); got != "from bfrom a" {
		t.Fatalf("got %q", got)
	}
	s := a.await(t, Condition{Links: 1, Synced: true})
	m := s.Members[0]
	if m.Role != "writer" || m.State != LinkOpen || m.Site != b.store.site.String() || m.BytesIn == 0 || m.BytesOut == 0 {
		t.Errorf("status of the member: %+v", m)
	}
}

func TestManyNodes(t *testing.T) {
	for _, count := range []int{3, 5} {
		t.Run(fmt.Sprint(count), func(t *testing.T) {
			r := newRoom(t)
			for i := range count {
				r.add(fmt.Sprint("n", i), byte(i+1))
			}
			for round := range 10 {
				for i, n := range r.nodes {
					n.store.writeText(fmt.Sprint("value ", round, " of ", i), fmt.Sprint("own ", i, round), fmt.Sprint("shared ", round))
				}
			}
			for _, n := range r.nodes {
				n.await(t, Condition{Links: count - 1, Synced: true})
			}
			r.equal(r.nodes...)
		})
	}
}
