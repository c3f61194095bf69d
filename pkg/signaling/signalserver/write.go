package signalserver

import (
	"context"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/crmesh/crmesh/pkg/signaling"
)

// writeTimeout bounds one write to a connection. A connection that takes none
// of a frame for so long is broken.
const writeTimeout = 5 * time.Second

// goodbyeTimeout bounds what is still sent to a connection that has to end.
const goodbyeTimeout = 5 * time.Second

// write sends what is queued, and returns when there is no more. At the end it
// says why, closes, and the reader ends, too.
func (c *conn) write() {
	for {
		f, more, ended := c.next()
		switch {
		case ended:
			c.goodbye()
			return
		case !more:
			return
		}
		if err := c.writeFrame(f, time.Now().Add(writeTimeout)); err != nil {
			c.broken()
			return
		}
	}
}

// broken ends a connection that cannot be written to.
func (c *conn) broken() {
	c.finish()
	c.mu.Lock()
	c.server.metrics.drops.Add(float64(c.queue.drop()))
	ws := c.session
	c.mu.Unlock()
	if ws != nil {
		_ = ws.ws.CloseNow()
	}
	c.wire.sever()
}

// hereMost is the longest frame that a goroutine of another connection writes.
const hereMost = 4 << 10

// writeHere is write in the goroutine of another connection, for one short
// frame, as far as the socket takes it at once. Whatever else there is to do it
// leaves to write.
func (c *conn) writeHere() {
	defer c.own.Done()
	c.mu.Lock()
	if !c.ended && len(c.queue.frames) == 1 && len(c.queue.frames[0].frame) <= hereMost {
		f, _ := c.queue.pop()
		c.mu.Unlock()
		if !c.begin(f) {
			return // the writer goes on
		}
		c.mu.Lock()
	}
	defer c.mu.Unlock()
	if !c.ended && len(c.queue.frames) == 0 {
		c.writing = false
		return
	}
	c.own.Go(c.write)
}

// begin writes a frame of the queue if that can be done without waiting. If
// not, it starts the writer for it, and returns false.
func (c *conn) begin(f outgoing) bool {
	buf := outFrames.Get().(*[]byte)
	frame := appendFrame((*buf)[:0], f.frame)
	n, err := c.wire.begin(frame)
	if n == len(frame) {
		keep(buf, frame)
		_ = c.sent(f, nil)
		return true
	}
	c.own.Go(func() {
		until := time.Now().Add(writeTimeout)
		switch {
		case err != nil:
		case n > 0:
			err = c.wire.finish(frame[n:], until)
		default:
			err = c.wire.writeUntil(frame, until)
		}
		keep(buf, frame)
		if c.sent(f, err) != nil {
			c.broken()
			return
		}
		c.write()
	})
	return false
}

// outFrames has buffers for frames of queues, as they are on the wire.
var outFrames = sync.Pool{New: func() any { return new([]byte) }}

// keep gives a buffer back, unless it has become large.
func keep(buf *[]byte, grown []byte) {
	if cap(grown) <= outKept {
		*buf = grown
		outFrames.Put(buf)
	}
}

// next takes the next frame to be written, unless there is none, in which case
// write has to return, or the connection is to end.
func (c *conn) next() (f outgoing, more, ended bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return f, false, true
	}
	f, more = c.queue.pop()
	if c.writing = more; !more {
		c.sleepOn()
	}
	return f, more, false
}

// goodbye sends the reason of the end and the close frame. It is bounded:
// goodbyeTimeout for what is queued and the reason, about as long twice for
// the closing handshake.
func (c *conn) goodbye() {
	defer c.wire.sever()
	ws, err := c.websocket()
	if err != nil {
		return
	}
	code, reason := websocket.StatusNormalClosure, "leave"
	if e := c.verdict; e != nil {
		code, reason = websocket.StatusCode(e.Code.Close()), string(e.Code)
		ctx, cancel := context.WithTimeout(context.Background(), goodbyeTimeout)
		defer cancel()
		frame, err := signaling.MarshalMessage(*e)
		if err != nil || c.drain(time.Now().Add(goodbyeTimeout)) != nil || ws.Write(ctx, websocket.MessageText, frame) != nil {
			return
		}
		c.server.metrics.wrote(outgoing{frame: frame})
	}
	_ = ws.Close(code, reason) // the peer may be gone, that is no error here
}

// drain sends the rest of the queue. That of a peer that does not read is
// empty.
func (c *conn) drain(until time.Time) error {
	for {
		c.mu.Lock()
		f, more := c.queue.pop()
		c.mu.Unlock()
		if !more {
			return nil
		}
		if err := c.writeFrame(f, until); err != nil {
			return err
		}
	}
}

// writeFrame writes a frame of the queue, by itself: the library would need a
// WebSocket for it, which a parked connection has not, and a timer.
func (c *conn) writeFrame(f outgoing, until time.Time) error {
	buf := outFrames.Get().(*[]byte)
	frame := appendFrame((*buf)[:0], f.frame)
	err := c.wire.writeUntil(frame, until)
	keep(buf, frame)
	return c.sent(f, err)
}

// sent follows the write of a frame of the queue.
func (c *conn) sent(f outgoing, err error) error {
	c.mu.Lock()
	c.queue.sent(f)
	c.mu.Unlock()
	if err != nil {
		c.server.metrics.drops.Inc()
		return err
	}
	c.server.metrics.wrote(f)
	return nil
}
