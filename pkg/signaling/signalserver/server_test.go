package signalserver_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/coder/websocket"

	"github.com/crmesh/crmesh/pkg/signaling"
	"github.com/crmesh/crmesh/pkg/signaling/signalserver"
	"github.com/crmesh/crmesh/pkg/signaling/signaltest"
)

var room = signaling.RoomID{1, 2, 3}

func TestRoomsAreApart(t *testing.T) {
	h := start(t, nil)
	a, b := h.pair(t, room)
	c, joined := h.join(t, signaling.RoomID{9})
	if len(joined.Members) != 0 {
		t.Fatalf("members of another room: %v", joined.Members)
	}
	c.send(signaling.SignalTo{To: a.id, Sealed: "AQID"})
	if e := expect[signaling.Error](c); e.Code != signaling.CodeUnreachable || e.Peer == nil || *e.Peer != a.id {
		t.Fatalf("got %+v", e)
	}
	talk(a, b) // and nothing of c has come
	c.expectQuiet()
}

func TestBadFramesCostOneConnection(t *testing.T) {
	h := start(t, nil)
	a, b := h.pair(t, room)
	join := `{"type":"join","room":"` + signaling.RoomID{77}.String() + `","peer":"` + signaling.PeerID{5}.String() + `"}`
	text, binary := websocket.MessageText, websocket.MessageBinary
	for name, f := range map[string]struct {
		typ   websocket.MessageType
		frame string
		code  signaling.Code
	}{
		"not JSON":               {text, "hello", signaling.CodeBadMessage},
		"empty":                  {text, "", signaling.CodeBadMessage},
		"a list":                 {text, "[]", signaling.CodeBadMessage},
		"no type":                {text, "{}", signaling.CodeBadMessage},
		"join without fields":    {text, `{"type":"join"}`, signaling.CodeBadMessage},
		"signal before join":     {text, `{"type":"signal","to":"` + a.id.String() + `","sealed":"AQID"}`, signaling.CodeBadMessage},
		"binary":                 {binary, `{"type":"ping"}`, signaling.CodeBinary},
		"not UTF-8":              {text, "{\"type\":\"ping\",\"x\":\"\xff\"}", signaling.CodeBadUTF8},
		"one byte too many":      {text, `{"type":"ping"}` + strings.Repeat(" ", signaling.MaxClientFrame+1-len(`{"type":"ping"}`)), signaling.CodeTooLarge},
		"a megabyte":             {text, strings.Repeat("x", 1<<20), signaling.CodeTooLarge},
		"deeply nested":          {text, `{"type":"later","x":` + strings.Repeat("[", 30_000) + strings.Repeat("]", 30_000) + "}", signaling.CodeBadMessage},
		"a sealed text too long": {text, `{"type":"signal","to":"` + a.id.String() + `","sealed":"` + strings.Repeat("A", signaling.MaxSealed+1) + `"}`, signaling.CodeBadMessage},
	} {
		t.Run(name, func(t *testing.T) {
			p := h.connect(t)
			p.sendRaw(f.typ, []byte(f.frame))
			p.expectEnd(f.code)
		})
	}
	t.Run("second join", func(t *testing.T) {
		p := h.connect(t)
		p.sendRaw(text, []byte(join))
		expect[signaling.Joined](p)
		p.sendRaw(text, []byte(join))
		p.expectEnd(signaling.CodeBadMessage)
	})
	t.Run("no subprotocol", func(t *testing.T) {
		p, _, err := h.dial(t, func(o *websocket.DialOptions) { o.Subprotocols = nil })
		if err != nil {
			t.Fatal(err)
		}
		p.expectEnd(signaling.CodeSubprotocol)
	})
	t.Run("an HTTP request that is no WebSocket", func(t *testing.T) {
		response, err := h.web.Client().Get(h.web.URL + "/v1/signal")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = response.Body.Close() }()
		if response.StatusCode != http.StatusUpgradeRequired {
			t.Fatal(response.Status)
		}
	})
	talk(a, b)
	a.expectQuiet()
	poll(t, "only the two are left", func() bool { return h.Stats().Connections == 2 })
}

func TestUnknownIsIgnoredAndTheLargestFramePasses(t *testing.T) {
	h := start(t, nil)
	a, b := h.pair(t, room)
	a.sendRaw(websocket.MessageText, []byte(`{"type":"later","x":[1,2]}`))
	a.sendRaw(websocket.MessageText, []byte(`{"type":"ping"}`+strings.Repeat(" ", signaling.MaxClientFrame-len(`{"type":"ping"}`))))
	expect[signaling.Pong](a)
	large := strings.Repeat("A", signaling.MaxSealed)
	a.send(signaling.SignalTo{To: b.id, Sealed: large})
	if m := expect[signaling.SignalFrom](b); m.Sealed != large {
		t.Fatal("the envelope was changed")
	}
	talk(a, b)
}

