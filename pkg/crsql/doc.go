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
//
// A CRR is a table whose every cell has a clock. Triggers on it call crsql_after_insert, crsql_after_update and
// crsql_after_delete, which keep T__crsql_pks (a short key for each primary key) and T__crsql_clock (the clocks).
//
// Where it differs from cr-sqlite on purpose:
//
//   - An UPDATE of a primary key gives the moved columns the new db_version, so that peers get them, and a col_version
//     above that of a row which it replaces, so that it wins there too.
//   - An empty, NULL or short packed key, and a NULL inside one, is an error instead of the end of the process.
//   - A refused change leaves nothing behind, and triggers on; a failed crsql_as_crr undoes itself and no more.
//   - A call ends with its context, undone, also in the middle of a merge or of crsql_as_crr; a connection goes back to
//     database/sql's pool without a transaction and with its triggers on.
//   - Names have at most MaxName bytes and packed keys MaxKey, a table has as many columns as its triggers can pass on (499).
//   - A sentinel's version is its causal length, and no number goes beyond 2^53-1.
//   - A change to a row whose clocks have outlived it brings the row back.
//   - Conditions on crsql_changes.val compare values as they are, without converting text to numbers.
package crsql
