package crsql

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// How many random scripts TestDifferential runs unless CRMESH_SCRIPTS says otherwise.
const defaultScripts = 300

// maxWorkers bounds the processes of the stock engine.
const maxWorkers = 8

// A pair is one database in both engines, with the same site id.
type pair struct {
	name   string
	ours   *testDB
	shapes []shape
	inTx   bool
	// The stock engine keeps what crsql_rows_impacted counted before an error or a rollback, until the next merge commits.
	impactedDiffers bool
}

type differential struct {
	rt     *rapid.T
	oracle *oracle
	pairs  []*pair
	script []string
}

// TestDifferential runs random scripts here and in the stock engine, in as many processes as there are processors.
func TestDifferential(t *testing.T) {
	t.Setenv("CRMESH_ORACLE", "sync")
	scripts := defaultScripts
	if s := os.Getenv("CRMESH_SCRIPTS"); s != "" {
		var err error
		if scripts, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	if testing.Short() {
		scripts /= 10
	}
	workers := min(runtime.GOMAXPROCS(0), maxWorkers)
	checks := flag.Lookup("rapid.checks")
	before := checks.Value.String()
	if err := flag.Set("rapid.checks", strconv.Itoa((scripts+workers-1)/workers)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = flag.Set("rapid.checks", before) })
	for i := range workers {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			o := startOracle(t)
			rapid.Check(t, func(rt *rapid.T) { runScript(t, rt, o) })
		})
	}
}

func runScript(t *testing.T, rt *rapid.T, o *oracle) {
	d := &differential{rt: rt, oracle: o}
	defer func() {
		for _, p := range d.pairs {
			o.ask(p.name, true)
			p.ours.close()
		}
		if rt.Failed() {
			rt.Logf("script:\n%s", strings.Join(d.script, "\n"))
		}
	}()
	first := rapid.IntRange(0, len(shapes)-1).Draw(rt, "shape")
	chosen := []shape{shapes[first]}
	if rapid.IntRange(0, 3).Draw(rt, "two shapes") == 0 {
		chosen = append(chosen, shapes[(first+1)%len(shapes)])
	}
	recursive := rapid.IntRange(0, 1).Draw(rt, "recursive_triggers")
	for i := range rapid.IntRange(1, 4).Draw(rt, "databases") {
		p := &pair{name: string(rune('A' + i)), ours: openTest(t, ":memory:"), shapes: copyShapes(chosen)}
		d.pairs = append(d.pairs, p)
		site := o.ask(p.name, false, oracleStep{SQL: "SELECT crsql_site_id()"})[0].rows[0][0]
		p.ours.run("UPDATE crsql_site_id SET site_id = ? WHERE ordinal = 0", site.Bytes())
		p.ours.engine.dataVersion = unknown // the site id is read again
		d.both(p, fmt.Sprintf("PRAGMA recursive_triggers = %d", recursive))
		for i := range p.shapes {
			s := &p.shapes[i]
			d.both(p, s.sql())
			for _, index := range s.indexes {
				d.both(p, index.sql("", s.name))
			}
			for range rapid.IntRange(0, 2).Draw(rt, "rows before") {
				d.insert(p, s)
			}
			d.both(p, "SELECT crsql_as_crr(?)", changeset.TextString(s.name))
		}
		d.compare(p)
	}
	for range rapid.IntRange(1, 25).Draw(rt, "steps") {
		d.step(rapid.SampledFrom(d.pairs).Draw(rt, "database"))
	}
}

func (d *differential) fail(format string, args ...any) {
	d.rt.Fatalf(format, args...)
}

// both runs the statement in both engines and compares the answers.
func (d *differential) both(p *pair, sql string, args ...changeset.Value) answer {
	typed, native := make([]any, len(args)), make([]any, len(args))
	for i, v := range args {
		typed[i], native[i] = encodeTyped(v), toDriver(v)
	}
	d.script = append(d.script, fmt.Sprintf("%s: %s %s", p.name, sql, dumpRow(args)))
	theirs := d.theirs(p, sql, typed)
	try := p.ours.try
	if p.inTx && len(d.script)%2 == 0 && strings.HasPrefix(sql, "INSERT INTO crsql_changes") {
		try = p.ours.tryPrepared // which is merged without the view: see direct.go
	}
	rows, err := try(sql, native...)
	if (err != nil) != (theirs.err != nil) {
		d.fail("%s: %s\nours:   %v\ntheirs: %v", p.name, sql, err, theirs.err)
	}
	if err != nil {
		p.impactedDiffers = true
		if p.inTx && strings.HasPrefix(sql, "INSERT INTO crsql_changes") {
			d.raise(p)
		}
	} else if !p.inTx && strings.HasPrefix(sql, "INSERT INTO crsql_changes") {
		p.impactedDiffers = false
	}
	return answer{rows: rows, err: err}
}

// raise raises the transaction's version in both engines, and makes it one that writes: the stock engine lets a refused
// change do that.
func (d *differential) raise(p *pair) {
	d.both(p, "DELETE FROM crsql_tracked_peers")
	d.both(p, "SELECT crsql_next_db_version()")
}

// unraise lets the stock engine forget a version that no row got: it is a commit without rows. Ours has none such.
var unraise = oracleStep{SQL: "DELETE FROM crsql_tracked_peers"}

