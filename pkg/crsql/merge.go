package crsql

import (
	"bytes"
	"database/sql/driver"
	"errors"
	"fmt"
	"strconv"
	"strings"

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
	st, err := e.statement(stmtClocks, t, "")
	if err != nil {
		return r, err
	}
	return r, st.each([]driver.Value{key}, func(row []driver.Value) error {
		r.set(t, toText(row[0]), toInt64(row[1]))
		return nil
	})
}

// A rowMerge merges consecutive changes to one row. It decides in memory, as if each change were stored before the next
// is looked at, and writes what is left of them together.
type rowMerge struct {
	e         *engine
	t         *table
	dbVersion int64
	packed    []byte // the primary key
	pk        []driver.Value
	known     bool  // the fields below are those of the row as it is stored
	key       int64 // 0: none yet
	fresh     bool  // there was no key before, and nothing has been stored under it
	made      bool  // and it was made ahead of the decision
	rowClocks

	// What is to be written, besides the dirty cells.
	del          bool // delete the row
	zero         bool // set the versions of the clocks that are there to 0
	sentinel     bool // write cl as the sentinel's version, with:
	sentinelSite changeset.SiteID
	sentinelSeq  int64
	impacted     int64 // by what is to be written
	half         bool  // the row has been written, its clocks not

	state    rowState          // the row as it was read
	ahead    ahead             // the rows behind it
	keyParts []changeset.Value // of packed, parsed
	cols     []byte            // marks of the dirty columns, and of the sentinel at the end
	args     []driver.Value

	// What the last row was like, so probably the next one is.
	wasNew  bool // its key had to be made
	wasTied bool // it was compared by value
}

// mergeRun merges changes to one row. offset is the index of the first in what the caller was given.
func (e *engine) mergeRun(dbVersion int64, run []changeset.Change, offset int) (int64, ChangeErrors, error) {
	t := e.tables[run[0].Table]
	if t == nil {
		return 0, refuseAll(run, offset, noTable, nil), nil
	}
	m := &e.merger
	if reason, err := m.start(e, t, dbVersion, run[0].PK); reason != "" {
		return 0, refuseAll(run, offset, reason, err), nil
	}
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

// start makes m ready for changes to the row of t with the packed primary key, or says why there is no such key. It keeps
// m's buffers, and what m knows of the row if that is the one it is at.
func (m *rowMerge) start(e *engine, t *table, dbVersion int64, packed []byte) (reason string, err error) {
	m.e, m.dbVersion, m.half = e, dbVersion, false
	if m.known && m.t == t && bytes.Equal(m.packed, packed) {
		return "", nil
	}
	m.t, m.known = t, false
	if len(packed) > MaxKey {
		return fmt.Sprintf("its primary key has %d bytes, more than %d", len(packed), MaxKey), nil
	}
	m.packed = append(m.packed[:0], packed...)
	if m.keyParts, err = changeset.AppendParsed(m.keyParts[:0], m.packed); err != nil {
		return "its primary key is damaged", err
	}
	if len(m.keyParts) != len(t.pks) {
		return fmt.Sprintf("its primary key has %d values where the table's has %d", len(m.keyParts), len(t.pks)), nil
	}
	m.pk = m.pk[:0]
	for _, v := range m.keyParts {
		if v.Kind() == changeset.KindNull { // an INTEGER PRIMARY KEY would make up a number for it
			return "its primary key holds a NULL", nil
		}
		m.pk = append(m.pk, toDriver(v))
	}
	return "", nil
}

// load drops what was to be written, and finds or makes the row's key and reads its clocks, unless they are known. index
// is that of the first change to the row.
func (m *rowMerge) load(index int) error {
	m.clean()
	if m.known {
		return nil
	}
	m.cl, m.key, m.fresh, m.made, m.state.valued = 0, 0, false, false, false
	if n := len(m.t.cols); cap(m.cells) < n {
		m.cells = make([]cell, n)
	} else {
		m.cells = m.cells[:n]
		clear(m.cells)
	}
	// To make a key costs no more than to look for it. Inside a statement it could not be undone: the end of a statement that
	// fails undoes what was done since some point in it.
	if m.wasNew && !m.e.nested {
		made, err := m.makeKey()
		m.made, m.fresh, m.known = made, made, made
		if made || err != nil {
			return err
		}
	}
	if err := m.read(index); err != nil {
		return err
	}
	m.wasNew, m.fresh = !m.state.found, !m.state.found
	if m.state.found {
		m.key = m.state.key
		if err := m.parseVersions(m.state.versions); err != nil {
			return err
		}
	}
	m.known = true
	return nil
}

// makeKey gives the row a key, and reports whether it had none.
func (m *rowMerge) makeKey() (bool, error) {
	st, err := m.e.statement(stmtFindOrNewKey, m.t, "")
	if err != nil {
		return false, err
	}
	key, made, err := st.insert(m.pk)
	if made {
		m.key = key
	}
	return made, err
}

// read reads the row's state, with its values where they are likely to be compared.
func (m *rowMerge) read(index int) error {
	values := m.wasTied && len(m.t.cols) > 0
	m.wasTied = false
	state := m.ahead.take(index)
	if state == nil {
		if err := m.readAhead(index, values); err != nil {
			return err
		}
		state = m.ahead.take(index)
	}
	if state != nil {
		m.state, *state = *state, m.state // and its buffer
		return nil
	}
	kind := stmtRowClocks
	if values {
		kind = stmtRowState
	}
	st, err := m.e.statement(kind, m.t, "")
	if err != nil {
		return err
	}
	row, found, err := st.first(m.pk...)
	m.state.found = found && err == nil
	if !m.state.found {
		return err
	}
	m.state.key, m.state.versions = toInt64(row[1]), toText(row[2])
	if values {
		m.state.setValues(row[4:], toInt64(row[3]) == 1)
	}
	return nil
}

// packedVersions is all col_versions of a row as one text, which parseVersions reads: one row is read faster than many.
const packedVersions = "group_concat(col_version||' '||col_name, char(0))"

// parseVersions reads the row's clocks from a text of packedVersions.
func (m *rowMerge) parseVersions(packed string) error {
	for packed != "" {
		var text string
		text, packed, _ = strings.Cut(packed, "\x00")
		number, name, _ := strings.Cut(text, " ")
		version, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return fmt.Errorf("a clock of table %q is damaged: %w", m.t.name, err)
		}
		m.rowClocks.set(m.t, name, version)
	}
	return nil
}

