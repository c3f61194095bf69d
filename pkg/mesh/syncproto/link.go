package syncproto

import (
	"maps"
	"slices"
)

// link is what the core keeps for one open channel.
type link struct {
	id      LinkID
	remote  SiteID
	proof   []byte
	resume  int64 // our stored reached of the other side's entries
	live    bool  // the other side's hello is through; ours was sent when the link opened
	closing bool  // the driver was asked to close it; everything else is dropped

	// What the other side said of itself.
	writer     bool // it has the writer role
	feed       bool // it takes entries from us that are neither ours nor its neighbours'
	busy       bool // it is in the middle of somebody's walk
	maxMessage int
	neighbours []SiteID // ascending; never modified, replaced
	known      Vector   // what its vector covers at least; never modified, replaced

	serving   // walk.go
	receiving // inbox.go
	having    // have.go
	pruning   // prune.go
	schemaState
	questions // verify.go
}

func newLink(self SiteID, id LinkID, o OpenInfo) *link {
	return &link{id: id, remote: o.Remote, proof: o.Proof, resume: o.Resume, pruning: newPruning(self, o.Remote)}
}

func (c *Core) sendHello(l *link) {
	h := &Hello{
		Site: c.cfg.Site, Writer: c.cfg.Writer, Feed: c.feeds(l), Busy: c.busy(), SchemaHash: c.schemaHash,
		MaxMessage: c.cfg.MaxMessage, Resume: l.resume, Neighbours: c.neighbours, Vector: c.vector,
	}
	if c.cfg.Writer {
		h.Proof = l.proof
	}
	l.announced(c, h.Feed, h.Busy)
	l.told.hash = h.SchemaHash
	c.send(l, h)
}

func (c *Core) stepHello(l *link, h *Hello) {
	if l.live {
		c.fail(l, malformed("a second hello"))
		return
	}
	l.writer = h.Writer
	switch {
	case h.Site == c.cfg.Site:
		c.event(l, Event{Kind: EventSameSite, Proved: l.writer})
		c.fail(l, &Error{CodeSameSite, "both ends have the same site id: one database is a copy of the other, or open twice"})
		return
	case h.Site != l.remote:
		c.fail(l, malformed("the hello names another site than the signaling did"))
		return
	case !c.learn(l, h.Vector):
		return
	}
	l.live = true
	l.feed, l.busy = h.Feed, h.Busy
	l.maxMessage = min(h.MaxMessage, MaxMessage)
	l.neighbours = h.Neighbours
	l.remoteHash = h.SchemaHash
	l.caughtUp = !h.Writer
	l.startWalk(c.resume(l.remote, h.Resume), c.newest)
	c.event(l, Event{Kind: EventLive})
	if l.remoteHash != c.schemaHash {
		c.event(l, Event{Kind: EventSchemaDiffers})
	}
	c.updateNeighbours()
}

// resume returns where the walk for a site begins that says how far it has come. What it cannot have from here was told by a
// database that held more, before it was put back, or by a twin: other entries have taken those numbers here. That is so unless it
// acknowledged as much; its word for the rest may have got lost with a link, and costs reading.
func (c *Core) resume(remote SiteID, reached int64) int64 {
	if passed := c.passed[remote]; reached > max(c.cfg.Newest, passed) {
		return passed
	}
	return reached
}

// pass notes how far the other side has followed the link's walk, as far as it said so.
func (c *Core) pass(l *link) {
	if len(c.passed) >= MaxVectorSites {
		clear(c.passed) // their walks start anew, which costs reading
	}
	if l.ackedReached > c.passed[l.remote] {
		c.passed[l.remote] = l.ackedReached
	}
}

// learn takes over what the other side's vector covers. It reports false if that ended the link.
func (c *Core) learn(l *link, v Vector) bool {
	if c.stale(l, v[c.cfg.Site]) {
		return false
	}
	known := l.known.Max(v)
	if len(known) > MaxVectorSites {
		c.fail(l, malformed("the vector has more than 16384 sites"))
		return false
	}
	if !l.known.CoversAll(known) {
		l.known = known
		l.held = slices.DeleteFunc(l.held, func(h held) bool { return known.Covers(h.origin, h.version) })
		maps.DeleteFunc(l.got, known.Covers)
	}
	return true
}

// stale ends the link if the other side has seen a version of our site that we do not have.
func (c *Core) stale(l *link, version int64) bool {
	if version <= c.own {
		return false
	}
	c.event(l, Event{Kind: EventStaleCopy, Version: version, Proved: l.writer})
	c.fail(l, &Error{CodeStaleCopy, "this database is older than what it has announced: it was restored from a copy"})
	return true
}

func (c *Core) updateNeighbours() {
	var sites []SiteID
	for _, id := range c.order {
		if l := c.links[id]; l.live && !l.closing {
			sites = append(sites, l.remote)
		}
	}
	slices.Sort(sites)
	sites = sites[:min(len(sites), MaxNeighbours)]
	if !slices.Equal(sites, c.neighbours) {
		c.neighbours = sites
		c.neighboursGen++
	}
}

func isIn(sites []SiteID, site SiteID) bool {
	_, found := slices.BinarySearch(sites, site)
	return found
}
