package signalserver

import (
	"errors"
	"fmt"
	"time"

	"github.com/crmesh/crmesh/pkg/signaling"
)

// join makes c a member of a room. The answer and the announcements are
// queued under one lock, so that all members see the same order of events.
func (s *Server) join(c *conn, m signaling.Join) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.hasJoined {
		s.end(c, signaling.Error{Code: signaling.CodeBadMessage, Message: "This connection has joined a room already; open another for another room."})
		return
	}
	if wait, ok := s.joins.take(now, c.addr); !ok {
		s.end(c, signaling.Error{Code: signaling.CodeJoinRate, Message: "Too many joins from this address; try again later.", RetryAfter: seconds(wait)})
		return
	}
	room, ok := s.rooms[m.Room]
	if !ok {
		if len(s.rooms) >= s.cfg.MaxRooms {
			s.end(c, signaling.Error{Code: signaling.CodeServerFull, Message: "The server has no place for another room; try again later.", RetryAfter: seconds(s.cfg.Grace)})
			return
		}
		room = signaling.NewRoster(s.cfg.MaxMembers, s.cfg.Grace)
	}
	entry, err := room.Join(c.id, m.Peer, m.Meta, m.Token, newToken())
	switch {
	case errors.Is(err, signaling.ErrRoomFull):
		s.end(c, signaling.Error{Code: signaling.CodeRoomFull, RetryAfter: seconds(s.cfg.Grace),
			Message: fmt.Sprintf("The room has its %d members; try again when somebody has left.", s.cfg.MaxMembers)})
		return
	case err != nil:
		s.end(c, signaling.Error{Code: signaling.CodePeerInUse, RetryAfter: seconds(s.cfg.Grace),
			Message: "This peer id is a member already; take a new one, or come back with the resume token."})
		return
	}
	s.rooms[m.Room] = room
	c.hasJoined, c.room = true, m.Room
	close(c.joined)
	if old, ok := s.conns[entry.Replaced]; ok {
		old.fail(signaling.Error{Code: signaling.CodeReplaced, Message: "A newer connection of this peer took over."})
	}
	s.settle(m.Room, room)

	servers, ttl := s.iceServers(c.host, m.Peer, now)
	s.send(c, signaling.Joined{Peer: m.Peer, Token: entry.Token, Members: entry.Others,
		ICEServers: servers, TTL: ttl, Resumed: entry.Resumed})
	if entry.Announce {
		s.broadcast(m.Room, room, m.Peer, signaling.MemberJoined{Member: signaling.Member{Peer: m.Peer, Meta: m.Meta}})
	}
	s.log.Debug("joined", "conn", c.id, "members", room.Len(), "resumed", entry.Resumed)
}

// forward passes an envelope on to a member of the sender's room.
func (s *Server) forward(c *conn, m signaling.SignalTo) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !c.hasJoined {
		s.end(c, signaling.Error{Code: signaling.CodeBadMessage, Message: "Join a room before you signal."})
		return
	}
	room, ok := s.rooms[c.room]
	if !ok {
		return // the connection has been ended
	}
	from, ok := room.Peer(c.id)
	if !ok {
		return // replaced or ended; whatever still comes is nobody's
	}
	to, ok := room.Conn(m.To)
	if !ok {
		s.send(c, signaling.Error{Code: signaling.CodeUnreachable, Message: "That peer is not connected to the room now; try again later.", Peer: &m.To})
		return
	}
	s.send(s.conns[to], signaling.SignalFrom{From: from, Sealed: m.Sealed})
}

// leave ends the membership and the connection.
func (s *Server) leave(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if room, ok := s.rooms[c.room]; ok && c.hasJoined {
		if peer, ok := room.Leave(c.id); ok {
			s.broadcast(c.room, room, peer, signaling.MemberLeft{Peer: peer})
		}
		s.settle(c.room, room)
	}
	c.finish()
}

// end closes a connection with an error; its member is in the grace time from
// now on. s.mu is held.
func (s *Server) end(c *conn, e signaling.Error) {
	c.fail(e)
	s.detach(c)
}

// detach starts the grace time of the member behind c, if there is one. s.mu
// is held.
func (s *Server) detach(c *conn) {
	if room, ok := s.rooms[c.room]; ok && c.hasJoined {
		room.Disconnect(time.Now(), c.id)
		s.settle(c.room, room)
	}
}

// broadcast sends m to all members of a room but one. s.mu is held.
func (s *Server) broadcast(id signaling.RoomID, room *signaling.Roster, but signaling.PeerID, m signaling.Message) {
	frame, err := signaling.MarshalMessage(m)
	if err != nil {
		s.log.Error("a message cannot be written as JSON", "error", err)
		return
	}
	for peer, connID := range room.Conns() {
		if peer != but {
			s.enqueue(s.conns[connID], frame)
		}
	}
}

// send queues m for c. s.mu is held.
func (s *Server) send(c *conn, m signaling.Message) {
	frame, err := signaling.MarshalMessage(m)
	if err != nil {
		s.log.Error("a message cannot be written as JSON", "error", err)
		return
	}
	s.enqueue(c, frame)
}

// enqueue gives a frame to c's writer, or ends c as slow. s.mu is held; it
// does not block.
func (s *Server) enqueue(c *conn, frame []byte) {
	if !c.enqueue(frame) {
		s.end(c, signaling.Error{Code: signaling.CodeSlow, Message: "This connection does not read what is sent to it; reconnect."})
	}
}
