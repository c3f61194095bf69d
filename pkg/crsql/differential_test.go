package crsql

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"sort"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// How many random scripts TestDifferential runs unless CRMESH_SCRIPTS says otherwise.
const defaultScripts = 300

// A shape is a table of the random scripts.
type shape struct {
	name string
	sql  string
	pks  []changeset.Kind // 0: any
	cols []string
	keys []string // the columns of the primary key, in its order
}

var shapes = []shape{
	{name: "t1", sql: `CREATE TABLE t1(id INTEGER PRIMARY KEY NOT NULL, a, b TEXT DEFAULT 'x', c REAL)`,
		pks: []changeset.Kind{changeset.KindInteger}, keys: []string{"id"}, cols: []string{"a", "b", "c"}},
	{name: "t2", sql: `CREATE TABLE t2(k TEXT NOT NULL, n INTEGER NOT NULL, v, w INTEGER NOT NULL DEFAULT 7, PRIMARY KEY(n, k))`,
		pks: []changeset.Kind{changeset.KindInteger, changeset.KindText}, keys: []string{"n", "k"}, cols: []string{"v", "w"}},
	{name: "t3", sql: `CREATE TABLE t3(a INTEGER NOT NULL, b BLOB NOT NULL, PRIMARY KEY(a, b))`,
		pks: []changeset.Kind{changeset.KindInteger, changeset.KindBlob}, keys: []string{"a", "b"}},
	{name: "t4", sql: `CREATE TABLE t4(k TEXT PRIMARY KEY NOT NULL, v NUMERIC) WITHOUT ROWID`,
		pks: []changeset.Kind{changeset.KindText}, keys: []string{"k"}, cols: []string{"v"}},
	{name: "t5", sql: `CREATE TABLE t5(k BLOB PRIMARY KEY NOT NULL, v ANY, i INTEGER) STRICT`,
		pks: []changeset.Kind{changeset.KindBlob}, keys: []string{"k"}, cols: []string{"v", "i"}},
	{name: "ünïcødé", sql: `CREATE TABLE "ünïcødé"("schlüssel" NOT NULL PRIMARY KEY, "ein wert", "日本" BOOLEAN, "select" TIMESTAMP)`,
		pks: []changeset.Kind{0}, keys: []string{"schlüssel"}, cols: []string{"ein wert", "日本", "select"}},
	{name: "t7", sql: `CREATE TABLE t7(id INTEGER NOT NULL PRIMARY KEY, a INTEGER, g INTEGER GENERATED ALWAYS AS (a * 2) VIRTUAL, b TEXT COLLATE NOCASE CHECK (b <> 'bad'))`,
		pks: []changeset.Kind{changeset.KindInteger}, keys: []string{"id"}, cols: []string{"a", "b"}},
}

func (s *shape) table() string { return ident(s.name) }

// Values at the edges of what a column can hold.
var edgeValues = []changeset.Value{
	changeset.Null(), changeset.Integer(0), changeset.Integer(1), changeset.Integer(-1), changeset.Integer(1 << 31),
	changeset.Integer(1<<53 + 1), changeset.Integer(-1 << 63), changeset.Real(1.5), changeset.Real(2), changeset.Real(1e300),
	changeset.TextString(""), changeset.TextString("a"), changeset.TextString("é日"), changeset.TextString("1"), changeset.TextString("2.0"),
	changeset.TextString("nul\x00in"), changeset.TextString("bad"),
	changeset.Blob(nil), changeset.Blob([]byte{0}), changeset.Blob([]byte{0, 255}), changeset.Blob([]byte("a")),
}

// A pair is one database in both engines, with the same site id.
type pair struct {
	name string
	ours *testDB
	inTx bool
	// The stock engine keeps what crsql_rows_impacted counted before an error or a rollback, until the next merge commits.
	impactedDiffers bool
}

type differential struct {
	rt     *rapid.T
	oracle *oracle
	pairs  []*pair
	shapes []shape
	script []string
}

