package mesh

import (
	"errors"
	"log/slog"
	"time"

	"github.com/pion/webrtc/v4"

	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
	"github.com/crmesh/crmesh/pkg/signaling"
)

// maxMembers bounds the members of a room that are linked to. The core takes no more links.
const maxMembers = syncproto.MaxLinks

// statusTicks is how many ticks lie between two looks at rates and lags: one second.
const statusTicks = 1000 / syncproto.TickMillis

// loop owns the core. Its fields are used by its goroutine only.
type loop struct {
	node  *Node
	core  *syncproto.Core
	store Store
	log   *slog.Logger
	reads chan struct{} // a place for each read that runs

	links   map[syncproto.LinkID]*link
	byConn  map[*conn]*link
	nextID  syncproto.LinkID
	members map[signaling.PeerID]*member
	listed  map[signaling.PeerID]signaling.Meta
	resume  map[syncproto.SiteID]int64
	schema  [32]byte

	// Looks at the store's heads: asked for, begun and done, by number.
	headsAsked, headsBegun, headsDone int

	ticks     int
	joined    bool
	serverErr error
	waiting   []request
	failed    error
}

// link is a conn as the core knows it.
type link struct {
	id       syncproto.LinkID
	conn     *conn
	behind   time.Time // since when the other side covers less than we do; zero: it does not
	in, out  uint64    // bytes at the last look
	rateIn   float64   // bytes a second
	rateOut  float64
	lastLook time.Time
}

func newLoop(n *Node, core *syncproto.Core, s State) *loop {
	l := &loop{
		node: n, core: core, store: n.cfg.Store, log: n.log, reads: make(chan struct{}, maxReads),
		links: map[syncproto.LinkID]*link{}, byConn: map[*conn]*link{}, members: map[signaling.PeerID]*member{},
		listed: map[signaling.PeerID]signaling.Meta{},
		resume: map[syncproto.SiteID]int64{}, schema: s.Heads.SchemaHash,
	}
	for site, reached := range s.Resume {
		l.resume[site] = reached
	}
	n.setICEServers(iceServersOf(n.ownServers(nil)))
	core.SchemaChanged(s.Heads.SchemaHash, s.Tables)
	return l
}

// run is the loop. Whatever happens, the core is told, and then asked what there is to do.
func (l *loop) run() {
	n := l.node
	defer close(n.done)
	defer l.shutdown()
	tick := time.NewTicker(syncproto.TickMillis * time.Millisecond)
	defer tick.Stop()
	signals, commits := n.signaler.Events(), l.store.Commits()
	l.heads() // what was committed between State and now
	for l.failed == nil {
		l.work()
		select {
		case e := <-n.events:
			l.linkEvent(e)
		case r := <-n.results:
			l.result(r)
		case <-commits:
			l.heads()
		case e, ok := <-signals:
			if !ok {
				signals = nil
				n.introduced.Store(false)
				continue
			}
			l.signalEvent(e)
		case <-tick.C:
			l.tick()
		case m := <-n.ended:
			l.memberEnded(m)
		case r := <-n.requests:
			l.request(r)
		case <-n.closing:
			return
		}
	}
}

// work does what the core asks for, until it asks for nothing.
func (l *loop) work() {
	for {
		r := l.core.Ready()
		if r.Empty() {
			return
		}
		for _, s := range r.Sends {
			if k := l.links[s.Link]; k != nil {
				k.conn.send(s.Message)
			}
		}
		for _, read := range r.Reads {
			l.read(read)
		}
		if r.Apply != nil {
			l.apply(*r.Apply)
		}
		for _, s := range r.Schemas {
			l.createTables(s)
		}
		for _, c := range r.Closes {
			l.closeLink(c)
		}
		for _, e := range r.Events {
			l.event(e)
		}
	}
}

func (l *loop) linkEvent(e linkEvent) {
	if e.up {
		l.open(e.conn)
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
		l.step(k, e.message)
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
	l.core.Close(k.id)
}

func (l *loop) result(r result) {
	switch {
	case r.err != nil:
		l.failed = r.err
	case r.read != nil:
		l.core.ReadDone(*r.read)
	case r.apply != nil:
		for site, reached := range r.resume {
			l.resume[site] = reached
		}
		l.core.Applied(*r.apply)
	case r.heads != nil:
		if r.heads.tables != nil || r.heads.heads.SchemaHash != l.schema {
			l.schema = r.heads.heads.SchemaHash
			l.core.SchemaChanged(l.schema, r.heads.tables)
		}
		l.core.Committed(r.heads.heads.Own, r.heads.heads.Newest)
		if r.schema != 0 {
			l.core.SchemaApplied(r.schema)
			return
		}
		l.headsDone = l.headsBegun
		l.beginHeads()
	}
}

func (l *loop) tick() {
	l.core.Tick()
	if l.ticks++; l.ticks%statusTicks == 0 {
		l.look(time.Now())
	}
	l.checkWaiting()
}

// event logs what the core has to tell.
func (l *loop) event(e syncproto.Event) {
	log := l.log.With("site", e.Remote)
	switch e.Kind {
	case syncproto.EventLive:
		log.Debug("link live")
	case syncproto.EventCaughtUp:
		log.Info("caught up with the peer")
	case syncproto.EventServed:
		log.Info("the peer caught up with us")
	case syncproto.EventSchemaDiffers:
		log.Info("the peer has another schema; what has no table here is put aside until there is one")
	case syncproto.EventTooLarge:
		log.Warn("a value is too large for the peer and was left out", "table", e.Table, "column", e.CID, "bytes", e.Size)
	case syncproto.EventStaleCopy:
		log.Error("the peer has seen writes of this database that it does not hold: it was restored from an older copy; "+
			"stop this peer, copy the file with peer clone, and start it on the clone",
			"version", e.Version)
	case syncproto.EventVectorFull:
		log.Warn("the database knows as many sites as it can; a new one is not counted")
	case syncproto.EventParked:
		log.Warn("changes could not be applied and were put aside", "count", e.Count)
	case syncproto.EventRemoteError:
		log.Warn("the peer reported an error", "err", e.Err)
	}
}

// shutdown takes leave of all links, ends what runs and waits for it.
func (l *loop) shutdown() {
	n := l.node
	for _, k := range l.links {
		if l.failed != nil {
			k.conn.send(&syncproto.Error{Code: syncproto.CodeInternal, Sentence: "this peer cannot go on: its database failed"})
		} else {
			k.conn.send(&syncproto.Bye{Sentence: "this peer was stopped"})
		}
		k.conn.finish(errClosed)
	}
	for _, k := range l.links { // finish bounds this
		l.untilDone(k.conn)
	}
	n.cancel()
	n.wg.Wait()
	if err := n.ports.close(); err != nil {
		l.log.Debug("closing the shared ports", "err", err)
	}
	for _, r := range l.waiting {
		r.answer(Status{}, ErrClosed)
	}
	n.err = l.failed
}

// untilDone waits for a conn to end. What the links still say is dropped, so that none of them waits for us.
func (l *loop) untilDone(c *conn) {
	for {
		select {
		case <-l.node.events:
		case <-l.node.results:
		case <-l.node.ended:
		case <-c.done:
			return
		}
	}
}

var errServerGone = errors.New("the signaling server is out of reach")

func iceServersOf(list []signaling.ICEServer) []webrtc.ICEServer {
	out := make([]webrtc.ICEServer, 0, len(list))
	for _, s := range list {
		w := webrtc.ICEServer{URLs: s.URLs, Username: s.Username}
		if s.Credential != "" {
			w.Credential = s.Credential
		}
		out = append(out, w)
	}
	return out
}
