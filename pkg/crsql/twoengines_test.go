package crsql

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// How many random histories TestInTurn goes through unless CRMESH_TURNS says otherwise.
const defaultTurns = 25

// fast opens a file without waiting for the disk: nobody cuts the power here.
func fast(path string) string { return "file:" + path + "?_sync=OFF" }

const masterSQL = "SELECT type, name, tbl_name, sql FROM sqlite_master"

// A turns is a file that either engine opens in turn.
type turns struct {
	*rapid.T
	t      *testing.T
	path   string
	open   []*engineDB
	shape  *shape
	added  int // columns, by alterations
	script []string
}

// TestInTurn: a file that both engines open, write, merge into and alter in turn is one database to both.
func TestInTurn(t *testing.T) {
	dir, run := t.TempDir(), 0
	checkTimes(t, envInt(t, "CRMESH_TURNS", defaultTurns), func(rt *rapid.T) {
		run++
		s := rapid.SampledFrom(shapes).Draw(rt, "shape")
		turn := &turns{T: rt, t: t, path: filepath.Join(dir, fmt.Sprint(run)), shape: &s}
		defer func() {
			turn.close()
			_ = os.Remove(turn.path)
			if rt.Failed() {
				rt.Logf("script:\n%s", strings.Join(turn.script, "\n"))
			}
		}()
		turn.all()
	})
}

// opened opens the file with one of the engines.
func (turn *turns) opened(ours bool) *engineDB {
	var d *engineDB
	if ours {
		d = openOurs(turn.t, fast(turn.path))
	} else {
		d = openTheirs(turn.t, turn.path)
	}
	d.t = turn.T
	turn.open = append(turn.open, d)
	turn.script = append(turn.script, "-- "+d.name)
	return d
}

func (turn *turns) close() {
	for _, d := range turn.open {
		d.close()
	}
	turn.open = nil
}

// step runs a statement that a constraint may refuse.
func (turn *turns) step(d *engineDB, sql string, args ...any) {
	_, err := d.try(sql, args...)
	turn.script = append(turn.script, fmt.Sprintf("%s %v -- %v", sql, args, err))
}

func (turn *turns) all() {
	d := turn.opened(rapid.Bool().Draw(turn.T, "ours first"))
	turn.step(d, turn.shape.sql())
	turn.step(d, "SELECT crsql_as_crr(?)", turn.shape.name)
	site, state := d.text("SELECT crsql_site_id()"), ""
	for range rapid.IntRange(2, 5).Draw(turn.T, "rounds") {
		for range rapid.IntRange(1, 8).Draw(turn.T, "steps") {
			if rapid.IntRange(0, 11).Draw(turn.T, "alter") == 0 {
				turn.alter(d) // not in a transaction that is undone: the original goes on as if it were not, see TestUndoneSchema
			} else {
				turn.write(d)
			}
		}
		d.check(turn.shape.name)
		// While one has it open, the other reads the same from it.
		other := turn.opened(d.name != "ours")
		state = turn.state(d)
		if got := turn.state(other); got != state {
			turn.Fatalf("%s reads\n%s\n%s reads\n%s", d.name, state, other.name, got)
		}
		if ours, theirs := d.text(masterSQL), other.text(masterSQL); ours != theirs {
			turn.Fatalf("opening it changed the schema from\n%s\nto\n%s", ours, theirs)
		}
		turn.close()
		d = turn.opened(rapid.Bool().Draw(turn.T, "ours"))
		if got := d.text("SELECT crsql_site_id()"); got != site {
			turn.Fatalf("the site id was %s and is %s", site, got)
		}
		if got := turn.state(d); got != state {
			turn.Fatalf("%s reads\n%s\nand before it was opened again\n%s", d.name, got, state)
		}
	}
	d.check(turn.shape.name)
}

// state is all that a database holds, as text.
func (turn *turns) state(d *engineDB) string {
	table := turn.shape.table()
	var columns []string
	for _, row := range d.run("SELECT name FROM pragma_table_info(?) ORDER BY cid", turn.shape.name) {
		columns = append(columns, string(row[0].Bytes()))
	}
	return strings.Join([]string{
		d.text("SELECT * FROM crsql_changes"),
		d.text("SELECT " + idents("+", columns, ",") + " FROM " + table), // an expression keeps its kind
		d.text("SELECT * FROM " + ident(turn.shape.name+clockSuffix)),
		d.text("SELECT * FROM " + ident(turn.shape.name+pksSuffix)),
		d.text("SELECT * FROM crsql_site_id"),
	}, "\n--\n")
}

