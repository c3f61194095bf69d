package crsql

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	used := newNode(t, "used").path
	link := filepath.Join(dir, "link")
	if err := os.Symlink(used, link); err != nil {
		t.Fatal(err)
	}
	damaged := write("damaged", string(header)+strings.Repeat("x", 4096))
	for path, want := range map[string]string{
		"":                                 "name a file",
		":memory:":                         "name a file",
		dir:                                "is a directory",
		filepath.Join(dir, "none", "x.db"): "create it first",
		filepath.Join(damaged, "x.db"):     "is no directory",
		write("text", "this is not a database at all"): "is not an SQLite database",
		write("short", "SQL"):                          "is not an SQLite database",
		damaged:                                        "is not an SQLite database",
		used:                                           "is in use already (" + used + LockSuffix,
		link:                                           "is in use already (" + used + LockSuffix,
	} {
		db, err := Open(context.Background(), path, Options{BusyTimeout: time.Second})
		if err == nil {
			t.Errorf("%s: opened", path)
			_ = db.Close()
			continue
		}
		if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %q, want %q", path, err, want)
		}
		if errors.Is(err, ErrInUse) != strings.Contains(want, "in use") {
			t.Errorf("%s: ErrInUse or not: %v", path, err)
		}
	}
}

func TestOpenLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "n")
	other, err := sql.Open("sqlite3", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	for _, s := range []string{"PRAGMA locking_mode=EXCLUSIVE", "CREATE TABLE x (a)"} {
		if _, err := other.Exec(s); err != nil {
			t.Fatal(err)
		}
	}
	_, err = Open(context.Background(), path, Options{BusyTimeout: 50 * time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), "is locked by another program") {
		t.Errorf("got %v", err)
	}
}

