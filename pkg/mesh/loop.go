package mesh

import (
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/pion/webrtc/v4"

	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
	"github.com/crmesh/crmesh/pkg/signaling"
)

// maxMembers bounds the members of a room that are known. The core takes no more links.
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
	near    *neighbours
	visits  map[signaling.PeerID]struct{} // members that a link is wanted to though they are no neighbours, see visit
	resume  map[syncproto.SiteID]int64
	known   Heads // as the core knows the schema of
	untried bool  // what is put aside is to be tried though the schema is known
	parked  parkedRead

	answers map[syncproto.LinkID]chan<- *syncproto.DigestAnswer // who waits for one, see memberVerification.ask
	via     map[signaling.PeerID]syncproto.LinkID               // over which link a member's last relayed envelope came

	// Looks at the store's heads: asked for, begun and done, by number.
	headsAsked, headsBegun, headsDone int

	ticks     int
	joined    bool
	serverErr error
	waiting   []request
	failed    error

	parkedReads parkedReads // shared by the jobs
	jobs        int         // whose results are to come
	renewals    renewals
}

func newLoop(n *Node, core *syncproto.Core, s State) *loop {
	l := &loop{
		node: n, store: n.cfg.Store, log: n.log, reads: make(chan struct{}, maxReads),
		links: map[syncproto.LinkID]*link{}, byConn: map[*conn]*link{}, members: map[signaling.PeerID]*member{},
		listed: map[signaling.PeerID]signaling.Meta{}, visits: map[signaling.PeerID]struct{}{}, answers: map[syncproto.LinkID]chan<- *syncproto.DigestAnswer{},
		via: map[signaling.PeerID]syncproto.LinkID{},
	}
	self := signaling.Meta{Replica: n.cfg.Replica, Reader: !n.cfg.Keys.CanWrite()}
	l.near = newNeighbours(signaling.Member{Peer: n.peer, Meta: self}, n.timing, l.listed)
	n.setICEServers(iceServersOf(n.ownServers(nil)))
	l.adopt(core, s)
	return l
}

// adopt makes core, which was made of s, the one of this loop.
func (l *loop) adopt(core *syncproto.Core, s State) {
	l.core, l.known, l.resume = core, s.Heads, map[syncproto.SiteID]int64{}
	l.parked.ParkedStatus = s.Parked // nothing else is under way
	l.untried = s.Untried
	for site, reached := range s.Resume {
		l.resume[site] = reached
	}
	core.SchemaChanged(s.Heads.SchemaHash, s.Heads.Generation, s.Tables)
	l.node.site.Store(&s.Site)
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
	l.renew()
	for l.renewals.reason == "" {
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
			l.takeSchema(s)
		}
		if r.Look != nil {
			l.lookInto(*r.Look)
		}
		for _, a := range r.Answers {
			l.answered(a)
		}
		for _, c := range r.Closes {
			l.closeLink(c)
		}
		for _, e := range r.Events {
			l.event(e)
		}
	}
}

func (l *loop) result(r result) {
	l.jobs--
	switch {
	case r.err != nil:
		l.failed = r.err
	case r.renewed != nil:
		l.failed = l.renewed(*r.renewed)
	case l.renewals.reason != "" && r.heads == nil: // asked for by a core that is not to go on
	case r.read != nil:
		l.core.ReadDone(*r.read)
	case r.apply != nil:
		for site, reached := range r.resume {
			l.resume[site] = reached
		}
		if r.parked != nil {
			l.tookParked(*r.parked)
		}
		l.core.Applied(*r.apply)
	case r.look != nil:
		l.core.LookDone(*r.look)
	case r.heads != nil && l.renewals.reason != "":
		l.headsDone = l.headsBegun
	case r.heads != nil:
		if r.heads.schema {
			l.known = r.heads.heads
			l.tookParked(r.heads.parked)
			l.core.SchemaChanged(l.known.SchemaHash, l.known.Generation, r.heads.tables)
		}
		l.core.Committed(r.heads.heads.Own, r.heads.heads.Newest)
		if r.schema != 0 {
			l.core.SchemaApplied(r.schema)
			l.heads() // what a look that began before this one brings may be older
			return
		}
		l.headsDone = l.headsBegun
		l.beginHeads()
	}
}

func (l *loop) tick() {
	if l.renewals.reason == "" {
		l.core.Tick()
	}
	if l.ticks++; l.ticks%statusTicks == 0 {
		l.look(time.Now())
	}
	if l.ticks%neighbourTicks == 0 {
		l.lookAtNeighbours(time.Now())
	}
	l.checkWaiting()
}

// event logs what the core has to tell.
func (l *loop) event(e syncproto.Event) {
	log := l.log.With("site", e.Remote)
	switch e.Kind {
	case syncproto.EventLive:
		if k := l.links[e.Link]; k != nil {
			k.live = true
			l.liveChanged()
		}
		log.Debug("link live")
	case syncproto.EventCaughtUp:
		log.Info("caught up with the peer")
	case syncproto.EventServed:
		log.Info("the peer caught up with us")
	case syncproto.EventSchemaDiffers:
		// Before it has told its tables, which readers never do, there is nothing to say.
		if d := l.differences(e.Link); len(d) > 0 {
			log.Info("the peer has other tables; what does not fit here is put aside until it does", "differences", strings.Join(d, "; "))
		}
	case syncproto.EventTooLarge:
		log.Warn("a value is too large for the peer and was left out", "table", e.Table, "column", e.CID, "bytes", e.Size)
	case syncproto.EventStaleCopy:
		l.disputed(e, "a peer has seen writes of this database that it does not hold, so that it was restored from an older copy")
	case syncproto.EventSameSite:
		l.disputed(e, "another peer has the same site id, so that one database is a copy of the other")
	case syncproto.EventVectorFull:
		log.Warn("the database knows as many sites as it can; a new one is not counted")
	case syncproto.EventParked:
		log.Warn("changes could not be applied and were put aside", "count", e.Count)
	case syncproto.EventRemoteError:
		log.Warn("the peer reported an error", "err", e.Err)
	}
}

// maxDifferences is how many differences of schemas a line of the log names; the status has them all.
const maxDifferences = 5

// differences returns how the tables of the other side of a link differ from ours, as far as it has told them.
func (l *loop) differences(id syncproto.LinkID) []string {
	for _, s := range l.core.Status().Links {
		if s.Link == id {
			return s.Differences[:min(len(s.Differences), maxDifferences)]
		}
	}
	return nil
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