// What was sent no longer counts against the queue: many times its bound passes
// through a connection that reads.
func TestQueueIsGivenBack(t *testing.T) {
	h := start(t, func(c *signalserver.Config) { c.SendQueueBytes = signaling.MaxServerFrame })
	a, b := h.pair(t, room)
	large := strings.Repeat("A", signaling.MaxSealed)
	for range 4 * signaling.MaxServerFrame / len(large) {
		a.send(signaling.SignalTo{To: b.id, Sealed: large})
		expect[signaling.SignalFrom](b)
	}
	talk(a, b)
}

func TestLeave(t *testing.T) {
	h := start(t, nil)
	a, b := h.pair(t, room)
	b.send(signaling.Leave{})
	b.expectClose(1000, "leave")
	if m := expect[signaling.MemberLeft](a); m.Peer != b.id {
		t.Fatal(m)
	}
	a.send(signaling.Leave{})
	a.expectClose(1000, "leave")
	poll(t, "nothing is left", func() bool { return h.Stats() == signalserver.Stats{} })
}

func TestResumeReplacesAtOnce(t *testing.T) {
	h := start(t, nil)
	a, _ := h.join(t, room)
	b := h.connect(t)
	token := b.join(room, "").Token
	expect[signaling.MemberJoined](a)

	thief := h.connect(t)
	thief.id = b.id
	thief.send(signaling.Join{Room: room, Peer: b.id, Token: "a guess"})
	thief.expectEnd(signaling.CodePeerInUse)

	again := h.connect(t)
	again.id = b.id
	if joined := again.join(room, token); !joined.Resumed || joined.Token != token || len(joined.Members) != 1 {
		t.Fatalf("resumed: %+v", joined)
	}
	b.expectEnd(signaling.CodeReplaced)
	talk(a, again) // a was told nothing, and reaches the new one

	// The end of the replaced connection does not start the grace time of the
	// new one: after a while that has surely passed the server, all is as before.
	poll(t, "the old connection is gone", func() bool { return h.Stats().Connections == 2 })
	talk(a, again)
	a.expectQuiet()
}

func TestGraceTime(t *testing.T) {
	const grace = 400 * time.Millisecond
	h := start(t, func(c *signalserver.Config) { c.Grace = grace })
	a, b := h.pair(t, room)
	_ = b.ws.CloseNow()
	poll(t, "the server sees the loss", func() bool { return h.Stats().Connections == 1 })
	lost := time.Now()
	a.send(signaling.SignalTo{To: b.id, Sealed: "AQID"})
	if e := expect[signaling.Error](a); e.Code != signaling.CodeUnreachable {
		t.Fatalf("got %+v", e)
	}
	if st := h.Stats(); st.Members != 2 {
		t.Fatalf("%d members within the grace time", st.Members)
	}
	if m := expect[signaling.MemberLeft](a); m.Peer != b.id {
		t.Fatal(m)
	}
	if early := grace - time.Since(lost); early > grace/4 { // the loss was noticed a little before `lost`
		t.Fatalf("gone %v too early", early)
	}
}

func TestResumeWithinTheGraceTime(t *testing.T) {
	h := start(t, nil)
	a, _ := h.join(t, room)
	b := h.connect(t)
	token := b.join(room, "").Token
	expect[signaling.MemberJoined](a)
	_ = b.ws.CloseNow()
	poll(t, "the server sees the loss", func() bool { return h.Stats().Connections == 1 })
	again := h.connect(t)
	again.id = b.id
	if joined := again.join(room, token); !joined.Resumed {
		t.Fatalf("%+v", joined)
	}
	talk(a, again)
}

func TestShutdown(t *testing.T) {
	h := start(t, nil)
	a, b := h.pair(t, room)
	silent := h.connect(t)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- h.Shutdown(ctx) }()
	for _, p := range []*peer{a, b, silent} {
		p.expectEnd(signaling.CodeShutdown)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, response, err := h.dial(t, nil); err == nil || response.StatusCode != http.StatusServiceUnavailable {
		t.Fatalf("a connection after shutdown: %v", err)
	}
	if status, _ := get(t, h, "/readyz"); status != http.StatusServiceUnavailable {
		t.Fatalf("readyz: %d", status)
	}
	if status, _ := get(t, h, "/healthz"); status != http.StatusOK {
		t.Fatalf("healthz: %d", status)
	}
}

// A client that neither reads nor answers cannot hold up the shutdown.
func TestShutdownCutsShort(t *testing.T) {
	h := start(t, nil)
	h.join(t, room)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := h.Shutdown(ctx); err == nil {
		t.Fatal("the client did not take part in the goodbye, and the shutdown calls it clean")
	}
	if st := h.Stats(); st.Connections != 0 {
		t.Fatalf("%d connections are left", st.Connections)
	}
}

