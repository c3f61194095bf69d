package crsql

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// whole checks that a node's writes are durable, tracked and of this transaction only, after something hostile, and that
// it has one note.
func (n *node) whole(after string) {
	n.t.Helper()
	n.tracks(after)
	if got := n.query("SELECT count(*) FROM note"); got[0] != "1 " {
		n.t.Fatalf("after %s there are %s notes", after, got[0])
	}
}

func (n *node) tracks(after string) {
	t := n.t
	t.Helper()
	before := n.state().Heads
	n.exec("UPDATE note SET title = title || '.' WHERE id = 1")
	if heads := n.state().Heads; heads.Own != before.Newest+1 {
		t.Fatalf("after %s a write is not tracked: heads %+v, then %+v", after, before, heads)
	}
}

// What one user of a DB runs must not stay on the connection that all share.
func TestHostileStatements(t *testing.T) {
	n := newNode(t, "n")
	n.script(noteSQL)
	n.exec("INSERT INTO note VALUES (1, 'mine', NULL, NULL)")
	ctx := context.Background()
	refused := []string{
		"CREATE TEMP TABLE note(id)", "create temporary table note(id)", "CREATE /* */ TEMP VIEW note AS SELECT 1", "CREATE TEMP TRIGGER x AFTER INSERT ON note BEGIN SELECT 1; END",
		"CREATE TABLE temp.note(id)", `CREATE TABLE "temp".note(id)`, "CREATE TABLE [TEMP] . note(id)", "CREATE VIEW IF NOT EXISTS temp.note AS SELECT 1", "CREATE TABLE temp.note AS SELECT 1",
		"CREATE TRIGGER temp.x AFTER INSERT ON main.note BEGIN SELECT 1; END", "CREATE VIRTUAL TABLE temp.note USING fts5(a)", "CREATE UNIQUE INDEX temp.i ON note(id)",
		"PRAGMA writable_schema=1", "PRAGMA query_only=1", "ATTACH ':memory:' AS x", "DETACH main", "VACUUM INTO '/tmp/x'", "BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT s", "RELEASE s",
		"\ufeffPRAGMA query_only=1", "\ufeffCOMMIT", "/**/\ufeff\ufeff BEGIN", " \vCOMMIT", "EXPLAIN PRAGMA query_only=1", "EXPLAIN QUERY PLAN PRAGMA recursive_triggers=1", "explain attach ':memory:' AS x",
		"EXPLAIN CREATE TEMP TABLE note(id)",
		"DELETE FROM note\x00 WHERE id = 5", "\x00", "", ";", "-- nothing", "SELECT 1; SELECT 2", "SELECT 'open", "SELECT load_extension('/tmp/x')", "NONSENSE",
		"INSERT OR ROLLBACK INTO note VALUES (1, 'again', NULL, NULL)", "UPDATE note SET id = NULL", "SELECT crsql_as_crr('nowhere')", "SELECT crsql_as_table()",
	}
	for _, sql := range refused {
		if _, err := n.db.Exec(ctx, sql); err == nil {
			t.Errorf("%q is run", sql)
		}
		n.whole(sql)
	}
	for _, sql := range []string{
		"SELECT crsql_internal_sync_bit(1)", "SELECT crsql_finalize()", "SELECT crsql_increment_and_get_seq()", "SELECT * FROM crsql_changes",
		"CREATE TABLE temp1(a); ", "DROP TABLE temp1", "CREATE VIEW tempting AS SELECT 1 AS temp", "DROP VIEW crsql_changes", "DROP VIEW tempting",
		"\ufeffSELECT 1", "EXPLAIN CREATE TRIGGER x AFTER INSERT ON note BEGIN SELECT 1; END", "EXPLAIN DELETE FROM note", "SELECT * FROM crsql_changes", "CREATE INDEX main.i ON note(title)",
	} {
		if _, err := n.db.Exec(ctx, sql); err != nil {
			t.Errorf("%q: %v", sql, err)
		}
		n.whole(sql)
	}
	for _, sql := range []string{
		"DELETE FROM note", "WITH x AS (SELECT 1) DELETE FROM note", "PRAGMA journal_mode=DELETE", "PRAGMA main.query_only=0", "BEGIN", "CREATE TEMP TABLE t(a)", "DELETE FROM note\x00", "EXPLAIN PRAGMA query_only=0", "\ufeffPRAGMA query_only=0",
		"INSERT INTO note VALUES (2, 'x', NULL, NULL) RETURNING id", "EXPLAIN", "SELECT 1; SELECT 2", "SELECT crsql_as_crr('note2')",
		"SELECT crsql_after_insert('note', 77)", "VALUES (crsql_next_db_version(9223372036854775807))",
	} {
		if _, err := n.db.Query(ctx, sql, nil, func([]changeset.Value) error { return nil }); err == nil {
			t.Errorf("%q is a query", sql)
		}
		n.whole(sql)
	}
	if got := n.query("EXPLAIN QUERY PLAN DELETE FROM note"); len(got) == 0 {
		t.Error("a plan is no query")
	}
	for range DefaultReaders + 1 {
		if got := n.query("SELECT count(*) FROM temp.sqlite_master WHERE name NOT LIKE 'crsql_changes%'"); got[0] != "0 " {
			t.Errorf("%s temporary objects are left", got)
		}
	}
}

