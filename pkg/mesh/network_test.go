package mesh

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/logging"
	"github.com/pion/transport/v5"
	"github.com/pion/transport/v5/stdnet"
)

// movingHost is a machine that can be moved from one network to another. Sockets stay where they were made.
type movingHost struct {
	transport.Net // what is not overridden goes to the first one

	mu  sync.Mutex // guards the following
	now transport.Net
}

func (m *movingHost) current() transport.Net {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

func (m *movingHost) moveTo(n transport.Net) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = n
}

func (m *movingHost) Interfaces() ([]*transport.Interface, error) { return m.current().Interfaces() }

func (m *movingHost) ListenUDP(network string, local *net.UDPAddr) (transport.UDPConn, error) {
	return m.current().ListenUDP(network, local)
}

func (m *movingHost) ListenPacket(network, address string) (net.PacketConn, error) {
	return m.current().ListenPacket(network, address)
}

// patient makes silence tell nothing within the time of a test, so that only what watches the network can heal a link.
func patient(t *timing) {
	t.suspect, t.dead, t.restart, t.path = time.Hour, time.Hour, time.Hour, time.Hour
}

// TestMovedHost: the address of one side is replaced by another in the middle of a transfer. The link goes on over the new
// one, and nothing is sent twice.
func TestMovedHost(t *testing.T) {
	for name, port := range map[string]int{"ports of their own": 0, "one port": 4711} {
		t.Run(name, func(t *testing.T) {
			c := newCuttable(t)
			here, there, other := c.host(t, 1), c.host(t, 2), c.host(t, 3)
			c.start(t)
			r := newRoom(t)
			patient(&r.timing)
			machine := &movingHost{Net: here, now: here}
			a := r.add("a", 1, onNet(machine), func(c *Config) { c.UDPPort = port })
			b := r.add("b", 2, onNet(other), func(c *Config) { c.UDPPort = port })
			linked(t, a, b)
			ca, cb := a.openConns(t)[0], b.openConns(t)[0]
			const rows = 150
			held := b.store.block(&b.store.hold) // so that the transfer is not over before the address has changed
			for i := range rows {
				a.store.writeText(strings.Repeat("x", 30_000), fmt.Sprint(i))
			}
			until(t, "the transfer is under way", patience, func() bool { return b.store.waits() > 0 })
			c.blockBetween(1, 3, true)
			machine.moveTo(there)
			close(held)
			r.equal(a, b)
			if s := b.status(t).Applied; s.Changes != rows || s.Redundant != 0 {
				t.Errorf("%d of %d changes came, %d of them a second time", s.Changes, rows, s.Redundant)
			}
			if a.openConns(t)[0] != ca || b.openConns(t)[0] != cb {
				t.Error("the channel did not survive")
			}
			if checked := a.signaler.(*hubClient).checked.Load(); checked == 0 {
				t.Error("the connection to the signaling server was not checked")
			}
			if port != 0 {
				if got := a.status(t).Ports.UDP; len(got) != 2 || !strings.HasPrefix(got[0], "10.0.0.2:") {
					t.Errorf("the port is bound at %v", got)
				}
			}
		})
	}
}

