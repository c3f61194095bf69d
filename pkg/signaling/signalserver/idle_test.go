package signalserver_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/crmesh/crmesh/pkg/signaling"
	"github.com/crmesh/crmesh/pkg/signaling/signalserver"
)

// A connection on which nothing happens costs neither a goroutine nor a WebSocket of the library's; it goes on when
// something comes, from either side, and ends like any other.
func TestQuietConnectionIsParked(t *testing.T) {
	for name, start := range starts {
		t.Run(name, func(t *testing.T) { testParked(t, start) })
	}
}

// starts are the ways to start a server, each with sockets of another kind below its WebSockets.
var starts = map[string]func(*testing.T, func(*signalserver.Config)) *harness{
	"plain": start, "counted": startCounted, "secure": startSecure,
}

func onlyWhereParked(t *testing.T) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("connections are parked on Linux only")
	}
}

func testParked(t *testing.T, start func(*testing.T, func(*signalserver.Config)) *harness) {
	onlyWhereParked(t)
	h := start(t, func(c *signalserver.Config) { c.IdleTimeout = 6 * time.Second }) // a ping every 2 s
	a, b := h.pair(t, room)
	quiet := func(parked int, peers ...*peer) <-chan signaling.Message {
		t.Helper()
		came := make(chan signaling.Message, len(peers))
		for _, p := range peers { // who reads answers pings
			go func() {
				m, _ := p.receive()
				came <- m
			}()
		}
		poll(t, fmt.Sprintf("%d connections are parked", parked), func() bool { return h.Parked() == parked })
		runtime.GC() // what was let go ends, and takes nothing along
		runtime.GC()
		return came
	}

	came := quiet(2, a, b)
	c, _ := h.join(t, room)
	for range 2 { // written to those that are parked
		if m, ok := (<-came).(signaling.MemberJoined); !ok || m.Peer != c.id {
			t.Fatalf("got %+v", m)
		}
	}
	talk(a, b)

	came = quiet(3, a, b, c)
	a.send(signaling.SignalTo{To: b.id, Sealed: "AQID"}) // read from one that is parked, and written to one
	if m, ok := (<-came).(signaling.SignalFrom); !ok || m.From != a.id {
		t.Fatalf("got %+v", m)
	}
	b.send(signaling.Leave{})
	b.expectClose(1000, "leave")
	for range 2 {
		if m, ok := (<-came).(signaling.MemberLeft); !ok || m.Peer != b.id {
			t.Fatalf("got %+v", m)
		}
	}

	quiet(2, a, c)
	_ = a.ws.CloseNow() // the end of one that is parked is seen
	poll(t, "its place is free", func() bool { return h.Stats().Connections == 1 })
} // and Shutdown ends the other

// Frames of all sizes come through whole, short ones as well as those that take several buffers.
func TestFrameSizes(t *testing.T) {
	h := start(t, func(c *signalserver.Config) { c.MessageRate, c.MessageBurst = 1e6, 1e6 })
	a, b := h.pair(t, room)
	for _, n := range []int{4, 8, 40, 60, 64, 72, 100, 1024, 4000, 4096, 8192, 40_000, signaling.MaxSealed} {
		sealed := strings.Repeat("A", n/4*4)
		for range 3 { // several wait for one writer
			a.send(signaling.SignalTo{To: b.id, Sealed: sealed})
		}
		for range 3 {
			if m := expect[signaling.SignalFrom](b); m.Sealed != sealed {
				t.Fatalf("%d characters came as %d", len(sealed), len(m.Sealed))
			}
		}
	}
	a.expectQuiet()
}

// A client may send its join together with the handshake, and frames cut anywhere.
func TestBytesComeAsTheyLike(t *testing.T) {
	h := start(t, nil)
	conn, err := net.Dial("tcp", h.web.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(patience))
	masked := func(m signaling.Message) []byte { // with zeros, which changes nothing
		text, err := signaling.MarshalMessage(m)
		if err != nil {
			t.Fatal(err)
		}
		head := []byte{0x81, 0x80 | byte(len(text))}
		if len(text) > 125 {
			head = []byte{0x81, 0x80 | 126, byte(len(text) >> 8), byte(len(text))}
		}
		return append(append(head, 0, 0, 0, 0), text...)
	}
	write := func(b []byte) {
		t.Helper()
		if _, err := conn.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	write(append([]byte("GET /v1/signal HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: "+signaling.Subprotocol+"\r\n\r\n"),
		masked(signaling.Join{Room: room, Peer: signaling.PeerID{1}})...))
	r := bufio.NewReader(conn)
	if answer, err := http.ReadResponse(r, nil); err != nil || answer.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("got %v, %v", answer, err)
	}
	next := func(want string) {
		t.Helper()
		head := make([]byte, 2)
		if _, err := io.ReadFull(r, head); err != nil {
			t.Fatal(err)
		}
		n := int(head[1])
		if n == 126 {
			if _, err := io.ReadFull(r, head); err != nil {
				t.Fatal(err)
			}
			n = int(head[0])<<8 | int(head[1])
		}
		frame := make([]byte, n)
		if _, err := io.ReadFull(r, frame); err != nil || !strings.Contains(string(frame), want) {
			t.Fatalf("got %q, %v, want %s", frame, err, want)
		}
	}
	next(`"joined"`)
	pong := []byte{0x8a, 0x80, 0, 0, 0, 0}              // of a ping that nobody sent
	stream := append(pong, masked(signaling.Ping{})...) // and behind it a frame, in one piece
	write(stream)
	next(`"pong"`)
	other, _ := h.join(t, signaling.RoomID{2})
	for cut := 1; cut < len(stream); cut++ {
		write(stream[:cut])
		other.expectQuiet() // meanwhile the server has read it, most likely
		write(stream[cut:])
		next(`"pong"`)
	}
}

// panicking fails on one line of the log.
type panicking struct{ slog.Handler }

func (p panicking) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == "joined" {
		panic("the log is full")
	}
	return p.Handler.Handle(ctx, r)
}

func (p panicking) WithAttrs(attrs []slog.Attr) slog.Handler {
	return panicking{p.Handler.WithAttrs(attrs)}
}

// What goes wrong in the service of one connection ends that one, as it would inside of net/http.
func TestPanicEndsOneConnection(t *testing.T) {
	h := start(t, func(c *signalserver.Config) { c.Logger = slog.New(panicking{c.Logger.Handler()}) })
	p := h.connect(t)
	p.send(signaling.Join{Room: room, Peer: p.id})
	for {
		if _, err := p.receive(); err != nil {
			if websocket.CloseStatus(err) != websocket.StatusNormalClosure {
				t.Errorf("closed with %v", err)
			}
			break
		}
	}
	poll(t, "its place is free", func() bool { return h.Stats().Connections == 0 })
	if !strings.Contains(h.log.String(), "the log is full") {
		t.Errorf("the log does not say why:\n%s", h.log)
	}
	h.connect(t).expectQuiet()
}
