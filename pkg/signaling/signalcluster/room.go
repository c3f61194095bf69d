package signalcluster

import (
	"time"

	"github.com/crmesh/crmesh/pkg/signaling"
)

// Room is what one server knows of a room: its own members, which it alone changes, those of each other server, and
// what it has told its own members about all of them. It is a state machine without clock or I/O.
//
// A peer may be with several servers for a while: it went to another one, and its old one has not heard yet. Then the
// winner counts, and the others give it up as soon as they know.
type Room struct {
	self  ServerID
	views map[ServerID]*view // that of self is always there
	told  map[signaling.PeerID]signaling.Meta
	dirty map[signaling.PeerID]struct{} // what was told, or who wins, may have changed
	next  time.Time                     // when Tick has something to do; zero: never
}

// view is what one server says.
type view struct {
	version uint64 // 0: to be asked for
	records map[signaling.PeerID]*seat
	lost    bool
	checked time.Time // when the version was last known to be the latest
	asked   time.Time // the last question

	parts   []Record // of a state that is not complete yet
	part    int      // how many there are
	partsOf uint64   // its version
}

type seat struct {
	Record
	until time.Time // when it goes, unless its server says something new; zero: it stays
}

// NewRoom returns a room without members, at the server self.
func NewRoom(self ServerID) *Room {
	return &Room{
		self:  self,
		views: map[ServerID]*view{self: {records: map[signaling.PeerID]*seat{}}},
		told:  map[signaling.PeerID]signaling.Meta{},
		dirty: map[signaling.PeerID]struct{}{},
	}
}

// Own returns the own record of a peer.
func (r *Room) Own(peer signaling.PeerID) (Record, bool) {
	if s, ok := r.views[r.self].records[peer]; ok {
		return s.Record, true
	}
	return Record{}, false
}

// Version returns the version of the own members; 0: there have been none.
func (r *Room) Version() uint64 { return r.views[r.self].version }

// Set makes a peer a member here, or changes it. The others here have been told. version is above all before.
func (r *Room) Set(version uint64, rec Record) Delta {
	r.views[r.self].records[rec.Peer] = &seat{Record: rec}
	r.told[rec.Peer] = rec.Meta
	r.dirty[rec.Peer] = struct{}{}
	return r.advance(Delta{Version: version, Set: []Record{rec}})
}

// Leave removes a member here that has left the room. The others here have been told.
func (r *Room) Leave(version uint64, peer signaling.PeerID) Delta {
	r.left(r.views[r.self], peer)
	delete(r.told, peer)
	return r.advance(Delta{Version: version, Left: []signaling.PeerID{peer}})
}

// Move removes a member here that is now one elsewhere.
func (r *Room) Move(version uint64, peer signaling.PeerID) Delta {
	delete(r.views[r.self].records, peer)
	r.dirty[peer] = struct{}{}
	return r.advance(Delta{Version: version, Moved: []signaling.PeerID{peer}})
}

func (r *Room) advance(d Delta) Delta {
	own := r.views[r.self]
	d.Prev, own.version = own.version, d.Version
	return d
}

// State returns the parts of all own members. version is for a room that has never had one.
func (r *Room) State(room signaling.RoomID, version uint64) []State {
	own := r.views[r.self]
	if own.version != 0 {
		version = own.version
	}
	parts := max((len(own.records)+PartRecords-1)/PartRecords, 1)
	states := make([]State, 0, parts)
	records := make([]Record, 0, len(own.records))
	for _, s := range own.records {
		records = append(records, s.Record)
	}
	for i := range parts {
		end := min((i+1)*PartRecords, len(records))
		states = append(states, State{Room: room, Version: version, Part: i, Parts: parts, Members: records[i*PartRecords : end]})
	}
	return states
}

// Delta takes a change at another server. ask says that some are missing: its state is needed.
func (r *Room) Delta(now time.Time, server ServerID, d Delta) (ask bool) {
	v := r.view(server)
	switch {
	case v == nil || d.Version <= v.version:
		return false
	case d.Prev == 0:
		r.replace(now, v, d.Set)
	case d.Prev != v.version:
		return r.ask(now, v)
	}
	for _, rec := range d.Set {
		r.put(v, rec)
	}
	for _, peer := range d.Left {
		r.left(v, peer)
	}
	for _, peer := range d.Moved {
		r.linger(v, peer, now.Add(Linger))
	}
	r.current(now, server, v, d.Version)
	return false
}

