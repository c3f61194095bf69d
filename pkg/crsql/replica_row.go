package crsql

import (
	"cmp"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// clocksText is the clocks of row g.key that have the local version g.l, and its sentinel's, as one text that parseClocks
// reads: to get many rows out of SQLite costs more than to take one apart. A "!" before the name says that the sentinel
// has another local version.
const clocksText = "group_concat(col_version||' '||site_id||' '||seq||iif(db_version = g.l, ' ', '!')||col_name, char(0))"

// A cellClock is the clock of one cell of a row.
type cellClock struct {
	cid     string
	column  int // in table.cols, or sentinelColumn
	version int64
	site    int64 // ordinal
	seq     int64
	l       int64 // local version
}

const sentinelColumn = -1

// parseClocks appends the clocks in a text of clocksText that have the local version l, save those of columns that the
// table has no more. It returns how many have that version, and the version of the sentinel, 0 if there is none.
func (t *table) parseClocks(clocks []cellClock, packed string, l int64) (_ []cellClock, n int, sentinel int64, err error) {
	for packed != "" {
		var text string
		text, packed, _ = strings.Cut(packed, "\x00")
		c := cellClock{l: l}
		sign := byte(0)
		for _, number := range [...]*int64{&c.version, &c.site, &c.seq} {
			if *number, sign, text, err = cutNumber(text); err != nil {
				return nil, 0, 0, fmt.Errorf("a clock of table %q is damaged: %w", t.name, err)
			}
		}
		if text == changeset.SentinelCID {
			sentinel = c.version
		}
		if sign == '!' {
			continue
		}
		n++
		if c.name(t, text) {
			clocks = append(clocks, c)
		}
	}
	return clocks, n, sentinel, nil
}

// name sets the column, if the table has it.
func (c *cellClock) name(t *table, name string) bool {
	if name == changeset.SentinelCID {
		c.cid, c.column = changeset.SentinelCID, sentinelColumn
		return true
	}
	column, ok := t.column[name]
	if ok {
		c.cid, c.column = t.cols[column], column
	}
	return ok
}

// cutNumber returns the number at the start of text, the sign that ends it, and what follows.
func cutNumber(text string) (n int64, sign byte, rest string, err error) {
	end := 0
	for end < len(text) && (text[end] == '-' || '0' <= text[end] && text[end] <= '9') {
		end++
	}
	if end == len(text) {
		return 0, 0, "", errors.New("a number is missing")
	}
	n, err = strconv.ParseInt(text[:end], 10, 64)
	return n, text[end], text[end+1:], err
}

// The columns of a row of rowsSQL before the primary key and the values.
const (
	rowL = iota
	rowKey
	rowClocksText
	rowPK
)

// rowsSQL returns the statement for the rows whose clocks meet a condition, by local version and key: both, the clocks
// there and the sentinel's as one text, the primary key, and the values, if there are as many clocks there as columns.
// Otherwise they are NULL: a large one is read only if it is asked for. A column in an expression has no declared type, by
// which mattn would convert its values.
func (t *table) rowsSQL(condition string) string {
	all := "g.n >= " + strconv.Itoa(len(t.cols))
	sql := "SELECT g.l, g.key, (SELECT " + clocksText + " FROM " + t.clock() +
		" WHERE key = g.key AND (db_version = g.l OR col_name = " + sentinel + ")), " + idents("+k.", t.pks, ",")
	for _, col := range t.cols {
		sql += ", CASE WHEN " + all + " THEN t." + ident(col) + " END"
	}
	sql += " FROM (SELECT db_version AS l, key, count(*) AS n FROM " + t.clock() +
		" INDEXED BY " + ident(t.name+clockSuffix+"_dbv_idx") + " WHERE " + condition + " GROUP BY db_version, key ORDER BY db_version, key) AS g" +
		" CROSS JOIN " + t.keys() + " AS k ON k.__crsql_key = g.key"
	if len(t.cols) > 0 {
		sql += " LEFT JOIN " + t.base() + " AS t ON " + equalColumns("t", "k", t.pks)
	}
	return sql // in the order of g, which is that of the index: one outside would make SQLite sort, see source.advance
}

// take appends the changes that the current row of s has in the current entry, the sentinel first and the others by seq,
// and moves behind it. A row whose key is gone has none.
func (w *walk) take(s *source, changes []changeset.Change) ([]changeset.Change, error) {
	if s.table == nil {
		return append(changes, parkedChange(s.open.row[2:], s.l)), s.next(w.e)
	}
	row, ok, err := s.current(w.e)
	if err != nil {
		return changes, err
	}
	if ok {
		if changes, err = w.fill(s.table, row, changes); err != nil {
			return changes, err
		}
	}
	return changes, s.next(w.e)
}

// fill appends the changes of a row of rowsSQL.
func (w *walk) fill(t *table, row []driver.Value, changes []changeset.Change) ([]changeset.Change, error) {
	l, pkValues, values := toInt64(row[rowL]), row[rowPK:rowPK+len(t.pks)], row[rowPK+len(t.pks):]
	cells, n, sentinel, err := t.parseClocks(w.cells[:0], toText(row[rowClocksText]), l)
	if err != nil {
		return changes, err
	}
	w.cells = cells
	if sentinel%2 == 1 && slices.ContainsFunc(cells, func(c cellClock) bool { return c.column == sentinelColumn }) {
		if cells, err = w.older(t, l, toInt64(row[rowKey]), cells); err != nil {
			return changes, err
		}
	}
	if n < len(t.cols) {
		if values, err = w.values(t, cells, pkValues); err != nil {
			return changes, err
		}
	}
	w.keys = w.keys[:0]
	for _, v := range pkValues {
		w.keys = append(w.keys, fromDriver(v))
	}
	pk, err := w.pack()
	if err != nil {
		return changes, err
	}
	if !slices.IsSortedFunc(cells, compareCells) {
		slices.SortFunc(cells, compareCells)
	}
	cl := max(sentinel, 1)
	for i := range cells {
		c := &cells[i]
		site, err := w.e.siteOf(c.site)
		if err != nil {
			return changes, err
		}
		changes = append(changes, changeset.Change{
			Table: t.name, PK: pk, CID: c.cid, ColVersion: c.version, DBVersion: c.l, Site: site, CL: cl, Seq: c.seq,
		})
		if c.column != sentinelColumn {
			changes[len(changes)-1].Val = fromDriver(values[c.column])
		}
	}
	return changes, nil
}

// packedChunk is how many bytes of packed keys share their memory.
const packedChunk = 4 << 10

// pack returns the packed form of w.keys.
func (w *walk) pack() ([]byte, error) {
	size := 1
	for _, v := range w.keys {
		size += v.Size()
	}
	if cap(w.packed)-len(w.packed) < size {
		w.packed = make([]byte, 0, max(size, packedChunk))
	}
	start := len(w.packed)
	var err error
	w.packed, err = changeset.AppendPacked(w.packed, w.keys)
	return w.packed[start:len(w.packed):len(w.packed)], err
}

// values reads the values of the row that the cells are about, and leaves the others NULL.
func (w *walk) values(t *table, cells []cellClock, pk []driver.Value) ([]driver.Value, error) {
	marks := make([]byte, len(t.cols))
	for _, c := range cells {
		if c.column != sentinelColumn {
			marks[c.column] = 1
		}
	}
	values := make([]driver.Value, len(t.cols))
	if count(string(marks)) == 0 {
		return values, nil
	}
	st, err := w.e.statement(stmtValues, t, string(marks))
	if err != nil {
		return nil, err
	}
	row, ok, err := st.first(pk...)
	if err != nil || !ok {
		return values, err
	}
	next := 0
	for i, marked := range marks {
		if marked != 0 {
			values[i] = row[next]
			next++
		}
	}
	return values, nil
}

// compareCells puts the sentinel first and the columns in order of seq.
func compareCells(a, b cellClock) int {
	if (a.column == sentinelColumn) != (b.column == sentinelColumn) {
		return cmp.Compare(a.column, b.column) // the sentinel's is the lowest
	}
	return cmp.Or(cmp.Compare(a.seq, b.seq), cmp.Compare(a.cid, b.cid))
}

// older adds the row's columns that have a lower local version than its creation in entry l. The stock engine leaves them
// there when a key is updated: they moved to a new key, and peers that have passed that version would miss them. Those
// with a higher one are not added: they are in an entry of their own, and a replica that got them ahead of it would have
// them recorded under this one's origin, where it passes them on to nobody who has this one.
func (w *walk) older(t *table, l, key int64, cells []cellClock) ([]cellClock, error) {
	if len(t.cols) == 0 {
		return cells, nil
	}
	st, err := w.e.stmts.get(statementKey{kind: stmtOlder, table: t}, func() string {
		return "SELECT col_name, col_version, site_id, seq, db_version FROM " + t.clock() + " WHERE key = ? AND db_version < ? AND col_name <> " + sentinel
	})
	if err != nil {
		return nil, err
	}
	err = st.each([]driver.Value{key, l}, func(row []driver.Value) error {
		c := cellClock{version: toInt64(row[1]), site: toInt64(row[2]), seq: toInt64(row[3]), l: toInt64(row[4])}
		if c.name(t, toText(row[0])) {
			cells = append(cells, c)
		}
		return nil
	})
	return cells, err
}

// siteOf returns the site that an ordinal stands for.
func (e *engine) siteOf(ordinal int64) (changeset.SiteID, error) {
	if ordinal == 0 {
		return e.siteID, nil
	}
	if site, ok := e.sites[ordinal]; ok {
		return site, nil
	}
	st, err := e.stmts.get(statementKey{kind: stmtSite}, func() string {
		return "SELECT site_id FROM main.crsql_site_id WHERE ordinal = ?"
	})
	if err != nil {
		return "", err
	}
	row, ok, err := st.first(ordinal)
	if err != nil || !ok {
		return "", err
	}
	site := changeset.SiteID(toBytes(row[0]))
	if e.sites == nil {
		e.sites = make(map[int64]changeset.SiteID)
	}
	e.sites[ordinal] = site
	return site, nil
}
