package signalclient_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/crmesh/crmesh/pkg/signaling"
	"github.com/crmesh/crmesh/pkg/signaling/signalclient"
	"github.com/crmesh/crmesh/pkg/signaling/signalserver"
	"github.com/crmesh/crmesh/pkg/signaling/signaltest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = time.Minute

// runningServer is a signaling server on a loopback port that can be stopped
// and started again on the same port.
type runningServer struct {
	addr     string
	listener net.Listener
	signal   *signalserver.Server
	http     *http.Server
	served   chan error
}

func startServer(t *testing.T, addr string, cfg signalserver.Config) *runningServer {
	t.Helper()
	signal, err := signalserver.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	s := &runningServer{addr: listener.Addr().String(), listener: listener, signal: signal, http: &http.Server{Handler: signal}, served: make(chan error, 1)}
	go func() { s.served <- s.http.Serve(listener) }()
	t.Cleanup(s.stop)
	return s
}

func (s *runningServer) url() string { return "http://" + s.addr + "/" }

func (s *runningServer) stop() {
	if s.served == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_ = s.signal.Shutdown(ctx)
	_ = s.http.Close()
	<-s.served
	s.served = nil
}

// kill drops all connections without a goodbye, as a crash does.
func (s *runningServer) kill() {
	_ = s.http.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = s.signal.Shutdown(ctx)
	<-s.served
	s.served = nil
}

func newKeys(t *testing.T) signaling.Keys {
	t.Helper()
	keys, err := signaling.NewRoom(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func startClient(t *testing.T, cfg signalclient.Config) *signalclient.Client {
	t.Helper()
	if cfg.BackoffMin == 0 {
		cfg.BackoffMin, cfg.BackoffMax = 10*time.Millisecond, 50*time.Millisecond
	}
	c, err := signalclient.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// await reads events until one of type E satisfies ok, and returns it.
func await[E signalclient.Event](t *testing.T, c *signalclient.Client, ok func(E) bool) E {
	t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case e, open := <-c.Events():
			if !open {
				t.Fatal("events ended")
			}
			if e, is := e.(E); is && (ok == nil || ok(e)) {
				return e
			}
		case <-deadline:
			var want E
			t.Fatalf("no %T within %v", want, patience)
		}
	}
}

func peersOf(members []signaling.Member) []signaling.PeerID {
	var ids []signaling.PeerID
	for _, m := range members {
		ids = append(ids, m.Peer)
	}
	return ids
}

func TestTwoPeersExchangeDescriptions(t *testing.T) {
	server := startServer(t, "127.0.0.1:0", signalserver.DefaultConfig())
	keys := newKeys(t)
	a := startClient(t, signalclient.Config{URLs: []string{server.url()}, Keys: keys, Meta: signaling.Meta{Name: "a", Replica: true}})
	await[signalclient.Joined](t, a, nil)
	reader := signaling.ReaderKeys(keys.Read, keys.WriterPublic)
	b := startClient(t, signalclient.Config{URLs: []string{server.url()}, Keys: reader, Meta: signaling.Meta{Name: "b"}})
	joined := await[signalclient.Joined](t, b, nil)
	if len(joined.Members) != 1 || joined.Members[0] != (signaling.Member{Peer: a.Peer(), Meta: signaling.Meta{Name: "a", Replica: true}}) {
		t.Fatalf("b sees %v", joined.Members)
	}
	if m := await[signalclient.MemberJoined](t, a, nil); m.Member != (signaling.Member{Peer: b.Peer(), Meta: signaling.Meta{Name: "b", Reader: true}}) {
		t.Fatalf("a sees %v", m.Member)
	}

	offer := signaling.Description{Kind: signaling.KindOffer, Session: 7, SDP: "v=0\r\n<&>", Nonce: [32]byte{1}, Site: [16]byte{2}}
	if err := a.Send(b.Peer(), offer); err != nil {
		t.Fatal(err)
	}
	if got := await[signalclient.Signal](t, b, nil); got.From != a.Peer() || got.Description != offer {
		t.Fatalf("b got %+v", got)
	}
	want := signaling.Description{Kind: signaling.KindWant, Session: signaling.MaxSession}
	if err := b.Send(a.Peer(), want); err != nil {
		t.Fatal(err)
	}
	if got := await[signalclient.Signal](t, a, nil); got.From != b.Peer() || got.Description != want {
		t.Fatalf("a got %+v", got)
	}

	last := signaling.Description{Kind: signaling.KindBye, Session: 8}
	if err := b.Send(a.Peer(), last); err != nil {
		t.Fatal(err)
	}
	b.Close() // what is queued goes out before it leaves
	if got := await[signalclient.Signal](t, a, nil); got.Description != last {
		t.Fatalf("a got %+v", got)
	}
	if left := await[signalclient.MemberLeft](t, a, nil); left.Peer != b.Peer() {
		t.Fatalf("left: %v", left.Peer)
	}
	if err := b.Send(a.Peer(), want); !errors.Is(err, signalclient.ErrClosed) {
		t.Fatalf("send after close: %v", err)
	}
	if len(a.Members()) != 0 {
		t.Fatalf("a still lists %v", a.Members())
	}
}

func TestServerRestart(t *testing.T) {
	for name, stop := range map[string]func(*runningServer){"shutdown": (*runningServer).stop, "killed": (*runningServer).kill} {
		t.Run(name, func(t *testing.T) {
			server := startServer(t, "127.0.0.1:0", signalserver.DefaultConfig())
			keys := newKeys(t)
			var clients []*signalclient.Client
			for range 4 {
				clients = append(clients, startClient(t, signalclient.Config{URLs: []string{server.url()}, Keys: keys}))
			}
			for _, c := range clients {
				waitMembers(t, c, 3)
			}
			before := peersOf(clients[0].Members())
			stop(server)
			for _, c := range clients {
				await(t, c, func(d signalclient.Disconnected) bool { return d.Err != nil })
			}
			if err := clients[0].Send(before[0], signaling.Description{Kind: signaling.KindBye}); !errors.Is(err, signalclient.ErrNotConnected) {
				t.Fatalf("send without a server: %v", err)
			}
			if got := peersOf(clients[0].Members()); !slices.Equal(got, before) {
				t.Fatalf("without a server the members are %v, were %v", got, before)
			}
			again := startServer(t, server.addr, signalserver.DefaultConfig())
			for _, c := range clients {
				await[signalclient.Joined](t, c, nil)
			}
			waitStats(t, again, 4)
			if got := peersOf(clients[0].Members()); !slices.Equal(got, before) {
				t.Fatalf("after the restart the members are %v, were %v", got, before)
			}
			// The new server carries envelopes.
			if err := clients[1].Send(clients[2].Peer(), signaling.Description{Kind: signaling.KindWant, Session: 3}); err != nil {
				t.Fatal(err)
			}
			if got := await[signalclient.Signal](t, clients[2], nil); got.From != clients[1].Peer() {
				t.Fatalf("from %v", got.From)
			}
		})
	}
}

// waitMembers drains events until the client knows n others.
func waitMembers(t *testing.T, c *signalclient.Client, n int) {
	t.Helper()
	deadline := time.After(patience)
	for len(c.Members()) != n {
		select {
		case <-c.Events():
		case <-deadline:
			t.Fatalf("%d members, want %d", len(c.Members()), n)
		}
	}
}

func waitStats(t *testing.T, s *runningServer, members int) {
	t.Helper()
	signaltest.Until(t, patience, fmt.Sprintf("%d members at the server", members), func() bool { return s.signal.Stats().Members == members })
}

// tapped is a connection that says when the answer to the join was read, before anybody sees it. An error of its ends it.
type tapped struct {
	net.Conn
	reads  int
	joined func() error
}

func (c *tapped) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.reads++; c.reads == 2 && err == nil { // the first is the answer to the request for the WebSocket
		if err := c.joined(); err != nil {
			_ = c.Conn.Close()
			return 0, err
		}
	}
	return n, err
}

