package mesh

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/logging"
	"github.com/pion/transport/v5"
	"github.com/pion/transport/v5/stdnet"
	"github.com/pion/transport/v5/vnet"

	"github.com/crmesh/crmesh/pkg/signaling"
)

// freePort returns a port that is free at the moment, of UDP and TCP.
func freePort(t testing.TB) int {
	t.Helper()
	for range 20 {
		u, err := net.ListenUDP("udp", &net.UDPAddr{})
		if err != nil {
			t.Fatal(err)
		}
		port := u.LocalAddr().(*net.UDPAddr).Port
		l, err := net.ListenTCP("tcp", &net.TCPAddr{Port: port})
		_ = u.Close()
		if err == nil {
			_ = l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

func onUDP(port int) func(*Config) { return func(c *Config) { c.UDPPort = port } }
func onTCP(port int) func(*Config) { return func(c *Config) { c.TCPPort = port } }

// announced collects the candidates that pass the hub, by sender. keep, if set, says which of them go on.
type announced struct {
	mu   sync.Mutex
	from map[signaling.PeerID][]string
}

func (r *room) listen(keep func(string) bool) *announced {
	a := &announced{from: map[signaling.PeerID][]string{}}
	r.hub.hook(func(from, _ signaling.PeerID, d signaling.Description) bool {
		if d.Candidate == nil || d.Candidate.Candidate == "" {
			return true
		}
		a.mu.Lock()
		a.from[from] = append(a.from[from], d.Candidate.Candidate)
		a.mu.Unlock()
		return keep == nil || keep(d.Candidate.Candidate)
	})
	return a
}

func (a *announced) of(n *testNode) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]string(nil), a.from[n.id]...)
}

func openFiles(t testing.TB) int {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("this system does not list open files")
	}
	return len(files)
}

// exchange writes on both sides and waits until both have it all.
func (r *room) exchange(what string, a, b *testNode) {
	r.t.Helper()
	a.store.writeText(what+" from a", what+" a")
	b.store.writeText(what+" from b", what+" b")
	r.equal(a, b)
	if got := a.store.get(what+" b") + b.store.get(what+" a"); got != what+" from b"+what+" from a" {
		r.t.Fatalf("got %q", got)
	}
}

// TestSharedUDPPort: whichever end has one port for all, the two are linked, and no other port of it is announced.
func TestSharedUDPPort(t *testing.T) {
	for name, muxed := range map[string][2]bool{"both": {true, true}, "offerer": {false, true}, "answerer": {true, false}} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t)
			seen := r.listen(nil)
			var nodes [2]*testNode
			var ports [2]int
			for i := range nodes {
				if muxed[i] {
					ports[i] = freePort(t)
				}
				nodes[i] = r.add(fmt.Sprint("n", i), byte(i+1), onUDP(ports[i]))
			}
			linked(t, nodes[0], nodes[1])
			r.exchange("x", nodes[0], nodes[1])
			for i, n := range nodes {
				s, err := n.Status(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if len(s.Ports.UDP) > 0 != muxed[i] || len(s.Ports.TCP) != 0 {
					t.Errorf("status of the ports: %+v", s.Ports)
				}
				if len(seen.of(n)) == 0 {
					t.Error("no candidate was announced")
				}
				for _, c := range seen.of(n) {
					if muxed[i] && strings.Fields(c)[5] != fmt.Sprint(ports[i]) {
						t.Errorf("the candidate %q is not at port %d", c, ports[i])
					}
				}
			}
		})
	}
}

// TestSharedPortIPv6: one port carries IPv6, too.
func TestSharedPortIPv6(t *testing.T) {
	port := freePort(t)
	probe, err := openUDPPort(nil, port, pionLogs{slog.New(slog.DiscardHandler)}.NewLogger("test"))
	if err != nil {
		t.Fatal(err)
	}
	six := slices.ContainsFunc(probe.bound(), func(a netip.AddrPort) bool { return a.Addr().Is6() })
	if err := probe.Close(); err != nil {
		t.Fatal(err)
	}
	if !six {
		t.Skip("this machine has no IPv6 address")
	}
	r := newRoom(t)
	r.listen(func(c string) bool { return strings.Contains(strings.Fields(c)[4], ":") })
	a, b := r.add("a", 1, onUDP(port)), r.add("b", 2, onUDP(freePort(t)))
	linked(t, a, b)
	r.exchange("x", a, b)
}

