package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pion/logging"
	"github.com/pion/stun/v4"
	"github.com/pion/transport/v5"
	"github.com/pion/transport/v5/stdnet"
	"github.com/pion/transport/v5/vnet"

	"github.com/crmesh/crmesh/pkg/mesh"
	"github.com/crmesh/crmesh/pkg/signaling"
	"github.com/crmesh/crmesh/pkg/signaling/signalclient"
	"github.com/crmesh/crmesh/pkg/signaling/signalserver"
)

// clinic is a signaling server and a room for the doctor.
type clinic struct {
	t    *testing.T
	url  string
	keys signaling.Keys
}

func newClinic(t *testing.T) *clinic {
	t.Helper()
	return newClinicOf(t, signalserver.DefaultConfig())
}

func newClinicOf(t *testing.T, cfg signalserver.Config) *clinic {
	t.Helper()
	server, err := signalserver.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(server)
	t.Cleanup(func() {
		_ = server.Shutdown(context.Background())
		web.Close()
	})
	keys, err := signaling.NewRoom(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &clinic{t, web.URL, keys}
}

// examine runs the checks and returns the last finding of a kind.
func (c *clinic) examine(kind string, change ...func(*doctor)) finding {
	c.t.Helper()
	keys := c.keys
	keys.WriterPrivate = nil
	d := &doctor{
		urls: []string{c.url}, keys: keys, log: slog.New(slog.DiscardHandler), show: func(finding) {}, doing: func(string) {},
		serverTimeout: patience, stunTimeout: patience, gatherTimeout: patience, trialTimeout: patience,
	}
	for _, f := range change {
		f(d)
	}
	if err := d.examine(c.t.Context()); err != nil {
		c.t.Fatal(err)
	}
	var out finding
	for _, f := range d.findings {
		if f.OK == (f.Advice != "") {
			c.t.Errorf("a fault has an advice, and nothing else: %+v", f)
		}
		if f.Check == kind {
			out = f
		}
	}
	return out
}

// within has the checks given a time, and a longer one while ok is not so: what a fault takes up whole is to be short, and what goes well
// beside it may take long on a busy machine.
func (c *clinic) within(limit time.Duration, set func(*doctor, time.Duration), kind string, ok func(finding) bool, change ...func(*doctor)) finding {
	c.t.Helper()
	for ; ; limit *= 3 {
		f := c.examine(kind, append(change, func(d *doctor) { set(d, limit) })...)
		if ok(f) || limit > patience {
			return f
		}
	}
}

func (c *clinic) fault(f finding, want string) {
	c.t.Helper()
	if f.OK || !strings.Contains(f.Found, want) {
		c.t.Errorf("want a fault with %q, got %+v", want, f)
	}
}

// crooked changes what a member sends and gets. nil functions change nothing; a description for which drop is true is lost.
type crooked struct {
	mesh.Signaler
	drop   func(signaling.Description) bool
	change func(*signaling.Description)
}

func (c *crooked) Send(to signaling.PeerID, d signaling.Description) error {
	if c.drop != nil && c.drop(d) {
		return nil
	}
	if c.change != nil {
		c.change(&d)
	}
	return c.Signaler.Send(to, d)
}

// member lets a writer into the room and waits until it is there. n may be nil.
func (c *clinic) member(n transport.Net, change func(*crooked)) *mesh.Node {
	c.t.Helper()
	id, err := signaling.NewPeerID(rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	id[0] &= 0x7f
	s := newSignaler()
	if err := s.join(signalclient.Config{URLs: []string{c.url}, Keys: c.keys, Peer: id, Meta: signaling.Meta{Name: "m"}}); err != nil {
		c.t.Fatal(err)
	}
	x := &crooked{Signaler: s}
	if change != nil {
		change(x)
	}
	node, err := mesh.Start(c.t.Context(), mesh.Config{Store: newNoStore(), Signaler: x, Peer: id, Keys: c.keys, Net: n})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		_ = node.Close()
		s.close()
	})
	eventually(c.t, "the member is in the room", func() bool {
		status, err := node.Status(c.t.Context())
		return err == nil && status.Server.Joined
	})
	return node
}

