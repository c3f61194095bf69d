package signalclient_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/crmesh/crmesh/pkg/signaling"
	"github.com/crmesh/crmesh/pkg/signaling/signalclient"
	"github.com/crmesh/crmesh/pkg/signaling/signalserver"
	"github.com/crmesh/crmesh/pkg/signaling/signaltest"
)

// fakeServer accepts WebSockets, answers the join as a server does, and then
// lets script do what it likes. The connection ends with script.
func fakeServer(t *testing.T, script func(ctx context.Context, ws *websocket.Conn)) string {
	t.Helper()
	return fakeServerOf(t, nil, script)
}

// fakeServerOf is fakeServer that also hands out the joins, unless joins is nil.
func fakeServerOf(t *testing.T, joins chan<- signaling.Join, script func(ctx context.Context, ws *websocket.Conn)) string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{signaling.Subprotocol}})
		if err != nil {
			return
		}
		defer func() { _ = ws.CloseNow() }()
		ws.SetReadLimit(signaling.MaxClientFrame)
		_, frame, err := ws.Read(ctx)
		if err != nil {
			return
		}
		m, err := signaling.ParseClientMessage(frame)
		if err != nil {
			t.Errorf("the client sent %s: %v", frame, err)
			return
		}
		join := m.(signaling.Join)
		if joins != nil {
			select {
			case joins <- join:
			case <-ctx.Done():
				return
			}
		}
		answer, err := signaling.MarshalMessage(signaling.Joined{Peer: join.Peer, Token: "t"})
		if err != nil || ws.Write(ctx, websocket.MessageText, answer) != nil {
			return
		}
		script(ctx, ws)
	}))
	t.Cleanup(func() { cancel(); web.Close() })
	return web.URL
}

// A server that is there but says nothing more counts as dead.
func TestSilentServer(t *testing.T) {
	url := fakeServer(t, func(ctx context.Context, _ *websocket.Conn) { <-ctx.Done() })
	c := startClient(t, signalclient.Config{URLs: []string{url}, Keys: newKeys(t), PingInterval: 20 * time.Millisecond, PongTimeout: 50 * time.Millisecond})
	await[signalclient.Joined](t, c, nil)
	d := await[signalclient.Disconnected](t, c, nil)
	if !strings.Contains(d.Err.Error(), "does not answer") {
		t.Fatal(d.Err)
	}
	await[signalclient.Joined](t, c, nil) // it tries again
}

// A server that answers pings is alive, however quiet the room.
func TestQuietServer(t *testing.T) {
	url, pings := answeringServer(t)
	c := startClient(t, signalclient.Config{URLs: []string{url}, Keys: newKeys(t), PingInterval: 30 * time.Millisecond, PongTimeout: 5 * time.Second})
	await[signalclient.Joined](t, c, nil)
	stays(t, c, pings)
}

// answeringServer answers pings, and tells of each.
func answeringServer(t *testing.T) (url string, pings <-chan struct{}) {
	t.Helper()
	answered := make(chan struct{}, 100)
	return fakeServer(t, func(ctx context.Context, ws *websocket.Conn) {
		for {
			if _, _, err := ws.Read(ctx); err != nil {
				return
			}
			if ws.Write(ctx, websocket.MessageText, []byte(`{"type":"pong"}`)) != nil {
				return
			}
			answered <- struct{}{}
		}
	}), answered
}

// stays waits for 10 pings, and nothing must happen meanwhile.
func stays(t *testing.T, c *signalclient.Client, pings <-chan struct{}) {
	t.Helper()
	for range 10 {
		select {
		case <-pings:
		case e := <-c.Events():
			t.Fatalf("got %+v", e)
		}
	}
}

func TestHostileServers(t *testing.T) {
	for name, frame := range map[string]string{
		"not JSON":         "hello",
		"not UTF-8":        "\xff\xfe",
		"a broken message": `{"type":"member-joined","peer":7}`,
		"too large":        strings.Repeat(" ", signaling.MaxServerFrame+1),
		"an error":         `{"type":"error","code":"rate","message":"Slower."}`,
	} {
		t.Run(name, func(t *testing.T) {
			url := fakeServer(t, func(ctx context.Context, ws *websocket.Conn) {
				_ = ws.Write(ctx, websocket.MessageText, []byte(frame))
				_, _, _ = ws.Read(ctx)
			})
			c := startClient(t, signalclient.Config{URLs: []string{url}, Keys: newKeys(t)})
			await[signalclient.Joined](t, c, nil)
			d := await[signalclient.Disconnected](t, c, nil)
			var e signaling.Error
			if errors.As(d.Err, &e) != (name == "an error") {
				t.Fatal(d.Err)
			}
		})
	}
}

