package crsql

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mattn/go-sqlite3"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// The benchmarks below compare the engine with the floor: the same rows written straight into a table, its keys and its
// clocks by prepared statements of mattn's, without a trigger or a decision. Each measures both, one after the other, so
// that the ratio is of one run on one machine. `make bench` takes the medians of several runs.
const (
	benchRows    = 100_000
	benchColumns = 4
	benchUpdates = 20_000
	benchDSN     = "?_journal_mode=WAL&_synchronous=NORMAL"
	benchTable   = "CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, a TEXT, b INTEGER, c REAL, d TEXT)"
	benchInsert  = "INSERT INTO t(id, a, b, c, d) VALUES (?, ?, ?, ?, ?)"
	benchUpdate  = "UPDATE t SET b = ? WHERE id = ?"
)

// benchRow fills args with row i: its key and its four values.
func benchRow(args []driver.NamedValue, i int64) {
	args[0].Value, args[1].Value, args[2].Value = i, fmt.Sprintf("row %d", i), i*7919%1000003
	args[3].Value, args[4].Value = float64(i)/3, "some text"
}

// A benchConn is one connection to a file database, used as the driver is and not through database/sql, whose own time
// would hide the difference.
type benchConn struct {
	b    *testing.B
	conn driver.Conn
}

func openBenchConn(b *testing.B, d driver.Driver) *benchConn {
	b.Helper()
	conn, err := d.Open("file:" + filepath.Join(b.TempDir(), "bench.db") + benchDSN)
	if err != nil {
		b.Fatal(err)
	}
	c := &benchConn{b: b, conn: conn}
	c.exec("PRAGMA temp_store=MEMORY")
	return c
}

// openBenchCRR opens a database in which t is a CRR. Plain ones have the same table, and nothing that knows of CRRs.
func openBenchCRR(b *testing.B) *benchConn {
	b.Helper()
	c := openBenchConn(b, &Driver{})
	c.exec(benchTable)
	c.exec("SELECT crsql_as_crr('t')")
	return c
}

func openBenchPlain(b *testing.B) *benchConn {
	b.Helper()
	c := openBenchConn(b, &sqlite3.SQLiteDriver{})
	c.exec(benchTable)
	return c
}

func (c *benchConn) close() {
	if err := c.conn.Close(); err != nil {
		c.b.Fatal(err)
	}
}

func (c *benchConn) engine() *engine { return c.conn.(*conn).engine }

func (c *benchConn) exec(sql string) {
	c.b.Helper()
	if _, err := c.conn.(driver.ExecerContext).ExecContext(context.Background(), sql, nil); err != nil {
		c.b.Fatalf("%s: %v", sql, err)
	}
}

// A benchStmt is a prepared statement with room for its arguments.
type benchStmt struct {
	b    *testing.B
	stmt driver.Stmt
	args []driver.NamedValue
}

func (c *benchConn) prepare(sql string) *benchStmt {
	c.b.Helper()
	stmt, err := c.conn.Prepare(sql)
	if err != nil {
		c.b.Fatalf("%s: %v", sql, err)
	}
	args := make([]driver.NamedValue, stmt.NumInput())
	for i := range args {
		args[i].Ordinal = i + 1
	}
	return &benchStmt{b: c.b, stmt: stmt, args: args}
}

func (s *benchStmt) run() {
	if _, err := s.stmt.(driver.StmtExecContext).ExecContext(context.Background(), s.args); err != nil {
		s.b.Fatal(err)
	}
}

func (s *benchStmt) close() {
	if err := s.stmt.Close(); err != nil {
		s.b.Fatal(err)
	}
}

// timed returns the seconds that f takes.
func timed(f func()) float64 {
	start := time.Now()
	f()
	return time.Since(start).Seconds()
}

// inTransaction runs f in a transaction and returns the seconds that both take.
func (c *benchConn) inTransaction(f func()) float64 {
	return timed(func() { c.exec("BEGIN"); f(); c.exec("COMMIT") })
}

