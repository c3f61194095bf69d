package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/crmesh/crmesh/pkg/signaling/signalserver"
)

// rebindTimeout bounds how long a restarted server waits for its port.
const rebindTimeout = 10 * time.Second

// simServer is a signaling server on the machine's loopback, that can be stopped and started on the same port.
type simServer struct {
	url     string
	address string
	cfg     signalserver.Config
	log     *slog.Logger

	server *signalserver.Server // nil: stopped
	web    *webServer
}

// newSimServer starts a server for so many peers, all of which come from one address.
func newSimServer(ctx context.Context, peers int, log *slog.Logger) (*simServer, error) {
	cfg := signalserver.DefaultConfig()
	cfg.Logger = log
	cfg.MaxConnectionsPerAddress = max(cfg.MaxConnectionsPerAddress, 4*peers)
	cfg.JoinRate, cfg.JoinBurst = cfg.JoinRate*float64(peers), max(cfg.JoinBurst, 4*peers)
	s := &simServer{address: "127.0.0.1:0", cfg: cfg, log: log}
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	s.url = "http://" + s.address + "/"
	return s, nil
}

// start binds the port, which somebody else may have for a moment.
func (s *simServer) start(ctx context.Context) error {
	deadline := time.Now().Add(rebindTimeout)
	listener, err := net.Listen("tcp", s.address)
	for err != nil && ctx.Err() == nil && time.Now().Before(deadline) {
		pause(ctx, 50*time.Millisecond)
		listener, err = net.Listen("tcp", s.address)
	}
	if err != nil {
		return fmt.Errorf("the signaling server cannot listen: %w", err)
	}
	s.address = listener.Addr().String()
	if s.server, err = signalserver.New(s.cfg); err != nil {
		return errors.Join(err, listener.Close())
	}
	s.web = newWebServer(s.server, listener, s.log)
	return nil
}

func (s *simServer) stop() {
	if s.server == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), goodbyeTimeout)
	defer cancel()
	if err := s.server.Shutdown(ctx); err != nil {
		s.log.Warn("the signaling server did not end in time", "err", err)
	}
	s.web.close()
	s.server = nil
}

// pause waits, or until ctx is done; then it is false.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// wire is the TCP of one peer to the signaling server. Once it is cut, nothing gets out, not even a goodbye.
type wire struct {
	mu    sync.Mutex // guards the following
	conns map[net.Conn]struct{}
	dead  bool
}

var errWireCut = errors.New("the peer was killed")

func (w *wire) client() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: w.dial}}
}

func (w *wire) dial(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead {
		return nil, errors.Join(errWireCut, c.Close())
	}
	if w.conns == nil {
		w.conns = map[net.Conn]struct{}{}
	}
	w.conns[c] = struct{}{}
	return &wireConn{c, w}, nil
}

func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dead = true
	for c := range w.conns {
		_ = c.Close() // a second close by its user changes nothing
	}
}

// wireConn leaves its wire when it is closed.
type wireConn struct {
	net.Conn
	wire *wire
}

func (c *wireConn) Close() error {
	c.wire.mu.Lock()
	delete(c.wire.conns, c.Conn)
	c.wire.mu.Unlock()
	return c.Conn.Close()
}