func TestDoctorServer(t *testing.T) {
	t.Parallel()
	c := newClinic(t)
	if f := c.examine("server"); !f.OK {
		t.Errorf("a good server: %+v", f)
	}
	at := func(url string) func(*doctor) { return func(d *doctor) { d.urls = []string{url} } }
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = gone.Close()
	c.fault(c.examine("server", at("http://"+gone.Addr().String())), "no TCP connection")
	c.fault(c.examine("nat", at("http://"+gone.Addr().String())), "could not be asked")
	c.fault(c.examine("server", at("http://no.such.name.invalid/")), "leads to no address")
	c.fault(c.examine("server", at("https://"+strings.TrimPrefix(c.url, "http://"))), "no TLS connection")
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	c.fault(c.examine("server", at(other.URL)), "this is no signaling server")
	c.fault(c.examine("server", at(c.url+"/wrong/path/")), "path is another one")
	c.fault(c.examine("join", at(c.url+"/wrong/path/")), "could not be joined")
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mute.Close() }()
	c.fault(c.examine("server", at("http://"+mute.Addr().String()), func(d *doctor) { d.serverTimeout = 200 * time.Millisecond }),
		"does not answer over HTTP")
}

// stunServer answers as from the address that self returns; not at all where that is the zero value.
func stunServer(t *testing.T, self func(netip.AddrPort) netip.AddrPort) signaling.ICEServer {
	t.Helper()
	socket, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = socket.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := socket.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			request := &stun.Message{Raw: append([]byte(nil), buf[:n]...)}
			seen := self(from)
			if request.Decode() != nil || !seen.IsValid() {
				continue
			}
			answer, err := stun.Build(request, stun.BindingSuccess,
				&stun.XORMappedAddress{IP: seen.Addr().AsSlice(), Port: int(seen.Port())})
			if err == nil {
				_, _ = socket.WriteToUDPAddrPort(answer.Raw, from)
			}
		}
	}()
	return signaling.ICEServer{URLs: []string{"stun:" + socket.LocalAddr().String()}}
}

func TestDoctorSTUN(t *testing.T) {
	t.Parallel()
	c := newClinic(t)
	outer := func(port uint16) func(netip.AddrPort) netip.AddrPort {
		return func(netip.AddrPort) netip.AddrPort {
			return netip.AddrPortFrom(netip.MustParseAddr("198.51.100.1"), port)
		}
	}
	with := func(servers ...signaling.ICEServer) func(*doctor) { return func(d *doctor) { d.servers = servers } }
	mute := stunServer(t, func(netip.AddrPort) netip.AddrPort { return netip.AddrPort{} })
	open := stunServer(t, func(from netip.AddrPort) netip.AddrPort { return from })
	one, same, different := stunServer(t, outer(1000)), stunServer(t, outer(1000)), stunServer(t, outer(1001))
	short := func(d *doctor) { d.stunTimeout = 300 * time.Millisecond }
	c.fault(c.examine("stun", with(mute), short), "no answer within")
	c.fault(c.examine("stun", with(signaling.ICEServer{URLs: []string{"stun:no.such.name.invalid:1"}})), "has no address")
	c.fault(c.examine("nat", with()), "the NAT type is unknown: there is no STUN server")
	c.fault(c.examine("nat", with(one, different)), "symmetric NAT")
	unknown := func(f finding) bool { return strings.Contains(f.Found, "its type is unknown") }
	for want, f := range map[string]finding{
		"its type is unknown": c.within(300*time.Millisecond, func(d *doctor, limit time.Duration) { d.stunTimeout = limit }, "nat", unknown, with(one, mute)),
		"cone NAT":            c.examine("nat", with(one, same)),
		"no NAT":              c.examine("nat", with(open)),
	} {
		if !f.OK || !strings.Contains(f.Found, want) {
			t.Errorf("want %q, got %+v", want, f)
		}
	}
}

// noInterfaces is a network of a machine that is not connected.
type noInterfaces struct{ transport.Net }

func (noInterfaces) Interfaces() ([]*transport.Interface, error) { return nil, nil }