// floor returns the seconds that the floor takes.
func floor(b *testing.B) float64 {
	b.Helper()
	c := openBenchPlain(b)
	defer c.close()
	for _, sql := range (&table{name: "t", pks: []string{"id"}, cols: []string{"a", "b", "c", "d"}}).schemaSQL()[:4] {
		c.exec(sql)
	}
	row := c.prepare(benchInsert)
	key := c.prepare("INSERT INTO t__crsql_pks(id) VALUES (?)")
	clock := c.prepare("INSERT INTO t__crsql_clock" + clockColumns + "VALUES (?1,'a',1,?2,0,?3),(?1,'b',1,?2,0,?4),(?1,'c',1,?2,0,?5),(?1,'d',1,?2,0,?6)")
	return c.inTransaction(func() {
		for i := range int64(benchRows) {
			benchRow(row.args, i)
			row.run()
			key.args[0].Value = i
			key.run()
			clock.args[0].Value, clock.args[1].Value = i+1, int64(1)
			for j := range int64(benchColumns) {
				clock.args[2+j].Value = i*benchColumns + j
			}
			clock.run()
		}
		row.close()
		key.close()
		clock.close()
	})
}

// insertRows inserts the rows in one transaction and returns the seconds.
func (c *benchConn) insertRows() float64 {
	row := c.prepare(benchInsert)
	defer row.close()
	return c.inTransaction(func() {
		for i := range int64(benchRows) {
			benchRow(row.args, i)
			row.run()
		}
	})
}

// benchChanges returns the changes that inserting the rows gives.
func benchChanges(b *testing.B) []changeset.Change {
	args := make([]driver.NamedValue, 1+benchColumns)
	changes := make([]changeset.Change, 0, benchRows*benchColumns)
	for i := range int64(benchRows) {
		benchRow(args, i)
		pk := packedInt(b, i)
		for j, cid := range []string{"a", "b", "c", "d"} {
			changes = append(changes, changeset.Change{
				Table: "t", PK: pk, CID: cid, Val: fromDriver(args[1+j].Value), ColVersion: 1, DBVersion: 1,
				Site: "0123456789abcdef", CL: 1, Seq: i*benchColumns + int64(j),
			})
		}
	}
	return changes
}

// apply merges changes in one transaction and returns the seconds.
func (c *benchConn) apply(changes []changeset.Change) float64 {
	return c.inTransaction(func() {
		if _, err := c.engine().applyChanges(1, changes); err != nil {
			c.b.Fatal(err)
		}
	})
}

// report reports seconds beside the reference's.
func report(b *testing.B, seconds, reference float64, n int, unit, name string) {
	b.ReportMetric(seconds/reference, "x_"+name)
	b.ReportMetric(float64(n)/seconds, unit+"/s")
	b.ReportMetric(0, "ns/op")
}

func BenchmarkFloor(b *testing.B) {
	for b.Loop() {
		seconds := floor(b)
		b.ReportMetric(benchRows*benchColumns/seconds, "changes/s")
		b.ReportMetric(0, "ns/op")
	}
}

func BenchmarkApplyNew(b *testing.B) {
	changes := benchChanges(b)
	for b.Loop() {
		reference := floor(b)
		c := openBenchCRR(b)
		report(b, c.apply(changes), reference, len(changes), "changes", "floor")
		c.close()
	}
}

func BenchmarkApplyAgain(b *testing.B) {
	changes := benchChanges(b)
	for b.Loop() {
		reference := floor(b)
		c := openBenchCRR(b)
		c.apply(changes)
		report(b, c.apply(changes), reference, len(changes), "changes", "floor")
		c.close()
	}
}

// BenchmarkApplyNewer merges a newer value into each cell.
func BenchmarkApplyNewer(b *testing.B) {
	changes := benchChanges(b)
	newer := append([]changeset.Change(nil), changes...)
	for i := range newer {
		newer[i].ColVersion = 2
	}
	for b.Loop() {
		reference := floor(b)
		c := openBenchCRR(b)
		c.apply(changes)
		report(b, c.apply(newer), reference, len(changes), "changes", "floor")
		c.close()
	}
}

func BenchmarkApplySQL(b *testing.B) {
	changes := benchChanges(b)
	for b.Loop() {
		reference := floor(b)
		c := openBenchCRR(b)
		insert := c.prepare("INSERT INTO crsql_changes VALUES (?,?,?,?,?,?,?,?,?)")
		report(b, c.inTransaction(func() {
			for i := range changes {
				changeArgs(insert.args, &changes[i])
				insert.run()
			}
		}), reference, len(changes), "changes", "floor")
		insert.close()
		c.close()
	}
}

func changeArgs(args []driver.NamedValue, c *changeset.Change) {
	args[0].Value, args[1].Value, args[2].Value, args[3].Value = c.Table, c.PK, c.CID, toDriver(c.Val)
	args[4].Value, args[5].Value, args[6].Value, args[7].Value, args[8].Value = c.ColVersion, c.DBVersion, []byte(c.Site), c.CL, c.Seq
}

