package signalserver_test

import (
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/crmesh/crmesh/pkg/signaling"
	"github.com/crmesh/crmesh/pkg/signaling/signalserver"
)

// reload changes the default configuration and gives it to the server.
func (h *harness) reload(t *testing.T, change func(*signalserver.Config)) {
	t.Helper()
	cfg := signalserver.DefaultConfig()
	change(&cfg)
	if err := h.Reload(cfg); err != nil {
		t.Fatal(err)
	}
}

// What is new holds for those who come, and for those who are there; nobody who is there is closed.
func TestReload(t *testing.T) {
	h := start(t, func(c *signalserver.Config) { c.JoinTokens = []string{joinToken} })
	member := func(token string) *peer {
		p := h.connect(t)
		p.send(signaling.Join{Room: room, Peer: p.id, Admission: token})
		return p
	}
	a := member(joinToken)
	expect[signaling.Joined](a)
	b := member(joinToken)
	expect[signaling.Joined](b)
	expect[signaling.MemberJoined](a)

	h.reload(t, func(c *signalserver.Config) { c.JoinTokens = []string{"another-join-token"} })
	member(joinToken).expectEnd(signaling.CodeNotAdmitted)
	c := member("another-join-token")
	expect[signaling.Joined](c)
	for _, p := range []*peer{a, b} {
		expect[signaling.MemberJoined](p)
	}
	talk(a, b)

	// A room that exists goes by the new limit; it is above it now, and stays so.
	h.reload(t, func(c *signalserver.Config) { c.MaxMembers, c.Grace = 2, 10*time.Millisecond })
	member("").expectEnd(signaling.CodeRoomFull)
	talk(a, b)
	// So do memberships, of the grace time.
	_ = c.ws.CloseNow()
	for _, p := range []*peer{a, b} {
		if m := expect[signaling.MemberLeft](p); m.Peer != c.id {
			t.Fatalf("%v left", m.Peer)
		}
	}

	// And limits of connections, proxies and origins.
	h.reload(t, func(c *signalserver.Config) { c.MaxConnections = 2 })
	h.refused(t, http.StatusServiceUnavailable, nil)
	h.reload(t, func(c *signalserver.Config) {
		c.MaxConnectionsPerAddress = 1
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		c.AllowOrigin = []string{"https://page.example"}
	})
	h.refused(t, http.StatusTooManyRequests, nil)
	from := http.Header{"X-Forwarded-For": {"192.0.2.1"}, "Origin": {"https://page.example"}}
	if _, _, err := h.dial(t, func(d *websocket.DialOptions) { d.HTTPHeader = from }); err != nil {
		t.Fatal(err)
	}
	h.reload(t, func(c *signalserver.Config) { c.JoinRate, c.JoinBurst = 0.001, 1 })
	h.connect(t) // the burst of an address that has come before is cut to the new one
	h.connect(t).expectEnd(signaling.CodeJoinRate)

	// A connection that is open has the new rate of messages.
	h.reload(t, func(c *signalserver.Config) { c.MessageRate, c.MessageBurst = 0.001, 2 })
	talk(a, b)
	a.send(signaling.Ping{})
	expect[signaling.Pong](a)
	a.send(signaling.Ping{})
	a.expectEnd(signaling.CodeRate)
}

// TURN, its secret too, is handed out as it is now.
func TestReloadTURN(t *testing.T) {
	h := start(t, nil)
	if _, j := h.join(t, room); len(j.ICEServers) != 0 {
		t.Fatalf("%+v", j.ICEServers)
	}
	credentials := map[string]bool{}
	for _, secret := range []string{"one secret of TURN", "another secret of TURN"} {
		h.reload(t, func(c *signalserver.Config) { c.TURNURLs, c.TURNSecret = []string{"turn:turn.example"}, secret })
		_, j := h.join(t, room)
		if len(j.ICEServers) != 1 || j.TTL != 3600 {
			t.Fatalf("%+v", j)
		}
		credentials[j.ICEServers[0].Credential] = true
	}
	if len(credentials) != 2 {
		t.Error("the credentials are of one secret")
	}
}

// A configuration with something wrong in it changes nothing at all, and each of its errors names its field.
func TestReloadBad(t *testing.T) {
	h := start(t, func(c *signalserver.Config) { c.JoinTokens = []string{joinToken} })
	bad := signalserver.DefaultConfig()
	bad.Grace, bad.JoinTokens = -1, []string{"no token text"}
	err := h.Reload(bad)
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || len(joined.Unwrap()) != 2 {
		t.Fatalf("got %v, want two errors", err)
	}
	fields := ""
	for _, e := range joined.Unwrap() {
		fields += " " + e.(*signalserver.FieldError).Field
	}
	if fields != " JoinTokens Grace" {
		t.Errorf("the errors are of%s", fields)
	}
	p := h.connect(t)
	p.send(signaling.Join{Room: room, Peer: p.id})
	p.expectEnd(signaling.CodeNotAdmitted)
}

// The log names addresses and rooms from the reload that asks for it to the one that does not, also those of connections that
// are open.
func TestReloadLogAddresses(t *testing.T) {
	h := start(t, nil)
	h.join(t, room)
	logged := func() int { return strings.Count(h.log.String(), "room="+room.String()) }
	h.reload(t, func(c *signalserver.Config) { c.LogAddresses = true })
	a, _ := h.join(t, room)
	poll(t, "the join in the log", func() bool { return logged() > 0 })
	if logged() != 1 || !strings.Contains(h.log.String(), "addr=127.0.0.1") {
		t.Fatalf("the log has %d rooms", logged())
	}
	h.reload(t, func(*signalserver.Config) {})
	a.send(signaling.Leave{})
	a.expectClose(1000, "leave")
	poll(t, "the end", func() bool { return strings.Contains(h.log.String(), "connection ended") })
	if logged() != 1 {
		t.Errorf("the log has %d rooms, after it was to have none:\n%s", logged(), h.log)
	}
}

// Reloads go on beside connections, joins and envelopes. It is for the race detector.
func TestReloadMeanwhile(t *testing.T) {
	h := start(t, func(c *signalserver.Config) { c.JoinBurst = 10_000 })
	stop := make(chan struct{})
	var reloads sync.WaitGroup
	reloads.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			cfg := signalserver.DefaultConfig()
			cfg.JoinBurst = 10_000
			cfg.Grace = time.Duration(1+i%3) * time.Second
			cfg.IdleTimeout = time.Duration(1+i%3) * time.Minute
			cfg.LogAddresses = i%2 == 0
			cfg.AllowOrigin = []string{"*"}[:i%2]
			if err := h.Reload(cfg); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for i := range 20 {
		a, b := h.pair(t, signaling.RoomID{byte(i)})
		talk(a, b)
	}
	close(stop)
	reloads.Wait()
}
