package mesh

import "github.com/crmesh/crmesh/pkg/signaling"

// signalEvent takes what the signaling server tells. It never ends a link.
func (l *loop) signalEvent(e SignalEvent) {
	switch e := e.(type) {
	case Joined:
		l.joinedRoom(e)
	case MemberJoined:
		l.list(e.Member)
	case MemberLeft:
		l.unlist(e.Peer)
	case Signal:
		if m := l.members[e.From]; m != nil {
			m.signal(e.Description)
		} else {
			l.log.Debug("dropped a description from a peer that is no member", "peer", e.From)
		}
	case Disconnected:
		l.node.introduced.Store(false)
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
	l.joined, l.serverErr = true, nil
	l.log.Info("joined the room", "members", len(e.Members))
	for _, m := range e.Members {
		l.list(m)
	}
	for _, m := range l.members {
		m.poke()
	}
}

// list starts to look after a member, or takes its new meta.
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
	m := l.members[id]
	if m == nil {
		l.startMember(sm)
		return
	}
	m.mu.Lock()
	m.meta = sm.Meta
	m.mu.Unlock()
	m.list(true)
}

// unlist lets go of a member; if its link is open, once that has ended.
func (l *loop) unlist(id signaling.PeerID) {
	delete(l.listed, id)
	if m := l.members[id]; m != nil {
		m.list(false)
	}
}

func (l *loop) startMember(sm signaling.Member) {
	n := l.node
	m := &member{
		node: n, id: sm.Peer, meta: sm.Meta, log: l.log.With("peer", sm.Peer), state: LinkWaiting, reached: LinkWaiting,
		signals: make(chan signaling.Description, maxSignals), pion: make(chan pionEvent, maxPion),
		doubts: make(chan doubt), poked: make(chan struct{}, 1),
	}
	m.listed.Store(true)
	l.members[sm.Peer] = m
	n.wg.Go(func() {
		m.run(n.ctx)
		select {
		case n.ended <- m:
		case <-n.ctx.Done():
		}
	})
}

// memberEnded forgets a member, unless the room lists it again by now.
func (l *loop) memberEnded(m *member) {
	delete(l.members, m.id)
	if meta, ok := l.listed[m.id]; ok {
		l.startMember(signaling.Member{Peer: m.id, Meta: meta})
	}
}
