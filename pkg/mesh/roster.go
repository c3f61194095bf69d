package mesh

import (
	"time"

	"github.com/crmesh/crmesh/pkg/signaling"
)

// signalEvent takes what the signaling server tells. It never ends a link.
func (l *loop) signalEvent(e SignalEvent) {
	switch e := e.(type) {
	case Joined:
		l.joinedRoom(e)
	case MemberJoined:
		l.list(e.Member)
		l.choose()
	case MemberLeft:
		l.unlist(e.Peer)
		l.choose()
	case Signal:
		l.askedBy(e)
		if m := l.members[e.From]; m != nil {
			m.known()
			m.signal(e.Description)
		} else {
			l.log.Debug("dropped a description from a peer that is no member", "peer", e.From)
		}
	case Unreachable:
		if m := l.members[e.Peer]; m != nil {
			m.unknown()
		}
	case Disconnected:
		if l.node.introduced.Swap(false) {
			for _, m := range l.members {
				m.tryAgain()
			}
		}
		l.serverErr = e.Err
		if l.serverErr == nil {
			l.serverErr = errServerGone
		}
		l.log.Warn("the signaling server is out of reach; links stay as they are", "err", l.serverErr, "retry", e.RetryIn)
	}
}

// joinedRoom takes a new member list. Those that are missing may be on their way back: the signaler says when they left.
func (l *loop) joinedRoom(e Joined) {
	l.node.setICEServers(iceServersOf(l.node.ownServers(e.ICEServers)))
	l.node.introduced.Store(true)
	again := l.joined
	l.joined, l.serverErr = true, nil
	l.log.Info("joined the room", "members", len(e.Members))
	for _, m := range e.Members {
		l.list(m)
	}
	l.choose()
	if again { // what was sent to the old connection may be lost
		for _, m := range l.members {
			m.tryAgain()
		}
	}
}

// list takes a member, or its new meta.
func (l *loop) list(sm signaling.Member) {
	id := sm.Peer
	if id == l.node.peer {
		return
	}
	if _, known := l.listed[id]; !known && len(l.listed) >= maxMembers {
		l.log.Warn("the room has more members than can be linked to; one is left out", "peer", id)
		return
	}
	l.listed[id] = sm.Meta
	if m := l.members[id]; m != nil {
		m.mu.Lock()
		m.meta = sm.Meta
		m.mu.Unlock()
		m.known()
		m.left.Store(false)
	}
}

// unlist lets go of a member; if its link is open, once that has ended.
func (l *loop) unlist(id signaling.PeerID) {
	delete(l.listed, id)
	if m := l.members[id]; m != nil {
		m.unknown()
		m.left.Store(true)
		m.asked.Store(false)
		m.list(false)
	}
}

// startMember starts to look after a member. It gets the descriptions that wait for it first.
func (l *loop) startMember(sm signaling.Member, wanted bool, waiting chan signaling.Description) {
	n := l.node
	note := l.near.note(sm.Peer)
	m := &member{
		node: n, id: sm.Peer, meta: sm.Meta, log: l.log.With("peer", sm.Peer), state: LinkWaiting, reached: LinkWaiting,
		session: note.session, offeredSession: note.offeredSession, signals: waiting, pion: make(chan pionEvent, maxPion),
		doubts: make(chan doubt), poked: make(chan struct{}, 1), renamed: make(chan struct{}, 1),
	}
	if _, always := l.near.graph[sm.Peer]; wanted && !always {
		m.hurried = true // the other side does not know that it takes somebody's place
	}
	m.listed.Store(wanted)
	m.asked.Store(!wanted)
	l.members[sm.Peer] = m
	n.wg.Go(func() {
		m.run(n.ctx)
		select {
		case n.ended <- m:
		case <-n.ctx.Done():
		}
	})
}

// memberEnded forgets a member, unless it is wanted by now, or asks again.
func (l *loop) memberEnded(m *member) {
	delete(l.members, m.id)
	delete(l.via, m.id)
	meta, ok := l.listed[m.id]
	if !ok {
		return
	}
	note := l.near.note(m.id)
	note.session, note.offeredSession, note.surplus = m.session, m.offeredSession, time.Time{}
	if wanted := l.wants(m.id); wanted || m.asked.Load() && len(m.signals) > 0 {
		l.startMember(signaling.Member{Peer: m.id, Meta: meta}, wanted, m.signals)
	}
}