// keepFloor lets the stock engine keep its version when clocks are dropped, as ours does.
var keepFloor = oracleStep{SQL: "INSERT OR REPLACE INTO crsql_master SELECT 'pre_compact_dbversion', crsql_db_version()"}

// theirs runs the statement in the stock engine, and puts right what that leaves behind when it refuses a change: half
// of the change, inside a transaction, and triggers that stay off.
func (d *differential) theirs(p *pair, sql string, typed []any) answer {
	step := oracleStep{SQL: sql, Args: typed}
	if !strings.HasPrefix(sql, "INSERT INTO crsql_changes") {
		if p.inTx && sql != "COMMIT" || strings.HasPrefix(sql, "SELECT crsql_next_db_version") {
			return d.oracle.ask(p.name, false, step)[0]
		}
		return d.oracle.ask(p.name, false, step, unraise)[0]
	}
	var got answer
	if p.inTx {
		got = d.oracle.ask(p.name, false, oracleStep{SQL: "SAVEPOINT one"}, step)[1]
	} else {
		got = d.oracle.ask(p.name, false, step)[0]
	}
	var after []oracleStep
	if got.err != nil {
		after = append(after, oracleStep{SQL: "SELECT crsql_internal_sync_bit(0)"})
	}
	if got.err != nil && p.inTx {
		after = append(after, oracleStep{SQL: "ROLLBACK TO one"})
	}
	if p.inTx {
		after = append(after, oracleStep{SQL: "RELEASE one"})
	}
	if after != nil {
		d.oracle.ask(p.name, false, after...)
	}
	return got
}

// tell runs statements in the stock engine alone, to put right where it differs on purpose, and returns the last answer.
func (d *differential) tell(p *pair, steps ...oracleStep) [][]changeset.Value {
	var last [][]changeset.Value
	for i, got := range d.oracle.ask(p.name, false, steps...) {
		d.script = append(d.script, fmt.Sprintf("%s, theirs alone: %s %v", p.name, steps[i].SQL, steps[i].Args))
		if got.err != nil {
			d.fail("%s: %s: theirs: %v", p.name, steps[i].SQL, got.err)
		}
		last = got.rows
	}
	return last
}

const schemaDump = "SELECT type, name, tbl_name, sql FROM sqlite_master"

// compare compares all that the two engines hold of a database. It ends with the queries given besides.
func (d *differential) compare(p *pair, besides ...string) {
	queries := []string{"SELECT * FROM crsql_changes", "SELECT crsql_db_version(), crsql_get_seq()"}
	if !p.impactedDiffers {
		queries = append(queries, "SELECT crsql_rows_impacted()")
	}
	for i := range p.shapes {
		s := &p.shapes[i]
		var cols []string
		for i := range s.columns {
			cols = append(cols, s.columns[i].name)
		}
		queries = append(queries,
			"SELECT "+idents("+", cols, ",")+" FROM "+s.table(),
			"SELECT * FROM "+ident(s.name+pksSuffix),
			"SELECT key, col_name, col_version, db_version, s.site_id, seq FROM "+ident(s.name+clockSuffix)+" c LEFT JOIN crsql_site_id s ON s.ordinal = c.site_id")
	}
	d.same(p, append(queries, besides...)...)
}

// same runs queries in both engines, and compares the results, which may come in any order.
func (d *differential) same(p *pair, queries ...string) {
	steps := make([]oracleStep, len(queries))
	for i, q := range queries {
		steps[i].SQL = q
	}
	for i, theirs := range d.oracle.ask(p.name, false, steps...) {
		rows, err := p.ours.try(queries[i])
		if err != nil || theirs.err != nil {
			d.fail("%s: %s: ours: %v, theirs: %v", p.name, queries[i], err, theirs.err)
		}
		if ours, theirs := dump(rows), dump(theirs.rows); ours != theirs {
			d.fail("%s: %s\n%s", p.name, queries[i], difference(ours, theirs))
		}
	}
}

// difference returns the lines that are in one of two dumps only.
func difference(ours, theirs string) string {
	only := func(in, not string) string {
		var lines []string
		for line := range strings.SplitSeq(in, "\n") {
			if !slices.Contains(strings.Split(not, "\n"), line) {
				lines = append(lines, line)
			}
		}
		return strings.Join(lines, "\n")
	}
	return "in ours alone:\n" + only(ours, theirs) + "\nin theirs alone:\n" + only(theirs, ours)
}

// dump returns rows as text, sorted.
func dump(rows [][]changeset.Value) string {
	lines := make([]string, len(rows))
	for i, row := range rows {
		lines[i] = dumpRow(row)
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

func dumpRow(row []changeset.Value) string {
	var cells []string
	for _, v := range row {
		switch v.Kind() {
		case changeset.KindText:
			cells = append(cells, strconv.Quote(string(v.Bytes())))
		case changeset.KindBlob:
			cells = append(cells, fmt.Sprintf("x'%x'", v.Bytes()))
		case changeset.KindReal:
			cells = append(cells, "real "+strconv.FormatFloat(v.Float64(), 'g', -1, 64))
		case changeset.KindInteger:
			cells = append(cells, strconv.FormatInt(v.Int64(), 10))
		default:
			cells = append(cells, "NULL")
		}
	}
	return strings.Join(cells, " | ")
}
