package syncproto

import (
	"maps"
	"slices"
)

// maxRelease is how many held entries one Read releases at most.
const maxRelease = 1024

// held is an entry that was held back.
type held struct {
	l       int64
	origin  SiteID
	version int64
	since   int64 // tick
}

// serving is a link's sending side: a walk through our entries.
type serving struct {
	cursor  Position // all up to here was sent, skipped or held
	ended   bool     // the walk got to the end of its snapshot
	walked  int64    // c.newest when the read was issued that got there
	served  bool     // the first walk got to its end
	unsent  int64    // about how many changes are left to walk; -1: not counted
	held    []held   // ascending by L
	reading *reading // outstanding

	release  []int64  // held entries that are being released, ascending; nil: none
	released Position // how far
	dueTick  int64    // the last tick at which held entries were looked through for due ones
	lastOnly bool     // the last read released held entries

	ownWalked int64 // highest own version in the snapshot whose end the walk got to
	unbroken  bool  // no own version can hide between that and the cursor

	outbox        []outgoing // composed, waiting for the window
	sentMessages  int64
	ackedMessages int64
	inflight      []sent // what is between the two
	inflightBytes int
	ackedReached  int64 // the reached of what was acknowledged
	sentChanges   int64

	// Claims. The last ones sent, and when to look whether new ones without entries are needed.
	owed       bool // the next end of a walk sends claims, entries or not
	lastClaims Vector
	claimsGen  int64  // c.gen when claims were last considered
	claimsAt   int64  // tick; 0: none
	claimsMark Vector // what has to be covered by then
}

// reading is an outstanding Read.
type reading struct {
	id     uint64
	only   bool
	claims Vector // the core's vector when the read was issued: what the snapshot holds at least
	gen    int64
	newest int64
	met    *met // if not only
}

// outgoing is a message with its size.
type outgoing struct {
	m       *Changes
	size    int
	changes int
}

// sent is a message that is not acknowledged yet.
type sent struct {
	size    int
	reached int64
}

// startWalk begins a link's walk behind what the other side has stored as reached.
func (s *serving) startWalk(resume, newest int64) {
	s.unsent, s.dueTick = -1, -1
	if resume <= newest {
		s.cursor = Position{resume, EntryEnd}
	}
}

// serve sends what the window allows, and asks for the next entries.
func (c *Core) serve(l *link) {
	if !c.cfg.Writer {
		return
	}
	for len(l.outbox) > 0 && l.windowOpen() {
		c.transmit(l, l.outbox[0])
		l.outbox = slices.Delete(l.outbox, 0, 1)
	}
	if l.reading != nil || len(l.outbox) > 0 || !l.windowOpen() {
		return
	}
	release, walk := c.wantsRelease(l), c.wantsWalk(l)
	switch {
	case release && !(walk && l.lastOnly): // in turn, where both are wanted
		c.readHeld(l)
	case walk:
		c.readOn(l)
	}
}

func (l *link) windowOpen() bool {
	return len(l.inflight) < WindowMessages && l.inflightBytes < WindowBytes
}

func (c *Core) transmit(l *link, o outgoing) {
	l.sentMessages++
	l.inflight = append(l.inflight, sent{o.size, o.m.Reached})
	l.inflightBytes += o.size
	l.sentChanges += int64(countChanges(o.m))
	c.send(l, o.m)
}

// acknowledge takes the other side's count of applied messages. It reports false if the count is impossible.
func (l *link) acknowledge(applied int64) bool {
	if applied < l.ackedMessages || applied > l.sentMessages {
		return false
	}
	n := int(applied - l.ackedMessages)
	for _, m := range l.inflight[:n] {
		l.inflightBytes -= m.size
		l.ackedReached = max(l.ackedReached, m.reached)
	}
	l.inflight = slices.Delete(l.inflight, 0, n)
	l.ackedMessages = applied
	return true
}

// wantsWalk reports whether the walk has to go on: to entries, or to its end for the sake of claims.
func (c *Core) wantsWalk(l *link) bool {
	if len(l.held) >= MaxHeld {
		return false
	}
	if !l.ended || c.newest > l.walked || l.owed {
		return true
	}
	if l.claimsAt == 0 && c.gen != l.claimsGen {
		l.claimsGen, l.claimsAt, l.claimsMark = c.gen, c.now+ClaimTicks, c.vector
	}
	if l.claimsAt == 0 || c.now < l.claimsAt {
		return false
	}
	if !l.needsClaims(l.claimsMark) {
		l.claimsAt = 0
		return false
	}
	return true
}

// readOn asks for the entries behind the cursor.
func (c *Core) readOn(l *link) {
	r := c.newRead(l, false)
	r.After = l.cursor
	r.Count = !l.ended && l.unsent < 0
	l.reading.met = &met{unbroken: l.ended && l.unbroken}
	r.Decide = decideWalk(c.cfg.Site, l, l.reading.met)
	c.ready.Reads = append(c.ready.Reads, r)
}

func (c *Core) newRead(l *link, only bool) ReadRequest {
	c.reads++
	l.reading = &reading{id: c.reads, only: only, claims: c.vector, gen: c.gen, newest: c.newest}
	l.lastOnly = only
	return ReadRequest{ID: c.reads, Link: l.id, MaxBytes: SoftBytes, MaxChanges: SoftChanges}
}

