package mesh

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/pion/transport/v5"
	"github.com/pion/webrtc/v4"

	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
	"github.com/crmesh/crmesh/pkg/signaling"
)

// ErrClosed is returned by the methods of a Node that has ended without an error.
var ErrClosed = errors.New("the node is closed")

// Config is what a Node is made of. Fields without a default are required.
type Config struct {
	// Store is the database. It outlives the Node.
	Store Store
	// Signaler introduces us to the members of the room, under the id Peer. It outlives the Node.
	Signaler Signaler
	// Peer is our peer id.
	Peer signaling.PeerID
	// Keys are those of the room. Without the writer's private key the Node is a reader: it receives only.
	Keys signaling.Keys
	// Replica says that the Signaler announces us as always on (signaling.Meta.Replica), which gives us more links in large rooms.
	Replica bool
	// Logger may be nil: nothing is logged.
	Logger *slog.Logger
	// Net is the network that connections are made over. nil: that of the machine.
	Net transport.Net

	// UDPPort is one UDP port, 1 to 65535, for all connections, at every address of the machine, IPv4 and IPv6; what STUN and
	// TURN servers are asked from has ports of its own. 0: each connection has ports of its own.
	UDPPort int
	// TCPPort is a TCP port, 1 to 65535, at which members are linked whose UDP packets do not get through. 0: none.
	TCPPort int
	// NAT1To1 are addresses by which the machine is reached from outside, where a router passes all or the ports above on to
	// it unchanged. They are announced beside the machine's own; at most MaxNAT1To1. With UDPPort, STUN servers are not asked.
	NAT1To1 []netip.Addr
	// ICEServers are used besides those that the signaling server names, and before them; at most MaxICEServers.
	ICEServers []signaling.ICEServer
	// ICELite makes the Node answer checks and send none, for a machine that everybody can reach. No ICE server is asked then,
	// and two such peers cannot be linked with each other.
	ICELite bool
	// RelayOnly makes links over TURN relays alone: members learn no address of this machine, and nothing but the relay's is
	// tried. Without a TURN server, from here or from the signaling server, no link comes about. It goes with neither ICELite
	// nor ports and addresses to be reached at.
	RelayOnly bool
}

