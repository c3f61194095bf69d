package crsql

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// What Options' zero values stand for.
const (
	DefaultBusyTimeout = 5 * time.Second
	DefaultReaders     = 4
	DefaultApplySlice  = 50 * time.Millisecond
)

const (
	busyStep   = 100 * time.Millisecond // how long SQLite waits for a lock before we look at the context again
	writeCache = 32 << 10               // page cache of the writing connection, in KiB
	readCache  = 8 << 10                // of each reading connection, in KiB
	walKept    = 64 << 20               // the write-ahead log is cut to this size after a checkpoint, in bytes
)

// ErrClosed is returned by everything that is asked of a DB after Close.
var ErrClosed = errors.New("the database is closed")

// ErrWriteLocked is wrapped by the error of a write that another process kept out for longer than Options.BusyTimeout.
var ErrWriteLocked = errors.New("another program holds the database's write lock")

// Options are how a DB is opened. The zero value is fine.
type Options struct {
	Logger      *slog.Logger  // of what cannot be returned as an error; nil: nothing is logged
	BusyTimeout time.Duration // how long a write waits for that of another process; 0: DefaultBusyTimeout
	Readers     int           // how many reads run at a time, at least 1; 0: DefaultReaders
	ApplySlice  time.Duration // after how long Replica.Apply lets other writers go between; 0: DefaultApplySlice
}

// A DB is a database file with CRRs: one connection that writes, some that read, in WAL mode. A write that returned
// without an error survives the end of the process and the loss of power. Its methods may be called from any
// goroutine.
//
// One DB at a time has a file: it holds the file named by LockSuffix. Other programs, such as sqlite3 with cr-sqlite,
// may still read and write the database.
type DB struct {
	path  string
	log   *slog.Logger
	busy  time.Duration
	slice time.Duration // of Apply
	lock  *os.File

	writer  chan *session // holds the writing connection while nobody writes
	readers chan *session // holds the reading connections that are idle
	pool    int           // how many reading connections there are

	seal    func(*session) error // set by OpenReplica: runs at the end of each write transaction
	commits chan struct{}        // see Commits

	closing chan struct{}  // closed by Close
	once    sync.Once      // of Close
	err     error          // of Close
	poller  sync.WaitGroup // of poll, which Open starts and Close waits for
}

// Open opens the database at path, creating it if there is none. It blocks while another program has it locked, for up
// to Options.BusyTimeout. Its errors are sentences for a person and name the file. The caller closes the DB.
func Open(ctx context.Context, path string, o Options) (*DB, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.BusyTimeout <= 0 {
		o.BusyTimeout = DefaultBusyTimeout
	}
	if o.Readers <= 0 {
		o.Readers = DefaultReaders
	}
	if o.ApplySlice <= 0 {
		o.ApplySlice = DefaultApplySlice
	}
	if err := checkPath(path); err != nil {
		return nil, err
	}
	path, err := realPath(path)
	if err != nil {
		return nil, err
	}
	lock, err := takeLock(path)
	if err != nil {
		return nil, err
	}
	db := &DB{
		path: path, log: o.Logger, busy: o.BusyTimeout, slice: o.ApplySlice, lock: lock, pool: o.Readers,
		writer: make(chan *session, 1), readers: make(chan *session, o.Readers),
		seal:    func(*session) error { return nil },
		commits: make(chan struct{}, 1), closing: make(chan struct{}),
	}
	if err := db.connect(ctx); err != nil {
		return nil, errors.Join(openError(ctx, path, err), db.disconnect(), lock.Close())
	}
	db.poller.Add(1)
	go func() {
		defer db.poller.Done()
		db.poll()
	}()
	return db, nil
}

func (db *DB) connect(ctx context.Context) error {
	wait := fmt.Sprintf("busy_timeout=%d", db.busy.Milliseconds())
	w, err := openSession(ctx, dsn(db.path, "rwc"), wait, "journal_mode=WAL", "synchronous=FULL", "temp_store=MEMORY",
		fmt.Sprintf("cache_size=-%d", writeCache), fmt.Sprintf("journal_size_limit=%d", walKept))
	if err != nil {
		return err
	}
	db.writer <- w
	mode, _, err := w.engine.text("PRAGMA journal_mode")
	if err != nil {
		return err
	}
	if mode != "wal" {
		return errors.New("its file system does not support SQLite's write-ahead log: move it to a local disk")
	}
	if err := w.run(ctx, fmt.Sprintf("PRAGMA busy_timeout=%d", busyStep.Milliseconds())); err != nil {
		return err
	}
	if _, err := w.changedByOthers(); err != nil { // what happened before does not count
		return err
	}
	for range db.pool {
		r, err := openSession(ctx, dsn(db.path, "ro"), wait, "temp_store=MEMORY", fmt.Sprintf("cache_size=-%d", readCache))
		if err != nil {
			return err
		}
		db.readers <- r
	}
	return nil
}

