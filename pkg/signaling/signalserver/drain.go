package signalserver

import (
	"context"
	"net/http"
	"time"

	"github.com/crmesh/crmesh/pkg/signaling"
)

// MaxDrain bounds the time that Drain may be given: clients wait no longer.
const MaxDrain = time.Minute

// drainSlack is how much longer than they were told clients have to be gone.
const drainSlack = 500 * time.Millisecond

// drain is a server's last time. It belongs to the holder of Server.mu.
type drain struct {
	moving signaling.Moving
	gone   chan struct{} // closed with the last connection
	closed bool
}

// released notes that a connection has ended; admitted is how many are left.
func (d *drain) released(admitted int) {
	if d != nil && admitted == 0 && !d.closed {
		d.closed = true
		close(d.gone)
	}
}

// tell asks a client to move.
func (d *drain) tell(s *Server, c *conn) {
	if d != nil {
		s.send(c, d.moving)
	}
}

// Drain makes room for a successor on the same address: it refuses new
// connections, lets /readyz say so, tells all clients to reconnect at a random
// moment within that time (in whole seconds, at least one, at most MaxDrain),
// and announces none of those that go. It returns when the last has gone, a
// little after that time, or when ctx is done, whichever is first; Shutdown
// follows, and closes who is left. It is called once, before Shutdown, and
// after the listener is closed, so that whoever reconnects comes to the
// successor.
func (s *Server) Drain(ctx context.Context, within time.Duration) {
	within = min(max(within.Round(time.Second), time.Second), MaxDrain)
	s.mu.Lock()
	if s.drain != nil || s.stopping {
		s.mu.Unlock()
		return
	}
	d := &drain{moving: signaling.Moving{Within: int(within / time.Second)}, gone: make(chan struct{})}
	s.drain = d
	d.released(s.admitted)
	for _, c := range s.conns {
		if c.hasJoined { // the others are told after their joined
			d.tell(s, c)
		}
	}
	s.mu.Unlock()

	ctx, cancel := context.WithTimeout(ctx, within+drainSlack)
	defer cancel()
	select {
	case <-d.gone:
	case <-ctx.Done():
	}
}

// refused tells a client that gets no WebSocket when to come again: at once
// when a successor waits, and over a connection of its own, since this one
// ends here.
func (s *Server) refused(w http.ResponseWriter) {
	s.mu.Lock()
	draining := s.drain != nil
	s.mu.Unlock()
	if draining {
		w.Header().Set("Retry-After", "0")
		w.Header().Set("Connection", "close")
		return
	}
	w.Header().Set("Retry-After", "5")
}
