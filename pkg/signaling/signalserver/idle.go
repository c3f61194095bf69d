package signalserver

import (
	"context"

	"github.com/coder/websocket"
)

// atRest tells whether all that came has been looked at, and the connection is
// not to end. Only c's reader may ask, between frames.
func (c *conn) atRest() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	// After the end the writer reads, too.
	return !c.ended && !c.wire.unread() && (c.session == nil || c.session.br.Buffered() == 0)
}

// options are those of each WebSocket of c. While c reads, what comes after a
// ping or pong may be read elsewhere.
func (c *conn) options() *websocket.AcceptOptions {
	rest := func() {
		if c.atRest() {
			c.wire.restNext()
		}
	}
	return &websocket.AcceptOptions{
		CompressionMode: websocket.CompressionDisabled,
		OnPingReceived:  func(context.Context, []byte) bool { rest(); return true },
		OnPongReceived:  func(context.Context, []byte) { c.answered(); rest() },
	}
}

// websocket returns the library's WebSocket, a new one if the last was let go.
// It stays while c is not parked.
func (c *conn) websocket() (*websocket.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session == nil {
		s, err := resume(&c.wire, c.options())
		if err != nil {
			return nil, err
		}
		c.session = s
	}
	return c.session.ws, nil
}

// park tells whether read is to return, and from now on the server watches the
// socket. Only c's reader may call it, between frames.
func (c *conn) park() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended || !c.wire.writes.TryLock() { // who writes may have to wait
		return false
	}
	defer c.wire.writes.Unlock()
	if !c.server.parking.watch(c) {
		return false
	}
	if c.session != nil {
		c.session.leave()
		c.session = nil
	}
	c.parked = true
	return true
}

// sleepOn puts the socket of a parked connection to sleep again, if a write had
// to wait. c.mu is held.
func (c *conn) sleepOn() {
	if c.parked && !c.wire.low.sleeps() && c.wire.writes.TryLock() {
		watched := c.server.parking.watch(c)
		c.wire.writes.Unlock()
		if !watched {
			c.unpark()
		}
	}
}

// unpark lets read go on. c.mu is held.
func (c *conn) unpark() {
	if c.parked {
		c.parked = false
		go c.server.read(c, ready) // ends with the connection, which Shutdown waits for, or parks again
	}
}

// resume follows an event on the socket of c.
func (s *Server) resume(c *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.parked {
		return
	}
	// Whatever TLS does with what comes, it may have to write, and so to wait.
	if c.wire.other == nil && c.still() && c.wire.writes.TryLock() {
		watched := s.parking.watch(c)
		c.wire.writes.Unlock()
		if watched {
			return
		}
	}
	c.unpark()
}

// still tells whether all that came on a connection without a session was the
// answer to a ping, or nothing. It takes that, for it is what idle connections
// do. c.mu is held.
func (c *conn) still() bool {
	pong, none := c.wire.quiet()
	if pong {
		c.heard()
	}
	return pong || none
}

// undisturbed is still for c's reader. Nobody waits for it, since TLS may have
// to write before it goes on.
func (c *conn) undisturbed() bool {
	c.mu.Lock()
	mine := c.session == nil && !c.ended
	c.mu.Unlock()
	if !mine {
		return false
	}
	pong, none := c.wire.quiet()
	if pong {
		c.answered()
	}
	return pong || none
}
