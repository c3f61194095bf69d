package crsql

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// A fuzzInput is what a fuzzer made, read as choices and values. It never ends: behind its end there are zeros.
type fuzzInput struct{ b []byte }

func (in *fuzzInput) byte() byte {
	if len(in.b) == 0 {
		return 0
	}
	b := in.b[0]
	in.b = in.b[1:]
	return b
}

func (in *fuzzInput) bytes(n int) []byte {
	b := make([]byte, n)
	in.b = in.b[copy(b, in.b):]
	return b
}

// value returns any value, of up to 63 bytes.
func (in *fuzzInput) value() changeset.Value {
	kind := in.byte()
	switch kind % 5 {
	case 0:
		return changeset.Integer(int64(int8(in.byte())))
	case 1:
		return changeset.Integer(int64(binary.BigEndian.Uint64(in.bytes(8))))
	case 2:
		return changeset.Real(math.Float64frombits(binary.BigEndian.Uint64(in.bytes(8))))
	case 3:
		return changeset.Text(in.bytes(int(in.byte() & 63)))
	default:
		return changeset.Blob(in.bytes(int(in.byte() & 63)))
	}
}

// oneOf returns one of the usual values, or now and then any.
func (in *fuzzInput) oneOf(usual []changeset.Value) changeset.Value {
	if choice := int(in.byte()); choice < 224 {
		return usual[choice%len(usual)]
	}
	return in.value()
}

func texts(list ...string) []changeset.Value {
	var values []changeset.Value
	for _, s := range list {
		values = append(values, textValue(s))
	}
	return values
}

func blobs(list ...string) []changeset.Value {
	var values []changeset.Value
	for _, s := range list {
		values = append(values, blobValue(s))
	}
	return values
}

func integers(list ...int64) []changeset.Value {
	var values []changeset.Value
	for _, n := range list {
		values = append(values, changeset.Integer(n))
	}
	return values
}

// usualRow is what each column of crsql_changes holds usually, for the tables of fuzzSchema.
var usualRow = [9][]changeset.Value{
	texts("t", "t", "pair", "tag", "nowhere"),
	blobs("\x01\x09\x01", "\x01\x09\x02", "\x01\x09\x03", "\x01\x09\x05", "\x02\x09\x01\x0b\x01a", "\x02\x09\x02\x0b\x01a", "\x01\x0b\x01x", "\x01\x0b\x01y", "\x01\x09\x01rest", "\x01\x11\x00\x01", "\x02\x09\x01", "\x01\x05"),
	texts("x", "y", "v", "-1", "nothing"),
	edgeValues,
	integers(0, 1, 2, 3, 4, 9),
	integers(0, 1, 5, 100),
	append(blobs("", "sixteen bytes id", "another of those", "short"), changeset.Null()),
	integers(1, 1, 2, 3, 4, 5, 0, -1),
	integers(0, 1, 2, 3),
}

const fuzzSchema = `CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, x, y TEXT DEFAULT 'd' CHECK (y <> 'bad')); SELECT crsql_as_crr('t');
CREATE TABLE pair(k TEXT NOT NULL, n INTEGER NOT NULL, v NUMERIC, PRIMARY KEY(n, k)) WITHOUT ROWID; SELECT crsql_as_crr('pair');
CREATE TABLE tag(name TEXT PRIMARY KEY NOT NULL); SELECT crsql_as_crr('tag');
INSERT INTO t VALUES (1, 1, 'y'), (2, 2, 'y'), (3, NULL, NULL); DELETE FROM t WHERE id = 2; UPDATE t SET x = 'u';
INSERT INTO pair VALUES ('a', 1, 1.5), ('a', 2, 2); DELETE FROM pair WHERE n = 2; INSERT INTO pair VALUES ('a', 2, 3);
INSERT INTO tag VALUES ('x'), ('y'); DELETE FROM tag WHERE name = 'y'`

// openFuzz opens a database for the targets below, all with one site id. What they do to it they roll back.
func openFuzz(f testing.TB) (*testDB, *neighbour) {
	f.Helper()
	d := openTest(f, ":memory:")
	d.run("UPDATE crsql_site_id SET site_id = 'this own site id' WHERE ordinal = 0")
	d.engine.dataVersion = unknown // it is read again
	d.run(fuzzSchema)
	n := newNeighbour(d)
	d.run("SELECT count(*) FROM crsql_changes") // the view, outside the transactions that are rolled back
	return d, n
}

// begin starts the transaction of a run, also after one that failed.
func (d *testDB) begin(t *testing.T) {
	t.Helper()
	d.t = t
	if !d.engine.sqlite.AutoCommit() {
		d.run("ROLLBACK")
	}
	d.run("BEGIN")
}

