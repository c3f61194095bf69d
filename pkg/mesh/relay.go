package mesh

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	mathrand "math/rand/v2"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
	"github.com/crmesh/crmesh/pkg/signaling"
)

// Bounds of the envelopes that members relay for each other.
const (
	// RelayFanout is how many neighbours get an envelope whose receiver is no neighbour.
	RelayFanout = 3
	// RelayRate and RelayBurst are the token bucket of what comes in on one link, in bytes a second and bytes. What is above
	// them is dropped.
	RelayRate  = 64 << 10
	RelayBurst = 512 << 10
	// relayShare is how much less of what comes in on one link is passed on: a member that floods us must not use up what our
	// neighbours take from us.
	relayShare = 4
	// relayCost is what an envelope takes from the bucket at least, in bytes.
	relayCost = 1 << 10
	// maxSeen is how many envelopes are remembered at least, and half of how many at most, so that none is passed on twice.
	maxSeen = 4096
	// maxAhead is how many messages may wait at a link that is to get an envelope; where more do, it gets none.
	maxAhead = 256
)

var (
	errNoNeighbour = errors.New("no other member is linked that could pass it on")
	errNotThere    = errors.New("the signaling server does not know the peer")
)

// RelayStatus counts envelopes that went over members in place of the signaling server, since the Node started.
type RelayStatus struct {
	Sent     uint64 `json:"sent"`     // ours, handed to neighbours
	Received uint64 `json:"received"` // for us, opened
	Passed   uint64 `json:"passed"`   // of others for others
	Dropped  uint64 `json:"dropped"`  // above the rate of a link, not for anybody we know, or damaged
}

// relays is what a Node knows of envelopes on their way.
type relays struct {
	sent, received, passed, dropped, repeated atomic.Uint64
	// live are the conns whose links are live, which the loop replaces when one comes or goes.
	live atomic.Pointer[[]*conn]

	// Owned by the loop: the envelopes seen, in two generations. The older one is forgotten when the newer one is full.
	seen, older map[[16]byte]struct{}
}

func (r *relays) status() RelayStatus {
	return RelayStatus{r.sent.Load(), r.received.Load(), r.passed.Load(), r.dropped.Load()}
}

// first reports whether the envelope comes for the first time.
func (r *relays) first(m *syncproto.Relay) bool {
	h := sha256.New()
	h.Write(m.From[:])
	h.Write(m.To[:])
	h.Write(m.Sealed)
	key := [16]byte(h.Sum(nil))
	if _, ok := r.seen[key]; ok {
		return false
	}
	if _, ok := r.older[key]; ok {
		return false
	}
	if r.seen == nil || len(r.seen) >= maxSeen {
		r.seen, r.older = map[[16]byte]struct{}{}, r.seen
	}
	r.seen[key] = struct{}{}
	return true
}

// relayLimit bounds the envelopes that come in on one link.
type relayLimit struct{ in, passed *rate.Limiter }

func newRelayLimit() relayLimit {
	return relayLimit{rate.NewLimiter(RelayRate, RelayBurst), rate.NewLimiter(RelayRate/relayShare, RelayBurst/relayShare)}
}

func (l relayLimit) pass(m *syncproto.Relay) bool { return allow(l.passed, m) }

func allow(l *rate.Limiter, m *syncproto.Relay) bool {
	return l.AllowN(time.Now(), max(len(m.Sealed), relayCost))
}

// take says whether an envelope that came in is looked at at all. It is asked by the goroutine of the link, so that a flood
// costs that link's.
func (r *relays) take(l relayLimit, m *syncproto.Relay) bool {
	ok := allow(l.in, m)
	if !ok {
		r.dropped.Add(1)
	}
	return ok
}

// relay seals d and hands it to neighbours, in place of the signaling server. It blocks for the loop.
func (n *Node) relay(to signaling.PeerID, d signaling.Description) error {
	if !n.relayable(to) {
		return errNoNeighbour
	}
	sealed, err := n.cfg.Keys.SealEnvelope(rand.Reader, n.peer, to, d)
	if err != nil {
		return err
	}
	n.post(linkEvent{relay: &syncproto.Relay{Hops: syncproto.MaxRelayHops, From: n.peer, To: to, Sealed: sealed}}, nil)
	return nil
}

