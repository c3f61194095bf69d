package signalserver_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/crmesh/crmesh/pkg/signaling"
	"github.com/crmesh/crmesh/pkg/signaling/signalserver"
)

// held is a connection whose writes wait until somebody lets them go, in pieces.
type held struct {
	net.Conn
	mu   sync.Mutex
	hold bool
	out  []byte
}

func (h *held) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.hold {
		h.out = append(h.out, p...)
		return len(p), nil
	}
	return h.Conn.Write(p)
}

// take returns what was held.
func (h *held) take() []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := h.out
	h.out = nil
	return out
}

// rawClient is a client whose bytes the test decides on.
type rawClient struct {
	t    *testing.T
	conn net.Conn // in the clear
	r    *bufio.Reader
	held *held // below TLS
}

// dialRaw connects over TLS and joins the room.
func dialRaw(t *testing.T, h *harness, room signaling.RoomID) *rawClient {
	t.Helper()
	below, err := net.Dial("tcp", h.web.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = below.Close() })
	_ = below.SetDeadline(time.Now().Add(2 * patience))
	roots := h.web.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	c := &rawClient{t: t, held: &held{Conn: below}}
	c.conn = tls.Client(c.held, &tls.Config{RootCAs: roots, ServerName: "example.com"})
	c.r = bufio.NewReader(c.conn)
	c.write([]byte("GET /v1/signal HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" +
		"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: " + signaling.Subprotocol + "\r\n\r\n"))
	if answer, err := http.ReadResponse(c.r, nil); err != nil || answer.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("got %v, %v", answer, err)
	}
	c.write(masked(t, signaling.Join{Room: room, Peer: signaling.PeerID{1}}))
	c.next(`"joined"`)
	return c
}

