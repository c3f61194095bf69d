package crsql

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strconv"
	"strings"
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
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known == e.schemaVersion {
		return r.schema, nil
	}
	var schema Schema
	for _, t := range e.order {
		rows, err := e.query("SELECT sql FROM main.sqlite_master WHERE type = 'table' AND name = ?", t.name)
		if err != nil {
			return Schema{}, err
		}
		if len(rows) > 0 {
			schema.Tables = append(schema.Tables, TableSchema{Name: t.name, SQL: toText(rows[0][0])})
		}
	}
	slices.SortFunc(schema.Tables, func(a, b TableSchema) int { return strings.Compare(a.Name, b.Name) })
	if len(schema.Tables) > 0 {
		text, err := e.schemaText(schema.Tables)
		if err != nil {
			return Schema{}, err
		}
		schema.Hash = sha256.Sum256(text)
	}
	r.schema, r.known = schema, e.schemaVersion
	return schema, nil
}

// schemaText returns what the schema hash of docs/PROTOCOL.md is a hash of.
func (e *engine) schemaText(tables []TableSchema) ([]byte, error) {
	var text []byte
	for _, table := range tables {
		text = append(append(text, table.Name...), 0)
		rows, err := e.query(`SELECT name, type, "notnull", dflt_value, pk FROM pragma_table_info(?, 'main') ORDER BY cid`, table.Name)
		if err != nil {
			return nil, fmt.Errorf("read the columns of %s: %w", table.Name, err)
		}
		for _, row := range rows {
			text = append(append(text, toText(row[0])...), 0)
			text = append(append(text, upperASCII(toText(row[1]))...), 0)
			text = append(strconv.AppendInt(text, toInt64(row[2]), 10), 0)
			text = append(append(text, toText(row[3])...), 0)
			text = append(strconv.AppendInt(text, toInt64(row[4]), 10), 0)
		}
		text = append(text, '\n')
	}
	return text, nil
}

func upperASCII(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'a' <= c && c <= 'z' {
			b[i] = c - 'a' + 'A'
		}
	}
	return string(b)
}
