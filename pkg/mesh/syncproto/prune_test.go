package syncproto

import (
	"slices"
	"strings"
	"testing"
)

// What was asked, wanted after all, and asked again before anything of that was said: there is nothing to say. In one message both
// would be malformed, and cost the link.
func TestPruneAgain(t *testing.T) {
	site := func(letter string) SiteID { return SiteID(strings.Repeat(letter, siteLen)) }
	c := &Core{cfg: Config{Site: site("d")}, vector: Vector{}, seen: map[SiteID]seen{}}
	slow := &link{id: 1, remote: site("c"), known: Vector{}, pruning: newPruning(site("d"), site("c"))}
	quick := &link{id: 2, remote: site("b"), known: Vector{}, pruning: newPruning(site("d"), site("b"))}
	comes := func(l *link, version int64) {
		c.judge(l, &Changes{Spans: []Span{{Origin: site("a"), After: version - 1, Version: version}}})
	}
	comes(quick, 1)
	comes(slow, 1)
	if got := first(&slow.toPrune); !slices.Equal(got, []SiteID{site("a")}) {
		t.Fatalf("asked to hold %q", got)
	}
	comes(slow, 2)
	comes(quick, 3)
	comes(slow, 3)
	if len(slow.toPrune) > 0 || len(slow.toGraft) > 0 || !slow.asked[site("a")] {
		t.Errorf("to prune %q, to graft %q; asked %v", slow.toPrune, slow.toGraft, slow.asked)
	}
}