func TestDifferential(t *testing.T) {
	o := startOracle(t)
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
	checks := flag.Lookup("rapid.checks")
	before := checks.Value.String()
	if err := flag.Set("rapid.checks", strconv.Itoa(scripts)); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = flag.Set("rapid.checks", before) }()
	rapid.Check(t, func(rt *rapid.T) { runScript(t, rt, o) })
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
	d.shapes = []shape{shapes[first]}
	if rapid.IntRange(0, 3).Draw(rt, "two shapes") == 0 {
		d.shapes = append(d.shapes, shapes[(first+1)%len(shapes)])
	}
	recursive := rapid.IntRange(0, 1).Draw(rt, "recursive_triggers")
	for i := range rapid.IntRange(1, 3).Draw(rt, "databases") {
		p := &pair{name: string(rune('A' + i)), ours: openTest(t, ":memory:")}
		d.pairs = append(d.pairs, p)
		site := o.ask(p.name, false, oracleStep{SQL: "SELECT crsql_site_id()"})[0].rows[0][0]
		p.ours.run("UPDATE crsql_site_id SET site_id = ? WHERE ordinal = 0", site.Bytes())
		p.ours.engine.dataVersion = unknown // the site id is read again
		d.both(p, fmt.Sprintf("PRAGMA recursive_triggers = %d", recursive))
		for i := range d.shapes {
			s := &d.shapes[i]
			d.both(p, s.sql)
			for range rapid.IntRange(0, 2).Draw(rt, "rows before") {
				d.insert(p, s)
			}
			d.both(p, "SELECT crsql_as_crr(?)", changeset.TextString(s.name))
		}
		d.compare(p)
	}
	for range rapid.IntRange(1, 25).Draw(rt, "steps") {
		p := rapid.SampledFrom(d.pairs).Draw(rt, "database")
		d.step(p)
		d.compare(p)
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
	d.script = append(d.script, fmt.Sprintf("%s: %s %v", p.name, sql, typed))
	theirs := d.theirs(p, sql, typed)
	rows, err := p.ours.try(sql, native...)
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
	if got.err != nil {
		d.oracle.ask(p.name, false, oracleStep{SQL: "SELECT crsql_internal_sync_bit(0)"})
	}
	if got.err != nil && p.inTx {
		d.oracle.ask(p.name, false, oracleStep{SQL: "ROLLBACK TO one"})
	}
	if p.inTx {
		d.oracle.ask(p.name, false, oracleStep{SQL: "RELEASE one"})
	}
	return got
}

func (d *differential) value() changeset.Value {
	return rapid.SampledFrom(edgeValues).Draw(d.rt, "value")
}

func (d *differential) key(s *shape) []changeset.Value {
	key := make([]changeset.Value, len(s.pks))
	for i, kind := range s.pks {
		switch n := rapid.IntRange(0, 2).Draw(d.rt, "key"); kind {
		case changeset.KindInteger:
			key[i] = changeset.Integer([]int64{1, -2, 1 << 40}[n])
		case changeset.KindText:
			key[i] = changeset.TextString([]string{"", "k", "k\x00é"}[n])
		case changeset.KindBlob:
			key[i] = changeset.Blob([][]byte{{}, {1}, {1, 0}}[n])
		default:
			key[i] = []changeset.Value{changeset.Integer(1), changeset.Real(1.5), changeset.TextString("1")}[n]
		}
	}
	return key
}

func (d *differential) insert(p *pair, s *shape) {
	verb := rapid.SampledFrom([]string{"INSERT", "INSERT", "INSERT OR REPLACE", "INSERT OR IGNORE", "UPSERT"}).Draw(d.rt, "verb")
	names, args := append([]string(nil), s.keys...), d.key(s)
	for _, col := range s.cols {
		if rapid.IntRange(0, 4).Draw(d.rt, "give") > 0 {
			names, args = append(names, col), append(args, d.value())
		}
	}
	suffix := ""
	if verb == "UPSERT" {
		verb, suffix = "INSERT", " ON CONFLICT DO NOTHING"
		if len(names) > len(s.keys) {
			col := ident(names[len(names)-1])
			suffix = " ON CONFLICT DO UPDATE SET " + col + " = excluded." + col
		}
	}
	d.both(p, verb+" INTO "+s.table()+"("+idents("", names, ",")+") VALUES ("+marks(len(names))+")"+suffix, args...)
}