func TestOddPaths(t *testing.T) {
	for _, name := range []string{"a b", "ä?mode=ro", "100%25#x", "file:x", "'q\""} {
		path := filepath.Join(t.TempDir(), name)
		n := openNode(t, path)
		n.script(noteSQL)
		if _, err := os.Stat(path); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := n.query("SELECT count(*) FROM note"); got[0] != "0 " {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestClosed(t *testing.T) {
	n := newNode(t, "n")
	if err := n.db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := n.db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := n.db.Exec(context.Background(), "CREATE TABLE x (a)"); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
	if _, err := n.State(context.Background()); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
	openNode(t, n.path) // the lock went with it
}

func TestRefusedStatements(t *testing.T) {
	n := newNode(t, "n")
	n.script(noteSQL)
	for sql, want := range map[string]string{
		"BEGIN":                               "in a transaction already",
		" -- x\n COMMIT":                      "in a transaction already",
		"rollback to x":                       "in a transaction already",
		"ATTACH 'x' AS y":                     "one database",
		"VACUUM":                              "cannot run in a transaction",
		"PRAGMA synchronous=OFF":              "PRAGMA is not allowed",
		"":                                    "no SQL statement",
		"SELECT 1; SELECT 2":                  "more than one",
		"SELECT 'x":                           "never closed",
		"INSERT INTO note (id) VALUES (?, 1)": "2 values for 1",
		"INSERT INTO note (id) VALUES (?)":    "1 parameters, and was given 0",
		"INSERT INTO nowhere VALUES (1)":      "no such table",
		"INSERT OR ROLLBACK INTO note (id) VALUES (5), (5)": "UNIQUE",
	} {
		if _, err := n.db.Exec(context.Background(), sql); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", sql, err, want)
		}
	}
	for sql, want := range map[string]string{
		"DELETE FROM note":                      "a query reads",
		"WITH x AS (SELECT 1) DELETE FROM note": "a query reads",
		"PRAGMA query_only=0":                   "of PRAGMAs",
		"SELECT 1; DELETE FROM note":            "more than one",
		"SELECT * FROM note WHERE id = ?":       "1 parameters, and was given 0",
	} {
		if _, err := n.db.Query(context.Background(), sql, nil, func([]changeset.Value) error { return nil }); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", sql, err, want)
		}
	}
	// A reader could not write if it were let.
	err := n.db.snapshot(context.Background(), func(s *session) error { return s.run(context.Background(), "DELETE FROM note") })
	if err == nil || !strings.Contains(err.Error(), "readonly") {
		t.Errorf("got %v", err)
	}
	err = n.db.Write(context.Background(), func(tx *Tx) error {
		_, _ = tx.Exec("INSERT OR ROLLBACK INTO note (id) VALUES (5), (5)")
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "nothing was written") {
		t.Errorf("got %v", err)
	}
}

func TestQuery(t *testing.T) {
	n := newNode(t, "n")
	n.script("CREATE TABLE v (a TIMESTAMP, b BOOLEAN, c DATE, d)")
	if r := n.exec("INSERT INTO v VALUES (?, ?, ?, ?), (1, 2, 3, 4)", 1700000000000, 5, "2024-01-01", []byte{}); r != (Result{RowsAffected: 2, LastInsertID: 2}) {
		t.Errorf("result %+v", r)
	}
	if r := n.exec("CREATE TABLE w (a)"); r != (Result{}) {
		t.Errorf("a statement that writes no row, after one that did: %+v", r)
	}
	for range 2 { // the second time the statement comes from a cache
		equal(t, "rows", n.query("SELECT * FROM v"), []string{`1700000000000 5 "2024-01-01" x'' `, "1 2 3 4 "})
	}
	columns, err := n.db.Query(context.Background(), "SELECT a AS x, d AS x, 1+1 FROM v WHERE 0", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "columns", columns, []string{"x", "x", "1+1"})
	for _, sql := range []string{
		"WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i) SELECT n FROM i",
		"WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i) SELECT zeroblob(10000000) FROM i",
	} {
		_, err := n.db.Query(context.Background(), sql, nil, func([]changeset.Value) error { return nil })
		if !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: got %v", sql, err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err = n.db.Query(ctx, "WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i) SELECT count(*) FROM i", nil, func([]changeset.Value) error { return nil })
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	equal(t, "rows afterwards", n.query("SELECT count(*) FROM v"), []string{"2 "})
}

// A full disk is told with what to do, and the database goes on once there is room.
func TestFullDisk(t *testing.T) {
	n := newNode(t, "n")
	n.script("CREATE TABLE v (a)")
	pages := func(most string) {
		t.Helper()
		if err := n.db.transact(context.Background(), func(s *session) error {
			return s.run(context.Background(), "PRAGMA max_page_count = "+most)
		}); err != nil {
			t.Fatal(err)
		}
	}
	pages("1") // that is, as many as there are
	_, err := n.db.Exec(context.Background(), "INSERT INTO v VALUES (zeroblob(100000))")
	if err == nil || !strings.Contains(err.Error(), "no room left for the database "+n.path) || !strings.Contains(err.Error(), "free some space") {
		t.Errorf("got %v", err)
	}
	pages("100000")
	n.exec("INSERT INTO v VALUES (zeroblob(100000))")
}

func TestScript(t *testing.T) {
	n := newNode(t, "n")
	n.script("-- a ; comment\n" + noteSQL + `;;
		CREATE TABLE done (x); /* ; */
		CREATE TRIGGER more AFTER INSERT ON done BEGIN
			INSERT INTO note (id, title) VALUES (NEW.x, CASE WHEN 1 THEN 'a;b' END);
			SELECT CASE WHEN 1 THEN 2 END;
		END;
		INSERT INTO done VALUES (1); INSERT INTO done VALUES (2)`)
	equal(t, "notes", n.query("SELECT id, title FROM note"), []string{`1 "a;b" `, `2 "a;b" `})
	for script, want := range map[string]string{
		"INSERT INTO done VALUES (3);\n\nINSERT INTO gone VALUES (1)":   "line 3: no such table: gone",
		"INSERT INTO done VALUES (3);\n/* x\n */ COMMIT":                "line 3: COMMIT is not allowed",
		"INSERT INTO done VALUES (3);\n INSERT INTO done VALUES ('open": "line 2: the ' that opens there",
	} {
		if err := n.db.ExecScript(context.Background(), script); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", script, err, want)
		}
	}
	equal(t, "what was done", n.query("SELECT * FROM done"), []string{"1 ", "2 "})
}

// TestWritersTakeTurns: writes of many goroutines are whole, and one that is not wanted any more does not wait.
func TestWritersTakeTurns(t *testing.T) {
	n := newNode(t, "n")
	n.script("CREATE TABLE c (n INTEGER); INSERT INTO c VALUES (0)")
	var wg sync.WaitGroup
	for range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range 5 {
				err := n.db.Write(context.Background(), func(tx *Tx) error {
					var seen changeset.Value
					if _, err := tx.Query("SELECT n FROM c", nil, func(row []changeset.Value) error { seen = row[0]; return nil }); err != nil {
						return err
					}
					_, err := tx.Exec("UPDATE c SET n = ?", values(seen.Int64()+1)...)
					return err
				})
				if err != nil {
					t.Error(err)
				}
			}
		}()
	}
	wg.Wait()
	equal(t, "count", n.query("SELECT n FROM c"), []string{"40 "})

	other, err := sql.Open("sqlite3", n.path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	conn, err := other.Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.ExecContext(context.Background(), "BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if _, err := n.db.Exec(ctx, "DELETE FROM c"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	n.db.busy = 10 * time.Millisecond
	if _, err := n.db.Exec(context.Background(), "DELETE FROM c"); !errors.Is(err, ErrWriteLocked) {
		t.Errorf("got %v", err)
	}
	if _, err := conn.ExecContext(context.Background(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	n.exec("DELETE FROM c")
}
