package signalserver

import "weak"

// Parked returns how many connections have neither a goroutine nor a WebSocket of the library's, and whose socket sleeps.
func (s *Server) Parked() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		c.mu.Lock()
		if c.parked && c.session == nil && c.wire.low.sleeps() {
			n++
		}
		c.mu.Unlock()
	}
	return n
}

// Sessions returns a function that counts those of the sessions of this moment whose memory is still taken.
func (s *Server) Sessions() (left func() int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []weak.Pointer[session]
	for _, c := range s.conns {
		c.mu.Lock()
		if c.session != nil {
			all = append(all, weak.Make(c.session))
		}
		c.mu.Unlock()
	}
	return func() (n int) {
		for _, p := range all {
			if p.Value() != nil {
				n++
			}
		}
		return n
	}
}

// Queued returns the bytes in the send queues of all connections.
func (s *Server) Queued() int64 { return s.queued.Load() }

// LingerTurn is the most that is read from a connection that has to end, in one turn, and LingerPause the time between two turns.
const (
	LingerTurn  = inSize + lingerPiece
	LingerPause = lingerPause
)
