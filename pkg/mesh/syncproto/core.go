package syncproto

import (
	"fmt"
	"slices"
)

// Core is the sync protocol of one peer, for all its links. It does no I/O and is not safe for concurrent use: one
// goroutine owns it.
type Core struct {
	cfg Config
	now int64  // ticks since New
	rnd uint32 // state of the jitter's generator

	own, newest int64
	vector      Vector // own entry included; never modified, replaced
	gen         int64  // counts the changes of vector
	foreignGen  int64  // counts those of its foreign entries

	links map[LinkID]*link
	order []LinkID // of links, ascending

	passed map[SiteID]int64 // the reached that a site has acknowledged, on links that ended

	neighbours    []SiteID // sites of the live links, ascending; never modified, replaced
	neighboursGen int64

	reads    uint64 // ids given to reads
	applies  uint64 // ids given to applies
	applying *applying
	turn     LinkID // whose message was taken last for an apply
	resolved int64  // gen at which the claims queues were last looked through

	spans      []waitingSpan // taken, waiting for what they depend on; oldest first
	units      units
	foreignRun struct{ from, to int64 } // the latest local versions that an Apply used, without a gap
	seen       map[SiteID]seen

	feeder LinkID // the link that we catch up from; 0: none

	schemaHash   [32]byte
	schemaTables []TableSchema
	schemaGiven  bool

	looks            uint64 // ids given to looks
	looking          *looking
	lookTurn         LinkID // whose question was taken last
	lookCost         int64  // milliseconds that looks have taken and that are not forgotten
	schemaGeneration int64

	counters Counters
	ready    Ready
}

// New returns a core without links. Errors are about cfg.
func New(cfg Config) (*Core, error) {
	if len(cfg.Site) != siteLen {
		return nil, fmt.Errorf("a site id has %d bytes, not %d", siteLen, len(cfg.Site))
	}
	if len(cfg.Vector) >= MaxVectorSites {
		return nil, fmt.Errorf("the vector has %d sites, at most %d are supported", len(cfg.Vector), MaxVectorSites-1)
	}
	if cfg.MaxMessage == 0 {
		cfg.MaxMessage = MaxMessage
	}
	if cfg.MaxMessage < MinMaxMessage || cfg.MaxMessage > MaxMessage {
		return nil, fmt.Errorf("the largest message has %d to %d bytes, not %d", MinMaxMessage, MaxMessage, cfg.MaxMessage)
	}
	return &Core{
		cfg: cfg, rnd: uint32(cfg.Seed) ^ uint32(cfg.Seed>>32), own: cfg.Own, newest: cfg.Newest,
		vector: cfg.Vector.Without(cfg.Site).With(cfg.Site, cfg.Own), links: map[LinkID]*link{}, seen: map[SiteID]seen{},
		passed: map[SiteID]int64{}, schemaHash: cfg.SchemaHash,
	}, nil
}

// Open tells the core that a link's channel is open. A hello is sent.
func (c *Core) Open(id LinkID, o OpenInfo) {
	c.Close(id)
	for _, other := range c.order {
		if l := c.links[other]; l.remote == o.Remote {
			c.fail(l, &Error{CodeSuperseded, "a newer connection of the same peer replaces this one"})
		}
	}
	l := newLink(c.cfg.Site, id, o)
	l.heard = c.now
	c.links[id] = l
	at, _ := slices.BinarySearch(c.order, id)
	c.order = slices.Insert(c.order, at, id)
	if len(c.order) > MaxLinks {
		c.fail(l, &Error{CodeInternal, fmt.Sprintf("this peer has %d links and takes no more", MaxLinks)})
		return
	}
	c.updateFeed()
	c.sendHello(l)
}

// Close tells the core that a link is gone, for whatever reason, also after the core asked for it. What the link had
// queued is dropped.
func (c *Core) Close(id LinkID) {
	l := c.links[id]
	if l == nil {
		return
	}
	c.pass(l)
	delete(c.links, id)
	at, _ := slices.BinarySearch(c.order, id)
	c.order = slices.Delete(c.order, at, at+1)
	c.updateNeighbours()
}

