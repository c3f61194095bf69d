package crsql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mattn/go-sqlite3"
)

// A pool is a database/sql pool, with one connection unless a test says otherwise.
type pool struct {
	t *testing.T
	*sql.DB
}

func openPool(t *testing.T, dsn string, size int) *pool {
	t.Helper()
	db, err := sql.Open(DriverName, dsn)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(size)
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return &pool{t: t, DB: db}
}

// memoryPool is a pool with one CRR, t, in memory: if its connection were closed, the table would be gone.
func memoryPool(t *testing.T) *pool {
	t.Helper()
	p := openPool(t, ":memory:", 1)
	p.exec("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, x); SELECT crsql_as_crr('t'); INSERT INTO t VALUES (1, 1)")
	return p
}

func (p *pool) exec(query string, args ...any) {
	p.t.Helper()
	if _, err := p.Exec(query, args...); err != nil {
		p.t.Fatalf("%s: %v", query, err)
	}
}

func (p *pool) int(query string, args ...any) (n int64) {
	p.t.Helper()
	if err := p.QueryRow(query, args...).Scan(&n); err != nil {
		p.t.Fatalf("%s: %v", query, err)
	}
	return n
}

func (p *pool) conn() *sql.Conn {
	p.t.Helper()
	c, err := p.Conn(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	return c
}

func (p *pool) begin(opts *sql.TxOptions) *sql.Tx {
	p.t.Helper()
	tx, err := p.BeginTx(p.t.Context(), opts)
	if err != nil {
		p.t.Fatal(err)
	}
	return tx
}

// usable checks that the next user finds the pool's database as the first left it, and can write, with clocks.
func (p *pool) usable(after string) {
	p.t.Helper()
	before := p.int("SELECT col_version FROM crsql_changes WHERE pk = x'010901'")
	p.exec("UPDATE t SET x = x + 1 WHERE id = 1")
	if now := p.int("SELECT col_version FROM crsql_changes WHERE pk = x'010901'"); now != before+1 {
		p.t.Fatalf("after %s the cell's version went from %d to %d", after, before, now)
	}
	if n := p.int("SELECT count(*) FROM t WHERE id > 1"); n != 0 {
		p.t.Fatalf("after %s %d rows are there that were never committed", after, n)
	}
	c := p.conn()
	defer c.Close()
	if err := c.Raw(func(raw any) error {
		if !raw.(*conn).sqlite.AutoCommit() {
			p.t.Errorf("after %s a transaction is open", after)
		}
		return nil
	}); err != nil {
		p.t.Fatal(err)
	}
}

// A user that gives a connection back to the pool must not poison the next.
func TestPoolAfterABadUser(t *testing.T) {
	for name, misuse := range map[string]string{
		"transaction":        "BEGIN; INSERT INTO t VALUES (2, 2)",
		"immediate":          "BEGIN IMMEDIATE",
		"savepoint":          "SAVEPOINT s; INSERT INTO t VALUES (2, 2)",
		"triggers off":       "SELECT crsql_internal_sync_bit(1)",
		"both":               "BEGIN; SELECT crsql_internal_sync_bit(1); INSERT INTO t VALUES (2, 2)",
		"view dropped":       "SELECT * FROM crsql_changes; DROP VIEW crsql_changes",
		"trigger dropped":    "SELECT * FROM crsql_changes; DROP TRIGGER crsql_changes_insert",
		"statements closed":  "SELECT crsql_finalize()",
		"rolled back itself": "BEGIN; INSERT INTO t VALUES (2, 2); ROLLBACK",
	} {
		t.Run(name, func(t *testing.T) {
			p := memoryPool(t)
			for range 2 {
				c := p.conn()
				if _, err := c.ExecContext(t.Context(), misuse); err != nil {
					t.Fatal(err)
				}
				if err := c.Close(); err != nil {
					t.Fatal(err)
				}
				p.usable(name)
				p.exec("INSERT INTO crsql_changes VALUES ('t', x'010901', 'x', 5, 1, 1, x'aa', 1, 0)")
				p.exec(misuse) // without holding a connection
				p.usable(name)
			}
		})
	}
}

// A transaction whose context ends is rolled back, and the connection kept: a database in memory would be lost with it.
func TestTxContext(t *testing.T) {
	p := memoryPool(t)
	for i := range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		tx, err := p.BeginTx(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.ExecContext(t.Context(), "INSERT INTO t VALUES (2, 2)"); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			cancel()
		} else {
			go cancel()
			_, err = tx.ExecContext(ctx, hours+"SELECT count(*) FROM n")
			if !errors.Is(err, context.Canceled) && !errors.Is(err, sql.ErrTxDone) {
				t.Fatalf("an endless query: %v", err)
			}
		}
		if err := tx.Commit(); err == nil {
			t.Fatal("a cancelled transaction is committed")
		}
		cancel()
		p.usable("a cancelled transaction")
	}
	tx := p.begin(nil)
	if _, err := tx.Exec("UPDATE t SET x = 9"); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := tx.Rollback(); !errors.Is(err, sql.ErrTxDone) {
		t.Errorf("a rollback after the commit: %v", err)
	}
	if _, err := tx.Exec("SELECT 1"); !errors.Is(err, sql.ErrTxDone) {
		t.Errorf("a statement after the commit: %v", err)
	}
}