func get(t *testing.T, h *harness, path string) (int, string) {
	t.Helper()
	return signaltest.Get(t, h.web.Client(), h.web.URL+path)
}

func TestPage(t *testing.T) {
	h := start(t, func(c *signalserver.Config) {
		c.Page = fstest.MapFS{"index.html": {Data: []byte("the page")}, "assets/a-1.js": {Data: []byte("the script")}}
	})
	for path, want := range map[string]struct {
		status int
		body   string
	}{
		"/":              {200, "the page"},
		"/assets/a-1.js": {200, "the script"},
		"/assets/":       {404, "There is no such page.\n"},
		"/nothing":       {404, "There is no such page.\n"},
		"/%2e%2e/x":      {404, "There is no such page.\n"},
		"/healthz":       {200, "ok\n"},
		"/readyz":        {200, "ready\n"},
	} {
		if status, body := get(t, h, path); status != want.status || body != want.body {
			t.Errorf("%s: %d %q, want %d %q", path, status, body, want.status, want.body)
		}
	}
	if status, body := get(t, start(t, nil), "/"); status != 404 || !strings.Contains(body, "no page") {
		t.Errorf("without a page: %d %q", status, body)
	}
}

func TestICEServers(t *testing.T) {
	h := start(t, func(c *signalserver.Config) {
		c.STUNPort = 3999
		c.TURNURLs = []string{"turn:turn.example.org:3478"}
		c.TURNSecret = "shared"
		c.TURNTTL = time.Hour
	})
	before := time.Now()
	p, joined := h.join(t, room)
	if len(joined.ICEServers) != 2 || joined.TTL != 3600 {
		t.Fatalf("%+v", joined)
	}
	if s := joined.ICEServers[0]; s.URLs[0] != "stun:127.0.0.1:3999" || s.Username != "" {
		t.Errorf("STUN: %+v", s)
	}
	turn := joined.ICEServers[1]
	expiry, id, _ := strings.Cut(turn.Username, ":")
	mac := hmac.New(sha1.New, []byte("shared"))
	mac.Write([]byte(turn.Username))
	if turn.URLs[0] != "turn:turn.example.org:3478" || id != p.id.String() || turn.Credential != base64.StdEncoding.EncodeToString(mac.Sum(nil)) {
		t.Errorf("TURN: %+v", turn)
	}
	if at, err := strconv.ParseInt(expiry, 10, 64); err != nil || at < before.Add(time.Hour).Unix() || at > time.Now().Add(time.Hour).Unix() {
		t.Errorf("expiry %s: %v", expiry, err)
	}
	if _, joined := start(t, nil).join(t, room); len(joined.ICEServers) != 0 || joined.TTL != 0 {
		t.Errorf("without STUN and TURN: %+v", joined)
	}
	named := start(t, func(c *signalserver.Config) { c.STUNPort, c.PublicHost = 3478, "2001:db8::1" })
	if _, joined := named.join(t, room); joined.ICEServers[0].URLs[0] != "stun:[2001:db8::1]:3478" {
		t.Errorf("public host: %+v", joined.ICEServers)
	}
}

// What members tell each other leaves no trace in the log, at any level.
func TestNothingIsLogged(t *testing.T) {
	h := start(t, nil)
	a, b := h.pair(t, room)
	const marker = "bWFya2VyLXJvdy1pbi1hbi1lbnZlbG9wZQ"
	a.send(signaling.SignalTo{To: b.id, Sealed: marker})
	expect[signaling.SignalFrom](b)
	a.sendRaw(websocket.MessageText, []byte(`{"type":"join","sealed":"`+marker+`","`+marker+`":1}`))
	a.expectEnd(signaling.CodeBadMessage)
	poll(t, "the refusal is logged", func() bool { return strings.Contains(h.log.String(), "bad-message") })
	if strings.Contains(h.log.String(), marker) {
		t.Fatalf("the log holds the envelope:\n%s", h.log)
	}
}

// A client that brings a token of its own to its first join comes back with it, whether it got the answer or not. A token
// that could be guessed is replaced.
func TestTokenOfTheClient(t *testing.T) {
	h := start(t, nil)
	const own = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	a := h.connect(t)
	if j := a.join(room, own); j.Token != own || j.Resumed {
		t.Fatalf("joined with %q, resumed %v", j.Token, j.Resumed)
	}
	again := h.connect(t)
	again.id = a.id
	if j := again.join(room, own); j.Token != own || !j.Resumed {
		t.Errorf("joined again with %q, resumed %v", j.Token, j.Resumed)
	}
	if j := h.connect(t).join(room, own[1:]); j.Token == own[1:] || len(j.Token) < len(own) {
		t.Errorf("a short token became %q", j.Token)
	}
}
