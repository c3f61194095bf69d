//go:build !sqlite_vtable && !vtable

package crsql

import (
	"strings"
	"testing"
)

// Without the tag the two virtual tables are missing, and SQLite's word for that comes with what to do.
func TestWithoutVirtualTables(t *testing.T) {
	if HasVirtualTables {
		t.Error("the build says that it has virtual tables")
	}
	d := openTest(t, ":memory:")
	d.run("CREATE VIEW cells AS SELECT cell FROM crsql_unpack_columns(x'010901')")
	for sql, missing := range map[string]string{
		"SELECT cell FROM crsql_unpack_columns(x'010901')":                "crsql_unpack_columns",
		"select cell from CRSQL_UNPACK_COLUMNS where package = x'010901'": "crsql_unpack_columns",
		"SELECT * FROM cells": "crsql_unpack_columns",
		"CREATE TABLE t AS SELECT cell FROM crsql_unpack_columns(x'010901')":             "crsql_unpack_columns",
		"CREATE VIRTUAL TABLE t_schema USING clset(id INTEGER PRIMARY KEY NOT NULL)":     "clset",
		"CREATE VIRTUAL TABLE t_schema USING \"CLSET\"(id INTEGER PRIMARY KEY NOT NULL)": "clset",
	} {
		_, queried := d.try(sql)
		_, executed := d.conn.ExecContext(t.Context(), sql)
		_, prepared := d.conn.PrepareContext(t.Context(), sql)
		if missing == "clset" {
			prepared = queried // the module is looked for when the statement runs
		}
		for _, err := range []error{queried, executed, prepared} {
			if err == nil || !strings.HasPrefix(err.Error(), missing+" is") || !strings.Contains(err.Error(), "-tags sqlite_vtable") {
				t.Errorf("%s: %v", sql, err)
			}
		}
	}
	if _, err := d.try("SELECT 'crsql_unpack_columns' FROM nowhere"); err == nil || strings.Contains(err.Error(), "-tags") {
		t.Errorf("another error: %v", err)
	}
}
