package crsql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// soon is far longer than anything takes to end once its context has, and far shorter than what is cancelled here.
const soon = 30 * time.Second

// hours is a query that no test waits for: a hundred thousand million rows.
const hours = "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n LIMIT 100000000000) "

// watchStart registers started(x), which returns x and, the first time, calls f.
func (d *testDB) watchStart(f func()) {
	d.t.Helper()
	var once sync.Once
	err := d.conn.Raw(func(c any) error {
		return c.(*conn).sqlite.RegisterFunc("started", func(n int64) int64 { once.Do(f); return n }, false)
	})
	if err != nil {
		d.t.Fatal(err)
	}
}

// A statement whose context ends while it runs ends soon, has changed nothing, and leaves the connection as it was.
func TestCancelWithinStatement(t *testing.T) {
	for _, test := range []struct{ name, sql string }{
		{"query", hours + "SELECT sum(started(i)) FROM n"},
		{"rows", hours + "SELECT started(i) FROM n"},
		{"sorted rows", hours + "SELECT started(i) FROM n WHERE i % 1000000 = 1 ORDER BY i DESC"},
		{"insert", hours + "INSERT INTO t SELECT started(i), i FROM n"},
		{"insert returning", hours + "INSERT INTO t SELECT started(i), i FROM n RETURNING id"},
		{"merge", hours + "INSERT INTO crsql_changes SELECT 't', crsql_pack_columns(i), 'x', started(i), 1, 1, x'aa', 1, 0 FROM n"},
		{"update", "UPDATE t SET x = started(x) + (" + hours + "SELECT count(*) FROM n WHERE i > t.id)"},
		{"delete", "DELETE FROM t WHERE started(id) AND (" + hours + "SELECT count(*) FROM n WHERE i > t.id) > 0"},
		{"script", "UPDATE t SET x = 7; SELECT started(1); INSERT INTO t VALUES (8, 8);" + hours + "SELECT count(*) FROM n"},
		{"trigger", "INSERT INTO slow VALUES (1, 1)"},
	} {
		for _, how := range []string{"exec", "query", "prepared exec", "prepared query"} {
			for _, begin := range []bool{false, true} {
				if test.name == "script" && how[0] == 'p' || test.name == "rows" && how != "query" && how != "prepared query" {
					continue // Exec takes the first row
				}
				t.Run(fmt.Sprintf("%s/%s/transaction %v", test.name, how, begin), func(t *testing.T) {
					d := openTest(t, ":memory:")
					n := newNeighbour(d)
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // that started never runs is a fault of the test
					defer cancel()
					d.watchStart(cancel)
					d.run("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, x); SELECT crsql_as_crr('t'); INSERT INTO t VALUES (-1, 1), (-2, 2)")
					d.run("CREATE TABLE slow(id INTEGER PRIMARY KEY NOT NULL, x); SELECT crsql_as_crr('slow')")
					d.run("CREATE VIEW v AS " + hours + "SELECT count(*) AS c FROM n")
					d.run("CREATE TRIGGER slowly AFTER INSERT ON slow BEGIN UPDATE slow SET x = started(x) + (SELECT c FROM v); END")
					before := dump(d.run("SELECT * FROM crsql_changes WHERE \"table\" <> 'neighbour'"))
					if begin {
						d.run("BEGIN")
						d.run("INSERT INTO neighbour VALUES (2, 2); DELETE FROM neighbour WHERE id = 2")
					}
					start := time.Now()
					err := runCancelled(ctx, d, how, test.sql)
					if !errors.Is(err, context.Canceled) {
						t.Errorf("the error is %v", err)
					}
					if took := time.Since(start); took > soon {
						t.Errorf("it took %v", took)
					}
					if !d.engine.sqlite.AutoCommit() { // SQLite rolls back a transaction whose write is interrupted
						d.run("ROLLBACK")
					}
					if test.name == "script" && !begin {
						before = dump(d.run("SELECT * FROM crsql_changes WHERE \"table\" <> 'neighbour'")) // each statement is a transaction
					}
					if after := dump(d.run("SELECT * FROM crsql_changes WHERE \"table\" <> 'neighbour'")); after != before {
						t.Errorf("changes before:\n%s\nafter:\n%s", before, after)
					}
					n.unharmed("the end of the context")
				})
			}
		}
	}
}

