package crsql

import (
	"cmp"
	"context"
	"database/sql/driver"
	"errors"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// replayBatch is how many parked changes one transaction tries again.
const replayBatch = 4096

// parkedChange returns the change in the columns tbl, pk, cid, val, col_version, site, cl, seq.
func parkedChange(row []driver.Value, l int64) changeset.Change {
	return changeset.Change{
		Table: toText(row[0]), PK: toBytes(row[1]), CID: toText(row[2]), Val: fromDriver(row[3]), ColVersion: toInt64(row[4]),
		DBVersion: l, Site: changeset.SiteID(toBytes(row[5])), CL: toInt64(row[6]), Seq: toInt64(row[7]),
	}
}

// park keeps a change that cannot be applied under local version l, in place of earlier ones to the same cell. It
// reports false, and does nothing, where the same change or a later one is there.
func (e *engine) park(l int64, c *changeset.Change, reason string) (bool, error) {
	pk := append(make([]byte, 0, len(c.PK)), c.PK...) // never nil, which would be NULL
	find, err := e.stmts.get(statementKey{kind: stmtParkedCell}, func() string {
		return "SELECT id, +val, col_version, cl, site FROM main.crmesh_parked WHERE tbl = ? AND pk = ? AND cid = ?"
	})
	if err != nil {
		return false, err
	}
	var beaten []int64
	known := false
	err = find.each([]driver.Value{c.Table, pk, c.CID}, func(row []driver.Value) error {
		order := cmp.Or(cmp.Compare(c.CL, toInt64(row[3])), cmp.Compare(c.ColVersion, toInt64(row[2])), changeset.Compare(c.Val, fromDriver(row[1])))
		if order == 0 && e.mergeEqualValues() {
			order = cmp.Compare(string(c.Site), string(toBytes(row[4])))
		}
		if order > 0 {
			beaten = append(beaten, toInt64(row[0]))
		} else {
			known = true
		}
		return nil
	})
	if err != nil || known {
		return false, err
	}
	for _, id := range beaten {
		if err := e.unpark(id); err != nil {
			return false, err
		}
	}
	return true, e.write(stmtParkedAdd, `INSERT INTO main.crmesh_parked (local_version, tbl, pk, cid, val, col_version, site, cl, seq, reason)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		l, c.Table, pk, c.CID, toDriver(c.Val), c.ColVersion, siteBytes(c.Site), c.CL, c.Seq, reason)
}

func (e *engine) unpark(id int64) error {
	return e.write(stmtParkedDrop, "DELETE FROM main.crmesh_parked WHERE id = ?", id)
}

// ReplayParked tries all parked changes again, which is worth while after the schema changed. Those that can be applied
// now are no longer parked; where they have an effect, they become entries of the origin that they had. It returns how
// many changes it could apply. It works in several transactions, between which others may write.
func (r *Replica) ReplayParked(ctx context.Context) (applied int, err error) {
	var at Position // of the last parked change that was tried: its local version and id
	for {
		n, more := 0, false
		err := r.db.transact(ctx, func(s *session) (err error) {
			n, more, err = replay(s, &at)
			return err
		})
		if err != nil {
			return applied, err
		}
		applied += n
		if n > 0 {
			r.db.notify()
		}
		if !more {
			return applied, nil
		}
	}
}

// A parked is a parked change.
type parked struct {
	id     int64
	change changeset.Change
}

// replay tries the parked changes behind at, moves at behind them, and reports whether there may be more.
func replay(s *session, at *Position) (applied int, more bool, err error) {
	a, err := newApplier(s)
	if err != nil {
		return 0, false, err
	}
	batch, err := s.engine.parkedBehind(*at)
	if err != nil || len(batch) == 0 {
		return 0, false, err
	}
	last := batch[len(batch)-1]
	*at = Position{L: last.change.DBVersion, Seq: last.id}
	for start := 0; start < len(batch); {
		end := start + 1
		for end < len(batch) && batch[end].change.DBVersion == batch[start].change.DBVersion {
			end++
		}
		n, err := a.replayEntry(batch[start:end])
		if err != nil {
			return 0, false, err
		}
		applied += n
		start = end
	}
	_, err = a.finish()
	return applied, len(batch) == replayBatch, err
}

func (e *engine) parkedBehind(at Position) ([]parked, error) {
	st, err := e.stmts.get(statementKey{kind: stmtParkedAll}, func() string {
		return `SELECT local_version, id, tbl, pk, cid, +val, col_version, site, cl, seq FROM main.crmesh_parked
			WHERE local_version > ?1 OR local_version = ?1 AND id > ?2 ORDER BY local_version, id LIMIT ?3`
	})
	if err != nil {
		return nil, err
	}
	var batch []parked
	err = st.each([]driver.Value{at.L, at.Seq, int64(replayBatch)}, func(row []driver.Value) error {
		batch = append(batch, parked{id: toInt64(row[1]), change: parkedChange(row[2:], toInt64(row[0]))})
		return nil
	})
	return batch, err
}

// replayEntry tries parked changes of one local version, and returns how many could be applied.
func (a *applier) replayEntry(list []parked) (int, error) {
	origin, version, err := a.e.origin(list[0].change.DBVersion)
	if err != nil {
		return 0, err
	}
	changes := make([]changeset.Change, len(list))
	for i, p := range list {
		changes[i] = p.change
	}
	changed, err := a.e.applyChanges(a.l+1, changes)
	var failed ChangeErrors
	if err != nil && !errors.As(err, &failed) {
		return 0, err
	}
	left := make(map[int]bool, len(failed))
	for _, f := range failed {
		left[f.Index] = true
	}
	for i, p := range list {
		if left[i] {
			continue
		}
		if err := a.e.unpark(p.id); err != nil {
			return 0, err
		}
	}
	if changed > 0 {
		if err := a.record(origin, version); err != nil {
			return 0, err
		}
	}
	return len(list) - len(failed), nil
}
