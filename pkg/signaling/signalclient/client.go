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
	cancel context.CancelFunc
	ctx    context.Context
	done   sync.WaitGroup

	connected atomic.Bool
	dropped   atomic.Uint64

	mu      sync.Mutex // guards the following
	members map[signaling.PeerID]signaling.Meta
	token   string
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
		members: map[signaling.PeerID]signaling.Meta{},
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
		if errors.Is(err, errRenew) {
			continue
		}
		wait := c.backoff(attempt, err)
		c.cfg.Logger.Info("no connection to the signaling server", "url", url, "error", err, "retry", wait)
		c.emit(Disconnected{URL: url, Err: err, RetryIn: wait})
		if !c.sleep(wait) {
			return
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

func (c *Client) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-c.ctx.Done():
		return false
	}
}
