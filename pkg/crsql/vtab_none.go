//go:build !sqlite_vtable && !vtable

package crsql

import "strings"

// HasVirtualTables reports whether the program was built with mattn/go-sqlite3's tag sqlite_vtable, and so has
// crsql_unpack_columns, clset, and crsql_changes in views and triggers of the schema. Nothing else depends on it.
const HasVirtualTables = false

func (e *engine) registerModules() error { return nil }

// lacksModule says what this build lacks, given what SQLite says of a statement.
func lacksModule(message string) string {
	const build = ", which this program was built without: build it with -tags sqlite_vtable"
	message = strings.ToLower(message)
	switch {
	case strings.HasSuffix(message, "no such table: crsql_unpack_columns"), strings.HasSuffix(message, "no such table: main.crsql_unpack_columns"):
		return "crsql_unpack_columns is a virtual table" + build
	case strings.HasSuffix(message, "no such module: clset"):
		return "clset is a virtual table" + build
	case strings.HasSuffix(message, "no such table: main.crsql_changes"):
		return "crsql_changes in a view or trigger of the schema is a virtual table" + build + ", or make the view or trigger a temporary one"
	}
	return ""
}
