package crsql

import (
	"context"
	"errors"
	"fmt"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// Apply merges groups of changes and stores what goes with them, in one transaction that is durable when Apply returns.
// Each group that has an effect becomes an entry: it gets a local version of its own, and its origin is recorded. A
// group without an effect leaves no trace.
//
// A change that cannot be applied here, because its table or column is unknown, its key is damaged or a constraint
// refuses it, is parked: kept and passed on under the group's local version, and tried again by ReplayParked. That is
// an effect, unless the same cell is parked already as it is or with a later change.
//
// A request beyond the package's bounds is refused whole, with an ErrLimit.
//
// Apply blocks as DB.Write does. It is not announced by Commits.
func (r *Replica) Apply(ctx context.Context, q ApplyRequest) (ApplyResult, error) {
	if err := q.check(); err != nil {
		return ApplyResult{}, err
	}
	result := ApplyResult{
		Ls: make([]int64, len(q.Groups)), Changed: make([]int64, len(q.Groups)), Parked: make([]int, len(q.Groups)),
	}
	err := r.db.transact(ctx, func(s *session) error {
		a, err := newApplier(s)
		if err != nil {
			return err
		}
		for i, g := range q.Groups {
			if err := ctx.Err(); err != nil {
				return err
			}
			if result.Ls[i], result.Changed[i], result.Parked[i], err = a.group(g); err != nil {
				return err
			}
		}
		if err := s.engine.storeClaims(q); err != nil {
			return err
		}
		result.Heads, err = a.finish()
		return err
	})
	if err != nil {
		return ApplyResult{}, err
	}
	return result, nil
}

// An applier gives out local versions within one transaction.
type applier struct {
	e *engine
	l int64 // the last that was given out or may not be
}

// newApplier returns the applier of a transaction in which nothing has been written yet.
func newApplier(s *session) (*applier, error) {
	// What others committed since the last transaction is none of what is going to be applied: tell them apart now.
	if err := seal(s); err != nil {
		return nil, err
	}
	v, err := s.engine.readVersions()
	if err != nil {
		return nil, err
	}
	current, err := s.engine.currentVersion()
	if err != nil {
		return nil, err
	}
	return &applier{e: s.engine, l: max(current, v.newest(), v.high)}, nil
}

// group applies a group. Its local version is 0 if it had no effect.
func (a *applier) group(g Group) (l, changed int64, parked int, err error) {
	next := a.l + 1
	if next > changeset.MaxVersion {
		return 0, 0, 0, fmt.Errorf("the database has used up its versions: it has reached %d", a.l)
	}
	changed, err = a.e.applyChanges(next, g.Changes)
	var failed ChangeErrors
	if err != nil && !errors.As(err, &failed) {
		return 0, 0, 0, err
	}
	for _, f := range failed {
		added, err := a.e.park(next, &g.Changes[f.Index], f.Reason)
		if err != nil {
			return 0, 0, 0, err
		}
		if added {
			parked++
		}
	}
	if changed == 0 && parked == 0 {
		return 0, 0, 0, nil
	}
	return next, changed, parked, a.record(g.Origin, g.Version)
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
