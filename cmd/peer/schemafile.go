package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strings"

	"github.com/crmesh/crmesh/pkg/crsql"
)

// maxSchemaFile bounds a schema file, in bytes. It may bring rows along.
const maxSchemaFile = 256 << 20

// asCRR finds the tables that a schema file makes into CRRs.
var asCRR = regexp.MustCompile(`(?i)\bcrsql_as_crr\s*\(\s*(?:'main'\s*,\s*)?'((?:[^']|'')+)'\s*\)`)

// schemaFile is SQL with CREATE TABLE and SELECT crsql_as_crr('TABLE'), read before anything else is done.
type schemaFile struct {
	path   string
	script string
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
	return f, nil
}

// apply runs the script in one transaction, unless all of its tables are there already.
func (f *schemaFile) apply(ctx context.Context, db *crsql.DB, replica *crsql.Replica, log *slog.Logger) error {
	schema, err := replica.Schema(ctx)
	if err != nil {
		return err
	}
	have := map[string]bool{}
	for _, t := range schema.Tables {
		have[strings.ToLower(t.Name)] = true
	}
	missing := 0
	for _, t := range f.tables {
		if !have[strings.ToLower(t)] {
			missing++
		}
	}
	if missing == 0 {
		log.Debug("the tables of the schema file exist", "file", f.path)
		return nil
	}
	if err := db.ExecScript(ctx, f.script); err != nil {
		return fmt.Errorf("the schema file %s was not run: %w", f.path, err)
	}
	log.Info("ran the schema file", "file", f.path, "tables", len(f.tables))
	return nil
}
