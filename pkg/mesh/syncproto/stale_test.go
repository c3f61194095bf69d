package syncproto

import (
	"slices"
	"testing"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// TestStaleIsSeen: whatever says that there are writes of our site that we do not hold ends the link, and the event tells
// whether a writer said it.
func TestStaleIsSeen(t *testing.T) {
	for name, c := range map[string]struct {
		kind   EventKind
		reader bool
		hello  Vector
		site   SiteID
		m      Message
	}{
		"a writer's hello":  {kind: EventStaleCopy, hello: Vector{self: 8}},
		"a reader's hello":  {kind: EventStaleCopy, hello: Vector{self: 8}, reader: true},
		"a writer's have":   {kind: EventStaleCopy, m: &Have{Delta: Vector{self: 8}}},
		"a reader's have":   {kind: EventStaleCopy, m: &Have{Delta: Vector{self: 8}}, reader: true},
		"claims":            {kind: EventStaleCopy, m: &Changes{Claims: Vector{self: 8}, Deps: Vector{}}},
		"deps":              {kind: EventStaleCopy, m: &Changes{Claims: Vector{}, Deps: Vector{self: 8}}},
		"an entry":          {kind: EventStaleCopy, m: &Changes{Groups: []Group{{Origin: self, Version: 8, Changes: []changeset.Change{row(1, changeset.Integer(1))}}}}},
		"a writer's site":   {kind: EventSameSite, site: self},
		"a reader's site":   {kind: EventSameSite, site: self, reader: true},
		"what we have":      {m: &Changes{Claims: Vector{self: 7}, Deps: Vector{self: 7}}},
		"what others wrote": {hello: Vector{testSite('x'): 9}, m: &Changes{Claims: Vector{testSite('x'): 9}, Deps: Vector{testSite('x'): 9}}},
	} {
		core := newCore(t, Config{Own: 7, Newest: 9, Writer: true})
		core.Open(1, OpenInfo{Remote: other})
		h := &Hello{Site: other, Writer: !c.reader, MaxMessage: MinMaxMessage, Vector: c.hello}
		if c.site != "" {
			h.Site = c.site
		}
		core.Step(1, h)
		if c.m != nil {
			core.Step(1, c.m)
		}
		r := core.Ready()
		at := slices.IndexFunc(r.Events, func(e Event) bool { return e.Kind == EventStaleCopy || e.Kind == EventSameSite })
		if c.kind == 0 {
			if at >= 0 || len(r.Closes) > 0 {
				t.Errorf("%s: %+v", name, r)
			}
			continue
		}
		if at < 0 || r.Events[at].Kind != c.kind || r.Events[at].Proved == c.reader || c.kind == EventStaleCopy && r.Events[at].Version != 8 {
			t.Errorf("%s: the events are %+v", name, r.Events)
		}
		code := CodeStaleCopy
		if c.kind == EventSameSite {
			code = CodeSameSite
		}
		if e := closed(t, r); e.Code != code {
			t.Errorf("%s: %v", name, e)
		}
	}
}

// TestResumeOfLostTime: a walk begins where the other side says, unless it cannot have come so far: neither to what there was at
// the start, nor to what it acknowledged since. What was sent and not acknowledged may have got lost, and a twin have told the number.
func TestResumeOfLostTime(t *testing.T) {
	core := newCore(t, Config{Own: 10, Newest: 10, Writer: true})
	core.Committed(22, 22)
	id := LinkID(0)
	for _, c := range []struct{ resume, begins int64 }{{20, 0}, {10, 10}, {11, 0}} {
		if got := beginsWalk(core, &id, c.resume); got.After.L != c.begins {
			t.Errorf("with %d reached the walk begins behind %d, not %d", c.resume, got.After.L, c.begins)
		}
	}
	for _, c := range []struct{ newest, acknowledged, resume, begins int64 }{{22, 1, 22, 22}, {23, 0, 23, 22}, {23, 1, 23, 23}} {
		core.Committed(c.newest, c.newest)
		read := beginsWalk(core, &id, 0)
		core.ReadDone(ReadResult{ID: read.ID, Link: read.Link, Next: Position{c.newest, EntryEnd}, End: true, Own: c.newest, Newest: c.newest})
		if sent := core.Ready().Sends; sent[0].Message.(*Changes).Reached != c.newest {
			t.Fatalf("sent %+v", sent)
		}
		core.Step(id, &Have{Applied: c.acknowledged})
		core.Ready()
		core.Close(id)
		core.Committed(c.newest+1, c.newest+1)
		if got := beginsWalk(core, &id, c.resume); got.After.L != c.begins {
			t.Errorf("%+v: the walk goes on behind %d", c, got.After.L)
		}
	}
}

// beginsWalk opens a link in place of the last one, and returns the first read for it.
func beginsWalk(c *Core, id *LinkID, resume int64) ReadRequest {
	c.Close(*id)
	*id++
	c.Open(*id, OpenInfo{Remote: other})
	c.Step(*id, &Hello{Site: other, MaxMessage: MinMaxMessage, Resume: resume})
	return c.Ready().Reads[0]
}