// state is all that a database holds of its CRRs. Which number stands for a site depends on which were seen.
func (d *testDB) state() string {
	d.t.Helper()
	var b strings.Builder
	for _, sql := range []string{
		"SELECT * FROM crsql_changes", "SELECT crsql_next_db_version()", "SELECT id, +x, +y FROM t", "SELECT k, n, +v FROM pair", "SELECT * FROM tag",
		"SELECT * FROM t__crsql_pks", "SELECT * FROM pair__crsql_pks", "SELECT * FROM tag__crsql_pks",
	} {
		b.WriteString(sql + "\n" + dump(d.run(sql)) + "\n")
	}
	for _, clock := range []string{"t__crsql_clock", "pair__crsql_clock", "tag__crsql_clock"} {
		b.WriteString(clock + "\n" + dump(d.run("SELECT key, col_name, col_version, db_version, s.site_id, seq FROM "+clock+" c LEFT JOIN crsql_site_id s ON s.ordinal = c.site_id")) + "\n")
	}
	return b.String()
}

// consistent checks that each clock has its key, and that no row is both deleted and there.
func (d *testDB) consistent() {
	d.t.Helper()
	for _, sql := range []string{
		"SELECT * FROM t__crsql_clock WHERE key NOT IN (SELECT __crsql_key FROM t__crsql_pks)", "SELECT * FROM pair__crsql_clock WHERE key NOT IN (SELECT __crsql_key FROM pair__crsql_pks)",
		"SELECT * FROM tag__crsql_clock WHERE key NOT IN (SELECT __crsql_key FROM tag__crsql_pks)",
		"SELECT * FROM t JOIN t__crsql_pks k USING (id) JOIN t__crsql_clock ON key = __crsql_key WHERE col_name = '-1' AND col_version % 2 = 0",
		"SELECT * FROM pair JOIN pair__crsql_pks k USING (k, n) JOIN pair__crsql_clock ON key = __crsql_key WHERE col_name = '-1' AND col_version % 2 = 0",
		"SELECT * FROM t WHERE id NOT IN (SELECT id FROM t__crsql_pks)",
		"SELECT key FROM t__crsql_clock GROUP BY key HAVING count(*) > 1 AND max(CASE WHEN col_name = '-1' THEN 1 - col_version % 2 END)",
	} {
		if got := d.run(sql); len(got) != 0 {
			d.t.Fatalf("%s gives\n%s", sql, dump(got))
		}
	}
}

// asChange converts a row as SQLite itself does.
func asChange(d *testDB, row []changeset.Value) changeset.Change {
	args := make([]any, len(row))
	for i, v := range row {
		args[i] = toDriver(v)
		if v.Kind() == changeset.KindReal && (i < 3 || i == 6) {
			args[i] = floatText(v.Float64(), floatDigits) // SQLite's versions differ in the last digits
		}
	}
	c := d.run(`SELECT CAST(?1 AS TEXT), CAST(?2 AS BLOB), CAST(?3 AS TEXT), ?4, CAST(?5 AS INTEGER), CAST(?6 AS INTEGER), CAST(?7 AS BLOB), CAST(?8 AS INTEGER), CAST(?9 AS INTEGER)`, args...)[0]
	return changeset.Change{
		Table: string(c[0].Bytes()), PK: c[1].Bytes(), CID: string(c[2].Bytes()), Val: row[3], ColVersion: c[4].Int64(),
		DBVersion: c[5].Int64(), Site: changeset.SiteID(c[6].Bytes()), CL: c[7].Int64(), Seq: c[8].Int64(),
	}
}

