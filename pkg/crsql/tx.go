package crsql

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/mattn/go-sqlite3"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// Bounds of what one Query returns.
const (
	MaxQueryRows  = 1_000_000
	MaxQueryBytes = 256 << 20 // of values, in packed form
)

// ErrTooLarge is wrapped by the error of a query whose result exceeds MaxQueryRows or MaxQueryBytes.
var ErrTooLarge = errors.New("the result is too large")

// Result is what a write did.
type Result struct {
	RowsAffected int64 // rows inserted, changed or deleted by the statement itself
	LastInsertID int64 // rowid of the row inserted last on this connection
}

// A Tx is a write transaction. It is valid inside the function that DB.Write called, on its goroutine.
type Tx struct {
	ctx  context.Context
	s    *session
	over atomic.Bool // the function has returned
}

// usable returns why nothing can be run in the transaction.
func (tx *Tx) usable() error {
	if tx.over.Load() {
		return errors.New("the transaction is over: use a Tx only inside the function that Write called")
	}
	return tx.s.inTransaction()
}

// Write runs f in a write transaction, which is durable when Write returns nil; when f fails or panics nothing has been
// written. Writes run one at a time. Write blocks while others write: those of this DB for as long as ctx lives, those
// of other processes for up to Options.BusyTimeout. f must not call the DB.
func (db *DB) Write(ctx context.Context, f func(*Tx) error) error {
	err := db.transact(ctx, func(s *session) error {
		tx := &Tx{ctx: ctx, s: s}
		defer tx.over.Store(true)
		return f(tx)
	})
	if err == nil {
		db.notify()
	}
	return err
}

// Exec runs one statement in a transaction of its own. See Write.
func (db *DB) Exec(ctx context.Context, sql string, args ...changeset.Value) (Result, error) {
	var r Result
	err := db.Write(ctx, func(tx *Tx) (err error) {
		r, err = tx.Exec(sql, args...)
		return err
	})
	return r, err
}

// ExecScript runs the statements of a script in one transaction. See Write and Tx.Script.
func (db *DB) ExecScript(ctx context.Context, script string) error {
	return db.Write(ctx, func(tx *Tx) error { return tx.Script(script) })
}

// Query runs one statement that reads, in a snapshot, and calls f with each row, which f may keep. It returns the names
// of the columns. At most Options.Readers queries run at a time; others wait. A result beyond MaxQueryRows or
// MaxQueryBytes is an ErrTooLarge, of which f has seen the beginning. What SQLite sorts and collects on the way has no
// such bound: run what others have written under a ctx with a deadline.
func (db *DB) Query(ctx context.Context, sql string, args []changeset.Value, f func(row []changeset.Value) error) (columns []string, err error) {
	err = db.snapshot(ctx, func(s *session) error {
		columns, err = s.checkedQuery(ctx, sql, args, f)
		return err
	})
	return columns, err
}

// Exec runs one statement, with args for its parameters in order.
func (tx *Tx) Exec(sql string, args ...changeset.Value) (Result, error) {
	st, err := oneStatement(sql)
	if err != nil {
		return Result{}, err
	}
	return tx.exec(&st, args)
}

func (tx *Tx) exec(st *sqlStatement, args []changeset.Value) (result Result, err error) {
	if err := tx.usable(); err != nil {
		return Result{}, err
	}
	if why := st.refused(); why != "" {
		return Result{}, errors.New(why)
	}
	prepared, err := tx.s.prepare(tx.ctx, st.sql, args)
	if err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, prepared.Close()) }()
	if prepared.Readonly() { // it may call functions that write, row by row: go through them all
		_, err := tx.s.each(tx.ctx, prepared, args, ignoreRow)
		return Result{}, err
	}
	r, err := prepared.ExecContext(tx.ctx, driverArgs(args))
	if err != nil {
		return Result{}, err
	}
	switch st.word(0) {
	case "INSERT", "REPLACE", "UPDATE", "DELETE", "WITH":
	default: // SQLite would tell the numbers of the statement before it
		return Result{}, nil
	}
	if result.RowsAffected, err = r.RowsAffected(); err != nil {
		return Result{}, err
	}
	result.LastInsertID, err = r.LastInsertId()
	return result, err
}

func ignoreRow([]changeset.Value) error { return nil }

// Script runs the statements of a script in order. Statements that begin or end a transaction are refused. Errors name
// the line that the statement begins on.
func (tx *Tx) Script(script string) error {
	scanner := newSQLScanner(script)
	for {
		st, ok, err := scanner.next()
		if err != nil || !ok {
			return err
		}
		if len(st.sql) > MaxStatement {
			err = overLimit("the SQL statement", len(st.sql), MaxStatement)
		} else {
			_, err = tx.exec(&st, nil)
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", st.line, err)
		}
	}
}

// Query runs one statement that reads, and sees what the transaction has written so far. See DB.Query.
func (tx *Tx) Query(sql string, args []changeset.Value, f func(row []changeset.Value) error) (columns []string, err error) {
	if err := tx.usable(); err != nil {
		return nil, err
	}
	return tx.s.checkedQuery(tx.ctx, sql, args, f)
}

func (s *session) checkedQuery(ctx context.Context, sql string, args []changeset.Value, f func(row []changeset.Value) error) (columns []string, err error) {
	st, err := oneStatement(sql)
	if err != nil {
		return nil, err
	}
	if why := st.notQuery(); why != "" {
		return nil, errors.New(why)
	}
	prepared, err := s.prepare(ctx, st.sql, args)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, prepared.Close()) }()
	if !prepared.Readonly() && !st.explain { // such as WITH ... DELETE
		return nil, errors.New("a query reads: run a statement that writes as a write")
	}
	rows, bytes := 0, 0
	return s.each(ctx, prepared, args, func(row []changeset.Value) error {
		rows++
		for _, v := range row {
			bytes += v.Size()
		}
		if rows > MaxQueryRows || bytes > MaxQueryBytes {
			return fmt.Errorf("%w: a query returns at most %d rows and %d MiB; add a LIMIT", ErrTooLarge, MaxQueryRows, MaxQueryBytes>>20)
		}
		return f(row)
	})
}

// IsConstraint reports whether err says that a constraint of a table refused a write.
func IsConstraint(err error) bool {
	var code sqlite3.Error
	return errors.As(err, &code) && code.Code == sqlite3.ErrConstraint
}
