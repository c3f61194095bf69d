package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/crmesh/crmesh/pkg/crsql"
)

// maxSchemaFile bounds a schema file, in bytes. It may bring rows along.
const maxSchemaFile = 256 << 20

// asCRR finds the tables that a schema file makes into CRRs.
var asCRR = regexp.MustCompile(`(?i)\bcrsql_as_crr\s*\(\s*(?:'main'\s*,\s*)?'((?:[^']|'')+)'\s*\)`)

// schemaFlags say what becomes of the tables because of others.
type schemaFlags struct {
	AcceptSchema string `default:"additive" enum:"never,additive,any" placeholder:"WHAT" help:"What is taken of the schemas of other members: never anything; additive, tables and columns that are missing; any, the newest schema as a whole, and what it lacks is dropped (${default})."`
}

func (f schemaFlags) accept() crsql.AcceptSchema { return crsql.AcceptSchema(f.AcceptSchema) }

// schemaFile is SQL with CREATE TABLE and SELECT crsql_as_crr('TABLE'), read before anything else is done.
type schemaFile struct {
	path   string
	script string
	schema string // those of its statements that describe tables and what belongs to them
	others int    // how many others there are, which fill tables
	tables []string
}

func readSchemaFile(path string) (*schemaFile, error) {
	info, err := os.Stat(path)
	if err == nil && info.Size() > maxSchemaFile {
		return nil, fmt.Errorf("the schema file %s has more than %d MB; load rows with peer exec", path, maxSchemaFile>>20)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("the schema file cannot be read: %w", err)
	}
	f := &schemaFile{path: path, script: string(b)}
	for _, m := range asCRR.FindAllStringSubmatch(f.script, -1) {
		f.tables = append(f.tables, strings.ReplaceAll(m[1], "''", "'"))
	}
	if len(f.tables) == 0 {
		return nil, fmt.Errorf("the schema file %s makes no table that syncs; add SELECT crsql_as_crr('TABLE'); for each table", path)
	}
	if f.schema, f.others, err = crsql.SchemaStatements(f.script); err != nil {
		return nil, fmt.Errorf("the schema file %s cannot be read: %w", path, err)
	}
	return f, nil
}

// apply runs the script in one transaction if none of its tables is there. If some are, it migrates the database to the
// schema of the script, once for each state of that.
func (f *schemaFile) apply(ctx context.Context, db *crsql.DB, replica *crsql.Replica, log *slog.Logger) error {
	schema, err := replica.Schema(ctx)
	if err != nil {
		return err
	}
	there := slices.ContainsFunc(schema.Tables, func(t crsql.TableSchema) bool {
		return slices.ContainsFunc(f.tables, func(name string) bool { return strings.EqualFold(name, t.Name) })
	})
	if there {
		return f.migrate(ctx, replica, log)
	}
	if err := db.ExecScript(ctx, f.script); err != nil {
		return fmt.Errorf("the schema file %s was not run: %w", f.path, err)
	}
	log.Info("ran the schema file", "file", f.path, "tables", len(f.tables))
	// Remembered as it is, so that a later one is told from it.
	if _, err := replica.Migrate(ctx, f.schema); err != nil {
		log.Warn("when this schema file changes, the database cannot be migrated to it by itself", "file", f.path, "err", err)
	}
	return nil
}

func (f *schemaFile) migrate(ctx context.Context, replica *crsql.Replica, log *slog.Logger) error {
	fits := func(err error) error {
		if err == nil || errors.Is(err, ctx.Err()) {
			return err
		}
		return fmt.Errorf("the database differs from the schema file %s and cannot be migrated to it, nothing was changed: %w", f.path, err)
	}
	plan, err := replica.PlanMigration(ctx, f.schema)
	if err != nil {
		return fits(err)
	}
	if plan.Empty() {
		log.Debug("the tables of the schema file exist", "file", f.path)
	} else {
		log.Info("migrating the database to the schema file", append(reportText(plan), "file", f.path, "left out", f.others)...)
	}
	report, err := replica.Migrate(ctx, f.schema)
	if err != nil {
		return fits(err)
	}
	tellMadeAgain(log, report)
	if lost := append(report.TablesDropped, report.ColumnsDropped...); len(lost) > 0 {
		log.Warn("the migration dropped tables and columns, with what they held", "dropped", strings.Join(lost, " "))
	}
	return nil
}

// tellMadeAgain says what to do where a migration brought back what an earlier one had dropped.
func tellMadeAgain(log *slog.Logger, r crsql.MigrateReport) {
	if len(r.MadeAgain) > 0 {
		log.Warn("tables and columns that were dropped here before are there again, without what they held; if other members still hold that, fetch it with peer verify --repair",
			"made again", strings.Join(r.MadeAgain, " "))
	}
}

// reportText is a migration as the attributes of a log line.
func reportText(r crsql.MigrateReport) []any {
	out := []any{"changes", r.Changes}
	for _, part := range []struct {
		what  string
		names []string
	}{
		{"tables created", r.TablesCreated}, {"tables dropped", r.TablesDropped}, {"columns added", r.ColumnsAdded},
		{"columns dropped", r.ColumnsDropped}, {"indexes created", r.IndexesCreated}, {"indexes dropped", r.IndexesDropped},
		{"views and triggers", r.Others}, {"made to sync", r.CRRs}, {"stays different", r.Ignored},
	} {
		if len(part.names) > 0 {
			out = append(out, part.what, strings.Join(part.names, " "))
		}
	}
	return out
}