// tap makes a client whose connections are tapped.
func tap(joined func() error) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &tapped{Conn: c, joined: joined}, nil
	}}}
}

// A client that joined and does not know it comes back at once as the member that it is, not after the grace time.
func TestJoinedLost(t *testing.T) {
	s := startServer(t, "127.0.0.1:0", signalserver.DefaultConfig())
	var lose atomic.Bool
	lose.Store(true)
	c := startClient(t, signalclient.Config{URLs: []string{s.url()}, Keys: newKeys(t), BackoffMin: time.Millisecond, HTTPClient: tap(func() error {
		if lose.Swap(false) {
			return net.ErrClosed
		}
		return nil
	})})
	lost := await[signalclient.Disconnected](t, c, nil)
	if lose.Load() || s.signal.Stats().Members != 1 {
		t.Fatalf("the answer was not lost: %v", lost.Err)
	}
	if e, ok := (<-c.Events()).(signalclient.Joined); !ok {
		t.Fatalf("it did not come back: %+v", e)
	}
}

// A client that is closed while the answer to its join is under way leaves the room at once, not after the grace time.
func TestLeaveWhileJoining(t *testing.T) {
	cfg := signalserver.DefaultConfig()
	cfg.Grace = time.Hour
	s := startServer(t, "127.0.0.1:0", cfg)
	joined, closing := make(chan struct{}), make(chan struct{})
	c := startClient(t, signalclient.Config{URLs: []string{s.url()}, Keys: newKeys(t), HTTPClient: tap(func() error {
		close(joined)
		<-closing
		return nil
	})})
	<-joined
	waitStats(t, s, 1)
	closed := make(chan struct{})
	go func() {
		c.Close()
		close(closed)
	}()
	signaltest.Until(t, patience, "the client is closed", func() bool {
		return errors.Is(c.Send(c.Peer(), signaling.Description{Kind: signaling.KindWant}), signalclient.ErrClosed)
	})
	close(closing)
	<-closed
	waitStats(t, s, 0)
}