// TestTCPPort: where no UDP candidate arrives, a TCP port at either end is enough.
func TestTCPPort(t *testing.T) {
	for name, n := range map[string]int{"offerer": 1, "answerer": 0} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t)
			r.listen(func(c string) bool { return strings.Contains(strings.ToLower(c), " tcp ") })
			var nodes [2]*testNode
			for i := range nodes {
				port := 0
				if i == n {
					port = freePort(t)
				}
				nodes[i] = r.add(fmt.Sprint("n", i), byte(i+1), onTCP(port))
			}
			linked(t, nodes[0], nodes[1])
			r.exchange(strings.Repeat("long ", 20000), nodes[0], nodes[1])
			s, err := nodes[n].Status(t.Context())
			if err != nil || len(s.Ports.TCP) != 1 {
				t.Errorf("status of the ports: %+v, %v", s.Ports, err)
			}
		})
	}
}

// TestReconnects: with one port at both ends, a link is made anew 20 times in a row, each after the one before; nothing is left.
func TestReconnects(t *testing.T) {
	files := openFiles(t)
	t.Run("links", func(t *testing.T) {
		r := newRoom(t)
		a, b := r.add("a", 1, onUDP(freePort(t)), onTCP(freePort(t))), r.add("b", 2, onUDP(freePort(t)))
		linked(t, a, b)
		for i := range 20 {
			n := [2]*testNode{a, b}[i%2]
			old := n.openConns(t)[0]
			old.close(errors.New("cut by the test"))
			until(t, "there is a newer link", patience, func() bool {
				now := n.openConns(t)
				return len(now) == 1 && now[0] != old
			})
			linked(t, a, b)
			r.exchange(fmt.Sprint(i), a, b)
			if a.Connections() != 1 || b.Connections() != 1 {
				t.Fatalf("%d and %d PeerConnections exist", a.Connections(), b.Connections())
			}
		}
	})
	until(t, "all sockets are closed", patience, func() bool { return openFiles(t) <= files })
}

// TestSharedPortRestart: an ICE restart finds another path between two ends with one port each, and the channel goes on.
func TestSharedPortRestart(t *testing.T) {
	c := newCuttable(t)
	netA, netB := c.host(t, 1), c.host(t, 2)
	c.start(t)
	r := newRoom(t)
	r.timing.dead, r.timing.restart = 10*time.Second, 5*time.Second
	a, b := r.add("a", 1, onNet(netA), onUDP(7001)), r.add("b", 2, onNet(netB), onUDP(7002))
	linked(t, a, b)
	a.store.writeText(fmt.Sprintf("%01000d", 1), "before")
	r.equal(a, b)
	ca, cb := a.openConns(t)[0], b.openConns(t)[0]
	c.cutPath(t)
	r.exchange("after", a, b)
	linked(t, a, b)
	if a.openConns(t)[0] != ca || b.openConns(t)[0] != cb {
		t.Error("the channel did not survive")
	}
}

// TestSharedPortAfterDeath: a peer that died without a word comes back at the same port, under another id. What the other
// still holds of the old one must not keep the two apart.
func TestSharedPortAfterDeath(t *testing.T) {
	c := newCuttable(t)
	netA, netB := c.host(t, 1), c.host(t, 2)
	c.start(t)
	r := newRoom(t)
	for round := range 3 {
		a, b := r.add("a", 1, onNet(netA), onUDP(7001)), r.add("b", byte(round), onNet(netB), onUDP(7002))
		linked(t, a, b)
		c.cutAll(true)
		r.stop(b) // its goodbye is lost
		c.cutAll(false)
		again := r.addStore(b.store, "b again", byte(2-round), onNet(netB), onUDP(7002))
		linked(t, a, again)
		r.exchange(fmt.Sprint(round), a, again)
		until(t, "the old link is gone", patience, func() bool { return len(a.openConns(t)) == 1 })
		r.stop(again)
		r.stop(a)
	}
}

// behindNAT adds a machine behind a router of its own to the network, which translates as natType says.
func behindNAT(t *testing.T, wan *vnet.Router, lan, inner, outer string, natType *vnet.NATType) *vnet.Net {
	t.Helper()
	static := outer
	if natType.Mode == vnet.NATModeNAT1To1 {
		static += "/" + inner
	}
	router, err := vnet.NewRouter(&vnet.RouterConfig{
		CIDR: lan, StaticIPs: []string{static}, NATType: natType,
		LoggerFactory: &logging.DefaultLoggerFactory{DefaultLogLevel: logging.LogLevelDisabled},
	})
	if err != nil {
		t.Fatal(err)
	}
	host, err := vnet.NewNet(&vnet.NetConfig{StaticIPs: []string{inner}})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(router.AddNet(host), wan.AddRouter(router)); err != nil {
		t.Fatal(err)
	}
	return host
}

