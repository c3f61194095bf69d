package signalserver_test

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/crmesh/crmesh/pkg/signaling"
	"github.com/crmesh/crmesh/pkg/signaling/signalcluster/natsbus"
	"github.com/crmesh/crmesh/pkg/signaling/signalcluster/natsbus/natstest"
	"github.com/crmesh/crmesh/pkg/signaling/signalserver"
)

// node is a server of a cluster.
type node struct{ *harness }

// startNode starts a server with NATS at url.
func startNode(t *testing.T, url string, change func(*signalserver.Config)) *node {
	t.Helper()
	return &node{start(t, func(c *signalserver.Config) {
		bus, err := natsbus.Connect(natsbus.Config{URLs: []string{url}, Logger: c.Logger})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(bus.Close) // after that of the server, which is registered later
		c.Cluster = bus
		if change != nil {
			change(c)
		}
	})}
}

// startCluster starts servers that know each other.
func startCluster(t *testing.T, servers int, change func(*signalserver.Config)) (*natstest.Server, []*node) {
	t.Helper()
	nats := natstest.Start(t, nil)
	nodes := make([]*node, servers)
	for i := range nodes {
		nodes[i] = startNode(t, nats.URL(), change)
	}
	awaitServers(t, nodes, servers-1)
	return nats, nodes
}

func awaitServers(t *testing.T, nodes []*node, others int) {
	t.Helper()
	for _, n := range nodes {
		poll(t, "the servers know each other", func() bool { return n.Stats().Servers == others })
	}
}

func members(j signaling.Joined) []signaling.PeerID {
	var list []signaling.PeerID
	for _, m := range j.Members {
		list = append(list, m.Peer)
	}
	return list
}

// across is two members of one room at two servers, who have seen each other.
func across(t *testing.T, a, b *node, room signaling.RoomID) (x, y *peer, tokenX, tokenY string) {
	t.Helper()
	x, joinedX := a.join(t, room)
	y, joinedY := b.join(t, room)
	if len(joinedX.Members) != 0 || len(joinedY.Members) != 1 || joinedY.Members[0].Peer != x.id || joinedY.Members[0].Meta.Name != "n" {
		t.Fatalf("members %v and %v", joinedX.Members, joinedY.Members)
	}
	if m := expect[signaling.MemberJoined](x); m.Peer != y.id {
		t.Fatalf("joined: %v", m.Peer)
	}
	return x, y, joinedX.Token, joinedY.Token
}

// back connects the peer p anew, at a server.
func (h *harness) back(t *testing.T, p *peer, token string) (*peer, signaling.Joined) {
	t.Helper()
	again := h.connect(t)
	again.id = p.id
	return again, again.join(room, token)
}

func shutdown(t *testing.T, h *harness) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := h.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
}

// cable is a TCP connection to NATS that can be pulled.
type cable struct {
	listener net.Listener
	tasks    sync.WaitGroup

	mu     sync.Mutex
	pulled bool
	open   []net.Conn
}

func newCable(t *testing.T, to string) *cable {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{listener: listener}
	c.tasks.Go(func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", to)
			if err != nil || !c.add(near, far) {
				_ = near.Close()
				continue
			}
			for _, ends := range [][2]net.Conn{{near, far}, {far, near}} {
				c.tasks.Go(func() {
					_, _ = io.Copy(ends[0], ends[1])
					_ = ends[0].Close()
				})
			}
		}
	})
	t.Cleanup(func() {
		c.pull()
		_ = listener.Close()
		c.tasks.Wait()
	})
	return c
}

func (c *cable) url() string { return "nats://" + c.listener.Addr().String() }

func (c *cable) add(conns ...net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pulled {
		for _, conn := range conns {
			_ = conn.Close()
		}
		return false
	}
	c.open = append(c.open, conns...)
	return true
}

// plug lets new connections through again.
func (c *cable) plug() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pulled = false
}

// pull ends all connections, and every new one at once.
func (c *cable) pull() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pulled = true
	for _, conn := range c.open {
		_ = conn.Close()
	}
	c.open = nil
}