// The member list of a lying server is bounded.
func TestEndlessMembers(t *testing.T) {
	url := fakeServer(t, func(ctx context.Context, ws *websocket.Conn) {
		for i := range signalclient.MaxMembers + 100 {
			peer := signaling.PeerID{byte(i >> 8), byte(i), 1}
			frame, err := signaling.MarshalMessage(signaling.MemberJoined{Member: signaling.Member{Peer: peer}})
			if err != nil || ws.Write(ctx, websocket.MessageText, frame) != nil {
				return
			}
		}
		_ = ws.Write(ctx, websocket.MessageText, []byte(`{"type":"member-left","peer":"`+signaling.PeerID{255, 255}.String()+`"}`))
		<-ctx.Done()
	})
	c := startClient(t, signalclient.Config{URLs: []string{url}, Keys: newKeys(t)})
	await[signalclient.MemberLeft](t, c, nil)
	if n := len(c.Members()); n != signalclient.MaxMembers {
		t.Fatalf("%d members", n)
	}
}

func TestNoServer(t *testing.T) {
	refusing := func(status int, header http.Header) string {
		web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			for k, v := range header {
				w.Header()[k] = v
			}
			w.WriteHeader(status)
		}))
		t.Cleanup(web.Close)
		return web.URL
	}
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ws, err := websocket.Accept(w, r, nil); err == nil {
			_ = ws.CloseNow()
		}
	}))
	t.Cleanup(other.Close)
	for name, c := range map[string]struct {
		url, want string
		atLeast   time.Duration
	}{
		"404":               {refusing(404, nil), "HTTP 404", 0},
		"403":               {refusing(403, nil), "origin", 0},
		"429":               {refusing(429, http.Header{"Retry-After": {"7"}}), "HTTP 429", 7 * time.Second},
		"429 for very long": {refusing(429, http.Header{"Retry-After": {"99999999"}}), "HTTP 429", 5 * time.Minute},
		"other protocol":    {other.URL, "not a crmesh server", 0},
		"nobody":            {"http://127.0.0.1:1", "cannot be reached", 0},
	} {
		t.Run(name, func(t *testing.T) {
			client := startClient(t, signalclient.Config{URLs: []string{c.url}, Keys: newKeys(t)})
			d := await[signalclient.Disconnected](t, client, nil)
			if !strings.Contains(d.Err.Error(), c.want) || d.RetryIn < c.atLeast || d.RetryIn > max(c.atLeast, time.Second) {
				t.Fatalf("%v, again in %v", d.Err, d.RetryIn)
			}
		})
	}
}

// Envelopes that do not open are dropped and counted; nothing else happens.
func TestForeignEnvelopesAreDropped(t *testing.T) {
	server := startServer(t, "127.0.0.1:0", signalserver.DefaultConfig())
	keys := newKeys(t)
	a := startClient(t, signalclient.Config{URLs: []string{server.url()}, Keys: keys})
	await[signalclient.Joined](t, a, nil)
	forger := newKeys(t)
	forger.Room = keys.Room // knows the name of the room, not its secret
	b := startClient(t, signalclient.Config{URLs: []string{server.url()}, Keys: forger})
	await[signalclient.Joined](t, b, nil)
	member := startClient(t, signalclient.Config{URLs: []string{server.url()}, Keys: keys})
	await[signalclient.Joined](t, member, nil)
	for _, c := range []*signalclient.Client{b, b, member} {
		if err := c.Send(a.Peer(), signaling.Description{Kind: signaling.KindBye}); err != nil {
			t.Fatal(err)
		}
	}
	if s := await[signalclient.Signal](t, a, nil); s.From != member.Peer() {
		t.Fatalf("a forged envelope opened: %+v", s)
	}
	signaltest.Until(t, patience, "both are dropped", func() bool { return a.Dropped() == 2 })
}

func TestSeveralServers(t *testing.T) {
	server := startServer(t, "127.0.0.1:0", signalserver.DefaultConfig())
	c := startClient(t, signalclient.Config{URLs: []string{"http://127.0.0.1:1", server.url()}, Keys: newKeys(t)})
	joined := await[signalclient.Joined](t, c, nil)
	if joined.URL != "ws://"+server.addr+"/v1/signal" {
		t.Fatal(joined.URL)
	}
}

