// Package crsql makes SQLite tables replicate: it is cr-sqlite for Go, without a loadable extension.
//
// Importing the package registers the database/sql driver "crsqlite", which is mattn/go-sqlite3 (its DSN, its types)
// with cr-sqlite 0.16's SQL surface on every connection, in its format on disk, so that a file moves freely between
// this driver and the original:
//
//	db, err := sql.Open("crsqlite", "app.db")
//	db.Exec("CREATE TABLE note (id INTEGER PRIMARY KEY NOT NULL, body TEXT)")
//	db.Exec("SELECT crsql_as_crr('note')")                    // note is a CRR from now on
//	db.Query("SELECT * FROM crsql_changes WHERE db_version > ?", since)
//	db.Exec("INSERT INTO crsql_changes VALUES (?,?,?,?,?,?,?,?,?)", ...)  // a change of another database
//	db.Exec("SELECT crsql_automigrate(?)", schema)            // what CREATE statements and calls describe, or see DB.Migrate
//
// A CRR is a table whose every cell has a clock. Triggers on it call crsql_after_insert, crsql_after_update and
// crsql_after_delete, which keep T__crsql_pks (a short key for each primary key) and T__crsql_clock (the clocks).
//
// Beside CRRs there are rows in an order that databases can change apart: crsql_fract_as_ordered(table, column, list's
// columns...) keeps fractional keys in the column. Writing 1 or -1 to it puts a row last or first, and an insert or update
// of the view T_fractindex puts one behind the row that its columns after_<key> name.
//
// crsql_config_set('merge-equal-values', 1) makes merges agree on who wrote a cell even where the values are equal: the
// larger site id wins. All databases that share the tables need it.
//
// # Build tag
//
// With mattn's tag sqlite_vtable there are the virtual tables crsql_unpack_columns(package) and clset, and views and
// triggers of the schema can name crsql_changes (temporary ones always can). Without it a statement that needs one of them
// fails with an error that says so; HasVirtualTables tells beforehand.
//
// # Differences
//
// Where it differs from cr-sqlite on purpose:
//
//   - An UPDATE of a primary key gives the moved columns the new db_version, so that peers get them, and a col_version
//     above that of a row which it replaces, so that it wins there too.
//   - An empty, NULL or short packed key, and a NULL inside one, is an error instead of the end of the process.
//   - crsql_db_version() never falls: not when clocks are dropped, nor after an update that changed nothing, which raises it
//     in the original only. A peer's db_version raises it to 2^52 at most.
//   - A refused change leaves nothing behind, and triggers on; a failed crsql_as_crr, crsql_fract_as_ordered or clset
//     undoes itself and no more.
//   - A call ends with its context, undone, also in the middle of a merge or of crsql_as_crr; a connection goes back to
//     database/sql's pool without a transaction and with its triggers on.
//   - Names have at most MaxName bytes and packed keys MaxKey, a table has as many columns as its triggers can pass on (499).
//   - What is set between crsql_begin_alter and crsql_commit_alter gets the next db_version, so that peers get it. A
//     crsql_commit_alter that fails goes back to crsql_begin_alter, and not to the beginning of the transaction.
//   - crsql_automigrate compares more: keys, types and defaults that changed are errors, indexes, views, triggers and
//     generated columns that changed are made anew. It undoes itself when it fails, and leaves tables alone that need no
//     change. A schema holds CREATE TABLE, INDEX, VIEW and TRIGGER, and SELECT crsql_as_crr or crsql_fract_as_ordered.
//   - A sentinel's version is its causal length, and no number goes beyond 2^53-1: a local write that would have to is an error.
//   - A CRR has the name that its table was created with, in need of quotes or not; one with a ' in it is refused, since the
//     original could not use the file any more.
//   - Every statement sees the schema as it is, whoever changed it, and whatever was undone.
//   - A change to a row whose clocks have outlived it brings the row back.
//   - Conditions on crsql_changes.val compare values as they are, without converting text to numbers. ORDER BY keeps the
//     direction of each term, and crsql_changes may be joined with itself.
//   - Fractional keys may have 256 bytes, tables in order a primary key of several columns or no rowids, and any names.
//   - Settings are integers, and connections follow what another one sets.
//
// docs/COMPATIBILITY.md says how a file is shared with the original, and which of its faults are mended, with their tests.
//
// What cannot be the same, because crsql_changes is a temporary view and mattn registers the functions: crsql_changes has no
// rowid, SQL's changes() does not count rows inserted into it (sql.Result does), and writes to CRRs need PRAGMA trusted_schema
// = ON, which is SQLite's default.
package crsql
