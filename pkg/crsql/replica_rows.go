package crsql

import (
	"context"
	"database/sql/driver"
	"maps"
	"slices"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// Rows reads all that is known of some rows, as entries in ascending order, each with its changes of these rows: about
// maxBytes of them, and one row at least. Rows that do not exist are left out. It reads all keys of the table.
func (r *Replica) Rows(ctx context.Context, tableName string, places []changeset.Place, maxBytes int) ([]Entry, error) {
	var entries []Entry
	err := r.settled(ctx, func(s *session, _ versions) error {
		entries = nil
		e := s.engine
		t := e.tables[tableName]
		if t == nil {
			return nil
		}
		var keys []int64
		wants := func(place changeset.Place) bool { return slices.Contains(places, place) }
		err := e.eachKey(t, newDigestReader(t), wants, func(key int64) error {
			keys = append(keys, key)
			return nil
		})
		if err != nil {
			return err
		}
		by := make(map[int64]*Entry)
		size := 0
		for _, key := range keys {
			n, err := e.rowEntries(t, key, by)
			if err != nil {
				return err
			}
			if size += n; size >= maxBytes {
				break
			}
		}
		for _, l := range slices.Sorted(maps.Keys(by)) {
			entry := by[l]
			if entry.Origin, entry.Version, err = e.origin(l); err != nil {
				return err
			}
			entries = append(entries, *entry)
		}
		return nil
	})
	return entries, err
}

// rowEntries adds the changes of a row to the entries that they belong to, and returns their size, about.
func (e *engine) rowEntries(t *table, key int64, by map[int64]*Entry) (int, error) {
	st, err := e.stmts.get(statementKey{kind: stmtDigestVersions, table: t}, func() string {
		return "SELECT DISTINCT db_version FROM " + t.clock() + " WHERE key = ? ORDER BY 1"
	})
	if err != nil {
		return 0, err
	}
	var versions []int64
	err = st.each([]driver.Value{key}, func(row []driver.Value) error {
		versions = append(versions, toInt64(row[0]))
		return nil
	})
	if err != nil {
		return 0, err
	}
	w := &walk{e: e}
	size := rowOverhead
	for _, l := range versions {
		row, ok, err := (&source{table: t, l: l, key: key}).current(e)
		if err != nil {
			return 0, err
		}
		if !ok {
			continue
		}
		entry := by[l]
		if entry == nil {
			entry = &Entry{L: l}
			by[l] = entry
		}
		before := len(entry.Changes)
		if entry.Changes, err = w.fill(t, row, entry.Changes); err != nil {
			return 0, err
		}
		for _, c := range entry.Changes[before:] {
			size += changeOverhead + len(c.PK) + c.Val.Size()
		}
	}
	return size, nil
}
