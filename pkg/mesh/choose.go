package mesh

import (
	"time"

	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
	"github.com/crmesh/crmesh/pkg/signaling"
)

// neighbourTicks is how many ticks lie between two looks at the neighbours: a quarter of a second.
const neighbourTicks = 250 / syncproto.TickMillis

// choose computes the neighbours anew: it starts to look after those that are wanted, and no longer makes links to others.
func (l *loop) choose() {
	l.near.choose()
	for id := range l.near.wanted {
		l.lookAfter(id)
	}
	for id := range l.visits {
		if l.wants(id) {
			l.lookAfter(id)
		}
	}
	for id, m := range l.members {
		if m.listed.Load() && !l.wants(id) {
			m.list(false)
		}
	}
}

// wants reports whether we want a link to a member: a neighbour, or one that we visit.
func (l *loop) wants(id signaling.PeerID) bool {
	if l.near.wants(id) {
		return true
	}
	_, visited := l.visits[id]
	_, listed := l.listed[id]
	return visited && listed
}

// lookAfter has a link made to a member that is wanted.
func (l *loop) lookAfter(id signaling.PeerID) {
	m := l.members[id]
	if m == nil {
		l.startMember(signaling.Member{Peer: id, Meta: l.listed[id]}, true, make(chan signaling.Description, maxSignals))
		return
	}
	if !m.listed.Load() {
		m.list(true)
	}
	m.asked.Store(false) // if we want it no more one day, the other side may ask again
}

// askedBy lets in a listed member that is no neighbour of ours and asks for a link: its list may be another one than ours, or we
// are to take the place of somebody whom it cannot reach. It may want none any more by now: then it says so over the link.
func (l *loop) askedBy(e Signal) {
	meta, ok := l.listed[e.From]
	if !ok || l.wants(e.From) || e.Description.Kind != signaling.KindOffer && e.Description.Kind != signaling.KindWant {
		return
	}
	if k := l.linkTo(e.From); k != nil && e.Description.Session <= k.conn.session {
		return // about the link that there is
	}
	m := l.members[e.From]
	switch {
	case m != nil && m.asked.Load():
		return
	case !l.admits(meta):
		l.log.Debug("a member that is no neighbour asks for a link and gets none", "peer", e.From)
		return
	case m != nil:
		m.asked.Store(true)
		return
	}
	l.startMember(signaling.Member{Peer: e.From, Meta: meta}, false, make(chan signaling.Description, maxSignals))
}

// admits reports whether there is a place for a link that we do not need, to a member that does.
func (l *loop) admits(m signaling.Meta) bool {
	return l.near.mayLink(m) && l.countAsked() < l.maxAsked()
}

// maxAsked bounds the links that others ask for, beyond those of our graph.
func (l *loop) maxAsked() int {
	if l.near.self.Meta.Replica {
		return signaling.ReplicaLinks
	}
	return signaling.BrowserLinks
}

func (l *loop) countAsked() (n int) {
	for _, m := range l.members {
		if m.asked.Load() {
			n++
		}
	}
	return n
}

func (l *loop) linkTo(id signaling.PeerID) *link {
	for _, k := range l.links {
		if k.conn.peer == id {
			return k
		}
	}
	return nil
}

// lookAtNeighbours gives up those that do not answer, and closes links that nobody needs any more.
func (l *loop) lookAtNeighbours(now time.Time) {
	links := make(map[signaling.PeerID]linkNow, len(l.links))
	alone := !l.node.introduced.Load()
	for _, s := range l.core.Status().Links {
		k := l.links[s.Link]
		if k == nil {
			continue
		}
		heard := k.conn.epoch.Add(time.Duration(k.conn.heard.Load()))
		links[k.conn.peer] = linkNow{open: true, heard: heard, live: s.Live, writer: s.Writer}
		alone = alone && now.Sub(heard) >= l.near.timing.repair
	}
	at := func(id signaling.PeerID) linkNow {
		if k, ok := links[id]; ok {
			return k
		}
		m := l.members[id]
		return linkNow{coming: m != nil && m.coming()}
	}
	if l.near.look(now, alone, at) {
		l.choose()
	}
	complete := l.near.complete(at)
	for _, k := range l.links {
		id := k.conn.peer
		meta, listed := l.listed[id]
		m := l.members[id]
		switch {
		case !listed || m == nil: // of those that left the room, links live on
		case l.wants(id):
			k.need(true)
		case !l.near.surplus(now, id, complete):
		case k.spareThere, !m.asked.Load() && (!k.live || !l.admits(meta)):
			l.log.Info("link closed: it is not needed any more", "peer", id, "site", k.conn.site)
			k.conn.send(&syncproto.Bye{Sentence: "this link is not needed any more"})
			k.conn.finish(errSurplus)
			l.forget(k)
		default: // it is kept for the other side, as if that had asked; for it may believe the same of us
			m.asked.Store(true)
			k.need(false)
		}
	}
}
