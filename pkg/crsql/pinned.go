package crsql

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/mattn/go-sqlite3"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// What peers accept and what is written here have one bound, changeset.MaxVersion. A change beyond it is parked by
// everybody, so a local write that stepped beyond would be seen here and nowhere else. It fails instead, as a statement.
//
// Nobody gets there by writing: that is 2^53 writes of one cell. But whoever may write can merge a change that stands at
// the bound, which pins its cell. A lower bound for what is merged would not help: either local writes may pass it,
// and are refused by the others, or they may not, and the pinned cell merely has a lower number.

// maxVersion is changeset.MaxVersion as SQL.
var maxVersion = strconv.FormatInt(changeset.MaxVersion, 10)

// stepTo returns the SQL of a clock's next version: NULL, which clocks refuse, where there is none.
func stepTo(next string) string {
	return "CASE WHEN col_version < " + maxVersion + " THEN " + next + " END"
}

// errPinned is why a write to a cell, or to a row, cannot be tracked.
var errPinned = errors.New("its version is the highest that peers accept, " + maxVersion + ", so that none of them would take this write")

// stepped returns the error of a statement that steps versions, in words where one was at its end: col is the column, or
// empty where there are several, and row is set for a sentinel.
func stepped(err error, col string, row bool) error {
	var failed sqlite3.Error
	if !errors.As(err, &failed) || failed.ExtendedCode != sqlite3.ErrConstraintNotNull {
		return err
	}
	return pinned(col, row)
}

func pinned(col string, row bool) error {
	switch {
	case row:
		return fmt.Errorf("the row is pinned as it is: %w; use another key", errPinned)
	case col == "":
		return fmt.Errorf("one of its columns is pinned: %w; delete the row first", errPinned)
	}
	return fmt.Errorf("column %s is pinned: %w; delete the row and insert it again", nameText(col), errPinned)
}

// movedVersion returns the version of a column whose row takes another key: its own, the next one where it was changed, and
// above that of a row that stood there before.
func movedVersion(col string, have, replaced cell, changed bool) (int64, error) {
	version := have.version
	if changed {
		version++
	}
	if replaced.clocked {
		version = max(version, replaced.version+1)
	}
	if version > changeset.MaxVersion || have.version > changeset.MaxVersion || replaced.version > changeset.MaxVersion {
		return 0, pinned(col, false)
	}
	return version, nil
}