// TestNAT1To1: two machines behind two routers, no STUN: they are linked once the one whose router passes everything on
// announces the outer address, and not before.
func TestNAT1To1(t *testing.T) {
	c := newCuttable(t)
	open := behindNAT(t, c.router, "10.1.0.0/24", "10.1.0.5", "10.0.0.50", &vnet.NATType{Mode: vnet.NATModeNAT1To1})
	closed := behindNAT(t, c.router, "10.2.0.0/24", "10.2.0.5", "10.0.0.60", &vnet.NATType{
		MappingBehavior: vnet.EndpointAddrPortDependent, FilteringBehavior: vnet.EndpointAddrPortDependent,
		MappingLifeTime: time.Minute,
	})
	c.start(t)
	for _, port := range []int{0, 7001} {
		t.Run(fmt.Sprint("port ", port), func(t *testing.T) {
			r := newRoom(t)
			r.timing.attempt = time.Second
			a, b := r.add("a", 1, onNet(open), onUDP(port)), r.add("b", 2, onNet(closed))
			until(t, "the attempt fails", patience, func() bool {
				s, err := b.Status(t.Context())
				return err == nil && len(s.Members) == 1 && s.Members[0].State != LinkOpen && s.Members[0].Error != ""
			})
			r.stop(a)
			r.timing.attempt = 5 * time.Second
			outer := func(c *Config) { c.NAT1To1 = []netip.Addr{netip.MustParseAddr("10.0.0.50")} }
			again := r.add("again", 3, onNet(open), onUDP(port), outer)
			linked(t, again, b)
			r.exchange("x", again, b)
			r.stop(b)
			r.stop(again)
		})
	}
}

// TestICELite: a lite end is linked with one that is not; two lite ends are told why they are not.
func TestICELite(t *testing.T) {
	lite := func(c *Config) { c.ICELite = true }
	for name, port := range map[string]int{"own sockets": 0, "one port": freePort(t)} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t)
			low, full := r.add("lite", 1, lite, onUDP(port)), r.add("full", 2)
			linked(t, low, full)
			r.exchange("x", low, full)
			high := r.add("lite, too", 3, lite)
			linked(t, high, full)
			for of, other := range map[*testNode]*testNode{low: high, high: low} {
				until(t, "both lite ends say why", patience, func() bool {
					s, err := of.Status(t.Context())
					for _, m := range s.Members {
						if m.Peer == other.id.String() && m.State != LinkOpen && m.Error == errBothLite.Error() {
							return err == nil
						}
					}
					return false
				})
			}
		})
	}
}

