package signaling

import (
	"crypto/subtle"
	"errors"
	"iter"
	"slices"
	"time"
)

// ConnID names a live connection of the server; it is never 0.
type ConnID uint64

// Errors of Roster.Join.
var (
	ErrPeerInUse = errors.New("this peer id is a member already and the resume token does not fit; take a new peer id or wait for the grace time")
	ErrRoomFull  = errors.New("the room is full")
)

// Roster is the membership of one room: who is a member, over which
// connection, and who lost it and may come back. It is a state machine
// without clock or I/O; the caller hands in the time and tells the members
// what happened.
//
// Invariants: a connection serves at most one member; a member has either a
// live connection or a time at which it is gone; there are at most max members.
type Roster struct {
	max     int
	grace   time.Duration
	members map[PeerID]*seat
	byConn  map[ConnID]PeerID
}

type seat struct {
	meta  Meta
	token string
	conn  ConnID    // 0 while the connection is lost
	gone  time.Time // end of the grace time; only while conn is 0
}

// NewRoster returns an empty room for at most max members, in which a member
// without a connection stays for the grace time.
func NewRoster(max int, grace time.Duration) *Roster {
	return &Roster{max: max, grace: grace, members: map[PeerID]*seat{}, byConn: map[ConnID]PeerID{}}
}

// Entry is the outcome of a join.
type Entry struct {
	Token    string   // the resume token, the same through all resumes
	Resumed  bool     // the membership went on
	Replaced ConnID   // the connection that is to be closed now, or 0
	Announce bool     // the others are to be told: new member or new meta
	Others   []Member // in order of id
}

// Join makes the peer a member over conn. A peer that is a member already
// must show its token; its new connection then replaces the old one at once.
// fresh is the token for a new member. conn must not be a member yet.
func (r *Roster) Join(conn ConnID, peer PeerID, meta Meta, token, fresh string) (Entry, error) {
	s, known := r.members[peer]
	var e Entry
	switch {
	case !known && len(r.members) >= r.max:
		return Entry{}, ErrRoomFull
	case !known:
		s = &seat{token: fresh}
		r.members[peer] = s
		e.Announce = true
	case subtle.ConstantTimeCompare([]byte(token), []byte(s.token)) != 1:
		return Entry{}, ErrPeerInUse
	default:
		e.Resumed, e.Replaced, e.Announce = true, s.conn, s.meta != meta
		delete(r.byConn, s.conn)
	}
	s.meta, s.conn, s.gone = meta, conn, time.Time{}
	r.byConn[conn] = peer
	e.Token, e.Others = s.token, r.others(peer)
	return e, nil
}

// others returns all members but one, in order of id.
func (r *Roster) others(but PeerID) []Member {
	list := make([]Member, 0, len(r.members)-1)
	for peer, s := range r.members {
		if peer != but {
			list = append(list, Member{Peer: peer, Meta: s.meta})
		}
	}
	SortMembers(list)
	return list
}

// SortMembers puts members in order of id.
func SortMembers(list []Member) {
	slices.SortFunc(list, func(a, b Member) int { return a.Peer.Compare(b.Peer) })
}

// Leave ends the membership behind conn at once. ok is false if there is none.
func (r *Roster) Leave(conn ConnID) (peer PeerID, ok bool) {
	peer, ok = r.byConn[conn]
	if ok {
		delete(r.byConn, conn)
		delete(r.members, peer)
	}
	return peer, ok
}

// Disconnect tells that conn is lost. Its member stays until now plus the
// grace time. A connection that was replaced is nobody's; then it does nothing.
func (r *Roster) Disconnect(now time.Time, conn ConnID) {
	peer, ok := r.byConn[conn]
	if !ok {
		return
	}
	delete(r.byConn, conn)
	s := r.members[peer]
	s.conn, s.gone = 0, now.Add(r.grace)
}

// Tick removes the members whose grace time is over and returns them, in
// order of id.
func (r *Roster) Tick(now time.Time) []PeerID {
	if r.Waiting() == 0 {
		return nil
	}
	var gone []PeerID
	for peer, s := range r.members {
		if s.conn == 0 && !now.Before(s.gone) {
			gone = append(gone, peer)
			delete(r.members, peer)
		}
	}
	slices.SortFunc(gone, PeerID.Compare)
	return gone
}

// Conn returns the live connection of a member; ok is false if the peer is no
// member or has none now.
func (r *Roster) Conn(peer PeerID) (conn ConnID, ok bool) {
	s, known := r.members[peer]
	if !known || s.conn == 0 {
		return 0, false
	}
	return s.conn, true
}

// Conns yields the members that are connected, in no order. Disconnect may be
// called meanwhile.
func (r *Roster) Conns() iter.Seq2[PeerID, ConnID] {
	return func(yield func(PeerID, ConnID) bool) {
		for peer, s := range r.members {
			if s.conn != 0 && !yield(peer, s.conn) {
				return
			}
		}
	}
}

// Peer returns the member behind a connection.
func (r *Roster) Peer(conn ConnID) (PeerID, bool) {
	peer, ok := r.byConn[conn]
	return peer, ok
}

// Len returns the number of members, those within the grace time included.
func (r *Roster) Len() int { return len(r.members) }

// Waiting returns the number of members without a connection.
func (r *Roster) Waiting() int { return len(r.members) - len(r.byConn) }
