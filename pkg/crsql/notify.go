package crsql

import (
	"time"
)

// PollInterval is how often a DB looks for commits of other processes.
const PollInterval = 50 * time.Millisecond

// Commits returns a channel that carries a value after one or more durable commits, of this DB or of another program,
// that did not come through Replica.Apply. It never blocks, holds at most one value, and is the same at every call. It
// is not closed.
func (db *DB) Commits() <-chan struct{} { return db.commits }

// notify puts a value into Commits, unless there is one.
func (db *DB) notify() {
	select {
	case db.commits <- struct{}{}:
	default:
	}
}

// poll notices the commits of other processes, until Close. It asks the writing connection, for which data_version
// moves with every commit but its own; while somebody writes there is nothing to do, since the write asks too.
func (db *DB) poll() {
	ticker := time.NewTicker(PollInterval)
	defer ticker.Stop()
	var last string // error, to log each once
	for {
		select {
		case <-db.closing:
			return
		case <-ticker.C:
		}
		select {
		case s := <-db.writer:
			changed, err := s.changedByOthers()
			db.writer <- s
			if err != nil && err.Error() != last {
				db.log.Warn("commits of other programs cannot be noticed for now", "error", err)
				last = err.Error()
			}
			if changed {
				db.notify()
			}
		default:
		}
	}
}
