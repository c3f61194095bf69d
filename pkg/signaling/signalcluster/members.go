package signalcluster

import (
	"bytes"
	"cmp"

	"github.com/crmesh/crmesh/pkg/signaling"
)

// Winner returns the record that counts of those that servers have of one peer, and whose it is. It depends on nothing
// but these records, so that all servers come to the same.
//
// Records with one token are of one client: the latest join counts. Of different tokens the membership counts that began
// first: whoever else uses its peer id would have been refused, had the servers known.
func (r *Room) Winner(peer signaling.PeerID) (rec Record, server ServerID, ok bool) {
	var first candidate // with the token that counts
	for s, v := range r.views {
		if seat, has := v.records[peer]; has {
			if c := (candidate{seat.Record, s}); !ok || c.compare(first, c.Began, first.Began) < 0 {
				first, ok = c, true
			}
		}
	}
	if !ok {
		return Record{}, ServerID{}, false
	}
	best := first
	for s, v := range r.views {
		if seat, has := v.records[peer]; has && seat.Token == first.Token {
			if c := (candidate{seat.Record, s}); c.compare(best, c.Gen, best.Gen) > 0 {
				best = c
			}
		}
	}
	return best.Record, best.server, true
}

type candidate struct {
	Record
	server ServerID
}

// compare orders candidates by the numbers a and b, and equal ones by their servers.
func (c candidate) compare(d candidate, a, b uint64) int {
	return cmp.Or(cmp.Compare(a, b), bytes.Compare(c.server[:], d.server[:]))
}

// Members returns all members but one, in order of id.
func (r *Room) Members(but signaling.PeerID) []signaling.Member {
	seen := map[signaling.PeerID]struct{}{but: {}}
	list := []signaling.Member{}
	for _, v := range r.views {
		for peer := range v.records {
			if _, double := seen[peer]; double {
				continue
			}
			seen[peer] = struct{}{}
			rec, _, _ := r.Winner(peer)
			list = append(list, signaling.Member{Peer: peer, Meta: rec.Meta})
		}
	}
	signaling.SortMembers(list)
	return list
}

// Counts returns how many records of members there are here, and from other servers. A peer that moves may count twice.
func (r *Room) Counts() (own, others int) {
	for server, v := range r.views {
		if server == r.self {
			own = len(v.records)
		} else {
			others += len(v.records)
		}
	}
	return own, others
}

// Servers returns the other servers that have members here and are not lost.
func (r *Room) Servers() []ServerID {
	var list []ServerID
	for server, v := range r.views {
		if server != r.self && !v.lost && len(v.records) > 0 {
			list = append(list, server)
		}
	}
	return list
}

// Told returns what the members here were told of a peer.
func (r *Room) Told(peer signaling.PeerID) (signaling.Meta, bool) {
	meta, ok := r.told[peer]
	return meta, ok
}

// Loss is a member here that is one elsewhere, by a record that counts more.
type Loss struct {
	Peer   signaling.PeerID
	Record Record // the other one
	Theft  bool   // the tokens differ: it is another client
}

// Losses returns the members here that have to be given up, by Move, since the last Changes.
func (r *Room) Losses() []Loss {
	var list []Loss
	for peer := range r.dirty {
		own, here := r.Own(peer)
		if !here {
			continue
		}
		if rec, server, _ := r.Winner(peer); server != r.self {
			list = append(list, Loss{Peer: peer, Record: rec, Theft: rec.Token != own.Token})
		}
	}
	return list
}

// Change is what the members here are to be told: Left, or a member that is new or has new meta.
type Change struct {
	signaling.Member
	Left bool
}

// Changes returns at most limit changes, which from then on count as told; more says that there are others.
func (r *Room) Changes(limit int) (list []Change, more bool) {
	for peer := range r.dirty {
		if len(list) >= limit {
			return list, true
		}
		delete(r.dirty, peer)
		rec, _, member := r.Winner(peer)
		meta, known := r.told[peer]
		switch {
		case member && (!known || meta != rec.Meta):
			r.told[peer] = rec.Meta
			list = append(list, Change{Member: signaling.Member{Peer: peer, Meta: rec.Meta}})
		case !member && known:
			delete(r.told, peer)
			list = append(list, Change{Member: signaling.Member{Peer: peer}, Left: true})
		}
	}
	return list, false
}