func runCancelled(ctx context.Context, d *testDB, how, query string) error {
	switch how {
	case "exec":
		_, err := d.conn.ExecContext(ctx, query)
		return err
	case "query":
		rows, err := d.conn.QueryContext(ctx, query)
		return drain(rows, err)
	}
	st, err := d.conn.PrepareContext(ctx, query)
	if err != nil {
		return err
	}
	defer st.Close()
	if how == "prepared exec" {
		_, err := st.ExecContext(ctx)
		return err
	}
	rows, err := st.QueryContext(ctx)
	return drain(rows, err)
}

func drain(rows *sql.Rows, err error) error {
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
	}
	return rows.Err()
}

// The context may end at any moment from before the statement to after it: SQLite and mattn miss some of them.
func TestCancelAtAnyMoment(t *testing.T) {
	d := openTest(t, ":memory:")
	n := newNeighbour(d)
	const seconds = "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n LIMIT 100000000) SELECT count(*) FROM n"
	for i := range 500 {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); cancel() }()
		start := time.Now()
		err := runCancelled(ctx, d, []string{"exec", "query"}[i%2], seconds)
		<-done
		if !errors.Is(err, context.Canceled) || time.Since(start) > soon {
			t.Fatalf("run %d: %v after %v", i, err, time.Since(start))
		}
	}
	n.unharmed("500 cancellations")
	// What has ended is not interrupted any more, nor is what comes next.
	for i := range 200 {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); cancel() }()
		_, err := d.conn.ExecContext(ctx, "SELECT 1")
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Fatalf("run %d: %v", i, err)
		}
		d.run("SELECT count(*) FROM neighbour a, neighbour b")
		<-done
	}
}

