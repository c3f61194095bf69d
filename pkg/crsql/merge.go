package crsql

import (
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/mattn/go-sqlite3"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// A cell is one column of a row: its clock, and what is to be written of it.
type cell struct {
	clocked bool
	version int64

	dirty bool // the fields below are to be written
	value changeset.Value
	site  changeset.SiteID
	seq   int64
}

// rowClocks are the clocks of one row.
type rowClocks struct {
	cl    int64  // causal length, see changeset.Local
	cells []cell // by index of the column in table.cols
}

// readClocks returns the clocks of the row with the short key.
func (e *engine) readClocks(t *table, key int64) (rowClocks, error) {
	r := rowClocks{cells: make([]cell, len(t.cols))}
	return r, e.loadClocks(t, key, &r)
}

// loadClocks reads the clocks of the row with the short key into r, which is empty.
func (e *engine) loadClocks(t *table, key int64, r *rowClocks) error {
	st, err := e.statement(stmtClocks, t, "")
	if err != nil {
		return err
	}
	return st.each([]driver.Value{key}, func(row []driver.Value) error {
		name, _ := row[0].(string)
		version, _ := row[1].(int64)
		if name == changeset.SentinelCID {
			r.cl = version
			return nil
		}
		if i, ok := t.column[name]; ok {
			r.cells[i].clocked, r.cells[i].version = true, version
		}
		if r.cl == 0 {
			r.cl = 1 // a row without a sentinel; the sentinel, if there is one, comes before or after this
		}
		return nil
	})
}

// A rowMerge merges consecutive changes to one row. It decides in memory, as if each change were stored before the next
// is looked at, and writes what is left of them together.
type rowMerge struct {
	e         *engine
	t         *table
	dbVersion int64
	pk        []driver.Value
	key       int64 // 0: none yet
	rowClocks

	// What is to be written, besides the dirty cells.
	del          bool // delete the row
	create       bool // create the row
	zero         bool // set the versions of the clocks that are there to 0
	sentinel     bool // write cl as the sentinel's version, with:
	sentinelSite changeset.SiteID
	sentinelSeq  int64
	impacted     int64 // by what is to be written

	values []changeset.Value // of the row's columns, as stored; nil if not read
	cols   []byte            // marks of the dirty columns, and of the sentinel at the end
	args   []driver.Value
}

// mergeRun merges changes to one row. offset is the index of the first in what the caller was given.
func (e *engine) mergeRun(dbVersion int64, run []changeset.Change, offset int) (int64, ChangeErrors, error) {
	t := e.tables[run[0].Table]
	if t == nil {
		return 0, refuseAll(run, offset, "the table is not a CRR of this database", nil), nil
	}
	pk, err := changeset.ParsePacked(run[0].PK)
	if err != nil {
		return 0, refuseAll(run, offset, "its primary key is damaged", err), nil
	}
	if len(pk) != len(t.pks) {
		reason := fmt.Sprintf("its primary key has %d values where the table's has %d", len(pk), len(t.pks))
		return 0, refuseAll(run, offset, reason, nil), nil
	}
	for _, v := range pk {
		if v.Kind() == changeset.KindNull { // an INTEGER PRIMARY KEY would make up a number for it
			return 0, refuseAll(run, offset, "its primary key holds a NULL", nil), nil
		}
	}
	m := &e.merger
	m.start(e, t, dbVersion, pk)
	impacted, failed, err := m.merge(run, offset)
	if len(run) > 1 && m.refused(err) {
		// One of them is to blame. What has been written already is merged again, which changes nothing.
		failed = nil
		for i := range run {
			n, f, err := m.merge(run[i:i+1], offset+i)
			impacted += n
			failed = append(failed, f...)
			if m.refused(err) {
				failed = append(failed, refuse(&run[i], offset+i, "the table refuses it", err))
			} else if err != nil {
				return impacted, nil, err
			}
		}
		return impacted, failed, nil
	}
	if m.refused(err) {
		return impacted, append(failed, refuse(&run[0], offset, "the table refuses it", err)), nil
	}
	return impacted, failed, err
}

func refuse(c *changeset.Change, index int, reason string, err error) *ChangeError {
	return &ChangeError{Index: index, Table: c.Table, CID: c.CID, Reason: reason, Err: err}
}

func refuseAll(run []changeset.Change, offset int, reason string, err error) ChangeErrors {
	failed := make(ChangeErrors, len(run))
	for i := range run {
		failed[i] = refuse(&run[i], offset+i, reason, err)
	}
	return failed
}

// A refusal is the base table's no to what a merge writes to it, before anything else is written.
type refusal struct{ err error }

func (r refusal) Error() string { return r.err.Error() }
func (r refusal) Unwrap() error { return r.err }

// refused reports whether err is a refusal that left the transaction as it was.
func (m *rowMerge) refused(err error) bool {
	return errors.As(err, new(refusal)) && m.e.sqlite.AutoCommit() == m.e.mergeAuto
}

// refusable reports whether err says something about the row, rather than about the database or the machine.
func refusable(err error) bool {
	var sqlite sqlite3.Error
	if !errors.As(err, &sqlite) {
		return false
	}
	switch sqlite.Code {
	case sqlite3.ErrError, sqlite3.ErrConstraint, sqlite3.ErrMismatch, sqlite3.ErrTooBig, sqlite3.ErrRange:
		return true
	}
	return false
}

// start makes m ready for changes to the row of t with the primary key pk. It keeps m's buffers.
func (m *rowMerge) start(e *engine, t *table, dbVersion int64, pk []changeset.Value) {
	m.e, m.t, m.dbVersion = e, t, dbVersion
	m.pk = m.pk[:0]
	for _, v := range pk {
		m.pk = append(m.pk, toDriver(v))
	}
}

// load reads the row's clocks and drops what was to be written.
func (m *rowMerge) load() error {
	m.clean()
	m.cl, m.key, m.values = 0, 0, nil
	if n := len(m.t.cols); cap(m.cells) < n {
		m.cells = make([]cell, n)
	} else {
		m.cells = m.cells[:n]
		clear(m.cells)
	}
	key, err := m.e.findKey(m.t, m.pk, false)
	if err != nil || key == 0 {
		return err
	}
	m.key = key
	return m.e.loadClocks(m.t, key, &m.rowClocks)
}

// merge merges the changes and returns how many rows of crsql_changes were impacted, and the changes that are out of
// bounds. When the table refuses, the changes since the last flush are not merged and the error is a refusal.
func (m *rowMerge) merge(run []changeset.Change, offset int) (impacted int64, failed ChangeErrors, err error) {
	if err := m.load(); err != nil {
		return 0, nil, err
	}
	for i := range run {
		c := &run[i]
		action, reason := m.decide(c)
		if reason != "" {
			failed = append(failed, refuse(c, offset+i, reason, nil))
			continue
		}
		if m.mustFlush(c, action) {
			n, err := m.flush()
			impacted += n
			if err != nil {
				return impacted, nil, err
			}
		}
		if action == changeset.ActionCompare {
			if action, err = m.resolveTie(c); err != nil {
				return impacted, nil, err
			}
		}
		m.take(c, action)
	}
	n, err := m.flush()
	impacted += n
	if err == nil && m.key == 0 && len(failed) < len(run) {
		_, err = m.e.newKey(m.t, m.pk) // a change that loses makes its key known all the same: the stock engine's rule
	}
	return impacted, failed, err
}

// decide returns what to do with c, or why it is out of bounds.
func (m *rowMerge) decide(c *changeset.Change) (changeset.Action, string) {
	switch {
	case c.CL > changeset.MaxVersion || c.ColVersion > changeset.MaxVersion || c.ColVersion < 0:
		return 0, "its version or causal length is out of range"
	case c.Seq > changeset.MaxVersion || c.Seq < 0:
		return 0, "its seq is out of range"
	case len(c.Site) > changeset.SiteIDLen:
		return 0, fmt.Sprintf("its site id has %d bytes, more than %d", len(c.Site), changeset.SiteIDLen)
	}
	local := changeset.Local{CL: m.cl}
	col, known := m.t.column[c.CID]
	if known {
		local.HasCell, local.ColVersion = m.cells[col].clocked, m.cells[col].version
	}
	action := changeset.Resolve(local, c)
	if !known && action >= changeset.ActionCreateAndWrite {
		return 0, "the table has no such column"
	}
	return action, ""
}

// mustFlush reports whether what is to be written has to be, before action is taken: to compare with a value as it is
// stored, or to delete a row before it is created anew.
func (m *rowMerge) mustFlush(c *changeset.Change, action changeset.Action) bool {
	switch action {
	case changeset.ActionCompare:
		return m.cells[m.t.column[c.CID]].dirty
	case changeset.ActionCreate, changeset.ActionCreateAndWrite:
		return m.del
	}
	return false
}

// resolveTie decides an ActionCompare. To a row that is gone the change is written.
func (m *rowMerge) resolveTie(c *changeset.Change) (changeset.Action, error) {
	if m.values == nil {
		st, err := m.e.statement(stmtValues, m.t, "")
		if err != nil {
			return 0, err
		}
		row, found, err := st.first(m.pk...)
		if err != nil {
			return 0, err
		}
		if !found {
			return changeset.ActionWrite, nil
		}
		m.values = make([]changeset.Value, len(row))
		for i, v := range row {
			m.values[i] = fromDriver(v)
		}
	}
	action := changeset.ResolveValue(m.values[m.t.column[c.CID]], m.e.mergeEqualValues(), c)
	if action == changeset.ActionCompareSite {
		site, err := m.e.cellSite(m.t, m.key, c.CID)
		if err != nil {
			return 0, err
		}
		action = changeset.ResolveSite(site, c)
	}
	return action, nil
}

// take notes what action writes.
func (m *rowMerge) take(c *changeset.Change, action changeset.Action) {
	switch action {
	case changeset.ActionDelete:
		clear(m.cells)
		m.del, m.create, m.zero = true, false, false
		m.setSentinel(c)
	case changeset.ActionCreate, changeset.ActionCreateAndWrite:
		m.create, m.zero = true, true
		for i := range m.cells {
			m.cells[i].version = 0
		}
		m.setSentinel(c)
	}
	if action == changeset.ActionWrite || action == changeset.ActionCreateAndWrite {
		m.cells[m.t.column[c.CID]] = cell{
			clocked: true, version: c.ColVersion,
			dirty: true, value: c.Val, site: c.Site, seq: c.Seq,
		}
		m.cl = max(m.cl, 1)
		m.impacted++
	}
}

func (m *rowMerge) setSentinel(c *changeset.Change) {
	m.cl, m.sentinel, m.sentinelSite, m.sentinelSeq = c.CL, true, c.Site, c.Seq
	m.impacted++
}
