package changeset

// MaxVersion is the largest col_version, causal length, seq and db_version that a change may carry, and that is written
// locally. JavaScript numbers hold it exactly.
const MaxVersion = 1<<53 - 1

// Local is what a database knows of the cell that a change is about.
type Local struct {
	CL         int64 // causal length of the row: the sentinel's version, 1 if only columns have clocks, 0 if nothing has
	HasCell    bool  // the column has a clock
	ColVersion int64 // of the column's clock, if it has one
}

// Action is what a database has to do with a change.
type Action uint8

// The actions.
const (
	// ActionNone: the change loses, or is known already.
	ActionNone Action = iota
	// ActionDelete: delete the row, drop its column clocks, write the sentinel with the change's causal length.
	ActionDelete
	// ActionCreate: create the row if it is missing, set the versions of its column clocks to 0, write the sentinel
	// with the change's causal length.
	ActionCreate
	// ActionCreateAndWrite: ActionCreate, counted as an impact of its own, and then ActionWrite.
	ActionCreateAndWrite
	// ActionWrite: write the cell, creating the row if it is missing, and the cell's clock.
	ActionWrite
	// ActionCompare: versions are equal; ResolveValue decides.
	ActionCompare
	// ActionCompareSite: versions and values are equal, and that is not the end of it; ResolveSite decides.
	ActionCompareSite
)

// Resolve is the merge decision, which ResolveValue and ResolveSite finish where versions alone cannot. It reads the
// change's CID, CL and ColVersion.
//
// The larger causal length wins, since whoever made it had seen the smaller one; then the larger col_version; then
// the larger value, so that every database ends with the same. A column that arrives before the sentinel of its
// causal length stands for it.
func Resolve(local Local, c *Change) Action {
	switch {
	case c.CL <= 0 || c.CL < local.CL:
		return ActionNone
	case c.CL%2 == 0:
		if c.CL == local.CL {
			return ActionNone
		}
		return ActionDelete
	case c.CID == SentinelCID:
		if c.CL == local.CL {
			return ActionNone
		}
		return ActionCreate
	case c.CL > local.CL:
		if c.CL > 1 {
			return ActionCreateAndWrite
		}
		return ActionWrite // a first causal length needs no sentinel
	case !local.HasCell || c.ColVersion > local.ColVersion:
		return ActionWrite
	case c.ColVersion < local.ColVersion:
		return ActionNone
	default:
		return ActionCompare
	}
}

// ResolveValue is what becomes of an ActionCompare, given the cell's value. The larger value wins. Equal ones are the same
// write for every purpose but one: who made it. A database with the setting merge-equal-values looks at that too
// (equalValues), so that all agree on the cell's site as well.
func ResolveValue(value Value, equalValues bool, c *Change) Action {
	switch n := Compare(c.Val, value); {
	case n > 0:
		return ActionWrite
	case n == 0 && equalValues:
		return ActionCompareSite
	default:
		return ActionNone
	}
}

// ResolveSite is what becomes of an ActionCompareSite, given the site that wrote the cell: this database's own id, not an
// empty one, for what was written here. The larger id wins, bytewise; a change without a site loses.
func ResolveSite(site SiteID, c *Change) Action {
	if c.Site > site {
		return ActionWrite
	}
	return ActionNone
}
