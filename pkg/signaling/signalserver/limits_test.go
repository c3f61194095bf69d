package signalserver_test

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/crmesh/crmesh/pkg/signaling"
	"github.com/crmesh/crmesh/pkg/signaling/signalserver"
)

func (h *harness) refused(t *testing.T, status int, change func(*websocket.DialOptions)) {
	t.Helper()
	_, response, err := h.dial(t, change)
	if err == nil || response == nil || response.StatusCode != status {
		t.Fatalf("got %v, want HTTP %d", err, status)
	}
}

func TestConnectionLimits(t *testing.T) {
	h := start(t, func(c *signalserver.Config) { c.MaxConnections = 2 })
	a, b := h.pair(t, room)
	h.refused(t, http.StatusServiceUnavailable, nil)
	talk(a, b)
	_ = b.ws.CloseNow()
	poll(t, "the place is free", func() bool { return h.Stats().Connections == 1 })
	h.connect(t)
}

func TestConnectionsPerAddress(t *testing.T) {
	h := start(t, func(c *signalserver.Config) {
		c.MaxConnectionsPerAddress = 1
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	from := func(address string) func(*websocket.DialOptions) {
		return func(o *websocket.DialOptions) { o.HTTPHeader = http.Header{"X-Forwarded-For": {address}} }
	}
	if _, _, err := h.dial(t, from("192.0.2.1")); err != nil {
		t.Fatal(err)
	}
	h.refused(t, http.StatusTooManyRequests, from("192.0.2.1"))
	h.refused(t, http.StatusTooManyRequests, from("10.9.9.9, 192.0.2.1")) // what the client claims does not count
	if _, _, err := h.dial(t, from("192.0.2.2")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := h.dial(t, from("2001:db8::1")); err != nil {
		t.Fatal(err)
	}
	h.refused(t, http.StatusTooManyRequests, from("2001:db8::2")) // the same /64

	untrusting := start(t, func(c *signalserver.Config) { c.MaxConnectionsPerAddress = 1 })
	if _, _, err := untrusting.dial(t, from("192.0.2.1")); err != nil {
		t.Fatal(err)
	}
	untrusting.refused(t, http.StatusTooManyRequests, from("192.0.2.2"))
}

func TestRoomLimits(t *testing.T) {
	h := start(t, func(c *signalserver.Config) { c.MaxRooms, c.MaxMembers = 2, 2 })
	a, b := h.pair(t, room)
	third := h.connect(t)
	third.send(signaling.Join{Room: room, Peer: third.id})
	if e := third.expectEnd(signaling.CodeRoomFull); e.RetryAfter <= 0 {
		t.Errorf("no word about when to come back: %+v", e)
	}
	c, _ := h.join(t, signaling.RoomID{2})
	fourth := h.connect(t)
	fourth.send(signaling.Join{Room: signaling.RoomID{3}, Peer: fourth.id})
	fourth.expectEnd(signaling.CodeServerFull)

	c.send(signaling.Leave{})
	c.expectClose(1000, "leave")
	h.join(t, signaling.RoomID{3}) // the place of an empty room is free
	talk(a, b)
}

func TestMessageRate(t *testing.T) {
	h := start(t, func(c *signalserver.Config) { c.MessageRate, c.MessageBurst = 0.01, 4 })
	a, b := h.pair(t, room)
	talk(a, b)
	for range 2 { // join, signal, ping, ping
		a.expectQuiet()
	}
	a.send(signaling.Ping{})
	if e := a.expectEnd(signaling.CodeRate); e.RetryAfter < 50 || e.RetryAfter > 100 {
		t.Errorf("retry after %d s at a rate of one in 100 s", e.RetryAfter)
	}
	b.expectQuiet()
}

// A large message counts as several.
func TestLargeMessageRate(t *testing.T) {
	h := start(t, func(c *signalserver.Config) { c.MessageRate, c.MessageBurst = 0.01, 12 })
	a, b := h.pair(t, room)
	large := signaling.SignalTo{To: b.id, Sealed: strings.Repeat("A", 20<<10)} // counts as 6
	a.send(large)
	expect[signaling.SignalFrom](b)
	a.send(large) // 11 were left after the join
	if e := a.expectEnd(signaling.CodeRate); e.RetryAfter < 50 || e.RetryAfter > 200 {
		t.Errorf("retry after %d s when one of 6 is missing", e.RetryAfter)
	}
	b.expectQuiet()
}

func TestJoinRate(t *testing.T) {
	h := start(t, func(c *signalserver.Config) { c.JoinRate, c.JoinBurst = 0.01, 2 })
	a, b := h.pair(t, room)
	c := h.connect(t)
	c.send(signaling.Join{Room: room, Peer: c.id})
	if e := c.expectEnd(signaling.CodeJoinRate); e.RetryAfter < 50 || e.RetryAfter > 100 {
		t.Errorf("retry after %d s", e.RetryAfter)
	}
	talk(a, b)
}

func TestJoinTimeout(t *testing.T) {
	h := start(t, func(c *signalserver.Config) { c.JoinTimeout = 50 * time.Millisecond })
	h.connect(t).expectEnd(signaling.CodeIdle)
}

func TestSilentConnectionIsClosed(t *testing.T) {
	h := start(t, func(c *signalserver.Config) { c.IdleTimeout = 150 * time.Millisecond })
	dead, _, err := h.dial(t, func(o *websocket.DialOptions) {
		o.OnPingReceived = func(context.Context, []byte) bool { return false } // no pong
	})
	if err != nil {
		t.Fatal(err)
	}
	dead.join(room, "")
	dead.expectEnd(signaling.CodeIdle)

	// One that answers pings lives on, many idle times long.
	alive, _ := h.join(t, signaling.RoomID{2})
	pings := make(chan struct{}, 100)
	answering, _, err := h.dial(t, func(o *websocket.DialOptions) {
		o.OnPingReceived = func(context.Context, []byte) bool { pings <- struct{}{}; return true }
	})
	if err != nil {
		t.Fatal(err)
	}
	answering.join(signaling.RoomID{3}, "")
	read := make(chan error, 2)
	for _, p := range []*peer{alive, answering} {
		go func() { _, err := p.receive(); read <- err }()
	}
	for range 10 { // 10 pings are more than three idle times
		select {
		case <-pings:
		case err := <-read:
			t.Fatalf("closed though it answered: %v", err)
		}
	}
	_ = alive.ws.CloseNow()
	_ = answering.ws.CloseNow()
	<-read
	<-read
}

func TestSlowReaderIsClosedAlone(t *testing.T) {
	h := start(t, func(c *signalserver.Config) {
		c.MessageRate, c.MessageBurst = 1e6, 1e6
		c.SendQueueBytes = signaling.MaxServerFrame
	})
	a, b := h.pair(t, room)
	slow, _ := h.join(t, room)
	expect[signaling.MemberJoined](a)
	expect[signaling.MemberJoined](b)
	large := strings.Repeat("A", signaling.MaxSealed)
	answer := make(chan signaling.Error, 1)
	go func() {
		defer close(answer)
		if m, err := a.receive(); err == nil {
			if e, ok := m.(signaling.Error); ok {
				answer <- e
			}
		}
	}()
	sent := 0
	for done := false; !done; sent++ { // the sockets' buffers take some MB first
		select {
		case e := <-answer:
			if e.Code != signaling.CodeUnreachable || e.Peer == nil || *e.Peer != slow.id {
				t.Fatalf("got %+v", e)
			}
			done = true
		default:
			if sent*len(large) > 256<<20 {
				t.Fatal("256 MB are on their way to one who reads none")
			}
			a.send(signaling.SignalTo{To: slow.id, Sealed: large})
		}
	}
	for { // those sent meanwhile were refused, too
		a.send(signaling.Ping{})
		m, err := a.receive()
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := m.(signaling.Pong); ok {
			break
		}
	}
	b.send(signaling.Ping{})
	expect[signaling.Pong](b)
	if n := h.samples(t)["queue_drops_total"]; n < 1 {
		t.Errorf("%v frames count as dropped", n)
	}
	// Once it reads again, the slow one learns why it is out.
	for {
		m, err := slow.receive()
		if e, ok := m.(signaling.Error); ok {
			if e.Code != signaling.CodeSlow {
				t.Fatalf("got %+v", e)
			}
			break
		}
		var closed websocket.CloseError
		if err != nil && !errors.As(err, &closed) {
			break // its connection was stuck for longer than a write may take
		}
	}
}

func TestOrigins(t *testing.T) {
	origin := func(o string) func(*websocket.DialOptions) {
		return func(d *websocket.DialOptions) { d.HTTPHeader = http.Header{"Origin": {o}} }
	}
	h := start(t, nil)
	h.refused(t, http.StatusForbidden, origin("https://elsewhere.example"))
	if _, _, err := h.dial(t, origin(h.web.URL)); err != nil {
		t.Errorf("its own page: %v", err)
	}
	some := start(t, func(c *signalserver.Config) {
		c.AllowOrigin = []string{"https://app.example.org", "*.example.net"}
	})
	some.refused(t, http.StatusForbidden, origin("http://app.example.org"))
	some.refused(t, http.StatusForbidden, origin("https://example.net.evil.example"))
	for _, good := range []string{"https://app.example.org", "https://a.example.net"} {
		if _, _, err := some.dial(t, origin(good)); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	all := start(t, func(c *signalserver.Config) { c.AllowOrigin = []string{"*"} })
	if _, _, err := all.dial(t, origin("https://elsewhere.example")); err != nil {
		t.Error(err)
	}
}

func TestConfigIsChecked(t *testing.T) {
	for name, change := range map[string]func(*signalserver.Config){
		"rooms":       func(c *signalserver.Config) { c.MaxRooms = 0 },
		"members":     func(c *signalserver.Config) { c.MaxMembers = 1025 },
		"rate":        func(c *signalserver.Config) { c.MessageRate = -1 },
		"queue":       func(c *signalserver.Config) { c.SendQueueBytes = 1 },
		"all queues":  func(c *signalserver.Config) { c.MaxQueuedBytes = c.SendQueueBytes - 1 },
		"grace":       func(c *signalserver.Config) { c.Grace = 0 },
		"STUN port":   func(c *signalserver.Config) { c.STUNPort = 65536 },
		"TURN secret": func(c *signalserver.Config) { c.TURNURLs = []string{"turn:h"} },
		"mapped proxy": func(c *signalserver.Config) {
			c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("::ffff:10.0.0.0/104")}
		},
		"no proxy":       func(c *signalserver.Config) { c.TrustedProxies = []netip.Prefix{{}} },
		"TURN addresses": func(c *signalserver.Config) { c.TURNSecret = "x" },
	} {
		cfg := signalserver.DefaultConfig()
		change(&cfg)
		if s, err := signalserver.New(cfg); err == nil {
			_ = s.Shutdown(context.Background())
			t.Errorf("%s: accepted", name)
		}
	}
}

// What a browser would choke on, or what could never match, is refused at the start and not found out by members.
func TestAddressesAreChecked(t *testing.T) {
	turn := func(c *signalserver.Config, text string) { c.TURNURLs, c.TURNSecret = []string{text}, "x" }
	host := func(c *signalserver.Config, text string) { c.PublicHost = text }
	origin := func(c *signalserver.Config, text string) { c.AllowOrigin = []string{text} }
	for name, c := range map[string]struct {
		set       func(*signalserver.Config, string)
		good, bad []string
	}{
		"TURN": {turn,
			[]string{"turn:h", "turns:turn.example.org", "turn:h:3478", "turn:192.0.2.1", "turn:[2001:db8::1]", "turn:[2001:db8::1]:3478?transport=tcp", "turns:h?transport=udp"},
			[]string{"h:1", "stun:h", "turn:", "turn://h", "turn:h:", "turn:h:0", "turn:h:66000", "turn:h:x", "turn:h/", "turn:u:p@h", "turn:2001:db8::1", "turn:[2001:db8::1", "turn:h?", "turn:h?transport=sctp", "turn:a b"}},
		"host": {host,
			[]string{"", "stun.example.org", "192.0.2.1", "2001:db8::1", "[2001:db8::1]", "under_score"},
			[]string{"https://stun.example.org/", "stun.example.org:3478", "a b", "stun.example.org/", "m\u00fcller.example", "fe80::1%eth0"}},
		"origin": {origin,
			[]string{"*", "app.example.org", "*.example.org", "https://app.example.org", "https://*.example.org:8443", "app.example.org:8443"},
			[]string{"", "[a", "https://app.example.org/", "https://app.example.org/page", "app.example.org/", "https://", "://a", "https://a,https://b", "a b", "u@h"}},
	} {
		for i, text := range append(c.good, c.bad...) {
			cfg := signalserver.DefaultConfig()
			c.set(&cfg, text)
			if err := cfg.Check(); (err == nil) != (i < len(c.good)) {
				t.Errorf("%s %q: %v", name, text, err)
			}
		}
	}
}
