package signalserver

import (
	"sync/atomic"
	"time"

	"github.com/crmesh/crmesh/pkg/signaling"
)

// outgoing is a frame on its way to a client.
type outgoing struct {
	frame    []byte
	received time.Time // when the envelope in it had been read; zero: it is not one
}

// queue is what waits to be sent on one connection. It takes memory while
// something waits, and none when it is empty. It belongs to the holder of
// conn.mu.
type queue struct {
	frames []outgoing
	bytes  int           // of frames, and of the one that is being written
	total  *atomic.Int64 // bytes in the queues of all connections
}

// push appends a frame; false means that it would break a bound.
func (q *queue) push(f outgoing, cfg *Config) bool {
	n := len(f.frame)
	if len(q.frames) >= cfg.SendQueue || q.bytes+n > cfg.SendQueueBytes {
		return false
	}
	if q.total.Add(int64(n)) > int64(cfg.MaxQueuedBytes) {
		q.total.Add(-int64(n))
		return false
	}
	q.bytes += n
	q.frames = append(q.frames, f)
	return true
}

// pop takes the oldest frame. It counts until sent is called.
func (q *queue) pop() (outgoing, bool) {
	if len(q.frames) == 0 {
		return outgoing{}, false
	}
	f := q.frames[0]
	q.frames[0] = outgoing{}
	if q.frames = q.frames[1:]; len(q.frames) == 0 {
		q.frames = nil
	}
	return f, true
}

// sent tells that a frame of pop has left memory, written or not.
func (q *queue) sent(f outgoing) {
	q.bytes -= len(f.frame)
	q.total.Add(-int64(len(f.frame)))
}

// drop forgets all frames and returns how many there were.
func (q *queue) drop() int {
	n := 0
	for f, ok := q.pop(); ok; f, ok = q.pop() {
		q.sent(f)
		n++
	}
	return n
}

var slowError = signaling.Error{Code: signaling.CodeSlow, Message: "This connection does not read what is sent to it; reconnect."}

// relieve makes place for n more bytes in the queues of all connections, if
// they are full: those for which most waits are ended as slow. s.mu is held.
func (s *Server) relieve(n int) {
	for s.queued.Load()+int64(n) > int64(s.cfg.Load().MaxQueuedBytes) {
		var largest *conn
		most := 0
		for _, c := range s.conns {
			if waiting := c.waiting(); waiting > most {
				largest, most = c, waiting
			}
		}
		if largest == nil {
			return // all that counts is being written: push refuses
		}
		s.end(largest, slowError)
	}
}
