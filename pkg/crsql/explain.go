package crsql

import (
	"errors"
	"fmt"
	"strings"

	"github.com/mattn/go-sqlite3"
)

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