func TestCancelledBefore(t *testing.T) {
	d := openTest(t, ":memory:")
	n := newNeighbour(d)
	st, err := d.conn.PrepareContext(t.Context(), "INSERT INTO neighbour VALUES (2, 2)")
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	err = d.conn.Raw(func(c any) error { // past database/sql, which looks at the context itself
		raw := c.(*conn)
		for what, run := range map[string]func() error{
			"exec": func() error { _, err := raw.ExecContext(ended, "INSERT INTO neighbour VALUES (2, 2)", nil); return err },
			"query": func() error {
				_, err := raw.QueryContext(ended, "INSERT INTO neighbour VALUES (2, 2)", nil)
				return err
			},
			"prepare": func() error { _, err := raw.PrepareContext(ended, "SELECT 1"); return err },
			"begin":   func() error { _, err := raw.BeginTx(ended, driver.TxOptions{}); return err },
			"ping":    func() error { return raw.Ping(ended) },
		} {
			if err := run(); !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", what, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	n.autocommit("cancelled calls")
	n.unharmed("cancelled calls")
	if got := dump(d.run("SELECT id FROM neighbour")); got != "1" {
		t.Errorf("neighbours %s", got)
	}
}

// crsql_as_crr of a large table undoes itself when its context ends: all that it does lies within one SELECT, and what
// would undo it is interrupted as well.
func TestCancelBackfill(t *testing.T) {
	for _, begin := range []bool{false, true} {
		for _, wait := range []time.Duration{time.Millisecond, 10 * time.Millisecond, 30 * time.Millisecond} {
			d := openTest(t, ":memory:")
			n := newNeighbour(d)
			d.run("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, x)")
			d.run("WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n LIMIT 60000) INSERT INTO t SELECT i, i FROM n")
			schema := dump(d.run("SELECT name, sql FROM sqlite_master"))
			if begin {
				d.run("BEGIN")
			}
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			start := time.Now()
			_, err := d.conn.ExecContext(ctx, "SELECT crsql_as_crr('t')")
			cancel()
			if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > soon {
				t.Fatalf("after %v: %v", time.Since(start), err)
			}
			if !begin {
				n.autocommit("a cancelled crsql_as_crr")
			} else if !d.engine.sqlite.AutoCommit() {
				d.run("COMMIT") // even so
			}
			if after := dump(d.run("SELECT name, sql FROM sqlite_master")); after != schema {
				t.Errorf("left behind:\n%s\nwant\n%s", after, schema)
			}
			n.unharmed("a cancelled crsql_as_crr")
			d.run("SELECT crsql_as_crr('t')")
			if clocks := d.int("SELECT count(*) FROM t__crsql_clock"); clocks != 60000 {
				t.Errorf("%d clocks after the second attempt", clocks)
			}
			d.close()
		}
	}
}

// Calls of a DB and of a Replica end soon after their context, wherever they are, undone and with their connections fit
// for others.
func TestCancelDB(t *testing.T) {
	n := newNode(t, "n")
	n.script(noteSQL)
	n.exec("INSERT INTO note VALUES (1, 'mine', NULL, NULL)")
	many := make([]changeset.Change, 300_000)
	for i := range many {
		many[i] = title(int64(i+10), "t", 1)
	}
	count := func(rows *int) func([]changeset.Value) error {
		return func([]changeset.Value) error { *rows++; return nil }
	}
	calls := map[string]func(ctx context.Context) error{
		"Query": func(ctx context.Context) error {
			_, err := n.db.Query(ctx, hours+"SELECT count(*) FROM n", nil, func([]changeset.Value) error { return nil })
			return err
		},
		"Exec": func(ctx context.Context) error {
			_, err := n.db.Exec(ctx, hours+"INSERT INTO note SELECT i + 5, 'x', NULL, NULL FROM n")
			return err
		},
		"ExecScript": func(ctx context.Context) error {
			return n.db.ExecScript(ctx, "DELETE FROM note; "+hours+"SELECT count(*) FROM n")
		},
		"Write": func(ctx context.Context) error {
			return n.db.Write(ctx, func(tx *Tx) error {
				if _, err := tx.Exec("DELETE FROM note"); err != nil {
					return err
				}
				rows := 0
				_, _ = tx.Query(hours+"SELECT i FROM n", nil, count(&rows))
				_, _ = tx.Exec(hours + "INSERT INTO note SELECT i + 5, 'x', NULL, NULL FROM n")
				_, _ = tx.Exec("INSERT INTO note VALUES (3, 'after', NULL, NULL)") // would be durable by itself
				return nil                                                         // as if nothing had happened
			})
		},
		"Apply": func(ctx context.Context) error {
			_, err := n.Apply(ctx, ApplyRequest{Groups: []Group{{Origin: siteX, Version: 1, Changes: many}}})
			return err
		},
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			for _, wait := range []time.Duration{0, time.Millisecond, 30 * time.Millisecond} {
				ctx, cancel := context.WithTimeout(t.Context(), wait)
				start := time.Now()
				err := call(ctx)
				cancel()
				if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > soon {
					t.Errorf("%v after %v", err, time.Since(start))
				}
				equal(t, "notes", n.query("SELECT id, title FROM note"), []string{`1 "mine" `})
				if parked := n.state().Parked; parked != 0 {
					t.Errorf("%d changes are parked", parked)
				}
			}
		})
	}
	n.exec("UPDATE note SET title = 'still mine'")
	if heads := n.state().Heads; heads != (Heads{Own: 2, Newest: 2}) {
		t.Errorf("heads %+v", heads)
	}
}

// Statements of the engine's own, which know no context, end with that of the call.
func TestCancelEngineStatement(t *testing.T) {
	n := newNode(t, "n")
	n.script(noteSQL)
	n.exec("INSERT INTO note VALUES (1, 'mine', NULL, NULL)")
	for name, call := range map[string]func(context.Context, func(*session) error) error{"snapshot": n.db.snapshot, "transact": n.db.transact} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		start := time.Now()
		err := call(ctx, func(s *session) error {
			_, err := s.engine.query(hours + "SELECT count(*) FROM n")
			return err
		})
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > soon {
			t.Errorf("%s: %v after %v", name, err, time.Since(start))
		}
		n.whole("a cancelled " + name)
	}
}

