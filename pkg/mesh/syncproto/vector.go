package syncproto

import (
	"cmp"
	"maps"
	"slices"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// SiteID names one database: 16 bytes.
type SiteID = changeset.SiteID

// Vector says for each site up to which of its versions a peer covers every write. A missing site is version 0.
//
// The core treats a Vector as immutable once anybody else can see it, and replaces it as a whole: handing one out
// costs nothing, and whoever is given one must not change it.
type Vector map[SiteID]int64

// Covers reports whether v covers version of site.
func (v Vector) Covers(site SiteID, version int64) bool { return v[site] >= version }

// CoversAll reports whether v covers all of o.
func (v Vector) CoversAll(o Vector) bool {
	for site, version := range o {
		if v[site] < version {
			return false
		}
	}
	return true
}

// Sites returns the sites of v in ascending order.
func (v Vector) Sites() []SiteID { return slices.Sorted(maps.Keys(v)) }

// With returns a Vector like v in which site has version; v itself, where it has that version or a higher one.
func (v Vector) With(site SiteID, version int64) Vector {
	if v[site] >= version {
		return v
	}
	out := maps.Clone(v)
	if out == nil {
		out = Vector{}
	}
	out[site] = version
	return out
}

// Without returns a Vector like v without site; v itself, where site is missing.
func (v Vector) Without(site SiteID) Vector {
	if _, ok := v[site]; !ok {
		return v
	}
	out := maps.Clone(v)
	delete(out, site)
	return out
}

// Max returns the entry-wise maximum of v and o, and v itself where that is v.
func (v Vector) Max(o Vector) Vector {
	if v.CoversAll(o) {
		return v
	}
	out := maps.Clone(v)
	if out == nil {
		out = Vector{}
	}
	for site, version := range o {
		out[site] = max(out[site], version)
	}
	return out
}

// Since returns the entries of v that are above those of o; nil if there are none.
func (v Vector) Since(o Vector) Vector {
	var out Vector
	for site, version := range v {
		if version > o[site] {
			if out == nil {
				out = Vector{}
			}
			out[site] = version
		}
	}
	return out
}

// Position is a place in a peer's entries: everything with a lower local version than L, and of L itself every change
// with a sequence number up to Seq, is at or before it. Seq is EntryEnd where all of L is.
type Position struct{ L, Seq int64 }

// EntryEnd is the Seq of a Position at the end of an entry.
const EntryEnd = 1<<63 - 1

// Compare orders positions: -1 if p is before o, 0 if they are equal, 1 if it is behind.
func (p Position) Compare(o Position) int {
	if c := cmp.Compare(p.L, o.L); c != 0 {
		return c
	}
	return cmp.Compare(p.Seq, o.Seq)
}

// whole is the last local version that lies before p as a whole.
func (p Position) whole() int64 {
	if p.Seq == EntryEnd {
		return p.L
	}
	return max(p.L-1, 0)
}
