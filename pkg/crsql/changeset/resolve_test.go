package changeset

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

func TestCompareOrder(t *testing.T) {
	ascending := []Value{
		Null(), Blob(nil), Blob([]byte{0}), Blob([]byte{0, 0}), Blob([]byte{1}), Blob([]byte("zz")),
		TextString(""), TextString("A"), TextString("a"), TextString("a\x00"), TextString("aa"), TextString("é"), Text([]byte{0xff}),
		Real(-1e300), Real(-1), Real(0), Real(1.5), Real(2), Real(1e300),
		Integer(-1 << 63), Integer(-1), Integer(0), Integer(2), Integer(1<<63 - 1),
	}
	for i, a := range ascending {
		for j, b := range ascending {
			want := 0
			if i < j {
				want = -1
			} else if i > j {
				want = 1
			}
			if got := Compare(a, b); got != want {
				t.Errorf("Compare(%v, %v) = %d, want %d", a, b, got, want)
			}
		}
	}
	if Compare(Real(0), Real(math.Copysign(0, -1))) != 0 {
		t.Error("0.0 and -0.0 differ")
	}
}

func TestResolve(t *testing.T) {
	cell := func(version, cl int64) Change { return Change{CID: "x", ColVersion: version, CL: cl} }
	row := func(cl int64) Change { return Change{CID: SentinelCID, ColVersion: cl, CL: cl} }
	for _, test := range []struct {
		name   string
		local  Local
		change Change
		want   Action
	}{
		{"a first cell", Local{}, cell(1, 1), ActionWrite},
		{"a first cell of a row that was deleted elsewhere", Local{}, cell(1, 3), ActionCreateAndWrite},
		{"a first row", Local{}, row(1), ActionCreate},
		{"a delete of an unknown row", Local{}, row(2), ActionDelete},
		{"causal length 0", Local{}, cell(1, 0), ActionNone},
		{"a negative causal length", Local{}, row(-1), ActionNone},
		{"another column of a row", Local{CL: 1}, cell(1, 1), ActionWrite},
		{"a newer version", Local{CL: 1, HasCell: true, ColVersion: 1}, cell(2, 1), ActionWrite},
		{"an older version", Local{CL: 1, HasCell: true, ColVersion: 2}, cell(1, 1), ActionNone},
		{"the same version", Local{CL: 1, HasCell: true, ColVersion: 2}, cell(2, 1), ActionCompare},
		{"the row, known", Local{CL: 1}, row(1), ActionNone},
		{"a delete", Local{CL: 1}, row(2), ActionDelete},
		{"a delete that a cell announces", Local{CL: 1}, cell(9, 2), ActionDelete},
		{"a delete, known", Local{CL: 2}, row(2), ActionNone},
		{"a delete, of an earlier life", Local{CL: 3}, row(2), ActionNone},
		{"a cell of a deleted row", Local{CL: 2}, cell(9, 1), ActionNone},
		{"a new life", Local{CL: 2}, row(3), ActionCreate},
		{"a new life that a cell announces", Local{CL: 2}, cell(1, 3), ActionCreateAndWrite},
		{"a later life, the delete missed", Local{CL: 1, HasCell: true, ColVersion: 9}, cell(1, 3), ActionCreateAndWrite},
		{"the life before it", Local{CL: 3}, cell(9, 1), ActionNone},
	} {
		if got := Resolve(test.local, &test.change); got != test.want {
			t.Errorf("%s: action %d, want %d", test.name, got, test.want)
		}
	}
}

func TestResolveTies(t *testing.T) {
	change := Change{Val: Integer(2), Site: "m"}
	for _, test := range []struct {
		name        string
		value       Value
		equalValues bool
		want        Action
	}{
		{"a larger value", Integer(1), false, ActionWrite},
		{"a smaller value", Integer(3), false, ActionNone},
		{"the same value", Integer(2), false, ActionNone},
		{"a larger value, sites count", Integer(1), true, ActionWrite},
		{"a smaller value, sites count", Integer(3), true, ActionNone},
		{"the same value, sites count", Integer(2), true, ActionCompareSite},
		{"another kind, sites count", Real(2), true, ActionWrite},
	} {
		if got := ResolveValue(test.value, test.equalValues, &change); got != test.want {
			t.Errorf("%s: action %d, want %d", test.name, got, test.want)
		}
	}
	for site, want := range map[SiteID]Action{"": ActionWrite, "l": ActionWrite, "lzz": ActionWrite, "m": ActionNone, "m\x00": ActionNone, "n": ActionNone} {
		if got := ResolveSite(site, &change); got != want {
			t.Errorf("the site %q against a cell of %q: action %d, want %d", change.Site, site, got, want)
		}
	}
	if got := ResolveSite("", &Change{}); got != ActionNone {
		t.Errorf("no site against none: action %d", got)
	}
}

// A replica that holds what Resolve lets win of one row with one column.
type replica struct {
	equalValues bool // the setting
	local       Local
	value       Value
	site        SiteID
}

func (r *replica) merge(c Change) {
	action := Resolve(r.local, &c)
	if action == ActionCompare {
		action = ResolveValue(r.value, r.equalValues, &c)
	}
	if action == ActionCompareSite {
		action = ResolveSite(r.site, &c)
	}
	switch action {
	case ActionDelete:
		*r = replica{equalValues: r.equalValues, local: Local{CL: c.CL}}
	case ActionCreate, ActionCreateAndWrite:
		r.local.CL, r.local.ColVersion = c.CL, 0
		if !r.local.HasCell {
			r.value = Null()
		}
	}
	if action == ActionWrite || action == ActionCreateAndWrite {
		r.local = Local{CL: c.CL, HasCell: true, ColVersion: c.ColVersion}
		r.value, r.site = c.Val, c.Site
	}
}

// Changes that are all cells merge to the same in any order and any number of times. With merge-equal-values that goes
// for the cell's site as well.
func TestResolveConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		equalValues := rapid.Bool().Draw(t, "merge-equal-values")
		// A (causal length, version) is written by whoever made it; ties between databases differ in the value and the site.
		values := rapid.SliceOfN(anyValue(), 1, 3).Draw(t, "values")
		changes := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Change {
			cl, site := rapid.Int64Range(0, 6).Draw(t, "cl"), rapid.SampledFrom([]SiteID{"", "a", "b", "bb"}).Draw(t, "site")
			if cl%2 == 0 {
				return Change{CID: SentinelCID, CL: cl, ColVersion: cl, Site: site}
			}
			return Change{CID: "x", CL: cl, ColVersion: rapid.Int64Range(1, 3).Draw(t, "version"), Val: rapid.SampledFrom(values).Draw(t, "value"), Site: site}
		}), 1, 8).Draw(t, "changes")
		a, b := replica{equalValues: equalValues}, replica{equalValues: equalValues}
		for _, c := range changes {
			a.merge(c)
		}
		for _, c := range rapid.Permutation(append(append([]Change(nil), changes...), changes...)).Draw(t, "other order") {
			b.merge(c)
		}
		if a.local != b.local || Compare(a.value, b.value) != 0 || equalValues && a.site != b.site {
			t.Fatalf("%+v in order, %+v in another", a, b)
		}
	})
}
