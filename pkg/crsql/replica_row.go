package crsql

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// packedClocks is all clocks of a row as one text, which parseClocks reads.
const packedClocks = "group_concat(printf('%d %d %d %d %s', col_version, site_id, seq, db_version, col_name), char(0))"

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

// parseClocks appends the clocks in a text of packedClocks, save those of columns that the table has no more.
func (t *table) parseClocks(clocks []cellClock, packed string) ([]cellClock, error) {
	for packed != "" {
		var text string
		text, packed, _ = strings.Cut(packed, "\x00")
		var c cellClock
		for _, n := range []*int64{&c.version, &c.site, &c.seq, &c.l} {
			var number string
			var err error
			number, text, _ = strings.Cut(text, " ")
			if *n, err = strconv.ParseInt(number, 10, 64); err != nil {
				return nil, fmt.Errorf("a clock of table %q is damaged: %w", t.name, err)
			}
		}
		if text == changeset.SentinelCID {
			c.cid, c.column = changeset.SentinelCID, sentinelColumn
			clocks = append(clocks, c)
		} else if column, ok := t.column[text]; ok {
			c.cid, c.column = t.cols[column], column
			clocks = append(clocks, c)
		}
	}
	return clocks, nil
}

// take returns the changes that the current row of s has in the current entry, the sentinel first and the others by seq,
// and moves behind it. A row whose key is gone has none.
func (w *walk) take(s *source) ([]changeset.Change, error) {
	if s.table == nil {
		c := parkedChange(s.open.row[2:], s.l)
		return []changeset.Change{c}, s.next(w.e)
	}
	l, key := s.l, s.key
	cells, err := s.table.parseClocks(make([]cellClock, 0, len(s.table.cols)+1), toText(s.open.row[2]))
	if err != nil {
		return nil, err
	}
	created := slices.ContainsFunc(cells, func(c cellClock) bool { return c.column == sentinelColumn && c.version%2 == 1 })
	if err := s.next(w.e); err != nil {
		return nil, err
	}
	if created {
		if cells, err = w.older(s.table, l, key, cells); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(cells, func(a, b cellClock) int {
		if (a.column == sentinelColumn) != (b.column == sentinelColumn) {
			return cmp.Compare(a.column, b.column) // the sentinel's is the lowest
		}
		return cmp.Or(cmp.Compare(a.seq, b.seq), cmp.Compare(a.cid, b.cid))
	})
	return w.fill(s.table, l, key, cells)
}

// older adds the row's columns that have a lower local version than its creation in entry l. The stock engine leaves
// them there when a key is updated: they moved to a new key, and peers that have passed that version would miss them.
// Those with a higher one are not added: they are in an entry of their own, and a replica that got them ahead of it
// would have them recorded under this one's origin, where it passes them on to nobody who has this one.
func (w *walk) older(t *table, l, key int64, cells []cellClock) ([]cellClock, error) {
	if len(t.cols) == 0 {
		return cells, nil
	}
	st, err := w.e.stmts.get(statementKey{kind: stmtOlder, table: t}, func() string {
		return "SELECT " + packedClocks + " FROM " + t.clock() + " WHERE key = ? AND db_version < ? AND col_name <> " + sentinel
	})
	if err != nil {
		return nil, err
	}
	row, _, err := st.first(key, l)
	if err != nil {
		return nil, err
	}
	return t.parseClocks(cells, toText(row[0]))
}

// fill reads what the clocks are about, and returns both as changes of entry l.
func (w *walk) fill(t *table, l, key int64, cells []cellClock) ([]changeset.Change, error) {
	marks := make([]byte, len(t.cols))
	for _, c := range cells {
		if c.column != sentinelColumn {
			marks[c.column] = 1
		}
	}
	st, err := w.e.stmts.get(statementKey{kind: stmtRow, table: t, cols: string(marks)}, func() string { return t.rowSQL(string(marks)) })
	if err != nil {
		return nil, err
	}
	row, ok, err := st.first(key)
	if err != nil || !ok {
		return nil, err
	}
	keys := make([]changeset.Value, len(t.pks))
	for i := range keys {
		keys[i] = fromDriver(row[1+i])
	}
	pk, err := changeset.AppendPacked(nil, keys)
	if err != nil {
		return nil, err
	}
	values := make([]changeset.Value, len(t.cols))
	next := 1 + len(t.pks)
	for i, marked := range marks {
		if marked != 0 {
			values[i] = fromDriver(row[next])
			next++
		}
	}
	cl := max(toInt64(row[0]), 1)
	changes := make([]changeset.Change, len(cells))
	for i, c := range cells {
		site, err := w.e.siteOf(c.site)
		if err != nil {
			return nil, err
		}
		changes[i] = changeset.Change{
			Table: t.name, PK: pk, CID: c.cid, ColVersion: c.version, DBVersion: c.l, Site: site, CL: cl, Seq: c.seq,
		}
		if c.column != sentinelColumn {
			changes[i].Val = values[c.column]
		}
	}
	return changes, nil
}

// rowSQL returns the statement for the causal length, the primary key and the marked columns of the row with a short
// key. A column in an expression has no declared type, by which mattn would convert its values.
func (t *table) rowSQL(marks string) string {
	sql := "SELECT (SELECT col_version FROM " + t.clock() + " WHERE key = ?1 AND col_name = " + sentinel + "), " + idents("+k.", t.pks, ",")
	from := " FROM " + t.keys() + " AS k"
	if count(marks) > 0 {
		sql += "," + t.eachColumn(marks, func(_, col int) string { return "+t." + ident(t.cols[col]) })
		from += " LEFT JOIN " + t.base() + " AS t ON " + equalColumns("t", "k", t.pks)
	}
	return sql + from + " WHERE k.__crsql_key = +?1" // bare, SQLite would prepare the statement again for each key
}

// siteOf returns the site that an ordinal stands for.
func (e *engine) siteOf(ordinal int64) (changeset.SiteID, error) {
	if ordinal == 0 {
		return e.siteID, nil
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
	return changeset.SiteID(toBytes(row[0])), nil
}
