package signalserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/crmesh/crmesh/pkg/signaling"
)

// conn is one WebSocket. While nothing happens on it, it is parked: no
// goroutine is its own, and the server watches the socket, which is all that
// there is besides conn. A frame that comes and what is to be sent have a
// goroutine while they last.
type conn struct {
	id     signaling.ConnID
	wire   wire
	addr   netip.Prefix
	server *Server
	name   uint64 // in the log, see logOf

	host   string  // Host header of the request, until it has joined; owned by read
	bucket bucket  // owned by read
	onward []*conn // owned by read: where it is to write what it queued

	// guarded by Server.mu
	hasJoined bool
	room      signaling.RoomID

	// guarded by the lock of Server.alarms
	due   time.Duration
	place int32

	own sync.WaitGroup // writers and a ping; after the end none begins

	mu       sync.Mutex // guards the following; Server.mu may be held
	queue    queue
	writing  bool             // write runs, or has said goodbye
	ended    bool             // the connection is to end
	parked   bool             // read has returned, and is to be called when something happens
	asked    bool             // a ping went out, and no pong came yet
	verdict  *signaling.Error // why it ends; nil: normal end
	session  *session         // nil: let go, see websocket
	joinBy   time.Duration    // since epoch; 0 once joined
	nextPing time.Duration    // likewise: when to ping, or to give up waiting for the answer
}

func (s *Server) newConn(addr netip.Prefix, host string) *conn {
	c := &conn{
		addr: addr, host: strings.Clone(host), // a part of the request would keep all of it
		name: rand.Uint64(), server: s, queue: queue{total: &s.queued},
	}
	c.wire.guard.server = s
	return c
}

// fail lets the writer say goodbye with an error, then close. Only the first
// of fail and finish counts. It does not block.
func (c *conn) fail(e signaling.Error) { c.end(&e) }

// finish lets the writer close without an error.
func (c *conn) finish() { c.end(nil) }

func (c *conn) end(verdict *signaling.Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return
	}
	c.ended, c.verdict = true, verdict
	c.wire.guard.ending.Store(true)
	c.server.alarms.remove(c)
	if verdict != nil && verdict.Code == signaling.CodeSlow {
		c.server.metrics.drops.Add(float64(c.queue.drop()))
	}
	c.wake()
	c.unpark()
}

// wake starts the writer if there is none. c.mu is held.
func (c *conn) wake() {
	if !c.writing {
		c.writing = true
		c.own.Go(c.write)
	}
}

// enqueue hands a frame to the writer; !ok means the queue is full. After the
// end it takes and forgets everything. idle: there was no writer, and none was
// started, as the caller wants to call writeHere.
func (c *conn) enqueue(f outgoing, here bool) (ok, idle bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return true, false
	}
	if !c.queue.push(f, c.server.cfg.Load()) {
		return false, false
	}
	if here && !c.writing {
		c.writing = true
		c.own.Add(1)
		return true, true
	}
	c.wake()
	return true, false
}

// waiting returns the bytes that can be dropped, 0 if the end has begun.
func (c *conn) waiting() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		for _, f := range c.queue.frames {
			n += len(f.frame)
		}
	}
	return n
}

// hasEnded tells whether the connection is to end.
func (c *conn) hasEnded() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ended
}

// serve starts the clocks of c and reads from it, until read goes on elsewhere.
func (s *Server) serve(c *conn) {
	c.mu.Lock()
	if !c.ended {
		cfg, now := s.cfg.Load(), sinceEpoch()
		c.joinBy, c.nextPing = now+cfg.JoinTimeout, now+cfg.IdleTimeout/3
		c.setAlarm()
	}
	c.mu.Unlock()
	s.read(c, requested)
}

// read handles frames until the WebSocket is closed. After the end of the
// conversation it goes on reading, without looking, so that the peer gets the
// goodbye; the writer bounds that time.
//
// It returns, and the connection is parked, when it has waited for the next
// frame for a while. Where that cannot be another goroutine waits on, since its
// own stack has grown and would stay large, unless frames come one soon after
// the other.
func (s *Server) read(c *conn, why reason) {
	parked, elsewhere := false, false
	defer func() {
		if p := recover(); p != nil { // one connection's misfortune, as in net/http
			s.log.Error("a connection was given up; please report this", "panic", p, "stack", string(debug.Stack()))
		}
		switch {
		case parked:
		case elsewhere:
			go s.read(c, again) // ends with the connection, which Shutdown waits for
		default:
			s.over(c)
		}
	}()
	if why == ready && c.undisturbed() {
		if parked = c.park(); parked {
			return
		}
	}
	began := time.Now()
	last := began
	for grown := false; !elsewhere; grown = true {
		for within := c.restTime(why, grown); c.atRest() && !c.wire.rest(within); {
			if parked = c.park(); parked {
				return
			}
			if elsewhere = grown && s.parking == nil; elsewhere {
				return
			}
		}
		if err := s.readFrame(c); err != nil && !errors.Is(err, errRest) {
			return
		}
		now := time.Now()
		elsewhere = why == requested && now.Sub(began) > soon ||
			c.wire.low == nil && (why == requested || now.Sub(last) > soon && c.atRest()) // the library waits
		last = now
	}
}