// Credentials are renewed before they expire, and nobody is disconnected.
func TestRenewal(t *testing.T) {
	cfg := signalserver.DefaultConfig()
	cfg.TURNURLs, cfg.TURNSecret, cfg.TURNTTL = []string{"turn:127.0.0.1:1"}, "s", time.Second
	server := startServer(t, "127.0.0.1:0", cfg)
	c := startClient(t, signalclient.Config{URLs: []string{server.url()}, Keys: newKeys(t)})
	first := await[signalclient.Joined](t, c, nil)
	select {
	case e := <-c.Events():
		second, ok := e.(signalclient.Joined)
		if !ok || !second.Resumed || !second.Expires.After(first.Expires) {
			t.Fatalf("got %+v after %+v", e, first)
		}
	case <-time.After(patience):
		t.Fatal("not renewed")
	}
}

// A member that does not come back after a restart of the server is given up,
// but not at once.
func TestAbsentMember(t *testing.T) {
	const grace = 300 * time.Millisecond
	server := startServer(t, "127.0.0.1:0", signalserver.DefaultConfig())
	keys := newKeys(t)
	a := startClient(t, signalclient.Config{URLs: []string{server.url()}, Keys: keys, AbsentGrace: grace})
	waitMembers(t, a, 0)
	b := startClient(t, signalclient.Config{URLs: []string{server.url()}, Keys: keys})
	waitMembers(t, a, 1)
	server.kill()
	b.Close()
	startServer(t, server.addr, signalserver.DefaultConfig())
	await[signalclient.Joined](t, a, nil)
	rejoined := time.Now()
	if len(a.Members()) != 1 {
		t.Fatal("given up at once")
	}
	if left := await[signalclient.MemberLeft](t, a, nil); left.Peer != b.Peer() || time.Since(rejoined) < grace/2 {
		t.Fatalf("%v left after %v", left.Peer, time.Since(rejoined))
	}
}

// Send never blocks: when the server takes nothing, it says so.
func TestSendToAStuckServer(t *testing.T) {
	url := fakeServer(t, func(ctx context.Context, _ *websocket.Conn) { <-ctx.Done() })
	c := startClient(t, signalclient.Config{URLs: []string{url}, Keys: newKeys(t)})
	await[signalclient.Joined](t, c, nil)
	offer := signaling.Description{Kind: signaling.KindOffer, SDP: strings.Repeat("x", signaling.MaxSDP)}
	for i := 0; ; i++ {
		err := c.Send(signaling.PeerID{1}, offer)
		if errors.Is(err, signalclient.ErrBusy) {
			return
		}
		if err != nil || i > 10_000 {
			t.Fatal(fmt.Sprint(i, err))
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	keys := newKeys(t)
	for name, cfg := range map[string]signalclient.Config{
		"no server":     {Keys: keys},
		"a bad address": {Keys: keys, URLs: []string{"sync.example.org"}},
		"no keys":       {URLs: []string{"http://h"}},
		"a long name":   {URLs: []string{"http://h"}, Keys: keys, Meta: signaling.Meta{Name: strings.Repeat("x", 65)}},
		"negative time": {URLs: []string{"http://h"}, Keys: keys, PingInterval: -1},
	} {
		if c, err := signalclient.New(cfg); err == nil {
			c.Close()
			t.Errorf("%s: accepted", name)
		}
	}
}

// A client whose place is taken comes back as the same member, and tells what to do when that goes on.
func TestTakenOver(t *testing.T) {
	joins := make(chan signaling.Join, 10)
	url := fakeServerOf(t, joins, func(ctx context.Context, ws *websocket.Conn) {
		frame, err := signaling.MarshalMessage(signaling.Error{Code: signaling.CodeReplaced, Message: "A newer connection took over."})
		if err != nil || ws.Write(ctx, websocket.MessageText, frame) != nil {
			return
		}
		_, _, _ = ws.Read(ctx)
	})
	c := startClient(t, signalclient.Config{URLs: []string{url}, Keys: newKeys(t), BackoffMin: time.Millisecond, BackoffMax: time.Millisecond})
	for n := 1; n <= 4; n++ {
		join := <-joins
		if join.Peer != c.Peer() || n > 1 && join.Token != "t" {
			t.Fatalf("joins as %v with token %q", join.Peer, join.Token)
		}
		await[signalclient.Joined](t, c, nil)
		d := await[signalclient.Disconnected](t, c, nil)
		var e signaling.Error
		if !errors.As(d.Err, &e) || e.Code != signaling.CodeReplaced {
			t.Fatal(d.Err)
		}
		if told := strings.Contains(d.Err.Error(), "Another copy of this process"); told != (n >= 3) {
			t.Fatalf("time %d: %v", n, d.Err)
		}
	}
}