func BenchmarkInsert(b *testing.B) {
	for b.Loop() {
		reference := floor(b)
		c := openBenchCRR(b)
		report(b, c.insertRows(), reference, benchRows, "rows", "floor")
		c.close()
	}
}

func BenchmarkInsertPlain(b *testing.B) {
	for b.Loop() {
		reference := floor(b)
		c := openBenchPlain(b)
		report(b, c.insertRows(), reference, benchRows, "rows", "floor")
		c.close()
	}
}

// BenchmarkReadSQL reads all of crsql_changes.
func BenchmarkReadSQL(b *testing.B) {
	for b.Loop() {
		reference := floor(b)
		c := openBenchCRR(b)
		c.insertRows()
		read := c.prepare("SELECT * FROM crsql_changes WHERE db_version > ?")
		read.args[0].Value = int64(0)
		n := 0
		seconds := timed(func() { n = read.count() })
		read.close()
		c.close()
		if n != benchRows*benchColumns {
			b.Fatalf("%d changes", n)
		}
		report(b, seconds, reference, n, "changes", "floor")
	}
}

// count runs the statement and returns how many rows it gives.
func (s *benchStmt) count() int {
	rows, err := s.stmt.(driver.StmtQueryContext).QueryContext(context.Background(), s.args)
	if err != nil {
		s.b.Fatal(err)
	}
	n, row := 0, make([]driver.Value, len(rows.Columns()))
	for {
		if err := rows.Next(row); err == io.EOF {
			break
		} else if err != nil {
			s.b.Fatal(err)
		}
		n++
	}
	if err := rows.Close(); err != nil {
		s.b.Fatal(err)
	}
	return n
}

// BenchmarkUpdates commits one row at a time, beside the same in a table that is no CRR, and beside the same with the
// clock's update written by hand: what the format costs whoever keeps it.
func BenchmarkUpdates(b *testing.B) {
	for b.Loop() {
		plain, hand, crr := openBenchPlain(b), openBenchCRR(b), openBenchCRR(b)
		for _, c := range []*benchConn{plain, hand, crr} {
			c.insertRows()
		}
		hand.exec("DROP TRIGGER t__crsql_utrig")
		clock := hand.prepare("UPDATE t__crsql_clock SET col_version = col_version + 1, db_version = ?, seq = 0, site_id = 0 WHERE key = ? AND col_name = 'b'")
		begin, commit := hand.prepare("BEGIN"), hand.prepare("COMMIT")
		seconds := make(map[*benchConn]float64)
		for _, c := range []*benchConn{plain, hand, crr} {
			update := c.prepare(benchUpdate)
			seconds[c] = timed(func() {
				for n := range int64(benchUpdates) {
					row := n * 4 % benchRows
					if c == hand {
						begin.run()
						clock.args[0].Value, clock.args[1].Value = n+2, row+1
						clock.run()
					}
					update.args[0].Value, update.args[1].Value = n, row
					update.run()
					if c == hand {
						commit.run()
					}
				}
			})
			update.close()
		}
		for _, s := range []*benchStmt{clock, begin, commit} {
			s.close()
		}
		report(b, seconds[crr], seconds[plain], benchUpdates, "commits", "plain")
		b.ReportMetric(seconds[crr]/seconds[hand], "x_by_hand")
		b.ReportMetric(seconds[hand]/seconds[plain], "by_hand_x_plain")
		for _, c := range []*benchConn{plain, hand, crr} {
			c.close()
		}
	}
}

// BenchmarkGrowth measures one change in a database of 10 million clocks beside one of 100 thousand: a local commit, a
// merge that is committed, and a look for what is new. Each is the median of many, at rows in no order.
func BenchmarkGrowth(b *testing.B) {
	for b.Loop() {
		small, large := oneChange(b, 25_000), oneChange(b, 2_500_000)
		for i, name := range []string{"commit", "merge", "read"} {
			b.ReportMetric(large[i]/small[i], name+"_x_small")
			b.ReportMetric(large[i]*1e6, name+"_us")
		}
		b.ReportMetric(0, "ns/op")
	}
}

