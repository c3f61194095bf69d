package crsql

import (
	"context"
	"errors"
	"fmt"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// A MigrateReport says what a migration did, or would do. Names are as in the schema; columns are "table.column".
type MigrateReport struct {
	TablesCreated, TablesDropped   []string
	ColumnsAdded, ColumnsDropped   []string
	IndexesCreated, IndexesDropped []string // an index that is defined anew is in both
	Others                         []string // views and triggers that were created, or defined anew
	CRRs                           []string // tables that became CRRs
	MadeAgain                      []string // tables and columns, quoted, that a Replica had dropped on purpose: peers do not send again what was in them
	Ignored                        []string // sentences on what differs from the schema and stays, such as a CHECK
	Changes                        int64    // rows of crsql_changes that peers will be sent for it
}

// errPlanned undoes a migration that was only tried.
var errPlanned = errors.New("planned")

// Migrate makes the database look like the schema, in one transaction: it creates, changes and drops tables, columns,
// indexes, views and triggers. A schema holds CREATE statements, and SELECT crsql_as_crr('table') for each CRR; it has at
// most MaxSchemaBytes and MaxSchemaStatements. Rows of tables and columns that it lacks are lost: see PlanMigration.
// Tables of cr-sqlite, SQLite, the replica and virtual tables are left alone.
//
// What ALTER TABLE cannot change, such as a primary key, a type or a default, is an error that names it. After an error,
// or when ctx ends before the commit, nothing has been written. Migrate blocks as Write does.
func (db *DB) Migrate(ctx context.Context, schema string) (MigrateReport, error) {
	return db.migrate(ctx, schema, nil)
}

// PlanMigration reports what Migrate would do, by doing it in a transaction that it undoes. It takes as long as Migrate,
// and blocks as Write does.
func (db *DB) PlanMigration(ctx context.Context, schema string) (MigrateReport, error) {
	return db.migrate(ctx, schema, errPlanned)
}

func (db *DB) migrate(ctx context.Context, schema string, end error) (report MigrateReport, err error) {
	err = db.transact(ctx, func(s *session) error {
		if report, err = s.migrate(ctx, schema, nil); err != nil {
			return err
		}
		return end
	})
	switch {
	case err == nil:
		db.notify()
	case !errors.Is(err, errPlanned):
		return MigrateReport{}, err
	}
	return report, nil
}

// migrate brings the database to the schema, in the session's transaction, and leaves alone what keep says.
func (s *session) migrate(ctx context.Context, schema string, keep *keeper) (MigrateReport, error) {
	s.engine.keep = keep
	defer func() { s.engine.keep = nil }()
	// As a statement of the connection: one that ctx can interrupt.
	args := []changeset.Value{changeset.TextString(schema)}
	prepared, err := s.prepare(ctx, "SELECT crsql_automigrate(?)", args)
	if err != nil {
		return MigrateReport{}, err
	}
	_, err = s.each(ctx, prepared, args, ignoreRow)
	if err := errors.Join(err, prepared.Close()); err != nil {
		return MigrateReport{}, fmt.Errorf("migrate the database: %w", err)
	}
	report := s.engine.migrated
	report.Changes, err = s.engine.pendingChanges()
	return report, err
}

// pendingChanges counts the clocks that this transaction has written.
func (e *engine) pendingChanges() (int64, error) {
	committed, err := e.currentVersion()
	if err != nil {
		return 0, err
	}
	var changes int64
	for _, clock := range e.clockTables {
		rows, err := e.query("SELECT count(*) FROM main."+ident(clock)+" WHERE db_version > ?", committed)
		if err != nil {
			return 0, err
		}
		changes += toInt64(rows[0][0])
	}
	return changes, nil
}
