package signalserver_test

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/crmesh/crmesh/pkg/signaling"
	"github.com/crmesh/crmesh/pkg/signaling/signalserver"
	"github.com/crmesh/crmesh/pkg/signaling/signaltest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = time.Minute

// harness is a server on loopback and its log.
type harness struct {
	*signalserver.Server
	url string // ws://127.0.0.1:port/v1/signal
	web *httptest.Server
	log *signaltest.Log
}

func start(t *testing.T, change func(*signalserver.Config)) *harness {
	t.Helper()
	h := unserved(t, change)
	h.web = httptest.NewServer(h.Server)
	h.serve(t)
	return h
}

func unserved(t *testing.T, change func(*signalserver.Config)) *harness {
	t.Helper()
	h := &harness{log: &signaltest.Log{}}
	cfg := signalserver.DefaultConfig()
	cfg.Logger = slog.New(slog.NewTextHandler(h.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if change != nil {
		change(&cfg)
	}
	var err error
	if h.Server, err = signalserver.New(cfg); err != nil {
		t.Fatal(err)
	}
	return h
}

// startCounted is start with the server's own listener.
func startCounted(t *testing.T, change func(*signalserver.Config)) *harness {
	t.Helper()
	return startBehind(t, change, (*httptest.Server).Start)
}

// startSecure is startCounted over TLS.
func startSecure(t *testing.T, change func(*signalserver.Config)) *harness {
	t.Helper()
	return startBehind(t, change, (*httptest.Server).StartTLS)
}

// startBehind begins with the server's own listener, which TLS goes around.
func startBehind(t *testing.T, change func(*signalserver.Config), begin func(*httptest.Server)) *harness {
	t.Helper()
	h := unserved(t, change)
	h.web = httptest.NewUnstartedServer(h.Server)
	h.web.Listener = h.Listener(h.web.Listener)
	begin(h.web)
	h.serve(t)
	return h
}

// serve follows the start of h.web.
func (h *harness) serve(t *testing.T) {
	h.url = "ws" + strings.TrimPrefix(h.web.URL, "http") + "/v1/signal"
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := h.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		h.web.Close()
	})
}

// peer is a client that speaks the wire protocol by hand.
type peer struct {
	t  *testing.T
	ws *websocket.Conn
	id signaling.PeerID
}

func (h *harness) dial(t *testing.T, change func(*websocket.DialOptions)) (*peer, *http.Response, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	options := &websocket.DialOptions{HTTPClient: h.web.Client(), Subprotocols: []string{signaling.Subprotocol}}
	if change != nil {
		change(options)
	}
	ws, response, err := websocket.Dial(ctx, h.url, options)
	if err != nil {
		return nil, response, err
	}
	ws.SetReadLimit(signaling.MaxServerFrame)
	t.Cleanup(func() { _ = ws.CloseNow() })
	id, err := signaling.NewPeerID(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &peer{t: t, ws: ws, id: id}, response, nil
}

func (h *harness) connect(t *testing.T) *peer {
	t.Helper()
	p, _, err := h.dial(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// join connects and joins the room, and returns the answer, too.
func (h *harness) join(t *testing.T, room signaling.RoomID) (*peer, signaling.Joined) {
	t.Helper()
	p := h.connect(t)
	return p, p.join(room, "")
}

func (p *peer) join(room signaling.RoomID, token string) signaling.Joined {
	p.t.Helper()
	p.send(signaling.Join{Room: room, Peer: p.id, Token: token, Meta: signaling.Meta{Name: "n"}})
	return expect[signaling.Joined](p)
}

func (p *peer) send(m signaling.Message) {
	p.t.Helper()
	frame, err := signaling.MarshalMessage(m)
	if err != nil {
		p.t.Fatal(err)
	}
	p.sendRaw(websocket.MessageText, frame)
}

func (p *peer) sendRaw(typ websocket.MessageType, frame []byte) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := p.ws.Write(ctx, typ, frame); err != nil {
		p.t.Fatal(err)
	}
}

// receive returns the next message, or the error that ended the connection.
func (p *peer) receive() (signaling.Message, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, frame, err := p.ws.Read(ctx)
	if err != nil {
		if ctx.Err() != nil {
			p.t.Helper()
			p.t.Fatal("nothing came in time")
		}
		return nil, err
	}
	m, err := signaling.ParseServerMessage(frame)
	if err != nil {
		p.t.Fatalf("%s: %v", frame, err)
	}
	return m, nil
}

// expect takes the next message, which must be an M.
func expect[M signaling.Message](p *peer) M {
	p.t.Helper()
	m, err := p.receive()
	if err != nil {
		p.t.Fatalf("connection ended: %v", err)
	}
	want, ok := m.(M)
	if !ok {
		p.t.Fatalf("got %#v, want a %T", m, want)
	}
	return want
}

// expectEnd takes the error message and the close that follows.
func (p *peer) expectEnd(code signaling.Code) signaling.Error {
	p.t.Helper()
	e := expect[signaling.Error](p)
	if e.Code != code || e.Message == "" {
		p.t.Fatalf("error %q (%s), want %q", e.Code, e.Message, code)
	}
	p.expectClose(code.Close(), string(code))
	return e
}

func (p *peer) expectClose(status int, reason string) {
	p.t.Helper()
	m, err := p.receive()
	var closed websocket.CloseError
	if !errors.As(err, &closed) || int(closed.Code) != status || closed.Reason != reason {
		p.t.Fatalf("got %#v and %v, want close %d %q", m, err, status, reason)
	}
}

// expectQuiet proves that nothing else has been sent to p: the next message is
// the answer to its own ping.
func (p *peer) expectQuiet() {
	p.t.Helper()
	p.send(signaling.Ping{})
	expect[signaling.Pong](p)
}

// pair is two members of one room who have seen each other.
func (h *harness) pair(t *testing.T, room signaling.RoomID) (a, b *peer) {
	t.Helper()
	a, _ = h.join(t, room)
	b, joined := h.join(t, room)
	if len(joined.Members) != 1 || joined.Members[0].Peer != a.id {
		t.Fatalf("members: %v", joined.Members)
	}
	if m := expect[signaling.MemberJoined](a); m.Peer != b.id {
		t.Fatalf("joined: %v", m.Peer)
	}
	return a, b
}

// talk proves that a and b can still reach each other, and nothing else came.
func talk(a, b *peer) {
	a.t.Helper()
	for _, ends := range [][2]*peer{{a, b}, {b, a}} {
		ends[0].send(signaling.SignalTo{To: ends[1].id, Sealed: "AQID"})
		if m := expect[signaling.SignalFrom](ends[1]); m.From != ends[0].id || m.Sealed != "AQID" {
			a.t.Fatalf("got %+v", m)
		}
	}
}

func poll(t *testing.T, what string, done func() bool) {
	t.Helper()
	signaltest.Until(t, patience, what, done)
}
