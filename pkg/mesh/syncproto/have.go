package syncproto

// having is what a link's other side was told by hello and have, and when it is told more.
type having struct {
	toldVector     Vector
	toldForeignGen int64
	toldNeighbours int64 // c.neighboursGen
	toldApplied    int64
	toldBytes      int64
	toldFeed       bool
	toldBusy       bool
	haveAt         int64 // tick; 0: nothing to tell

	servedSaid bool
}

// announced notes that the other side was told how things are.
func (l *link) announced(c *Core, feed, busy bool) {
	l.having = having{
		toldVector: c.vector, toldForeignGen: c.foreignGen, toldNeighbours: c.neighboursGen, toldApplied: l.applied,
		toldBytes: l.appliedBytes, toldFeed: feed, toldBusy: busy, servedSaid: l.servedSaid,
	}
}

// announce sends a have once there is something to tell: at once where the other side waits for it, else after a while,
// so that one have tells of several things.
func (c *Core) announce(l *link, busy bool) {
	feed := c.feeds(l)
	if feed == l.toldFeed && busy == l.toldBusy && l.applied == l.toldApplied &&
		c.foreignGen == l.toldForeignGen && c.neighboursGen == l.toldNeighbours {
		l.haveAt = 0
		return
	}
	if l.haveAt == 0 {
		l.haveAt = c.now + c.jitter(HaveTicks)
	}
	urgent := feed != l.toldFeed || l.applied-l.toldApplied >= WindowMessages/4 || l.appliedBytes-l.toldBytes >= WindowBytes/4
	if c.now < l.haveAt && !urgent {
		return
	}
	h := &Have{Feed: feed, Busy: busy, Applied: l.applied, Delta: c.vector.Since(l.toldVector)}
	if c.neighboursGen != l.toldNeighbours {
		h.HasNeighbours, h.Neighbours = true, c.neighbours
	}
	l.announced(c, feed, busy)
	c.send(l, h)
}

func (c *Core) stepHave(l *link, h *Have) {
	if !l.acknowledge(h.Applied) {
		c.fail(l, malformed("a have counts messages that were not sent"))
		return
	}
	if !c.learn(l, h.Delta) {
		return
	}
	l.feed, l.busy = h.Feed, h.Busy
	if h.HasNeighbours {
		l.neighbours = h.Neighbours
	}
	if l.served && !l.servedSaid && len(l.outbox) == 0 && len(l.inflight) == 0 {
		l.servedSaid = true
		c.event(l, Event{Kind: EventServed})
	}
}
