package crsql

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// Schema returns the CRRs. It is cheap while the schema stays what it is. The caller must not change what it gets.
func (r *Replica) Schema(ctx context.Context) (Schema, error) {
	var schema Schema
	err := r.db.snapshot(ctx, func(s *session) (err error) {
		schema, err = r.readSchema(s.engine)
		return err
	})
	return schema, err
}

// readSchema returns the CRRs as they are in the session's transaction.
func (r *Replica) readSchema(e *engine) (Schema, error) {
	generation, err := e.metaNumber(metaGeneration)
	if err != nil {
		return Schema{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known != e.schemaVersion {
		tables, err := e.readTableSchemas()
		if err != nil {
			return Schema{}, err
		}
		r.schema, r.known = Schema{Hash: changeset.SchemaHash(tables), Version: e.schemaVersion, Tables: tables}, e.schemaVersion
	}
	schema := r.schema
	schema.Generation = generation
	return schema, nil
}

// readTableSchemas describes the CRRs, in bytewise order of their names.
func (e *engine) readTableSchemas() ([]TableSchema, error) {
	var tables []TableSchema
	for _, t := range e.order {
		rows, err := e.query("SELECT sql FROM main.sqlite_master WHERE type = 'table' AND name = ?", t.name)
		if err != nil {
			return nil, err
		}
		if len(rows) == 0 {
			continue
		}
		table := TableSchema{Name: t.name, SQL: toText(rows[0][0])}
		if table.Columns, err = e.readColumns(t.name); err != nil {
			return nil, err
		}
		tables = append(tables, table)
	}
	slices.SortFunc(tables, func(a, b TableSchema) int { return strings.Compare(a.Name, b.Name) })
	return tables, nil
}

func (e *engine) readColumns(table string) ([]changeset.Column, error) {
	rows, err := e.query(`SELECT name, type, "notnull", dflt_value, pk FROM pragma_table_info(?, 'main') ORDER BY cid`, table)
	if err != nil {
		return nil, fmt.Errorf("read the columns of %s: %w", table, err)
	}
	columns := make([]changeset.Column, len(rows))
	for i, row := range rows {
		columns[i] = changeset.Column{
			Name: toText(row[0]), Type: toText(row[1]), NotNull: toInt64(row[2]) != 0,
			HasDefault: row[3] != nil, Default: toText(row[3]), Key: int(toInt64(row[4])),
		}
	}
	return columns, nil
}
