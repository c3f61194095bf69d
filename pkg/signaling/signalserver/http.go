package signalserver

import (
	"cmp"
	"errors"
	"io/fs"
	"net/http"
	"net/netip"
	"path"
	"slices"
	"strings"

	"github.com/coder/websocket"

	"github.com/crmesh/crmesh/pkg/signaling"
)

func (s *Server) routes() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /"+signaling.Path, s.signal)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { plain(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		stopping := s.stopping
		s.mu.Unlock()
		if stopping {
			plain(w, http.StatusServiceUnavailable, "shutting down")
			return
		}
		plain(w, http.StatusOK, "ready")
	})
	mux.Handle("GET /", page(s.cfg.Page))
	return mux
}

func plain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text + "\n")) // the client may be gone
}

// signal takes a WebSocket and serves it to its end.
func (s *Server) signal(w http.ResponseWriter, r *http.Request) {
	addr := clientAddress(r, s.cfg.TrustedProxies)
	if status, text := s.admit(addr); status != 0 {
		w.Header().Set("Retry-After", "5")
		plain(w, status, text)
		return
	}
	defer s.release(addr)
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		Subprotocols:       []string{signaling.Subprotocol},
		OriginPatterns:     s.cfg.AllowOrigin,
		InsecureSkipVerify: slices.Contains(s.cfg.AllowOrigin, "*"),
		CompressionMode:    websocket.CompressionDisabled,
	})
	if err != nil {
		s.log.Debug("no WebSocket", "error", err)
		return // Accept has answered
	}
	ws.SetReadLimit(-1) // read bounds frames itself, to send the reason first
	c := newConn(ws, &s.cfg, addr, r.Host)
	if ws.Subprotocol() != signaling.Subprotocol {
		c.fail(signaling.Error{Code: signaling.CodeSubprotocol, Message: "Ask for the WebSocket subprotocol " + signaling.Subprotocol + "."})
	}
	s.open(c)
	defer s.remove(c)
	s.serve(c)
}

// admit counts a connection in, or says why not. Each admission is given back
// by release, also when no WebSocket came of it.
func (s *Server) admit(addr netip.Prefix) (status int, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.stopping:
		return http.StatusServiceUnavailable, "The server is shutting down; try again in a moment."
	case s.admitted >= s.cfg.MaxConnections:
		return http.StatusServiceUnavailable, "The server has all the connections it may have; try again later."
	case s.perAddress[addr] >= s.cfg.MaxConnectionsPerAddress:
		return http.StatusTooManyRequests, "Too many connections from this address; close some or try again later."
	}
	s.admitted++
	s.perAddress[addr]++
	s.tasks.Add(1)
	return 0, ""
}

func (s *Server) release(addr netip.Prefix) {
	s.mu.Lock()
	s.admitted--
	if s.perAddress[addr]--; s.perAddress[addr] == 0 {
		delete(s.perAddress, addr)
	}
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

// page serves the files of the page; index.html for directories, and no
// listings.
func page(files fs.FS) http.Handler {
	if files == nil {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			plain(w, http.StatusNotFound, "This signaling server serves no page.")
		})
	}
	server := http.FileServerFS(files)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(path.Clean(r.URL.Path), "/")
		info, err := fs.Stat(files, cmp.Or(name, "."))
		if err == nil && info.IsDir() {
			_, err = fs.Stat(files, path.Join(name, "index.html"))
		}
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid) {
			plain(w, http.StatusNotFound, "There is no such page.")
			return
		}
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-cache")
		if strings.HasPrefix(name, "assets/") { // the build names these after their content
			h.Set("Cache-Control", "public, max-age=31536000, immutable")
		}
		server.ServeHTTP(w, r)
	})
}