// ApplyState takes a part of what another server has. complete says that all parts are here.
func (r *Room) ApplyState(now time.Time, server ServerID, s State) (complete bool) {
	v := r.view(server)
	if v == nil || s.Version < v.version {
		return true // old; what is newer is here
	}
	if s.Part == 0 {
		v.parts, v.part, v.partsOf = nil, 0, s.Version
	}
	if s.Part != v.part || s.Version != v.partsOf || len(v.parts)+len(s.Members) > MaxRecords {
		v.parts, v.part = nil, 0
		return false
	}
	v.parts = append(v.parts, s.Members...)
	if v.part++; v.part < s.Parts {
		return false
	}
	all := v.parts
	v.parts, v.part = nil, 0
	r.replace(now, v, all)
	r.current(now, server, v, s.Version)
	return true
}

// Confirm takes what an inventory says. ask says that the state is needed.
func (r *Room) Confirm(now time.Time, server ServerID, version uint64) (ask bool) {
	v := r.view(server)
	if v == nil {
		return false
	}
	if version > v.version {
		return r.ask(now, v)
	}
	v.checked = now
	return false
}

// Stale returns the servers whose members here were in no inventory for StaleAfter: to be asked.
func (r *Room) Stale(now time.Time) (ask []ServerID) {
	for server, v := range r.views {
		if server != r.self && !v.lost && now.Sub(v.checked) >= StaleAfter && r.ask(now, v) {
			ask = append(ask, server)
		}
	}
	return ask
}

// Lost says that a server is gone: its members leave at until, unless they come back somewhere.
func (r *Room) Lost(server ServerID, until time.Time) {
	v, ok := r.views[server]
	if !ok || server == r.self || v.lost {
		return
	}
	v.lost, v.version, v.parts, v.part = true, 0, nil, 0
	for peer := range v.records {
		r.linger(v, peer, until)
	}
	r.prune(server, v)
}

// Tick ends the members whose time is over. ended says that there may have been some.
func (r *Room) Tick(now time.Time) (ended bool) {
	if r.next.IsZero() || now.Before(r.next) {
		return false
	}
	r.next = time.Time{}
	for server, v := range r.views {
		for peer, s := range v.records {
			switch {
			case s.until.IsZero():
			case !now.Before(s.until):
				delete(v.records, peer)
				r.dirty[peer] = struct{}{}
			default:
				r.wake(s.until)
			}
		}
		r.prune(server, v)
	}
	return true
}

// view returns the view of another server, a new one if need be; nil if there are too many.
func (r *Room) view(server ServerID) *view {
	v, ok := r.views[server]
	switch {
	case ok && server != r.self:
		return v
	case ok || len(r.views) > MaxServers:
		return nil
	}
	v = &view{records: map[signaling.PeerID]*seat{}}
	r.views[server] = v
	return v
}

func (r *Room) ask(now time.Time, v *view) bool {
	if now.Sub(v.asked) < AskInterval {
		return false
	}
	v.asked = now
	return true
}

// put takes over a record of another server; above MaxRecords it is not known.
func (r *Room) put(v *view, rec Record) {
	if _, known := v.records[rec.Peer]; !known && len(v.records) >= MaxRecords {
		return
	}
	v.records[rec.Peer] = &seat{Record: rec}
	r.dirty[rec.Peer] = struct{}{}
}

// replace makes list all that a server has. What it had before lingers.
func (r *Room) replace(now time.Time, v *view, list []Record) {
	old := v.records
	v.records = make(map[signaling.PeerID]*seat, len(list))
	for _, rec := range list {
		r.put(v, rec)
	}
	for peer, s := range old {
		if _, stays := v.records[peer]; !stays && len(v.records) < MaxRecords {
			v.records[peer] = s
			r.linger(v, peer, now.Add(Linger))
		}
		r.dirty[peer] = struct{}{}
	}
}

// left removes a member that has left, and what servers it was with before may still have of it.
func (r *Room) left(v *view, peer signaling.PeerID) {
	s, ok := v.records[peer]
	if !ok {
		return
	}
	delete(v.records, peer)
	r.dirty[peer] = struct{}{}
	for _, other := range r.views {
		if old, has := other.records[peer]; has && !old.until.IsZero() && old.Token == s.Token && old.Gen < s.Gen {
			delete(other.records, peer)
		}
	}
}

// linger gives a record its end, if it has no sooner one.
func (r *Room) linger(v *view, peer signaling.PeerID, until time.Time) {
	s, ok := v.records[peer]
	if !ok {
		return
	}
	if s.until.IsZero() || until.Before(s.until) {
		s.until = until
	}
	s.Live = false
	r.dirty[peer] = struct{}{}
	r.wake(s.until)
}

func (r *Room) wake(at time.Time) {
	if r.next.IsZero() || at.Before(r.next) {
		r.next = at
	}
}

func (r *Room) current(now time.Time, server ServerID, v *view, version uint64) {
	v.version, v.checked, v.lost = version, now, false
	r.prune(server, v)
}

// prune forgets a server that has nobody here.
func (r *Room) prune(server ServerID, v *view) {
	if server != r.self && len(v.records) == 0 && v.part == 0 {
		delete(r.views, server)
	}
}
