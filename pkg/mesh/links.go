package mesh

import (
	"time"

	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
	"github.com/crmesh/crmesh/pkg/signaling"
)

// link is a conn as the core knows it.
type link struct {
	id         syncproto.LinkID
	conn       *conn
	live       bool      // both sides have said hello
	spareHere  bool      // we have said that we do not need it
	spareThere bool      // the other side has
	behind     time.Time // since when the other side covers less than we do; zero: it does not
	in, out    uint64    // bytes at the last look
	rateIn     float64   // bytes a second
	rateOut    float64
	lastLook   time.Time
}

// linkEvent takes what conns, members and the watch of the network post.
func (l *loop) linkEvent(e linkEvent) {
	switch {
	case e.up:
		if l.renewals.reason != "" || e.conn.ownSite != *l.node.site.Load() {
			e.conn.finish(errRenewing)
			return
		}
		l.open(e.conn)
		return
	case e.network != nil:
		l.networkChanged(e.network)
		return
	case e.relay != nil:
		l.sendRelay(e.relay)
		return
	}
	k := l.byConn[e.conn]
	if k == nil {
		return // the core closed it before
	}
	switch {
	case e.down:
		l.log.Info("link closed", "peer", e.conn.peer, "site", e.conn.site, "err", e.conn.reason())
		l.forget(k)
	case e.refused != nil:
		l.log.Warn("a peer sent what is no message", "peer", e.conn.peer, "err", e.refused)
		l.core.Refuse(k.id, e.refused)
	default:
		l.message(k, e.message)
	}
}

// message takes out what is for the mesh; the rest is the core's.
func (l *loop) message(k *link, m syncproto.Message) {
	relay, relayed := m.(*syncproto.Relay)
	need, told := m.(*syncproto.Need)
	switch {
	case !relayed && !told:
		l.step(k, m)
	case !k.live:
		l.core.Refuse(k.id, &syncproto.Error{Code: syncproto.CodeMalformed, Sentence: "the first message is not a hello"})
	case relayed:
		l.relayed(k, relay)
	default:
		k.spareThere = !need.Needed
	}
}

// open makes a link of a conn. If there is another of its site, the core ends that one: it is a ghost.
func (l *loop) open(c *conn) {
	l.nextID++
	k := &link{id: l.nextID, conn: c, lastLook: time.Now()}
	l.links[k.id], l.byConn[c] = k, k
	var proof []byte
	if keys := l.node.cfg.Keys; keys.CanWrite() {
		proof = signaling.SignRole(keys.WriterPrivate, c.own, c.remote)
	}
	for id, m := range l.members {
		if id != c.peer {
			m.succeeded(c.site)
		}
	}
	l.log.Info("link open", "peer", c.peer, "site", c.site)
	l.core.Open(k.id, syncproto.OpenInfo{Remote: c.site, Proof: proof, Resume: l.resume[c.site]})
}

// step hands a message to the core. That a writer is one is checked here, since the core knows no keys.
func (l *loop) step(k *link, m syncproto.Message) {
	if h, ok := m.(*syncproto.Hello); ok && h.Writer &&
		!signaling.VerifyRole(l.node.cfg.Keys.WriterPublic, k.conn.remote, k.conn.own, h.Proof) {
		l.core.Refuse(k.id, &syncproto.Error{Code: syncproto.CodeBadProof,
			Sentence: "the proof of the writer role does not fit this connection"})
		return
	}
	if _, ok := m.(*syncproto.DigestRequest); ok && k.conn.queued() > maxUnread {
		l.core.Refuse(k.id, &syncproto.Error{Code: syncproto.CodeFlow,
			Sentence: "digests are asked for while the answers before are not read"})
		return
	}
	l.core.Step(k.id, m)
}

func (l *loop) closeLink(c syncproto.Close) {
	k := l.links[c.Link]
	if k == nil {
		return
	}
	if c.Err != nil {
		l.log.Warn("link refused", "peer", k.conn.peer, "site", k.conn.site, "err", c.Err)
		k.conn.finish(c.Err)
	} else {
		l.log.Info("the peer left", "peer", k.conn.peer, "site", k.conn.site)
		k.conn.finish(errBye)
	}
	l.forget(k)
}

func (l *loop) forget(k *link) {
	delete(l.links, k.id)
	delete(l.byConn, k.conn)
	delete(l.answers, k.id)
	l.core.Close(k.id)
	l.liveChanged()
}

// need tells the other side whether we need the link, unless it knows.
func (k *link) need(needed bool) {
	if k.live && k.spareHere == needed {
		k.spareHere = !needed
		k.conn.send(&syncproto.Need{Needed: needed})
	}
}
