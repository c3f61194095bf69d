package signalserver

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/crmesh/crmesh/pkg/signaling"
)

// Server is the signaling server. It is an http.Handler; use it with any
// http.Server. After use it must be shut down.
type Server struct {
	cfg    atomic.Pointer[Config] // stored under mu
	log    *slog.Logger
	mux    *http.ServeMux
	closed chan struct{}  // closed by Shutdown
	tasks  sync.WaitGroup // connections and the ticker

	metrics    *metrics
	queued     atomic.Int64 // bytes in the send queues of all connections
	parking    *parking
	alarms     alarms
	cluster    *cluster // nil: this server is alone
	sockets    sockets
	nextLinger atomic.Int64  // since epoch: the next turn to read from a connection that has to end
	large      chan struct{} // holds a place for each large message that may be parsed at a time

	mu         sync.Mutex // guards the following
	admission  admission
	stopping   bool
	drain      *drain // not nil once Drain was called
	nextConn   signaling.ConnID
	conns      map[signaling.ConnID]*conn // all, joined or not
	admitted   int                        // connections, those in the handshake included
	perAddress map[netip.Prefix]int       // the same by address
	rooms      map[signaling.RoomID]*signaling.Roster
	waiting    map[signaling.RoomID]struct{} // rooms with members in their grace time
	joins      addressLimit
}

// New checks the configuration and starts the server's clock. The error lists
// all that is wrong with cfg.
func New(cfg Config) (*Server, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	s := &Server{
		log:        cfg.Logger,
		closed:     make(chan struct{}),
		admission:  newAdmission(&cfg),
		metrics:    newMetrics(),
		conns:      map[signaling.ConnID]*conn{},
		perAddress: map[netip.Prefix]int{},
		rooms:      map[signaling.RoomID]*signaling.Roster{},
		waiting:    map[signaling.RoomID]struct{}{},
		joins:      addressLimit{rate: cfg.JoinRate, burst: cfg.JoinBurst, buckets: map[netip.Prefix]*bucket{}},
	}
	s.sockets.perAddress = map[netip.Prefix]int{}
	s.sockets.requests.buckets = map[netip.Prefix]*bucket{}
	s.sockets.setRates(&cfg)
	s.large = make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.cfg.Store(&cfg)
	s.mux = s.routes()
	s.parking = openParking(s.resume)
	if s.cluster = newCluster(s, cfg.Cluster); s.cluster != nil {
		s.tasks.Go(s.cluster.run)
	}
	s.alarms.sooner = make(chan struct{}, 1)
	s.tasks.Go(func() { s.alarms.run(s.closed, s.ring) })
	s.tasks.Go(s.tick)
	return s, nil
}

// ServeHTTP serves the page, /healthz, /readyz and /v1/signal. On the last it
// returns soon after the WebSocket is there; the server serves it until it ends
// or Shutdown ends it.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	noteRequest(r)
	if !s.limited(w, r) {
		s.mux.ServeHTTP(w, r)
	}
}

var shutdownError = signaling.Error{Code: signaling.CodeShutdown, Message: "The server is shutting down; reconnect."}

// Stats is a snapshot of the server's load.
type Stats struct {
	Connections int // open WebSockets, those being set up included
	Rooms       int // rooms with members
	Members     int // those within the grace time included; not those at other servers

	Servers int // other servers of the cluster that are there
	Remote  int // members of the rooms here who are at other servers
}

// Stats returns the load of this moment.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{Connections: s.admitted, Rooms: len(s.rooms)}
	for _, room := range s.rooms {
		st.Members += room.Len()
	}
	if s.cluster != nil {
		st.Servers, st.Remote = len(s.cluster.servers), s.cluster.remote
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
		s.parking.close()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		s.mu.Lock()
		for _, c := range s.conns {
			c.wire.sever()
		}
		s.mu.Unlock()
		<-done
		return ctx.Err()
	}
}

// tick ends memberships whose grace time is over, until Shutdown.
func (s *Server) tick() {
	grace := s.cfg.Load().Grace
	ticker := time.NewTicker(tickInterval(grace))
	defer ticker.Stop()
	for {
		select {
		case <-s.closed:
			return
		case now := <-ticker.C:
			s.expire(now)
			if g := s.cfg.Load().Grace; g != grace {
				grace = g
				ticker.Reset(tickInterval(grace))
			}
		}
	}
}

// tickInterval is how often memberships are looked through for such a grace time.
func tickInterval(grace time.Duration) time.Duration {
	const finest, coarsest = 10 * time.Millisecond, time.Second
	return min(max(grace/8, finest), coarsest)
}

func (s *Server) expire(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.drain != nil {
		return // who is away has moved: the others must not see it go
	}
	for id := range s.waiting {
		room := s.rooms[id]
		for _, peer := range room.Tick(now) {
			s.broadcast(id, room, peer, signaling.MemberLeft{Peer: peer})
			s.cluster.left(id, peer)
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
		s.cluster.closed(id)
	case room.Waiting() > 0:
		s.waiting[id] = struct{}{}
	}
}

// tokenOf returns the resume token of a new membership: what the client brings, if that is as long as what the server would
// make, 128 random bits. So a client whose connection breaks before it hears that it has joined can prove who it is, and in a cluster
// one whose token is of a server that cannot be asked now.
func tokenOf(brought string) string {
	fresh := rand.Text()
	if len(brought) < len(fresh) {
		return fresh
	}
	return brought
}
