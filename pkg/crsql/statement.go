package crsql

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"

	"github.com/mattn/go-sqlite3"
)

// maxStatements bounds the prepared statements that an engine keeps. Beyond it the one unused for longest is closed.
const maxStatements = 512

// A statement is prepared SQL on the engine's own connection. It runs inside function callbacks too.
type statement struct {
	sqlite *sqlite3.SQLiteStmt
	args   []driver.NamedValue
	row    []driver.Value
	busy   bool // running, further up the stack
	closed bool // to be closed when it has run
	used   uint64
}

func prepare(c *sqlite3.SQLiteConn, sql string) (*statement, error) {
	s, err := c.Prepare(sql)
	if err != nil {
		return nil, err
	}
	st := &statement{sqlite: s.(*sqlite3.SQLiteStmt)}
	st.args = make([]driver.NamedValue, st.sqlite.NumInput())
	for i := range st.args {
		st.args[i].Ordinal = i + 1
	}
	return st, nil
}

// each runs the statement and calls f for each row of it. The row is valid during the call only.
func (st *statement) each(args []driver.Value, f func(row []driver.Value) error) (err error) {
	if err := st.bind(args); err != nil {
		return err
	}
	st.busy = true
	defer st.done()
	rows, err := st.sqlite.QueryContext(context.Background(), st.args)
	if err != nil {
		return err
	}
	defer func() {
		if closing := rows.Close(); err == nil {
			err = closing
		}
	}()
	if st.row == nil {
		st.row = make([]driver.Value, len(rows.Columns()))
	}
	for len(st.row) > 0 {
		if err := rows.Next(st.row); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if err := f(st.row); err != nil {
			return err
		}
	}
	return nil
}

func (st *statement) bind(args []driver.Value) error {
	if st.busy {
		return ErrBusy
	}
	if st.closed { // mattn would hand SQLite a null pointer
		return errors.New("internal: a statement was used after it was closed")
	}
	if len(args) != len(st.args) {
		return fmt.Errorf("internal: a statement with %d parameters was given %d", len(st.args), len(args))
	}
	for i, arg := range args {
		st.args[i].Value = arg
	}
	return nil
}

// update runs a statement that writes and returns how many rows it has written.
func (st *statement) update(args []driver.Value) (int64, error) {
	result, err := st.write(args)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// write runs a statement that returns no rows.
func (st *statement) write(args []driver.Value) (driver.Result, error) {
	if err := st.bind(args); err != nil {
		return nil, err
	}
	st.busy = true
	defer st.done()
	return st.sqlite.ExecContext(context.Background(), st.args)
}

// insert runs an INSERT of one row and returns its rowid, or false if OR IGNORE left it out. It costs less than RETURNING.
func (st *statement) insert(args []driver.Value) (int64, bool, error) {
	result, err := st.write(args)
	if err != nil {
		return 0, false, err
	}
	n, err := result.RowsAffected()
	if err != nil || n == 0 {
		return 0, false, err
	}
	id, err := result.LastInsertId()
	return id, true, err
}

// errStop ends each without being an error.
var errStop = errors.New("stop")

// exec runs the statement to its end.
func (st *statement) exec(args ...driver.Value) error {
	return st.each(args, func([]driver.Value) error { return nil })
}

// first runs the statement up to its first row and reports whether there was one. The row is valid until the next run.
func (st *statement) first(args ...driver.Value) ([]driver.Value, bool, error) {
	found := false
	err := st.each(args, func([]driver.Value) error { found = true; return errStop })
	if err != nil && err != errStop {
		return nil, false, err
	}
	return st.row, found, nil
}

// int64 returns the first column of the first row; 0 and false if there is none or it is no integer.
func (st *statement) int64(args ...driver.Value) (int64, bool, error) {
	row, ok, err := st.first(args...)
	if err != nil || !ok {
		return 0, false, err
	}
	n, ok := row[0].(int64)
	return n, ok, nil
}

// done notes that the statement runs no more.
func (st *statement) done() {
	st.busy = false
	if st.closed {
		st.close()
	}
}

// close closes the statement: at the end of its run, if it is running.
func (st *statement) close() {
	st.closed = true
	if !st.busy {
		_ = st.sqlite.Close() // of a statement that is reset: it can report its last error only
	}
}

// A statementKey names a prepared statement: what it does, to which table and which columns of it.
type statementKey struct {
	kind  statementKind
	table *table
	cols  string
}

// statements holds an engine's prepared statements.
type statements struct {
	conn  *sqlite3.SQLiteConn
	byKey map[statementKey]*statement
	clock uint64
}

// get returns the statement named by key, preparing what sql returns if it is not there yet.
func (s *statements) get(key statementKey, sql func() string) (*statement, error) {
	s.clock++
	if st := s.byKey[key]; st != nil {
		st.used = s.clock
		return st, nil
	}
	if len(s.byKey) >= maxStatements {
		s.evict()
	}
	st, err := prepare(s.conn, sql())
	if err != nil {
		return nil, err
	}
	if s.byKey == nil {
		s.byKey = make(map[statementKey]*statement)
	}
	st.used = s.clock
	s.byKey[key] = st
	return st, nil
}

// evict closes the older half, so that the search for it is paid for rarely.
func (s *statements) evict() {
	for key, st := range s.byKey {
		if !st.busy && s.clock-st.used > maxStatements/2 {
			st.close()
			delete(s.byKey, key)
		}
	}
}

// release closes all statements.
func (s *statements) release() {
	for _, st := range s.byKey {
		st.close()
	}
	clear(s.byKey)
}
