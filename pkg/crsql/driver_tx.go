package crsql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
)

// A tx ends through mattn's connection, past conn.
type tx struct {
	inner    driver.Tx
	conn     *conn
	readOnly bool // the connection is to be made writable again
}

func (c *conn) Begin() (driver.Tx, error) { return c.BeginTx(context.Background(), driver.TxOptions{}) }

// BeginTx begins a transaction. SQLite's are serializable, which is what weaker levels get too.
func (c *conn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	if level := sql.IsolationLevel(opts.Isolation); level < sql.LevelDefault || level > sql.LevelSerializable {
		return nil, fmt.Errorf("the isolation level %v is not supported: SQLite's transactions are serializable", level)
	}
	w, err := c.start(ctx, text{}, nil)
	if err != nil {
		return nil, err
	}
	inner, err := c.sqlite.BeginTx(context.Background(), opts)
	if err = c.finish(ctx, text{}, w, err); err != nil {
		return nil, err
	}
	t := &tx{inner: inner, conn: c}
	c.inTx = true
	if opts.ReadOnly {
		if t.readOnly, err = c.engine.forbidWrites(); err != nil {
			return nil, errors.Join(err, t.Rollback())
		}
	}
	return t, nil
}

// forbidWrites makes the connection refuse writes, and reports whether it did not before.
func (e *engine) forbidWrites() (bool, error) {
	rows, err := e.query("PRAGMA query_only")
	if err != nil || rows[0][0] != int64(0) {
		return false, err
	}
	return true, e.exec("PRAGMA query_only=1")
}

func (t *tx) Commit() error {
	t.conn.engine.outdate()
	err := t.inner.Commit()
	t.conn.engine.leave(text{}, err)
	return t.end(err)
}

func (t *tx) Rollback() error {
	if t.conn.sqlite.AutoCommit() { // SQLite has done so already, upon an error
		return t.end(nil)
	}
	err := t.inner.Rollback()
	t.conn.engine.leave(text{rollback: true}, err)
	return t.end(err)
}

// end puts back what BeginTx changed of the connection.
func (t *tx) end(err error) error {
	t.conn.inTx = false
	if t.readOnly {
		t.readOnly = false
		if failed := t.conn.engine.exec("PRAGMA query_only=0"); failed != nil {
			err = errors.Join(err, failed)
		}
	}
	return err
}

// IsValid is called when database/sql puts a connection back into its pool. It undoes what the last user left of a
// transaction, which would keep others from writing and become part of the next user's, and turns the triggers on.
func (c *conn) IsValid() bool {
	if c.closed {
		return false
	}
	c.engine.syncBit, c.inTx = 0, false
	if c.sqlite.AutoCommit() {
		return true
	}
	_, err := c.ExecContext(context.Background(), "ROLLBACK", nil)
	return err == nil && c.sqlite.AutoCommit()
}

// ResetSession is called when a connection is taken from the pool. IsValid has done all that there is to do. Having both
// lets database/sql keep a connection whose transaction it rolled back because a context ended: with it, it would close
// a database in memory.
func (c *conn) ResetSession(context.Context) error { return c.usable(context.Background()) }
