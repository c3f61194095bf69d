package mesh

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/pion/logging"
	"github.com/pion/transport/v5/vnet"
)

// cuttable is a virtual network whose paths can be cut.
type cuttable struct {
	router *vnet.Router

	mu      sync.Mutex         // guards the following
	last    [2]string          // addresses of the last packet that is neither cut nor small
	used    map[[2]string]bool // addresses of all such packets
	blocked map[[2]string]bool
	all     bool
	dropped int
}

const bulk = 200 // bytes; a packet above carries data, not a check of ICE

func newCuttable(t *testing.T) *cuttable {
	t.Helper()
	c := &cuttable{blocked: map[[2]string]bool{}, used: map[[2]string]bool{}}
	factory := &logging.DefaultLoggerFactory{DefaultLogLevel: logging.LogLevelDisabled}
	router, err := vnet.NewRouter(&vnet.RouterConfig{CIDR: "10.0.0.0/24", LoggerFactory: factory})
	if err != nil {
		t.Fatal(err)
	}
	c.router = router
	router.AddChunkFilter(func(chunk vnet.Chunk) bool {
		from, to := chunk.SourceAddr().(*net.UDPAddr).IP.String(), chunk.DestinationAddr().(*net.UDPAddr).IP.String()
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.all || c.blocked[[2]string{from, to}] {
			c.dropped++
			return false
		}
		if len(chunk.UserData()) > bulk {
			c.last = [2]string{from, to}
			c.used[c.last] = true
		}
		return true
	})
	return c
}

// host adds a machine with two addresses.
func (c *cuttable) host(t *testing.T, n int) *vnet.Net {
	t.Helper()
	host, err := vnet.NewNet(&vnet.NetConfig{StaticIPs: addressesOf(n)})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.router.AddNet(host); err != nil {
		t.Fatal(err)
	}
	return host
}

func (c *cuttable) start(t *testing.T) {
	t.Helper()
	if err := c.router.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.router.Stop(); err != nil {
			t.Error(err)
		}
	})
}

// cutPath cuts the path in use, and leaves others.
func (c *cuttable) cutPath(t *testing.T) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last[0] == "" {
		t.Fatal("no data has passed")
	}
	c.blocked[c.last] = true
	c.blocked[[2]string{c.last[1], c.last[0]}] = true
	c.last = [2]string{}
}

// cutBetween cuts the paths that are in use between two hosts, and leaves others.
func (c *cuttable) cutBetween(t *testing.T, n, m int) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	before := len(c.blocked)
	for pair := range c.used {
		if from, to := hostOf(pair[0]), hostOf(pair[1]); from == n && to == m || from == m && to == n {
			c.blocked[pair] = true
			c.blocked[[2]string{pair[1], pair[0]}] = true
		}
	}
	if len(c.blocked) == before {
		t.Fatal("no data has passed")
	}
}

// blockBetween cuts all paths between two hosts, or mends them.
func (c *cuttable) blockBetween(n, m int, cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range addressesOf(n) {
		for _, b := range addressesOf(m) {
			c.blocked[[2]string{a, b}] = cut
			c.blocked[[2]string{b, a}] = cut
		}
	}
}

func addressesOf(n int) []string {
	return []string{fmt.Sprintf("10.0.0.%d", n), fmt.Sprintf("10.0.0.%d", n+100)}
}

func hostOf(address string) int {
	var n int
	if _, err := fmt.Sscanf(address, "10.0.0.%d", &n); err != nil {
		return 0
	}
	return n % 100
}

func (c *cuttable) cutAll(cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = cut
}

func (c *cuttable) drops() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dropped
}

// cuttablePair is two nodes with a link over a network that can be cut. shape may change the room before they come.
func cuttablePair(t *testing.T, shape func(*room)) (c *cuttable, r *room, a, b *testNode) {
	t.Helper()
	c = newCuttable(t)
	netA, netB := c.host(t, 1), c.host(t, 2)
	c.start(t)
	r = newRoom(t)
	if shape != nil {
		shape(r)
	}
	a, b = r.add("a", 1, onNet(netA)), r.add("b", 2, onNet(netB))
	linked(t, a, b)
	return c, r, a, b
}