func TestDoctorCandidates(t *testing.T) {
	t.Parallel()
	c := newClinic(t)
	std, err := stdnet.NewNet()
	if err != nil {
		t.Fatal(err)
	}
	c.fault(c.examine("candidates", func(d *doctor) { d.net = noInterfaces{std} }), "there is no candidate")
	turn := signaling.ICEServer{URLs: []string{"turn:127.0.0.1:9"}, Username: "u", Credential: "p"}
	_, hosts := virtual(t, 1)
	if f := c.examine("candidates", func(d *doctor) { d.net = hosts[0] }); !f.OK || !strings.Contains(f.Found, "1 host IPv4") {
		t.Errorf("a machine with one address: %+v", f)
	}
	c.fault(c.examine("candidates", func(d *doctor) {
		d.net, d.servers, d.gatherTimeout, d.stunTimeout = hosts[0], []signaling.ICEServer{turn}, 500*time.Millisecond, 300*time.Millisecond
	}), "gives no relay")
}

// virtual makes a network of machines with one address each.
func virtual(t *testing.T, count int) (*vnet.Router, []*vnet.Net) {
	t.Helper()
	makingNetworks.Lock()
	defer makingNetworks.Unlock()
	factory := &logging.DefaultLoggerFactory{DefaultLogLevel: logging.LogLevelDisabled}
	router, err := vnet.NewRouter(&vnet.RouterConfig{CIDR: "10.0.0.0/24", LoggerFactory: factory})
	if err != nil {
		t.Fatal(err)
	}
	var hosts []*vnet.Net
	for i := range count {
		host, err := vnet.NewNet(&vnet.NetConfig{StaticIPs: []string{netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}).String()}})
		if err != nil {
			t.Fatal(err)
		}
		if err := router.AddNet(host); err != nil {
			t.Fatal(err)
		}
		hosts = append(hosts, host)
	}
	if err := router.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = router.Stop() })
	return router, hosts
}

// TestDoctorTrial: each stage at which a link can fail is named.
func TestDoctorTrial(t *testing.T) {
	t.Parallel()
	// A packet of DTLS tells by its first byte what it is: 23 carries SCTP, 20 to 63 is all of DTLS, and STUN is below.
	first := func(low, high byte) func(vnet.Chunk) bool {
		return func(c vnet.Chunk) bool { b := c.UserData(); return len(b) == 0 || b[0] < low || b[0] > high }
	}
	for name, c := range map[string]struct {
		filter func(vnet.Chunk) bool // of packets that pass
		change func(*crooked)
		want   string // "": it works
	}{
		"works":        {},
		"no answer":    {nil, func(c *crooked) { c.drop = func(signaling.Description) bool { return true } }, "at the stage signal"},
		"UDP blocked":  {func(vnet.Chunk) bool { return false }, nil, "at the stage check"},
		"DTLS blocked": {first(20, 63), nil, "at the stage DTLS"},
		"SCTP blocked": {first(23, 23), nil, "at the stage SCTP"},
		"another certificate": {nil, func(c *crooked) {
			c.change = func(d *signaling.Description) {
				if before, after, ok := strings.Cut(d.SDP, "a=fingerprint:sha-256 "); ok {
					d.SDP = before + "a=fingerprint:sha-256 " + "00:11:22" + after[len("00:11:22"):]
				}
			}
		}, "at the stage DTLS"},
		"a proof that does not fit": {nil, func(c *crooked) {
			c.change = func(d *signaling.Description) { d.Nonce[0]++ }
		}, "at the stage hello"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newClinic(t)
			router, hosts := virtual(t, 2)
			if c.filter != nil {
				router.AddChunkFilter(c.filter)
			}
			member := l.member(hosts[1], c.change)
			on := func(d *doctor) { d.net = hosts[0] }
			if c.want != "" {
				failed := func(f finding) bool { return strings.Contains(f.Found, c.want) }
				l.fault(l.within(3*time.Second, func(d *doctor, limit time.Duration) { d.trialTimeout = limit }, "link", failed, on), c.want)
				return
			}
			f := l.examine("link", on)
			if !f.OK || !strings.Contains(f.Found, "it is a writer") {
				t.Errorf("a link that works: %+v", f)
			}
			eventually(t, "the member has forgotten the doctor", func() bool {
				s, err := member.Status(t.Context())
				return err == nil && len(s.Members) == 0 && s.Connections == 0
			})
		})
	}
	l := newClinic(t)
	l.fault(l.examine("link"), "nobody else")
}

