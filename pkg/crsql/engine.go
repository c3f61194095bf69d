package crsql

import (
	"errors"
	"fmt"
	"slices"

	"github.com/mattn/go-sqlite3"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// unknown marks a cached number that has to be read again. No version is negative.
const unknown = -1

// An engine is cr-sqlite on one connection. It is used by one goroutine at a time, as the connection is: either from
// inside a statement, by its SQL functions, or between statements, by applyChanges.
//
// What it caches of the database it checks once for each statement that the connection runs (refresh).
type engine struct {
	sqlite *sqlite3.SQLiteConn
	stmts  statements

	// Set by the owner before the connection is used; either may be nil. They run once a commit has succeeded, or when a
	// rollback happens, on the goroutine that uses the connection. onRollback runs in the middle of it and must not touch
	// the connection; onCommit runs after the statement.
	onCommit   func()
	onRollback func()

	// What the database holds, as of the last refresh.
	siteID        changeset.SiteID
	settings      settings
	schemaVersion int64             // PRAGMA schema_version that the tables were read at
	dataVersion   int64             // PRAGMA data_version, which moves when another connection commits
	tables        map[string]*table // the CRRs by name
	order         []*table          // the CRRs in the order of their creation
	clockTables   []string          // all clock tables, also those whose table is gone
	ordinals      map[changeset.SiteID]int64
	sites         map[int64]changeset.SiteID // by ordinal

	dbVersion    int64 // as of the last commit
	floor        int64 // that the next one may not fall below, since clocks were dropped by others
	pending      int64 // that this transaction gives its rows; unknown if it has written none
	unsure       bool  // whether any row of this transaction still has pending
	seq          int64 // the next in this transaction
	rowsImpacted int64 // by merges in this transaction
	syncBit      int64 // not 0: triggers stay quiet

	// State of the statement that runs.
	fresh      bool  // refresh has been done
	freshTx    bool  // and in the explicit transaction that is open, so that only this connection can change anything
	mayAlter   bool  // this connection may have changed the schema since it was looked at
	multi      bool  // the text holds several statements, so that each may change what refresh looks at
	changes    bool  // the text names crsql_changes
	committed  bool  // the commit hook has run
	merged     int64 // rows that it has inserted into crsql_changes
	quiet      bool  // the engine works on its own temporary objects: no commit worth a notice
	merging    bool  // changes are being merged
	nested     bool  // by a function, inside the statement that calls it
	mergeAuto  bool  // it runs outside an explicit transaction
	resited    bool  // the site id was changed in this transaction, and a rollback reverts it
	readInTx   bool  // the schema was read in this transaction, and a rollback may revert it
	viewSchema int64 // schemaVersion that crsql_changes was made for

	nesting    int           // of SQL functions
	full       bool          // one of them found no room: SQLite makes that a mere error of the statement
	panicked   any           // by onRollback
	altering   []string      // the tables whose crsql_begin_alter this transaction holds, in order
	unfinished []string      // savepoints that could not be undone while their statement ran
	migrated   MigrateReport // of the last crsql_automigrate
	keep       *keeper       // what it leaves as it is; nil: nothing

	merger    rowMerge            // of the row that is being merged; kept for its buffers
	mergeList [1]changeset.Change // what mergeOne merges
}

// newEngine prepares c for CRRs, creating cr-sqlite's own tables if the database lacks them, and registers the SQL
// functions. It blocks while another connection writes, for at most the busy timeout.
func newEngine(c *sqlite3.SQLiteConn) (*engine, error) {
	e := &engine{
		sqlite: c, stmts: statements{conn: c},
		schemaVersion: unknown, dataVersion: unknown, dbVersion: unknown, pending: unknown, viewSchema: unknown,
	}
	if _, err := c.Exec("PRAGMA temp_store=MEMORY", nil); err != nil {
		return nil, err
	}
	if err := e.bootstrap(); err != nil {
		return nil, err
	}
	if err := e.register(); err != nil {
		return nil, fmt.Errorf("register the SQL functions: %w", err)
	}
	if err := e.registerModules(); err != nil {
		return nil, fmt.Errorf("register the virtual tables: %w", err)
	}
	c.RegisterCommitHook(e.commitHook)
	c.RegisterRollbackHook(e.rollbackHook)
	return e, nil
}

// commitHook runs inside the commit: it must not touch the connection.
func (e *engine) commitHook() int {
	if e.quiet {
		return 0
	}
	// After a commit without rows this is unknown, and read again. The stock engine takes what was pending also where no
	// row got it, and loses it later: the number comes back with rows, and peers believe that they have them.
	e.dbVersion = e.pending
	if e.unsure {
		e.dbVersion = unknown
	}
	e.endTransaction()
	e.committed = true
	return 0
}

// rollbackHook runs inside the rollback: it must not touch the connection.
func (e *engine) rollbackHook() {
	if e.committed { // the commit failed after its hook
		e.dbVersion, e.committed = unknown, false
	}
	e.forget() // first: it asks what the transaction has read
	e.endTransaction()
	if e.onRollback != nil {
		defer func() { e.panicked = recover() }() // it must not pass through C: leave passes it on
		e.onRollback()
	}
}

func (e *engine) endTransaction() {
	e.pending, e.unsure, e.seq, e.rowsImpacted = unknown, false, 0, 0
	e.readInTx, e.resited, e.altering = false, false, nil
	e.freshTx, e.merger.known = false, false
}

func (e *engine) forgetSites() {
	clear(e.ordinals)
	clear(e.sites)
}

// outdate makes the next refresh look at everything.
func (e *engine) outdate() {
	e.fresh, e.freshTx, e.mayAlter = false, false, true
	e.merger.known = false
}

// forget drops what was read in a transaction that has been undone, wholly or up to a savepoint.
func (e *engine) forget() {
	e.forgetSites()
	e.settings.known = false
	e.viewSchema = unknown
	e.unsure = true
	e.outdate()
	if e.readInTx {
		e.schemaVersion = unknown
	}
	if e.resited {
		e.dataVersion = unknown
	}
}

// enter is called before each statement that the connection's user runs, leave after it.
func (e *engine) enter(t text) error {
	if err := e.finishUndo(); err != nil {
		return err
	}
	e.multi, e.changes, e.committed, e.merged = t.multi, t.changes, false, 0
	e.fresh = e.freshTx
	if !t.plain {
		e.outdate()
	}
	if !t.merge {
		e.merger.known = false
	}
	if t.rollback {
		e.readInTx = true
		e.forget()
	}
	if t.alters {
		if err := e.dropView(); err != nil {
			return err
		}
	}
	if t.dropsClocks {
		if err := e.keepVersion(); err != nil {
			return err
		}
		e.outdate()
	}
	if !t.changes {
		return nil
	}
	if err := e.ensureView(); err != nil {
		return err
	}
	// Outside a transaction, another connection may commit before the statement begins: it looks again.
	e.fresh = e.fresh && !e.sqlite.AutoCommit()
	return nil
}

func (e *engine) leave(t text, err error) {
	if p := e.panicked; p != nil {
		e.panicked = nil
		panic(p)
	}
	if err != nil || t.rollback {
		e.forget()
		e.unsure = !e.sqlite.AutoCommit() // it is about the rows of a transaction
	}
	if !t.plain { // it has looked at the schema, perhaps, and changed it afterwards
		e.outdate()
	}
	if len(e.unfinished) > 0 {
		_ = e.finishUndo() // or the next statement does
	}
	if t.dropsView {
		e.viewSchema = unknown
	}
	if e.committed {
		e.committed = false
		if err == nil && e.onCommit != nil {
			e.onCommit()
		}
	}
}

const schemaVersionSQL = "PRAGMA main.schema_version"

// refresh brings what the engine knows of the database up to date, at most once a statement.
func (e *engine) refresh() error {
	if e.fresh && !e.multi {
		return nil
	}
	seen := e.dbVersion
	// First whether others have committed: what they commit between these two is found the next time. The other way
	// round, the version would be that of tables from before, and nothing would tell.
	data, err := e.pragma(stmtDataVersion, "PRAGMA main.data_version")
	if err != nil {
		return err
	}
	changed := data != e.dataVersion
	if changed {
		if err := e.readSiteID(); err != nil {
			return err
		}
		e.dataVersion, e.dbVersion = data, unknown
		e.merger.known = false
		e.forgetSites()
		e.settings.known = false
	}
	if err := e.readSettings(); err != nil {
		return err
	}
	if changed || e.mayAlter || e.multi { // who else changes the schema commits
		if err := e.refreshSchema(seen); err != nil {
			return err
		}
	}
	if e.multi {
		e.forgetSites()
	}
	e.fresh, e.mayAlter = true, false
	e.freshTx = !e.multi && !e.sqlite.AutoCommit()
	return nil
}

// refreshSchema reads the schema if it is another one. seen is the version before.
func (e *engine) refreshSchema(seen int64) error {
	schema, err := e.pragma(stmtSchemaVersion, schemaVersionSQL)
	if err != nil || schema == e.schemaVersion {
		return err
	}
	before := e.clockTables
	if err := e.readSchema(); err != nil {
		return err
	}
	if slices.ContainsFunc(before, func(clock string) bool { return !slices.Contains(e.clockTables, clock) }) {
		e.floor = max(e.floor, seen) // what another program has dropped
	}
	e.schemaVersion, e.readInTx = schema, true
	return nil
}

func (e *engine) pragma(kind statementKind, sql string) (int64, error) {
	st, err := e.stmts.get(statementKey{kind: kind}, func() string { return sql })
	if err != nil {
		return 0, err
	}
	n, ok, err := st.int64()
	if err == nil && !ok {
		err = errors.New("internal: a version pragma gave no number")
	}
	return n, err
}

// finalize closes the prepared statements; they are prepared again when needed.
func (e *engine) finalize() { e.stmts.release() }
