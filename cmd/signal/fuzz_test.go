//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crmesh/crmesh/pkg/signaling"
	"github.com/crmesh/crmesh/pkg/signaling/signalserver"
	"github.com/crmesh/crmesh/web"
)

// fuzzed is a server in this process, as the program runs it, behind a Unix socket, and what tells that it is well.
type fuzzed struct {
	server  *signalserver.Server
	path    string
	health  *rawConn // an HTTP connection that stays
	witness *rawConn // a member of fuzzRoom who stays
}

var (
	fuzzRoom    = signaling.RoomID{1}
	fuzzWitness = signaling.PeerID{0xff}
)

func newFuzzed(f *testing.F) *fuzzed {
	f.Helper()
	dir, err := os.MkdirTemp("", "fuzz") // short: a Unix socket's name has 100 bytes
	if err != nil {
		f.Fatal(err)
	}
	cfg := signalserver.DefaultConfig()
	cfg.Page, cfg.Grace = web.Page(), 10*time.Millisecond
	cfg.MessageRate, cfg.MessageBurst = 1e9, 1e9                                        // of the witness
	cfg.JoinRate, cfg.JoinBurst, cfg.RequestRate, cfg.RequestBurst = 1e9, 1e9, 1e9, 1e9 // whoever comes by a Unix socket is one address
	z := &fuzzed{path: filepath.Join(dir, "s")}
	if z.server, err = signalserver.New(cfg); err != nil {
		f.Fatal(err)
	}
	listener, err := listenUnix(z.path, 0o600, false)
	if err != nil {
		f.Fatal(err)
	}
	httpServer := newHTTPServer(z.server, 10*time.Second, log.New(io.Discard, "", 0))
	served := make(chan error, 1)
	go func() { served <- httpServer.Serve(z.server.Listener(listener)) }()
	f.Cleanup(func() {
		_ = z.health.Close()
		_ = z.witness.Close()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := errors.Join(z.server.Shutdown(ctx), httpServer.Shutdown(ctx)); err != nil {
			f.Error(err)
		}
		<-served
		_ = os.RemoveAll(dir)
	})
	z.health, z.witness = z.dial(f), z.dial(f)
	if _, err := z.witness.ask(upgradeRequest); err != nil {
		f.Fatal(err)
	}
	if err := z.witness.message(signaling.Join{Room: fuzzRoom, Peer: fuzzWitness}); err != nil {
		f.Fatal(err)
	}
	if _, err := expectRaw[signaling.Joined](z.witness); err != nil {
		f.Fatal(err)
	}
	z.well(f)
	return z
}

func (z *fuzzed) dial(t testing.TB) *rawConn {
	t.Helper()
	c, err := net.Dial("unix", z.path)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	return &rawConn{c, bufio.NewReader(c)}
}

// well proves that the server answers others.
func (z *fuzzed) well(t testing.TB) {
	t.Helper()
	_ = z.health.SetDeadline(time.Now().Add(patience))
	_ = z.witness.SetDeadline(time.Now().Add(patience))
	response, err := z.health.ask("GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("/healthz: %v, %v", response, err)
	}
	_, _ = io.Copy(io.Discard, response.Body)
	if err := z.witness.message(signaling.Ping{}); err != nil {
		t.Fatal(err)
	}
	if _, err := expectRaw[signaling.Pong](z.witness); err != nil { // and all that comes before it is a message, too
		t.Fatal(err)
	}
}

// over sends b, ends what is sent, and looks at what comes until the server closes. begun: the WebSocket is there.
// before is how many goroutines there were before the connection.
func (z *fuzzed) over(t testing.TB, before int, c *rawConn, b []byte, begun bool) {
	t.Helper()
	defer func() { _ = c.Close() }()
	go func() { // ends when the server has taken or closed all, which is checked
		_, _ = c.Write(b)
		_ = c.CloseWrite()
	}()
	for !begun {
		response, err := http.ReadResponse(c.r, nil)
		if err != nil {
			z.closed(t, err)
			break
		}
		if response.StatusCode < 100 || response.StatusCode > 599 {
			t.Fatalf("HTTP %d", response.StatusCode)
		}
		if begun = response.StatusCode == http.StatusSwitchingProtocols; begun {
			break
		}
		if bytes.Contains(b, []byte("HEAD")) { // its answer has no body, whatever the length says: where the next begins is not known
			_, err := io.Copy(io.Discard, c.r)
			z.closed(t, err)
			break
		}
		if _, err := io.Copy(io.Discard, response.Body); err != nil {
			z.closed(t, err)
		}
	}
	for begun {
		opcode, payload, err := c.next()
		if err != nil {
			z.closed(t, err)
			break
		}
		switch opcode {
		case opText:
			if _, err := signaling.ParseServerMessage(payload); err != nil {
				t.Fatalf("the server sends %q: %v", payload, err)
			}
		case opClose, opPing, opPong:
			if len(payload) > 125 {
				t.Fatalf("the server sends a control frame of %d bytes", len(payload))
			}
		default:
			t.Fatalf("the server sends a frame of type %d", opcode)
		}
	}
	ended := func() bool { return z.server.Stats().Connections == 1 && runtime.NumGoroutine() <= before }
	for i := 0; i < 10_000 && !ended(); i++ { // mostly it is a matter of microseconds
		runtime.Gosched()
	}
	poll(t, "the end of all that served the connection", ended)
	z.well(t)
}