func (d *differential) step(p *pair) {
	s := &d.shapes[rapid.IntRange(0, len(d.shapes)-1).Draw(d.rt, "table")]
	switch n := rapid.IntRange(0, 19).Draw(d.rt, "step"); {
	case n < 6:
		d.insert(p, s)
	case n < 9 && len(s.cols) > 0:
		cols := s.cols[:rapid.IntRange(1, len(s.cols)).Draw(d.rt, "columns")]
		var args []changeset.Value
		for range cols {
			args = append(args, d.value())
		}
		where := ""
		if rapid.IntRange(0, 3).Draw(d.rt, "one row") > 0 {
			where = " WHERE " + isParams(s.keys)
			args = append(args, d.key(s)...)
		}
		d.both(p, "UPDATE "+s.table()+" SET "+idents("", cols, " = ?, ")+" = ?"+where, args...)
	case n < 11:
		if rapid.IntRange(0, 4).Draw(d.rt, "all") == 0 {
			d.both(p, "DELETE FROM "+s.table())
		} else {
			d.both(p, "DELETE FROM "+s.table()+" WHERE "+isParams(s.keys), d.key(s)...)
		}
	case n < 12:
		d.other(p, s)
	case n < 14:
		d.transaction(p)
	case n < 17 && len(d.pairs) > 1:
		d.sync(p)
	default:
		d.synthetic(p, s)
	}
}

// other runs what is rarer in a database's life.
func (d *differential) other(p *pair, s *shape) {
	switch rapid.IntRange(0, 6).Draw(d.rt, "other") {
	case 0: // changes nothing
		col := ident(append(append([]string(nil), s.cols...), s.keys...)[0])
		d.both(p, "UPDATE "+s.table()+" SET "+col+" = "+col)
	case 1: // the same key may stand twice
		names := append(append([]string(nil), s.keys...), s.cols...)
		var args []changeset.Value
		for range 2 {
			args = append(args, d.key(s)...)
			for range s.cols {
				args = append(args, d.value())
			}
		}
		d.both(p, "INSERT OR REPLACE INTO "+s.table()+"("+idents("", names, ",")+") VALUES ("+marks(len(names))+"), ("+marks(len(names))+")", args...)
	case 2:
		if !p.inTx { // what follows cannot be refused, but is several statements
			d.oracle.ask(p.name, false, keepFloor)
			d.both(p, "SELECT crsql_as_table(?)", changeset.TextString(s.name))
			d.insert(p, s)
			d.both(p, "SELECT crsql_as_crr(?)", changeset.TextString(s.name))
		}
	case 3: // a table whose clocks outlive it
		if !p.inTx {
			// Of clocks without their row the stock engine makes an error when they tie, ours lets the change win.
			d.both(p, "DELETE FROM "+s.table())
			d.both(p, "DROP TABLE "+s.table())
			d.both(p, s.sql)
			d.both(p, "SELECT crsql_as_crr(?)", changeset.TextString(s.name))
			d.insert(p, s) // not earlier: see TestTableMadeAgain
			d.insert(p, s)
		}
	case 4:
		d.both(p, "SELECT crsql_next_db_version(?)", changeset.Integer(rapid.Int64Range(0, 20).Draw(d.rt, "next")))
	case 5: // a table that is no CRR
		d.both(p, "INSERT OR REPLACE INTO crsql_tracked_peers VALUES (x'01', 1, 1, 1, 1)")
	default:
		for _, where := range []string{
			"db_version > 1 AND site_id IS NOT crsql_site_id()", "site_id = crsql_site_id() AND db_version <= 2", "cid = '-1'", "cl = 1 AND seq < 2", "col_version > 1",
			`"table" = 't1' AND pk = x'010901'`, "val IS NULL", "val IS NOT NULL", "cl = 1 ORDER BY db_version DESC, seq DESC",
		} {
			sql := "SELECT * FROM crsql_changes WHERE " + where
			theirs := d.oracle.ask(p.name, false, oracleStep{SQL: sql})[0]
			if theirs.err != nil {
				d.fail("%s: %s: theirs: %v", p.name, sql, theirs.err)
			}
			if ours, theirs := dump(p.ours.run(sql)), dump(theirs.rows); ours != theirs {
				d.fail("%s: %s\nours:\n%s\ntheirs:\n%s", p.name, sql, ours, theirs)
			}
		}
	}
}

