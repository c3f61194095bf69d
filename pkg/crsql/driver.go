package crsql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"

	"github.com/mattn/go-sqlite3"
)

// DriverName is the name under which this package registers itself with database/sql.
const DriverName = "crsqlite"

func init() { sql.Register(DriverName, &Driver{}) }

// Driver opens connections to databases with CRRs. Its DSN is mattn/go-sqlite3's.
type Driver struct{}

// Open opens a connection, creating cr-sqlite's own tables if the database has none: a database that is read-only must
// have them already.
func (*Driver) Open(dsn string) (driver.Conn, error) {
	inner, err := (&sqlite3.SQLiteDriver{}).Open(dsn)
	if err != nil {
		return nil, err
	}
	sqlite := inner.(*sqlite3.SQLiteConn)
	e, err := newEngine(sqlite)
	if err != nil {
		return nil, errors.Join(err, sqlite.Close())
	}
	return &conn{sqlite: sqlite, engine: e}, nil
}

// engineOf returns the engine of a connection that sql.Conn.Raw hands out.
func engineOf(driverConn any) (*engine, error) {
	c, ok := driverConn.(*conn)
	if !ok {
		return nil, fmt.Errorf("a %T is no connection of the driver %q", driverConn, DriverName)
	}
	return c.engine, nil
}

// A conn is mattn's connection, with the engine told of each statement.
type conn struct {
	sqlite *sqlite3.SQLiteConn
	engine *engine
}

var (
	_ driver.Conn               = (*conn)(nil)
	_ driver.ConnBeginTx        = (*conn)(nil)
	_ driver.ConnPrepareContext = (*conn)(nil)
	_ driver.ExecerContext      = (*conn)(nil)
	_ driver.QueryerContext     = (*conn)(nil)
	_ driver.Pinger             = (*conn)(nil)
)

func (c *conn) Close() error {
	c.engine.finalize()
	return c.sqlite.Close()
}

func (c *conn) Ping(ctx context.Context) error { return c.sqlite.Ping(ctx) }

func (c *conn) Begin() (driver.Tx, error) { return c.BeginTx(context.Background(), driver.TxOptions{}) }

func (c *conn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	c.engine.outdate()
	inner, err := c.sqlite.BeginTx(ctx, opts)
	if err != nil {
		return nil, err
	}
	return &tx{inner: inner, engine: c.engine}, nil
}

func (c *conn) Prepare(query string) (driver.Stmt, error) {
	return c.PrepareContext(context.Background(), query)
}

func (c *conn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	t := readText(query)
	if t.changes { // the view must be there to be named
		if err := c.engine.enter(t); err != nil {
			return nil, err
		}
	}
	inner, err := c.sqlite.PrepareContext(ctx, query)
	if err != nil {
		c.engine.forget() // the view may be gone
		return nil, explain(err)
	}
	s := &stmt{SQLiteStmt: inner.(*sqlite3.SQLiteStmt), engine: c.engine, text: t}
	if t.merge {
		s.direct = readDirectMerge(query)
	}
	return s, nil
}

func (c *conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	t := readText(query)
	if err := c.engine.enter(t); err != nil {
		return nil, err
	}
	result, err := c.sqlite.ExecContext(ctx, query, args)
	c.engine.leave(t, err)
	return c.engine.counted(result), explain(err)
}

func (c *conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	t := readText(query)
	if err := c.engine.enter(t); err != nil {
		return nil, err
	}
	inner, err := c.sqlite.QueryContext(ctx, query, args)
	return wrapRows(inner, err, c.engine, t)
}

// counted is the result of a statement with the rows that it inserted into crsql_changes. SQLite does not count a view's.
func (e *engine) counted(result driver.Result) driver.Result {
	if e.merged == 0 || result == nil {
		return result
	}
	if n, err := result.RowsAffected(); err != nil || n != 0 {
		return result // a trigger inserted them
	}
	return countedResult{result, e.merged}
}

type countedResult struct {
	driver.Result
	rows int64
}

func (r countedResult) RowsAffected() (int64, error) { return r.rows, nil }