// Rows of any types that are inserted into crsql_changes do what the same changes do through applyChanges, one by one or,
// if none is refused, all at once; they leave the tables consistent, and the transaction and its neighbours unharmed.
func FuzzChangesRow(f *testing.F) {
	for table := range byte(5) {
		for pk := range byte(12) {
			f.Add([]byte{0, 2, table, pk, pk % 5, pk, 3, 1, 0, 0})
		}
		for cid := range byte(5) {
			for cl := range byte(8) {
				f.Add([]byte{2, 1, table, table, cid, 5, 2, 1, cl, 0, table, table, cid, 6, 3, 2, cl, 1, table, table, 3, 0, cl, 1, cl, 2})
			}
		}
	}
	for column := range 9 {
		for kind := range byte(5) {
			row := []byte{0, 1, 0, 0, 0, 4, 2, 1, 0, 0}
			row = append(row[:1+column], append([]byte{255, kind, 3, 't', 'x', 1}, row[2+column:]...)...)
			f.Add(row)
		}
	}
	bySQL, neighbour := openFuzz(f)
	byCall, _ := openFuzz(f)
	atOnce, _ := openFuzz(f)
	all := []*testDB{bySQL, byCall, atOnce}
	f.Fuzz(func(t *testing.T, b []byte) {
		in := &fuzzInput{b}
		rows := make([][]changeset.Value, 1+in.byte()%4)
		dbVersion := in.oneOf(usualRow[5]) // one for all rows, as applyChanges has
		for i := range rows {
			rows[i] = make([]changeset.Value, 9)
			for column := range rows[i] {
				if rows[i][column] = dbVersion; column != 5 {
					rows[i][column] = in.oneOf(usualRow[column])
				}
			}
		}
		for _, d := range all {
			d.begin(t)
		}
		changes, refused := make([]changeset.Change, len(rows)), false
		for i, row := range rows {
			args := make([]any, len(row))
			for j, v := range row {
				args[j] = toDriver(v)
			}
			_, sqlErr := bySQL.try("INSERT INTO crsql_changes VALUES (?,?,?,?,?,?,?,?,?)", args...)
			changes[i] = asChange(bySQL, row)
			_, callErr := byCall.engine.applyChanges(changes[i].DBVersion, changes[i:i+1])
			if (sqlErr == nil) != (callErr == nil) {
				t.Fatalf("%+v: by SQL %v, by call %v", changes[i], sqlErr, callErr)
			}
			for _, err := range []error{sqlErr, callErr} {
				if err != nil && (strings.Contains(err.Error(), "internal error") || len(err.Error()) > 2000 || errors.Is(err, ErrBusy)) {
					t.Fatalf("%+v: %v", changes[i], err)
				}
			}
			refused = refused || sqlErr != nil
		}
		want := bySQL.state()
		if got := byCall.state(); got != want {
			t.Fatalf("%+v\nby SQL:\n%s\nby call:\n%s", changes, want, got)
		}
		if !refused {
			impacted, err := atOnce.engine.applyChanges(changes[0].DBVersion, changes)
			if err != nil {
				t.Fatalf("%+v at once: %v", changes, err)
			}
			if got := atOnce.state(); got != want {
				t.Fatalf("%+v\nby SQL:\n%s\nat once:\n%s", changes, want, got)
			}
			if one := byCall.int("SELECT crsql_rows_impacted()"); one != impacted {
				t.Fatalf("%+v: %d impacted one by one, %d at once", changes, one, impacted)
			}
		}
		bySQL.consistent()
		neighbour.version = 1
		neighbour.unharmed("such rows")
		for _, d := range all {
			if d.engine.nesting != 0 || d.engine.merging || d.engine.syncBit != 0 {
				t.Fatalf("%+v leave the engine in the middle of something", changes)
			}
			d.run("ROLLBACK")
		}
	})
}

// Functions of cr-sqlite take any arguments: they answer or fail in words, in a transaction that can go on.
func FuzzFunctions(f *testing.F) {
	d, neighbour := openFuzz(f)
	var names []string
	for _, row := range d.run("SELECT DISTINCT name FROM pragma_function_list WHERE name LIKE 'crsql\\_%' ESCAPE '\\' ORDER BY name") {
		names = append(names, string(row[0].Bytes()))
	}
	if len(names) < 15 {
		f.Fatalf("there are only %d functions", len(names))
	}
	usual := append(append(append(texts("t", "pair", "tag", "nowhere", "main", "temp", "merge-equal-values", "a0"), integers(0, 1, 2, 3, -1, math.MaxInt64, math.MinInt64)...), edgeValues...), usualRow[1]...)
	for i := range names {
		for count := range byte(10) {
			f.Add([]byte{byte(i), count, 0, 9, 10, 11, 12, 13, 14, 15, 16, 17})
			f.Add([]byte{byte(i), count, 1, 230, 3, 1, 'a', 240, 4, 2, 1, 2, 250, 2, 0x7f, 0xf0})
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		in := &fuzzInput{b}
		name := names[int(in.byte())%len(names)]
		args := make([]any, in.byte()%12)
		marks := make([]string, len(args))
		for i := range args {
			args[i], marks[i] = toDriver(in.oneOf(usual)), "?"
		}
		transaction := in.byte()%2 == 0
		d.begin(t)
		if !transaction {
			d.run("COMMIT; SAVEPOINT outer")
		}
		_, err := d.try(fmt.Sprintf("SELECT %s(%s)", name, strings.Join(marks, ",")), args...)
		if err != nil && (strings.Contains(err.Error(), "internal error") || len(err.Error()) > 2000) {
			t.Fatalf("%s(%v): %v", name, args, err)
		}
		if name == "crsql_internal_sync_bit" {
			d.engine.syncBit = 0
		}
		neighbour.version = 1
		if name != "crsql_automigrate" || err != nil { // which drops the tables that its schema lacks
			neighbour.unharmed(fmt.Sprintf("%s(%v)", name, args))
		}
		if d.engine.nesting != 0 || d.engine.merging || len(d.engine.unfinished) != 0 {
			t.Fatalf("%s(%v) leaves the engine in the middle of something", name, args)
		}
		if transaction {
			d.run("ROLLBACK")
		} else {
			d.run("ROLLBACK TO outer")
			d.run("RELEASE outer")
		}
		neighbour.autocommit(fmt.Sprintf("%s(%v)", name, args))
		if n := d.int("SELECT count(*) FROM crsql_changes WHERE \"table\" = 'neighbour' AND col_version = 1"); n != 1 {
			t.Fatalf("after %s(%v) and a rollback there are %d of the neighbour's changes", name, args, n)
		}
	})
}