func (d *differential) transaction(p *pair) {
	if !p.inTx {
		d.both(p, "BEGIN")
		p.inTx = true
		return
	}
	switch rapid.IntRange(0, 5).Draw(d.rt, "end") {
	case 0, 1, 2:
		if d.both(p, "COMMIT").err == nil {
			p.inTx = false
		}
	case 3:
		if d.both(p, "ROLLBACK").err == nil {
			p.inTx, p.impactedDiffers = false, true
		}
	case 4:
		d.both(p, "SAVEPOINT s")
	default:
		d.both(p, "ROLLBACK TO s")
	}
}

// sync merges changes of another database, in a random order.
func (d *differential) sync(p *pair) {
	from := rapid.SampledFrom(d.pairs).Draw(d.rt, "from")
	rows := d.oracle.ask(from.name, false, oracleStep{SQL: "SELECT * FROM crsql_changes"})[0].rows
	if rapid.IntRange(0, 1).Draw(d.rt, "shuffled") == 1 {
		rows = rapid.Permutation(rows).Draw(d.rt, "order")
	}
	if rapid.IntRange(0, 3).Draw(d.rt, "part") == 0 {
		rows = rows[:len(rows)/2]
	}
	if rapid.IntRange(0, 1).Draw(d.rt, "batch") == 1 {
		d.applyBatch(p, rows)
		return
	}
	for _, row := range rows {
		d.both(p, "INSERT INTO crsql_changes VALUES (?,?,?,?,?,?,?,?,?)", row...)
	}
}

// synthetic merges changes that nobody wrote.
func (d *differential) synthetic(p *pair, s *shape) {
	var rows [][]changeset.Value
	key, oneKey := d.key(s), rapid.Bool().Draw(d.rt, "one key")
	for range rapid.IntRange(1, 8).Draw(d.rt, "changes") {
		if !oneKey {
			key = d.key(s)
		}
		pk, err := changeset.AppendPacked(nil, key)
		if err != nil {
			d.fail("%v", err)
		}
		cid := rapid.SampledFrom(append([]string{changeset.SentinelCID}, s.cols...)).Draw(d.rt, "cid")
		if rapid.IntRange(0, 30).Draw(d.rt, "unknown column") == 0 {
			cid = "nowhere"
		}
		cl := rapid.Int64Range(-1, 5).Draw(d.rt, "cl")
		version, val := rapid.Int64Range(0, 4).Draw(d.rt, "col_version"), d.value()
		if cid == changeset.SentinelCID || cl%2 == 0 {
			version, val = max(cl, 0), changeset.Null() // our engine takes nothing else for a sentinel's version
		}
		site := changeset.Null()
		switch rapid.IntRange(0, 4).Draw(d.rt, "site") {
		case 0, 1:
			site = changeset.Blob([]byte("an unknown site!"))
		case 2:
			site = changeset.Blob([]byte("short"))
		case 3:
			site = changeset.Blob(nil)
		}
		dbVersion := rapid.Int64Range(0, 9).Draw(d.rt, "db_version")
		if p.inTx {
			dbVersion = 0 // the stock engine lets a refused change raise the transaction's version
		}
		rows = append(rows, []changeset.Value{
			changeset.TextString(s.name), changeset.Blob(pk), changeset.TextString(cid), val, changeset.Integer(version),
			changeset.Integer(dbVersion), site, changeset.Integer(cl),
			changeset.Integer(rapid.Int64Range(0, 9).Draw(d.rt, "seq")),
		})
	}
	if rapid.IntRange(0, 1).Draw(d.rt, "batch") == 1 {
		d.applyBatch(p, rows)
		return
	}
	for _, row := range rows {
		d.both(p, "INSERT INTO crsql_changes VALUES (?,?,?,?,?,?,?,?,?)", row...)
	}
}

