package crsql

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// alterSavepoint is the savepoint that crsql_begin_alter opens and crsql_commit_alter releases. SQLite keeps it between
// the two, with all that the user does there.
const alterSavepoint = "alter_crr"

// commitSavepoint is opened while crsql_commit_alter works.
const commitSavepoint = "crsql_commit_alter"

// beginAlter is crsql_begin_alter([schema,] table): until crsql_commit_alter the table has no triggers, and may be
// changed in any way, or be made anew. What is written to it meanwhile gets no clocks before the commit.
func (e *engine) beginAlter(args []any) (any, error) {
	name, err := e.alteredTable(args)
	if err != nil {
		return nil, err
	}
	if err := e.savepoint(alterSavepoint); err != nil {
		return nil, err
	}
	err = e.dropTriggers(name)
	if err == nil && !e.changes { // the same text may go on with ALTER TABLE
		err = e.dropView()
	}
	if err != nil {
		return nil, errors.Join(err, e.undo(alterSavepoint))
	}
	e.outdate()
	e.altering = append(e.altering, name)
	return "OK", nil
}

// commitAlter is crsql_commit_alter([schema,] table): it makes clocks and triggers fit the table as it is now. If that
// cannot be, everything since crsql_begin_alter is undone, and the rest of the transaction stays.
func (e *engine) commitAlter(args []any) (any, error) {
	name, err := e.alteredTable(args)
	if err != nil {
		return nil, err
	}
	notBegun := fmt.Errorf("there is no alteration of %q to commit, it was not begun or has been rolled back: "+
		"call SELECT crsql_begin_alter(%s) first", name, literal(name))
	if !slices.Contains(e.altering, name) { // or this would end that of another table
		return nil, notBegun
	}
	// SQLite refuses this while a statement writes, whose transaction must not be undone below.
	if err := e.savepoint(commitSavepoint); err != nil {
		return nil, err
	}
	err = e.refit(name)
	if err == nil {
		e.outdate()
		err = e.ensureView()
	}
	if err == nil {
		err = e.exec("RELEASE " + alterSavepoint)
	}
	if err == nil {
		e.closeAlter(name)
		return nil, nil
	}
	undone, undo := e.undoAlter(name)
	switch {
	case undo != nil:
		return nil, errors.Join(fmt.Errorf("%w; ROLLBACK the transaction, the alteration of %q could not be undone", err, name), undo)
	case undone:
		return nil, fmt.Errorf("%w; all since crsql_begin_alter(%s) has been undone, what the transaction did before stands",
			err, literal(name))
	}
	return nil, notBegun
}

// alteredTable returns the CRR that the arguments of crsql_begin_alter and crsql_commit_alter name. A CRR has clocks;
// the table itself may be missing for a while.
func (e *engine) alteredTable(args []any) (string, error) {
	given, err := tableArgument(args)
	if err != nil {
		return "", err
	}
	rows, err := e.query("SELECT name FROM main.sqlite_master WHERE type = 'table' AND name = ? COLLATE NOCASE", given+clockSuffix)
	if err != nil {
		return "", err
	}
	if len(rows) > 0 {
		name := toText(rows[0][0])
		return name[:len(name)-len(clockSuffix)], nil
	}
	rows, err = e.query("SELECT 1 FROM main.sqlite_master WHERE type = 'table' AND name = ? COLLATE NOCASE", given)
	if err != nil {
		return "", err
	}
	if len(rows) > 0 {
		return "", fmt.Errorf("the table %q is no CRR: alter it directly, or make it one with SELECT crsql_as_crr(%s)",
			given, literal(given))
	}
	return "", fmt.Errorf("there is no CRR %q: give the name of one", given)
}

// tableArgument reads the arguments ([schema,] table).
func tableArgument(args []any) (string, error) {
	if len(args) == 2 && !strings.EqualFold(toText(args[0]), "main") {
		return "", fmt.Errorf("only tables of the main database can be CRRs, not those of %q", toText(args[0]))
	}
	if len(args) != 1 && len(args) != 2 {
		return "", errors.New("give the name of the table, or \"main\" and the name")
	}
	return toText(args[len(args)-1]), nil
}

// undoAlter goes back to the crsql_begin_alter of a table and reports whether there was one. The alterations of other
// tables that began later are undone with it.
func (e *engine) undoAlter(name string) (bool, error) {
	if err := e.undo(commitSavepoint); err != nil {
		return false, err
	}
	for undone := false; ; undone = true {
		if err := e.exec("ROLLBACK TO " + alterSavepoint); err != nil && strings.Contains(err.Error(), "no such savepoint") {
			return undone, nil
		}
		if err := e.undo(alterSavepoint); err != nil {
			return true, err
		}
		if triggers, err := e.hasTriggers(name); err != nil || triggers {
			return true, err
		}
	}
}

// closeAlter forgets that the table is being altered.
func (e *engine) closeAlter(name string) {
	if i := slices.Index(e.altering, name); i >= 0 {
		e.altering = slices.Delete(e.altering, i, i+1)
	}
}

// checkAlters refuses to end a transaction that leaves a table without its triggers.
func (e *engine) checkAlters() error {
	for _, name := range e.altering {
		rows, err := e.query("SELECT 1 FROM main.sqlite_master WHERE type = 'table' AND name = ?", name+clockSuffix)
		if err != nil {
			return err
		}
		triggers, err := e.hasTriggers(name) // where the alteration was rolled back
		if err != nil {
			return err
		}
		if len(rows) > 0 && !triggers {
			return fmt.Errorf("the alteration of %q was begun and not committed, so nothing was written: "+
				"call SELECT crsql_commit_alter(%s) in the same transaction", name, literal(name))
		}
	}
	return nil
}

