package mesh

import (
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
	"github.com/crmesh/crmesh/pkg/signaling"
)

// Bounds of a channel.
const (
	// highWater is how many bytes may wait inside the transport before the next frame waits here, where a ping can still
	// get past it; lowWater is where sending goes on.
	highWater = 512 << 10
	lowWater  = 256 << 10
	// maxQueued bounds the messages that wait to be sent on one channel. The core has at most a window of changes in
	// flight and a have every tick, so that a queue of this length means that nothing has moved for long: the link ends.
	maxQueued = 1024
	// maxUnread is how many messages may wait for a peer that asks for digests: who reads no answer gets no further one.
	maxUnread = 64
	// maxControl bounds the pings and pongs that wait to be sent; what is beyond it is not sent. Nor are they where so many
	// bytes wait inside the transport.
	maxControl         = 16
	maxControlBuffered = highWater + 64<<10
)

var (
	errQueueFull = errors.New("the peer takes nothing: the queue of messages to it is full")
	errDead      = errors.New("nothing was heard from the peer for 15 s")
	errEnded     = errors.New("the channel was closed by the other side")
)

// channel is an open data channel. The methods may be called at the same time.
type channel interface {
	Read(frame []byte) (int, error)  // blocks for a message of the channel; io.ErrShortBuffer: it is longer
	Write(frame []byte) (int, error) // queues one, does not block
	BufferedAmount() uint64          // bytes queued
	OnLow(threshold uint64, f func())
	Close() error // Read returns soon after it
}

// conn is an open channel to one member: frames below, messages above. It is made with init, runs from start on, and ends
// with close or finish, by either side; then done is closed, and whoever owns the PeerConnection closes that, too.
type conn struct {
	peer    signaling.PeerID
	site    syncproto.SiteID // what the other side named during signaling
	ownSite syncproto.SiteID // what we named
	session uint64
	own     signaling.End // for the role proof
	remote  signaling.End

	ch      channel
	log     *slog.Logger
	timing  timing
	relays  *relays
	deliver func(*conn, syncproto.Message) // blocks until the message is taken or the conn is done
	refuse  func(*conn, *syncproto.Error)  // likewise: the other side sent what is no message
	doubt   func(*conn, bool)              // must not block: the link is suspect, or no longer

	wake    chan struct{} // something to send, or the transport is low
	control chan []byte   // pings and pongs to send
	limit   relayLimit
	done    chan struct{}
	wg      sync.WaitGroup

	mu       sync.Mutex // guards the following
	queue    []syncproto.Message
	ending   bool // send what is queued, then end
	err      error
	finished bool
	giveUp   *time.Timer // ends a finish that takes too long

	heard    atomic.Int64 // time of the last frame, nanoseconds since epoch
	rtt      atomic.Int64 // last round trip, nanoseconds; 0: unknown
	bytesIn  atomic.Uint64
	bytesOut atomic.Uint64
	epoch    time.Time
}

// init prepares a conn whose fields up to doubt are set. Messages may be queued from then on.
func (c *conn) init() {
	c.epoch = time.Now()
	c.wake = make(chan struct{}, 1)
	c.control = make(chan []byte, maxControl)
	c.limit = newRelayLimit()
	c.done = make(chan struct{})
}

// start begins to read, write and ping.
func (c *conn) start() {
	c.ch.OnLow(lowWater, c.poke)
	c.wg.Add(3)
	go c.sendLoop()
	go c.receiveLoop()
	go c.heartbeat()
}

// send queues a message; its order is kept. It does not block. The message must not change any more.
func (c *conn) send(m syncproto.Message) {
	c.mu.Lock()
	full := len(c.queue) >= maxQueued
	if !full && !c.ending {
		c.queue = append(c.queue, m)
	}
	c.mu.Unlock()
	if full {
		c.close(errQueueFull)
		return
	}
	c.poke()
}

// queued returns how many messages wait to be sent.
func (c *conn) queued() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.queue)
}

// finish ends the conn for the reason err, once what is queued was sent, or after timing.flush. It does not block.
func (c *conn) finish(err error) {
	c.mu.Lock()
	if c.ending || c.finished {
		c.mu.Unlock()
		return
	}
	c.ending, c.err = true, err
	c.giveUp = time.AfterFunc(c.timing.flush, func() { c.close(err) })
	c.mu.Unlock()
	c.poke()
}

// isEnding reports whether finish was called.
func (c *conn) isEnding() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ending
}

// close ends the conn now, for the reason err; the first reason counts. It does not block.
func (c *conn) close(err error) {
	c.mu.Lock()
	if c.finished {
		c.mu.Unlock()
		return
	}
	c.finished = true
	c.wg.Add(1)
	if c.err == nil {
		c.err = err
	}
	c.queue = nil
	if c.giveUp != nil {
		c.giveUp.Stop()
	}
	c.mu.Unlock()
	close(c.done)
	go func() { // it waits for a lock of SCTP's
		defer c.wg.Done()
		if err := c.ch.Close(); err != nil {
			c.log.Debug("closing a channel", "err", err)
		}
	}()
}

// reason returns why the conn ended, or is about to.
func (c *conn) reason() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// wait returns once nothing of the conn runs. The conn is done and its PeerConnection closed.
func (c *conn) wait() { c.wg.Wait() }

func (c *conn) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// now is the time since the conn began.
func (c *conn) now() time.Duration { return time.Since(c.epoch) }
