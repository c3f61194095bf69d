package syncproto

// One link at a time is to catch us up: as long as we are behind, several peers would send the same. The first link feeds us
// until its first walk is complete; the others send what is their own, and the next one feeds us then.

// feeds reports whether the other side of l may send us entries of sites that are not our neighbours.
func (c *Core) feeds(l *link) bool { return l.caughtUp || l.id == c.feeder }

// updateFeed looks whether the feeding link is done, and names the next one.
func (c *Core) updateFeed() {
	for _, id := range c.order {
		if l := c.links[id]; l.live && !l.caughtUp && len(l.inbox) == 0 && c.vector.CoversAll(l.known) {
			l.caughtUp = true
		}
	}
	if l := c.links[c.feeder]; l != nil && !l.closing && !l.caughtUp && len(l.inbox) == 0 &&
		c.applying == nil && c.now-l.heard >= FeedTimeoutTicks {
		l.caughtUp = true // it may still send; but others may now, too
	}
	if l := c.links[c.feeder]; l == nil || l.closing || l.caughtUp {
		c.feeder = 0
		for _, id := range c.order {
			if l := c.links[id]; !l.closing && !l.caughtUp {
				c.feeder = id
				l.heard = c.now
				break
			}
		}
	}
	for _, id := range c.order {
		if l := c.links[id]; l.live && l.writer && l.caughtUp && !l.caughtUpSaid {
			l.caughtUpSaid = true
			c.event(l, Event{Kind: EventCaughtUp})
		}
	}
}
