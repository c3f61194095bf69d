package signalserver

// Watched returns how many connections the server would call when something happens on their sockets.
func (s *Server) Watched() (n int) {
	s.parking.mu.Lock()
	defer s.parking.mu.Unlock()
	for _, c := range s.parking.conns {
		if c != nil {
			n++
		}
	}
	return n
}