// After SQLite has rolled a transaction back nothing of it may become durable, what the function does notwithstanding.
func TestWriteAfterRollback(t *testing.T) {
	n := newNode(t, "n")
	n.script(noteSQL)
	n.exec("INSERT INTO note VALUES (1, 'mine', NULL, NULL)")
	var kept *Tx
	err := n.db.Write(context.Background(), func(tx *Tx) error {
		kept = tx
		if _, err := tx.Exec("UPDATE note SET title = 'lost'"); err != nil {
			return err
		}
		_, _ = tx.Exec("INSERT OR ROLLBACK INTO note VALUES (1, 'again', NULL, NULL)")
		if _, err := tx.Exec("INSERT INTO note VALUES (2, 'alone', NULL, NULL)"); !errors.Is(err, errTxGone) {
			t.Errorf("the next statement: %v", err)
		}
		if err := tx.Script("SELECT 1; INSERT INTO note VALUES (2, 'alone', NULL, NULL)"); !errors.Is(err, errTxGone) {
			t.Errorf("the next script: %v", err)
		}
		if _, err := tx.Query("SELECT 1", nil, nil); !errors.Is(err, errTxGone) {
			t.Errorf("the next query: %v", err)
		}
		return nil
	})
	if !errors.Is(err, errTxGone) {
		t.Errorf("the write: %v", err)
	}
	equal(t, "notes", n.query("SELECT id, title FROM note"), []string{`1 "mine" `})
	// A Tx that somebody kept does nothing, not even in the transaction of another.
	err = n.db.Write(context.Background(), func(*Tx) error {
		for what, call := range map[string]func() error{
			"Exec":   func() error { _, err := kept.Exec("DELETE FROM note"); return err },
			"Script": func() error { return kept.Script("DELETE FROM note") },
			"Query":  func() error { _, err := kept.Query("SELECT 1", nil, nil); return err },
		} {
			if err := call(); err == nil || !strings.Contains(err.Error(), "only inside the function") {
				t.Errorf("%s of a kept Tx: %v", what, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	n.whole("a rolled back transaction")
}

// What a client turns off for its own transaction is on for the next.
func TestSyncBitOfDB(t *testing.T) {
	n := newNode(t, "n")
	n.script(noteSQL)
	n.exec("INSERT INTO note VALUES (1, 'mine', NULL, NULL)")
	n.script("SELECT crsql_internal_sync_bit(1); INSERT INTO note VALUES (2, 'hidden', NULL, NULL); DELETE FROM note WHERE id = 2")
	n.whole("the triggers were turned off")
	n.apply(Group{Origin: siteX, Version: 1, Changes: []changeset.Change{title(1, "theirs", 9)}})
	n.whole("a merge")
}
