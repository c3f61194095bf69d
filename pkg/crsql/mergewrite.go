package crsql

import (
	"database/sql/driver"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// flush writes what the changes so far have won, and adds to impacted how many rows of crsql_changes that were. The base
// table comes first: if it refuses, nothing has been written.
func (m *rowMerge) flush(impacted *int64) error {
	if m.impacted == 0 {
		return nil
	}
	dirty := m.mark()
	if err := m.writeRow(dirty); err != nil {
		if m.e.refusable(err) {
			err = refusal{err}
		}
		return err
	}
	m.half = true
	if err := m.writeClocks(); err != nil {
		return err
	}
	m.half = false
	*impacted += m.impacted
	m.clean()
	m.fresh, m.made = false, false
	m.state.valued = false // triggers may have changed any of them
	m.ahead.written()
	return nil
}

// clean forgets what was to be written.
func (m *rowMerge) clean() {
	m.del, m.zero, m.sentinel, m.impacted = false, false, false, 0
	for i := range m.cells {
		m.cells[i].dirty = false
		m.cells[i].value = changeset.Value{}
	}
}

// mark marks the dirty columns and the sentinel in m.cols, and returns how many columns are dirty.
func (m *rowMerge) mark() int {
	m.cols = append(m.cols[:0], make([]byte, len(m.cells)+1)...)
	dirty := 0
	for i := range m.cells {
		if m.cells[i].dirty {
			m.cols[i] = 1
			dirty++
		}
	}
	if m.sentinel {
		m.cols[len(m.cells)] = 1
	}
	return dirty
}

// writeRow writes the base table.
func (m *rowMerge) writeRow(dirty int) error {
	kind, cols := stmtMergeCreate, ""
	m.args = append(m.args[:0], m.pk...)
	switch {
	case m.del:
		kind = stmtMergeDelete
	case dirty > 0:
		kind, cols = stmtMergeWrite, string(m.cols[:len(m.cells)])
		for i := range m.cells {
			if m.cells[i].dirty {
				m.args = append(m.args, toDriver(m.cells[i].value))
			}
		}
	}
	st, err := m.e.statement(kind, m.t, cols)
	if err != nil {
		return err
	}
	return st.exec(m.args...)
}

// writeClocks writes the row's clocks under this transaction's version.
func (m *rowMerge) writeClocks() error {
	version, err := m.e.nextVersion(m.dbVersion)
	if err != nil {
		return err
	}
	if m.key == 0 {
		if m.key, err = m.e.newKey(m.t, m.pk); err != nil {
			return err
		}
	}
	if m.zero && !m.fresh {
		if err := m.e.runLocal(stmtMergeZero, m.t, "", m.key, version); err != nil {
			return err
		}
	}
	m.args = append(m.args[:0], m.key, version)
	for i := range m.cells {
		if c := &m.cells[i]; c.dirty {
			if err := m.addClock(c.version, c.site, c.seq); err != nil {
				return err
			}
		}
	}
	if m.sentinel {
		if err := m.addClock(m.cl, m.sentinelSite, m.sentinelSeq); err != nil {
			return err
		}
	}
	kind := stmtMergeClocks
	if m.fresh {
		kind = stmtMergeClocksNew
	}
	st, err := m.e.statement(kind, m.t, string(m.cols))
	if err != nil {
		return err
	}
	if err := st.exec(m.args...); err != nil {
		return err
	}
	if m.del {
		return m.e.runLocal(stmtDropClocks, m.t, "", m.key)
	}
	return nil
}

func (m *rowMerge) addClock(version int64, site changeset.SiteID, seq int64) error {
	ordinal, err := m.e.ordinal(site)
	m.args = append(m.args, version, ordinal, seq)
	return err
}

// maxOrdinals bounds the sites whose ordinals an engine remembers. Beyond it all are looked up anew.
const maxOrdinals = 65536

// ordinal returns the number that stands for a site in this database's clocks, giving it one if it has none. An empty
// site is this database.
func (e *engine) ordinal(site changeset.SiteID) (int64, error) {
	if site == "" || site == e.siteID {
		return 0, nil
	}
	if n, ok := e.ordinals[site]; ok {
		return n, nil
	}
	find, err := e.stmts.get(statementKey{kind: stmtSiteOrdinal}, func() string {
		return "SELECT ordinal FROM main.crsql_site_id WHERE site_id = ?"
	})
	if err != nil {
		return 0, err
	}
	id := driver.Value([]byte(site))
	n, found, err := find.int64(id)
	if err != nil {
		return 0, err
	}
	if !found {
		add, err := e.stmts.get(statementKey{kind: stmtNewSite}, func() string {
			return "INSERT INTO main.crsql_site_id (site_id) VALUES (?) RETURNING ordinal"
		})
		if err != nil {
			return 0, err
		}
		if n, _, err = add.int64(id); err != nil {
			return 0, err
		}
	}
	if len(e.ordinals) >= maxOrdinals {
		clear(e.ordinals)
	}
	if e.ordinals == nil {
		e.ordinals = make(map[changeset.SiteID]int64)
	}
	e.ordinals[site] = n
	return n, nil
}