// TestDoctorCommand: with real programs, with both kinds of link, and nothing is written.
func TestDoctorCommand(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	stunPort := freePort(t)
	launch(t, "signal", "--listen", strings.TrimSuffix(strings.TrimPrefix(l.url, "http://"), "/"), "--stun", net.JoinHostPort("127.0.0.1", strconv.Itoa(stunPort)))
	a := l.peer("a", l.write, "--schema", l.file("notes.sql", notes))
	a.exec("INSERT INTO note VALUES (1, 'x', 1)")
	eventually(t, "the peer has joined", func() bool { return a.status().Server.Joined }) // it may have been there before the server
	before := a.query("SELECT count(*) FROM crsql_changes")
	for _, link := range []string{l.write, l.read} {
		var out bytes.Buffer
		if err := run(t.Context(), []string{"doctor", link, "--json"}, &out, os.Stderr); err != nil {
			t.Fatalf("%v\n%s", err, out.String())
		}
		var answer struct {
			OK       bool      `json:"ok"`
			Findings []finding `json:"findings"`
		}
		if err := json.Unmarshal(out.Bytes(), &answer); err != nil || !answer.OK || len(answer.Findings) < 6 {
			t.Errorf("%v, %s", err, out.String())
		}
	}
	if after := a.query("SELECT count(*) FROM crsql_changes"); after != before {
		t.Errorf("changes: %s before, %s after", before, after)
	}
	out := l.ok("doctor", l.read)
	for _, want := range []string{"ok     server", "ok     join", "the room has 1 other member\n", "ok     stun", "ok     nat", "ok     candidates", "ok     link", "... "} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	a.stop()
	var faults bytes.Buffer
	if err := run(t.Context(), []string{"doctor", l.read}, &faults, os.Stderr); err == nil || !strings.Contains(faults.String(), "FAULT  link") {
		t.Errorf("an empty room: %v\n%s", err, faults.String())
	}
}

// A server that asks for a join token takes the doctor and the peer of a link that brings one along, and no other.
func TestJoinToken(t *testing.T) {
	const token = "the-token-of-this-test"
	cfg := signalserver.DefaultConfig()
	cfg.JoinTokens = []string{token}
	c := newClinicOf(t, cfg)
	f := c.examine("join")
	if c.fault(f, "asks for a join token"); !strings.Contains(f.Advice, "--join-token") {
		t.Errorf("the advice is %q", f.Advice)
	}
	if f := c.examine("join", func(d *doctor) { d.token = token }); !f.OK {
		t.Errorf("%+v", f)
	}
	link, _ := c.keys.WriteLink(signaling.WithToken(c.url+"/", token))
	dir := t.TempDir()
	p := launch(t, "peer", "run", "--db", filepath.Join(dir, "a.db"), "--room", link, "--api", "127.0.0.1:0")
	p.quiet = true
	eventually(t, "its links, which bring the token along", func() bool { return strings.Contains(p.out.String(), "write\t"+link+"\n") })
	eventually(t, "the peer in the room", func() bool {
		return strings.Contains(c.examine("join", func(d *doctor) { d.token = token }).Found, "1 other")
	})
	p.stop()
	if strings.Count(p.out.String(), token) != 2 { // the two links, and no line of the log
		t.Errorf("the token is told too often or not at all:\n%s", p.out.String())
	}
	stranger, _ := c.keys.WriteLink(c.url + "/")
	q := launch(t, "peer", "run", "--db", filepath.Join(dir, "b.db"), "--room", stranger, "--api", "127.0.0.1:0")
	q.quiet = true
	eventually(t, "the refusal in its log", func() bool {
		return strings.Contains(q.out.String(), "not-admitted: This server asks for a join token")
	})
	q.stop()
}
