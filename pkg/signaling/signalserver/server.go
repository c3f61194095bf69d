package signalserver

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/crmesh/crmesh/pkg/signaling"
)

// Server is the signaling server. It is an http.Handler; use it with any
// http.Server. After use it must be shut down.
type Server struct {
	cfg    Config
	log    *slog.Logger
	mux    *http.ServeMux
	closed chan struct{}  // closed by Shutdown
	tasks  sync.WaitGroup // connections and the ticker

	mu         sync.Mutex // guards the following
	stopping   bool
	nextConn   signaling.ConnID
	conns      map[signaling.ConnID]*conn // all, joined or not
	admitted   int                        // connections, those in the handshake included
	perAddress map[netip.Prefix]int       // the same by address
	rooms      map[signaling.RoomID]*signaling.Roster
	waiting    map[signaling.RoomID]struct{} // rooms with members in their grace time
	joins      joinLimit
}

// New checks the configuration and starts the server's clock. The error lists
// all that is wrong with cfg.
func New(cfg Config) (*Server, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	s := &Server{
		cfg:        cfg,
		log:        cfg.Logger,
		closed:     make(chan struct{}),
		conns:      map[signaling.ConnID]*conn{},
		perAddress: map[netip.Prefix]int{},
		rooms:      map[signaling.RoomID]*signaling.Roster{},
		waiting:    map[signaling.RoomID]struct{}{},
		joins:      joinLimit{rate: cfg.JoinRate, burst: cfg.JoinBurst, buckets: map[netip.Prefix]*bucket{}},
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.mux = s.routes()
	s.tasks.Go(s.tick)
	return s, nil
}

// ServeHTTP serves the page, /healthz, /readyz and /v1/signal. On the last it
// blocks for the life of the WebSocket.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

var shutdownError = signaling.Error{Code: signaling.CodeShutdown, Message: "The server is shutting down; reconnect."}

// Stats is a snapshot of the server's load.
type Stats struct {
	Connections int // open WebSockets
	Rooms       int // rooms with members
	Members     int // those within the grace time included
}

// Stats returns the load of this moment.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{Connections: len(s.conns), Rooms: len(s.rooms)}
	for _, room := range s.rooms {
		st.Members += room.Len()
	}
	return st
}

// Shutdown refuses new connections, closes all open ones with shutdown and
// waits for them until ctx is done. It may be called more than once. Call it
// before http.Server.Shutdown, which does not know of WebSockets.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if !s.stopping {
		s.stopping = true
		close(s.closed)
	}
	for _, c := range s.conns {
		c.fail(shutdownError)
	}
	s.mu.Unlock()

	done := make(chan struct{})
	go func() { // ends with the last connection, each of which is bounded by its write timeout
		s.tasks.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		s.mu.Lock()
		for _, c := range s.conns {
			c.abort()
		}
		s.mu.Unlock()
		<-done
		return ctx.Err()
	}
}

// tick ends memberships whose grace time is over, until Shutdown.
func (s *Server) tick() {
	const finest, coarsest = 10 * time.Millisecond, time.Second
	ticker := time.NewTicker(min(max(s.cfg.Grace/8, finest), coarsest))
	defer ticker.Stop()
	for {
		select {
		case <-s.closed:
			return
		case now := <-ticker.C:
			s.expire(now)
		}
	}
}

func (s *Server) expire(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.waiting {
		room := s.rooms[id]
		for _, peer := range room.Tick(now) {
			s.broadcast(id, room, peer, signaling.MemberLeft{Peer: peer})
		}
		s.settle(id, room)
	}
}

// settle forgets an empty room and notes whether a room has members to wait
// for. s.mu is held.
func (s *Server) settle(id signaling.RoomID, room *signaling.Roster) {
	delete(s.waiting, id)
	switch {
	case room.Len() == 0:
		delete(s.rooms, id)
	case room.Waiting() > 0:
		s.waiting[id] = struct{}{}
	}
}

// newToken returns a resume token: 128 random bits.
func newToken() string { return rand.Text() }