// What runs in a transaction that SQLite has rolled back would be durable statement by statement.
func TestTxRolledBackBySQLite(t *testing.T) {
	for name, lose := range map[string]string{
		"conflict clause":  "INSERT OR ROLLBACK INTO t VALUES (1, 1)",
		"raise":            "INSERT INTO t VALUES (-1, 1)",
		"rolled back":      "ROLLBACK",
		"committed itself": "COMMIT",
	} {
		t.Run(name, func(t *testing.T) {
			p := memoryPool(t)
			p.exec("CREATE TRIGGER no BEFORE INSERT ON t WHEN NEW.id = -1 BEGIN SELECT RAISE(ROLLBACK, 'no'); END")
			tx := p.begin(nil)
			st, err := tx.Prepare("INSERT INTO t VALUES (3, 3)")
			if err != nil {
				t.Fatal(err)
			}
			_, _ = tx.Exec(lose)
			if _, err := tx.Exec("INSERT INTO t VALUES (2, 2)"); !errors.Is(err, errTxGone) {
				t.Errorf("a statement after the end: %v", err)
			}
			if _, err := st.Exec(); !errors.Is(err, errTxGone) {
				t.Errorf("a prepared one: %v", err)
			}
			var n int
			if err := tx.QueryRow("SELECT count(*) FROM t").Scan(&n); !errors.Is(err, errTxGone) {
				t.Errorf("a query: %v", err)
			}
			if err := tx.Rollback(); err != nil {
				t.Errorf("Rollback: %v", err)
			}
			p.usable(name)
		})
	}
}

