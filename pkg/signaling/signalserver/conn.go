package signalserver

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/crmesh/crmesh/pkg/signaling"
)

// writeTimeout bounds one write to a connection. A connection that takes none
// of a frame for so long is broken.
const writeTimeout = 5 * time.Second

// goodbyeTimeout bounds what is still sent to a connection that has to end.
const goodbyeTimeout = 5 * time.Second

// conn is one WebSocket. Three goroutines serve it: the handler of the HTTP
// request reads, and owns the other two; one writes; one watches the clock.
type conn struct {
	id   signaling.ConnID
	ws   *websocket.Conn
	addr netip.Prefix
	host string // Host header of the request
	cfg  *Config

	bucket bucket // owned by read

	// guarded by Server.mu
	hasJoined bool
	room      signaling.RoomID

	joined chan struct{} // closed at the join
	queue  chan []byte   // frames for write; full: slow
	queued atomic.Int64  // bytes in queue

	once    sync.Once
	stop    chan struct{}    // closed once the connection is to end
	verdict *signaling.Error // why; nil: normal end. Written before stop is closed

	ctx   context.Context // of all reads and writes
	abort context.CancelFunc
}

func newConn(ws *websocket.Conn, cfg *Config, addr netip.Prefix, host string) *conn {
	ctx, abort := context.WithCancel(context.Background())
	return &conn{
		ctx: ctx, abort: abort, ws: ws, cfg: cfg, addr: addr, host: host,
		joined: make(chan struct{}),
		queue:  make(chan []byte, cfg.SendQueue),
		stop:   make(chan struct{}),
	}
}

// fail lets the writer say goodbye with an error, then close. Only the first
// of fail and finish counts. It does not block.
func (c *conn) fail(e signaling.Error) {
	c.once.Do(func() {
		c.verdict = &e
		close(c.stop)
	})
}

// finish lets the writer close without an error.
func (c *conn) finish() { c.once.Do(func() { close(c.stop) }) }

// enqueue hands a frame to the writer; false means the queue is full. After
// the end it takes and forgets everything.
func (c *conn) enqueue(frame []byte) bool {
	select {
	case <-c.stop:
		return true
	default:
	}
	if c.queued.Add(int64(len(frame))) > int64(c.cfg.SendQueueBytes) {
		return false
	}
	select {
	case c.queue <- frame:
		return true
	default:
		return false
	}
}

// serve runs the connection until it has ended and nothing of it is left.
func (s *Server) serve(c *conn) {
	var own sync.WaitGroup
	own.Go(c.write)
	own.Go(func() { s.watch(c) })
	s.read(c)
	c.finish()
	own.Wait()
	c.abort()
}

// read handles frames until the WebSocket is closed. After the end of the
// conversation it goes on reading, without looking, so that the peer gets the
// goodbye; the writer bounds that time.
func (s *Server) read(c *conn) {
	for {
		typ, r, err := c.ws.Reader(c.ctx)
		if err != nil {
			return
		}
		select {
		case <-c.stop:
			if _, err := io.Copy(io.Discard, r); err != nil {
				return
			}
			continue
		default:
		}
		frame, err := io.ReadAll(io.LimitReader(r, signaling.MaxClientFrame+1))
		if err != nil {
			return
		}
		if e := s.handle(c, typ, frame); e != nil {
			s.mu.Lock()
			s.end(c, *e)
			s.mu.Unlock()
			s.log.Debug("connection refused a frame", "conn", c.id, "code", e.Code)
		}
		if len(frame) > signaling.MaxClientFrame {
			if _, err := io.Copy(io.Discard, r); err != nil {
				return
			}
		}
	}
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
	if wait, ok := c.bucket.take(time.Now(), c.cfg.MessageRate, c.cfg.MessageBurst); !ok {
		return &signaling.Error{Code: signaling.CodeRate, Message: "Too many messages; reconnect later.", RetryAfter: seconds(wait)}
	}
	m, err := signaling.ParseClientMessage(frame)
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
		s.send(c, signaling.Pong{})
		s.mu.Unlock()
	}
	return nil
}

// write sends what is queued. At the end it says why, closes, and the reader
// ends, too.
func (c *conn) write() {
	defer func() { _ = c.ws.CloseNow() }()
	for {
		select {
		case <-c.stop:
			c.goodbye()
			return
		case frame := <-c.queue:
			if c.writeFrame(frame) != nil {
				c.finish()
				return
			}
			c.queued.Add(-int64(len(frame)))
		}
	}
}

// goodbye sends the reason of the end and the close frame. It is bounded:
// goodbyeTimeout for what is queued and the reason, about as long twice for
// the closing handshake.
func (c *conn) goodbye() {
	code, reason := websocket.StatusNormalClosure, "leave"
	if e := c.verdict; e != nil {
		code, reason = websocket.StatusCode(e.Code.Close()), string(e.Code)
		ctx, cancel := context.WithTimeout(c.ctx, goodbyeTimeout)
		defer cancel()
		frame, err := signaling.MarshalMessage(*e)
		if err != nil || c.drain(ctx) != nil || c.ws.Write(ctx, websocket.MessageText, frame) != nil {
			return
		}
	}
	_ = c.ws.Close(code, reason) // the peer may be gone, that is no error here
}

// drain sends the rest of the queue, except to a peer that does not read.
func (c *conn) drain(ctx context.Context) error {
	if c.verdict.Code == signaling.CodeSlow {
		return nil
	}
	for {
		select {
		case frame := <-c.queue:
			if err := c.ws.Write(ctx, websocket.MessageText, frame); err != nil {
				return err
			}
		default:
			return nil
		}
	}
}

func (c *conn) writeFrame(frame []byte) error {
	ctx, cancel := context.WithTimeout(c.ctx, writeTimeout)
	defer cancel()
	return c.ws.Write(ctx, websocket.MessageText, frame)
}

// watch ends a connection that does not join in time, or does not answer
// pings.
func (s *Server) watch(c *conn) {
	join := time.NewTimer(c.cfg.JoinTimeout)
	defer join.Stop()
	ping := time.NewTicker(c.cfg.IdleTimeout / 3)
	defer ping.Stop()
	joined := c.joined
	for {
		idle := ""
		select {
		case <-c.stop:
			return
		case <-joined:
			join.Stop()
			joined = nil
		case <-join.C:
			idle = "No join came in time; reconnect and join."
		case <-ping.C:
			ctx, cancel := context.WithTimeout(c.ctx, c.cfg.IdleTimeout*2/3)
			if c.ws.Ping(ctx) != nil {
				idle = "No answer to pings came in time; reconnect."
			}
			cancel()
		}
		if idle != "" {
			s.mu.Lock()
			s.end(c, signaling.Error{Code: signaling.CodeIdle, Message: idle})
			s.mu.Unlock()
			return
		}
	}
}
