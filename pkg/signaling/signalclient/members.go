package signalclient

import (
	"errors"
	"slices"
	"time"

	"github.com/crmesh/crmesh/pkg/signaling"
)

// joinedAs takes over the answer to a join and returns when the credentials
// expire. Members that the server does not name become absent.
func (c *Client) joinedAs(m signaling.Joined) (expires time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.token = m.Token
	clear(c.absent)
	for peer := range c.members {
		c.absent[peer] = struct{}{}
	}
	for _, member := range m.Members {
		if len(c.members) >= MaxMembers {
			break
		}
		c.members[member.Peer] = member.Meta
		delete(c.absent, member.Peer)
	}
	if m.TTL == 0 {
		return time.Time{}
	}
	return time.Now().Add(time.Duration(m.TTL) * time.Second)
}

// forgetAbsent removes the absent members and returns them in order of id.
func (c *Client) forgetAbsent() []signaling.PeerID {
	c.mu.Lock()
	defer c.mu.Unlock()
	var gone []signaling.PeerID
	for peer := range c.absent {
		delete(c.members, peer)
		gone = append(gone, peer)
	}
	clear(c.absent)
	slices.SortFunc(gone, signaling.PeerID.Compare)
	return gone
}

// take applies a message to the member list and returns the event it makes,
// or nil.
func (c *Client) take(m signaling.Message) Event {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch m := m.(type) {
	case signaling.MemberJoined:
		if _, known := c.members[m.Peer]; !known && len(c.members) >= MaxMembers {
			return nil
		}
		delete(c.absent, m.Peer)
		c.members[m.Peer] = m.Meta
		return MemberJoined{Member: m.Member}
	case signaling.MemberLeft:
		delete(c.absent, m.Peer)
		delete(c.members, m.Peer)
		return MemberLeft{Peer: m.Peer}
	case signaling.SignalFrom:
		d, err := c.cfg.Keys.OpenDescription(m.From, c.cfg.Peer, m.Sealed)
		if errors.Is(err, signaling.ErrUnknownKind) {
			return nil
		}
		if err != nil {
			c.dropped.Add(1)
			c.cfg.Logger.Debug("envelope dropped", "from", m.From, "error", err)
			return nil
		}
		return Signal{From: m.From, Description: d}
	case signaling.Error: // the only one that comes here is unreachable
		if m.Peer != nil {
			return Unreachable{Peer: *m.Peer}
		}
	}
	return nil
}

// drainOut forgets what was queued for an earlier connection.
func (c *Client) drainOut() {
	for {
		select {
		case <-c.out:
		default:
			return
		}
	}
}
