package crsql

import (
	"flag"
	"fmt"
	"os"
	"pgregory.net/rapid"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// An engineDB is one connection to a database through one of the two engines, ours or the original.
type engineDB struct {
	t     fataler
	name  string
	try   func(sql string, args ...any) ([][]changeset.Value, error)
	close func()
}

// openOurs opens path, a file or :memory:, with this package.
func openOurs(t testing.TB, path string) *engineDB {
	t.Helper()
	return oursOn(t, openTest(t, path))
}

func oursOn(t testing.TB, d *testDB) *engineDB {
	return &engineDB{t: t, name: "ours", close: d.close, try: func(sql string, args ...any) ([][]changeset.Value, error) {
		natives := values(args...)
		args = make([]any, len(natives))
		for i, v := range natives {
			args[i] = toDriver(v)
		}
		return d.try(sql, args...)
	}}
}

// openTheirs opens path, a file or :memory:, with the original. The test closes it, or its end does.
func openTheirs(t testing.TB, path string) *engineDB {
	t.Helper()
	d, err := tryTheirs(t, sharedOracle(t), path)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return d
}

// tryTheirs is openTheirs for a path that the original may not open, in an oracle of choice.
func tryTheirs(t testing.TB, o *oracle, path string) (*engineDB, error) {
	t.Helper()
	name := fmt.Sprint("db", theirNames.Add(1))
	if path != ":memory:" {
		if err := o.open(name, path); err != nil {
			return nil, err
		}
	}
	var closing sync.Once
	d := &engineDB{t: t, name: "theirs", close: func() { closing.Do(func() { o.ask(name, true) }) }}
	d.try = func(sql string, args ...any) ([][]changeset.Value, error) {
		step := oracleStep{SQL: sql}
		for _, v := range values(args...) {
			step.Args = append(step.Args, encodeTyped(v))
		}
		answers, err := o.request(map[string]any{"db": name, "run": []oracleStep{step}})
		if err != nil {
			return nil, err
		}
		return answers[0].rows, answers[0].err
	}
	t.Cleanup(d.close)
	return d, nil
}

// theirNames numbers the databases in oracles.
var theirNames atomic.Int64

func (d *engineDB) run(sql string, args ...any) [][]changeset.Value {
	d.t.Helper()
	rows, err := d.try(sql, args...)
	if err != nil {
		d.t.Fatalf("%s: %s %v: %v", d.name, sql, args, err)
	}
	return rows
}

// script runs statements, one by one.
func (d *engineDB) script(statements ...string) {
	d.t.Helper()
	for _, sql := range statements {
		d.run(sql)
	}
}

// text returns the rows of sql as text, sorted.
func (d *engineDB) text(sql string, args ...any) string {
	d.t.Helper()
	return dump(d.run(sql, args...))
}

func (d *engineDB) int(sql string, args ...any) int64 {
	d.t.Helper()
	return d.run(sql, args...)[0][0].Int64()
}

// pull merges what from has stored above the version since, as a peer that has seen everything before, and returns the
// highest version that it saw.
func (d *engineDB) pull(from *engineDB, since int64) int64 {
	d.t.Helper()
	for _, row := range from.run(allChanges, since) {
		since = max(since, row[5].Int64())
		d.merge(row)
	}
	return since
}

const mergeSQL = "INSERT INTO crsql_changes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"

func (d *engineDB) merge(row []changeset.Value) {
	d.t.Helper()
	args := make([]any, len(row))
	for i, v := range row {
		args[i] = v
	}
	d.run(mergeSQL, args...)
}

// check fails the test unless the file is sound and the clocks of each of the tables fit its rows.
func (d *engineDB) check(tables ...string) {
	d.t.Helper()
	if got := d.text("PRAGMA integrity_check"); got != `"ok"` {
		d.t.Fatalf("%s: integrity_check: %s", d.name, got)
	}
	for _, name := range tables {
		for what, sql := range clockFaults(d.keyColumns(name), name) {
			if got := d.text(sql); got != "" {
				d.t.Fatalf("%s: %s has %s:\n%s", d.name, name, what, got)
			}
		}
	}
}

func (d *engineDB) keyColumns(table string) []string {
	d.t.Helper()
	var pks []string
	for _, row := range d.run("SELECT name FROM pragma_table_info(?) WHERE pk > 0 ORDER BY pk", table) {
		pks = append(pks, string(row[0].Bytes()))
	}
	if len(pks) == 0 {
		d.t.Fatalf("%s: there is no table %s", d.name, table)
	}
	return pks
}

// clockFaults returns queries for what must not be in a CRR's tables, by what that is.
func clockFaults(pks []string, name string) map[string]string {
	t := &table{name: name, pks: pks}
	on := make([]string, len(pks))
	for i, pk := range pks {
		on[i] = "t." + ident(pk) + " IS k." + ident(pk)
	}
	rows, keys, clocks := t.base()+" AS t", t.keys()+" AS k", t.clock()+" AS c"
	same := strings.Join(on, " AND ")
	noRow := " LEFT JOIN " + rows + " ON " + same + " WHERE t." + ident(pks[0]) + " IS NULL"
	ofKey := "SELECT c.* FROM " + clocks + " JOIN " + keys + " ON k.__crsql_key = c.key"
	return map[string]string{
		"clocks without a key":            "SELECT c.* FROM " + clocks + " LEFT JOIN " + keys + " ON k.__crsql_key = c.key WHERE k.__crsql_key IS NULL",
		"clocks without a row":            ofKey + noRow + " AND c.col_name IS NOT " + sentinel,
		"live sentinels without a row":    ofKey + noRow + " AND c.col_name = " + sentinel + " AND c.col_version % 2 = 1",
		"dead sentinels with a row":       ofKey + " JOIN " + rows + " ON " + same + " WHERE c.col_name = " + sentinel + " AND c.col_version % 2 = 0",
		"rows without a clock":            "SELECT t.* FROM " + rows + " LEFT JOIN " + keys + " ON " + same + " LEFT JOIN " + clocks + " ON c.key = k.__crsql_key WHERE c.key IS NULL",
		"clocks of unknown sites":         "SELECT c.* FROM " + clocks + " LEFT JOIN crsql_site_id AS s ON s.ordinal = c.site_id WHERE s.ordinal IS NULL",
		"clocks above the db_version":     "SELECT c.* FROM " + clocks + " WHERE c.db_version > crsql_db_version()",
		"clocks out of range":             "SELECT c.* FROM " + clocks + " WHERE c.db_version < 0 OR c.seq < 0 OR c.col_version < 0",
		"clocks that the view leaves out": "SELECT * FROM (SELECT count(*) AS n FROM " + clocks + ") WHERE n <> (SELECT count(*) FROM crsql_changes WHERE \"table\" = " + literal(name) + ")",
	}
}

// Twins are one database in both engines, with one site id, on which the same steps are run.
type twins struct {
	t            testing.TB
	ours, theirs *engineDB
}

func newTwins(t testing.TB) *twins {
	t.Helper()
	d := openTest(t, ":memory:")
	w := &twins{t: t, ours: oursOn(t, d), theirs: openTheirs(t, ":memory:")}
	site := w.theirs.run("SELECT crsql_site_id()")[0][0]
	w.ours.run("UPDATE crsql_site_id SET site_id = ? WHERE ordinal = 0", site)
	d.engine.dataVersion = unknown // the site id is read again
	return w
}

// run runs the statement in both engines, and fails unless both give the same rows, or an error. It returns ours.
func (w *twins) run(sql string, args ...any) [][]changeset.Value {
	w.t.Helper()
	rows, err := w.try(sql, args...)
	if err != nil {
		w.t.Fatalf("%s %v: %v", sql, args, err)
	}
	return rows
}

func (w *twins) try(sql string, args ...any) ([][]changeset.Value, error) {
	w.t.Helper()
	ours, err := w.ours.try(sql, args...)
	theirs, theirErr := w.theirs.try(sql, args...)
	if (err == nil) != (theirErr == nil) {
		w.t.Fatalf("%s %v\nours:   %v\ntheirs: %v", sql, args, err, theirErr)
	}
	if ours, theirs := dump(ours), dump(theirs); ours != theirs {
		w.t.Fatalf("%s %v\nours:\n%s\ntheirs:\n%s", sql, args, ours, theirs)
	}
	return ours, err
}

// refuse runs a statement that both engines must refuse.
func (w *twins) refuse(sql string, args ...any) {
	w.t.Helper()
	if _, err := w.try(sql, args...); err == nil {
		w.t.Fatalf("%s %v: no error", sql, args)
	}
}

func (w *twins) script(statements ...string) {
	w.t.Helper()
	for _, sql := range statements {
		w.run(sql)
	}
}

// makeCRR creates a table and makes it a CRR.
func (w *twins) makeCRR(create string) {
	w.t.Helper()
	w.run(create)
	w.run("SELECT crsql_as_crr(?)", strings.Fields(create)[2])
}

// want runs a query in both engines and compares its rows, sorted, with lines.
func (w *twins) want(sql string, lines ...string) {
	w.t.Helper()
	if got, want := dump(w.run(sql)), strings.Join(lines, "\n"); got != want {
		w.t.Fatalf("%s\ngot:\n%s\nwant:\n%s", sql, got, want)
	}
}

// pull merges what other has stored above since, each engine its own, which are equal.
func (w *twins) pull(other *twins, since int64) {
	w.t.Helper()
	w.pullWhere(other, fmt.Sprintf("db_version > %d", since))
}

func (w *twins) pullWhere(other *twins, condition string) {
	w.t.Helper()
	rows := other.run("SELECT * FROM crsql_changes WHERE " + condition)
	for _, row := range rows {
		args := make([]any, len(row))
		for i, v := range row {
			args[i] = v
		}
		w.run(mergeSQL, args...)
	}
}

// checkTimes runs a property n times, a tenth of that in short mode. rapid prints the seed, and a small script, of what fails.
func checkTimes(t *testing.T, n int, property func(*rapid.T)) {
	t.Helper()
	if testing.Short() {
		n = max(n/10, 1)
	}
	checks := flag.Lookup("rapid.checks")
	before := checks.Value.String()
	if err := checks.Value.Set(strconv.Itoa(n)); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = checks.Value.Set(before) }()
	rapid.Check(t, property)
}

// envInt returns the number in an environment variable, or what it is without.
func envInt(t testing.TB, name string, without int) int {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return without
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}
