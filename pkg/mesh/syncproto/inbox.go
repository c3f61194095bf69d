package syncproto

import (
	"maps"
	"slices"
)

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
	fullSaid     bool // that the vector has no place for what it claims
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
	units  []*applyingUnit
	spans  []waitingSpan // Core.spans before it
}

// appliedLink is what an Apply means to one link.
type appliedLink struct {
	link     *link
	messages int64
	bytes    int
	taken    bool // claims of it were taken

	// What of the link is taken back if the Apply is refused for another's sake.
	inbox  []incoming // its messages in the Apply
	claims []claim    // its queue before
}

func (c *Core) stepChanges(l *link, m *Changes) {
	switch {
	case !l.writer:
		c.fail(l, &Error{CodeReadOnly, "this peer has not proved that it may write: it needs the room's write link"})
		return
	case l.received-l.applied >= WindowMessages || l.queuedBytes >= 2*WindowBytes:
		c.fail(l, &Error{CodeFlow, "more changes were sent than the window allows"})
		return
	case !c.learn(l, m.Claims.Max(ownOf(l.remote, m.Spans))) || c.stale(l, m.newestOf(c.cfg.Site)):
		return
	}
	size := sizeOf(m)
	l.received++
	l.receivedChanges += int64(countChanges(m))
	l.queuedBytes += size
	l.remaining, l.midWalk, l.heard = m.Remaining, m.Claims == nil && m.Spans == nil, c.now
	c.judge(l, m)
	l.inbox = append(l.inbox, incoming{m, size})
}

// newestOf returns the highest version of a site that the message names as held by the sender, or waited for; 0 if it names none.
func (m *Changes) newestOf(site SiteID) int64 {
	version := m.Deps[site]
	for i := range m.Groups {
		if g := &m.Groups[i]; g.Origin == site {
			version = max(version, g.Version)
		}
	}
	for i := range m.Spans {
		version = max(version, m.Spans[i].Deps[site])
	}
	return version
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
	if c.applying != nil || c.resolved == c.gen && !slices.ContainsFunc(c.order, c.inTurn) {
		return
	}
	a := &applying{spans: slices.Clone(c.spans)}
	resume := map[SiteID]int64{}
	c.takeMessages(a, resume)
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
		c.takeSpans(a, l, in.m, in.size)
		resume[l.remote] = in.m.Reached
		part := a.part(l)
		part.messages++
		part.bytes += in.size
		part.inbox = append(part.inbox, in)
		if in.m.Claims != nil {
			l.claims = append(l.claims, claim{in.m.Claims, in.m.Deps})
			if len(l.claims) > MaxClaimsQueue {
				l.claims[1].claims = l.claims[1].claims.Max(l.claims[0].claims)
				l.claims = l.claims[1:]
			}
		}
	}
}

// nextInTurn returns the link behind the last one, in order of ids and around, that has a message to apply.
func (c *Core) nextInTurn() *link {
	var first *link
	for _, id := range c.order {
		if !c.inTurn(id) {
			continue
		}
		if id > c.turn {
			first = c.links[id]
			break
		}
		if first == nil {
			first = c.links[id]
		}
	}
	if first != nil {
		c.turn = first.id
	}
	return first
}

// inTurn reports whether a link has a message to apply.
func (c *Core) inTurn(id LinkID) bool {
	l := c.links[id]
	return len(l.inbox) > 0 && !l.schemaWait
}

func (a *applying) part(l *link) *appliedLink {
	for i := range a.links {
		if a.links[i].link == l {
			return &a.links[i]
		}
	}
	a.links = append(a.links, appliedLink{link: l, claims: slices.Clone(l.claims)})
	return &a.links[len(a.links)-1]
}

// resolve takes the spans and the claims whose deps are covered, until no more are. Of a link's queue it takes the newest
// such claims, and with them those before, whose deps may never be covered: what was held then and is no dep now was
// sent since, or is covered.
func (c *Core) resolve(a *applying) {
	c.resolved = c.gen
	pending := maps.Clone(c.vector)
	if pending == nil {
		pending = Vector{}
	}
	for moved := true; moved; {
		moved = c.resolveSpans(a, pending)
		for _, id := range c.order {
			l := c.links[id]
			for i := len(l.claims) - 1; i >= 0; i-- {
				if !pending.CoversAll(l.claims[i].deps) {
					continue
				}
				a.part(l).taken = true
				for _, claim := range l.claims[:i+1] {
					c.raise(a, l, pending, claim.claims)
				}
				l.claims = l.claims[i+1:]
				moved = true
				break
			}
		}
	}
}

// raise raises pending, and the claims of the Apply, to claims, which came over l.
func (c *Core) raise(a *applying, l *link, pending, claims Vector) {
	full := false
	for _, site := range claims.Sites() {
		version := claims[site]
		if site == c.cfg.Site || version <= pending[site] {
			continue
		}
		if pending[site] == 0 && !c.hasPlace(len(pending), site) {
			full = true
			continue
		}
		if a.claims == nil {
			a.claims = Vector{}
		}
		pending[site], a.claims[site] = version, version
	}
	if full && !l.fullSaid {
		l.fullSaid = true
		c.event(l, Event{Kind: EventVectorFull})
	}
}

// hasPlace reports whether a vector of so many sites has a place for a new one. A single message may claim as many sites as a
// vector has, invented ones too; that must not keep those out that are linked here.
func (c *Core) hasPlace(sites int, site SiteID) bool {
	return sites < MaxVectorSites-ReservedSites || sites < MaxVectorSites && isIn(c.neighbours, site)
}

// Applied answers the ApplyRequest.
func (c *Core) Applied(r ApplyResult) {
	a := c.applying
	if a == nil || a.id != r.ID {
		return
	}
	c.applying = nil
	if r.Refused != nil {
		c.advance(r.Own, r.Newest, nil)
		c.refused(a, *r.Refused)
		return
	}
	c.count(a, r)
	c.noteForeign(r.Ls)
	c.keepUnits(a, r)
	c.advance(r.Own, r.Newest, a.claims)
	c.finish(a)
}

// refused ends the link of the group that could not be applied. What the others had in the Apply is as it was before it.
func (c *Core) refused(a *applying, r Refusal) {
	var culprit LinkID
	if r.Group >= 0 && r.Group < len(a.groups) {
		culprit = a.groups[r.Group].Link
	}
	c.resolved, c.spans = -1, a.spans
	for i := range a.links {
		part := &a.links[i]
		l := part.link
		if l.closing || c.links[l.id] != l {
			continue
		}
		if l.id == culprit {
			c.fail(l, &Error{CodeParked, truncate(r.Reason, MaxSentence)})
			continue
		}
		l.inbox = append(part.inbox, l.inbox...)
		l.claims = part.claims
	}
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