// reason is why read is called: the connection is new, and the goroutine that
// of its request; something has come; or another goroutine read before.
type reason int

const (
	requested reason = iota
	ready
	again
)

// soon is the time between frames that are worth a large stack, and
// soonRequested that between frames that are worth what a request takes, too.
const (
	soon          = time.Second
	soonRequested = soon / 4
)

// restTime is how long read waits for a frame before the connection is parked,
// or another goroutine waits on; 0: as long as it takes.
func (c *conn) restTime(why reason, grown bool) time.Duration {
	within := c.server.cfg.Load().IdleTimeout / 6
	switch {
	case c.server.parking == nil && !grown:
		return 0
	case why == requested:
		return min(soonRequested, within)
	}
	return min(soon, within)
}

// over cleans up after the last read.
func (s *Server) over(c *conn) {
	c.finish()
	c.own.Wait()
	s.metrics.ended(c.verdict)
	s.debug(c, "connection ended", "why", c.why())
	s.parking.remove(c)
	s.remove(c)
	s.release(c.addr)
}

// frames has buffers for frames of clients, none of which outlives its
// handling.
var frames = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// readFrame waits for a frame and handles it. errRest: none has begun.
func (s *Server) readFrame(c *conn) error {
	ws, err := c.websocket()
	if err != nil {
		return err
	}
	typ, r, err := ws.Reader(context.Background()) // sever ends it
	if err != nil {
		return s.unreadable(c, err)
	}
	if c.hasEnded() {
		_, err := io.Copy(io.Discard, r)
		return err
	}
	buf := frames.Get().(*bytes.Buffer)
	defer frames.Put(buf)
	buf.Reset()
	if _, err := buf.ReadFrom(io.LimitReader(r, signaling.MaxClientFrame+1)); err != nil {
		return s.unreadable(c, err)
	}
	frame := buf.Bytes()
	s.metrics.received.Add(float64(len(frame)))
	if e := s.handle(c, typ, frame); e != nil {
		s.mu.Lock()
		s.end(c, *e)
		s.mu.Unlock()
	}
	if len(frame) > signaling.MaxClientFrame {
		_, err = io.Copy(io.Discard, r)
	}
	return err
}

// handle does what one frame asks for, and returns the error that ends the
// connection.
func (s *Server) handle(c *conn, typ websocket.MessageType, frame []byte) *signaling.Error {
	if len(frame) > signaling.MaxClientFrame {
		return &signaling.Error{Code: signaling.CodeTooLarge, Message: "A frame has at most 65536 bytes."}
	}
	if typ != websocket.MessageText {
		return &signaling.Error{Code: signaling.CodeBinary, Message: "Frames are JSON text, not binary."}
	}
	cfg := c.server.cfg.Load()
	if wait, ok := c.bucket.take(time.Now(), cfg.MessageRate, cfg.MessageBurst, 1+len(frame)/messageUnit); !ok {
		return &signaling.Error{Code: signaling.CodeRate, Message: "Too many messages, or too large ones; reconnect later.", RetryAfter: seconds(wait)}
	}
	defer func() { // also when something panics: a writer must come to an end
		all := c.onward
		c.onward = nil
		for _, to := range all {
			to.writeHere()
		}
	}()
	m, err := s.parse(frame)
	switch {
	case errors.Is(err, signaling.ErrUnknownType):
		return nil
	case errors.Is(err, signaling.ErrBadUTF8):
		return &signaling.Error{Code: signaling.CodeBadUTF8, Message: "The frame is not UTF-8."}
	case err != nil:
		return &signaling.Error{Code: signaling.CodeBadMessage, Message: err.Error()}
	}
	switch m := m.(type) {
	case signaling.Join:
		s.join(c, m)
	case signaling.SignalTo:
		s.forward(c, m)
	case signaling.Leave:
		s.leave(c)
	case signaling.Ping:
		s.mu.Lock()
		s.reply(c, signaling.Pong{})
		s.mu.Unlock()
	}
	return nil
}

// logOf is the log of a connection, made anew each time. c's name in there is random: it tells lines of one connection from
// others and nothing else. Only c's reader may call it.
func (s *Server) logOf(c *conn) *slog.Logger {
	log := s.log.With("conn", fmt.Sprintf("%016x", c.name))
	if !s.cfg.Load().LogAddresses {
		return log
	}
	if c.addr.IsSingleIP() {
		log = log.With("addr", c.addr.Addr().String())
	} else {
		log = log.With("addr", c.addr.String())
	}
	if c.hasJoined { // which c's reader alone sets
		log = log.With("room", c.room.String())
	}
	return log
}

// debug logs about a connection on the level where most is, which costs nothing while that is off. Only c's reader may call it.
func (s *Server) debug(c *conn, msg string, args ...any) {
	if s.log.Enabled(context.Background(), slog.LevelDebug) {
		s.logOf(c).Debug(msg, args...)
	}
}

// why says how the connection ended, once it has.
func (c *conn) why() string {
	if c.verdict == nil {
		return "closed"
	}
	return string(c.verdict.Code)
}
