package crsql

import (
	"context"
	"errors"
	"slices"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

const (
	maxReadEntries = 65536 // entries that one Read decides on
	changeOverhead = 12    // bytes of a change in a message besides its value, about
	rowOverhead    = 4     // bytes of a row in a message besides its key, about
)

// streamGrowth is for how many changes an entry that is read as a stream gets room at once.
const streamGrowth = 512

// Read reads entries, in one snapshot. It blocks on the disk, in proportion to what it passes, and for as long as all
// reading connections are in use. It returns soon after ctx ends. The first one writes, too: that a peer was met.
func (r *Replica) Read(ctx context.Context, q ReadRequest) (ReadResult, error) {
	var result ReadResult
	q, err := q.bounded()
	if err != nil {
		return ReadResult{}, err
	}
	first := r.met.CompareAndSwap(false, true)
	err = r.settled(ctx, func(s *session, v versions) (err error) {
		result = ReadResult{Next: q.After, Heads: v.heads()}
		w, err := r.openWalk(s.engine, q.After)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, w.close()) }()
		if q.Count {
			if result.Remaining, err = w.count(q.After); err != nil {
				return err
			}
		}
		reader := reader{ctx: ctx, walk: w, q: &q, result: &result}
		if q.Only != nil {
			return reader.only()
		}
		return reader.all()
	})
	if err != nil {
		return ReadResult{}, err
	}
	if first {
		_ = r.db.transact(ctx, func(*session) error { return nil }) // seals; else the next commit does
	}
	return result, nil
}

// A reader carries out one ReadRequest.
type reader struct {
	ctx     context.Context
	walk    *walk
	q       *ReadRequest
	result  *ReadResult
	entries int // decided on
	bytes   int // of the changes so far
	changes int
}

// all reads entries until there are no more, or the request's limits are reached.
func (r *reader) all() error {
	for {
		l, ok := r.walk.entry()
		if !ok {
			r.result.End = true
			return nil
		}
		if full, err := r.entry(l); err != nil || full {
			return err
		}
	}
}

// only reads the entries of the request, where they still exist.
func (r *reader) only() error {
	for _, l := range r.q.Only {
		if l < r.q.After.L || l == r.q.After.L && r.q.After.Seq == EntryEnd {
			continue
		}
		if next, ok := r.walk.entry(); ok && next < l {
			if err := r.walk.seek(Position{L: l, Seq: EntryStart}); err != nil {
				return err
			}
		}
		if next, ok := r.walk.entry(); !ok || next != l {
			r.result.Next = Position{L: l, Seq: EntryEnd}
			continue
		}
		if full, err := r.entry(l); err != nil || full {
			return err
		}
	}
	r.result.End = true
	return nil
}

// entry decides on entry l, at which the walk stands, and reads it if so decided. It reports whether the Read is to end,
// at result.Next.
func (r *reader) entry(l int64) (full bool, err error) {
	if err := r.ctx.Err(); err != nil {
		return false, err
	}
	if r.entries == maxReadEntries {
		return true, nil
	}
	r.entries++
	e := Entry{L: l}
	if e.Origin, e.Version, err = r.walk.e.origin(l); err != nil {
		return false, err
	}
	switch r.q.Decide(e.Origin, e.Version) {
	case Stop:
		return true, nil
	case Send:
		full, err = r.send(&e)
		if err != nil {
			return false, err
		}
		if len(e.Changes) > 0 {
			r.result.Entries = append(r.result.Entries, e)
		}
		if full {
			return true, nil
		}
	case Hold:
		e.Held = true
		r.result.Entries = append(r.result.Entries, e)
		fallthrough
	default:
		if err := r.walk.pass(l); err != nil {
			return false, err
		}
	}
	r.result.Next = Position{L: l, Seq: EntryEnd}
	return false, nil
}

// send reads the rest of an entry into e, row by row. It reports whether the limits ended it before that was done.
func (r *reader) send(e *Entry) (full bool, err error) {
	for _, s := range r.walk.sources {
		for s.open != nil && s.l == e.L {
			if err := r.ctx.Err(); err != nil {
				return false, err
			}
			if r.changes > 0 && (r.changes >= r.q.MaxChanges || r.bytes >= r.q.MaxBytes) {
				return true, nil
			}
			at := Position{L: e.L, Seq: joinSeq(s.place, s.key)}
			before := len(e.Changes)
			if s.rich && cap(e.Changes)-before <= len(s.table.cols) { // by more than append would: it copies often
				e.Changes = slices.Grow(e.Changes, max(before, len(s.table.cols)+1, streamGrowth))
			}
			if e.Changes, err = r.walk.take(s, e.Changes); err != nil {
				return false, err
			}
			changes := e.Changes[before:]
			size := rowOverhead
			for i := range changes {
				size += changeOverhead + changes[i].Val.Size()
			}
			if len(changes) > 0 {
				size += len(changes[0].PK)
			}
			if r.changes > 0 && (r.changes+len(changes) > r.q.MaxChanges || r.bytes+size > r.q.MaxBytes) {
				e.Changes = e.Changes[:before]
				return true, nil
			}
			r.changes += len(changes)
			r.bytes += size
			r.result.Next = at
		}
	}
	return false, nil
}

// origin returns where entry l comes from: what Apply recorded, or a commit of this database.
func (e *engine) origin(l int64) (changeset.SiteID, int64, error) {
	st, err := e.stmts.get(statementKey{kind: stmtOrigin}, func() string {
		return "SELECT site, origin_version FROM main.crmesh_log WHERE local_version = ?"
	})
	if err != nil {
		return "", 0, err
	}
	row, ok, err := st.first(l)
	if err != nil || !ok {
		return e.siteID, l, err
	}
	return changeset.SiteID(toBytes(row[0])), toInt64(row[1]), nil
}

// count returns how many changes lie behind after.
func (w *walk) count(after Position) (int64, error) {
	place, key := splitSeq(after.Seq)
	total := int64(0)
	for _, s := range w.sources {
		above := after.L
		if after.Seq != EntryEnd && s.place > place {
			above--
		}
		n, err := s.count(w.e, above)
		if err != nil {
			return 0, err
		}
		total += n
		if after.Seq != EntryEnd && s.place == place {
			if n, err = s.countRest(w.e, after.L, key); err != nil {
				return 0, err
			}
			total += n
		}
	}
	return total, nil
}

func (s *source) count(e *engine, above int64) (int64, error) {
	if s.table == nil {
		return e.number(stmtParkedCount, "SELECT count(*) FROM main.crmesh_parked WHERE local_version > ?", above)
	}
	return e.clockNumber(stmtCount, s.table.name+clockSuffix, "SELECT count(*) FROM %s WHERE db_version > ?", above)
}

func (s *source) countRest(e *engine, l, key int64) (int64, error) {
	if s.table == nil {
		return e.number(stmtParkedLeft, "SELECT count(*) FROM main.crmesh_parked WHERE local_version = ? AND id > ?", l, key)
	}
	return e.clockNumber(stmtCountRest, s.table.name+clockSuffix, "SELECT count(*) FROM %s WHERE db_version = ? AND key > ?", l, key)
}