func oneChange(b *testing.B, rows int64) [3]float64 {
	const times = 1001
	c := openBenchCRR(b)
	defer c.close()
	c.exec("SELECT crsql_internal_sync_bit(1)")
	for _, sql := range []string{
		"WITH RECURSIVE i(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM i WHERE n < %d) INSERT INTO t SELECT n, 'row ' || n, n, n / 3.0, 'some text' FROM i",
		"INSERT INTO t__crsql_pks(__crsql_key, id) SELECT id + 1, id FROM t",
		"INSERT INTO t__crsql_clock" + clockColumns + "SELECT t.id + 1, c.column1, 1, t.id / 100, 0, t.id %% %d FROM t CROSS JOIN (VALUES ('a'), ('b'), ('c'), ('d')) AS c",
	} {
		if strings.Contains(sql, "%d") {
			sql = fmt.Sprintf(sql, rows-1)
		}
		c.exec(sql)
	}
	c.exec("SELECT crsql_internal_sync_bit(0)")
	c.exec("PRAGMA wal_checkpoint(TRUNCATE)")
	update, read := c.prepare(benchUpdate), c.prepare("SELECT * FROM crsql_changes WHERE db_version > ?")
	defer update.close()
	defer read.close()
	var times3 [3][]float64
	for i := range int64(times) {
		row := i * 7919 * 104729 % rows
		times3[0] = append(times3[0], timed(func() {
			update.args[0].Value, update.args[1].Value = -1-i, row
			update.run()
		}))
		other := []changeset.Change{{Table: "t", PK: packedInt(b, (row+rows/2)%rows), CID: "a", Val: changeset.Integer(i), ColVersion: 2 + i, CL: 1, Site: "0123456789abcdef"}}
		times3[1] = append(times3[1], c.apply(other))
		version, err := c.engine().currentVersion()
		if err != nil {
			b.Fatal(err)
		}
		read.args[0].Value = version - 1
		n := 0
		times3[2] = append(times3[2], timed(func() { n = read.count() }))
		if n != 1 {
			b.Fatalf("%d changes", n)
		}
	}
	var medians [3]float64
	for i, list := range times3 {
		slices.Sort(list)
		medians[i] = list[len(list)/2]
	}
	return medians
}

// BenchmarkWasm runs the original's wasm in Node, without Asyncify and in memory.
func BenchmarkWasm(b *testing.B) {
	for b.Loop() {
		reference := floor(b)
		out, err := exec.CommandContext(b.Context(), "node", filepath.Join("testdata", "oracle", "speed.mjs"), nodeModules(b), strconv.Itoa(benchRows)).Output()
		if err != nil {
			b.Fatal(err)
		}
		var seconds map[string]float64
		if err := json.Unmarshal(out, &seconds); err != nil {
			b.Fatal(err)
		}
		for name, s := range seconds {
			b.ReportMetric(s/reference, name+"_x_floor")
		}
		b.ReportMetric(0, "ns/op")
	}
}

// fillBench inserts the rows in one transaction: one entry.
func (n *node) fillBench() {
	n.t.Helper()
	n.script(benchTable + "; SELECT crsql_as_crr('t')")
	n.exec("WITH RECURSIVE i(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM i WHERE n < ?) INSERT INTO t SELECT n, 'row ' || n, n * 7919 % 1000003, n / 3.0, 'some text' FROM i",
		benchRows-1)
}

// BenchmarkRead reads all entries as a peer is served them, message by message.
func BenchmarkRead(b *testing.B) {
	for b.Loop() {
		reference := floor(b)
		n := newNode(b, "from")
		n.fillBench()
		changes, messages := 0, 0
		seconds := timed(func() {
			for q := all(Position{}); ; {
				got := n.read(q)
				messages++
				for _, e := range got.Entries {
					changes += len(e.Changes)
				}
				if q.After = got.Next; got.End {
					break
				}
			}
		})
		if changes != benchRows*benchColumns {
			b.Fatalf("%d changes", changes)
		}
		report(b, seconds, reference, changes, "changes", "floor")
		b.ReportMetric(float64(messages), "messages")
	}
}

// BenchmarkReplicaApply applies the entry as a peer gets it: each message in a transaction that is durable.
func BenchmarkReplicaApply(b *testing.B) {
	const perMessage = 4096
	changes := benchChanges(b)
	for b.Loop() {
		reference := floor(b)
		n := newNode(b, "to")
		n.script(benchTable + "; SELECT crsql_as_crr('t')")
		report(b, timed(func() {
			for start := 0; start < len(changes); start += perMessage {
				n.apply(Group{Origin: "0123456789abcdef", Version: 1, Changes: changes[start:min(start+perMessage, len(changes))]})
			}
		}), reference, len(changes), "changes", "floor")
	}
}
