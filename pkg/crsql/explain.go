package crsql

import (
	"errors"
	"fmt"
	"strings"

	"github.com/mattn/go-sqlite3"
)

// explainFull says what to do where the disk is full.
func (db *DB) explainFull(err error) error {
	var code sqlite3.Error
	if errors.As(err, &code) && code.Code == sqlite3.ErrFull {
		return fmt.Errorf("there is no room left for the database %s: free some space on its disk and try again (%w)", db.path, err)
	}
	return err
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
