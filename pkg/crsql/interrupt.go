package crsql

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/mattn/go-sqlite3"
)

// SQLite forgets an interruption that comes just before a statement begins, so one is not enough: there are more, at
// growing intervals.
const (
	firstInterval = time.Millisecond
	lastInterval  = 100 * time.Millisecond
	maxInterrupts = 16 // that are under way at once: each waits, in a thread, until the statement has noticed
)

// An interrupter interrupts whatever runs on one connection, from any goroutine.
//
// mattn calls sqlite3_interrupt for a statement whose own context ends, once: where that comes a moment too early, the
// statement runs to its end. Nor does it reach the statements that the engine runs inside another one. So we have mattn
// call it, as often as we like, with a statement that cannot be bound: it never runs, and changes nothing on the
// connection, not even its last error.
type interrupter struct {
	mu     sync.RWMutex // guards the following
	stmt   *sqlite3.SQLiteStmt
	closed bool
}

// ended is a context that has ended, and unbindable an argument that mattn refuses before it calls SQLite.
var (
	ended      = func() context.Context { ctx, cancel := context.WithCancel(context.Background()); cancel(); return ctx }()
	unbindable = []driver.NamedValue{{Ordinal: 1, Value: struct{}{}}}
)

func newInterrupter(c *sqlite3.SQLiteConn) (*interrupter, error) {
	stmt, err := c.Prepare("SELECT ?")
	if err != nil {
		return nil, err
	}
	return &interrupter{stmt: stmt.(*sqlite3.SQLiteStmt)}, nil
}

// interrupt interrupts the running statement, and blocks until it has noticed.
func (i *interrupter) interrupt() {
	i.mu.RLock()
	defer i.mu.RUnlock()
	if !i.closed {
		_, _ = i.stmt.ExecContext(ended, unbindable) // always fails
	}
}

func (i *interrupter) close() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.closed = true
	return i.stmt.Close()
}

// A watch interrupts a connection from the end of a context on, while its owner is at work there, until it is stopped.
// A nil watch is that of a context which never ends.
type watch struct {
	on      *interrupter
	cancel  func() bool   // keeps run from being started
	stopped chan struct{} // closed by stop
	done    chan struct{} // closed by run

	mu      sync.RWMutex // guards the following; held for reading while the connection is being interrupted
	working bool
}

// watch watches ctx. The caller stops it, before anything else happens on the connection.
func (i *interrupter) watch(ctx context.Context) *watch {
	if ctx.Done() == nil {
		return nil
	}
	w := &watch{on: i, stopped: make(chan struct{}), done: make(chan struct{}), working: true}
	w.cancel = context.AfterFunc(ctx, w.run)
	return w
}

func (w *watch) run() {
	defer close(w.done)
	var underWay sync.WaitGroup
	defer underWay.Wait()
	slots := make(chan struct{}, maxInterrupts)
	for wait := firstInterval; ; wait = min(2*wait, lastInterval) {
		select {
		case slots <- struct{}{}:
			underWay.Go(func() {
				w.interrupt()
				<-slots
			})
		default:
		}
		select {
		case <-w.stopped:
			return
		case <-time.After(wait):
		}
	}
}

func (w *watch) interrupt() {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.working {
		w.on.interrupt()
	}
}

// work says whether the owner is at work on the connection. It is, to begin with; when it is not, nothing is interrupted.
func (w *watch) work(working bool) {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.working = working
}

// stop ends the watch. It is called once; after it nothing is interrupted any more.
func (w *watch) stop() {
	if w == nil {
		return
	}
	w.work(false)
	if w.cancel() {
		return
	}
	close(w.stopped)
	<-w.done
}

// interrupted returns err as the caller of a statement should see it, given the context that it ran under.
func interrupted(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil || errors.Is(err, ctx.Err()) {
		return err
	}
	if _, direct := err.(sqlite3.Error); direct && isInterrupt(err) {
		return ctx.Err()
	}
	return fmt.Errorf("%w: %w", ctx.Err(), err)
}

func isInterrupt(err error) bool {
	var code sqlite3.Error
	return errors.As(err, &code) && code.Code == sqlite3.ErrInterrupt
}
