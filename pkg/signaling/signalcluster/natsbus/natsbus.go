// Package natsbus is the signalcluster.Bus over NATS: core NATS, at most once, nothing stored.
package natsbus

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/crmesh/crmesh/pkg/signaling/signalcluster"
)

const (
	// queueLength and queueBytes bound what waits to be sent; more is refused.
	queueLength = 8192
	queueBytes  = 16 << 20
	// inboxLength and inboxBytes bound the messages that wait to be taken; more are lost.
	inboxLength = 4096
	inboxBytes  = 16 << 20
	// handLength is how many messages the NATS client may hand over before receive runs: one read of its, of 32 KiB, has no more. They are
	// bounded by number only, since that is all the client does for a channel; so there must be few, and receive waits for nobody.
	handLength = 1024

	// reconnectWait and reconnectJitter say when a lost connection is tried again: for ever, after 0.5 to 1.5 s.
	reconnectWait   = 500 * time.Millisecond
	reconnectJitter = time.Second
	dialTimeout     = 2 * time.Second
	// pingInterval and maxPings: a connection on which nothing comes back for 10 to 15 s is lost.
	pingInterval = 5 * time.Second
	maxPings     = 2
	writeTimeout = 5 * time.Second
	// closeTimeout bounds the sending of what is queued at the end.
	closeTimeout = time.Second
)

// Errors of Publish.
var (
	ErrNotConnected = errors.New("there is no connection to NATS now")
	ErrBusy         = errors.New("too much waits to be sent to NATS")
)

// Bus is a connection to NATS. It must be closed.
type Bus struct {
	nc       *nats.Conn
	log      *slog.Logger
	in       chan *nats.Msg
	missed   atomic.Uint64 // of those handed over
	out      chan signalcluster.BusMessage
	queue    chan *nats.Msg
	queued   atomic.Int64 // bytes in queue
	wake     chan struct{}
	connects chan struct{}
	ctx      context.Context
	cancel   context.CancelFunc
	done     sync.WaitGroup

	mu      sync.Mutex                    // guards the following
	wanted  map[string]bool               // subjects, and whether they are wanted; those that are not applied yet
	applied map[string]*nats.Subscription // only send changes it
}

// Connect tries each address once, for 2 s at most, and goes on with that for ever if none answers. An error says that
// the configuration cannot work.
func Connect(cfg Config) (*Bus, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	b := &Bus{
		log:      cfg.Logger,
		in:       make(chan *nats.Msg, handLength),
		out:      make(chan signalcluster.BusMessage),
		queue:    make(chan *nats.Msg, queueLength),
		wake:     make(chan struct{}, 1),
		connects: make(chan struct{}, 1),
		wanted:   map[string]bool{},
		applied:  map[string]*nats.Subscription{},
	}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	nc, err := nats.Connect(strings.Join(cfg.URLs, ","), b.options(cfg)...)
	if err != nil {
		return nil, errors.New("the connection to NATS cannot be set up") // err may quote an address
	}
	b.nc = nc
	if !nc.IsConnected() {
		b.log.Warn("NATS cannot be reached yet; rooms are those of this server alone until it can", "nats", cfg.Redacted())
	}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	b.done.Go(b.send)
	b.done.Go(b.receive)
	return b, nil
}

func (b *Bus) options(cfg Config) []nats.Option {
	var why failure
	failed := func(err error) {
		switch {
		case !why.isNew(err, time.Now()):
		case refused(err):
			b.log.Error("NATS refuses the user and password, or the credentials, of this server: set them right here or there; it is tried again", "error", err)
		default:
			b.log.Warn("NATS cannot be reached", "error", err)
		}
	}
	connected := func(nc *nats.Conn) {
		b.log.Info("connected to NATS", "nats", nc.ConnectedUrlRedacted())
		if limit := nc.MaxPayload(); limit < signalcluster.MaxMessage {
			b.log.Warn("NATS takes no messages of the size that a cluster needs; raise its max_payload", "max_payload", limit, "needed", signalcluster.MaxMessage)
		}
		select {
		case b.connects <- struct{}{}:
		default:
		}
	}
	options := []nats.Option{
		nats.Name(cfg.Name),
		nats.NoEcho(),
		nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.IgnoreAuthErrorAbort(),
		nats.ReconnectWait(reconnectWait), nats.ReconnectJitter(reconnectJitter, reconnectJitter),
		nats.ReconnectBufSize(-1), // what is old when the connection is there again is of no use
		nats.Timeout(dialTimeout), nats.PingInterval(pingInterval), nats.MaxPingsOutstanding(maxPings), nats.FlusherTimeout(writeTimeout),
		nats.ConnectHandler(connected), nats.ReconnectHandler(connected),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil { // otherwise it is Close
				b.log.Warn("the connection to NATS is lost; rooms go on with the members of this server", "error", err)
			}
		}),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { failed(err) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			switch {
			case refused(err):
				failed(err)
			case errors.Is(err, nats.ErrSlowConsumer):
				b.log.Warn(tooFast)
			case errors.Is(err, nats.ErrPermissionViolation):
				b.log.Error("NATS does not let this server use the subjects "+signalcluster.Prefix+">", "error", err)
			default:
				b.log.Warn("NATS", "error", err)
			}
		}),
	}
	if cfg.Credentials != "" {
		options = append(options, nats.UserCredentials(cfg.Credentials))
	}
	return options
}

