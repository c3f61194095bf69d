package syncproto

import (
	"fmt"
	"testing"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

func testUnit(l int64, size int) *unit {
	g := Group{Origin: testSite(1), Version: l, Changes: []changeset.Change{{Table: "t", CID: fmt.Sprint(l)}}}
	return &unit{span: Span{Origin: testSite(1), After: l - 1, Version: l}, groups: []Group{g}, ls: []int64{l}, size: size}
}

func TestUnitsAreBounded(t *testing.T) {
	var u units
	for l := int64(1); l <= 2*MaxUnits; l++ {
		u.add(testUnit(l, 10))
	}
	if len(u.order) != MaxUnits || len(u.byL) != MaxUnits || u.byL[MaxUnits] != nil || u.byL[2*MaxUnits] == nil {
		t.Errorf("%d units, %d local versions", len(u.order), len(u.byL))
	}
	u.add(testUnit(1e6, MaxUnitBytes-5))
	if u.size > MaxUnitBytes || u.byL[1e6] == nil || len(u.order) != 1 {
		t.Errorf("%d bytes in %d units", u.size, len(u.order))
	}
	u.add(testUnit(2e6, MaxUnitBytes+1))
	if u.byL[2e6] != nil || u.byL[1e6] == nil {
		t.Error("a unit over the bound was kept, or drove another one out")
	}
}

// Only what is whole is passed on with its span, and each unit once.
func TestWhole(t *testing.T) {
	c := newCore(t, Config{Site: testSite(9), Writer: true})
	u := &unit{span: Span{Origin: testSite(1), After: 4, Version: 6}, ls: []int64{7, 8}, size: 1, groups: []Group{
		{Origin: testSite(1), Version: 5, Changes: make([]changeset.Change, 3)}, {Origin: testSite(1), Version: 6, Changes: make([]changeset.Change, 2)},
	}}
	c.units.add(u)
	plain := []Entry{{L: 6, Origin: testSite(2), Version: 1, Changes: make([]changeset.Change, 1)}}
	if out, spans := c.whole(plain); len(out) != 1 || spans != nil {
		t.Errorf("%v %v", out, spans)
	}
	held := append(plain, Entry{L: 7, Origin: testSite(1), Version: 5, Held: true})
	if out, spans := c.whole(held); len(out) != 2 || !out[1].Held || spans != nil {
		t.Errorf("%v %v", out, spans)
	}
	// One change of the five is left of the unit here.
	left := append(plain, Entry{L: 7, Origin: testSite(1), Version: 5, Changes: make([]changeset.Change, 1)},
		Entry{L: 8, Origin: testSite(1), Version: 6, Changes: make([]changeset.Change, 1)})
	out, spans := c.whole(left)
	if len(out) != 3 || len(out[1].Changes) != 3 || len(out[2].Changes) != 2 || len(spans) != 1 {
		t.Errorf("%v %v", out, spans)
	}
}

// Spans of one site become one where they touch; one that does not is left out, and then claims are owed.
func TestAttach(t *testing.T) {
	a, b := testSite(1), testSite(2)
	group := func(origin SiteID, version int64) Group { return Group{Origin: origin, Version: version} }
	o := outgoing{m: &Changes{Groups: []Group{group(b, 3), group(a, 5), group(a, 6)}}}
	if !o.attach([]Span{{b, 2, 3, nil}, {a, 5, 6, Vector{b: 1}}, {a, 4, 5, Vector{b: 3}}}, MaxMessage) || len(o.m.Spans) != 2 ||
		o.m.Spans[0].After != 4 || o.m.Spans[0].Version != 6 || o.m.Spans[0].Deps[b] != 3 {
		t.Errorf("%+v", o.m.Spans)
	}
	o = outgoing{m: &Changes{Groups: []Group{group(a, 5), group(a, 8)}}}
	if o.attach([]Span{{a, 4, 5, nil}, {a, 7, 8, nil}}, MaxMessage) || len(o.m.Spans) != 1 {
		t.Errorf("a gap: %+v", o.m.Spans)
	}
	o = outgoing{m: &Changes{Groups: []Group{group(a, 5), group(b, 1)}}}
	if o.attach([]Span{{a, 4, 5, nil}}, MaxMessage) {
		t.Error("a group without a span was taken for complete")
	}
}

func TestSpansWaitingAreBounded(t *testing.T) {
	c := newCore(t, Config{Site: testSite(9), Writer: true})
	l := newLink(c.cfg.Site, 1, OpenInfo{Remote: testSite(1)})
	a := &applying{}
	for v := int64(1); v <= MaxSpans+10; v++ {
		m := &Changes{Groups: []Group{{Origin: testSite(1), Version: 2 * v}}, Spans: []Span{{testSite(1), 2*v - 1, 2 * v, nil}}}
		a.groups = append(a.groups, ApplyGroup{1, m.Groups[0]})
		c.takeSpans(a, l, m, 10)
	}
	if len(c.spans) != MaxSpans {
		t.Errorf("%d spans wait", len(c.spans))
	}
	// What is covered in the end, by claims, waits no more.
	if c.resolveSpans(a, Vector{testSite(1): 2 * MaxSpans}) || len(c.spans) != 10 {
		t.Errorf("%d spans wait", len(c.spans))
	}
}