func (turn *turns) key() []any {
	var key []any
	for _, name := range turn.shape.keys {
		switch n := rapid.IntRange(0, 2).Draw(turn.T, "key"); turn.shape.kind(name) {
		case changeset.KindInteger:
			key = append(key, []int64{1, -2, 1 << 40}[n])
		case changeset.KindText:
			key = append(key, []string{"", "k", "k\x00é"}[n])
		case changeset.KindBlob:
			key = append(key, [][]byte{{}, {1}, {1, 0}}[n])
		default:
			key = append(key, []any{1, 1.5, "1"}[n])
		}
	}
	return key
}

func (turn *turns) value() any { return rapid.SampledFrom(edgeValues).Draw(turn.T, "value") }

func (turn *turns) write(d *engineDB) {
	s := turn.shape
	switch n := rapid.IntRange(0, 10).Draw(turn.T, "step"); {
	case n < 4:
		names, args := append(append([]string(nil), s.keys...), s.cols()...), turn.key()
		for range s.cols() {
			args = append(args, turn.value())
		}
		verb := rapid.SampledFrom([]string{"INSERT", "INSERT OR REPLACE"}).Draw(turn.T, "verb")
		turn.step(d, verb+" INTO "+s.table()+" ("+idents("", names, ",")+") VALUES ("+marks(len(names))+")", args...)
	case n < 6 && len(s.cols()) > 0:
		col := rapid.SampledFrom(s.cols()).Draw(turn.T, "column")
		turn.step(d, "UPDATE "+s.table()+" SET "+ident(col)+" = ? WHERE "+isParams(s.keys), append([]any{turn.value()}, turn.key()...)...)
	case n < 7:
		turn.step(d, "UPDATE OR REPLACE "+s.table()+" SET "+idents("", s.keys, " = ?, ")+" = ? WHERE "+isParams(s.keys), append(turn.key(), turn.key()...)...)
	case n < 8:
		turn.step(d, "DELETE FROM "+s.table()+" WHERE "+isParams(s.keys), turn.key()...)
	case n < 9:
		turn.step(d, "BEGIN")
		turn.write(d)
		turn.step(d, rapid.SampledFrom([]string{"COMMIT", "COMMIT", "ROLLBACK"}).Draw(turn.T, "end"))
	default:
		turn.merge(d)
	}
}

// merge merges a change that nobody wrote. The original leaves half of one that it refuses, and triggers off.
func (turn *turns) merge(d *engineDB) {
	s := turn.shape
	pk, err := changeset.AppendPacked(nil, values(turn.key()...))
	if err != nil {
		turn.Fatal(err)
	}
	cid, val := rapid.SampledFrom(append([]string{changeset.SentinelCID}, s.cols()...)).Draw(turn.T, "cid"), turn.value()
	cl := rapid.Int64Range(1, 4).Draw(turn.T, "cl")
	version := rapid.Int64Range(0, 4).Draw(turn.T, "col_version")
	if cid == changeset.SentinelCID || cl%2 == 0 {
		cid, version, val = changeset.SentinelCID, cl, nil
	}
	site := rapid.SampledFrom([][]byte{[]byte("another site's id"[:16]), []byte("short"), {}}).Draw(turn.T, "site")
	turn.step(d, "SAVEPOINT merging")
	if _, err := d.try(mergeSQL, s.name, pk, cid, val, version, rapid.Int64Range(0, 9).Draw(turn.T, "db_version"), site, cl, 0); err != nil {
		turn.step(d, "SELECT crsql_internal_sync_bit(0)")
		turn.step(d, "ROLLBACK TO merging")
	}
	turn.step(d, "RELEASE merging")
}

// alter adds a column.
func (turn *turns) alter(d *engineDB) {
	if d.int("SELECT count(*) FROM pragma_function_list WHERE name = 'crsql_begin_alter'") == 0 {
		return
	}
	turn.added++
	turn.step(d, "SELECT crsql_begin_alter(?)", turn.shape.name)
	turn.step(d, fmt.Sprintf("ALTER TABLE %s ADD COLUMN added%d ANY DEFAULT %d", turn.shape.table(), turn.added, turn.added))
	turn.step(d, "SELECT crsql_commit_alter(?)", turn.shape.name)
}
