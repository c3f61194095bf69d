package crsql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/mattn/go-sqlite3"
)

// DriverName is the name under which this package registers itself with database/sql.
const DriverName = "crsqlite"

func init() { sql.Register(DriverName, &Driver{}) }

// Driver opens connections to databases with CRRs. Its DSN is mattn/go-sqlite3's, save _mutex=no.
//
// It keeps database/sql's conventions: a call returns soon after its context has ended, having changed nothing, unless
// it waits for another connection's lock, which takes the busy timeout. A connection that goes back to the pool leaves
// no transaction open and has its triggers on. A read-only transaction cannot write.
type Driver struct{}

// Open opens a connection, creating cr-sqlite's own tables if the database has none: a database that is read-only must
// have them already.
func (*Driver) Open(dsn string) (driver.Conn, error) {
	if err := checkDSN(dsn); err != nil {
		return nil, err
	}
	inner, err := (&sqlite3.SQLiteDriver{}).Open(dsn)
	if err != nil {
		return nil, err
	}
	sqlite := inner.(*sqlite3.SQLiteConn)
	e, err := newEngine(sqlite)
	if err != nil {
		return nil, errors.Join(err, sqlite.Close())
	}
	i, err := newInterrupter(sqlite)
	if err != nil {
		return nil, errors.Join(err, sqlite.Close())
	}
	return &conn{sqlite: sqlite, engine: e, interrupter: i}, nil
}

// checkDSN refuses a connection that two goroutines cannot use at once: an interrupter has to.
func checkDSN(dsn string) error {
	_, query, _ := strings.Cut(dsn, "?")
	params, err := url.ParseQuery(query)
	if err == nil && params.Get("_mutex") == "no" {
		err = errors.New("_mutex=no is not supported, statements could not be cancelled: leave it out of the DSN")
	}
	return err
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
	sqlite      *sqlite3.SQLiteConn
	engine      *engine
	interrupter *interrupter
	closed      bool
	inTx        bool // between BeginTx and the end of its transaction
}

var (
	_ driver.Conn               = (*conn)(nil)
	_ driver.ConnBeginTx        = (*conn)(nil)
	_ driver.ConnPrepareContext = (*conn)(nil)
	_ driver.ExecerContext      = (*conn)(nil)
	_ driver.QueryerContext     = (*conn)(nil)
	_ driver.Pinger             = (*conn)(nil)
	_ driver.SessionResetter    = (*conn)(nil)
	_ driver.Validator          = (*conn)(nil)
)

func (c *conn) Close() error {
	if c.closed {
		return nil
	}
	c.closed = true
	c.engine.finalize()
	// A statement that is still open keeps SQLite's connection alive: with its locks, and calling hooks that mattn has
	// forgotten.
	if !c.sqlite.AutoCommit() {
		_, _ = c.sqlite.Exec("ROLLBACK", nil)
	}
	c.sqlite.RegisterCommitHook(nil)
	c.sqlite.RegisterRollbackHook(nil)
	return errors.Join(c.interrupter.close(), c.sqlite.Close())
}

func (c *conn) Ping(ctx context.Context) error {
	if err := c.usable(ctx); err != nil {
		return err
	}
	return c.sqlite.Ping(ctx)
}

// usable returns why nothing can be run on the connection.
func (c *conn) usable(ctx context.Context) error {
	if c.closed {
		return driver.ErrBadConn
	}
	return ctx.Err()
}

// errTxGone is why a statement is not run: outside its transaction it would be durable on its own.
var errTxGone = errors.New("the transaction is over: SQLite rolled it back upon an error, or a statement ended it; roll back and begin anew")

// start prepares a statement's run, which must not watch ctx itself. Unless it fails, finish follows.
func (c *conn) start(ctx context.Context, t text, args []driver.NamedValue) (*watch, error) {
	if err := c.usable(ctx); err != nil {
		return nil, err
	}
	if c.inTx && c.sqlite.AutoCommit() {
		return nil, errTxGone
	}
	if err := checkArgs(args); err != nil {
		return nil, err
	}
	if err := c.engine.enter(t); err != nil {
		return nil, err
	}
	return c.interrupter.watch(ctx), nil
}

// finish ends a statement's run, and returns its error for the caller.
func (c *conn) finish(ctx context.Context, t text, w *watch, err error) error {
	w.stop()
	err = interrupted(ctx, err)
	c.engine.leave(t, err)
	return explain(err)
}

