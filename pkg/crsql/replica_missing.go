package crsql

import (
	"context"
	"fmt"
	"strings"
)

// MissingRows says of a table that syncs what its clocks know of and the table itself does not hold: another program dropped it.
type MissingRows struct {
	Table string
	Gone  bool  // there is no such table
	Rows  int64 // that it lacks; all of them, if it is gone
}

// Missing looks for rows that were lost with a table: a program other than this one dropped it, and its clocks stayed. The replica
// covers these rows, so no peer sends them a second time by itself; they come back where two replicas are compared.
//
// It costs in proportion to all rows, but little where nothing was found before and the schema has not changed since.
func (r *Replica) Missing(ctx context.Context) ([]MissingRows, error) {
	var found []MissingRows
	checked, schema := int64(0), int64(0)
	err := r.db.snapshot(ctx, func(s *session) (err error) {
		e := s.engine
		schema = e.schemaVersion
		if checked, err = e.metaNumber(metaWhole); err != nil || checked == schema {
			return err
		}
		for _, clock := range e.clockTables {
			m := MissingRows{Table: strings.TrimSuffix(clock, clockSuffix)}
			t := e.tables[m.Table]
			m.Gone = t == nil
			if m.Rows, err = e.missingRows(m.Table, t); err != nil {
				return err
			}
			if m.Gone || m.Rows > 0 {
				found = append(found, m)
			}
		}
		return nil
	})
	if err != nil || checked == schema || len(found) > 0 {
		return found, err
	}
	_ = r.db.transact(ctx, func(s *session) error { // else it is looked for again, which costs time
		if s.engine.schemaVersion != schema {
			return nil
		}
		return s.engine.setMeta(metaWhole, schema)
	})
	return nil, nil
}

// missingRows counts the rows that the clocks of a table know of as there, and the table does not hold. t is nil if it is gone.
func (e *engine) missingRows(name string, t *table) (int64, error) {
	there := ""
	if t != nil {
		there = "NOT EXISTS (SELECT 1 FROM " + t.base() + " AS t WHERE " + equalColumns("t", "k", t.pks) + ") AND "
	}
	clock := "main." + ident(name+clockSuffix)
	rows, err := e.query(fmt.Sprintf("SELECT count(*) FROM main.%[1]s AS k WHERE %[2]sEXISTS (SELECT 1 FROM %[3]s WHERE key = k.__crsql_key) "+
		"AND NOT EXISTS (SELECT 1 FROM %[3]s WHERE key = k.__crsql_key AND col_name = %[4]s AND col_version %% 2 = 0)",
		ident(name+pksSuffix), there, clock, sentinel))
	if err != nil {
		return 0, fmt.Errorf("look for rows that the table %s lacks: %w", nameText(name), err)
	}
	return toInt64(rows[0][0]), nil
}
