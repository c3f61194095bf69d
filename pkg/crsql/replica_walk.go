package crsql

import (
	"cmp"
	"database/sql/driver"
	"errors"
	"math"
	"slices"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// A walk goes through the entries of one snapshot in order of their local version, and through the rows of an entry in
// the order in which the index on db_version holds them: table by table, and by short key within a table. So a walk can
// begin anywhere at the cost of a search, and costs in proportion to what it passes, also within an entry of a million
// changes. In order of seq each part of such an entry would take a sort of the whole.
//
// The place of a row in its entry, Position.Seq, is the table's place and the key. The parked changes of an entry come
// first, in place of a table.
type walk struct {
	e       *engine
	sources []*source // by ascending place

	// Buffers of fill.
	cells  []cellClock
	keys   []changeset.Value
	packed []byte
}

const (
	keyBits     = 47 // of Position.Seq: the short key, or the id of a parked change
	maxKey      = 1<<keyBits - 1
	parkedPlace = 1
	firstPlace  = 2                   // of a table
	maxPlace    = 1<<(63-keyBits) - 2 // so that no row is at EntryEnd
)

// errKeys means that 2^47 rows were ever made in one table, or that somebody wrote to its keys.
var errKeys = errors.New("a short key is out of range: its __crsql_pks table was changed by hand")

// errOrder would mean that SQLite did not keep to the order of an index.
var errOrder = errors.New("internal: rows came out of order")

// A source is one table's clocks, or the parked changes: rows that begin with local version and key, in that order.
type source struct {
	place int64
	table *table // nil: the parked changes

	open    *cursor // nil: nothing is left
	rest    bool    // open holds the rest of one entry only; all behind it has to be opened yet
	rich    bool    // open holds whole rows: see current
	sent    int     // rows in succession that were taken
	ordered bool    // l and key are those of open's last row: the next one's are higher
	l       int64   // local version of the current row
	key     int64
}

// streamAfter is how many rows of a source are taken in succession before it is read as whole rows. What is passed costs
// less without them.
const streamAfter = 8

// splitSeq returns the place and the key of a Position.Seq.
func splitSeq(seq int64) (place, key int64) { return seq >> keyBits, seq & maxKey }

func joinSeq(place, key int64) int64 { return place<<keyBits | key }

// openWalk returns a walk that stands at the first row behind after.
func (r *Replica) openWalk(e *engine, after Position) (*walk, error) {
	w := &walk{e: e, sources: []*source{{place: parkedPlace}}}
	places, err := r.tablePlaces(e)
	if err != nil {
		return nil, err
	}
	for i, t := range e.order {
		w.sources = append(w.sources, &source{place: places[i], table: t})
	}
	slices.SortFunc(w.sources, func(a, b *source) int { return cmp.Compare(a.place, b.place) })
	if err := w.seek(after); err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

// tablePlaces returns the place of each of e's tables in a walk. A table keeps its place while the Replica lives, so
// that a Position stays right when tables come and go.
func (r *Replica) tablePlaces(e *engine) ([]int64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	places := make([]int64, len(e.order))
	for i, t := range e.order {
		place, ok := r.places[t.name]
		if !ok {
			place = firstPlace + int64(len(r.places))
			if place > maxPlace {
				return nil, errors.New("too many tables were created and dropped since the program started: start it again")
			}
			r.places[t.name] = place
		}
		places[i] = place
	}
	return places, nil
}

// seek moves the walk to the first row behind after.
func (w *walk) seek(after Position) error {
	place, key := splitSeq(after.Seq)
	for _, s := range w.sources {
		if err := s.close(); err != nil {
			return err
		}
		var err error
		switch {
		case after.Seq == EntryEnd || s.place < place:
			err = s.openAbove(w.e, after.L)
		case s.place > place:
			err = s.openAbove(w.e, after.L-1)
		default:
			if err = s.openRest(w.e, after.L, key); err == nil && s.open == nil {
				err = s.openAbove(w.e, after.L)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// entry returns the local version of the next entry, and false at the end of the walk.
func (w *walk) entry() (int64, bool) {
	l := int64(math.MaxInt64)
	for _, s := range w.sources {
		if s.open != nil {
			l = min(l, s.l)
		}
	}
	return l, l < math.MaxInt64
}

// pass moves behind the rest of entry l.
func (w *walk) pass(l int64) error {
	const steps = 32 // rows that are cheaper to pass than to search behind
	for _, s := range w.sources {
		for n := 0; s.open != nil && s.l == l; n++ {
			err := error(nil)
			if n < steps && !s.rich {
				s.sent = 0
				err = s.next(w.e)
			} else if err = s.close(); err == nil {
				s.rich, s.sent = false, 0
				err = s.openAbove(w.e, l)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *walk) close() error {
	var errs []error
	for _, s := range w.sources {
		errs = append(errs, s.close())
	}
	return errors.Join(errs...)
}

const scanParked = "SELECT local_version, id, tbl, pk, cid, val, col_version, site, cl, seq FROM main.crmesh_parked INDEXED BY crmesh_parked_version WHERE "

// scan returns the statement that scans s where condition holds.
func (s *source) scan(condition string) string {
	if s.table == nil {
		return scanParked + condition + " ORDER BY local_version, id"
	}
	// The index on db_version holds the primary key, (key, col_name), behind it: so neither takes a sort, and the second no
	// look at the clocks themselves. A row comes in one piece, because to get it out of SQLite costs more than to find it.
	if s.rich {
		return s.table.rowsSQL(condition)
	}
	return "SELECT db_version, key FROM " + s.table.clock() +
		" INDEXED BY " + ident(s.table.name+clockSuffix+"_dbv_idx") + " WHERE " + condition +
		" GROUP BY db_version, key ORDER BY db_version, key"
}

// openAbove opens s at the first row of a local version above l.
func (s *source) openAbove(e *engine, l int64) error {
	s.rest = false
	if s.table == nil {
		return s.start(e, stmtParkedScan, "local_version > ?", l)
	}
	if s.rich {
		return s.start(e, stmtRows, "db_version > ?", l)
	}
	return s.start(e, stmtScan, "db_version > ?", l)
}

// openRest opens s at the first row of local version l behind key.
func (s *source) openRest(e *engine, l, key int64) error {
	s.rest = true
	if s.table == nil {
		return s.start(e, stmtParkedRest, "local_version = ? AND id > ?", l, key)
	}
	if s.rich {
		return s.start(e, stmtRowsRest, "db_version = ? AND key > ?", l, key)
	}
	return s.start(e, stmtScanRest, "db_version = ? AND key > ?", l, key)
}

func (s *source) start(e *engine, kind statementKind, condition string, args ...driver.Value) error {
	c, err := e.openCursor(statementKey{kind: kind, table: s.table}, func() string { return s.scan(condition) }, args...)
	if err != nil {
		return err
	}
	s.open, s.ordered = c, false
	return s.advance()
}

// advance moves the open cursor to its next row, and closes it behind the last.
func (s *source) advance() error {
	ok, err := s.open.next()
	if err != nil {
		return err
	}
	if !ok {
		return s.close()
	}
	l, key := toInt64(s.open.row[0]), toInt64(s.open.row[1])
	if key < 0 || key > maxKey {
		return errKeys
	}
	if s.ordered && (l < s.l || l == s.l && key <= s.key) {
		return errOrder
	}
	s.l, s.key, s.ordered = l, key, true
	return nil
}

// current returns the current row of a table, as rowsSQL gives it; false if its key is gone. It is valid until the next
// call of a method of s.
func (s *source) current(e *engine) ([]driver.Value, bool, error) {
	if s.rich {
		return s.open.row, true, nil
	}
	st, err := e.stmts.get(statementKey{kind: stmtRow, table: s.table}, func() string {
		return s.table.rowsSQL("db_version = +? AND key = +?")
	})
	if err != nil {
		return nil, false, err
	}
	return st.first(s.l, s.key)
}

// next moves to the next row of s.
func (s *source) next(e *engine) error {
	if s.sent++; s.sent == streamAfter && s.table != nil {
		l, key := s.l, s.key
		if err := s.close(); err != nil {
			return err
		}
		s.rich = true
		if err := s.openRest(e, l, key); err != nil || s.open != nil {
			return err
		}
		return s.openAbove(e, l)
	}
	l := s.l
	if err := s.advance(); err != nil || s.open != nil || !s.rest {
		return err
	}
	return s.openAbove(e, l)
}

func (s *source) close() error {
	if s.open == nil {
		return nil
	}
	c := s.open
	s.open = nil
	return c.close()
}
