package signaling

import (
	"crypto/sha256"
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
//
// A server has many rooms with few members each, on which nothing happens. So
// members are a list, which is all that a room has.
type Roster struct {
	max   int
	grace time.Duration
	seats []seat               // in order of id
	gone  map[PeerID]time.Time // ends of grace times, of those whose connection is lost
}

type seat struct {
	peer  PeerID
	meta  Meta
	token [sha256.Size]byte // its digest
	conn  ConnID            // 0 while the connection is lost
}

// NewRoster returns an empty room for at most max members, in which a member
// without a connection stays for the grace time.
func NewRoster(max int, grace time.Duration) *Roster {
	return &Roster{max: max, grace: grace}
}

// seat returns the place of a peer in the list, and whether it is there.
func (r *Roster) seat(peer PeerID) (int, bool) {
	return slices.BinarySearchFunc(r.seats, peer, func(s seat, p PeerID) int { return s.peer.Compare(p) })
}

// seatOf returns the place of the member behind a connection, or -1.
func (r *Roster) seatOf(conn ConnID) int {
	if conn == 0 {
		return -1
	}
	for i := range r.seats {
		if r.seats[i].conn == conn {
			return i
		}
	}
	return -1
}

// remove takes a member off the list.
func (r *Roster) remove(i int) {
	delete(r.gone, r.seats[i].peer)
	r.seats = slices.Delete(r.seats, i, i+1)
	const small = 8
	if n := len(r.seats); cap(r.seats) > small && n < cap(r.seats)/4 {
		r.seats = append(make([]seat, 0, 2*n), r.seats...)
	}
}

// SetLimits changes what NewRoster was given. Nobody has to go for it: members
// above max stay, and who is in the grace time has that of before.
func (r *Roster) SetLimits(max int, grace time.Duration) { r.max, r.grace = max, grace }

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
	i, known := r.seat(peer)
	e := Entry{Token: token}
	switch {
	case !known && len(r.seats) >= r.max:
		return Entry{}, ErrRoomFull
	case !known:
		e.Token, e.Announce = fresh, true
		r.seats = slices.Insert(r.seats, i, seat{peer: peer, token: sha256.Sum256([]byte(fresh))})
	case !r.seats[i].has(token):
		return Entry{}, ErrPeerInUse
	default:
		e.Resumed, e.Replaced, e.Announce = true, r.seats[i].conn, r.seats[i].meta != meta
		delete(r.gone, peer)
	}
	r.seats[i].meta, r.seats[i].conn = meta, conn
	e.Others = r.others(i)
	return e, nil
}

// has tells whether the token is the member's.
func (s *seat) has(token string) bool {
	digest := sha256.Sum256([]byte(token))
	return subtle.ConstantTimeCompare(digest[:], s.token[:]) == 1
}

// Resumes tells whether a join with this token would go on with a membership
// that is there already.
func (r *Roster) Resumes(peer PeerID, token string) bool {
	i, known := r.seat(peer)
	return known && r.seats[i].has(token)
}

// others returns all members but one, in order of id.
func (r *Roster) others(but int) []Member {
	list := make([]Member, 0, len(r.seats)-1)
	for i, s := range r.seats {
		if i != but {
			list = append(list, Member{Peer: s.peer, Meta: s.meta})
		}
	}
	return list
}

// SortMembers puts members in order of id.
func SortMembers(list []Member) {
	slices.SortFunc(list, func(a, b Member) int { return a.Peer.Compare(b.Peer) })
}

// Leave ends the membership behind conn at once. ok is false if there is none.
func (r *Roster) Leave(conn ConnID) (peer PeerID, ok bool) {
	i := r.seatOf(conn)
	if i < 0 {
		return PeerID{}, false
	}
	peer = r.seats[i].peer
	r.remove(i)
	return peer, true
}

// Evict ends the membership of a peer at once, and returns the connection that
// it had, or 0.
func (r *Roster) Evict(peer PeerID) ConnID {
	i, known := r.seat(peer)
	if !known {
		return 0
	}
	conn := r.seats[i].conn
	r.remove(i)
	return conn
}

// Has tells whether the peer is a member.
func (r *Roster) Has(peer PeerID) bool {
	_, known := r.seat(peer)
	return known
}

// Disconnect tells that conn is lost. Its member stays until now plus the
// grace time. A connection that was replaced is nobody's; then it does nothing.
func (r *Roster) Disconnect(now time.Time, conn ConnID) {
	i := r.seatOf(conn)
	if i < 0 {
		return
	}
	if r.gone == nil {
		r.gone = map[PeerID]time.Time{}
	}
	r.seats[i].conn, r.gone[r.seats[i].peer] = 0, now.Add(r.grace)
}

// Tick removes the members whose grace time is over and returns them, in
// order of id.
func (r *Roster) Tick(now time.Time) []PeerID {
	var over []PeerID
	for peer, end := range r.gone {
		if !now.Before(end) {
			over = append(over, peer)
		}
	}
	for _, peer := range over {
		r.Evict(peer)
	}
	if len(r.gone) == 0 {
		r.gone = nil
	}
	slices.SortFunc(over, PeerID.Compare)
	return over
}

// Conn returns the live connection of a member; ok is false if the peer is no
// member or has none now.
func (r *Roster) Conn(peer PeerID) (conn ConnID, ok bool) {
	i, known := r.seat(peer)
	if !known || r.seats[i].conn == 0 {
		return 0, false
	}
	return r.seats[i].conn, true
}

// Conns yields the members that are connected, in order of id. Disconnect may
// be called meanwhile.
func (r *Roster) Conns() iter.Seq2[PeerID, ConnID] {
	return func(yield func(PeerID, ConnID) bool) {
		for i := range r.seats {
			if s := &r.seats[i]; s.conn != 0 && !yield(s.peer, s.conn) {
				return
			}
		}
	}
}

// Peer returns the member behind a connection.
func (r *Roster) Peer(conn ConnID) (PeerID, bool) {
	i := r.seatOf(conn)
	if i < 0 {
		return PeerID{}, false
	}
	return r.seats[i].peer, true
}

// Len returns the number of members, those within the grace time included.
func (r *Roster) Len() int { return len(r.seats) }

// Waiting returns the number of members without a connection.
func (r *Roster) Waiting() int { return len(r.gone) }