func (c *conn) Prepare(query string) (driver.Stmt, error) {
	return c.PrepareContext(context.Background(), query)
}

func (c *conn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	t, err := readText(query)
	if err != nil {
		return nil, err
	}
	if err := c.usable(ctx); err != nil {
		return nil, err
	}
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
	s := &stmt{SQLiteStmt: inner.(*sqlite3.SQLiteStmt), conn: c, text: t}
	if t.merge {
		s.direct = readDirectMerge(query)
	}
	return s, nil
}

func (c *conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	t, err := readText(query)
	if err != nil {
		return nil, err
	}
	w, err := c.start(ctx, t, args)
	if err != nil {
		return nil, err
	}
	result, err := c.sqlite.ExecContext(context.Background(), query, args)
	err = c.finish(ctx, t, w, err)
	return c.engine.counted(result), err
}

func (c *conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	t, err := readText(query)
	if err != nil {
		return nil, err
	}
	return c.query(ctx, t, args, func() (driver.Rows, error) {
		return c.sqlite.QueryContext(context.Background(), query, args)
	})
}

// maxAgain bounds how often a query of crsql_changes starts anew because others change the schema.
const maxAgain = 20

// query runs a statement, which must not watch ctx itself, up to its first row. Outside a transaction another connection
// may add a table between the making of crsql_changes and that row, which is of a later moment then: the statement runs
// again, or its reader would note a version and never ask for the table's changes up to there.
func (c *conn) query(ctx context.Context, t text, args []driver.NamedValue, run func() (driver.Rows, error)) (driver.Rows, error) {
	for range maxAgain {
		w, err := c.start(ctx, t, args)
		if err != nil {
			return nil, err
		}
		inner, err := run()
		if err != nil {
			return nil, c.finish(ctx, t, w, err)
		}
		w.work(false)
		r := &rows{SQLiteRows: inner.(*sqlite3.SQLiteRows), ctx: ctx, watch: w, conn: c, text: t}
		if !t.changes || !t.selects || t.multi || !c.sqlite.AutoCommit() {
			return r, nil
		}
		// The first row holds its moment. Where there is none, the schema was the same if it is the same now.
		schema, err := c.engine.pragma(stmtSchemaVersion, schemaVersionSQL)
		if err == nil && schema == c.engine.viewSchema {
			return r, nil
		}
		if err := errors.Join(err, r.Close()); err != nil {
			return nil, err
		}
	}
	return nil, errors.New("others change the schema without pause: read crsql_changes in a transaction")
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
	conn   *conn
	text   text
	closed bool
	direct *directMerge // nil: not one
}

var errStmtClosed = errors.New("the statement is closed")

func (s *stmt) Close() error {
	s.closed = true
	return s.SQLiteStmt.Close()
}

func (s *stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	if s.closed {
		return nil, errStmtClosed
	}
	if s.direct != nil && !s.conn.sqlite.AutoCommit() {
		if change, ok := s.direct.change(args); ok {
			return s.conn.mergeDirect(ctx, s.text, args, change)
		}
	}
	w, err := s.conn.start(ctx, s.text, args)
	if err != nil {
		return nil, err
	}
	result, err := s.SQLiteStmt.ExecContext(context.Background(), args)
	err = s.conn.finish(ctx, s.text, w, err)
	return s.conn.engine.counted(result), err
}

func (s *stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	if s.closed {
		return nil, errStmtClosed
	}
	return s.conn.query(ctx, s.text, args, func() (driver.Rows, error) {
		return s.SQLiteStmt.QueryContext(context.Background(), args)
	})
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
	ctx    context.Context // of the statement
	watch  *watch
	conn   *conn
	text   text
	closed bool
}

func (r *rows) Next(dest []driver.Value) error {
	if err := r.conn.usable(r.ctx); err != nil { // functions of a closed connection are no more
		return err
	}
	r.watch.work(true)
	err := r.SQLiteRows.Next(dest)
	r.watch.work(false)
	if err == io.EOF {
		return err
	}
	return interrupted(r.ctx, err)
}

func (r *rows) Close() error {
	if r.closed {
		return nil
	}
	r.closed = true
	r.watch.stop() // SQLite may commit now, which is not to be cut short
	err := r.SQLiteRows.Close()
	r.conn.engine.leave(r.text, err)
	return err
}
