package meshtest

import (
	"slices"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
)

// Variant is a way to get the protocol wrong, which a simulation has to notice.
type Variant string

// The variants. Correct is none.
const (
	Correct          Variant = ""
	NoDeps           Variant = "no deps"
	DepsFromVector   Variant = "deps from the vector, not from the log"
	ResumePastHeld   Variant = "resume past held entries"
	ClaimsAtSending  Variant = "claims as of sending, not of the read"
	ClaimsInTheMidst Variant = "claims in the middle of a walk"
	RenewalRelogs    Variant = "a renewal that writes nothing anew"
	SpansAlone       Variant = "spans that name nothing they depend on"
	SpansOfTheRest   Variant = "spans passed on with what is left of their groups"
	Renumbers        Variant = "a store that records its own version in place of the origin's"
	VectorOfRows     Variant = "a stored vector that rows raise, not claims"
	TornApply        Variant = "claims that are stored before their rows"
	LosesCommit      Variant = "a crash that takes a commit back"
)

// Variants are all of them, Correct left out.
var Variants = []Variant{
	NoDeps, DepsFromVector, ResumePastHeld, ClaimsAtSending, ClaimsInTheMidst, RenewalRelogs, SpansAlone, SpansOfTheRest,
	Renumbers, VectorOfRows, TornApply, LosesCommit,
}

// mutate returns what makes a sender wrong in that way.
func (v Variant) mutate() func(*Conn, *Peer, *syncproto.Changes) {
	switch v {
	case NoDeps:
		return func(_ *Conn, _ *Peer, m *syncproto.Changes) {
			if m.Claims != nil {
				m.Deps = syncproto.Vector{}
			}
		}
	case DepsFromVector:
		return func(_ *Conn, _ *Peer, m *syncproto.Changes) {
			deps := syncproto.Vector{}
			for site, version := range m.Deps {
				if m.Claims.Covers(site, version) {
					deps[site] = version
				}
			}
			m.Deps = deps
		}
	case ResumePastHeld:
		return func(c *Conn, p *Peer, m *syncproto.Changes) {
			m.Reached = max(m.Reached, c.Walked[slices.Index(c.Ends[:], p)])
		}
	case SpansAlone:
		return func(_ *Conn, _ *Peer, m *syncproto.Changes) {
			for i := range m.Spans {
				m.Spans[i].Deps = nil
			}
		}
	case SpansOfTheRest:
		return func(_ *Conn, p *Peer, m *syncproto.Changes) {
			for i := range m.Groups {
				g := &m.Groups[i]
				var left []changeset.Change
				for _, ch := range g.Changes {
					if key, c := KeyOf(ch); p.Store.CellOf(key) == c {
						left = append(left, ch)
					}
				}
				if len(left) == 0 {
					left = g.Changes[:1] // a group is never empty
				}
				g.Changes = left
			}
		}
	case ClaimsAtSending:
		return func(_ *Conn, p *Peer, m *syncproto.Changes) {
			if m.Claims != nil {
				m.Claims = p.Core.Vector()
			}
		}
	case ClaimsInTheMidst:
		return func(_ *Conn, p *Peer, m *syncproto.Changes) {
			if m.Claims == nil {
				m.Claims, m.Deps = p.Core.Vector(), syncproto.Vector{}
			}
		}
	}
	return nil
}

// mutateApply returns what makes a store wrong in that way.
func (v Variant) mutateApply() func(*Peer, *syncproto.ApplyRequest) {
	switch v {
	case Renumbers: // as cr-sqlite's own clocks do
		return func(p *Peer, r *syncproto.ApplyRequest) {
			r.Groups = slices.Clone(r.Groups)
			newest := p.Store.State().Newest
			for i := range r.Groups {
				r.Groups[i].Version = newest + 1 + int64(i)
			}
		}
	case VectorOfRows:
		return func(_ *Peer, r *syncproto.ApplyRequest) {
			claims := syncproto.Vector{}
			for site, version := range r.Claims {
				claims[site] = version
			}
			for _, g := range r.Groups {
				claims[g.Origin] = max(claims[g.Origin], g.Version)
			}
			r.Claims = claims
		}
	}
	return nil
}
