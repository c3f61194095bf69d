package syncproto

import (
	"cmp"
	"slices"
)

// Claims wait for what was held back, and with many writers these waits can form a ring: this link waits for an entry that
// comes over another one, whose claims wait for an entry that comes over this one. A span breaks the ring. It says of a few
// groups by themselves that they are all that a site wrote between two of its versions, and so needs nothing of what the
// sender holds. The writer makes it (ownSpan); others pass it on as long as they remember the groups as they came
// (units), since what is left of an entry in their database may be less.

// Span says that the groups of Origin in its message hold every write of Origin above After up to Version, or what beats
// it, once the receiver covers Deps as well.
type Span struct {
	Origin         SiteID
	After, Version int64
	Deps           Vector // what Origin had from others by Version and may have beaten its writes
}

// waitingSpan is a span whose groups were taken, and that waits for After or Deps. It does not depend on its link.
type waitingSpan struct {
	Span
	link *link // for the event when the vector is full
}

// unit is a span with its groups, all of them, as they came.
type unit struct {
	span   Span
	groups []Group
	ls     []int64 // local versions of the groups, ascending
	size   int
}

// units remembers what came in spans lately, by local version.
type units struct {
	byL   map[int64]*unit
	order []*unit // oldest first
	size  int
}

func (u *units) add(n *unit) {
	if n.size > MaxUnitBytes {
		return
	}
	for len(u.order) > 0 && (len(u.order) >= MaxUnits || u.size+n.size > MaxUnitBytes) {
		oldest := u.order[0]
		u.order[0] = nil
		u.order = u.order[1:]
		u.size -= oldest.size
		for _, l := range oldest.ls {
			delete(u.byL, l)
		}
	}
	if u.byL == nil {
		u.byL = map[int64]*unit{}
	}
	for _, l := range n.ls {
		u.byL[l] = n
	}
	u.order = append(u.order, n)
	u.size += n.size
}

// met notes which entries a walk comes to. Decide fills it, on whatever goroutine, until ReadDone.
type met struct {
	skipped  int64  // highest own version that was skipped
	foreign  Vector // highest version of each other site
	tooMuch  bool   // foreign would have more than MaxSpanDeps sites
	unbroken bool   // the walk before got to its end, and no own version can hide below the cursor
}

func (m *met) note(self, origin SiteID, version int64, d Decision) {
	switch {
	case origin == self && d != DecideSend:
		m.skipped = max(m.skipped, version)
	case origin == self:
	case len(m.foreign) == MaxSpanDeps && m.foreign[origin] == 0:
		m.tooMuch = true
	default:
		if m.foreign == nil {
			m.foreign = Vector{}
		}
		m.foreign[origin] = max(m.foreign[origin], version)
	}
}

// noteForeign notes the local versions of an Apply: whether a walk that ends behind them has missed an own version.
func (c *Core) noteForeign(ls []int64) {
	for _, l := range ls {
		switch {
		case l == 0:
		case l == c.foreignRun.to+1:
			c.foreignRun.to = l
		default:
			c.foreignRun.from, c.foreignRun.to = l, l
		}
	}
}

// solid reports whether no own version lies above own up to the local version walked: a commit whose changes were all beaten by
// others before anybody looked has no entry, and nobody knows of it.
func (c *Core) solid(own, walked int64) bool {
	return own == walked || c.foreignRun.to == walked && c.foreignRun.from <= own+1
}

// ownSpan returns the span of a walk's own entries, if it is sure that all own writes behind the walk before are among
// them, or beaten by entries that the span names.
func (c *Core) ownSpan(l *link, r ReadResult, m *met) (Span, bool) {
	s := Span{Origin: c.cfg.Site, After: max(l.ownWalked, m.skipped), Version: r.Own, Deps: m.foreign}
	if !r.End || !m.unbroken || m.tooMuch || s.Version <= s.After {
		return Span{}, false
	}
	for _, e := range r.Entries {
		if e.Origin == c.cfg.Site {
			return s, true
		}
	}
	return Span{}, false
}

// whole puts the groups of units in place of the entries that are left of them, and returns the spans of these.
func (c *Core) whole(entries []Entry) ([]Entry, []Span) {
	var out []Entry
	var spans []Span
	var used map[*unit]bool
	for i, e := range entries {
		u := c.units.byL[e.L]
		if u == nil || e.Held {
			if out != nil {
				out = append(out, e)
			}
			continue
		}
		if out == nil {
			out = append(make([]Entry, 0, len(entries)), entries[:i]...)
			used = map[*unit]bool{}
		}
		if used[u] {
			continue
		}
		used[u] = true
		for _, g := range u.groups {
			out = append(out, Entry{L: e.L, Origin: g.Origin, Version: g.Version, Changes: g.Changes})
		}
		spans = append(spans, u.span)
	}
	if out == nil {
		return entries, nil
	}
	return out, spans
}