// applyBatch merges changes under one version: theirs one by one, ours with applyChanges.
func (d *differential) applyBatch(p *pair, rows [][]changeset.Value) {
	wasInTx := p.inTx
	if !wasInTx {
		d.both(p, "BEGIN")
		p.inTx = true
	}
	d.both(p, "DELETE FROM crsql_tracked_peers") // a merge without effect writes nothing in ours, and so does not commit
	version := d.both(p, "SELECT crsql_db_version() + 1").rows[0][0].Int64()
	refused := map[int]bool{}
	changes := make([]changeset.Change, len(rows))
	for i, row := range rows {
		row = append([]changeset.Value(nil), row...)
		row[5] = changeset.Integer(version)
		typed := make([]any, len(row))
		for j, v := range row {
			typed[j] = encodeTyped(v)
		}
		d.script = append(d.script, fmt.Sprintf("%s: batch %d %v", p.name, i, typed))
		if d.theirs(p, "INSERT INTO crsql_changes VALUES (?,?,?,?,?,?,?,?,?)", typed).err != nil {
			refused[i], p.impactedDiffers = true, true
		}
		changes[i] = changeOf(row)
	}
	anyRefused := len(refused) > 0
	_, err := p.ours.engine.applyChanges(version, changes)
	var failed ChangeErrors
	if err != nil && !errors.As(err, &failed) {
		d.fail("%s: applyChanges: %v", p.name, err)
	}
	for _, f := range failed {
		if !refused[f.Index] {
			d.fail("%s: applyChanges refuses %d: %v", p.name, f.Index, f)
		}
		delete(refused, f.Index)
	}
	for i := range refused {
		// What the next change to the row deletes or replaces is not written by ours at all.
		if i+1 == len(changes) || !sameRow(&changes[i], &changes[i+1]) {
			d.fail("%s: applyChanges accepts %d, which the reference refuses", p.name, i)
		}
	}
	if anyRefused {
		d.raise(p)
	}
	if !wasInTx {
		d.compare(p)
		d.both(p, "COMMIT")
		p.inTx = false
		p.impactedDiffers = p.impactedDiffers && len(rows) == 0
	}
}

func changeOf(row []changeset.Value) changeset.Change {
	return changeset.Change{
		Table: string(row[0].Bytes()), PK: row[1].Bytes(), CID: string(row[2].Bytes()), Val: row[3], ColVersion: row[4].Int64(),
		DBVersion: row[5].Int64(), Site: changeset.SiteID(row[6].Bytes()), CL: row[7].Int64(), Seq: row[8].Int64(),
	}
}

// compare compares all that the two engines hold of a database.
func (d *differential) compare(p *pair) {
	queries := []string{"SELECT * FROM crsql_changes", "SELECT crsql_db_version(), crsql_get_seq()"}
	if !p.impactedDiffers {
		queries = append(queries, "SELECT crsql_rows_impacted()")
	}
	for i := range d.shapes {
		s := &d.shapes[i]
		queries = append(queries,
			"SELECT "+idents("+", append(append([]string(nil), s.keys...), s.cols...), ",")+" FROM "+s.table(),
			"SELECT * FROM "+ident(s.name+pksSuffix),
			"SELECT key, col_name, col_version, db_version, s.site_id, seq FROM "+ident(s.name+clockSuffix)+" c LEFT JOIN crsql_site_id s ON s.ordinal = c.site_id")
	}
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
			d.fail("%s: %s\nours:\n%s\ntheirs:\n%s", p.name, queries[i], ours, theirs)
		}
	}
}

// dump returns rows as text, sorted.
func dump(rows [][]changeset.Value) string {
	lines := make([]string, len(rows))
	for i, row := range rows {
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
		lines[i] = strings.Join(cells, " | ")
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}