// Refuse sends err on the link and closes it: for what the driver found, such as bytes that Parse refuses or a proof that
// does not verify.
func (c *Core) Refuse(id LinkID, err *Error) {
	if l := c.open(id); l != nil {
		c.fail(l, err)
	}
}

// Step takes a message that came in on the link. The core owns it from now on. The driver has verified a hello's proof,
// and calls Refuse in place of Step if it is bad.
func (c *Core) Step(id LinkID, m Message) {
	l := c.open(id)
	if l == nil {
		return
	}
	switch m := m.(type) {
	case *Error:
		c.event(l, Event{Kind: EventRemoteError, Err: m})
		c.shut(l, m)
		return
	case *Bye:
		c.shut(l, nil)
		return
	case *Hello:
		c.stepHello(l, m)
		return
	}
	if !l.live {
		c.fail(l, malformed("the first message is not a hello"))
		return
	}
	switch m := m.(type) {
	case *Changes:
		c.stepChanges(l, m)
	case *Have:
		c.stepHave(l, m)
	case *Schema:
		c.stepSchema(l, m)
	case *Prune:
		c.stepPrune(l, m)
	case *DigestRequest:
		c.stepDigestRequest(l, m)
	case *DigestAnswer:
		c.stepDigestAnswer(l, m)
	case *Resend:
		c.stepResend(l, m)
	}
}

// Tick is called every TickMillis.
func (c *Core) Tick() {
	c.now++
	c.lookCost = max(c.lookCost-TickMillis/2, 0)
}

// Committed reports a durable local commit: the store's Own and Newest after it.
func (c *Core) Committed(own, newest int64) { c.advance(own, newest, nil) }

// advance takes over what the store has, and foreign entries of the vector that it has stored.
func (c *Core) advance(own, newest int64, foreign Vector) {
	c.own = max(c.own, own)
	c.newest = max(c.newest, newest)
	v := c.vector.Max(foreign)
	for site, version := range foreign {
		if c.seen[site].version <= version {
			delete(c.seen, site)
		}
	}
	foreignRose := len(v.Since(c.vector)) > 0
	v = v.With(c.cfg.Site, c.own)
	if foreignRose {
		c.foreignGen++
	}
	if foreignRose || v[c.cfg.Site] > c.vector[c.cfg.Site] {
		c.gen++
		c.vector = v
	}
}

// Ready returns what is to be done, and takes it as being done.
func (c *Core) Ready() Ready {
	c.startApply()
	c.startLook()
	c.updateFeed()
	for _, id := range c.order {
		if l := c.links[id]; l.live && !l.closing {
			c.announceSchema(l)
			c.sendPrune(l)
			c.serve(l)
		}
	}
	busy := c.busy()
	for _, id := range c.order {
		if l := c.links[id]; l.live && !l.closing {
			c.announce(l, busy)
		}
	}
	r := c.ready
	c.ready = Ready{}
	return r
}

// open returns the link if it is open and no close was asked for.
func (c *Core) open(id LinkID) *link {
	if l := c.links[id]; l != nil && !l.closing {
		return l
	}
	return nil
}

func (c *Core) send(l *link, m Message) { c.ready.Sends = append(c.ready.Sends, Send{l.id, m}) }

func (c *Core) event(l *link, e Event) {
	e.Link, e.Remote = l.id, l.remote
	c.ready.Events = append(c.ready.Events, e)
}

// fail reports err to the other side and ends the link.
func (c *Core) fail(l *link, err *Error) {
	if l.closing {
		return
	}
	c.send(l, err)
	c.shut(l, err)
}

// shut ends the link: what it had queued goes, and the driver is asked to close it.
func (c *Core) shut(l *link, err *Error) {
	c.pass(l)
	closed := newLink(c.cfg.Site, l.id, OpenInfo{Remote: l.remote})
	closed.closing = true
	c.links[l.id] = closed
	l.closing = true
	c.ready.Closes = append(c.ready.Closes, Close{l.id, err})
	c.updateNeighbours()
}

// jitter returns 1 to n. A linear congruential generator is enough to keep peers from answering in step.
func (c *Core) jitter(n uint32) int64 {
	c.rnd = c.rnd*1664525 + 1013904223
	return int64(1 + (c.rnd>>16)%n)
}
