package syncproto

import (
	"bytes"
	"cmp"
	"maps"
	"slices"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// Bounds of a Comparison.
const (
	// MaxDifferences is how many rows that differ are looked at. Behind it a Comparison stops to look for more.
	MaxDifferences = 1024
	// maxPrefixes bounds the prefixes that wait to be asked for.
	maxPrefixes = 16 * MaxDifferences
)

// Comparison finds out in which rows two databases differ, by bisection: both are asked the same questions, first about
// whole tables, then about smaller and smaller parts of those that differ. The two are read at different moments, while both
// are written to: so a row that differs is looked at again, and what counts is what both keep to though each covers all that
// the other does.
//
// Question says what to ask, Answer takes what both sides say. When there is no question, and Open is more than 0, some
// time should pass, so that what is under way arrives; then Again makes questions of what is open.
type Comparison struct {
	tables  map[string]*TableComparison
	table   string   // the only one; "": all
	readers []SiteID // whose own versions nobody else gets
	rooted  bool     // whole tables were compared
	work    []part   // to be asked for
	asked   []part   // in the last question
	open    map[rowID]*RowComparison
	more    bool
	checked []*RowComparison // in the last question, where it was about single rows
	again   []*RowComparison // to be asked for
}

type part struct {
	table  string
	prefix changeset.Prefix
}

type rowID struct {
	table string
	place changeset.Place
}

// TableState says how a table of two databases compares.
type TableState uint8

// The states of a table.
const (
	TableSame    TableState = iota // the same rows, as far as is known: Rows says more
	TableOurs                      // the other database has no such table
	TableTheirs                    // ours has no such table
	TableColumns                   // their columns differ; so rows are not compared
)

// TableComparison is what is known of one table.
type TableComparison struct {
	Table        string
	State        TableState
	Ours, Theirs changeset.TableDigest // as they were at first
}

// RowComparison is a row in which the databases differ, or differed when they were last asked.
type RowComparison struct {
	Table        string
	Ours, Theirs *changeset.RowSum // nil: no such row
	// Settled: they said the same of it twice, and each covered what the other did.
	Settled bool

	place changeset.Place
	level bool // the vectors were equal at the last look
}

// Place returns where the row stands in its table.
func (r *RowComparison) Place() changeset.Place { return r.place }

// Key returns the row's packed key; nil if neither side has shown it.
func (r *RowComparison) Key() []byte {
	for _, sum := range []*changeset.RowSum{r.Ours, r.Theirs} {
		if sum != nil && sum.Key != nil {
			return sum.Key
		}
	}
	return nil
}

// NewComparison returns a comparison of one table, or with "" of all. readers are those of the two sites that are readers:
// what was written there all the same, nobody gets.
func NewComparison(table string, readers ...SiteID) *Comparison {
	return &Comparison{table: table, readers: readers, tables: map[string]*TableComparison{}, open: map[rowID]*RowComparison{}}
}

// Question returns what both sides are to be asked next; false if there is nothing for now.
func (c *Comparison) Question() (DigestRequest, bool) {
	c.asked, c.checked = nil, nil
	if !c.rooted {
		return DigestRequest{Table: c.table}, true
	}
	if len(c.work) > 0 { // from the end, which is the deepest part: so little waits
		table := c.work[len(c.work)-1].table
		at := len(c.work)
		for at > 0 && c.work[at-1].table == table && len(c.work)-at < MaxDigestParts {
			at--
		}
		c.asked, c.work = slices.Clone(c.work[at:]), c.work[:at]
	} else {
		for len(c.again) > 0 && len(c.checked) < MaxDigestParts && (len(c.checked) == 0 || c.again[0].Table == c.checked[0].Table) {
			r := c.again[0]
			c.again = c.again[1:]
			c.checked = append(c.checked, r)
			c.asked = append(c.asked, part{r.Table, changeset.PrefixOf(r.place, changeset.MaxPrefix)})
		}
	}
	if len(c.asked) == 0 {
		return DigestRequest{}, false
	}
	q := DigestRequest{Table: c.asked[0].table}
	for _, p := range c.asked {
		q.Prefixes = append(q.Prefixes, p.prefix)
	}
	return q, true
}

// Answer takes what both sides said to the last question. An error says that the other side's answer is none.
func (c *Comparison) Answer(ours, theirs *DigestAnswer) error {
	if !c.rooted {
		if theirs.Kind != DigestTables {
			return malformed("the answer is not about tables")
		}
		c.rooted = true
		c.compareTables(ours, theirs)
		return nil
	}
	if ours.Kind == DigestNoTable || theirs.Kind == DigestNoTable { // dropped meanwhile
		t := c.tables[c.asked[0].table]
		t.State = TableOurs
		if ours.Kind == DigestNoTable {
			t.State = TableTheirs
		}
		return nil
	}
	if theirs.Kind != DigestParts || len(theirs.Parts) == 0 || len(theirs.Parts) > len(c.asked) {
		return malformed("the answer is not about the parts that were asked for")
	}
	n := min(len(ours.Parts), len(theirs.Parts))
	if c.checked == nil {
		for i, p := range c.asked[:n] {
			c.comparePart(p, ours.Parts[i], theirs.Parts[i])
		}
		c.work = append(c.work, c.asked[n:]...)
		return nil
	}
	a, b := ours.Vector, theirs.Vector
	for _, site := range c.readers {
		a, b = a.Without(site), b.Without(site)
	}
	level := a.CoversAll(b) && b.CoversAll(a)
	for i, r := range c.checked[:n] {
		c.check(r, ours.Parts[i], theirs.Parts[i], level)
	}
	c.again = append(slices.Clone(c.checked[n:]), c.again...)
	return nil
}

func (c *Comparison) compareTables(ours, theirs *DigestAnswer) {
	for _, t := range ours.Tables {
		c.tables[t.Table] = &TableComparison{Table: t.Table, State: TableOurs, Ours: t}
	}
	for _, t := range theirs.Tables {
		k := c.tables[t.Table]
		switch {
		case k == nil:
			c.tables[t.Table] = &TableComparison{Table: t.Table, State: TableTheirs, Theirs: t}
			continue
		case k.Ours.Columns != t.Columns:
			k.State = TableColumns
		default:
			k.State = TableSame
			if k.Ours.Sum != t.Sum {
				c.work = append(c.work, part{table: t.Table})
			}
		}
		k.Theirs = t
	}
}

// comparePart makes work of the children that differ, and open rows of rows.
func (c *Comparison) comparePart(p part, ours, theirs changeset.Part) {
	if ours.Children != nil || theirs.Children != nil {
		a, b := ours.Sums(p.prefix), theirs.Sums(p.prefix)
		for i := range a {
			if a[i] == b[i] || p.prefix.Len == changeset.MaxPrefix {
				continue
			}
			if c.full() {
				c.more = true
				return
			}
			c.work = append(c.work, part{p.table, p.prefix.Child(i)})
		}
		return
	}
	for len(ours.Rows) > 0 || len(theirs.Rows) > 0 {
		var a, b *changeset.RowSum
		switch order := compareRows(ours.Rows, theirs.Rows); {
		case order < 0:
			a, ours.Rows = &ours.Rows[0], ours.Rows[1:]
		case order > 0:
			b, theirs.Rows = &theirs.Rows[0], theirs.Rows[1:]
		default:
			a, ours.Rows = &ours.Rows[0], ours.Rows[1:]
			b, theirs.Rows = &theirs.Rows[0], theirs.Rows[1:]
		}
		if sameRowSum(a, b) {
			continue
		}
		if c.full() {
			c.more = true
			return
		}
		r := &RowComparison{Table: p.table, Ours: a, Theirs: b}
		if a != nil {
			r.place = a.Place
		} else {
			r.place = b.Place
		}
		c.open[rowID{p.table, r.place}] = r
	}
}

// full reports whether enough was found. What waits is then given up.
func (c *Comparison) full() bool {
	if len(c.open) < MaxDifferences && len(c.work) < maxPrefixes {
		return false
	}
	c.work = nil
	return true
}

func compareRows(a, b []changeset.RowSum) int {
	switch {
	case len(a) == 0:
		return 1
	case len(b) == 0:
		return -1
	}
	return bytes.Compare(a[0].Place[:], b[0].Place[:])
}

func sameRowSum(a, b *changeset.RowSum) bool {
	return a == b || a != nil && b != nil && a.Digest == b.Digest
}

// check takes what both sides say of an open row now.
func (c *Comparison) check(r *RowComparison, ours, theirs changeset.Part, level bool) {
	a, b := find(ours.Rows, r.place), find(theirs.Rows, r.place)
	if sameRowSum(a, b) {
		delete(c.open, rowID{r.Table, r.place})
		return
	}
	r.Settled = level && r.level && sameRowSum(a, r.Ours) && sameRowSum(b, r.Theirs)
	r.Ours, r.Theirs, r.level = a, b, level
}

func find(rows []changeset.RowSum, place changeset.Place) *changeset.RowSum {
	for i := range rows {
		if rows[i].Place == place {
			return &rows[i]
		}
	}
	return nil
}

// Again makes questions of the rows that are open and not settled.
func (c *Comparison) Again() {
	c.again = nil
	for _, r := range c.Rows() {
		if !r.Settled {
			c.again = append(c.again, r)
		}
	}
}

// Open returns how many rows differed when they were last asked for, and are not settled.
func (c *Comparison) Open() int {
	n := 0
	for _, r := range c.open {
		if !r.Settled {
			n++
		}
	}
	return n
}

// Rows returns the rows that differed when they were last asked for, by table and place.
func (c *Comparison) Rows() []*RowComparison {
	return slices.SortedFunc(maps.Values(c.open), func(a, b *RowComparison) int {
		return cmp.Or(cmp.Compare(a.Table, b.Table), bytes.Compare(a.place[:], b.place[:]))
	})
}

// More reports whether there may be more rows that differ than were looked at.
func (c *Comparison) More() bool { return c.more }

// Tables returns what is known of each table, by name.
func (c *Comparison) Tables() []*TableComparison {
	return slices.SortedFunc(maps.Values(c.tables), func(a, b *TableComparison) int { return cmp.Compare(a.Table, b.Table) })
}
