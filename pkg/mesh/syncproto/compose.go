package syncproto

import (
	"unicode/utf8"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// Sizes that are added to what a message surely takes.
const (
	headerSize = 64 // of a changes message without groups, claims and deps
	groupSize  = 48 // of a group without changes
	spanSize   = 40 // of a span without its deps
	cellSize   = 80 // of a change without its names, key and value: site, versions, lengths
)

// boundOf is a change's size at most, as if it named everything in full.
func boundOf(ch *changeset.Change) int {
	return cellSize + len(ch.Table) + len(ch.CID) + len(ch.PK) + ch.Val.Size()
}

// sizeOf is what a message is counted as in the window, the same on both sides.
func sizeOf(m *Changes) int {
	size := headerSize + vectorSize(m.Claims) + vectorSize(m.Deps)
	for i := range m.Spans {
		size += spanSize + vectorSize(m.Spans[i].Deps)
	}
	for i := range m.Groups {
		size += groupSize
		for j := range m.Groups[i].Changes {
			size += boundOf(&m.Groups[i].Changes[j])
		}
	}
	return size
}

func vectorSize(v Vector) int { return 10 + len(v)*(siteLen+8) }

func countChanges(m *Changes) int {
	n := 0
	for i := range m.Groups {
		n += len(m.Groups[i].Changes)
	}
	return n
}

// compose makes messages of entries that were read, and reports whether nothing was left out. It is one message mostly; a
// run of changes with one (L, seq), which a Read does not split, may need several. Each says what it reached; the
// last one's is the caller's to set.
func (c *Core) compose(l *link, entries []Entry, remaining int64) (parts []outgoing, complete bool) {
	complete = true
	for _, e := range entries {
		fresh := true // no group of this entry in the current message yet
		for i := range e.Changes {
			ch := &e.Changes[i]
			bound := boundOf(ch)
			if !sendable(ch) || headerSize+groupSize+bound > l.maxMessage {
				complete = false
				c.counters.TooLarge++
				c.event(l, Event{Kind: EventTooLarge, Table: ch.Table, CID: ch.CID, Size: bound})
				continue
			}
			if n := len(parts); n == 0 || parts[n-1].full(bound, l.maxMessage) {
				m := &Changes{Remaining: remaining, Reached: l.reached(e.L - 1)}
				parts = append(parts, outgoing{m: m, size: headerSize})
				fresh = true
			}
			parts[len(parts)-1].add(e, ch, fresh, bound)
			fresh = false
		}
	}
	for i := range parts {
		parts[i].size = sizeOf(parts[i].m)
	}
	return parts, complete
}

// full reports whether a change of size bound has to go into another message.
func (o *outgoing) full(bound, maxMessage int) bool {
	return o.changes >= SoftChanges || o.size+groupSize+bound > min(maxMessage, WindowBytes)
}

func (o *outgoing) add(e Entry, ch *changeset.Change, fresh bool, bound int) {
	if fresh {
		o.m.Groups = append(o.m.Groups, Group{Origin: e.Origin, Version: e.Version})
		o.size += groupSize
	}
	g := &o.m.Groups[len(o.m.Groups)-1]
	sent := *ch
	sent.DBVersion = 0
	g.Changes = append(g.Changes, sent)
	o.size += bound
	o.changes++
}

// sendable reports whether the codec can carry a change's names.
func sendable(ch *changeset.Change) bool {
	return nameOK(ch.Table) && nameOK(ch.CID) && len(ch.Site) <= siteLen
}

func nameOK(s string) bool { return textOK(s, MaxName) }

func textOK(s string, most int) bool { return len(s) > 0 && len(s) <= most && utf8.ValidString(s) }
