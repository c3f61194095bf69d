package signalclient

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/crmesh/crmesh/pkg/signaling"
)

const (
	// eventQueue is how many events may wait. When it is full the client reads
	// no further, and the server will close it as slow: drain Events.
	eventQueue = 256
	// sendQueue is how many envelopes may wait; more get ErrBusy.
	sendQueue = 256
)

// Errors of Send.
var (
	ErrNotConnected = errors.New("there is no connection to a signaling server now")
	ErrBusy         = errors.New("too many envelopes wait for the signaling server")
	ErrClosed       = errors.New("the signaling client is closed")
)

// Client is a member of a room. All methods may be called from any goroutine.
type Client struct {
	cfg    Config
	events chan Event
	out    chan []byte // frames for the current session
	check  chan struct{}
	cancel context.CancelFunc
	ctx    context.Context
	done   sync.WaitGroup

	connected atomic.Bool
	dropped   atomic.Uint64

	mu      sync.Mutex // guards the following
	members map[signaling.PeerID]signaling.Meta
	token   string
	redial  context.CancelFunc            // ends the attempt to connect that is under way; nil: there is none
	absent  map[signaling.PeerID]struct{} // members the server did not name at the last join
}

// New starts a client, which begins to join at once. It does not block. The
// client must be closed.
func New(cfg Config) (*Client, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	c := &Client{
		cfg:     cfg,
		events:  make(chan Event, eventQueue),
		out:     make(chan []byte, sendQueue),
		check:   make(chan struct{}, 1),
		members: map[signaling.PeerID]signaling.Meta{},
		token:   rand.Text(), // of ours, lest the answer to the first join is lost
		absent:  map[signaling.PeerID]struct{}{},
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.done.Go(c.run)
	return c, nil
}

// Peer returns the id of this peer.
func (c *Client) Peer() signaling.PeerID { return c.cfg.Peer }

// Events returns the channel of what happens. It must be drained; it is closed
// by Close.
func (c *Client) Events() <-chan Event { return c.events }

// Dropped returns how many envelopes came that did not open.
func (c *Client) Dropped() uint64 { return c.dropped.Load() }

// Members returns the other members as last known, in order of id; they
// outlive the loss of the server.
func (c *Client) Members() []signaling.Member {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]signaling.Member, 0, len(c.members))
	for peer, meta := range c.members {
		list = append(list, signaling.Member{Peer: peer, Meta: meta})
	}
	signaling.SortMembers(list)
	return list
}

// Send seals d for a member and queues it. It does not block, and a nil error
// does not mean that it arrives: what is queued when the connection breaks is
// lost, and the protocol above repeats what matters.
func (c *Client) Send(to signaling.PeerID, d signaling.Description) error {
	sealed, err := c.cfg.Keys.SealDescription(rand.Reader, c.cfg.Peer, to, d)
	if err != nil {
		return err
	}
	frame, err := signaling.MarshalMessage(signaling.SignalTo{To: to, Sealed: sealed})
	if err != nil {
		return err
	}
	switch {
	case c.ctx.Err() != nil:
		return ErrClosed
	case !c.connected.Load():
		return ErrNotConnected
	}
	select {
	case c.out <- frame:
		return nil
	default:
		return ErrBusy
	}
}

// Check says that the network may have changed. A server that does not answer
// within CheckTimeout is left, one that is reached from an address that is no more
// at once, an attempt to connect is begun anew, and a wait
// for the next one is over. It does not block.
func (c *Client) Check() {
	select {
	case c.check <- struct{}{}:
	default:
	}
	c.mu.Lock()
	redial := c.redial
	c.mu.Unlock()
	c.cfg.HTTPClient.CloseIdleConnections() // an attempt must not take one that is dead
	if redial != nil {
		redial()
	}
}

// Close leaves the room, ends the client and waits for it; a few seconds at
// most. It may be called more than once.
func (c *Client) Close() {
	c.cancel()
	c.done.Wait()
	c.cfg.HTTPClient.CloseIdleConnections()
}

// run joins again and again until Close. It owns every goroutine of the client.
func (c *Client) run() {
	defer close(c.events)
	var taken takeovers
	for attempt := 0; c.ctx.Err() == nil; {
		url := c.cfg.URLs[attempt%len(c.cfg.URLs)]
		joined, err := c.session(url)
		if c.ctx.Err() != nil {
			return
		}
		if joined {
			attempt = 0
		} else {
			attempt++
		}
		if errors.Is(err, errRenew) || errors.Is(err, errMoving) {
			continue
		}
		wait := c.backoff(attempt, err)
		switch {
		case errors.Is(err, errMoved):
			wait = 0
		case takenOver(err):
			var most time.Duration
			most, err = taken.again(time.Now(), c.cfg.BackoffMin, err)
			wait = upTo(most)
		}
		c.cfg.Logger.Debug("no connection to the signaling server", "url", url, "error", err, "retry", wait)
		c.emit(Disconnected{URL: url, Err: err, RetryIn: wait})
		checked, ok := c.sleep(wait, retryAfter(err) == 0)
		if !ok {
			return
		}
		if checked {
			attempt = 0
		}
	}
}

// emit hands an event to the user; false means the client is being closed.
func (c *Client) emit(e Event) bool {
	select {
	case c.events <- e:
		return true
	case <-c.ctx.Done():
		return false
	}
}

// sleep waits; a check ends that, if the wait is ours and not the server's. ok
// is false when the client is being closed.
func (c *Client) sleep(d time.Duration, ours bool) (checked, ok bool) {
	t := time.NewTimer(d)
	defer t.Stop()
	check := c.check
	if !ours {
		check = nil
	}
	select {
	case <-t.C:
		return false, true
	case <-check:
		return true, true
	case <-c.ctx.Done():
		return false, false
	}
}
