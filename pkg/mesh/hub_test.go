package mesh

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/crmesh/crmesh/pkg/signaling"
)

// hub is a signaling server in memory. Descriptions pass through hooks, so that tests can hold, drop and count them.
type hub struct {
	mu      sync.Mutex
	members map[signaling.PeerID]*hubClient
	down    bool
	cut     map[signaling.PeerID]bool // who has no connection to the hub, which still lists them
	// pass, if set, sees each description and says whether it goes on. Called with mu held.
	pass func(from, to signaling.PeerID, d signaling.Description) bool
}

type hubClient struct {
	hub     *hub
	id      signaling.PeerID
	meta    signaling.Meta
	events  chan SignalEvent
	dead    bool // nobody reads events, and nobody was told
	checked atomic.Int64
}

func (c *hubClient) tell(e SignalEvent) {
	if !c.dead {
		c.events <- e
	}
}

func newHub() *hub { return &hub{members: map[signaling.PeerID]*hubClient{}} }

var errHubDown = errors.New("the hub is down")

// join makes a client and tells everybody.
func (h *hub) join(id signaling.PeerID, meta ...signaling.Meta) *hubClient {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := &hubClient{hub: h, id: id, events: make(chan SignalEvent, 4096)}
	if len(meta) > 0 {
		c.meta = meta[0]
	}
	var others []signaling.Member
	for _, m := range h.members {
		others = append(others, signaling.Member{Peer: m.id, Meta: m.meta})
		m.tell(MemberJoined{signaling.Member{Peer: id, Meta: c.meta}})
	}
	h.members[id] = c
	c.events <- Joined{Members: others}
	return c
}

func (h *hub) leave(id signaling.PeerID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.members, id)
	for _, m := range h.members {
		m.tell(MemberLeft{id})
	}
}

// die cuts a member off without a word to anybody.
func (h *hub) die(id signaling.PeerID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.members[id].dead = true
}

// setDown cuts everybody off from the hub, or lets everybody in again.
func (h *hub) setDown(down bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.down = down
	for _, m := range h.members {
		if down {
			m.tell(Disconnected{Err: errHubDown, RetryIn: time.Second})
			continue
		}
		var others []signaling.Member
		for _, o := range h.members {
			if o != m {
				others = append(others, signaling.Member{Peer: o.id, Meta: o.meta})
			}
		}
		m.tell(Joined{Members: others})
	}
}

// cutOff takes one member's connection to the hub away. The others are not told.
func (h *hub) cutOff(id signaling.PeerID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.cut == nil {
		h.cut = map[signaling.PeerID]bool{}
	}
	h.cut[id] = true
	h.members[id].events <- Disconnected{Err: errHubDown, RetryIn: time.Second}
}

// giveUp tells the others that a member has left, and nothing to that one.
func (h *hub) giveUp(id signaling.PeerID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range h.members {
		if m.id != id {
			m.events <- MemberLeft{id}
		}
	}
}

func (h *hub) hook(f func(from, to signaling.PeerID, d signaling.Description) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pass = f
}

func (c *hubClient) Check() { c.checked.Add(1) }

func (c *hubClient) Events() <-chan SignalEvent { return c.events }

// Send goes through the real form of a description, as the real client's does.
func (c *hubClient) Send(to signaling.PeerID, d signaling.Description) error {
	b, err := d.Marshal()
	if err != nil {
		return err
	}
	if d, err = signaling.ParseDescription(b); err != nil {
		return err
	}
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	if c.hub.down || c.hub.cut[c.id] {
		return errHubDown
	}
	if c.hub.cut[to] {
		c.events <- Unreachable{to}
		return nil
	}
	if c.hub.pass != nil && !c.hub.pass(c.id, to, d) {
		return nil
	}
	return c.hub.deliver(c.id, to, d)
}

// deliver is called with mu held.
func (h *hub) deliver(from, to signaling.PeerID, d signaling.Description) error {
	if m := h.members[to]; m != nil {
		m.tell(Signal{from, d})
	}
	return nil
}
