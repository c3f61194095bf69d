package signalserver

import (
	"strconv"
	"time"

	"github.com/crmesh/crmesh/pkg/signaling"
	"github.com/crmesh/crmesh/pkg/signaling/signalcluster"
)

// What the rest of the server tells the cluster, and asks it.

// enter makes a room known before somebody joins it: what other servers have of it, as far as they answer within
// signalcluster.AskTimeout. Whoever comes later is announced like any member. Server.mu is not held, and is when the join
// is through and exit is called.
func (cl *cluster) enter(id signaling.RoomID) (exit func()) {
	if cl == nil {
		return func() {}
	}
	cl.s.mu.Lock()
	shared := cl.share(id)
	if shared == nil {
		cl.s.mu.Unlock()
		return func() {}
	}
	shared.entering++
	question := shared.ask
	cl.s.mu.Unlock()
	if question != nil {
		timeout := time.NewTimer(signalcluster.AskTimeout)
		defer timeout.Stop()
		select {
		case <-question.done:
		case <-timeout.C:
		}
	}
	return func() {
		shared.entering--
		if question != nil && shared.ask == question { // some did not answer; nobody else waits for them
			shared.ask = nil
			for n, a := range cl.asks {
				if a == question {
					delete(cl.asks, n)
					close(a.done)
				}
			}
		}
		if _, here := cl.s.rooms[id]; !here {
			cl.closed(id)
		}
	}
}

// share returns a room, and asks for it if it is new; nil if there are too many.
func (cl *cluster) share(id signaling.RoomID) *sharedRoom {
	shared, ok := cl.rooms[id]
	switch {
	case ok:
		return shared
	case len(cl.rooms) >= cl.s.cfg.Load().MaxRooms:
		return nil
	}
	shared = &sharedRoom{Room: signalcluster.NewRoom(cl.id)}
	cl.rooms[id] = shared
	subject := signalcluster.RoomSubject(id)
	cl.bus.Subscribe(subject)
	cl.lastAsk++
	m := signalcluster.Message{Type: signalcluster.TypeAsk, Ask: cl.lastAsk, Rooms: []signalcluster.RoomVersion{{Room: id}}}
	if cl.publish(subject, signalcluster.ServerSubject(cl.id, strconv.FormatUint(cl.lastAsk, 10)), m) {
		shared.ask = &asked{room: id, need: map[signalcluster.ServerID]struct{}{}, got: map[signalcluster.ServerID]struct{}{}, done: make(chan struct{})}
		cl.asks[cl.lastAsk] = shared.ask
	}
	return shared
}

// closed forgets a room without members here.
func (cl *cluster) closed(id signaling.RoomID) {
	if cl == nil {
		return
	}
	if shared, ok := cl.rooms[id]; ok && shared.entering == 0 {
		delete(cl.rooms, id)
		cl.remote -= shared.counted
		cl.bus.Unsubscribe(signalcluster.RoomSubject(id))
	}
}

// elsewhere tells whether a peer is a member at another server, and whether a join with the token goes on with that
// membership.
func (cl *cluster) elsewhere(id signaling.RoomID, peer signaling.PeerID, token string) (member, resumes bool) {
	if cl == nil {
		return false, false
	}
	shared, ok := cl.rooms[id]
	if !ok {
		return false, false
	}
	rec, server, ok := shared.Winner(peer)
	if !ok || server == cl.id {
		return false, false
	}
	return true, token != "" && signalcluster.HashToken(token) == rec.Token
}

// full tells whether a room has no place for one more, as far as is known here.
func (cl *cluster) full(id signaling.RoomID) bool {
	if cl == nil {
		return false
	}
	shared, ok := cl.rooms[id]
	if !ok {
		return false
	}
	own, others := shared.Counts()
	return own+others >= cl.s.cfg.Load().MaxMembers && len(shared.Members(signaling.PeerID{})) >= cl.s.cfg.Load().MaxMembers
}

// maxListed bounds the members in joined, so that it fits into a frame. A room can have more only after clusters that
// were cut apart have come together.
const maxListed = 1024

// joined announces a member here. What it changes in entry is what other servers have to do with it.
func (cl *cluster) joined(m signaling.Join, entry *signaling.Entry) {
	if cl == nil {
		return
	}
	shared, ok := cl.rooms[m.Room]
	if !ok {
		return
	}
	rec := signalcluster.Record{Peer: m.Peer, Meta: m.Meta, Gen: cl.tick(), Token: signalcluster.HashToken(entry.Token), Live: true}
	rec.Began = rec.Gen
	if old, _, known := shared.Winner(m.Peer); known && old.Token == rec.Token {
		entry.Resumed, rec.Began = true, old.Began
	}
	meta, told := shared.Told(m.Peer)
	entry.Announce = !told || meta != m.Meta
	cl.delta(m.Room, shared.Set(cl.tick(), rec))
	entry.Others = shared.Members(m.Peer)
	entry.Others = entry.Others[:min(len(entry.Others), maxListed)]
}

// away tells that a member here has lost its connection.
func (cl *cluster) away(id signaling.RoomID, peer signaling.PeerID) {
	if cl == nil {
		return
	}
	if shared, ok := cl.rooms[id]; ok {
		if rec, ok := shared.Own(peer); ok {
			rec.Live = false
			cl.delta(id, shared.Set(cl.tick(), rec))
		}
	}
}

// left tells that a member here has left the room, and the others here know.
func (cl *cluster) left(id signaling.RoomID, peer signaling.PeerID) {
	if cl == nil {
		return
	}
	if shared, ok := cl.rooms[id]; ok {
		cl.delta(id, shared.Leave(cl.tick(), peer))
	}
}

// forward sends an envelope to the server that has its receiver. False: there is none.
func (cl *cluster) forward(id signaling.RoomID, from signaling.PeerID, m signaling.SignalTo) bool {
	if cl == nil {
		return false
	}
	shared, ok := cl.rooms[id]
	if !ok {
		return false
	}
	rec, server, ok := shared.Winner(m.To)
	if !ok || server == cl.id || !rec.Live {
		return false
	}
	return cl.tellServer(server, signalcluster.Message{Type: signalcluster.TypeEnvelope, Room: id, From: from, To: m.To, Sealed: m.Sealed})
}

// missing tells whether there was no place for the room.
func (cl *cluster) missing(id signaling.RoomID) bool {
	if cl == nil {
		return false
	}
	_, ok := cl.rooms[id]
	return !ok
}
