package syncproto

import "slices"

// In a large room an entry comes to a peer over several of its links. The first copy shows the better way; whoever sends
// another one is asked to hold that site's entries back (prune), and again to send them at once when one comes late and
// was needed after all (graft). So for each site the eager links settle into a tree. The held ones cost nothing but what
// have tells anyway, and are sent when a have does not cover them in time: the tree mends itself.

// pruning is a link's part in that.
type pruning struct {
	pruned     map[SiteID]bool // sites whose entries the other side asked us to hold; never modified, replaced
	asked      map[SiteID]bool // sites whose entries we asked the other side to hold
	toPrune    []SiteID        // to be said
	toGraft    []SiteID
	got        Vector // entries that came from the other side and that it is not known to cover
	pruneDelay int64  // ticks: senders of one receiver wait differently, so that one of them is first
}

// newPruning depends on the two ends only.
func newPruning(self, remote SiteID) pruning {
	sum := 0
	for i := range min(len(self), len(remote)) {
		sum += int(self[i]) + 3*int(remote[i])
	}
	return pruning{asked: map[SiteID]bool{}, got: Vector{}, pruneDelay: PruneTicks + int64(sum%PruneTicks)}
}

// seen is up to which version spans of a site came lately, and over which link.
type seen struct {
	version int64
	link    LinkID
}

// judge looks at what a message brings: copies of what came over another link are not wanted, what comes although it is
// pruned is.
func (c *Core) judge(l *link, m *Changes) {
	for i := range m.Spans {
		s := &m.Spans[i]
		if s.Origin == c.cfg.Site || s.Origin == l.remote {
			continue
		}
		before := c.seen[s.Origin]
		if c.vector.Covers(s.Origin, s.Version) || before.version >= s.Version && before.link != l.id {
			l.ask(s.Origin)
			continue
		}
		l.graft(s.Origin)
		if len(c.seen) < MaxVectorSites || before.version > 0 {
			c.seen[s.Origin] = seen{s.Version, l.id}
		}
	}
	for i := range m.Groups {
		g := &m.Groups[i]
		if l.asked[g.Origin] && spanOf(m, g) == nil && !c.vector.Covers(g.Origin, g.Version) {
			l.graft(g.Origin)
		}
		if !l.known.Covers(g.Origin, g.Version) && (l.got[g.Origin] > 0 || len(l.got) < MaxVectorSites) {
			l.got[g.Origin] = max(l.got[g.Origin], g.Version)
		}
	}
}

func (l *link) ask(site SiteID) {
	if l.asked[site] || len(l.asked) >= MaxVectorSites {
		return
	}
	l.asked[site] = true
	if at := slices.Index(l.toGraft, site); at >= 0 {
		l.toGraft = slices.Delete(l.toGraft, at, at+1) // that it is wanted was not said yet
		return
	}
	l.toPrune = append(l.toPrune, site)
}

func (l *link) graft(site SiteID) {
	if !l.asked[site] {
		return
	}
	delete(l.asked, site)
	if at := slices.Index(l.toPrune, site); at >= 0 {
		l.toPrune = slices.Delete(l.toPrune, at, at+1) // it was not said yet
		return
	}
	l.toGraft = append(l.toGraft, site)
}

// sendPrune says what judge found.
func (c *Core) sendPrune(l *link) {
	for len(l.toPrune) > 0 || len(l.toGraft) > 0 {
		c.send(l, &Prune{Prune: first(&l.toPrune), Graft: first(&l.toGraft)})
	}
}

// first takes as many sites as a message holds off a list, in ascending order.
func first(list *[]SiteID) []SiteID {
	n := min(len(*list), MaxPrunes)
	out := slices.Clone((*list)[:n])
	*list = slices.Delete(*list, 0, n)
	slices.Sort(out)
	return out
}

func (c *Core) stepPrune(l *link, m *Prune) {
	pruned := make(map[SiteID]bool, len(l.pruned)+len(m.Prune))
	for site := range l.pruned {
		pruned[site] = true
	}
	for _, site := range m.Graft {
		delete(pruned, site)
	}
	for _, site := range m.Prune {
		pruned[site] = true
	}
	if len(pruned) > MaxVectorSites {
		c.fail(l, malformed("more than %d sites are pruned", MaxVectorSites))
		return
	}
	l.pruned = pruned
}
