package syncproto

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// TestLooksTakeTurns: one look at a time, each link in its turn, and short ones without a pause.
func TestLooksTakeTurns(t *testing.T) {
	c := newCore(t, Config{Writer: true})
	for id := LinkID(1); id <= 3; id++ {
		live(c, id, testSite(byte(id)), Vector{})
	}
	for id := LinkID(1); id <= 3; id++ {
		c.Step(id, &DigestRequest{ID: int64(10 * id)})
	}
	c.Step(3, &Resend{Table: "t", Places: []changeset.Place{{1}}})
	c.Step(3, &Resend{Table: "t", Places: []changeset.Place{{2}}}) // one waits already
	var turns []string
	for round := range 5 {
		r := c.Ready()
		if r.Look == nil {
			t.Fatalf("round %d: no look", round)
		}
		if again := c.Ready(); again.Look != nil {
			t.Fatal("two looks at the same time")
		}
		done := LookResult{ID: r.Look.ID, Millis: 5}
		if r.Look.Digest != nil {
			turns = append(turns, fmt.Sprint("digest ", r.Look.Link))
			done.Answer = &DigestAnswer{Vector: Vector{}}
		} else {
			turns = append(turns, fmt.Sprint("resend ", r.Look.Link, r.Look.Resend.Places[0][0]))
		}
		c.LookDone(done)
		c.LookDone(done) // once only
		if round == 0 {
			c.Step(1, &DigestRequest{ID: 11}) // who is served first does not come first again
		}
	}
	if want := []string{"digest 1", "digest 2", "resend 3 1", "digest 1", "digest 3"}; !slices.Equal(turns, want) {
		t.Errorf("got %v", turns)
	}
	if r := c.Ready(); r.Look != nil {
		t.Errorf("nobody asked, and there is a look: %+v", r.Look)
	}
}

// TestLooksTakeHalfOfTheTime at most, whoever asks without a pause, and however long they are.
func TestLooksTakeHalfOfTheTime(t *testing.T) {
	for _, millis := range []int64{0, 7, 30, 400} {
		c := newCore(t, Config{Writer: true})
		live(c, 1, other, Vector{})
		const ticks = 4000
		took, looks := int64(0), 0
		for ; c.now < ticks; c.Tick() {
			for {
				if c.links[1].question == nil {
					c.Step(1, &DigestRequest{ID: 1})
				}
				r := c.Ready()
				if r.Look == nil {
					break
				}
				for range millis / TickMillis {
					c.Tick()
				}
				c.LookDone(LookResult{ID: r.Look.ID, Answer: &DigestAnswer{Vector: Vector{}}, Millis: millis})
				took += max(millis, 1)
				if looks++; looks > ticks*TickMillis {
					t.Fatalf("looks of %d ms cost nothing", millis)
				}
			}
		}
		if share := float64(took) / (ticks * TickMillis); share < 0.3 || share > 0.52 {
			t.Errorf("%d looks of %d ms take %.0f percent of the time", looks, millis, 100*share)
		}
	}
}

func TestQuestionsAreBounded(t *testing.T) {
	for name, test := range map[string]struct {
		code Code
		step func(c *Core)
	}{
		"two questions": {CodeFlow, func(c *Core) {
			c.Step(1, &DigestRequest{ID: 1})
			c.Ready()
			c.Step(1, &DigestRequest{ID: 2})
		}},
		"an answer to nothing": {CodeMalformed, func(c *Core) { c.Step(1, &DigestAnswer{}) }},
		"a second answer": {CodeMalformed, func(c *Core) {
			c.Ask(1, &DigestRequest{})
			c.Step(1, &DigestAnswer{})
			c.Step(1, &DigestAnswer{})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCore(t, Config{Writer: true})
			live(c, 1, other, Vector{})
			test.step(c)
			if err := closed(t, c.Ready()); err.Code != test.code {
				t.Errorf("got %v", err)
			}
		})
	}
	c := newCore(t, Config{})
	live(c, 1, other, Vector{})
	c.Step(1, &Resend{Table: "t", Places: []changeset.Place{{1}}})
	if r := c.Ready(); r.Look != nil {
		t.Error("a reader looks for what it may not send")
	}
	if !c.Ask(1, &DigestRequest{}) || c.Ask(1, &DigestRequest{}) || c.Ask(2, &DigestRequest{}) {
		t.Error("one question to a live link at a time is asked")
	}
	c.Resend(1, []Entry{{L: 1, Origin: self, Version: 1, Changes: []changeset.Change{row(1, changeset.Null())}}})
	if got := changesOf(c.Ready().Sends); len(got) > 0 {
		t.Errorf("a reader sends %+v", got)
	}
}