// closed checks that an error is the end of the connection, and no answer that is none.
func (z *fuzzed) closed(t testing.TB, err error) {
	t.Helper()
	var operation *net.OpError
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.As(err, &operation) {
		t.Fatalf("the server sends what cannot be read: %v", err)
	}
	if errors.As(err, &operation) && operation.Timeout() {
		t.Fatal("the server leaves a connection open that is over")
	}
}

// Whatever comes over a connection: the server answers in HTTP or closes, leaves nothing running, and serves others.
func FuzzHTTP(f *testing.F) {
	z := newFuzzed(f)
	get := "GET / HTTP/1.1\r\nHost: h\r\n"
	for _, seed := range []string{
		get + "\r\n", get + "Accept-Encoding: br;q=1, gzip;q=0, *\r\n\r\n", get + "Range: bytes=0-1,5-\r\n\r\n",
		"GET /healthz HTTP/1.0\r\n\r\n", "HEAD /readyz HTTP/1.1\r\nHost: h\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
		upgradeRequest, upgradeRequest + string(wireFrame(fin|opText, []byte(`{"type":"ping"}`))),
		strings.Replace(upgradeRequest, "\r\n\r\n", "\r\nOrigin: https://x\r\nX-Forwarded-For: 192.0.2.1, ::1%eth0\r\n\r\n", 1),
		"POST /v1/signal HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabcGET / HTTP/1.1\r\nHost: h\r\n\r\n",
		"GET http://h/assets/../%2e%2e/x?a=b HTTP/1.1\r\nHost: h\r\n\r\n", "CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\x16\x03\x01\x00\x05", "GET /\nHost: h\n\n",
		get + "If-None-Match: \"x\"\r\nIf-Modified-Since: Mon, 02 Jan 2006 15:04:05 GMT\r\n\r\n" + get + "Connection: close\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		before := runtime.NumGoroutine()
		z.over(t, before, z.dial(t), b, false)
	})
}

// Whatever comes over a WebSocket, likewise, and the other member of the room gets nothing but messages.
func FuzzFrames(f *testing.F) {
	z := newFuzzed(f)
	message := func(m signaling.Message) []byte {
		b, err := signaling.MarshalMessage(m)
		if err != nil {
			f.Fatal(err)
		}
		return wireFrame(fin|opText, b)
	}
	join := message(signaling.Join{Room: fuzzRoom, Peer: signaling.PeerID{2}, Token: "t", Meta: signaling.Meta{Name: "n"}})
	f.Add([]byte{})
	for _, seed := range [][]byte{
		message(signaling.SignalTo{To: fuzzWitness, Sealed: "AQID"}), message(signaling.SignalTo{To: signaling.PeerID{9}, Sealed: "AQID"}),
		message(signaling.Leave{}), message(signaling.Ping{}), message(signaling.Pong{}), join,
		wireFrame(fin|opText, []byte("\xff")), wireFrame(fin|opBinary, []byte("{}")), wireFrame(fin|opPing, []byte("p")),
		wireFrame(fin|opPong, nil), wireFrame(fin|opClose, []byte{3, 232}), wireFrame(fin|opClose, []byte{0}),
		wireFrame(fin|rsv1|opText, []byte("{}")), wireHeader(fin|opText, 1<<63-1), wireHeader(fin|opText, 1<<16+1), {fin | opText, 2, '{', '}'},
		slices.Concat(wireFrame(opText, []byte(`{"type":`)), wireFrame(fin|opPing, nil), wireFrame(fin|opContinuation, []byte(`"ping"}`))),
		bytes.Repeat(wireFrame(opContinuation, nil), 100), bytes.Repeat(message(signaling.Ping{}), 300),
	} {
		f.Add(seed)
		f.Add(slices.Concat(join, seed))
		f.Add(slices.Concat(join, seed, message(signaling.Ping{})))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		before, c := runtime.NumGoroutine(), z.dial(t)
		if response, err := c.ask(upgradeRequest); err != nil || response.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("the upgrade: %v, %v", response, err)
		}
		z.over(t, before, c, b, true)
	})
}