// TestSocketOfAGoneAddress: what writes to it sees a loss, not an end, until others have had the time to find another path.
func TestSocketOfAGoneAddress(t *testing.T) {
	c := newCuttable(t)
	here, there := c.host(t, 1), c.host(t, 2)
	c.start(t)
	machine := &movingHost{Net: here, now: here}
	u, err := openUDPPort(machine, 4711, logging.NewDefaultLoggerFactory().NewLogger("test"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = u.Close() }()
	old := u.bound()[0]
	conn, err := u.GetConn("ufrag", net.UDPAddrFromAddrPort(old))
	if err != nil {
		t.Fatal(err)
	}
	socket := u.muxes[old]
	machine.moveTo(there)
	write := func() error {
		if err := u.refresh(); err != nil {
			t.Fatal(err)
		}
		_, err := conn.WriteTo([]byte("x"), &net.UDPAddr{IP: net.IPv4(10, 0, 0, 3), Port: 1})
		return err
	}
	if err := write(); err != nil {
		t.Errorf("the socket is of no use any more: %v", err)
	}
	for _, addr := range u.bound() {
		if addr == old {
			t.Errorf("%v is said to be bound, which the machine does not have", addr)
		}
	}
	u.mu.Lock()
	socket.gone = time.Now().Add(-keepGone)
	u.mu.Unlock()
	if err := write(); err == nil {
		t.Error("the socket stays for ever")
	}
}

// TestSleep: the path in use is gone when the machine wakes up. The clock tells it, and the other path is found at once.
func TestSleep(t *testing.T) {
	c := newCuttable(t)
	netA, netB := c.host(t, 1), c.host(t, 2)
	c.start(t)
	r := newRoom(t)
	patient(&r.timing)
	var slept atomic.Int64
	r.timing.wall = func() time.Time { return time.Now().Round(0).Add(time.Duration(slept.Load())) }
	a, b := r.add("a", 1, onNet(netA)), r.add("b", 2, onNet(netB))
	linked(t, a, b)
	a.store.writeText(fmt.Sprintf("%01000d", 1), "before")
	r.equal(a, b)
	ca, cb := a.openConns(t)[0], b.openConns(t)[0]
	// A look at the network that finds the path well restarts nothing.
	slept.Add(int64(time.Hour))
	until(t, "the links are looked at", patience, func() bool { return a.signaler.(*hubClient).checked.Load() == 1 })
	start := time.Now()
	until(t, "they answer", patience, func() bool { return ca.heardSince(start) && cb.heardSince(start) })
	c.cutBetween(t, 1, 2)
	slept.Add(int64(time.Hour))
	a.store.writeText("from a", "x")
	b.store.writeText("from b", "y")
	r.equal(a, b)
	if c.drops() == 0 {
		t.Error("the cut path was not in use")
	}
	if a.openConns(t)[0] != ca || b.openConns(t)[0] != cb {
		t.Error("the channel did not survive")
	}
}

// TestMovedOverNowhere: without any address nothing is tried; with the next one, what was given up is begun at once.
func TestMovedOverNowhere(t *testing.T) {
	c := newCuttable(t)
	here, there, other := c.host(t, 1), c.host(t, 2), c.host(t, 3)
	c.start(t)
	r := newRoom(t)
	r.timing.minBackoff, r.timing.maxBackoff, r.timing.want = time.Hour, time.Hour, time.Hour
	machine := &movingHost{Net: here, now: here}
	for name, ids := range map[string][2]byte{"the one that offers": {2, 1}, "the one that asks": {1, 2}} {
		t.Run(name, func(t *testing.T) {
			machine.moveTo(here)
			a := r.add("a "+name, ids[0], onNet(machine))
			b := r.add("b "+name, ids[1], onNet(other))
			if a.offers(b) {
				linked(t, a, b)
			} else {
				linked(t, b, a)
			}
			checked := a.signaler.(*hubClient).checked.Load()
			c.blockBetween(1, 3, true)
			machine.moveTo(nowhere{here})
			for _, n := range []*testNode{a, b} {
				until(t, "the link is given up", patience, func() bool { return len(n.openConns(t)) == 0 })
			}
			if got := a.signaler.(*hubClient).checked.Load(); got != checked {
				t.Error("a machine without an address looked for its server")
			}
			machine.moveTo(there)
			linked(t, a, b)
			c.blockBetween(1, 3, false)
			r.stop(a)
			r.stop(b)
		})
	}
}

func (n *testNode) offers(to *testNode) bool { return n.id.Compare(to.id) > 0 }

// nowhere is a machine whose last interface went down: it has its loopback address, and no other.
type nowhere struct{ transport.Net }

func (nowhere) Interfaces() ([]*transport.Interface, error) {
	lo := transport.NewInterface(net.Interface{Index: 1, MTU: 65536, Name: "lo", Flags: net.FlagUp | net.FlagLoopback})
	lo.AddAddress(&net.IPNet{IP: net.IPv4(127, 0, 0, 1), Mask: net.CIDRMask(8, 32)})
	return []*transport.Interface{lo}, nil
}

// sixOnly is the network of the machine, as far as it has IPv6.
type sixOnly struct{ transport.Net }

func (n sixOnly) Interfaces() ([]*transport.Interface, error) {
	all, err := n.Net.Interfaces()
	if err != nil {
		return nil, err
	}
	var out []*transport.Interface
	for _, i := range all {
		only := transport.NewInterface(i.Interface)
		addrs, _ := i.Addrs()
		for _, a := range addrs {
			if ip, ok := a.(*net.IPNet); ok && ip.IP.To4() == nil {
				only.AddAddress(a)
			}
		}
		out = append(out, only)
	}
	return out, nil
}

// TestIPv6 links over IPv6 alone, between addresses of this machine. ICE takes ::1 for no address (RFC 8445, 5.1.1.1), so that a
// machine needs another one.
func TestIPv6(t *testing.T) {
	std, err := stdnet.NewNet()
	if err != nil {
		t.Fatal(err)
	}
	six := sixOnly{std}
	ips, err := localIPs(six)
	if err != nil {
		t.Fatal(err)
	}
	if len(ips) == 0 || ips[0].IsLoopback() {
		t.Skip("this machine has no IPv6 address but ::1")
	}
	for name, ports := range map[string]bool{"ports of their own": false, "one UDP port": true} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t)
			for i := range 2 {
				r.add(fmt.Sprint("n", i), byte(i+1), onNet(six), func(c *Config) {
					if ports {
						c.UDPPort = freeUDPPort(t, ips[0])
					}
				})
			}
			a, b := r.nodes[0], r.nodes[1]
			linked(t, a, b)
			a.store.writeText("over IPv6", "x")
			r.equal(a, b)
			if !ports {
				return
			}
			for _, bound := range a.status(t).Ports.UDP {
				if !strings.HasPrefix(bound, "[") {
					t.Errorf("the port is bound at %s", bound)
				}
			}
		})
	}
}

func freeUDPPort(t *testing.T, ip net.IP) int {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: ip})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	return c.LocalAddr().(*net.UDPAddr).Port
}
