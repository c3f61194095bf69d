package signalserver

import (
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/coder/websocket"

	"github.com/crmesh/crmesh/pkg/signaling"
)

func (s *Server) routes() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /"+signaling.Path, s.signal)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { plain(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		stopping := s.stopping || s.drain != nil
		s.mu.Unlock()
		if stopping {
			plain(w, http.StatusServiceUnavailable, "shutting down")
			return
		}
		plain(w, http.StatusOK, "ready")
	})
	mux.Handle("GET /", page(s.cfg.Load().Page))
	return mux
}

func plain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text + "\n")) // the client may be gone
}

// signal takes a WebSocket. It stays for what comes at once, most likely a join,
// for which its stack is large enough by now. It does not wait for the end of
// the WebSocket: that would keep all that net/http needed for the request.
func (s *Server) signal(w http.ResponseWriter, r *http.Request) {
	addr := clientAddress(r, s.cfg.Load().TrustedProxies)
	if status, cause, text := s.admit(addr); status != 0 {
		s.metrics.refused(cause)
		s.refused(w)
		plain(w, status, text)
		return
	}
	c := s.accept(w, r, addr)
	if c == nil {
		s.release(addr)
		return
	}
	s.open(c)
	s.serve(c)
}

// accept answers the handshake. nil: there is no WebSocket, and the client
// knows why.
func (s *Server) accept(w http.ResponseWriter, r *http.Request, addr netip.Prefix) *conn {
	cfg := s.cfg.Load()
	wait, ok := s.attempt(addr)
	c := s.newConn(addr, r.Host)
	options := c.options()
	options.Subprotocols = []string{signaling.Subprotocol}
	options.OriginPatterns = cfg.AllowOrigin
	options.InsecureSkipVerify = slices.Contains(cfg.AllowOrigin, "*")
	var err error
	h := newHijacker(w, &c.wire)
	if h != nil {
		c.session, err = h.accept(r, options)
	} else {
		_, err = websocket.Accept(w, r, options) // which says that it cannot be
	}
	if err != nil {
		// Accept has answered. Its error may quote an address.
		cause := causeUpgrade
		if h != nil && h.status == http.StatusForbidden {
			cause = causeOrigin
		}
		s.metrics.refused(cause)
		s.log.Debug("no WebSocket", "cause", cause)
		return nil
	}
	if !ok {
		c.fail(signaling.Error{Code: signaling.CodeJoinRate, Message: "Too many attempts to join from this address; try again later.",
			RetryAfter: seconds(wait)})
	}
	if c.session.ws.Subprotocol() != signaling.Subprotocol {
		c.fail(signaling.Error{Code: signaling.CodeSubprotocol, Message: "Ask for the WebSocket subprotocol " + signaling.Subprotocol + "."})
	}
	return c
}

// admit counts a connection in, or says why not. Each admission is given back
// by release, also when no WebSocket came of it.
func (s *Server) admit(addr netip.Prefix) (status int, cause, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	cfg := s.cfg.Load()
	switch {
	case s.stopping || s.drain != nil:
		return http.StatusServiceUnavailable, causeShutdown, "The server is shutting down; try again in a moment."
	case s.admitted >= cfg.MaxConnections:
		return http.StatusServiceUnavailable, causeConnections, "The server has all the connections it may have; try again later."
	case s.perAddress[addr] >= cfg.MaxConnectionsPerAddress:
		return http.StatusTooManyRequests, causeAddressConnections, "Too many connections from this address; close some or try again later."
	}
	s.admitted++
	s.perAddress[addr]++
	s.tasks.Add(1)
	return 0, "", ""
}

// attempt counts an attempt to join, whatever becomes of it; !ok: it is one too many.
func (s *Server) attempt(addr netip.Prefix) (wait time.Duration, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.joins.take(time.Now(), addr)
}

func (s *Server) release(addr netip.Prefix) {
	s.mu.Lock()
	s.admitted--
	if s.perAddress[addr]--; s.perAddress[addr] == 0 {
		delete(s.perAddress, addr)
	}
	s.drain.released(s.admitted)
	s.mu.Unlock()
	s.tasks.Done()
}

// open makes c known. If the server began to shut down after c was admitted,
// c learns it here.
func (s *Server) open(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nextConn++
	c.id = s.nextConn
	s.conns[c.id] = c
	if s.stopping {
		c.fail(shutdownError)
	}
}

// remove forgets c; its member is in the grace time.
func (s *Server) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.detach(c)
	delete(s.conns, c.id)
}