// set notes that the column or sentinel has a clock.
func (r *rowClocks) set(t *table, name string, version int64) {
	if name == changeset.SentinelCID {
		r.cl = version
		return
	}
	if i, ok := t.column[name]; ok {
		r.cells[i].clocked, r.cells[i].version = true, version
	}
	if r.cl == 0 {
		r.cl = 1 // a row without a sentinel; the sentinel, if there is one, comes before or after this
	}
}

// dropKey undoes makeKey if no change has used the key.
func (m *rowMerge) dropKey() error {
	if !m.made {
		return nil
	}
	m.known, m.made = false, false
	return m.e.runLocal(stmtDropKey, m.t, "", m.key)
}

// merge merges the changes and returns how many rows of crsql_changes were impacted, and the changes that are out of
// bounds. When the table refuses, the changes since the last flush are not merged and the error is a refusal.
func (m *rowMerge) merge(run []changeset.Change, offset int) (impacted int64, failed ChangeErrors, err error) {
	if err := m.load(offset); err != nil {
		return 0, nil, err
	}
	for i := 0; i < len(run) && err == nil; i++ {
		c := &run[i]
		action, reason := m.decide(c)
		if reason != "" {
			failed = append(failed, refuse(c, offset+i, reason, nil))
			continue
		}
		if m.mustFlush(c, action) {
			err = m.flush(&impacted)
		}
		if err == nil && action == changeset.ActionCompare {
			action, err = m.compare(c)
		}
		if err == nil {
			m.take(c, action)
		}
	}
	if err == nil {
		err = m.flush(&impacted)
	}
	// A change that loses makes its key known all the same: the stock engine's rule. One that is refused leaves nothing.
	switch {
	case m.refused(err) || err == nil && len(failed) == len(run):
		err = errors.Join(err, m.dropKey())
	case err == nil && m.key == 0:
		m.key, err = m.e.newKey(m.t, m.pk)
	}
	m.fresh, m.made = false, false
	if err != nil {
		m.known = false
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
		return 0, noColumn
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

// compare decides a tie of versions. To a row that is gone the change is written.
func (m *rowMerge) compare(c *changeset.Change) (changeset.Action, error) {
	m.wasTied = true
	if !m.state.valued {
		st, err := m.e.statement(stmtValues, m.t, m.t.all)
		if err != nil {
			return 0, err
		}
		row, found, err := st.first(m.pk...)
		if err != nil {
			return 0, err
		}
		m.state.setValues(row, found)
	}
	if m.state.absent {
		return changeset.ActionWrite, nil
	}
	action := changeset.ResolveValue(m.state.values[m.t.column[c.CID]], m.e.mergeEqualValues(), c)
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
		m.del, m.zero = true, false
		m.setSentinel(c)
	case changeset.ActionCreate, changeset.ActionCreateAndWrite:
		m.zero = true
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