func TestTxOptions(t *testing.T) {
	p := memoryPool(t)
	tx := p.begin(&sql.TxOptions{ReadOnly: true})
	for _, write := range []string{
		"INSERT INTO t VALUES (2, 2)", "CREATE TABLE u(id)", "SELECT crsql_as_table('t')", "DELETE FROM crsql_site_id",
		"INSERT INTO crsql_changes VALUES ('t', x'010902', 'x', 5, 1, 1, x'aa', 1, 0)",
	} {
		if _, err := tx.Exec(write); err == nil || !strings.Contains(err.Error(), "readonly") {
			t.Errorf("%s in a read-only transaction: %v", write, err)
		}
	}
	var n int
	if err := tx.QueryRow("SELECT count(*) FROM crsql_changes").Scan(&n); err != nil || n != 1 {
		t.Errorf("%d changes, %v", n, err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	p.usable("a read-only transaction")
	if err := p.begin(&sql.TxOptions{ReadOnly: true}).Rollback(); err != nil {
		t.Fatal(err)
	}
	p.usable("one that was rolled back")
	p.exec("PRAGMA query_only=1")
	if err := p.begin(&sql.TxOptions{ReadOnly: true}).Commit(); err != nil {
		t.Fatal(err)
	}
	if n := p.int("PRAGMA query_only"); n != 1 {
		t.Error("a read-only transaction has made a read-only connection writable")
	}
	p.exec("PRAGMA query_only=0")
	for level, want := range map[sql.IsolationLevel]bool{
		sql.LevelDefault: true, sql.LevelReadCommitted: true, sql.LevelSnapshot: true, sql.LevelSerializable: true, sql.LevelLinearizable: false, -1: false,
	} {
		tx, err := p.BeginTx(t.Context(), &sql.TxOptions{Isolation: level})
		if (err == nil) != want {
			t.Errorf("isolation level %v: %v", level, err)
		}
		if err == nil {
			if err := tx.Rollback(); err != nil {
				t.Error(err)
			}
		}
	}
	p.usable("transactions of all levels")
}

// Everything after its end says so, and nothing is a panic.
func TestUseAfterEnd(t *testing.T) {
	p := memoryPool(t)
	c := p.conn()
	st, err := c.PrepareContext(t.Context(), "INSERT INTO t VALUES (?, 1)")
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := st.Exec(2); err == nil {
		t.Error("a closed statement runs")
	}
	rows, err := c.QueryContext(t.Context(), "SELECT 1 UNION SELECT 2")
	if err != nil {
		t.Fatal(err)
	}
	if err := rows.Close(); err != nil {
		t.Fatal(err)
	}
	if rows.Next() || rows.Close() != nil {
		t.Error("closed rows go on")
	}
	if _, err := rows.Columns(); err == nil {
		t.Error("closed rows have columns")
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ExecContext(t.Context(), "SELECT 1"); !errors.Is(err, sql.ErrConnDone) {
		t.Errorf("a closed connection: %v", err)
	}
	p.usable("use after the end")

	// The same past database/sql.
	raw, err := (&Driver{}).Open(filepath.Join(t.TempDir(), "a.db"))
	if err != nil {
		t.Fatal(err)
	}
	own := raw.(*conn)
	inner, err := own.Prepare("SELECT ?")
	if err != nil {
		t.Fatal(err)
	}
	opened, err := inner.(*stmt).Query([]driver.Value{int64(1)})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := opened.Close(); err != nil {
			t.Error(err)
		}
		if err := inner.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := opened.Next(make([]driver.Value, 1)); err == nil {
		t.Error("closed rows go on")
	}
	if _, err := inner.(*stmt).Query(nil); !errors.Is(err, errStmtClosed) {
		t.Errorf("a closed statement: %v", err)
	}
	if _, err := inner.(*stmt).Exec(nil); !errors.Is(err, errStmtClosed) {
		t.Errorf("a closed statement: %v", err)
	}
	for range 2 {
		if err := own.Close(); err != nil {
			t.Error(err)
		}
	}
	if own.IsValid() {
		t.Error("a closed connection is valid")
	}
	ctx := t.Context()
	for what, call := range map[string]func() error{
		"Exec":    func() error { _, err := own.ExecContext(ctx, "SELECT 1", nil); return err },
		"Query":   func() error { _, err := own.QueryContext(ctx, "SELECT 1", nil); return err },
		"Prepare": func() error { _, err := own.Prepare("SELECT 1"); return err },
		"Begin":   func() error { _, err := own.Begin(); return err },
		"Ping":    func() error { return own.Ping(ctx) },
		"Reset":   func() error { return own.ResetSession(ctx) },
	} {
		if err := call(); !errors.Is(err, driver.ErrBadConn) {
			t.Errorf("%s on a closed connection: %v", what, err)
		}
	}
}

// A connection that its user closed behind database/sql's back is replaced.
func TestRawMisuse(t *testing.T) {
	p := openPool(t, filepath.Join(t.TempDir(), "a.db"), 1)
	p.exec("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, x); SELECT crsql_as_crr('t'); INSERT INTO t VALUES (1, 1)")
	c := p.conn()
	if err := c.Raw(func(raw any) error { return raw.(driver.Conn).Close() }); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ExecContext(t.Context(), "SELECT 1"); !errors.Is(err, driver.ErrBadConn) {
		t.Errorf("got %v", err)
	}
	_ = c.Close() // which says that it is bad, too
	p.usable("a connection that was closed by its user")
	// Also with rows and a transaction open: SQLite then keeps the connection until the rows are closed.
	c = p.conn()
	if _, err := c.ExecContext(t.Context(), "BEGIN; INSERT INTO t VALUES (2, 2)"); err != nil {
		t.Fatal(err)
	}
	rows, err := c.QueryContext(t.Context(), hours+"SELECT crsql_db_version() FROM n")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Raw(func(raw any) error { return raw.(driver.Conn).Close() }); err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
	}
	if err := rows.Err(); !errors.Is(err, driver.ErrBadConn) {
		t.Errorf("rows of a closed connection: %v", err)
	}
	_ = rows.Close() // which says that it is closed
	_ = c.Close()
	runtime.GC()
	runtime.GC() // mattn's finalizers
	p.usable("a connection that was closed with rows open")
	defer func() {
		if recover() == nil {
			t.Error("database/sql passes on a panic in Raw")
		}
		p.usable("a panic in Raw")
	}()
	c = p.conn()
	defer c.Close()
	_ = c.Raw(func(any) error { panic("in Raw") })
}

// With one connection, rows that nobody closes keep all others out, for as long as their contexts live.
func TestRowsLeftOpen(t *testing.T) {
	p := memoryPool(t)
	rows, err := p.Query(hours + "SELECT i FROM n")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := p.ExecContext(ctx, "SELECT 1"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if !rows.Next() {
		t.Error("the rows are gone")
	}
	if err := rows.Close(); err != nil {
		t.Error(err)
	}
	p.usable("rows that were left open")
	// Those whose context ends are closed by database/sql.
	ctx, cancel = context.WithCancel(t.Context())
	rows, err = p.QueryContext(ctx, hours+"SELECT i FROM n")
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	p.usable("rows whose context has ended")
	for rows.Next() {
	}
	if err := rows.Err(); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// On one connection rows stay open while other statements run, also such as change the schema or are cancelled.
func TestRowsBesideOthers(t *testing.T) {
	d := openTest(t, ":memory:")
	n := newNeighbour(d)
	d.run("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, x); SELECT crsql_as_crr('t')")
	d.run("WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n LIMIT 100) INSERT INTO t SELECT i, i FROM n")
	rows, err := d.conn.QueryContext(t.Context(), "SELECT seq FROM crsql_changes WHERE \"table\" = 't'")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	read := 0
	for _, step := range []string{
		"UPDATE t SET x = x + 1 WHERE id = 50", "INSERT INTO t VALUES (1000, 1)", "DELETE FROM t WHERE id = 99",
		"SELECT count(*) FROM crsql_changes", "INSERT INTO crsql_changes VALUES ('t', x'010901', 'x', 5, 9, 1, x'aa', 1, 0)",
		"SELECT crsql_finalize()", "SELECT 1",
	} {
		if !rows.Next() {
			t.Fatalf("before %s the rows end: %v", step, rows.Err())
		}
		read++
		d.run(step)
	}
	d.run("CREATE TABLE more(id INTEGER PRIMARY KEY NOT NULL); SELECT crsql_as_crr('more'); INSERT INTO more VALUES (1)")
	if n := d.int("SELECT count(*) FROM crsql_changes WHERE \"table\" = 'more'"); n != 1 {
		t.Errorf("%d changes of a table made beside the rows", n)
	}
	for rows.Next() {
		read++
	}
	if err := rows.Err(); err != nil || read != 100 {
		t.Errorf("%d rows, %v", read, err)
	}
	rows.Close()
	n.unharmed("statements beside rows")
	if got := d.int("SELECT count(*) FROM crsql_changes WHERE \"table\" = 't'"); got != 101 {
		t.Errorf("%d changes", got)
	}
}

// A prepared statement outlives changes of the schema, also one that reads crsql_changes.
func TestPreparedAcrossSchemas(t *testing.T) {
	p := memoryPool(t)
	changes, err := p.Prepare("SELECT count(*) FROM crsql_changes")
	if err != nil {
		t.Fatal(err)
	}
	defer changes.Close()
	insert, err := p.Prepare("INSERT INTO crsql_changes VALUES (?, x'010905', ?, 1, 1, 1, x'aa', 1, 0)")
	if err != nil {
		t.Fatal(err)
	}
	defer insert.Close()
	write, err := p.Prepare("UPDATE t SET x = ?")
	if err != nil {
		t.Fatal(err)
	}
	defer write.Close()
	for i := 2; i < 6; i++ {
		name := fmt.Sprintf("u%d", i)
		p.exec("CREATE TABLE " + name + "(id INTEGER PRIMARY KEY NOT NULL, y); SELECT crsql_as_crr('" + name + "')")
		if _, err := insert.Exec(name, "y"); err != nil {
			t.Fatal(err)
		}
		p.exec("ALTER TABLE t ADD COLUMN " + name)
		if _, err := write.Exec(i); err == nil { // its triggers do not know the column
			t.Fatal("a table was altered behind the engine's back, and written")
		} else if !strings.Contains(err.Error(), "crsql_begin_alter") {
			t.Fatal(err)
		}
		p.exec("ALTER TABLE t DROP COLUMN " + name)
		if _, err := write.Exec(i); err != nil {
			t.Fatal(err)
		}
		var n int
		if err := changes.QueryRow().Scan(&n); err != nil || n != i {
			t.Errorf("%d changes, %v", n, err)
		}
	}
	p.exec("DROP TABLE u5; SELECT crsql_as_table('u4')")
	if _, err := insert.Exec("u4", "y"); err == nil {
		t.Error("a table that is no CRR any more takes changes")
	}
	if _, err := insert.Exec("u3", "y"); err != nil {
		t.Error(err)
	}
}

func TestArguments(t *testing.T) {
	p := memoryPool(t)
	p.exec("UPDATE t SET x = :x WHERE id = $id", sql.Named("id", 1), sql.Named("x", 7))
	if n := p.int("SELECT x FROM t WHERE id = @id", sql.Named("id", 1)); n != 7 {
		t.Errorf("x is %d", n)
	}
	p.exec("UPDATE t SET x = ? WHERE id = ?; UPDATE t SET x = x + ?", 1, 1, 2)
	if n := p.int("SELECT x FROM t"); n != 3 {
		t.Errorf("x is %d", n)
	}
	for _, call := range []func() error{
		func() error { _, err := p.Exec("UPDATE t SET x = ?"); return err },
		func() error { _, err := p.Exec("UPDATE t SET x = ?; SELECT ?", 1); return err },
		func() error { _, err := p.Exec("SELECT ?", struct{}{}); return err },
		func() error { _, err := p.Exec("SELECT ?", make(chan int)); return err },
		func() error { _, err := p.Exec("DELETE FROM t\x00 WHERE id = 5"); return err },
		func() error { _, err := p.Prepare("DELETE FROM t\x00 WHERE id = 5"); return err },
		func() error {
			rows, err := p.Query("DELETE FROM t\x00 WHERE id = 5")
			return errors.Join(err, closeRows(rows))
		},
		func() error { _, err := p.Exec("NONSENSE"); return err },
		func() error { _, err := p.Query("SELECT * FROM nowhere"); return err },
	} {
		if err := call(); err == nil {
			t.Error("nonsense is accepted")
		}
		p.exec("UPDATE t SET x = 3")
	}
	var moment time.Time
	if err := p.QueryRow("SELECT ?", time.Unix(5, 0)).Scan(new(any)); err != nil {
		t.Error(err)
	}
	p.exec("CREATE TABLE typed(id INTEGER, at TIMESTAMP, ok BOOLEAN, name VARCHAR(5))")
	p.exec("INSERT INTO typed VALUES (1, ?, true, 'x')", time.Unix(5, 0).UTC())
	rows, err := p.Query("SELECT * FROM typed")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	types, err := rows.ColumnTypes() // mattn's, through the wrapper
	if err != nil || types[1].DatabaseTypeName() != "TIMESTAMP" || types[3].ScanType() != reflect.TypeFor[sql.NullString]() {
		t.Errorf("column types %v, %v", types, err)
	}
	rows.Next()
	var id int
	var ok bool
	var name string
	if err := rows.Scan(&id, &moment, &ok, &name); err != nil || !moment.Equal(time.Unix(5, 0)) || !ok {
		t.Errorf("scanned %v %v, %v", moment, ok, err)
	}
	if err := rows.Close(); err != nil {
		t.Error(err)
	}
	p.usable("arguments of all kinds")
}

func closeRows(rows *sql.Rows) error {
	if rows == nil {
		return nil
	}
	return rows.Close()
}

// A write through Query is done whether or not its rows are read.
func TestReturning(t *testing.T) {
	p := memoryPool(t)
	rows, err := p.Query("INSERT INTO t VALUES (2, 2), (3, 3) RETURNING id")
	if err != nil {
		t.Fatal(err)
	}
	if err := rows.Close(); err != nil {
		t.Fatal(err)
	}
	if n := p.int("SELECT count(*) FROM crsql_changes"); n != 3 {
		t.Errorf("%d changes", n)
	}
	p.exec("DELETE FROM t WHERE id > 1")
	p.usable("rows that were not read")
	_, err = p.Exec("INSERT INTO t VALUES (1, 1)")
	var code sqlite3.Error
	if !errors.As(err, &code) || code.ExtendedCode != sqlite3.ErrConstraintPrimaryKey {
		t.Errorf("got %v, want SQLite's own error", err)
	}
	if _, direct := err.(sqlite3.Error); !direct { // as with mattn's driver, for those that do not unwrap
		t.Errorf("got %T", err)
	}
}

func TestDSN(t *testing.T) {
	for dsn, want := range map[string]string{
		":memory:?_mutex=no":                                   "_mutex=no",
		"file::memory:?_mutex=no&x=1":                          "_mutex=no",
		"file::memory:?_busy_timeout=x":                        "_busy_timeout",
		"file:" + filepath.Join(t.TempDir(), "no", "where.db"): "unable to open",
		"file::memory:?%zz":                                    "",
	} {
		if c, err := (&Driver{}).Open(dsn); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v", dsn, c, err)
		}
	}
}

// Many users of one pool on one file: each write is tracked once, whatever happens to the others.
func TestPoolConcurrently(t *testing.T) {
	p := openPool(t, "file:"+filepath.Join(t.TempDir(), "a.db")+"?_journal_mode=WAL&_busy_timeout=20000&_txlock=immediate", 4)
	p.exec("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, x); SELECT crsql_as_crr('t'); INSERT INTO t VALUES (1, 0)")
	const users, writes = 8, 30
	var wg sync.WaitGroup
	for user := range users {
		wg.Go(func() {
			for i := range writes {
				switch (user + i) % 4 {
				case 0: // a transaction that is rolled back
					tx, err := p.Begin()
					if err != nil {
						t.Error(err)
						return
					}
					if _, err := tx.Exec("UPDATE t SET x = x + 1000"); err != nil {
						t.Error(err)
					}
					if err := tx.Rollback(); err != nil {
						t.Error(err)
					}
				case 1: // a query that is cancelled
					ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
					_, err := p.ExecContext(ctx, hours+"SELECT count(*) FROM n")
					cancel()
					if !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("a cancelled query: %v", err)
					}
				case 2: // somebody who leaves things behind
					if _, err := p.Exec("BEGIN; SELECT crsql_internal_sync_bit(1)"); err != nil {
						t.Error(err)
					}
				}
				tx, err := p.Begin()
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := tx.Exec("UPDATE t SET x = x + 1"); err != nil {
					t.Error(err)
				}
				if err := tx.Commit(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if x := p.int("SELECT x FROM t"); x != users*writes {
		t.Errorf("x is %d", x)
	}
	if v := p.int("SELECT col_version FROM crsql_changes"); v != users*writes+1 {
		t.Errorf("the cell has version %d", v)
	}
	if v := p.int("SELECT crsql_db_version()"); v != users*writes+1 {
		t.Errorf("db_version %d", v)
	}
}
