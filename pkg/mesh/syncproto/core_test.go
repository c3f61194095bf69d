package syncproto

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// These tests drive one core by hand where a simulation does not get to: limits, and what a hostile peer may send.

var self, other = testSite('s'), testSite('o')

func newCore(t *testing.T, cfg Config) *Core {
	t.Helper()
	cfg.Site = self
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// live opens a link to a writer of the given vector, and returns what the core wants done.
func live(c *Core, id LinkID, site SiteID, v Vector) Ready {
	c.Open(id, OpenInfo{Remote: site, Proof: make([]byte, ProofLen)})
	c.Step(id, &Hello{Site: site, Writer: true, Feed: true, Proof: make([]byte, ProofLen), MaxMessage: MinMaxMessage, Vector: v})
	return c.Ready()
}

func changesOf(sends []Send) []*Changes {
	var out []*Changes
	for _, s := range sends {
		if m, ok := s.Message.(*Changes); ok {
			out = append(out, m)
		}
	}
	return out
}

// closed returns the error for which the only link was closed.
func closed(t *testing.T, r Ready) *Error {
	t.Helper()
	if len(r.Closes) != 1 || r.Closes[0].Err == nil {
		t.Fatalf("closes: %+v", r.Closes)
	}
	last := r.Sends[len(r.Sends)-1].Message
	if last != Message(r.Closes[0].Err) {
		t.Fatalf("the last message is %T, not the error", last)
	}
	return r.Closes[0].Err
}

func row(key int, value changeset.Value) changeset.Change {
	return changeset.Change{
		Table: "t", PK: fmt.Appendf(nil, "%d", key), CID: "c", Val: value, ColVersion: 1, CL: 1, Seq: int64(key), Site: self,
	}
}

func TestConfigIsChecked(t *testing.T) {
	large := Vector{}
	for i := range MaxVectorSites {
		large[SiteID(fmt.Sprintf("%016d", i))] = 1
	}
	for name, cfg := range map[string]Config{
		"site":  {Site: "short"},
		"small": {Site: self, MaxMessage: MinMaxMessage - 1}, "large": {Site: self, MaxMessage: MaxMessage + 1},
		"vector": {Site: self, Vector: large},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestHelloIsChecked(t *testing.T) {
	good := Hello{Site: other, MaxMessage: MinMaxMessage}
	with := func(f func(*Hello)) *Hello {
		h := good
		f(&h)
		return &h
	}
	for name, x := range map[string]struct {
		m    Message
		code Code
	}{
		"another site":    {with(func(h *Hello) { h.Site = testSite('x') }), CodeMalformed},
		"our site":        {with(func(h *Hello) { h.Site = self }), CodeSameSite},
		"our future":      {with(func(h *Hello) { h.Vector = Vector{self: 8} }), CodeStaleCopy},
		"have first":      {&Have{}, CodeMalformed},
		"changes first":   {&Changes{}, CodeMalformed},
		"schema first":    {&Schema{}, CodeMalformed},
		"a bad signature": {nil, CodeBadProof},
	} {
		c := newCore(t, Config{Own: 7, Newest: 7, Writer: true})
		c.Open(1, OpenInfo{Remote: other})
		if x.m == nil {
			c.Refuse(1, &Error{CodeBadProof, "the proof does not verify"})
		} else {
			c.Step(1, x.m)
		}
		if e := closed(t, c.Ready()); e.Code != x.code {
			t.Errorf("%s: %v, not %v", name, e, x.code)
		}
		// Closed to the core, whatever comes.
		c.Step(1, &good)
		c.Refuse(1, &Error{CodeInternal, "twice"})
		if r := c.Ready(); !r.Empty() {
			t.Errorf("%s: a closed link wants %+v", name, r)
		}
		c.Close(1)
		if s := c.Status(); len(s.Links) != 0 {
			t.Errorf("%s: %+v", name, s.Links)
		}
	}
}

func TestReceiverEnforcesTheWindow(t *testing.T) {
	c := newCore(t, Config{})
	live(c, 1, other, Vector{other: 100})
	group := func(key int) *Changes {
		return &Changes{Groups: []Group{{Origin: other, Version: 1, Changes: []changeset.Change{row(key, changeset.Null())}}}}
	}
	for i := range WindowMessages {
		c.Step(1, group(i))
		if r := c.Ready(); len(r.Closes) > 0 {
			t.Fatalf("closed after %d messages: %v", i+1, r.Closes[0].Err)
		}
	}
	c.Step(1, group(99))
	if e := closed(t, c.Ready()); e.Code != CodeFlow {
		t.Fatal(e)
	}
}

func TestReceiverEnforcesTheBytesOfTheWindow(t *testing.T) {
	c := newCore(t, Config{})
	live(c, 1, other, Vector{other: 100})
	blob := changeset.Blob(make([]byte, 2*WindowBytes))
	large := &Changes{Groups: []Group{{Origin: other, Version: 1, Changes: []changeset.Change{row(1, blob)}}}}
	c.Step(1, large)
	if r := c.Ready(); len(r.Closes) > 0 { // one message may have any size
		t.Fatal(r.Closes[0].Err)
	}
	c.Step(1, large)
	if e := closed(t, c.Ready()); e.Code != CodeFlow {
		t.Fatal(e)
	}
}

func TestVectorsOfOthersStayBounded(t *testing.T) {
	c := newCore(t, Config{})
	live(c, 1, other, Vector{})
	for i := 0; ; i++ {
		delta := Vector{}
		for j := range 4000 {
			delta[SiteID(fmt.Sprintf("%08d%08d", i, j))] = 1
		}
		c.Step(1, &Have{Delta: delta})
		r := c.Ready()
		if len(r.Closes) > 0 {
			if e := closed(t, r); e.Code != CodeMalformed || i != MaxVectorSites/4000 {
				t.Fatalf("have %d: %v", i, e)
			}
			return
		}
		if i > 10 {
			t.Fatal("no end")
		}
	}
}

func TestVectorTakesNoMoreThanItsLimit(t *testing.T) {
	v := Vector{}
	for i := range MaxVectorSites - 1 {
		v[SiteID(fmt.Sprintf("%016d", i))] = 1
	}
	c := newCore(t, Config{Vector: v, Own: 1, Newest: 1})
	if len(c.Vector()) != MaxVectorSites {
		t.Fatal(len(c.Vector()))
	}
	live(c, 1, other, Vector{other: 5})
	c.Step(1, &Changes{Claims: Vector{other: 5, "0000000000000001": 7}, Deps: Vector{}})
	r := c.Ready()
	if r.Apply == nil || len(r.Apply.Claims) != 1 || r.Apply.Claims["0000000000000001"] != 7 {
		t.Fatalf("%+v", r.Apply)
	}
	full := false
	for _, e := range r.Events {
		full = full || e.Kind == EventVectorFull
	}
	if !full {
		t.Error("no event says that the vector is full")
	}
}

// One message may claim as many sites as a vector has. Whoever is linked here has a place all the same.
func TestInventedSitesLeavePlaces(t *testing.T) {
	c := newCore(t, Config{})
	live(c, 1, other, Vector{other: 5})
	live(c, 2, testSite('z'), Vector{})
	invented := Vector{}
	for i := range MaxVectorSites {
		invented[SiteID(fmt.Sprintf("%016d", i))] = 1
	}
	claim := func(id LinkID, claims Vector) Ready {
		c.Step(id, &Changes{Claims: claims, Deps: Vector{}})
		r := c.Ready()
		if r.Apply != nil {
			c.Applied(ApplyResult{ID: r.Apply.ID})
		}
		return r
	}
	said := 0
	for range 2 {
		for _, e := range claim(2, invented).Events {
			if e.Kind == EventVectorFull {
				said++
			}
		}
	}
	if n := len(c.Vector()); n != MaxVectorSites-ReservedSites || said != 1 {
		t.Errorf("the vector has %d sites, and %d events say that it is full", n, said)
	}
	claim(1, Vector{other: 5, testSite('n'): 3})
	if v := c.Vector(); v[other] != 5 || v[testSite('n')] != 0 {
		t.Errorf("of the link's claims there are %d and %d", v[other], v[testSite('n')])
	}
}

// entriesOf answers the read of a ready with the given entries.
func answer(t *testing.T, c *Core, r Ready, entries []Entry) Ready {
	t.Helper()
	if len(r.Reads) != 1 {
		t.Fatalf("%d reads", len(r.Reads))
	}
	last := entries[len(entries)-1]
	c.ReadDone(ReadResult{
		ID: r.Reads[0].ID, Link: 1, Entries: entries, Next: Position{last.L, EntryEnd}, End: true, Own: last.L, Newest: last.L,
	})
	return c.Ready()
}

func TestChangesTooLargeForTheOtherSideAreLeftOut(t *testing.T) {
	c := newCore(t, Config{Writer: true, Own: 1, Newest: 1})
	r := live(c, 1, other, Vector{})
	bad := []changeset.Change{
		row(1, changeset.Integer(1)), row(2, changeset.Blob(make([]byte, MinMaxMessage))), row(3, changeset.Integer(3)),
		row(4, changeset.Null()), row(5, changeset.Null()), row(6, changeset.Null()),
	}
	bad[3].CID, bad[4].Table, bad[5].Site = "\xff", strings.Repeat("x", MaxName+1), "longer than 16 bytes"
	r = answer(t, c, r, []Entry{{L: 1, Origin: self, Version: 1, Changes: bad}})
	sent := changesOf(r.Sends)
	if len(sent) != 1 || countChanges(sent[0]) != 2 || sent[0].Claims[self] != 1 || sent[0].Reached != 1 {
		t.Fatalf("%+v", sent)
	}
	var left []string
	for _, e := range r.Events {
		if e.Kind == EventTooLarge {
			left = append(left, e.Table[:1]+"."+e.CID)
		}
	}
	if got := strings.Join(left, " "); got != "t.c t.\xff x.c t.c" || c.Status().Applied.TooLarge != 4 {
		t.Errorf("events %q, counted %d", got, c.Status().Applied.TooLarge)
	}
}

// A run of changes with one (L, seq) is not split by a Read, however large it is: messages are.
func TestRunsAreSplitIntoMessagesThatFit(t *testing.T) {
	c := newCore(t, Config{Writer: true, Own: 2, Newest: 2})
	r := live(c, 1, other, Vector{})
	var run []changeset.Change
	for i := range 9000 {
		run = append(run, row(i, changeset.Integer(int64(i))))
	}
	for i := range 5 {
		run = append(run, row(10000+i, changeset.Blob(bytes.Repeat([]byte{byte(i)}, MinMaxMessage/2))))
	}
	r = answer(t, c, r, []Entry{
		{L: 1, Origin: self, Version: 1, Changes: run[:1]}, {L: 2, Origin: self, Version: 2, Changes: run[1:]},
	})
	var got []changeset.Change
	var last *Changes
	for {
		for _, m := range changesOf(r.Sends) {
			b := m.AppendMarshal(nil)
			if len(b) > MinMaxMessage {
				t.Fatalf("a message of %d bytes", len(b))
			}
			if _, err := Parse(b); err != nil {
				t.Fatal(err)
			}
			if last != nil && (last.Claims != nil || last.Remaining == 0 || last.Reached != m.Reached && m.Claims == nil && last.Reached != 0) {
				t.Fatalf("not the last message: reached %d, remaining %d, claims %v", last.Reached, last.Remaining, last.Claims)
			}
			if m.Claims == nil && m.Reached >= 2 {
				t.Fatal("reached an entry that was not sent as a whole")
			}
			for _, g := range m.Groups {
				got = append(got, g.Changes...)
			}
			last = m
		}
		if len(c.links[1].inflight) > WindowMessages {
			t.Fatal("over the window")
		}
		if last.Claims != nil {
			break
		}
		c.Step(1, &Have{Feed: true, Applied: c.links[1].sentMessages})
		r = c.Ready()
	}
	if len(got) != len(run) || last.Reached != 2 || last.Claims[self] != 2 {
		t.Fatalf("%d of %d changes, reached %d, claims %v", len(got), len(run), last.Reached, last.Claims)
	}
	for i := range got {
		if !bytes.Equal(got[i].PK, run[i].PK) || !got[i].Val.Equal(run[i].Val) {
			t.Fatalf("change %d is another", i)
		}
	}
}

func TestHeldEntriesStayBounded(t *testing.T) {
	c := newCore(t, Config{Writer: true, Newest: 3 * MaxHeld})
	c.Open(1, OpenInfo{Remote: other, Proof: make([]byte, ProofLen)})
	far := testSite('f')
	c.Step(1, &Hello{Site: other, MaxMessage: MinMaxMessage, Neighbours: []SiteID{far}, Busy: true})
	next := int64(1)
	reads := 0
	for r := c.Ready(); len(r.Reads) > 0; r = c.Ready() {
		reads++
		result := ReadResult{ID: r.Reads[0].ID, Link: 1, Next: r.Reads[0].After, Newest: 3 * MaxHeld}
		for r.Reads[0].Decide(far, next) == DecideHold {
			result.Entries = append(result.Entries, Entry{L: next, Origin: far, Version: next, Held: true})
			result.Next = Position{next, EntryEnd}
			next++
		}
		c.ReadDone(result)
	}
	if n := len(c.links[1].held); n != MaxHeld || reads != MaxHeld/MaxDecisions {
		t.Fatalf("%d held after %d reads", n, reads)
	}
	// What the other side gets meanwhile makes room.
	c.Step(1, &Have{Busy: true, Delta: Vector{far: 1000}})
	if r := c.Ready(); len(r.Reads) != 1 {
		t.Fatal("the walk does not go on")
	}
	if n := len(c.links[1].held); n != MaxHeld-1000 {
		t.Fatalf("%d held", n)
	}
}

func TestLinksStayBounded(t *testing.T) {
	c := newCore(t, Config{})
	for i := range MaxLinks {
		c.Open(LinkID(i+1), OpenInfo{Remote: SiteID(fmt.Sprintf("%016d", i))})
	}
	c.Ready()
	c.Open(MaxLinks+1, OpenInfo{Remote: other})
	if e := closed(t, c.Ready()); e.Code != CodeInternal {
		t.Fatal(e)
	}
}

func TestFeedingLinkThatIsSilentIsReplaced(t *testing.T) {
	c := newCore(t, Config{})
	live(c, 1, other, Vector{other: 5})
	live(c, 2, testSite('p'), Vector{testSite('p'): 5})
	if c.Status().Feeder != 1 {
		t.Fatalf("link %d feeds", c.Status().Feeder)
	}
	for range FeedTimeoutTicks - 1 {
		c.Tick()
		c.Ready()
	}
	if c.Status().Feeder != 1 {
		t.Fatal("too early")
	}
	c.Tick()
	told := false
	for _, s := range c.Ready().Sends {
		if h, ok := s.Message.(*Have); ok && s.Link == 2 {
			told = h.Feed
		}
	}
	if c.Status().Feeder != 2 || !told {
		t.Fatalf("link %d feeds, told %v", c.Status().Feeder, told)
	}
}

// Results of requests whose link is gone, or that were never made, change nothing.
func TestStrayResultsAreIgnored(t *testing.T) {
	c := newCore(t, Config{Writer: true, Own: 1, Newest: 1})
	r := live(c, 1, other, Vector{})
	c.Close(1)
	c.ReadDone(ReadResult{ID: r.Reads[0].ID, Link: 1, Next: Position{1, EntryEnd}, End: true, Own: 1, Newest: 1})
	c.Applied(ApplyResult{ID: 77, Own: math.MaxInt64})
	c.SchemaApplied(1)
	c.Close(1)
	c.Step(1, &Have{Applied: 5})
	if r := c.Ready(); !r.Empty() || c.Vector()[self] != 1 {
		t.Fatalf("%+v %v", r, c.Vector())
	}
}

// A claims queue that is full drops the oldest: the newest says the most.
func TestWaitingClaimsStayBounded(t *testing.T) {
	c := newCore(t, Config{})
	live(c, 1, other, Vector{other: 1000})
	far := testSite('f')
	for i := range 3 * MaxClaimsQueue {
		v := int64(i + 1)
		c.Step(1, &Changes{Claims: Vector{other: v}, Deps: Vector{far: v}})
		if r := c.Ready(); r.Apply != nil || len(r.Closes) > 0 {
			t.Fatalf("%+v", r)
		}
	}
	if n := len(c.links[1].claims); n != MaxClaimsQueue {
		t.Fatalf("%d claims wait", n)
	}
	live(c, 2, far, Vector{far: 1000})
	c.Step(2, &Changes{Claims: Vector{far: 150}, Deps: Vector{}})
	if r := c.Ready(); r.Apply == nil || r.Apply.Claims[other] != 150 || r.Apply.Claims[far] != 150 {
		t.Fatalf("%+v", r.Apply)
	}
}

func TestNewerLinkOfASiteReplacesTheOlder(t *testing.T) {
	c := newCore(t, Config{Writer: true})
	live(c, 1, other, Vector{})
	r := live(c, 2, other, Vector{})
	if len(r.Closes) != 1 || r.Closes[0].Link != 1 || r.Closes[0].Err == nil || r.Closes[0].Err.Code != CodeSuperseded {
		t.Fatalf("closes: %+v", r.Closes)
	}
	c.Close(1)
	links := c.Status().Links
	if len(links) != 1 || links[0].Remote != other {
		t.Errorf("links: %+v", links)
	}
}

// A reader's tables end its link; its hash alone is taken, since it says no more than its hello does.
func TestSchemaOfReader(t *testing.T) {
	table := TableSchema{Name: "t", SQL: "CREATE TABLE t (k PRIMARY KEY NOT NULL)"}
	for _, tables := range [][]TableSchema{nil, {table}} {
		c := newCore(t, Config{Writer: true})
		c.SchemaChanged([32]byte{1}, 0, []TableSchema{table})
		c.Open(1, OpenInfo{Remote: other, Proof: make([]byte, ProofLen)})
		c.Step(1, &Hello{Site: other, MaxMessage: MaxMessage, SchemaHash: [32]byte{2}, Vector: Vector{}})
		c.Ready()
		c.Step(1, &Schema{Hash: [32]byte{1}, Generation: 9, Tables: tables})
		r := c.Ready()
		if len(r.Schemas) > 0 || (len(r.Closes) > 0) != (len(tables) > 0) {
			t.Errorf("%d tables: %+v", len(tables), r)
		}
		if len(tables) > 0 && r.Closes[0].Err.Code != CodeReadOnly {
			t.Errorf("closed with %v", r.Closes[0].Err)
		}
		if len(tables) == 0 && !c.Status().Links[0].Schema {
			t.Error("the hash of a reader is not taken")
		}
	}
}