// A stmt is mattn's statement, with the engine told of each run.
type stmt struct {
	*sqlite3.SQLiteStmt
	engine *engine
	text   text
	direct *directMerge // nil: not one
}

func (s *stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	if s.direct != nil && !s.engine.sqlite.AutoCommit() {
		if change, ok := s.direct.change(args); ok {
			return s.engine.mergeDirect(ctx, s.text, change)
		}
	}
	if err := s.engine.enter(s.text); err != nil {
		return nil, err
	}
	result, err := s.SQLiteStmt.ExecContext(ctx, args)
	s.engine.leave(s.text, err)
	return s.engine.counted(result), explain(err)
}

func (s *stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	if err := s.engine.enter(s.text); err != nil {
		return nil, err
	}
	inner, err := s.SQLiteStmt.QueryContext(ctx, args)
	return wrapRows(inner, err, s.engine, s.text)
}

// Exec is ExecContext for callers older than contexts; database/sql is none of them.
func (s *stmt) Exec(args []driver.Value) (driver.Result, error) {
	return s.ExecContext(context.Background(), named(args))
}

// Query is QueryContext for callers older than contexts; database/sql is none of them.
func (s *stmt) Query(args []driver.Value) (driver.Rows, error) {
	return s.QueryContext(context.Background(), named(args))
}

func named(args []driver.Value) []driver.NamedValue {
	list := make([]driver.NamedValue, len(args))
	for i, arg := range args {
		list[i] = driver.NamedValue{Ordinal: i + 1, Value: arg}
	}
	return list
}

// rows are mattn's rows. A statement that returns rows may commit when it is closed.
type rows struct {
	*sqlite3.SQLiteRows
	engine *engine
	text   text
	closed bool
}

func wrapRows(inner driver.Rows, err error, e *engine, t text) (driver.Rows, error) {
	if err != nil {
		e.leave(t, err)
		return nil, explain(err)
	}
	return &rows{SQLiteRows: inner.(*sqlite3.SQLiteRows), engine: e, text: t}, nil
}

func (r *rows) Close() error {
	err := r.SQLiteRows.Close()
	if !r.closed {
		r.closed = true
		r.engine.leave(r.text, err)
	}
	return err
}

// A tx ends through mattn's connection, past conn.
type tx struct {
	inner  driver.Tx
	engine *engine
}

func (t *tx) Commit() error {
	t.engine.outdate()
	err := t.inner.Commit()
	t.engine.leave(text{}, err)
	return err
}

func (t *tx) Rollback() error {
	err := t.inner.Rollback()
	t.engine.leave(text{rollback: true}, err)
	return err
}

// A text is what the engine wants to know of a statement's text before it runs. It may see more than there is, in a
// comment or a string: then it does a little work for nothing.
type text struct {
	plain    bool // one statement that cannot change the schema by itself, nor begin or end a transaction
	merge    bool // inserts into crsql_changes
	changes  bool // names crsql_changes
	rollback bool // may undo a part of a transaction, of which SQLite tells nobody
	multi    bool // may hold several statements
}

func readText(query string) text {
	var t text
	for i := 0; i < len(query); i++ {
		switch query[i] {
		case 'c', 'C':
			t.changes = t.changes || hasFold(query[i:], "crsql_changes")
		case 'r', 'R':
			t.rollback = t.rollback || hasFold(query[i:], "rollback")
		case ';':
			t.multi = t.multi || strings.TrimSpace(query[i+1:]) != ""
		}
	}
	t.plain = !t.multi && plainVerb(query)
	t.merge = t.plain && hasFold(query, "INSERT INTO crsql_changes")
	return t
}

// plainVerb reports whether a statement begins with a verb that reads or writes rows. Behind a comment it need not see.
func plainVerb(query string) bool {
	query = strings.TrimLeft(query, " \t\r\n")
	for _, verb := range [...]string{"SELECT ", "INSERT ", "UPDATE ", "DELETE ", "REPLACE ", "VALUES", "WITH "} {
		if hasFold(query, verb) {
			return true
		}
	}
	return false
}

func hasFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}