// refused tells whether NATS does not know who this server is, or does not believe it.
func refused(err error) bool {
	for _, why := range []error{nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrAccountAuthExpired} {
		if errors.Is(err, why) || err != nil && strings.EqualFold(err.Error(), why.Error()) { // it comes in the server's words, too
			return true
		}
	}
	return false
}

// failure is why the last attempt to connect failed. The same one is told once a minute.
type failure struct {
	mu   sync.Mutex
	text string
	told time.Time
}

func (f *failure) isNew(err error, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil || strings.EqualFold(err.Error(), f.text) && now.Sub(f.told) < time.Minute {
		return false
	}
	f.text, f.told = err.Error(), now
	return true
}

// Publish implements signalcluster.Bus; the error is ErrNotConnected or ErrBusy.
func (b *Bus) Publish(subject, reply string, data []byte) error {
	if !b.nc.IsConnected() || b.ctx.Err() != nil {
		return ErrNotConnected
	}
	if b.queued.Add(int64(len(data))) > queueBytes {
		b.queued.Add(-int64(len(data)))
		return ErrBusy
	}
	select {
	case b.queue <- &nats.Msg{Subject: subject, Reply: reply, Data: data}:
		return nil
	default:
		b.queued.Add(-int64(len(data)))
		return ErrBusy
	}
}

// Subscribe implements signalcluster.Bus.
func (b *Bus) Subscribe(subject string) { b.want(subject, true) }

// Unsubscribe implements signalcluster.Bus.
func (b *Bus) Unsubscribe(subject string) { b.want(subject, false) }

func (b *Bus) want(subject string, wanted bool) {
	b.mu.Lock()
	b.wanted[subject] = wanted
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// Messages implements signalcluster.Bus. The channel is never closed.
func (b *Bus) Messages() <-chan signalcluster.BusMessage { return b.out }

// Connected implements signalcluster.Bus.
func (b *Bus) Connected() bool { return b.nc.IsConnected() }

// Connects implements signalcluster.Bus.
func (b *Bus) Connects() <-chan struct{} { return b.connects }

// Close sends what is queued, for a second at most, and ends the connection.
func (b *Bus) Close() {
	b.cancel()
	b.done.Wait()
	b.nc.Close()
}

// send is the only one that writes to NATS, which may block.
func (b *Bus) send() {
	for {
		select {
		case <-b.ctx.Done():
			b.flush()
			return
		case <-b.wake:
			b.apply()
		case m := <-b.queue:
			b.apply()
			b.sendOne(m)
		}
	}
}

func (b *Bus) sendOne(m *nats.Msg) {
	b.queued.Add(-int64(len(m.Data)))
	if err := b.nc.PublishMsg(m); err != nil {
		b.log.Debug("a message to NATS was lost", "error", err)
	}
}

func (b *Bus) flush() {
	for {
		select {
		case m := <-b.queue:
			b.sendOne(m)
		default:
			if b.nc.IsConnected() {
				_ = b.nc.FlushTimeout(closeTimeout) // it is the end
			}
			return
		}
	}
}

// apply makes the subscriptions those that are wanted.
func (b *Bus) apply() {
	b.mu.Lock()
	var wanted map[string]bool
	if len(b.wanted) > 0 {
		wanted, b.wanted = b.wanted, map[string]bool{}
	}
	b.mu.Unlock()
	for subject, want := range wanted {
		sub, has := b.applied[subject]
		var err error
		switch {
		case want && !has:
			if sub, err = b.nc.ChanSubscribe(subject, b.in); err == nil {
				b.mu.Lock()
				b.applied[subject] = sub
				b.mu.Unlock()
			}
		case !want && has:
			b.mu.Lock()
			delete(b.applied, subject)
			b.missed.Add(droppedBy(sub))
			b.mu.Unlock()
			err = sub.Unsubscribe()
		}
		if err != nil && b.ctx.Err() == nil {
			b.log.Error("a subscription at NATS failed", "error", err)
		}
	}
}

// droppedBy returns how many messages the NATS client could not hand over.
func droppedBy(sub *nats.Subscription) uint64 {
	n, err := sub.Dropped()
	if err != nil { // at the end
		return 0
	}
	return uint64(n)
}

// Missed implements signalcluster.Bus.
func (b *Bus) Missed() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := b.missed.Load()
	for _, sub := range b.applied {
		n += droppedBy(sub)
	}
	return n
}

const tooFast = "messages from NATS were lost: they come faster than this server takes them"

// receive takes what comes in at once, and keeps it in the inbox until the server takes it.
func (b *Bus) receive() {
	var box inbox
	losing := false
	for {
		out := b.out
		first, ok := box.first()
		if !ok {
			out = nil // nothing to hand on
		}
		select {
		case <-b.ctx.Done():
			return
		case m := <-b.in:
			if box.add(signalcluster.BusMessage{Subject: m.Subject, Data: m.Data}) {
				break
			}
			b.missed.Add(1)
			if !losing {
				losing = true
				b.log.Warn(tooFast)
			}
		case out <- first:
			box.drop()
			losing = losing && !box.roomy()
		}
	}
}