// TestPortsRefused: what cannot be had is an error of Start, and nothing stays open.
func TestPortsRefused(t *testing.T) {
	port := freePort(t)
	udp, err := net.ListenUDP("udp", &net.UDPAddr{Port: port})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = udp.Close() }()
	tcp, err := net.ListenTCP("tcp", &net.TCPAddr{Port: port})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tcp.Close() }()
	free := freePort(t)
	files := openFiles(t)
	for name, c := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"UDP taken":    {onUDP(port), "choose another one"},
		"TCP taken":    {func(c *Config) { c.UDPPort, c.TCPPort = free, port }, "choose another one"},
		"no UDP port":  {onUDP(70000), "from 1 to 65535"},
		"no TCP port":  {onTCP(-1), "from 1 to 65535"},
		"outer":        {func(c *Config) { c.NAT1To1 = []netip.Addr{netip.IPv4Unspecified()} }, "none that others can reach"},
		"many outer":   {func(c *Config) { c.NAT1To1 = make([]netip.Addr, MaxNAT1To1+1) }, "at most 16"},
		"ICE server":   {func(c *Config) { c.ICEServers = []signaling.ICEServer{{URLs: []string{"http://x"}}} }, "stun:HOST:PORT"},
		"many servers": {func(c *Config) { c.ICEServers = make([]signaling.ICEServer, MaxICEServers+1) }, "at most 16"},
		"lite and servers": {func(c *Config) {
			c.ICELite, c.ICEServers = true, []signaling.ICEServer{{URLs: []string{"stun:x:1"}}}
		}, "leave one of the two out"},
		"relays and a port": {func(c *Config) { c.RelayOnly, c.UDPPort = true, free }, "over TURN relays only"},
		"relays and lite":   {func(c *Config) { c.RelayOnly, c.ICELite = true, true }, "over TURN relays only"},
	} {
		t.Run(name, func(t *testing.T) {
			id := peerID(1)
			cfg := Config{Store: newMemStore("x"), Signaler: newHub().join(id), Peer: id, Keys: newKeys(t)}
			c.change(&cfg)
			n, err := start(t.Context(), cfg, quick())
			if err == nil {
				_ = n.Close()
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	until(t, "all sockets are closed", patience, func() bool { return openFiles(t) <= files })
}

// movable is a network with one interface whose addresses change.
type movable struct {
	transport.Net
	mu    sync.Mutex
	addrs []string
}

func (m *movable) move(addrs ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.addrs = addrs
}

func (m *movable) Interfaces() ([]*transport.Interface, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := transport.NewInterface(net.Interface{Index: 1, Name: "lo", Flags: net.FlagUp | net.FlagLoopback})
	for _, a := range m.addrs {
		i.AddAddress(&net.IPNet{IP: net.ParseIP(a), Mask: net.CIDRMask(8, 32)})
	}
	return []*transport.Interface{i}, nil
}

// TestAddressChange: the port follows the addresses of the machine.
func TestAddressChange(t *testing.T) {
	std, err := stdnet.NewNet()
	if err != nil {
		t.Fatal(err)
	}
	m := &movable{Net: std}
	log := pionLogs{slog.New(slog.DiscardHandler)}.NewLogger("test")
	if _, err := openUDPPort(m, freePort(t), log); err == nil {
		t.Error("a port was opened on a machine without an address")
	}
	m.move("127.0.0.1", "169.254.1.1")
	u, err := openUDPPort(m, freePort(t), log)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = u.Close() }()
	old := u.GetListenAddresses()
	m.move("127.0.0.2")
	now := u.GetListenAddresses()
	if len(old) != 1 || len(now) != 1 || now[0].(*net.UDPAddr).IP.String() != "127.0.0.2" {
		t.Errorf("the port was at %v, then at %v", old, now)
	}
	if _, err := u.GetConn("x", old[0]); err == nil {
		t.Error("the old address still has a socket")
	}
	c, err := u.GetConn("x", now[0])
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}

// TestTCPBound: a connection beyond the limit is closed at once, and there is room again when another one ends.
func TestTCPBound(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &boundedListener{Listener: l, limit: 1, done: make(chan struct{})}
	defer func() { _ = b.Close() }()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	dial()
	first, err := b.Accept()
	if err != nil {
		t.Fatal(err)
	}
	second := dial()
	third := make(chan net.Conn, 1)
	go func() {
		c, _ := b.Accept()
		third <- c
	}()
	_ = second.SetReadDeadline(time.Now().Add(patience))
	if _, err := second.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection beyond the limit: %v", err)
	}
	_ = first.Close()
	_ = first.Close() // counts once
	if n := b.open.Load(); n != 0 {
		t.Errorf("%d connections are counted", n)
	}
	dial()
	if c := <-third; c == nil {
		t.Error("there is no room again")
	} else {
		_ = c.Close()
	}
}

// TestOwnServers: ours come first; with one port and a known outer address only TURN is left; a lite end asks nobody.
func TestOwnServers(t *testing.T) {
	own := signaling.ICEServer{URLs: []string{"turn:o:1", "stun:o:1"}, Username: "u", Credential: "p"}
	theirs := []signaling.ICEServer{{URLs: []string{"stun:s:1"}}}
	outer := []netip.Addr{netip.MustParseAddr("192.0.2.9")}
	for want, c := range map[string]Config{
		"[{[turn:o:1 stun:o:1] u p} {[stun:s:1]  }]": {ICEServers: []signaling.ICEServer{own}, UDPPort: 1},
		"[{[turn:o:1] u p}]":                         {ICEServers: []signaling.ICEServer{own}, UDPPort: 1, NAT1To1: outer},
		"[{[stun:s:1]  }]":                           {NAT1To1: outer},
		"[]":                                         {ICELite: true},
	} {
		if got := fmt.Sprint((&Node{cfg: c}).ownServers(theirs)); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestParseICEServer(t *testing.T) {
	for in, want := range map[string]signaling.ICEServer{
		"stun:stun.example.org":              {URLs: []string{"stun:stun.example.org"}},
		"stun:[2001:db8::1]:3478":            {URLs: []string{"stun:[2001:db8::1]:3478"}},
		"turn:u:p@h:3478?transport=tcp":      {URLs: []string{"turn:h:3478?transport=tcp"}, Username: "u", Credential: "p"},
		"turns:17:me:pa%40ss%3A%25@h:5349":   {URLs: []string{"turns:h:5349"}, Username: "17", Credential: "me:pa@ss:%"},
		"turn:17%3Ame:secret@192.0.2.1:3478": {URLs: []string{"turn:192.0.2.1:3478"}, Username: "17:me", Credential: "secret"},
	} {
		got, err := ParseICEServer(in)
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "x", "http://h", "stun:", "turn:h:1", "turn:hush@h:1", "turn:u:%zzhush@h:1", "stun:u:hush@h:1", "stun:h:port"} {
		if got, err := ParseICEServer(in); err == nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
}