// hasTriggers reports whether a CRR's writes are noticed.
func (e *engine) hasTriggers(name string) (bool, error) {
	rows, err := e.query("SELECT 1 FROM main.sqlite_master WHERE type = 'trigger' AND name = ? COLLATE NOCASE", name+"__crsql_itrig")
	return len(rows) > 0, err
}

func (e *engine) dropTriggers(name string) error {
	for _, sql := range dropTriggersSQL(name) {
		if err := e.exec(sql); err != nil {
			return err
		}
	}
	return nil
}

// refit makes the clocks and triggers of a CRR fit the table after it has been changed.
//
// The stock engine gives the clocks that are new the current db_version. Peers have seen that far, and never get what was
// written during the alteration. Here they are new writes.
func (e *engine) refit(name string) error {
	e.outdate()
	if _, err := e.eligible(name); err != nil {
		return err
	}
	t, err := e.readTable(name)
	if err != nil {
		return err
	}
	if err := e.keepVersion(); err != nil {
		return err
	}
	// The stock engine records the version upon each alteration, also 0.
	if err := e.exec("INSERT OR IGNORE INTO main.crsql_master VALUES ('pre_compact_dbversion', 0)"); err != nil {
		return err
	}
	moved, err := e.keyChanged(t)
	if err != nil {
		return err
	}
	sql := compactSQL(t)
	if moved { // every row has become another
		sql = []string{"DROP TABLE IF EXISTS " + t.clock(), "DROP TABLE IF EXISTS " + t.keys()}
	}
	sql = append(sql, dropTriggersSQL(name)...)
	for _, sql := range append(sql, t.schemaSQL()...) {
		if err := e.exec(sql); err != nil {
			return err
		}
	}
	e.outdate()
	return e.backfill(t)
}

// keyChanged reports whether the columns of the primary key are others than those that the clocks were made for.
func (e *engine) keyChanged(t *table) (bool, error) {
	rows, err := e.query("SELECT name FROM pragma_index_info(?, 'main')", t.name+pksSuffix+"_pks")
	if err != nil {
		return false, err
	}
	known := make(map[string]bool)
	for _, row := range rows {
		known[toText(row[0])] = true
	}
	for _, pk := range t.pks {
		if !known[pk] {
			return true, nil
		}
	}
	return len(known) != len(t.pks), nil
}

// compactSQL returns what removes the clocks of columns and rows that t has no more. The sentinels of deleted rows stay.
func compactSQL(t *table) []string {
	cols := []string{sentinel}
	for _, col := range t.cols {
		cols = append(cols, literal(col))
	}
	return []string{
		"DELETE FROM " + t.clock() + " WHERE col_name NOT IN (" + strings.Join(cols, ", ") + ")",
		"DELETE FROM " + t.clock() + " AS c WHERE (col_name <> " + sentinel + " OR col_version % 2 <> 0) AND NOT EXISTS (SELECT 1" +
			t.fromRowsWithKeys() + " WHERE k.__crsql_key = c.key)",
		"DELETE FROM " + t.keys() + " WHERE __crsql_key NOT IN (SELECT key FROM " + t.clock() + ")",
	}
}

// missingClock returns the query for the keys of rows that hold a value in col which is not its default and has no clock.
func (e *engine) missingClock(t *table, col string) (string, []driver.Value, error) {
	sql := "SELECT " + idents("+t.", t.pks, ", ") + t.fromRowsWithKeys() + " LEFT JOIN " + t.clock() +
		" AS c ON c.key = k.__crsql_key AND c.col_name = " + literal(col) + " WHERE c.key IS NULL"
	rows, err := e.query(`SELECT "notnull", dflt_value FROM pragma_table_info(?, 'main') WHERE name = ?`, t.name, col)
	if err != nil {
		return "", nil, err
	}
	notNull, text := rows[0][0], rows[0][1]
	if text == nil && notNull != int64(0) {
		return sql, nil, nil
	}
	var value driver.Value
	if text != nil {
		if value, err = e.defaultValue(toText(text)); err != nil {
			return "", nil, fmt.Errorf("the default of column %q of %q: %w", col, t.name, err)
		}
	}
	// A collation may take another value for the default.
	return sql + " AND t." + ident(col) + " COLLATE BINARY IS NOT ?", []driver.Value{value}, nil
}

// defaultValue returns what a default in the words of pragma_table_info stands for.
func (e *engine) defaultValue(text string) (driver.Value, error) {
	scanner := newSQLScanner(text)
	kind, token, err := scanner.significant()
	if err != nil {
		return nil, err
	}
	if _, _, err := scanner.significant(); err != nil { // a single token
		switch word := strings.ToUpper(token); {
		case kind == tokenQuoted: // of any kind: DEFAULT "x" is a text
			return unquote(token), nil
		case kind == tokenWord && token[0] >= '0' && token[0] <= '9':
		case word == "NULL" || word == "TRUE" || word == "FALSE" || strings.HasPrefix(word, "CURRENT_"):
		case kind == tokenWord: // DEFAULT x, too
			return token, nil
		}
	}
	rows, err := e.query("SELECT " + text)
	if err != nil {
		return nil, err
	}
	return rows[0][0], nil
}