// TestPathCut: when the path in use is cut and there is another, an ICE restart finds it, and the channel goes on.
func TestPathCut(t *testing.T) {
	c, r, a, b := cuttablePair(t, func(r *room) { r.timing.dead, r.timing.restart = 10*time.Second, 5*time.Second })
	a.store.writeText(fmt.Sprintf("%01000d", 1), "before")
	r.equal(a, b)
	ca, cb := a.openConns(t)[0], b.openConns(t)[0]
	c.cutPath(t)
	a.store.writeText("from a", "x")
	b.store.writeText("from b", "y")
	r.equal(a, b)
	if c.drops() == 0 {
		t.Error("the cut path was not in use")
	}
	linked(t, a, b)
	if a.openConns(t)[0] != ca || b.openConns(t)[0] != cb {
		t.Error("the channel did not survive")
	}
}

// TestAllCut: when everything is cut for longer than a link may be silent, both sides give up, and link anew when they can.
func TestAllCut(t *testing.T) {
	c, r, a, b := cuttablePair(t, nil)
	ca := a.openConns(t)[0]
	c.cutAll(true)
	a.store.writeText("from a", "x")
	b.store.writeText("from b", "y")
	for _, n := range []*testNode{a, b} {
		until(t, "the link is given up", patience, func() bool { return len(n.openConns(t)) == 0 })
	}
	if got := a.store.get("y") + b.store.get("x"); got != "" {
		t.Fatalf("%q came through a network that is cut", got)
	}
	c.cutAll(false)
	linked(t, a, b)
	r.equal(a, b)
	a.store.writeText("again from a", "x")
	b.store.writeText("again from b", "y")
	r.equal(a, b)
	if a.openConns(t)[0] == ca {
		t.Error("the link is still the old one")
	}
}

// TestSilence: without a signaling server there is no ICE restart, and a silent link is given up all the same.
func TestSilence(t *testing.T) {
	c, r, a, b := cuttablePair(t, nil)
	ca := a.openConns(t)[0]
	r.hub.setDown(true)
	c.cutAll(true)
	until(t, "the link is suspect", patience, func() bool { return a.state(t, b) == LinkSuspect })
	for _, n := range []*testNode{a, b} {
		until(t, "the link is given up", patience, func() bool { return len(n.openConns(t)) == 0 })
	}
	if err := ca.reason(); !errors.Is(err, errDead) {
		t.Errorf("the link ended with %v", err)
	}
	c.cutAll(false)
	r.hub.setDown(false)
	linked(t, a, b)
}

// TestFiveOnVirtualNetwork syncs five nodes that only a virtual network joins.
func TestFiveOnVirtualNetwork(t *testing.T) {
	c := newCuttable(t)
	var nets []*vnet.Net
	for i := range 5 {
		nets = append(nets, c.host(t, i+1))
	}
	c.start(t)
	r := newRoom(t)
	for i, n := range nets {
		r.add(fmt.Sprint("n", i), byte(i+1), onNet(n))
	}
	for i, n := range r.nodes {
		n.store.writeText(fmt.Sprint("of ", i), fmt.Sprint("own ", i), "shared")
	}
	for _, n := range r.nodes {
		n.await(t, Condition{Links: 4, Synced: true})
	}
	r.equal(r.nodes...)
}

// TestNoChannel: where DTLS gets through and what it carries does not, the member's status says so.
func TestNoChannel(t *testing.T) {
	c := newCuttable(t)
	netA, netB := c.host(t, 1), c.host(t, 2)
	const applicationData = 23 // the first byte of a DTLS packet that carries SCTP
	c.router.AddChunkFilter(func(chunk vnet.Chunk) bool {
		b := chunk.UserData()
		return len(b) == 0 || b[0] != applicationData
	})
	c.start(t)
	r := newRoom(t)
	r.timing.attempt = time.Second
	a := r.add("a", 1, onNet(netA))
	r.add("b", 2, onNet(netB))
	until(t, "the status says it", patience, func() bool {
		s, err := a.Status(t.Context())
		return err == nil && len(s.Members) == 1 && s.Members[0].Error == errNoChannel.Error() && s.Members[0].Reached == LinkOpening
	})
}