// disconnect closes the connections that are idle.
func (db *DB) disconnect() error {
	var errs []error
	for {
		select {
		case s := <-db.readers:
			errs = append(errs, s.close())
			continue
		default:
		}
		select {
		case s := <-db.writer: // last: it removes the write-ahead log
			errs = append(errs, s.close())
			continue
		default:
		}
		return errors.Join(errs...)
	}
}

// Close waits for what is running, and closes the database. Everything after it returns ErrClosed; a second Close does
// nothing.
func (db *DB) Close() error {
	db.once.Do(func() {
		close(db.closing)
		db.poller.Wait()
		var errs []error
		for range db.pool {
			errs = append(errs, (<-db.readers).close())
		}
		errs = append(errs, (<-db.writer).close(), db.lock.Close())
		db.err = errors.Join(errs...)
	})
	return db.err
}

// Path returns the absolute path of the database file.
func (db *DB) Path() string { return db.path }

// take takes a connection from a pool; it goes back with pool <- s.
func (db *DB) take(ctx context.Context, pool chan *session) (*session, error) {
	select {
	case <-db.closing:
		return nil, ErrClosed
	default:
	}
	select {
	case s := <-pool:
		return s, nil
	case <-db.closing:
		return nil, ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// transact runs f in a write transaction, which is durable when transact returns nil and undone otherwise. Others wait.
// It ends soon after ctx does, whatever f runs on the session.
func (db *DB) transact(ctx context.Context, f func(*session) error) (err error) {
	s, err := db.take(ctx, db.writer)
	if err != nil {
		return err
	}
	defer func() { db.writer <- s }()
	s.engine.full = false
	defer func() { err = db.passing(s, err) }()
	if err := db.begin(ctx, s); err != nil {
		return err
	}
	defer func() { // also when f panics
		if rollback := s.rollback(); rollback != nil {
			db.log.Error("a transaction could not be rolled back", "error", rollback)
		}
	}()
	if err := s.within(ctx, func() error { return db.inTransaction(s, f) }); err != nil {
		return err
	}
	return s.run(context.Background(), "COMMIT") // whole or not at all: not cut short by ctx
}

// inTransaction does what transact does between BEGIN and COMMIT.
func (db *DB) inTransaction(s *session, f func(*session) error) error {
	changed, err := s.changedByOthers()
	if err != nil {
		return err
	}
	if changed {
		db.notify()
	}
	if err := s.current(); err != nil {
		return err
	}
	if err := f(s); err != nil {
		return err
	}
	if err := s.inTransaction(); err != nil {
		return fmt.Errorf("nothing was written: %w", err)
	}
	if err := s.engine.checkAlters(); err != nil {
		return err
	}
	return db.seal(s)
}

// begin starts a write transaction. SQLite waits for locks without looking at the context, so it waits in steps.
func (db *DB) begin(ctx context.Context, s *session) error {
	deadline := time.Now().Add(db.busy)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := s.run(context.Background(), "BEGIN IMMEDIATE")
		if !isBusy(err) {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the write was given up after %v: %w", db.busy, ErrWriteLocked)
		}
	}
}

// snapshot runs f in a read transaction: all that f reads is of one moment. It ends soon after ctx does.
func (db *DB) snapshot(ctx context.Context, f func(*session) error) (err error) {
	s, err := db.take(ctx, db.readers)
	if err != nil {
		return err
	}
	defer func() { db.readers <- s }()
	s.engine.full = false
	defer func() { err = db.passing(s, err) }()
	if err := s.run(ctx, "BEGIN"); err != nil {
		return err
	}
	defer func() {
		// Not a rollback: that would undo the connection's own crsql_changes too.
		if err := s.run(context.Background(), "COMMIT"); err != nil {
			if err := s.rollback(); err != nil {
				db.log.Error("a read could not be ended", "error", err)
			}
		}
	}()
	return s.within(ctx, func() error {
		if err := s.current(); err != nil {
			return err
		}
		return f(s)
	})
}
