package crsql

import (
	"database/sql/driver"
	"slices"
	"strconv"
	"strings"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// aheadRows is how many rows are read with one statement, where those that follow each other are there already: to
// start a statement costs as much as to find a row.
const aheadRows = 16

// A rowState is what the merge wants to know of a row.
type rowState struct {
	found    bool // it has a key
	key      int64
	versions string // its clocks, see packedVersions
	valued   bool   // its values were read
	absent   bool   // and it has none
	values   []changeset.Value
}

// ahead holds the states of the rows that come next among the changes that are being merged.
type ahead struct {
	changes []changeset.Change // all that are merged
	from    int                // index of the first whose row has not been read
	at      []int              // index of the first change of each row that was read
	rows    []rowState         // of each
	next    int                // in at and rows
	args    []driver.Value
	keys    []changeset.Value // of each
}

// reset begins with other changes.
func (a *ahead) reset(changes []changeset.Change) {
	a.changes, a.from, a.at, a.next = changes, 0, a.at[:0], 0
}

// written notes that a row was written: triggers may have changed the values of others, though not their clocks.
func (a *ahead) written() {
	for i := a.next; i < len(a.at); i++ {
		a.rows[i].valued = false
	}
}

// take returns the state of the row that change i begins, if it was read.
func (a *ahead) take(i int) *rowState {
	for a.next < len(a.at) && a.at[a.next] < i {
		a.next++
	}
	if a.next == len(a.at) || a.at[a.next] != i {
		return nil
	}
	a.next++
	return &a.rows[a.next-1]
}

// readAhead reads the states of up to aheadRows rows of m's table, beginning with that of change i. It reads nothing
// where only one follows.
func (m *rowMerge) readAhead(i int, values bool) error {
	a, width := &m.ahead, len(m.t.pks)
	if i < a.from || i >= len(a.changes) { // it was read, and has changed since
		return nil
	}
	a.at, a.next, a.keys, a.args = a.at[:0], 0, a.keys[:0], a.args[:0]
	for ; i < len(a.changes) && len(a.at) < aheadRows; i++ {
		c := &a.changes[i]
		if len(a.at) > 0 && sameRow(&a.changes[i-1], c) {
			continue
		}
		keys, err := changeset.AppendParsed(a.keys, c.PK)
		if err != nil || c.Table != m.t.name || len(keys) != len(a.keys)+width || a.holds(keys[len(a.keys):]) {
			break
		}
		a.keys, a.at = keys, append(a.at, i)
	}
	a.from = i
	if len(a.at) < 2 {
		a.at = a.at[:0]
		return nil
	}
	for _, v := range a.keys {
		a.args = append(a.args, toDriver(v))
	}
	for len(a.args) < aheadRows*width { // no key holds a NULL
		a.args = append(a.args, nil)
	}
	return m.runAhead(values)
}

// holds reports whether a row with the key is among those to be read already, or may be: it can have changed when it
// comes again. SQLite takes an INTEGER and a REAL of the same size for the same key.
func (a *ahead) holds(key []changeset.Value) bool {
	if slices.ContainsFunc(key, func(v changeset.Value) bool { return v.Kind() == changeset.KindReal }) {
		return true
	}
	for start := 0; start < len(a.keys); start += len(key) {
		if slices.EqualFunc(a.keys[start:start+len(key)], key, func(a, b changeset.Value) bool { return changeset.Compare(a, b) == 0 }) {
			return true
		}
	}
	return false
}

func (m *rowMerge) runAhead(values bool) error {
	a := &m.ahead
	kind := stmtAheadClocks
	if values {
		kind = stmtAheadState
	}
	st, err := m.e.statement(kind, m.t, "")
	if err != nil {
		return err
	}
	if a.rows == nil {
		a.rows = make([]rowState, aheadRows)
	}
	for i := range a.rows {
		a.rows[i] = rowState{values: a.rows[i].values[:0]}
	}
	return st.each(a.args, func(row []driver.Value) error {
		s := &a.rows[toInt64(row[0])]
		s.found, s.key, s.versions = true, toInt64(row[1]), toText(row[2])
		if values {
			s.setValues(row[4:], toInt64(row[3]) == 1)
		}
		return nil
	})
}

// setValues keeps the values of the row, if there is one.
func (s *rowState) setValues(row []driver.Value, found bool) {
	s.valued, s.absent, s.values = true, !found, s.values[:0]
	if found {
		for _, v := range row {
			s.values = append(s.values, fromDriver(v))
		}
	}
}

// stateSQL returns the statement for the states of several rows, with their values or without. A bare parameter in a
// join would make SQLite prepare the statement again for each value.
func (t *table) stateSQL(rows int, values bool) string {
	var b strings.Builder
	var on []string
	b.WriteString("WITH v(n") // its names are ours, whatever the table's are
	for i, pk := range t.pks {
		name := "p" + strconv.Itoa(i)
		b.WriteString("," + name)
		on = append(on, "k."+ident(pk)+" IS v."+name)
	}
	b.WriteString(") AS (VALUES ")
	for i := range rows {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString("(" + strconv.Itoa(i) + strings.Repeat(",+?", len(t.pks)) + ")")
	}
	b.WriteString(") SELECT v.n, k.__crsql_key, (SELECT " + packedVersions + " FROM " + t.clock() + " WHERE key = k.__crsql_key)")
	if values {
		b.WriteString(", t." + ident(t.pks[0]) + " IS NOT NULL, " + idents("+t.", t.cols, ","))
	}
	b.WriteString(" FROM v CROSS JOIN " + t.keys() + " AS k ON " + strings.Join(on, " AND "))
	if values {
		b.WriteString(" LEFT JOIN " + t.base() + " AS t ON " + equalColumns("t", "k", t.pks))
	}
	return b.String()
}
