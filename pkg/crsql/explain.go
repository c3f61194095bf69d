package crsql

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/mattn/go-sqlite3"
)

// ErrFull is wrapped by the error of a write for which there is no room: the disk is full, or a quota is used up. Nothing of the
// write has been stored.
var ErrFull = errors.New("there is no room left")

// passing says what to do where the disk is full, or another process is in the way, and makes these errors known as such.
func (db *DB) passing(s *session, err error) error {
	switch {
	case err == nil || errors.Is(err, ErrFull) || errors.Is(err, ErrWriteLocked):
	case noRoom(err) || s.engine.full:
		return fmt.Errorf("%w for the database %s: free some space on its disk (%w)", ErrFull, db.path, err)
	case isBusy(err):
		return fmt.Errorf("%w: %w", ErrWriteLocked, err)
	}
	return err
}

// noRoom reports whether err says that something could not be stored for want of room. On some systems, and for files that are
// mapped into memory, SQLite calls that an I/O error.
func noRoom(err error) bool {
	var code sqlite3.Error
	return errors.As(err, &code) && (code.Code == sqlite3.ErrFull || code.SystemErrno == syscall.ENOSPC || code.SystemErrno == syscall.EDQUOT)
}

func isBusy(err error) bool {
	var code sqlite3.Error
	return errors.As(err, &code) && code.Code == sqlite3.ErrBusy
}

// explain adds to what SQLite says of a statement what to do about it, where the cause lies with this package.
func explain(err error) error {
	var sqlite sqlite3.Error
	if err == nil || !errors.As(err, &sqlite) || sqlite.Code != sqlite3.ErrError {
		return err
	}
	message := sqlite.Error()
	if lacks := lacksModule(message); lacks != "" {
		return fmt.Errorf("%s (%w)", lacks, err)
	}
	if strings.Contains(message, "unsafe use of crsql_") {
		return fmt.Errorf("%w: the triggers of CRRs and ordered tables call Go functions, which SQLite lets a schema use only under PRAGMA trusted_schema = ON, its default", err)
	}
	return err
}
