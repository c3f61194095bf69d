package mesh

import (
	"errors"
	"sync"
	"time"

	"github.com/crmesh/crmesh/pkg/signaling"
)

// hub is a signaling server in memory. Descriptions pass through hooks, so that tests can hold, drop and count them.
type hub struct {
	mu      sync.Mutex
	members map[signaling.PeerID]*hubClient
	down    bool
	// pass, if set, sees each description and says whether it goes on. Called with mu held.
	pass func(from, to signaling.PeerID, d signaling.Description) bool
}

type hubClient struct {
	hub    *hub
	id     signaling.PeerID
	events chan SignalEvent
}

func newHub() *hub { return &hub{members: map[signaling.PeerID]*hubClient{}} }

var errHubDown = errors.New("the hub is down")

// join makes a client and tells everybody.
func (h *hub) join(id signaling.PeerID) *hubClient {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := &hubClient{hub: h, id: id, events: make(chan SignalEvent, 4096)}
	var others []signaling.Member
	for _, m := range h.members {
		others = append(others, signaling.Member{Peer: m.id})
		m.events <- MemberJoined{signaling.Member{Peer: id}}
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
		m.events <- MemberLeft{id}
	}
}

// setDown cuts everybody off from the hub, or lets everybody in again.
func (h *hub) setDown(down bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.down = down
	for _, m := range h.members {
		if down {
			m.events <- Disconnected{Err: errHubDown, RetryIn: time.Second}
			continue
		}
		var others []signaling.Member
		for _, o := range h.members {
			if o != m {
				others = append(others, signaling.Member{Peer: o.id})
			}
		}
		m.events <- Joined{Members: others}
	}
}

func (h *hub) hook(f func(from, to signaling.PeerID, d signaling.Description) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pass = f
}

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
	if c.hub.down {
		return errHubDown
	}
	if c.hub.pass != nil && !c.hub.pass(c.id, to, d) {
		return nil
	}
	return c.hub.deliver(c.id, to, d)
}

// deliver is called with mu held.
func (h *hub) deliver(from, to signaling.PeerID, d signaling.Description) error {
	if m := h.members[to]; m != nil {
		m.events <- Signal{from, d}
	}
	return nil
}