// TestResendGoesThroughTheWindow: entries that the other side covers go out all the same, and count as others do.
func TestResendGoesThroughTheWindow(t *testing.T) {
	c := newCore(t, Config{Writer: true, Own: 9, Newest: 9})
	r := live(c, 1, other, Vector{self: 9})
	c.ReadDone(ReadResult{ID: r.Reads[0].ID, Link: 1, Next: Position{9, EntryEnd}, End: true, Own: 9, Newest: 9})
	c.Ready()
	c.Resend(1, []Entry{{L: 5, Origin: other, Version: 4, Changes: []changeset.Change{row(1, changeset.Null())}}})
	r = c.Ready()
	got := changesOf(r.Sends)
	if len(got) != 1 || got[0].Claims != nil || got[0].Reached != 9 || got[0].Groups[0].Origin != other || got[0].Groups[0].Version != 4 {
		t.Fatalf("got %+v", got)
	}
	if s := c.Status().Links[0]; s.InFlight != 1 || !s.Serving {
		t.Errorf("got %+v", s)
	}
	// Claims follow, or the other side would wait for them.
	if len(r.Reads) != 1 {
		t.Fatalf("reads: %+v", r.Reads)
	}
	c.ReadDone(ReadResult{ID: r.Reads[0].ID, Link: 1, Next: Position{9, EntryEnd}, End: true, Own: 9, Newest: 9})
	if got := changesOf(c.Ready().Sends); len(got) != 1 || got[0].Claims == nil {
		t.Errorf("got %+v", got)
	}
}

// TestAnswersAreBounded: parts that an answer has no room for are left out, but for the first.
func TestAnswersAreBounded(t *testing.T) {
	rows := make([]changeset.RowSum, changeset.MaxPartRows)
	for i := range rows {
		rows[i] = changeset.RowSum{Place: changeset.Place{byte(i)}, Key: make([]byte, changeset.MaxKeyShown)}
	}
	parts := make([]changeset.Part, MaxDigestParts)
	for i := range parts {
		parts[i].Rows = rows
	}
	c := newCore(t, Config{})
	live(c, 1, other, Vector{})
	c.Step(1, &DigestRequest{ID: 7, Table: "t", Prefixes: make([]changeset.Prefix, MaxDigestParts)})
	c.LookDone(LookResult{ID: c.Ready().Look.ID, Answer: &DigestAnswer{Kind: DigestParts, Vector: Vector{}, Parts: parts}})
	m := c.Ready().Sends[0].Message.(*DigestAnswer)
	if size := len(m.AppendMarshal(nil)); m.ID != 7 || len(m.Parts) < 2 || size > SoftDigest {
		t.Errorf("%d parts in %d bytes", len(m.Parts), size)
	}
}

// A model is a database of tables with rows by key.
type model map[string]map[string]uint64

// known keeps the sums of rows of models: tests ask for them over and over.
var known = map[string]changeset.RowSum{}

func (m model) sums(table string) []changeset.RowSum {
	var out []changeset.RowSum
	for key, value := range m[table] {
		name := fmt.Sprint(table, " ", key, " ", value)
		sum, ok := known[name]
		if !ok {
			var h changeset.RowHasher
			h.Begin(table, []byte(key), int64(value), true)
			sum = changeset.RowSum{Place: changeset.PlaceOf([]byte(key)), Key: []byte(key), CL: int64(value), Digest: h.Sum()}
			known[name] = sum
		}
		out = append(out, sum)
	}
	return out
}

func (m model) answer(q DigestRequest, v Vector) *DigestAnswer {
	out := &DigestAnswer{Vector: v}
	if len(q.Prefixes) > 0 {
		out.Kind = DigestParts
		if m[q.Table] == nil {
			out.Kind = DigestNoTable
			return out
		}
		scan := changeset.NewPartScan(q.Prefixes)
		for _, r := range m.sums(q.Table) {
			scan.Add(r)
		}
		out.Parts = scan.Parts()
		out.fits()
		return out
	}
	for table := range m {
		d := changeset.TableDigest{Table: table}
		for _, r := range m.sums(table) {
			d.Sum.Add(r.Digest)
		}
		out.Tables = append(out.Tables, d)
	}
	return out
}

// compared answers questions until there are none.
func compared(t *testing.T, c *Comparison, ours, theirs func(DigestRequest) *DigestAnswer) (questions int) {
	t.Helper()
	for q, ok := c.Question(); ok; q, ok = c.Question() {
		if questions++; questions > 10_000 {
			t.Fatal("there is no end to questions")
		}
		if got, err := Parse(q.AppendMarshal(nil)); err != nil {
			t.Fatalf("%v: %+v", err, got)
		}
		if err := c.Answer(ours(q), theirs(q)); err != nil {
			t.Fatal(err)
		}
	}
	return questions
}

