package mesh

import (
	"context"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/crmesh/crmesh/pkg/signaling"
	"github.com/crmesh/crmesh/pkg/signaling/signalclient"
)

// glare lets an offer of either side wait for one of the other, so that they cross.
type glare struct {
	mu    sync.Mutex // guards the following
	armed bool
	held  [2]func()
	count int // times that offers crossed
}

// arm makes the next offers cross, once.
func (g *glare) arm() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.armed, g.held = true, [2]func(){}
}

func (g *glare) crossed() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.count
}

// hold takes an offer of one side, in the place of an earlier one. false: it need not wait.
func (g *glare) hold(side int, send func()) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.armed {
		return false
	}
	g.held[side] = send
	if g.held[0] != nil && g.held[1] != nil {
		g.armed = false
		g.count++
		g.held[0]()
		g.held[1]()
	}
	return true
}

// pairSignaler is a signalclient.Client as a Signaler, whose offers may be held.
type pairSignaler struct {
	glare  *glare
	side   int
	events chan SignalEvent
	client *signalclient.Client
	ended  chan struct{} // closed by close: nobody reads events any more
	done   sync.WaitGroup
}

func (s *pairSignaler) Events() <-chan SignalEvent { return s.events }
func (s *pairSignaler) Check()                     {}

func (s *pairSignaler) Send(to signaling.PeerID, d signaling.Description) error {
	if d.Kind == signaling.KindOffer && s.glare.hold(s.side, func() { _ = s.client.Send(to, d) }) { // what is lost is repeated
		return nil
	}
	return s.client.Send(to, d)
}

// join begins with a client. It is called once, before anybody can be sent something.
func (s *pairSignaler) join(client *signalclient.Client) {
	s.client = client
	s.done.Go(func() {
		defer close(s.events)
		for e := range client.Events() {
			select {
			case s.events <- signalEventOf(e):
			case <-s.ended:
			}
		}
	})
}

func signalEventOf(e signalclient.Event) SignalEvent {
	switch e := e.(type) {
	case signalclient.Joined:
		return Joined{Members: e.Members, ICEServers: e.ICEServers}
	case signalclient.MemberJoined:
		return MemberJoined{Member: e.Member}
	case signalclient.MemberLeft:
		return MemberLeft{Peer: e.Peer}
	case signalclient.Signal:
		return Signal{From: e.From, Description: e.Description}
	case signalclient.Unreachable:
		return Unreachable{Peer: e.Peer}
	case signalclient.Disconnected:
		return Disconnected{Err: e.Err, RetryIn: e.RetryIn}
	default:
		panic("signalclient has an event that is not translated")
	}
}

// close ends the client. The node is closed, and reads no more events.
func (s *pairSignaler) close() {
	if s.client == nil {
		return
	}
	close(s.ended)
	s.client.Close()
	s.done.Wait()
}

// wire is the way of one side to the signaling server, which breaks.
type wire struct {
	mu   sync.Mutex // guards the following
	conn net.Conn   // the latest
	cuts int
}

func (w *wire) client() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, address)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.conn = c
		return c, err
	}}}
}

// cutAtRandom ends the connection up to maxCuts times, each within a time from the one before, without a word of WebSocket or
// TCP's goodbye.
func (w *wire) cutAtRandom(ctx context.Context, rng *rand.Rand, within time.Duration) {
	for range rng.IntN(maxCuts + 1) {
		select {
		case <-time.After(time.Duration(float64(within) * math.Pow(rng.Float64(), 3))): // rather soon than late
		case <-ctx.Done():
			return
		}
		w.mu.Lock()
		if c, ok := w.conn.(*net.TCPConn); ok {
			_ = c.SetLinger(0)
			_ = c.Close()
			w.conn = nil
			w.cuts++
		}
		w.mu.Unlock()
	}
}
