package syncproto

import "maps"

// busyQueue is the number of a link's messages waiting to be applied from which on we are busy: what they hold should
// not be sent to us by others meanwhile.
const busyQueue = WindowMessages / 4

// receiving is a link's receiving side.
type receiving struct {
	inbox           []incoming // to be applied
	queuedBytes     int        // of inbox, and of what is being applied
	received        int64      // changes messages
	applied         int64      // of them, stored
	appliedBytes    int64      // sum of their sizes
	receivedChanges int64
	remaining       int64   // as the last message said
	midWalk         bool    // the last message carried no claims
	heard           int64   // tick of the last changes message, or of the opening
	claims          []claim // waiting for their deps, oldest first

	caughtUp     bool // our first catch-up from this link is complete, or cannot be had
	caughtUpSaid bool
}

// incoming is a changes message with its size.
type incoming struct {
	m    *Changes
	size int
}

// claim is what we cover once we cover deps.
type claim struct{ claims, deps Vector }

// applying is the outstanding Apply.
type applying struct {
	id     uint64
	claims Vector
	links  []appliedLink
	groups []ApplyGroup
}

// appliedLink is what an Apply means to one link.
type appliedLink struct {
	link     *link
	messages int64
	bytes    int
	taken    bool // claims of it were taken
}

func (c *Core) stepChanges(l *link, m *Changes) {
	switch {
	case !l.writer:
		c.fail(l, &Error{CodeReadOnly, "this peer has not proved that it may write: it needs the room's write link"})
		return
	case l.received-l.applied >= WindowMessages || l.queuedBytes >= 2*WindowBytes:
		c.fail(l, &Error{CodeFlow, "more changes were sent than the window allows"})
		return
	case !c.learn(l, m.Claims):
		return
	}
	size := sizeOf(m)
	l.received++
	l.receivedChanges += int64(countChanges(m))
	l.queuedBytes += size
	l.remaining, l.midWalk, l.heard = m.Remaining, m.Claims == nil, c.now
	l.inbox = append(l.inbox, incoming{m, size})
}

// busy reports whether we are in the middle of somebody's walk. One that has been silent for long does not count.
func (c *Core) busy() bool {
	for _, id := range c.order {
		l := c.links[id]
		if len(l.inbox) >= busyQueue || l.midWalk && c.now-l.heard < BusyTicks {
			return true
		}
	}
	return false
}

// startApply combines queued messages into an Apply, with those claims that they complete.
func (c *Core) startApply() {
	if c.applying != nil {
		return
	}
	a := &applying{}
	resume := map[SiteID]int64{}
	c.takeMessages(a, resume)
	if len(a.links) == 0 && c.resolved == c.gen {
		return
	}
	c.resolve(a)
	if len(a.groups) == 0 && len(a.claims) == 0 {
		c.finish(a) // nothing to store; what was reached can be told again
		return
	}
	c.applies++
	a.id = c.applies
	c.applying = a
	c.ready.Apply = &ApplyRequest{ID: a.id, Groups: a.groups, Claims: a.claims, Resume: resume}
}

// takeMessages takes whole messages from the links in turn until there is enough for an Apply.
func (c *Core) takeMessages(a *applying, resume map[SiteID]int64) {
	changes := 0
	for changes < ApplyChanges {
		l := c.nextInTurn()
		if l == nil {
			return
		}
		in := l.inbox[0]
		l.inbox = l.inbox[1:]
		changes += countChanges(in.m)
		for _, g := range in.m.Groups {
			a.groups = append(a.groups, ApplyGroup{l.id, g})
		}
		resume[l.remote] = in.m.Reached
		part := a.part(l)
		part.messages++
		part.bytes += in.size
		if in.m.Claims != nil {
			l.claims = append(l.claims, claim{in.m.Claims, in.m.Deps})
			if len(l.claims) > MaxClaimsQueue {
				l.claims = l.claims[1:] // later ones say more
			}
		}
	}
}

// nextInTurn returns the link behind the last one, in order of ids and around, that has a message to apply.
func (c *Core) nextInTurn() *link {
	var first *link
	for _, id := range c.order {
		l := c.links[id]
		if len(l.inbox) == 0 || l.schemaWait {
			continue
		}
		if id > c.turn {
			first = l
			break
		}
		if first == nil {
			first = l
		}
	}
	if first != nil {
		c.turn = first.id
	}
	return first
}

func (a *applying) part(l *link) *appliedLink {
	for i := range a.links {
		if a.links[i].link == l {
			return &a.links[i]
		}
	}
	a.links = append(a.links, appliedLink{link: l})
	return &a.links[len(a.links)-1]
}

// resolve takes the claims whose deps are covered, until no more are. Of a link's queue it takes the newest such one: it
// stands for itself, and says more than those before it, whose deps may never be covered.
func (c *Core) resolve(a *applying) {
	c.resolved = c.gen
	pending := maps.Clone(c.vector)
	if pending == nil {
		pending = Vector{}
	}
	for moved := true; moved; {
		moved = false
		for _, id := range c.order {
			l := c.links[id]
			for i := len(l.claims) - 1; i >= 0; i-- {
				if !pending.CoversAll(l.claims[i].deps) {
					continue
				}
				c.take(a, l, pending, l.claims[i].claims)
				l.claims = l.claims[i+1:]
				moved = true
				break
			}
		}
	}
}

// take raises pending, and the claims of the Apply, to claims.
func (c *Core) take(a *applying, l *link, pending, claims Vector) {
	a.part(l).taken = true
	full := false
	for _, site := range claims.Sites() {
		version := claims[site]
		if site == c.cfg.Site || version <= pending[site] {
			continue
		}
		if pending[site] == 0 && len(pending) >= MaxVectorSites {
			full = true
			continue
		}
		if a.claims == nil {
			a.claims = Vector{}
		}
		pending[site], a.claims[site] = version, version
	}
	if full {
		c.event(l, Event{Kind: EventVectorFull})
	}
}

// Applied answers the ApplyRequest.
func (c *Core) Applied(r ApplyResult) {
	a := c.applying
	if a == nil || a.id != r.ID {
		return
	}
	c.applying = nil
	c.count(a, r)
	c.advance(r.Own, r.Newest, a.claims)
	c.finish(a)
}

// finish tells the links what was applied.
func (c *Core) finish(a *applying) {
	for _, part := range a.links {
		l := part.link
		if l.closing || c.links[l.id] != l {
			continue
		}
		l.applied += part.messages
		l.appliedBytes += int64(part.bytes)
		l.queuedBytes -= part.bytes
		if part.taken {
			l.caughtUp = true
		}
	}
}

// count keeps the figures of what was applied.
func (c *Core) count(a *applying, r ApplyResult) {
	for _, part := range a.links {
		c.counters.Messages += part.messages
	}
	for i, g := range a.groups {
		n := int64(len(g.Changes))
		c.counters.Groups++
		c.counters.Changes += n
		if i < len(r.Changed) {
			c.counters.Changed += r.Changed[i]
		}
		if i < len(r.Ls) && r.Ls[i] == 0 {
			c.counters.Redundant += n
		}
		if i >= len(r.Parked) || r.Parked[i] == 0 {
			continue
		}
		c.counters.Parked += int64(r.Parked[i])
		if l := c.open(g.Link); l != nil {
			c.event(l, Event{Kind: EventParked, Count: int64(r.Parked[i])})
		}
	}
}