// attach puts spans on the only message of a read, in order of their origins, as far as there is room, and reports whether
// they say all that there is to say of its groups.
func (o *outgoing) attach(spans []Span, maxMessage int) bool {
	m := o.m
	slices.SortFunc(spans, func(a, b Span) int {
		return cmp.Or(cmp.Compare(a.Origin, b.Origin), cmp.Compare(a.After, b.After))
	})
	for _, s := range spans {
		if n := len(m.Spans); n > 0 && m.Spans[n-1].Origin == s.Origin {
			// One span of a site in a message: the next one goes on where the last one ends, or is left out.
			last := &m.Spans[n-1]
			if deps := last.Deps.Max(s.Deps); last.Version == s.After && len(deps) <= MaxSpanDeps {
				last.Version, last.Deps = s.Version, deps
			}
			continue
		}
		if size := spanSize + vectorSize(s.Deps); len(m.Spans) < MaxSpans && o.size+size <= maxMessage-headerSize {
			m.Spans = append(m.Spans, s)
			o.size += size
		}
	}
	o.size = sizeOf(m)
	for i := range m.Groups {
		if spanOf(m, &m.Groups[i]) == nil {
			return false
		}
	}
	return true
}

func findSpan(spans []Span, site SiteID) (at int, found bool) {
	return slices.BinarySearchFunc(spans, site, func(s Span, site SiteID) int { return cmp.Compare(s.Origin, site) })
}

// spanOf returns the span that a group of a message belongs to.
func spanOf(m *Changes, g *Group) *Span {
	at, found := findSpan(m.Spans, g.Origin)
	if !found || g.Version <= m.Spans[at].After || g.Version > m.Spans[at].Version {
		return nil
	}
	return &m.Spans[at]
}

// ownOf returns what spans say of the site that sent them: that it has its own writes.
func ownOf(remote SiteID, spans []Span) Vector {
	at, found := findSpan(spans, remote)
	if !found {
		return nil
	}
	return Vector{remote: spans[at].Version}
}

// takeSpans notes the spans of a message whose groups, the last of a's, are about to be applied.
func (c *Core) takeSpans(a *applying, l *link, m *Changes, size int) {
	first := len(a.groups) - len(m.Groups)
	at := map[*Span][]int{}
	for i := range m.Groups {
		if s := spanOf(m, &m.Groups[i]); s != nil {
			at[s] = append(at[s], first+i)
		}
	}
	for i := range m.Spans {
		s := &m.Spans[i]
		if s.Origin == c.cfg.Site {
			continue
		}
		if len(c.spans) == MaxSpans {
			c.spans = slices.Delete(c.spans, 0, 1) // claims will say it again
		}
		c.spans = append(c.spans, waitingSpan{*s, l})
		a.units = append(a.units, &applyingUnit{unit: &unit{span: *s, size: size}, at: at[s]})
	}
}

// applyingUnit is a unit whose groups, at these places, are being applied.
type applyingUnit struct {
	*unit
	at []int
}

// keepUnits remembers the units of an Apply that had an effect: they have entries to pass on.
func (c *Core) keepUnits(a *applying, r ApplyResult) {
	for _, u := range a.units {
		for _, i := range u.at {
			u.groups = append(u.groups, a.groups[i].Group)
			if i < len(r.Ls) && r.Ls[i] != 0 {
				u.ls = append(u.ls, r.Ls[i])
			}
		}
		if len(u.ls) > 0 {
			c.units.add(u.unit)
		}
	}
}

// resolveSpans takes the spans whose time has come, raises pending and the Apply's claims, and reports whether there was one.
func (c *Core) resolveSpans(a *applying, pending Vector) bool {
	moved := false
	c.spans = slices.DeleteFunc(c.spans, func(s waitingSpan) bool {
		if pending.Covers(s.Origin, s.Version) {
			return true
		}
		if !pending.Covers(s.Origin, s.After) || !pending.CoversAll(s.Deps) {
			return false
		}
		c.raise(a, s.link, pending, Vector{s.Origin: s.Version})
		moved = true
		return true
	})
	return moved
}
