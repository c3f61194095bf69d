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
	exit := s.cluster.enter(m.Room)
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	cfg := s.cfg.Load()
	defer exit()
	if c.hasJoined {
		s.end(c, signaling.Error{Code: signaling.CodeBadMessage, Message: "This connection has joined a room already; open another for another room."})
		return
	}
	room, ok := s.rooms[m.Room]
	elsewhere, resumes := s.cluster.elsewhere(m.Room, m.Peer, m.Token)
	if !resumes && (!ok || !room.Resumes(m.Peer, m.Token)) { // whoever goes on with a membership was admitted when it began
		if err := s.admission.check(m.Admission, m.Room, now); err != nil {
			s.end(c, notAdmitted(m.Admission, err))
			return
		}
	}
	if !ok {
		if len(s.rooms) >= cfg.MaxRooms || s.cluster.missing(m.Room) {
			s.end(c, signaling.Error{Code: signaling.CodeServerFull, Message: "The server has no place for another room; try again later.", RetryAfter: seconds(cfg.Grace)})
			return
		}
		room = signaling.NewRoster(cfg.MaxMembers, cfg.Grace)
	}
	var entry signaling.Entry
	err := signaling.ErrPeerInUse
	switch {
	case elsewhere && !resumes:
	case !elsewhere && !room.Has(m.Peer) && s.cluster.full(m.Room):
		err = signaling.ErrRoomFull
	default:
		entry, err = room.Join(c.id, m.Peer, m.Meta, m.Token, tokenOf(m.Token))
	}
	switch {
	case errors.Is(err, signaling.ErrRoomFull):
		s.end(c, signaling.Error{Code: signaling.CodeRoomFull, RetryAfter: seconds(cfg.Grace),
			Message: fmt.Sprintf("The room has its %d members; try again when somebody has left.", cfg.MaxMembers)})
		return
	case err != nil:
		s.end(c, peerInUse(cfg.Grace))
		return
	}
	s.rooms[m.Room] = room
	s.cluster.joined(m, &entry)
	c.hasJoined, c.room = true, m.Room
	c.joined()
	if old, ok := s.conns[entry.Replaced]; ok {
		old.fail(replaced)
	}
	s.settle(m.Room, room)

	servers, ttl := s.iceServers(c.host, m.Peer, now)
	c.host = ""
	s.reply(c, signaling.Joined{Peer: m.Peer, Token: entry.Token, Members: entry.Others,
		ICEServers: servers, TTL: ttl, Resumed: entry.Resumed})
	if entry.Announce {
		s.tell(c, room, m.Peer, signaling.MemberJoined{Member: signaling.Member{Peer: m.Peer, Meta: m.Meta}})
	}
	s.drain.tell(s, c)
	if entry.Resumed {
		s.metrics.resumes.Inc()
	} else {
		s.metrics.joins.Inc()
	}
	s.debug(c, "joined", "members", room.Len(), "resumed", entry.Resumed)
}

var replaced = signaling.Error{Code: signaling.CodeReplaced, Message: "A newer connection of this peer took over."}

func peerInUse(grace time.Duration) signaling.Error {
	return signaling.Error{Code: signaling.CodePeerInUse, RetryAfter: seconds(grace),
		Message: "This peer id is a member already; take a new one, or come back with the resume token."}
}

// forward passes an envelope on to a member of the sender's room.
func (s *Server) forward(c *conn, m signaling.SignalTo) {
	received := time.Now()
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
	switch {
	case ok:
		s.metrics.envelopes.Inc()
		if frame := s.marshal(signaling.SignalFrom{From: from, Sealed: m.Sealed}); frame != nil {
			s.pass(c, s.conns[to], outgoing{frame, received})
		}
	case s.cluster.forward(c.room, from, m):
		s.metrics.envelopes.Inc()
	default:
		s.reply(c, s.unreachable(m.To))
	}
}

// unreachable is what the sender of an envelope is told that did not get through.
func (s *Server) unreachable(to signaling.PeerID) signaling.Error {
	s.metrics.refused(string(signaling.CodeUnreachable))
	return signaling.Error{Code: signaling.CodeUnreachable, Message: "That peer is not connected to the room now; try again later.", Peer: &to}
}

// leave ends the membership and the connection.
func (s *Server) leave(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if room, ok := s.rooms[c.room]; ok && c.hasJoined {
		if peer, ok := room.Leave(c.id); ok {
			s.broadcast(c.room, room, peer, signaling.MemberLeft{Peer: peer})
			s.cluster.left(c.room, peer)
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
		if peer, ok := room.Peer(c.id); ok {
			s.cluster.away(c.room, peer)
		}
		room.Disconnect(time.Now(), c.id)
		s.settle(c.room, room)
	}
}

// broadcast sends m to all members of a room but one. s.mu is held.
func (s *Server) broadcast(id signaling.RoomID, room *signaling.Roster, but signaling.PeerID, m signaling.Message) {
	s.tell(nil, room, but, m)
}

// tell is broadcast for the reader of a connection, which writes the first few
// itself once s.mu is free.
func (s *Server) tell(from *conn, room *signaling.Roster, but signaling.PeerID, m signaling.Message) {
	frame := s.marshal(m)
	if frame == nil {
		return
	}
	for peer, connID := range room.Conns() {
		if peer != but {
			s.pass(from, s.conns[connID], outgoing{frame: frame})
		}
	}
}

// send queues m for c. s.mu is held.
func (s *Server) send(c *conn, m signaling.Message) {
	if frame := s.marshal(m); frame != nil {
		s.enqueue(c, outgoing{frame: frame})
	}
}

// reply is send for c's own reader, which writes it once s.mu is free.
func (s *Server) reply(c *conn, m signaling.Message) {
	if frame := s.marshal(m); frame != nil {
		s.pass(c, c, outgoing{frame: frame})
	}
}

// marshal returns the frame of m, or nil, which has been logged then.
func (s *Server) marshal(m signaling.Message) []byte {
	frame, err := signaling.MarshalMessage(m)
	if err != nil {
		s.log.Error("a message cannot be written as JSON", "error", err)
		return nil
	}
	return frame
}

// enqueue gives a frame to c's writer, or ends c as slow. s.mu is held; it
// does not block.
func (s *Server) enqueue(c *conn, f outgoing) { s.queue(c, f, false) }

// onwardMost is how many connections a reader writes to for one frame.
const onwardMost = 8

// pass is enqueue for a frame that the reader of a connection writes itself
// once s.mu is free, if there are not many: that saves the way to another
// thread. from may be nil.
func (s *Server) pass(from, to *conn, f outgoing) {
	here := from != nil && len(from.onward) < onwardMost
	if s.queue(to, f, here) {
		from.onward = append(from.onward, to)
	}
}

func (s *Server) queue(c *conn, f outgoing, here bool) (idle bool) {
	s.relieve(len(f.frame))
	ok, idle := c.enqueue(f, here)
	if !ok {
		s.metrics.drops.Inc()
		s.end(c, slowError)
	}
	return idle
}
