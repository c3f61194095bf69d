package crsql

import (
	"cmp"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"

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

// ParkedError is Apply's error for a change that can be neither applied nor parked, because as much is parked as may be.
// It is the fault of the group's sender, or of the tables here, which have to be brought up to date.
type ParkedError struct {
	Group          int // its index in the request
	Changes, Bytes int64
}

// Error says what to do.
func (e *ParkedError) Error() string {
	return fmt.Sprintf("%d changes of %d MB are put aside already because they do not fit the tables here, and no more are taken: "+
		"bring the tables of this database up to date, or end the peer that sends them", e.Changes, e.Bytes>>20)
}

// Why changes are refused that belong to no table or column here.
const (
	noTable  = "the table is not a CRR of this database"
	noColumn = "the table has no such column"
)

// parkedReason is why a change is parked, so that changes for one reason are counted together.
func parkedReason(f *ChangeError) string {
	switch f.Reason {
	case noTable:
		return "there is no such table here"
	case noColumn:
		return "the table has no column " + nameText(f.CID)
	}
	if errors.As(f.Err, new(refusal)) {
		return f.Reason + ": " + shorten(f.Err.Error())
	}
	return f.Reason
}

// parkedRowBytes is counted for each parked change beside its names, key and value.
const parkedRowBytes = 100

// quota is a number of parked changes and their bytes.
type quota struct{ changes, bytes int64 }

func (e *engine) parkedSum() (q quota, err error) {
	st, err := e.stmts.get(statementKey{kind: stmtParkedSum}, func() string {
		return "SELECT coalesce(sum(changes), 0), coalesce(sum(bytes), 0) FROM main.crmesh_parked_count"
	})
	if err != nil {
		return q, err
	}
	row, _, err := st.first()
	if err != nil {
		return q, err
	}
	return quota{toInt64(row[0]), toInt64(row[1])}, nil
}

// reserve counts a change that is about to be parked. Past the quota it looks how much there really is: what was put in
// the place of others counts once.
func (a *applier) reserve(c *changeset.Change, reason string) error {
	size := int64(parkedRowBytes + len(c.PK) + c.Val.Size() + len(c.Table) + len(c.CID) + len(reason))
	for range 2 {
		if a.counted && a.parked.changes < a.quota.changes && a.parked.bytes+size <= a.quota.bytes {
			a.parked.changes++
			a.parked.bytes += size
			return nil
		}
		var err error
		if a.parked, err = a.e.parkedSum(); err != nil {
			return err
		}
		a.counted = true
	}
	return &ParkedError{Changes: a.parked.changes, Bytes: a.parked.bytes}
}

// Parked is what is parked.
type Parked struct {
	Changes int64         `json:"changes"`
	Bytes   int64         `json:"bytes"`  // that these take, about
	Tables  []ParkedTable `json:"tables"` // the MaxParkedTables with the most changes
	More    int64         `json:"more"`   // how many lines Tables lacks
}

// ParkedTable is the changes to a table that are parked for one reason.
type ParkedTable struct {
	Table   string `json:"table"`
	Reason  string `json:"reason"`
	Changes int64  `json:"changes"`
}

// MaxParkedTables is how many lines Parked.Tables has.
const MaxParkedTables = 50

// Parked returns what is parked now. It takes time in proportion to the number of tables and reasons.
func (r *Replica) Parked(ctx context.Context) (Parked, error) {
	var parked Parked
	err := r.db.snapshot(ctx, func(s *session) error {
		sum, err := s.engine.parkedSum()
		if err != nil {
			return err
		}
		parked = Parked{Changes: sum.changes, Bytes: sum.bytes}
		rows, err := s.engine.query("SELECT tbl, reason, changes, count(*) OVER () FROM main.crmesh_parked_count ORDER BY changes DESC, tbl, reason LIMIT ?",
			int64(MaxParkedTables))
		for _, row := range rows {
			parked.Tables = append(parked.Tables, ParkedTable{toText(row[0]), toText(row[1]), toInt64(row[2])})
			parked.More = toInt64(row[3]) - int64(len(parked.Tables))
		}
		return err
	})
	return parked, err
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
	schema := int64(unknown)
	for {
		n, more := 0, false
		err := r.db.transact(ctx, func(s *session) (err error) {
			if schema == unknown {
				schema = s.engine.schemaVersion
			}
			if n, more, err = replay(s, &at); err != nil || more || at == (Position{}) {
				return err
			}
			return s.engine.setMeta(metaTried, schema) // at the first of them: what changed it since is tried once more
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