// Reading and replaying end soon, too, in the middle of a long statement of the engine's own.
func TestCancelReplicaReads(t *testing.T) {
	n := newNode(t, "n")
	n.script(noteSQL)
	n.exec("WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n LIMIT 60000) INSERT INTO note(id, title) SELECT i, 'x' FROM n")
	q := all(Position{})
	q.MaxBytes, q.MaxChanges, q.Count = MaxReadBytes, MaxReadChanges, true
	for name, call := range map[string]func(ctx context.Context) error{
		"Read":   func(ctx context.Context) error { _, err := n.Read(ctx, q); return err },
		"Heads":  func(ctx context.Context) error { _, err := n.Heads(ctx); return err },
		"State":  func(ctx context.Context) error { _, err := n.State(ctx); return err },
		"Replay": func(ctx context.Context) error { _, err := n.ReplayParked(ctx); return err },
	} {
		if err := call(ended); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, wait := range []time.Duration{time.Millisecond, 5 * time.Millisecond, 30 * time.Millisecond} {
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		start := time.Now()
		_, err := n.Read(ctx, q)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > soon {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	}
	if got := n.read(q); !got.End || got.Remaining == 0 {
		t.Errorf("%d remain, end %v", got.Remaining, got.End)
	}
}

// Whatever a cancelled statement leaves of an explicit transaction can be committed: its rows and their clocks agree.
func TestCancelThenCommit(t *testing.T) {
	d := openTest(t, ":memory:")
	n := newNeighbour(d)
	d.run("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, x, y); SELECT crsql_as_crr('t')")
	const some = "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n LIMIT 300) "
	statements := []string{
		some + "INSERT INTO t SELECT i, i, i FROM n",
		some + `INSERT INTO crsql_changes SELECT 't', crsql_pack_columns(i), CASE i % 3 WHEN 0 THEN 'x' WHEN 1 THEN 'y' ELSE '-1' END, i, 1, 1, randomblob(16), 1 + 2 * (i % 2), i FROM n`,
	}
	undone := map[bool]int{}
	for i := range 400 {
		d.run("DELETE FROM t; DELETE FROM t__crsql_clock; DELETE FROM t__crsql_pks; BEGIN; INSERT INTO t VALUES (-1, 1, 1)")
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i*10)*time.Microsecond)
		_, err := d.conn.ExecContext(ctx, statements[i%2])
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if !d.engine.sqlite.AutoCommit() {
			undone[err != nil]++
			d.run("COMMIT")
		}
		rows, keys := d.int("SELECT count(*) FROM t"), d.int("SELECT count(*) FROM t__crsql_pks")
		clocked := d.int("SELECT count(DISTINCT key) FROM t__crsql_clock WHERE col_name <> '-1' OR col_version % 2 = 1")
		if rows != keys || rows != clocked {
			t.Fatalf("run %d: %d rows, %d keys, %d rows with clocks: %v", i, rows, keys, clocked, err)
		}
	}
	n.unharmed("cancelled statements in transactions")
	t.Logf("%d statements ran to their end, %d were undone alone", undone[false], undone[true])
}

// With rows open beside it, SQLite keeps interrupting until they are closed: what was cancelled is undone then, before
// anything else runs.
func TestCancelBesideRows(t *testing.T) {
	d := openTest(t, ":memory:")
	n := newNeighbour(d)
	d.run("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, x)")
	d.run("WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n LIMIT 60000) INSERT INTO t SELECT i, i FROM n")
	rows, err := d.conn.QueryContext(t.Context(), "SELECT id FROM t")
	if err != nil {
		t.Fatal(err)
	}
	if !rows.Next() {
		t.Fatal(rows.Err())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := d.conn.ExecContext(ctx, "SELECT crsql_as_crr('t')"); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	if _, err := d.try("SELECT 1"); err == nil || len(d.engine.unfinished) != 1 && !d.engine.sqlite.AutoCommit() {
		t.Errorf("with the rows open: %v, to undo: %v", err, d.engine.unfinished)
	}
	rows.Close()
	n.unharmed("a cancelled crsql_as_crr beside rows")
	n.autocommit("a cancelled crsql_as_crr beside rows")
	if got := dump(d.run("SELECT name FROM sqlite_master WHERE name LIKE 't\\_%' ESCAPE '\\'")); got != "" {
		t.Errorf("left behind: %s", got)
	}
}

// A change that a prepared insert merges directly sets off triggers, too, which may take for ever.
func TestCancelDirectMerge(t *testing.T) {
	d := openTest(t, ":memory:")
	n := newNeighbour(d)
	d.run("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, x); SELECT crsql_as_crr('t'); CREATE TABLE done(c)")
	d.run("CREATE VIEW v AS " + hours + "SELECT count(*) AS c FROM n")
	d.run("CREATE TRIGGER slowly AFTER INSERT ON t BEGIN INSERT INTO done SELECT c FROM v; END; BEGIN")
	st, err := d.conn.PrepareContext(t.Context(), "INSERT INTO crsql_changes VALUES (?,?,?,?,?,?,?,?,?)")
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err = st.ExecContext(ctx, "t", []byte{1, 9, 1}, "x", 1, 1, 1, []byte("site"), 1, 0)
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > soon {
		t.Errorf("%v after %v", err, time.Since(start))
	}
	if !d.engine.sqlite.AutoCommit() {
		d.run("COMMIT")
	}
	if got := d.int("SELECT (SELECT count(*) FROM t) + (SELECT count(*) FROM t__crsql_clock)"); got != 0 {
		t.Errorf("%d rows and clocks are left", got)
	}
	n.unharmed("a cancelled merge")
}
