package signalserver

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// requestDelay is how long the answer to a request above the rate of its
// address is held back: who asks too often gets one refusal a second on each
// of its sockets, and no more of the server's time.
const requestDelay = time.Second

// requestsPerJoin is how many requests an address may make for each attempt to
// join that it may make, at least: one for the connection, one for the
// WebSocket, and some for the page.
const requestsPerJoin = 4

// sockets counts what is no WebSocket, or not yet one: TCP connections, of
// which most ask for something soon and some never, and the requests on them.
type sockets struct {
	mu         sync.Mutex // guards the following
	open       int
	perAddress map[netip.Prefix]int
	requests   addressLimit
}

// Listener returns l with the limits for sockets. An http.Server that serves s
// should listen on nothing else; TLS goes around it, so that what has not
// finished its handshake counts, too. A socket above a limit is closed at
// once, without a word. Closing the Listener closes l.
func (s *Server) Listener(l net.Listener) net.Listener { return &listener{l, s} }

type listener struct {
	net.Listener
	server *Server
}

// Accept waits for a socket within the limits.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if counted, cause := l.server.count(c); cause == "" {
			return counted, nil
		} else {
			l.server.metrics.refused(cause)
			_ = c.Close()
		}
	}
}

// count counts a socket in, or says why not. Proxies that are trusted, and who
// comes by a Unix socket, are bounded in all only: they speak for many.
func (s *Server) count(c net.Conn) (*socket, string) {
	below, ok := c.(stream)
	if !ok {
		below = strange{c}
	}
	cfg := s.cfg.Load()
	var addr netip.Prefix
	if remote, ok := c.RemoteAddr().(*net.TCPAddr); ok && !isTrusted(remote.AddrPort().Addr().Unmap(), cfg.TrustedProxies) {
		addr = prefixOf(remote.AddrPort().Addr().Unmap())
	}
	k := &s.sockets
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.open >= cfg.MaxSockets {
		return nil, causeSockets
	}
	if addr.IsValid() {
		if k.perAddress[addr] >= max(cfg.MaxSocketsPerAddress, cfg.JoinBurst) {
			return nil, causeAddressSockets
		}
		if _, ok := k.requests.take(time.Now(), addr); !ok {
			return nil, causeRequests
		}
		k.perAddress[addr]++
	}
	k.open++
	return &socket{line: line{conn: below}, sockets: k, addr: addr, metrics: s.metrics}, ""
}

// socket is a TCP connection that counts until it is closed or a WebSocket.
type socket struct {
	line
	sockets *sockets     // nil: it does not count any more
	addr    netip.Prefix // invalid: counts in all only

	asked   atomic.Bool // a request has come, or did not in time
	metrics *metrics
}

// ConnContext is for the field of that name of the http.Server that serves s on
// its Listener: so the sockets are counted that were closed because no request
// came on them in time.
func (s *Server) ConnContext(ctx context.Context, c net.Conn) context.Context {
	if k := socketOf(c); k != nil {
		return context.WithValue(ctx, socketKey{}, k)
	}
	return ctx
}

type socketKey struct{}

// noteRequest notes that a request has come on its socket.
func noteRequest(r *http.Request) {
	if k, ok := r.Context().Value(socketKey{}).(*socket); ok {
		k.asked.Store(true)
	}
}

// socketOf returns the socket below a connection, or nil.
func socketOf(c net.Conn) *socket {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	k, _ := c.(*socket)
	return k
}

// Read implements net.Conn.
func (c *socket) Read(p []byte) (int, error) {
	n, err := c.line.Read(p)
	if err != nil && errors.Is(err, os.ErrDeadlineExceeded) && !c.asked.Swap(true) {
		c.metrics.refused(causeTimeout)
	}
	return n, err
}

// Close closes the connection.
func (c *socket) Close() error {
	c.release()
	return c.line.Close()
}

// CloseWrite ends what is sent, if the connection can do that; http.Server
// does so before it closes one whose request it has not read to the end.
func (c *socket) CloseWrite() error {
	if s, _, err := c.awake(); err == nil {
		if w, ok := s.(interface{ CloseWrite() error }); ok {
			return w.CloseWrite()
		}
	}
	return nil
}

// strange is a connection that is no socket of the system.
type strange struct{ net.Conn }

// SyscallConn implements syscall.Conn.
func (strange) SyscallConn() (syscall.RawConn, error) { return nil, errors.ErrUnsupported }

// setRates takes the rates of a configuration over.
func (k *sockets) setRates(cfg *Config) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.requests.rate = max(cfg.RequestRate, requestsPerJoin*cfg.JoinRate)
	k.requests.burst = max(cfg.RequestBurst, requestsPerJoin*cfg.JoinBurst)
}

// release stops counting the socket.
func (c *socket) release() {
	c.mu.Lock()
	k := c.sockets
	c.sockets = nil
	c.mu.Unlock()
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.open--
	if c.addr.IsValid() {
		if k.perAddress[c.addr]--; k.perAddress[c.addr] == 0 {
			delete(k.perAddress, c.addr)
		}
	}
}

// upgraded notes that the socket is a WebSocket now, which counts as such, and
// returns what is below it.
func (c *socket) upgraded() stream {
	c.release()
	c.mu.Lock()
	defer c.mu.Unlock()
	if t, ok := c.conn.(*net.TCPConn); ok { // what does not fit waits in our queue, which is bounded, or at the sender's
		_ = t.SetWriteBuffer(socketBuffer)
		_ = t.SetReadBuffer(socketBuffer)
	}
	return c.conn
}

// socketBuffer bounds what the kernel keeps for a WebSocket in each direction,
// in bytes; Linux takes twice that. By itself it would be megabytes.
const socketBuffer = 64 << 10

// limited tells whether a request is one too many of its address; then it has
// been answered, late.
func (s *Server) limited(w http.ResponseWriter, r *http.Request) bool {
	k := &s.sockets
	k.mu.Lock()
	wait, ok := k.requests.take(time.Now(), clientAddress(r, s.cfg.Load().TrustedProxies))
	k.mu.Unlock()
	if ok {
		return false
	}
	s.metrics.refused(causeRequests)
	delay := time.NewTimer(requestDelay)
	defer delay.Stop()
	select {
	case <-delay.C:
	case <-r.Context().Done():
	case <-s.closed:
	}
	h := w.Header()
	h.Set("Retry-After", retrySeconds(wait))
	h.Set("Connection", "close")
	plain(w, http.StatusTooManyRequests, "Too many requests from this address; try again later.")
	return true
}