// decideWalk returns the decision for each entry of a walk. It runs apart from the core, and so keeps what it needs.
func decideWalk(self SiteID, l *link, m *met) func(SiteID, int64) Decision {
	known, neighbours, feed, remote, pruned, got := l.known, l.neighbours, l.feed, l.remote, l.pruned, maps.Clone(l.got)
	room, decisions := MaxHeld-len(l.held), 0
	decide := func(origin SiteID, version int64) Decision {
		if decisions++; decisions > MaxDecisions {
			return DecideStop
		}
		switch {
		case known.Covers(origin, version):
			return DecideSkip
		case origin == self:
			return DecideSend
		case feed && !pruned[origin] && version > got[origin] && origin != remote && !isIn(neighbours, origin):
			return DecideSend
		case room == 0:
			return DecideStop
		}
		room--
		return DecideHold
	}
	return func(origin SiteID, version int64) Decision {
		d := decide(origin, version)
		m.note(self, origin, version, d)
		return d
	}
}

// wantsRelease reports whether held entries are to be sent after all.
func (c *Core) wantsRelease(l *link) bool {
	if l.release == nil && l.dueTick != c.now && len(l.held) > 0 {
		l.dueTick = c.now
		for _, h := range l.held {
			if c.due(l, h) {
				l.release = append(l.release, h.l)
				if len(l.release) == maxRelease {
					break
				}
			}
		}
		l.released = Position{}
	}
	return l.release != nil
}

// due reports whether a held entry has waited for long enough. What a neighbour of the other side (or that itself) made
// should have come from there, what it pruned comes over another link, and what it gave us it has. All else waits until the
// other side takes it from us.
func (c *Core) due(l *link, h held) bool {
	wait := c.now - h.since
	switch {
	case h.origin == l.remote || isIn(l.neighbours, h.origin) || l.got.Covers(h.origin, h.version):
		return wait >= HoldTicks && !l.busy
	case l.pruned[h.origin]:
		return wait >= l.pruneDelay && !l.busy
	}
	return l.feed
}

// readHeld asks for the entries that are being released.
func (c *Core) readHeld(l *link) {
	r := c.newRead(l, true)
	r.After, r.Only = l.released, l.release
	known := l.known
	r.Decide = func(origin SiteID, version int64) Decision {
		if known.Covers(origin, version) {
			return DecideSkip
		}
		return DecideSend
	}
	c.ready.Reads = append(c.ready.Reads, r)
}

// ReadDone answers a ReadRequest.
func (c *Core) ReadDone(r ReadResult) {
	// Before anything of the snapshot goes out: nobody may know of an own version that we do not know of.
	c.advance(r.Own, r.Newest, nil)
	l := c.open(r.Link)
	if l == nil || l.reading == nil || l.reading.id != r.ID {
		return
	}
	read := l.reading
	l.reading = nil
	if read.only {
		c.releaseDone(l, r)
	} else {
		c.walkDone(l, r, read)
	}
}

// releaseDone sends released entries. They carry no claims: those of before have deps that name the entries, and
// the walk that follows makes new ones.
func (c *Core) releaseDone(l *link, r ReadResult) {
	entries, spans := c.whole(r.Entries)
	parts, complete := c.compose(l, entries, 0)
	if len(parts) == 1 && complete {
		parts[0].attach(spans, l.maxMessage)
	}
	gone := func(L int64) bool { return r.End || L <= r.Next.whole() }
	for i := range parts {
		parts[i].m.Reached = l.reached(EntryEnd)
	}
	l.held = slices.DeleteFunc(l.held, func(h held) bool {
		_, found := slices.BinarySearch(l.release, h.l)
		return found && gone(h.l)
	})
	l.release = slices.DeleteFunc(slices.Clone(l.release), gone)
	l.released = r.Next
	if len(l.release) == 0 {
		l.release = nil
		l.dueTick = -1 // there may be more
	}
	if n := len(parts); n > 0 {
		parts[n-1].m.Reached = l.reached(EntryEnd)
	}
	l.owed = true // deps have become fewer, also where nothing was left to send
	l.outbox = append(l.outbox, parts...)
}

// walkDone sends the entries of a walk, holds others back, and claims at the end.
func (c *Core) walkDone(l *link, r ReadResult, read *reading) {
	for _, e := range r.Entries {
		if e.Held && !l.known.Covers(e.Origin, e.Version) {
			l.held = append(l.held, held{e.L, e.Origin, e.Version, c.now})
		}
	}
	l.countUnsent(r)
	l.cursor, l.ended = r.Next, r.End
	entries, spans := c.whole(r.Entries)
	if s, ok := c.ownSpan(l, r, read.met); ok {
		spans = append(spans, s)
	}
	parts, complete := c.compose(l, entries, max(l.unsent, 1))
	if n := len(parts); n > 0 {
		parts[n-1].m.Reached = l.reached(l.cursor.whole())
		if r.End {
			parts[n-1].m.Remaining = 0
		}
		// Spans of all groups say enough: what else there is to claim can wait for a have.
		if !(n == 1 && complete && parts[0].attach(spans, l.maxMessage) && r.End && l.served) {
			l.owed = true
		}
	}
	if r.End {
		l.walked = max(read.newest, r.Newest)
		l.unsent = -1
		l.ownWalked, l.unbroken = r.Own, c.solid(r.Own, l.cursor.whole())
		parts = c.claim(l, parts, read, r.Own)
	}
	l.outbox = append(l.outbox, parts...)
}

// countUnsent keeps the count of what the walk has left. It is a guess: skipped and held entries are not taken off.
func (l *link) countUnsent(r ReadResult) {
	if r.Remaining > 0 {
		l.unsent = r.Remaining
	}
	if l.unsent >= 0 {
		for _, e := range r.Entries {
			l.unsent -= int64(len(e.Changes))
		}
		l.unsent = max(l.unsent, 0)
	}
}
