package crsql

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// sliceChanges is after how many changes an Apply looks at the clock.
const sliceChanges = 256

// Apply merges groups of changes and stores what goes with them; all is durable when Apply returns. Each group that has
// an effect becomes an entry: it gets a local version of its own, and its origin is recorded. A group without an effect
// leaves no trace.
//
// A change that cannot be applied here, because its table or column is unknown, its key is damaged or a constraint
// refuses it, is parked: kept and passed on under the group's local version, and tried again by ReplayParked. That is
// an effect, unless the same cell is parked already as it is or with a later change.
//
// A request beyond the package's bounds is refused whole, with an ErrLimit. Where no more may be parked, Apply fails with a
// *ParkedError that names the group: apply the others without it.
//
// Apply blocks as DB.Write does, but lets other writers go between: it takes a transaction of its own for each
// Options.ApplySlice of work, the last of which stores claims and resume points. A group that is cut becomes an entry for
// each part. Where Apply fails, a part of the groups may be stored, which is safe, and no claim. It is not announced by
// Commits.
func (r *Replica) Apply(ctx context.Context, q ApplyRequest) (ApplyResult, error) {
	if err := q.check(); err != nil {
		return ApplyResult{}, err
	}
	result := ApplyResult{
		Ls: make([]int64, len(q.Groups)), Changed: make([]int64, len(q.Groups)), Parked: make([]int, len(q.Groups)),
	}
	r.met.Store(true)
	var site changeset.SiteID
	for at, done := (progress{}), false; !done; {
		err := r.db.transact(ctx, func(s *session) error {
			a, err := newApplier(s)
			if err != nil {
				return err
			}
			a.quota = r.quota
			if at, err = a.slice(ctx, q.Groups, at, time.Now().Add(r.db.slice), &result); err != nil {
				return err
			}
			if done = at.group == len(q.Groups); done {
				if err := s.engine.storeClaims(q); err != nil {
					return err
				}
			}
			site = s.engine.siteID
			result.Heads, err = a.finish()
			return err
		})
		if err != nil {
			return ApplyResult{}, err
		}
	}
	r.remember(site, result.Heads.Own)
	return result, nil
}

// progress is how far an Apply is: it goes on with a change of a group.
type progress struct{ group, change int }

// slice applies groups from at on until the deadline, adds to result what that did, and returns where it stopped. It goes
// on by one piece at least, and never stops within a row.
func (a *applier) slice(ctx context.Context, groups []Group, at progress, deadline time.Time, result *ApplyResult) (progress, error) {
	for ; at.group < len(groups); at = (progress{group: at.group + 1}) {
		g := &groups[at.group]
		used := false // the next local version, by a part of the group
		for at.change < len(g.Changes) {
			if err := ctx.Err(); err != nil {
				return at, err
			}
			end := endOfRow(g.Changes, min(at.change+sliceChanges, len(g.Changes)))
			changed, parked, err := a.apply(g.Changes[at.change:end])
			if err != nil {
				if full := (*ParkedError)(nil); errors.As(err, &full) {
					full.Group = at.group
				}
				return at, err
			}
			if (changed > 0 || parked > 0) && !used {
				used, result.Ls[at.group] = true, a.l+1
			}
			result.Changed[at.group] += changed
			result.Parked[at.group] += parked
			if at.change = end; time.Now().After(deadline) {
				break
			}
		}
		if used {
			if err := a.record(g.Origin, g.Version); err != nil {
				return at, err
			}
		}
		if at.change < len(g.Changes) {
			return at, nil
		}
		if time.Now().After(deadline) {
			return progress{group: at.group + 1}, nil
		}
	}
	return at, nil
}

// endOfRow returns the first end from end on that does not lie within the changes of a row.
func endOfRow(changes []changeset.Change, end int) int {
	for end < len(changes) && sameRow(&changes[end-1], &changes[end]) {
		end++
	}
	return end
}

// An applier gives out local versions within one transaction.
type applier struct {
	e *engine
	l int64 // the last that was given out or may not be

	quota   quota // of parked changes
	parked  quota // how many there are, or somewhat more
	counted bool  // parked is known
}

// newApplier returns the applier of a transaction in which nothing has been written yet.
func newApplier(s *session) (*applier, error) {
	// What others committed since the last transaction is none of what is going to be applied: tell them apart now.
	v, err := s.seal()
	if err != nil {
		return nil, err
	}
	current, err := s.engine.currentVersion()
	if err != nil {
		return nil, err
	}
	return &applier{e: s.engine, l: max(current, v.newest(), v.high)}, nil
}

// apply merges changes under the next local version, which record uses.
func (a *applier) apply(changes []changeset.Change) (changed int64, parked int, err error) {
	next := a.l + 1
	if next > changeset.MaxVersion {
		return 0, 0, fmt.Errorf("the database has used up its versions: it has reached %d", a.l)
	}
	changed, err = a.e.applyChanges(next, changes)
	var failed ChangeErrors
	if err != nil && !errors.As(err, &failed) {
		return 0, 0, err
	}
	for _, f := range failed {
		c, reason := &changes[f.Index], parkedReason(f)
		if err := a.reserve(c, reason); err != nil {
			return 0, 0, err
		}
		added, err := a.e.park(next, c, reason)
		if err != nil {
			return 0, 0, err
		}
		if added {
			parked++
		}
	}
	return changed, parked, nil
}

// record uses the next local version for an entry from elsewhere.
func (a *applier) record(origin changeset.SiteID, version int64) error {
	a.l++
	return a.e.write(stmtLog, "INSERT INTO main.crmesh_log VALUES (?, ?, ?)", a.l, siteBytes(origin), version)
}

// finish stores the high water: none of the new versions is this database's own.
func (a *applier) finish() (Heads, error) {
	v, err := a.e.readVersions()
	if err != nil {
		return Heads{}, err
	}
	if a.l > v.high {
		if err := a.e.setMeta(metaHigh, a.l); err != nil {
			return Heads{}, err
		}
	}
	return v.heads(), nil
}

func (e *engine) storeClaims(q ApplyRequest) error {
	for site, version := range q.Claims {
		if site == e.siteID {
			continue // what this database covers of itself is what it holds
		}
		err := e.write(stmtClaim, "INSERT INTO main.crmesh_vector VALUES (?, ?) ON CONFLICT DO UPDATE SET version = excluded.version WHERE version < excluded.version",
			siteBytes(site), version)
		if err != nil {
			return err
		}
	}
	for site, reached := range q.Resume {
		err := e.write(stmtReached, "INSERT INTO main.crmesh_resume VALUES (?, ?) ON CONFLICT DO UPDATE SET reached = excluded.reached",
			siteBytes(site), reached)
		if err != nil {
			return err
		}
	}
	return nil
}
