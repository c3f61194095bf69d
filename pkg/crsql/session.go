package crsql

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// A session is one connection of a DB. One goroutine uses it at a time: whoever took it from its pool.
type session struct {
	conn        *conn
	engine      *engine
	dataVersion int64 // of the last look, for changedByOthers
}

// openSession opens a connection and sets it up with pragmas, each a statement.
func openSession(ctx context.Context, dsn string, pragmas ...string) (*session, error) {
	opened, err := (&Driver{}).Open(dsn)
	if err != nil {
		return nil, err
	}
	s := &session{conn: opened.(*conn), engine: opened.(*conn).engine}
	for _, pragma := range pragmas {
		if err := s.run(ctx, "PRAGMA "+pragma); err != nil {
			return nil, errors.Join(fmt.Errorf("PRAGMA %s: %w", pragma, err), s.close())
		}
	}
	return s, nil
}

func (s *session) close() error { return s.conn.Close() }

// run executes statements without parameters, as the connection's user would.
func (s *session) run(ctx context.Context, sql string) error {
	_, err := s.conn.ExecContext(ctx, sql, nil)
	return err
}

// rollback ends the open transaction, if there is one: SQLite ends it itself upon some errors.
func (s *session) rollback() error {
	if s.conn.sqlite.AutoCommit() {
		return nil
	}
	return s.run(context.Background(), "ROLLBACK") // also after the caller's context has ended
}

// within runs f, whose statements are interrupted when ctx ends: then it fails. What the last user may have turned off
// is on.
func (s *session) within(ctx context.Context, f func() error) error {
	s.engine.syncBit = 0
	w := s.conn.interrupter.watch(ctx)
	defer w.stop()
	if err := f(); err != nil {
		return interrupted(ctx, err)
	}
	return ctx.Err() // an interruption may have passed for something else
}

// inTransaction returns errTxGone if the transaction that was begun is no more.
func (s *session) inTransaction() error {
	if s.conn.sqlite.AutoCommit() {
		return errTxGone
	}
	return nil
}

// changedByOthers reports whether another connection has committed since it was asked last.
func (s *session) changedByOthers() (bool, error) {
	version, err := s.engine.pragma(stmtDataVersion, "PRAGMA main.data_version")
	if err != nil {
		return false, err
	}
	changed := version != s.dataVersion
	s.dataVersion = version
	return changed, nil
}

// current makes the engine look whether the schema is still the one that it knows. It is called at the start of
// each transaction, before the engine's statements are used.
func (s *session) current() error {
	s.engine.outdate()
	s.engine.multi = false
	return s.engine.refresh()
}

// text returns the first column of the first row of sql, if it is a text.
func (e *engine) text(sql string) (string, bool, error) {
	rows, err := e.query(sql)
	if err != nil || len(rows) == 0 {
		return "", false, err
	}
	s, ok := rows[0][0].(string)
	return s, ok, nil
}

// prepare prepares a user's statement, and checks that it gets as many arguments as it has parameters.
func (s *session) prepare(ctx context.Context, sql string, args []changeset.Value) (*stmt, error) {
	prepared, err := s.conn.PrepareContext(ctx, sql)
	if err != nil {
		return nil, err
	}
	st := prepared.(*stmt)
	if n := st.NumInput(); n != len(args) {
		return nil, errors.Join(fmt.Errorf("the statement has %d parameters, and was given %d values", n, len(args)), st.Close())
	}
	return st, nil
}

// each runs a statement and calls f with each row, which f may keep. It returns the names of the columns.
func (s *session) each(ctx context.Context, st *stmt, args []changeset.Value, f func(row []changeset.Value) error) (names []string, err error) {
	opened, err := st.QueryContext(ctx, driverArgs(args))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, opened.Close()) }()
	// mattn converts values by the declared type of their column: a DATE becomes a time. This is the slice that it looks
	// the types up in; without them values stay what they are.
	clear(opened.(*rows).DeclTypes())
	names = opened.Columns()
	raw := make([]driver.Value, len(names))
	for len(raw) > 0 {
		if err := opened.Next(raw); err != nil {
			if errors.Is(err, io.EOF) {
				break
			}
			return nil, err
		}
		row := make([]changeset.Value, len(raw))
		for i, v := range raw {
			row[i] = fromDriver(v)
		}
		if err := f(row); err != nil {
			return nil, err
		}
	}
	return names, nil
}

func driverArgs(args []changeset.Value) []driver.NamedValue {
	list := make([]driver.NamedValue, len(args))
	for i, v := range args {
		list[i] = driver.NamedValue{Ordinal: i + 1, Value: toDriver(v)}
	}
	return list
}

// A cursor is a statement of the engine's in the middle of its rows.
type cursor struct {
	st   *statement
	rows driver.Rows
	row  []driver.Value // the current one, valid until the next call
}

// openCursor runs the statement named by key, which must not be running. The caller closes the cursor.
func (e *engine) openCursor(key statementKey, sql func() string, args ...driver.Value) (*cursor, error) {
	st, err := e.stmts.get(key, sql)
	if err != nil {
		return nil, err
	}
	if st.busy || st.closed || len(args) != len(st.args) {
		return nil, errors.New("internal: a statement is running already, or was given a wrong number of parameters")
	}
	for i, arg := range args {
		st.args[i].Value = arg
	}
	opened, err := st.sqlite.QueryContext(context.Background(), st.args)
	if err != nil {
		return nil, err
	}
	if st.row == nil {
		st.row = make([]driver.Value, len(opened.Columns()))
	}
	st.busy = true // nobody may close it, or run it
	return &cursor{st: st, rows: opened, row: st.row}, nil
}

// next moves to the next row, and reports whether there is one.
func (c *cursor) next() (bool, error) {
	err := c.rows.Next(c.row)
	if errors.Is(err, io.EOF) {
		return false, nil
	}
	return err == nil, err
}

func (c *cursor) close() error {
	err := c.rows.Close()
	c.st.done()
	return err
}