func (c *Config) check() error {
	switch {
	case c.Store == nil:
		return errors.New("mesh: Config.Store is missing")
	case c.Signaler == nil:
		return errors.New("mesh: Config.Signaler is missing")
	case c.Peer == signaling.PeerID{}:
		return errors.New("mesh: Config.Peer is missing")
	case c.Keys.WriterPublic == nil:
		return errors.New("mesh: Config.Keys are those of no room")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c.checkPorts()
}

// Node keeps one database in sync with the members of a room. Its methods may be called from any goroutine.
type Node struct {
	cfg         Config
	log         *slog.Logger
	timing      timing
	peer        signaling.PeerID
	site        atomic.Pointer[syncproto.SiteID] // of the database, as the loop knows it
	signaler    Signaler
	certificate webrtc.Certificate
	ports       *ports // closed by the loop, when no member runs
	relays      *relays
	hindrance   hindrance // of jobs, by the store

	servers     atomic.Pointer[[]webrtc.ICEServer]
	network     atomic.Pointer[network] // nil: it did not change since the start
	introduced  atomic.Bool             // the signaling server is there
	connections atomic.Int64            // PeerConnections that are not closed

	events   chan linkEvent
	results  chan result
	ended    chan *member // whose run returned
	requests chan request

	verifying sync.Mutex // held by a call of Verify

	ctx     context.Context // of everything that the Node started
	cancel  context.CancelFunc
	closing chan struct{}
	close1  sync.Once
	wg      sync.WaitGroup // members and jobs; the loop waits for it

	done chan struct{} // closed when the loop returned
	err  error         // why, set before done is closed
}

// Start reads the state of the store, binds the ports and starts a Node. It blocks for the store only, and ctx is for that;
// the Node runs until Close, or until its store fails for good.
func Start(ctx context.Context, cfg Config) (*Node, error) { return start(ctx, cfg, defaultTiming()) }

func start(ctx context.Context, cfg Config, t timing) (*Node, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	state, err := cfg.Store.State(ctx)
	if err != nil {
		return nil, fmt.Errorf("the state of the database cannot be read: %w", err)
	}
	core, err := cfg.newCore(state)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("no key could be made: %w", err)
	}
	certificate, err := webrtc.GenerateCertificate(key)
	if err != nil {
		return nil, fmt.Errorf("no certificate could be made: %w", err)
	}
	shared, err := openPorts(&cfg)
	if err != nil {
		return nil, err
	}
	n := &Node{
		cfg: cfg, ports: shared, log: cfg.Logger, timing: t, peer: cfg.Peer, signaler: cfg.Signaler, certificate: *certificate,
		events: make(chan linkEvent, maxEvents), results: make(chan result), ended: make(chan *member),
		relays: &relays{}, requests: make(chan request), closing: make(chan struct{}), done: make(chan struct{}),
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	l := newLoop(n, core, state)
	n.wg.Go(n.watchNetwork)
	go l.run()
	return n, nil
}

func (c *Config) newCore(s State) (*syncproto.Core, error) {
	return syncproto.New(syncproto.Config{
		Site: s.Site, Writer: c.Keys.CanWrite(), Own: s.Heads.Own, Newest: s.Heads.Newest,
		Vector: s.Vector, SchemaHash: s.Heads.SchemaHash, Seed: seed(),
	})
}

// Close says goodbye on every link, ends everything that the Node started, and waits for it, some seconds at most. It
// returns what Err returns.
func (n *Node) Close() error {
	n.close1.Do(func() { close(n.closing) })
	<-n.done
	return n.err
}

// Done returns a channel that is closed when the Node has ended: by Close, or because its store failed.
func (n *Node) Done() <-chan struct{} { return n.done }

// Err returns why the Node ended: nil while it runs and after Close, otherwise the error of its store.
func (n *Node) Err() error {
	select {
	case <-n.done:
		return n.err
	default:
		return nil
	}
}

// Connections returns the number of PeerConnections that exist. It is 0 once the Node is closed.
func (n *Node) Connections() int { return int(n.connections.Load()) }

// maxEvents bounds what waits for the loop from all links together; then links are not read.
const maxEvents = 64

// linkEvent is what a link tells the loop. up comes first, down last.
type linkEvent struct {
	conn     *conn
	up, down bool
	message  syncproto.Message
	refused  *syncproto.Error // what came is no message
	network  *network         // with no conn: the machine's network changed
	relay    *syncproto.Relay // with no conn: an envelope of ours to hand to neighbours
}

func (n *Node) post(e linkEvent, done <-chan struct{}) {
	select {
	case n.events <- e:
	case <-done:
	case <-n.ctx.Done():
	}
}

func (n *Node) linkUp(c *conn)   { n.post(linkEvent{conn: c, up: true}, nil) }
func (n *Node) linkDown(c *conn) { n.post(linkEvent{conn: c, down: true}, nil) }

func (n *Node) deliver(c *conn, m syncproto.Message) { n.post(linkEvent{conn: c, message: m}, c.done) }
func (n *Node) refuse(c *conn, err *syncproto.Error) {
	n.post(linkEvent{conn: c, refused: err}, c.done)
}
func (n *Node) iceServers() []webrtc.ICEServer        { return *n.servers.Load() }
func (n *Node) setICEServers(list []webrtc.ICEServer) { n.servers.Store(&list) }

// nonce returns 32 random bytes for the role proof of one connection.
func (n *Node) nonce() (nonce [32]byte) {
	_, _ = rand.Read(nonce[:]) // never fails
	return nonce
}

func seed() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	s := uint64(0)
	for _, x := range b {
		s = s<<8 | uint64(x)
	}
	return s
}