// TestComparison: whatever the tables hold, exactly the rows that differ are found.
func TestComparison(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for _, size := range []struct{ rows, differ int }{{0, 1}, {1, 1}, {60, 8}, {70, 40}, {500, 0}, {5000, 3}, {5000, 700}, {200, 200}} {
		a, b := model{"same": {"x": 1}, "t": {}}, model{"same": {"x": 1}, "t": {}}
		for i := range size.rows {
			key := fmt.Sprint("k", i)
			a["t"][key], b["t"][key] = 1, 1
		}
		want := map[string]bool{}
		for i := range size.differ {
			key := fmt.Sprint("k", i)
			switch random.IntN(3) {
			case 0:
				delete(a["t"], key)
				b["t"][key] = 1
			case 1:
				delete(b["t"], key)
				a["t"][key] = 1
			default:
				a["t"][key], b["t"][key] = 2, 3
			}
			want[key] = true
		}
		v := Vector{self: 1}
		c := NewComparison("")
		ask := func(m model) func(DigestRequest) *DigestAnswer {
			return func(q DigestRequest) *DigestAnswer {
				out := m.answer(q, v)
				out.Parts = out.Parts[:min(len(out.Parts), 1+random.IntN(MaxDigestParts))] // as if there were no room for more
				return out
			}
		}
		questions := compared(t, c, ask(a), ask(b))
		for range 2 {
			c.Again()
			questions += compared(t, c, ask(a), ask(b))
		}
		got := map[string]bool{}
		for _, r := range c.Rows() {
			got[string(r.Key())] = r.Settled
		}
		if fmt.Sprint(got) != fmt.Sprint(want) || c.Open() != 0 || c.More() {
			t.Errorf("%+v: got %d rows, open %d, more %t", size, len(got), c.Open(), c.More())
		}
		t.Logf("%+v: %d questions", size, questions)
	}
}

// TestComparisonSettles: a row that is under way, or whose change one side does not cover yet, is not settled; and one that has
// arrived is no difference.
func TestComparisonSettles(t *testing.T) {
	a, b := model{"t": {"late": 1, "hot": 1, "bad": 1}}, model{"t": {"hot": 2, "bad": 9}}
	va, vb := Vector{self: 2}, Vector{self: 1}
	c := NewComparison("t")
	ours := func(q DigestRequest) *DigestAnswer { return a.answer(q, va) }
	theirs := func(q DigestRequest) *DigestAnswer { return b.answer(q, vb) }
	state := func() string {
		out := ""
		for _, r := range c.Rows() {
			out += fmt.Sprint(string(r.Key()), " ", r.Settled, "; ")
		}
		return out
	}
	steps := []struct {
		change func()
		want   string
	}{
		{func() {}, "hot false; late false; bad false; "},                       // at first sight
		{func() {}, "hot false; late false; bad false; "},                       // the vectors differ
		{func() { vb = Vector{self: 2} }, "hot false; late false; bad false; "}, // level for the first time
		{func() { vb = Vector{self: 1} }, "hot false; late false; bad false; "}, // and no longer
		{func() { vb = Vector{self: 2} }, "hot false; late false; bad false; "},
		{func() { b["t"]["late"] = 1; a["t"]["hot"] = 3 }, "hot false; bad true; "},
		{func() { b["t"]["hot"] = 5 }, "hot false; bad true; "},
		{func() {}, "hot true; bad true; "},
	}
	for i, step := range steps {
		step.change()
		if i > 0 {
			c.Again()
		}
		compared(t, c, ours, theirs)
		if got := state(); !sameWords(got, step.want) {
			t.Fatalf("step %d: got %s, not %s", i, got, step.want)
		}
	}
	// What a reader has written nobody gets: its own versions do not count.
	va[other] = 7
	c = NewComparison("t", other)
	compared(t, c, ours, theirs)
	for range 2 {
		c.Again()
		compared(t, c, ours, theirs)
	}
	if c.Open() != 0 {
		t.Errorf("got %s", state())
	}
}

func sameWords(a, b string) bool {
	x, y := []rune(a), []rune(b)
	slices.Sort(x)
	slices.Sort(y)
	return slices.Equal(x, y)
}

// TestComparisonIsBounded: where everything differs it ends early, and says so.
func TestComparisonIsBounded(t *testing.T) {
	a, b := model{"t": {}}, model{"t": {}}
	for i := range 20_000 {
		a["t"][fmt.Sprint(i)] = 1
	}
	c := NewComparison("")
	ours := func(q DigestRequest) *DigestAnswer { return a.answer(q, nil) }
	questions := compared(t, c, ours, func(q DigestRequest) *DigestAnswer { return b.answer(q, nil) })
	if !c.More() || len(c.Rows()) != MaxDifferences || questions > 100 {
		t.Errorf("more %t, %d rows, %d questions", c.More(), len(c.Rows()), questions)
	}
}

// TestComparisonRefuses answers that do not fit the question.
func TestComparisonRefuses(t *testing.T) {
	a, b := model{"t": {"x": 1}}, model{"t": {"x": 2}}
	for name, bad := range map[string]*DigestAnswer{
		"tables": {}, "no part": {Kind: DigestParts}, "too many": {Kind: DigestParts, Parts: make([]changeset.Part, 2)},
	} {
		c := NewComparison("")
		q, _ := c.Question()
		if err := c.Answer(a.answer(q, nil), b.answer(q, nil)); err != nil {
			t.Fatal(err)
		}
		q, _ = c.Question()
		if err := c.Answer(a.answer(q, nil), bad); !errors.Is(err, &Error{Code: CodeMalformed}) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	c := NewComparison("")
	c.Question()
	if err := c.Answer(&DigestAnswer{}, &DigestAnswer{Kind: DigestParts}); err == nil {
		t.Error("parts are no tables")
	}
}