func (c *rawClient) write(b []byte) {
	c.t.Helper()
	if _, err := c.conn.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

// next takes the next text frame. It answers pings.
func (c *rawClient) next(want string) {
	c.t.Helper()
	for {
		head := make([]byte, 2)
		if _, err := io.ReadFull(c.r, head); err != nil {
			c.t.Fatal(err)
		}
		n := int(head[1])
		if n == 126 {
			long := make([]byte, 2)
			if _, err := io.ReadFull(c.r, long); err != nil {
				c.t.Fatal(err)
			}
			n = int(long[0])<<8 | int(long[1])
		}
		frame := make([]byte, n)
		if _, err := io.ReadFull(c.r, frame); err != nil {
			c.t.Fatal(err)
		}
		if head[0] == 0x89 {
			c.write([]byte{0x8a, 0x80, 0, 0, 0, 0})
			continue
		}
		if !strings.Contains(string(frame), want) {
			c.t.Fatalf("got %q, want %s", frame, want)
		}
		return
	}
}

// masked is the frame of a message, masked with zeros, which changes nothing.
func masked(t *testing.T, m signaling.Message) []byte {
	t.Helper()
	text, err := signaling.MarshalMessage(m)
	if err != nil {
		t.Fatal(err)
	}
	return maskedText(text)
}

func maskedText(text []byte) []byte {
	head := []byte{0x81, 0x80 | byte(len(text))}
	if len(text) > 125 {
		head = []byte{0x81, 0x80 | 126, byte(len(text) >> 8), byte(len(text))}
	}
	return append(append(head, 0, 0, 0, 0), text...)
}

// What comes on a parked connection over TLS is seen, wherever records and frames are cut, and however much of it TLS
// holds back.
func TestSecureBytesComeAsTheyLike(t *testing.T) {
	onlyWhereParked(t)
	h := startSecure(t, func(c *signalserver.Config) { c.MessageRate, c.MessageBurst = 1e6, 1e6 })
	c := dialRaw(t, h, room)
	other, _ := h.join(t, signaling.RoomID{2})
	parked := func() {
		t.Helper()
		poll(t, "the connections are parked", func() bool { return h.Parked() == 2 })
	}
	ping := masked(t, signaling.Ping{})

	// A record in two parts: the server has to park in the middle of it.
	for _, cut := range []int{1, 4, 5, 6, 20, -1} {
		parked()
		c.held.hold = true
		c.write(ping)
		record := c.held.take()
		c.held.hold = false
		if cut < 0 {
			cut += len(record)
		}
		if _, err := c.held.Write(record[:cut]); err != nil {
			t.Fatal(err)
		}
		other.expectQuiet() // meanwhile the server has looked at it, most likely
		parked()
		if _, err := c.held.Write(record[cut:]); err != nil {
			t.Fatal(err)
		}
		c.next(`"pong"`)
	}

	// Frames in one record, the first of which ends where a buffer of the server does.
	filled := maskedText([]byte(`{"type":"ping","x":"` + strings.Repeat("x", 4096-8-22) + `"}`))
	if len(filled) != 4096 {
		t.Fatalf("%d bytes", len(filled))
	}
	parked()
	c.write(slices.Concat(filled, ping, filled, ping))
	for range 4 {
		c.next(`"pong"`)
	}

	// A frame in two records, and one in many.
	parked()
	c.write(ping[:3])
	c.write(ping[3:])
	c.next(`"pong"`)
	large := maskedText([]byte(`{"type":"ping","x":"` + strings.Repeat("x", 60_000) + `"}`))
	for n := 1; n < len(large); n += len(large)/3 - 1 {
		parked()
		c.write(large[:n])
		c.write(append(large[n:len(large):len(large)], ping...))
		c.next(`"pong"`)
		c.next(`"pong"`)
	}

	// A pong that nobody has asked for and a frame in one record, and each in its own.
	pong := []byte{0x8a, 0x80, 0, 0, 0, 0}
	for _, records := range [][][]byte{{slices.Concat(pong, ping)}, {pong, ping}, {slices.Concat(pong, pong), ping}} {
		parked()
		for _, r := range records {
			c.write(r)
		}
		c.next(`"pong"`)
	}

	// The end.
	parked()
	_ = c.conn.Close()
	poll(t, "its place is free", func() bool { return h.Stats().Connections == 1 })
}

// A parked connection is pinged, and stays for as long as it answers.
func TestParkedConnectionIsPinged(t *testing.T) {
	onlyWhereParked(t)
	for name, start := range starts {
		t.Run(name, func(t *testing.T) {
			h := start(t, func(c *signalserver.Config) { c.IdleTimeout, c.Grace = 3*time.Second, time.Millisecond })
			a, b := h.pair(t, room)
			ctx, cancel := context.WithCancel(context.Background())
			came := make(chan string, 3)
			go func() { // answers pings
				defer close(came)
				for {
					_, frame, err := a.ws.Read(ctx)
					if err != nil {
						return
					}
					came <- string(frame)
				}
			}()
			poll(t, "the other, which does not answer, is gone", func() bool { return h.Stats().Connections == 1 })
			if frame := <-came; !strings.Contains(frame, b.id.String()) || !strings.Contains(frame, "member-left") {
				t.Errorf("got %s", frame)
			}
			h.expectSamples(t, map[string]float64{"refusals_total{idle}": 1})
			a.send(signaling.Ping{})
			if frame := <-came; !strings.Contains(frame, "pong") {
				t.Errorf("got %s", frame)
			}
			cancel()
			for range came {
			}
		})
	}
}

// What a parked connection is sent arrives whole and in order, also what has to wait until the peer reads; and afterwards
// it is parked again.
func TestParkedConnectionIsWrittenTo(t *testing.T) {
	onlyWhereParked(t)
	for name, start := range starts {
		t.Run(name, func(t *testing.T) {
			const envelopes, size = 60, 43_000 // more than the kernel's buffers have place for
			h := start(t, func(c *signalserver.Config) {
				c.MessageRate, c.MessageBurst = 1e6, 1e6
				c.SendQueue, c.SendQueueBytes = envelopes, 2*envelopes*size
			})
			a, b := h.pair(t, room)
			poll(t, "both are parked", func() bool { return h.Parked() == 2 })
			sealed := func(i int) string { return strings.Repeat(string(rune('A'+i%26)), size+i%7) }
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			got := make(chan error, 1)
			read := sync.OnceFunc(func() {
				go func() { // until it has them all, or ctx is done
					for i := range envelopes {
						_, frame, err := a.ws.Read(ctx)
						if err == nil && !strings.Contains(string(frame), `"`+sealed(i)+`"`) {
							err = fmt.Errorf("envelope %d is %d bytes, %.100s", i, len(frame), frame)
						}
						if err != nil {
							got <- err
							return
						}
					}
					got <- nil
				}()
			})
			for i := range envelopes {
				b.send(signaling.SignalTo{To: a.id, Sealed: sealed(i)})
				if h.Queued() > 0 { // a's writer waits, most likely
					read()
				}
			}
			read()
			if err := <-got; err != nil {
				t.Fatal(err)
			}
			poll(t, "both are parked again", func() bool { return h.Parked() == 2 })
			talk(a, b)
		})
	}
}