// relayable reports whether there is a neighbour other than the peer itself that could pass an envelope on to it.
func (n *Node) relayable(to signaling.PeerID) bool {
	for _, c := range n.liveConns() {
		if c.peer != to && c.silence() < n.timing.suspect {
			return true
		}
	}
	return false
}

func (n *Node) liveConns() []*conn {
	if list := n.relays.live.Load(); list != nil {
		return *list
	}
	return nil
}

// liveChanged takes stock of the live links. What could not be sent for want of a neighbour can be now.
func (l *loop) liveChanged() {
	before := len(l.node.liveConns())
	live := make([]*conn, 0, len(l.links))
	for _, k := range l.links {
		if k.live {
			live = append(live, k.conn)
		}
	}
	l.node.relays.live.Store(&live)
	if len(live) > before && before < 2 {
		for _, m := range l.members {
			if !l.node.introduced.Load() || !m.served() {
				m.tryAgain()
			}
		}
	}
}

// relayed takes an envelope that a neighbour sent.
func (l *loop) relayed(k *link, m *syncproto.Relay) {
	r := l.node.relays
	switch from, to := signaling.PeerID(m.From), signaling.PeerID(m.To); {
	case from == l.node.peer || !r.first(m):
		r.repeated.Add(1)
	case to == l.node.peer:
		l.openRelayed(k, from, m.Sealed)
	default:
		if k.conn.limit.pass(m) && l.passOn(k, m) > 0 {
			r.passed.Add(1)
		} else {
			r.dropped.Add(1)
		}
	}
}

func (l *loop) openRelayed(k *link, from signaling.PeerID, sealed []byte) {
	r := l.node.relays
	if _, listed := l.listed[from]; !listed && l.members[from] == nil {
		r.dropped.Add(1)
		l.log.Debug("dropped a relayed envelope from a peer that is no member", "peer", from)
		return
	}
	d, err := l.node.cfg.Keys.OpenEnvelope(from, l.node.peer, sealed)
	if err != nil {
		r.dropped.Add(1)
		l.log.Debug("dropped a relayed envelope", "peer", from, "over", k.conn.peer, "err", err)
		return
	}
	r.received.Add(1)
	l.via[from] = k.id // the way back
	l.askedBy(Signal{from, d})
	if m := l.members[from]; m != nil {
		m.signal(d)
	}
}

// sendRelay hands an envelope of ours to neighbours.
func (l *loop) sendRelay(m *syncproto.Relay) {
	l.node.relays.first(m)
	if l.passOn(nil, m) > 0 {
		l.node.relays.sent.Add(1)
	}
}

// passOn hands an envelope, which came over from, to the link of its receiver, or to some neighbours where there is none. It
// returns to how many.
func (l *loop) passOn(from *link, m *syncproto.Relay) int {
	to := signaling.PeerID(m.To)
	var others []*link
	for _, k := range l.links {
		switch {
		case !k.live || k == from || k.conn.peer == signaling.PeerID(m.From) || k.conn.silence() >= l.node.timing.suspect:
		case k.conn.peer != to:
			others = append(others, k)
		case from != nil: // our own goes around that link: there is one, and it is in doubt
			return count(k.conn.offer(m))
		}
	}
	if from != nil {
		if m.Hops == 0 {
			return 0
		}
		m = &syncproto.Relay{Hops: m.Hops - 1, From: m.From, To: m.To, Sealed: m.Sealed}
	}
	mathrand.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
	for i, k := range others { // what came back over a link leads there
		if via, ok := l.via[to]; ok && k.id == via {
			others[0], others[i] = others[i], others[0]
		}
	}
	n := 0
	for _, k := range others {
		if n += count(k.conn.offer(m)); n == RelayFanout {
			break
		}
	}
	return n
}

func count(ok bool) int {
	if ok {
		return 1
	}
	return 0
}

// offer queues a message unless many wait already. It does not block.
func (c *conn) offer(m syncproto.Message) bool {
	c.mu.Lock()
	ok := len(c.queue) < maxAhead && !c.ending && !c.finished
	if ok {
		c.queue = append(c.queue, m)
	}
	c.mu.Unlock()
	c.poke()
	return ok
}
