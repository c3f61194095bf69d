package mesh

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/logging"
	"github.com/pion/stun/v4"
	"github.com/pion/transport/v5/vnet"

	"github.com/crmesh/crmesh/pkg/signaling"
)

// Kinds of NAT, by RFC 4787.
var (
	fullCone  = vnet.NATType{MappingBehavior: vnet.EndpointIndependent, FilteringBehavior: vnet.EndpointIndependent}
	cone      = vnet.NATType{MappingBehavior: vnet.EndpointIndependent, FilteringBehavior: vnet.EndpointAddrPortDependent}
	symmetric = vnet.NATType{MappingBehavior: vnet.EndpointAddrPortDependent, FilteringBehavior: vnet.EndpointAddrPortDependent}
)

// internet is a virtual network in the open, with networks behind NAT and a STUN server.
type internet struct {
	t    testing.TB
	wan  *vnet.Router
	stun signaling.ICEServer
	next byte // host number of the next machine or router
}

var quietVnet = &logging.DefaultLoggerFactory{DefaultLogLevel: logging.LogLevelDisabled}

func newInternet(t testing.TB, delay time.Duration) *internet {
	t.Helper()
	wan, err := vnet.NewRouter(&vnet.RouterConfig{CIDR: "198.51.100.0/24", MinDelay: delay, LoggerFactory: quietVnet})
	if err != nil {
		t.Fatal(err)
	}
	n := &internet{t: t, wan: wan, next: 1}
	server := n.host(wan, n.address())
	n.stun = signaling.ICEServer{URLs: []string{"stun:198.51.100.1:3478"}}
	answerSTUN(t, server, "198.51.100.1:3478")
	return n
}

func (n *internet) address() string {
	n.next++
	return fmt.Sprintf("198.51.100.%d", n.next-1)
}

func (n *internet) host(router *vnet.Router, ip string) *vnet.Net {
	n.t.Helper()
	host, err := vnet.NewNet(&vnet.NetConfig{StaticIPs: []string{ip}})
	if err == nil {
		err = router.AddNet(host)
	}
	if err != nil {
		n.t.Fatal(err)
	}
	return host
}

// open adds a machine that everybody can reach.
func (n *internet) open() *vnet.Net { return n.host(n.wan, n.address()) }

// behind adds a machine behind a NAT of its own.
func (n *internet) behind(kind vnet.NATType) *vnet.Net {
	n.t.Helper()
	outer := n.address()
	inner := strings.Replace(outer, "198.51.100.", "192.168.", 1)
	lan, err := vnet.NewRouter(&vnet.RouterConfig{
		CIDR: inner + ".0/24", StaticIPs: []string{outer}, NATType: &kind, LoggerFactory: quietVnet,
	})
	if err != nil {
		n.t.Fatal(err)
	}
	host := n.host(lan, inner+".2")
	if err := n.wan.AddRouter(lan); err != nil {
		n.t.Fatal(err)
	}
	return host
}

// start begins to pass packets on, until the test ends.
func (n *internet) start() {
	n.t.Helper()
	if err := n.wan.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		if err := n.wan.Stop(); err != nil {
			n.t.Error(err)
		}
	})
}

// answerSTUN answers binding requests at an address until the test ends.
func answerSTUN(t testing.TB, host *vnet.Net, address string) {
	t.Helper()
	socket, err := host.ListenPacket("udp4", address)
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	t.Cleanup(func() {
		_ = socket.Close()
		done.Wait()
	})
	done.Go(func() {
		buf := make([]byte, 1500)
		for {
			size, from, err := socket.ReadFrom(buf)
			if err != nil {
				return
			}
			request, udp := &stun.Message{Raw: append([]byte(nil), buf[:size]...)}, from.(*net.UDPAddr)
			if request.Decode() != nil {
				continue
			}
			answer, err := stun.Build(request, stun.BindingSuccess, &stun.XORMappedAddress{IP: udp.IP, Port: udp.Port})
			if err == nil {
				_, _ = socket.WriteTo(answer.Raw, from)
			}
		}
	})
}

// TestNAT: which kinds of NAT let a direct link through. Where they do not, a replica in the open is the meeting point: both
// ends of the link that does not come about get everything from it.
func TestNAT(t *testing.T) {
	for _, c := range []struct {
		name   string
		a, b   vnet.NATType
		direct bool
	}{
		{"cone and cone", cone, cone, true},
		{"full cone and symmetric", fullCone, symmetric, true},
		{"cone and symmetric", cone, symmetric, false},
		{"symmetric and symmetric", symmetric, symmetric, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newInternet(t, 0)
			netA, netB, netOpen := n.behind(c.a), n.behind(c.b), n.open()
			n.start()
			r := newRoom(t)
			withSTUN := func(cfg *Config) { cfg.ICEServers = []signaling.ICEServer{n.stun} }
			if c.direct {
				a, b := r.add("a", 1, onNet(netA), withSTUN), r.add("b", 2, onNet(netB), withSTUN)
				linked(t, a, b)
				r.exchange("x", a, b)
				return
			}
			r.timing.attempt = time.Second
			a, b := r.add("a", 1, onNet(netA), withSTUN), r.add("b", 2, onNet(netB), withSTUN)
			open := r.add("open", 3, onNet(netOpen), withSTUN)
			linked(t, a, open)
			linked(t, b, open)
			for _, pair := range [][2]*testNode{{a, b}, {b, a}} {
				until(t, "an attempt at the direct link has failed", patience, func() bool { return pair[0].tried(t, pair[1]) })
			}
			r.exchange("x", a, b)
			a.await(t, Condition{Links: 1, Synced: true})
			if got := a.openConns(t); len(got) != 1 || got[0].peer != open.id {
				t.Errorf("%d links, where only the one to the replica in the open can be", len(got))
			}
		})
	}
}

// tried reports whether an attempt at a link to other has found no path.
func (n *testNode) tried(t testing.TB, other *testNode) bool {
	t.Helper()
	s, err := n.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range s.Members {
		if m.Peer == other.id.String() {
			return m.Error == errNoPath.Error()
		}
	}
	return false
}

// TestLossAndDelay: a transfer over a path that loses one packet of a hundred and takes 50 ms comes through whole.
func TestLossAndDelay(t *testing.T) {
	const (
		loss  = 0.01
		delay = 50 * time.Millisecond
		rows  = 64
		row   = 32 << 10 // bytes: 2 MiB in all
	)
	n := newInternet(t, delay)
	netA, netB := n.open(), n.open()
	random := rand.New(rand.NewPCG(1, 2)) // the router's goroutine only
	var lost atomic.Int64
	n.wan.AddChunkFilter(func(vnet.Chunk) bool {
		if random.Float64() < loss {
			lost.Add(1)
			return false
		}
		return true
	})
	n.start()
	r := newRoom(t)
	r.timing.attempt, r.timing.suspect, r.timing.dead = AttemptTimeout, SuspectAfter, DeadAfter
	a, b := r.add("a", 1, onNet(netA)), r.add("b", 2, onNet(netB))
	linked(t, a, b)
	begun := time.Now()
	for i := range rows {
		a.store.writeText(strings.Repeat(string(rune('a'+i%26)), row), fmt.Sprint(i))
	}
	until(t, "all is there", 3*time.Minute, func() bool { return b.store.content() == a.store.content() })
	t.Logf("%d bytes in %v, %d packets lost", rows*row, time.Since(begun).Round(time.Millisecond), lost.Load())
	if lost.Load() == 0 {
		t.Error("no packet was lost")
	}
}
