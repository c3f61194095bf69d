package crsql

import (
	"database/sql/driver"
	"fmt"
	"slices"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// The triggers of a CRR call these after each local write. They write the row's clocks.

// localTable returns the CRR that a trigger names.
func (e *engine) localTable(args []any) (*table, error) {
	if len(args) == 0 {
		return nil, fmt.Errorf("a CRR's trigger passes the table and the row's values; give them, or call SELECT crsql_as_crr(table)")
	}
	if err := e.refresh(); err != nil {
		return nil, err
	}
	name := toText(args[0])
	t := e.tables[name]
	if t == nil {
		return nil, fmt.Errorf("the table %s is no CRR: call SELECT crsql_as_crr with its name first", nameText(name))
	}
	return t, nil
}

// afterInsert is crsql_after_insert(table, primary key...).
func (e *engine) afterInsert(args []any) error {
	t, err := e.localTable(args)
	if err != nil {
		return err
	}
	pk, err := t.partition(args[1:], len(t.pks))
	if err != nil {
		return err
	}
	if err := checkKey(pk); err != nil {
		return err
	}
	version, err := e.nextVersion(0)
	if err != nil {
		return err
	}
	key, existed, err := e.findOrNewKey(t, pk)
	if err != nil {
		return err
	}
	if len(t.cols) == 0 {
		return e.runLocal(stmtCreated, t, "", key, version, e.nextSeq(1))
	}
	if existed {
		if err := e.runLocal(stmtRecreated, t, "", key, version, e.nextSeq(1)); err != nil {
			return err
		}
	}
	kind := stmtInsertedNew
	if existed {
		kind = stmtInserted
	}
	return e.runLocal(kind, t, t.all, key, version, e.nextSeq(len(t.cols)))
}

// afterDelete is crsql_after_delete(table, primary key...).
func (e *engine) afterDelete(args []any) error {
	t, err := e.localTable(args)
	if err != nil {
		return err
	}
	pk, err := t.partition(args[1:], len(t.pks))
	if err != nil {
		return err
	}
	if err := checkNotNull(pk); err != nil {
		return err
	}
	version, err := e.nextVersion(0)
	if err != nil {
		return err
	}
	key, err := e.findKey(t, pk, true)
	if err != nil {
		return err
	}
	if err := e.runLocal(stmtDeleted, t, "", key, version, e.nextSeq(1)); err != nil {
		return err
	}
	return e.runLocal(stmtDropClocks, t, "", key)
}

// afterUpdate is crsql_after_update(table, new key..., old key..., new columns..., old columns...).
func (e *engine) afterUpdate(args []any) error {
	t, err := e.localTable(args)
	if err != nil {
		return err
	}
	keys, cols := len(t.pks), len(t.cols)
	values, err := t.partition(args[1:], 2*keys+2*cols)
	if err != nil {
		return err
	}
	newPK, oldPK, newCols, oldCols := values[:keys], values[keys:2*keys], values[2*keys:2*keys+cols], values[2*keys+cols:]
	if err := checkNotNull(values[:2*keys]); err != nil {
		return err
	}
	moved := !slices.EqualFunc(newPK, oldPK, same)
	if moved {
		if err := checkKey(newPK); err != nil {
			return err
		}
	}
	changed, last := 0, ""
	for i, name := range t.cols {
		if !same(newCols[i], oldCols[i]) {
			changed, last = changed+1, name
		}
	}
	if changed == 0 && !moved { // an update that changes nothing is no version
		_, err := e.findKey(t, newPK, true)
		return err
	}
	version, err := e.nextVersion(0)
	if err != nil {
		return err
	}
	if changed == 1 && !moved { // most updates: one statement, not two
		if done, err := e.touch(t, last, newPK, version); done || err != nil {
			return err
		}
	}
	key, err := e.findKey(t, newPK, true)
	if err != nil {
		return err
	}
	if moved {
		return e.moveRow(t, key, oldPK, newCols, oldCols, version)
	}
	for i, name := range t.cols {
		if !same(newCols[i], oldCols[i]) {
			if err := e.runLocal(stmtUpdated, t, name, key, version, e.nextSeq(1)); err != nil {
				return err
			}
		}
	}
	return nil
}

// touch records a write to a column that has a clock. It returns false if it has none.
func (e *engine) touch(t *table, col string, pk []driver.Value, version int64) (bool, error) {
	st, err := e.statement(stmtUpdatedOne, t, col)
	if err != nil {
		return false, err
	}
	n, err := st.update(append([]driver.Value{version, e.seq}, pk...))
	if n > 0 {
		e.nextSeq(1)
	}
	return n > 0, stepped(err, col, false)
}

// moveRow records that the row of oldPK has become the row of key: a delete and a create, and the clocks move.
//
// The stock engine moves them with their db_version, so that peers which have seen that far never get the values at the
// new key. Here they are new writes. And where a row stood at the new key before, each version goes above that row's,
// or the moved value would lose against it on other databases.
func (e *engine) moveRow(t *table, key int64, oldPK, newCols, oldCols []driver.Value, version int64) error {
	oldKey, err := e.findKey(t, oldPK, true)
	if err != nil {
		return err
	}
	moved, err := e.readClocks(t, oldKey)
	if err != nil {
		return err
	}
	target, err := e.readClocks(t, key)
	if err != nil {
		return err
	}
	if err := e.runLocal(stmtDeleted, t, "", oldKey, version, e.nextSeq(1)); err != nil {
		return fmt.Errorf("at the key that it leaves: %w", err)
	}
	if err := e.runLocal(stmtDropClocks, t, "", oldKey); err != nil {
		return err
	}
	if err := e.runLocal(stmtCreated, t, "", key, version, e.nextSeq(1)); err != nil {
		return err
	}
	for i, name := range t.cols {
		have, replaced := moved.cells[i], target.cells[i]
		changed := !same(newCols[i], oldCols[i])
		if !have.clocked && !replaced.clocked && !changed {
			continue // nobody ever wrote it: the default, there as here
		}
		colVersion, err := movedVersion(name, have, replaced, changed)
		if err != nil {
			return err
		}
		if err := e.runLocal(stmtSetClock, t, name, key, colVersion, version, e.nextSeq(1)); err != nil {
			return err
		}
	}
	return nil
}

// partition returns the arguments of a trigger's call as values to bind, and checks their number.
func (t *table) partition(args []any, want int) ([]driver.Value, error) {
	if len(args) != want {
		return nil, fmt.Errorf("the triggers of %s do not fit its columns any more (%d values, not %d): the table was altered without crsql_begin_alter",
			nameText(t.name), len(args), want)
	}
	values := make([]driver.Value, want)
	for i, arg := range args {
		values[i] = arg
	}
	return values, nil
}

// same reports whether two values of a row are one for the clocks: the same kind and equal.
func same(a, b driver.Value) bool { return changeset.Compare(fromDriver(a), fromDriver(b)) == 0 }

// runLocal runs a statement on a row's clocks. cols is the name of a column, or marks several.
func (e *engine) runLocal(kind statementKind, t *table, cols string, params ...int64) error {
	st, err := e.statement(kind, t, cols)
	if err != nil {
		return err
	}
	var buf [4]driver.Value
	args := buf[:0]
	for _, p := range params {
		args = append(args, p)
	}
	switch err := st.exec(args...); kind {
	case stmtInserted:
		return stepped(err, "", false)
	case stmtUpdated:
		return stepped(err, cols, false)
	case stmtCreated, stmtRecreated, stmtDeleted:
		return stepped(err, "", true)
	default:
		return err
	}
}

// findKey returns the short key of a primary key. If there is none it creates one, or returns 0 where create is false.
func (e *engine) findKey(t *table, pk []driver.Value, create bool) (int64, error) {
	st, err := e.statement(stmtFindKey, t, "")
	if err != nil {
		return 0, err
	}
	key, found, err := st.int64(pk...)
	if err != nil || found || !create {
		return key, err
	}
	return e.newKey(t, pk)
}

func (e *engine) newKey(t *table, pk []driver.Value) (int64, error) {
	st, err := e.statement(stmtNewKey, t, "")
	if err != nil {
		return 0, err
	}
	key, _, err := st.insert(pk)
	return key, err
}

// findOrNewKey is findKey for a key that is likely to be new.
func (e *engine) findOrNewKey(t *table, pk []driver.Value) (key int64, existed bool, err error) {
	st, err := e.statement(stmtFindOrNewKey, t, "")
	if err != nil {
		return 0, false, err
	}
	key, created, err := st.insert(pk)
	if err != nil || created {
		return key, false, err
	}
	key, err = e.findKey(t, pk, true)
	return key, true, err
}
