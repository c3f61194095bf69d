package crsql

import (
	"errors"
	"fmt"

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
	schemaVersion int64             // PRAGMA schema_version that the tables were read at
	dataVersion   int64             // PRAGMA data_version, which moves when another connection commits
	tables        map[string]*table // the CRRs by name
	order         []*table          // the CRRs in the order of their creation
	clockTables   []string          // all clock tables, also those whose table is gone
	ordinals      map[changeset.SiteID]int64

	dbVersion    int64 // as of the last commit
	pending      int64 // that this transaction gives its rows; unknown if it has written none
	seq          int64 // the next in this transaction
	rowsImpacted int64 // by merges in this transaction
	syncBit      int64 // not 0: triggers stay quiet

	// State of the statement that runs.
	fresh      bool  // refresh has been done
	multi      bool  // the text holds several statements, so that each may change what refresh looks at
	committed  bool  // the commit hook has run
	quiet      bool  // the engine works on its own temporary objects: no commit worth a notice
	merging    bool  // applyChanges runs
	mergeAuto  bool  // it runs outside an explicit transaction
	readInTx   bool  // the schema was read in this transaction, and a rollback may revert it
	viewSchema int64 // schemaVersion that crsql_changes was made for

	nesting    int      // of SQL functions
	panicked   any      // by onRollback
	unfinished []string // savepoints that are to be rolled back and released, in order, once the statement is over

	merger rowMerge // of the row that is being merged; kept for its buffers
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
	c.RegisterCommitHook(e.commitHook)
	c.RegisterRollbackHook(e.rollbackHook)
	return e, nil
}

// commitHook runs inside the commit: it must not touch the connection.
func (e *engine) commitHook() int {
	if e.quiet {
		return 0
	}
	// After a commit without rows this is unknown, and read again: the stock engine's rule.
	e.dbVersion = e.pending
	e.endTransaction()
	e.committed = true
	return 0
}

// rollbackHook runs inside the rollback: it must not touch the connection.
func (e *engine) rollbackHook() {
	if e.committed { // the commit failed after its hook
		e.dbVersion, e.committed = unknown, false
	}
	e.endTransaction()
	e.forget()
	if e.onRollback != nil {
		defer func() { e.panicked = recover() }() // it must not pass through C: leave passes it on
		e.onRollback()
	}
}

func (e *engine) endTransaction() {
	e.pending, e.seq, e.rowsImpacted, e.readInTx = unknown, 0, 0, false
}

// forget drops what was read in a transaction that has been undone, wholly or up to a savepoint.
func (e *engine) forget() {
	clear(e.ordinals)
	e.viewSchema = unknown
	e.fresh = false
	if e.readInTx {
		e.schemaVersion = unknown
	}
}

// enter is called before each statement that the connection's user runs, leave after it.
func (e *engine) enter(t text) error {
	if err := e.finishUndo(); err != nil {
		return err
	}
	e.fresh, e.multi, e.committed = false, t.multi, false
	if t.rollback {
		e.readInTx = true
		e.forget()
	}
	if t.changes {
		return e.ensureView()
	}
	return nil
}

func (e *engine) leave(t text, err error) {
	if p := e.panicked; p != nil {
		e.panicked = nil
		panic(p)
	}
	if len(e.unfinished) > 0 {
		_ = e.finishUndo() // or the next statement does
	}
	if err != nil || t.rollback {
		e.forget()
	}
	if t.drop {
		e.viewSchema = unknown
	}
	if e.committed {
		e.committed = false
		if err == nil && e.onCommit != nil {
			e.onCommit()
		}
	}
}

// finishUndo undoes what a statement that was interrupted could not: within it everything is interrupted, and as long as
// rows are open beside it.
func (e *engine) finishUndo() error {
	for len(e.unfinished) > 0 {
		last := e.unfinished[len(e.unfinished)-1]
		err := error(nil)
		if !e.sqlite.AutoCommit() { // otherwise SQLite has rolled back all
			err = errors.Join(e.exec("ROLLBACK TO "+last), e.exec("RELEASE "+last))
			e.readInTx = true
			e.forget()
		}
		if isInterrupt(err) {
			return fmt.Errorf("undo what was interrupted: %w", err)
		}
		e.unfinished = e.unfinished[:len(e.unfinished)-1]
		if err != nil {
			return err
		}
	}
	return nil
}

// refresh brings what the engine knows of the database up to date, at most once a statement.
func (e *engine) refresh() error {
	if e.fresh && !e.multi {
		return nil
	}
	schema, err := e.pragma(stmtSchemaVersion, "PRAGMA main.schema_version")
	if err != nil {
		return err
	}
	if schema != e.schemaVersion {
		if err := e.readSchema(); err != nil {
			return err
		}
		e.schemaVersion, e.readInTx = schema, true
	}
	data, err := e.pragma(stmtDataVersion, "PRAGMA main.data_version")
	if err != nil {
		return err
	}
	if data != e.dataVersion {
		if err := e.readSiteID(); err != nil {
			return err
		}
		e.dataVersion, e.dbVersion = data, unknown
		clear(e.ordinals)
	}
	if e.multi {
		clear(e.ordinals)
	}
	e.fresh = true
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
