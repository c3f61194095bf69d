package main

import (
	"context"
	"fmt"
	"regexp"

	"github.com/crmesh/crmesh/pkg/crsql"
	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// mayDrop finds statements that may take a table away; some that do not are among them.
var mayDrop = regexp.MustCompile(`(?i)\b(drop|alter)\b`)

// clocksAlone lists tables whose clocks are there and which are not.
const clocksAlone = `SELECT substr(c.name, 1, length(c.name) - length('__crsql_clock')) FROM sqlite_master AS c
	WHERE c.type = 'table' AND c.name LIKE '%\_\_crsql\_clock' ESCAPE '\'
	AND NOT EXISTS (SELECT 1 FROM sqlite_master AS t WHERE t.type = 'table' AND t.name || '__crsql_clock' = c.name COLLATE NOCASE)`

// execute runs a statement of a local program. One that takes away a table that syncs is refused: the other members would bring the
// table back, empty, and what its clocks say of rows that are not there would go to newcomers as NULL.
func execute(ctx context.Context, db *crsql.DB, s statement) (result crsql.Result, err error) {
	if !mayDrop.MatchString(s.SQL) {
		return db.Exec(ctx, s.SQL, s.values()...)
	}
	err = db.Write(ctx, func(tx *crsql.Tx) error {
		before, err := tablesGone(tx)
		if err != nil {
			return err
		}
		if result, err = tx.Exec(s.SQL, s.values()...); err != nil {
			return err
		}
		after, err := tablesGone(tx)
		for name := range after {
			if !before[name] {
				return fmt.Errorf("nothing was done: the table %q syncs, and other members would bring it back without its rows; take it out of "+
					"the schema file and start the peer with --schema, or end its sync first: SELECT crsql_as_table('...')", name)
			}
		}
		return err
	})
	return result, err
}

func tablesGone(tx *crsql.Tx) (map[string]bool, error) {
	gone := map[string]bool{}
	_, err := tx.Query(clocksAlone, nil, func(row []changeset.Value) error {
		gone[string(row[0].Bytes())] = true
		return nil
	})
	return gone, err
}
