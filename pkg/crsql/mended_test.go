package crsql

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// Faults of the original that lose data or stop it from travelling. Each test shows what the original does, so that it
// fails when a later one is better, and that ours does not. docs/COMPATIBILITY.md lists them.

// inBoth runs f with databases of the original and then of ours, in memory. opened opens one of them.
func inBoth(t *testing.T, f func(t *testing.T, mended bool, opened func() *engineDB)) {
	t.Run("theirs", func(t *testing.T) {
		f(t, false, func() *engineDB { return openTheirs(t, ":memory:") })
	})
	t.Run("ours", func(t *testing.T) {
		f(t, true, func() *engineDB { return openOurs(t, ":memory:") })
	})
}

// expect compares what a query gives with what it should give in an engine that has the fault, or has not.
func expect(t *testing.T, d *engineDB, mended bool, sql, faulty, right string) {
	t.Helper()
	want := faulty
	if mended {
		want = right
	}
	if got := d.text(sql); got != want {
		t.Errorf("%s: %s\ngot:\n%s\nwant:\n%s", d.name, sql, got, want)
	}
}

func makeCRR(d *engineDB, create string) {
	d.t.Helper()
	d.run(create)
	d.run("SELECT crsql_as_crr(?)", strings.Fields(create)[2])
}

const plainSQL = "CREATE TABLE t (id INTEGER PRIMARY KEY NOT NULL, x, y)"

// The columns of a row whose key changes keep their old db_version: a peer that has seen that far never gets them.
func TestMendedKeyUpdate(t *testing.T) {
	inBoth(t, func(t *testing.T, mended bool, opened func() *engineDB) {
		a, b := opened(), opened()
		makeCRR(a, plainSQL)
		makeCRR(b, plainSQL)
		a.run("INSERT INTO t VALUES (1, 'one', 'uno')")
		seen := b.pull(a, 0)
		a.run("UPDATE t SET id = 2")
		b.pull(a, seen)
		expect(t, a, mended, "SELECT * FROM t", `2 | "one" | "uno"`, `2 | "one" | "uno"`)
		expect(t, b, mended, "SELECT * FROM t", "2 | NULL | NULL", `2 | "one" | "uno"`)
	})
}

// A row that takes a key in use gets the clocks that it had, which may be those that the replaced row has elsewhere. Then
// the larger value wins there and the smaller one stays here, for good.
func TestMendedReplacedKey(t *testing.T) {
	inBoth(t, func(t *testing.T, mended bool, opened func() *engineDB) {
		a, b := opened(), opened()
		for _, d := range []*engineDB{a, b} {
			d.run("PRAGMA recursive_triggers = 0") // SQLite's own default; the wasm build has another
			makeCRR(d, plainSQL)
		}
		a.run("INSERT INTO t VALUES (1, 'a', 1), (5, 'z', 1)")
		b.pull(a, 0)
		a.run("UPDATE OR REPLACE t SET id = 5 WHERE id = 1")
		for range 2 {
			b.pull(a, 0) // everything, again and again
			a.pull(b, 0)
		}
		expect(t, a, mended, "SELECT * FROM t", `5 | "z" | 1`, `5 | "a" | 1`)
		expect(t, b, mended, "SELECT * FROM t", `5 | "z" | 1`, `5 | "a" | 1`)
	})
}

// A db_version of 2^63-1 from a peer leaves no number above it: what is written from then on gets -1, and nobody who
// asks for what is new is ever told.
func TestMendedHugeVersion(t *testing.T) {
	inBoth(t, func(t *testing.T, mended bool, opened func() *engineDB) {
		a, b := opened(), opened()
		makeCRR(a, plainSQL)
		makeCRR(b, plainSQL)
		a.run("INSERT INTO t VALUES (1, 'one', 1)")
		seen := b.pull(a, 0)
		_, err := a.try("INSERT INTO crsql_changes VALUES ('t', x'010909', 'x', 'huge', 1, 9223372036854775807, x'aa', 1, 0)")
		if mended != (err != nil) {
			t.Errorf("the change: %v", err)
		}
		a.run("INSERT INTO t VALUES (2, 'two', 1)")
		expect(t, a, mended, "SELECT DISTINCT db_version FROM crsql_changes WHERE pk = x'010902'", "-1", "2")
		b.pull(a, seen)
		expect(t, b, mended, "SELECT id FROM t WHERE id < 9", "1", "1\n2")
	})
	// Nor can a peer use up our numbers with one that we take.
	a, b := openOurs(t, ":memory:"), openOurs(t, ":memory:")
	makeCRR(a, plainSQL)
	makeCRR(b, plainSQL)
	for i := range 5 {
		a.run("INSERT INTO crsql_changes VALUES ('t', x'010909', 'x', 'huge', ?, 9007199254740991, x'aa', 1, 0)", i+1)
		a.run("INSERT INTO t VALUES (?, 'mine', 1)", i)
		b.pull(a, 0)
	}
	if got := a.text("SELECT count(*), max(db_version) FROM crsql_changes"); got != fmt.Sprintf("11 | %d", maxRaise+9) {
		t.Errorf("a holds %s", got)
	}
	if got := b.text("SELECT count(*), count(DISTINCT id) FROM t, crsql_changes"); got != "66 | 6" {
		t.Errorf("b holds %s", got)
	}
	// A file that the original has led there is written to as before.
	path := filepath.Join(t.TempDir(), "x")
	theirs := openTheirs(t, path)
	makeCRR(theirs, plainSQL)
	theirs.script("INSERT INTO t VALUES (1, 'one', 1)", "INSERT INTO crsql_changes VALUES ('t', x'010909', 'x', 'huge', 1, 9223372036854775807, x'aa', 1, 0)")
	theirs.close()
	ours := openOurs(t, path)
	ours.run("INSERT INTO t VALUES (2, 'two', 1)")
	if got := ours.text("SELECT DISTINCT db_version FROM crsql_changes WHERE pk = x'010902'"); got != "2" {
		t.Errorf("the next row has version %s", got)
	}
}

// The mesh never takes a peer's db_version for its own.
func TestMendedHugeVersionInMesh(t *testing.T) {
	n := newNode(t, "n")
	n.script(noteSQL)
	huge := title(1, "huge", 1)
	huge.DBVersion = 1<<63 - 1
	if got := n.apply(Group{Origin: siteX, Version: 1, Changes: []changeset.Change{huge}}); got.Ls[0] != 1 || got.Parked[0] != 0 {
		t.Errorf("got %+v", got)
	}
	n.exec("INSERT INTO note (id) VALUES (2)")
	if heads := n.state().Heads; heads != (Heads{Own: 2, Newest: 2}) {
		t.Errorf("heads %+v", heads)
	}
}

// With the clocks of a table the highest db_version may go, and numbers come back with other content: a peer that has
// seen them never asks for it.
func TestMendedFallingVersion(t *testing.T) {
	for what, drop := range map[string][]string{
		"crsql_as_table": {"SELECT crsql_as_table('gone')"},
		"DROP TABLE":     {"DROP TABLE gone", "DROP TABLE gone__crsql_clock", "DROP TABLE gone__crsql_pks"},
		"transaction":    {"BEGIN", "INSERT INTO gone VALUES (9, 9)", "DROP TABLE gone", "drop table\n\"gone__crsql_clock\"", "DROP TABLE gone__crsql_pks", "COMMIT"},
	} {
		t.Run(what, func(t *testing.T) {
			for _, mended := range []bool{false, true} {
				path := filepath.Join(t.TempDir(), "x")
				reopened := func() *engineDB {
					if mended {
						return openOurs(t, path)
					}
					return openTheirs(t, path)
				}
				a, b := reopened(), openOurs(t, ":memory:")
				makeCRR(a, plainSQL)
				makeCRR(a, "CREATE TABLE gone (id INTEGER PRIMARY KEY NOT NULL, x)")
				makeCRR(b, plainSQL)
				makeCRR(b, "CREATE TABLE gone (id INTEGER PRIMARY KEY NOT NULL, x)")
				a.script("INSERT INTO t VALUES (1, 'one', 1)", "INSERT INTO gone VALUES (1, 1)", "INSERT INTO gone VALUES (2, 1)")
				seen := b.pull(a, 0)
				a.script(drop...)
				a.close()
				a = reopened()
				a.run("INSERT INTO t VALUES (2, 'two', 1)")
				b.pull(a, seen)
				expect(t, b, mended, "SELECT id FROM t", "1", "1\n2")
				a.close()
				// The original keeps to it, too.
				a = openTheirs(t, path)
				version := a.int("SELECT crsql_db_version()")
				a.run("INSERT INTO t VALUES (3, 'three', 1)")
				expect(t, a, mended, fmt.Sprintf("SELECT max(db_version) > %d, %d > 3 FROM crsql_changes", version, version), "1 | 0", "1 | 1")
				a.close()
			}
		})
	}
}

// Also where the original drops the clocks, and one of ours has the file open.
func TestMendedFallByOthers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	ours := openOurs(t, path)
	makeCRR(ours, plainSQL)
	makeCRR(ours, "CREATE TABLE gone (id INTEGER PRIMARY KEY NOT NULL, x)")
	ours.script("INSERT INTO t VALUES (1, 'one', 1)", "INSERT INTO gone VALUES (1, 1)", "INSERT INTO gone VALUES (2, 1)")
	theirs := openTheirs(t, path)
	theirs.run("SELECT crsql_as_table('gone')")
	expect(t, theirs, false, "SELECT crsql_db_version()", "1", "3")
	theirs.close()
	ours.run("INSERT INTO t VALUES (2, 'two', 1)")
	expect(t, ours, true, "SELECT max(db_version) FROM crsql_changes", "2", "4")
}

// A packed key that is empty or NULL ends the original's process: in WebAssembly it is the trap that an abort becomes.
// One that holds too few values takes the rest from the change before it, and makes a row that nobody wrote.
func TestMendedKeys(t *testing.T) {
	const create = "CREATE TABLE t (a NOT NULL, b NOT NULL, x, PRIMARY KEY (a, b))"
	good := "INSERT INTO crsql_changes VALUES ('t', x'020907090d', 'x', 'good', 1, 1, x'aa', 1, 0)"
	for _, test := range []struct {
		key  string
		dies bool
	}{{"x''", true}, {"NULL", true}, {"x'00'", false}, {"x'010b0161'", false}} {
		t.Run(test.key, func(t *testing.T) {
			bad := "INSERT INTO crsql_changes VALUES ('t', " + test.key + ", 'x', 'bad', 1, 1, x'aa', 1, 0)"
			o := sharedOracle(t)
			if test.dies {
				o = startOracle(t)
			}
			d, err := tryTheirs(t, o, ":memory:")
			if err != nil {
				t.Fatal(err)
			}
			makeCRR(d, create)
			d.run(good)
			if _, err := d.try(bad); test.dies != (err != nil && err.Error() == "unreachable") {
				t.Errorf("theirs: %v", err)
			} else if !test.dies {
				expect(t, d, false, "SELECT count(*) FROM t", "2", "1")
			}

			ours := openOurs(t, ":memory:")
			makeCRR(ours, create)
			ours.run(good)
			if _, err := ours.try(bad); err == nil || !strings.Contains(err.Error(), `table "t"`) || !strings.Contains(err.Error(), "primary key") {
				t.Errorf("ours: %v", err)
			}
			ours.check("t")
			expect(t, ours, true, "SELECT * FROM t", "", `7 | 13 | "good"`)
		})
	}
}

// A change that the table refuses leaves triggers off: what the connection writes from then on has no clocks, and
// reaches nobody. In a transaction it also leaves half of itself.
func TestMendedRefusedChange(t *testing.T) {
	inBoth(t, func(t *testing.T, mended bool, opened func() *engineDB) {
		refused := "INSERT INTO crsql_changes VALUES ('t', x'010909', 'x', 'bad', 1, 1, x'aa', 3, 0)"
		a, b := opened(), opened()
		for _, d := range []*engineDB{a, b} {
			makeCRR(d, "CREATE TABLE t (id INTEGER PRIMARY KEY NOT NULL, x CHECK (x <> 'bad'))")
		}
		if _, err := a.try(refused); err == nil {
			t.Error("the table takes it")
		}
		a.run("INSERT INTO t VALUES (1, 'mine')")
		b.pull(a, 0)
		expect(t, b, mended, "SELECT * FROM t", "", `1 | "mine"`)

		b.run("BEGIN")
		if _, err := b.try(refused); err == nil {
			t.Error("the table takes it")
		}
		b.run("COMMIT")
		expect(t, b, mended, "SELECT id FROM t WHERE id = 9", "9", "")
	})
}

// A table that cannot become a CRR undoes the transaction: what was written before is gone, and what comes after is
// written though the transaction may not succeed.
func TestMendedRefusedCRR(t *testing.T) {
	inBoth(t, func(t *testing.T, mended bool, opened func() *engineDB) {
		d := opened()
		makeCRR(d, plainSQL)
		d.script("CREATE TABLE bad (a)", "BEGIN", "INSERT INTO t VALUES (1, 1, 1)")
		if _, err := d.try("SELECT crsql_as_crr('bad')"); err == nil {
			t.Error("it became a CRR")
		}
		d.run("INSERT INTO t VALUES (2, 2, 2)")
		if _, err := d.try("COMMIT"); (err == nil) != mended {
			t.Errorf("COMMIT: %v", err)
		}
		expect(t, d, mended, "SELECT id FROM t", "2", "1\n2")
	})
}

// A CRR that is dropped leaves its clocks, and crsql_changes cannot be read any more, of whichever table.
func TestMendedDroppedTable(t *testing.T) {
	inBoth(t, func(t *testing.T, mended bool, opened func() *engineDB) {
		d := opened()
		makeCRR(d, plainSQL)
		makeCRR(d, "CREATE TABLE gone (id INTEGER PRIMARY KEY NOT NULL, x)")
		d.script("INSERT INTO gone VALUES (1, 1)", "DROP TABLE gone", "INSERT INTO t VALUES (1, 1, 1)")
		if rows, err := d.try("SELECT * FROM crsql_changes"); mended != (err == nil && len(rows) == 2) {
			t.Errorf("%d changes, %v", len(rows), err)
		}
	})
}

// A connection that has read crsql_changes never looks at the schema again before it commits something itself. A program
// that only reads misses the CRRs that another one makes, notes the highest version all the same, and never asks again.
func TestMendedReader(t *testing.T) {
	for _, mended := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "x")
		writer, reader, peer := openOurs(t, fast(path)), openOurs(t, fast(path)), openOurs(t, ":memory:")
		if !mended {
			reader = openTheirs(t, path)
		}
		makeCRR(writer, plainSQL)
		seen := peer.pull(reader, 0)
		makeCRR(writer, "CREATE TABLE next (id INTEGER PRIMARY KEY NOT NULL, x)")
		makeCRR(peer, plainSQL)
		makeCRR(peer, "CREATE TABLE next (id INTEGER PRIMARY KEY NOT NULL, x)")
		writer.script("INSERT INTO next VALUES (1, 1)", "INSERT INTO t VALUES (1, 1, 1)")
		seen = peer.pull(reader, seen)
		writer.run("INSERT INTO t VALUES (2, 1, 1)")
		peer.pull(reader, seen)
		expect(t, peer, mended, "SELECT id FROM next", "", "1")
		reader.close()
	}
}

// A CRR that is made and undone is remembered, until the schema changes again: the next one is none.
func TestMendedUndoneSchema(t *testing.T) {
	inBoth(t, func(t *testing.T, mended bool, opened func() *engineDB) {
		d := opened()
		makeCRR(d, plainSQL)
		d.run("BEGIN")
		makeCRR(d, "CREATE TABLE undone (id INTEGER PRIMARY KEY NOT NULL, x)")
		d.run("INSERT INTO undone VALUES (1, 1)")
		d.run("ROLLBACK")
		makeCRR(d, "CREATE TABLE next (id INTEGER PRIMARY KEY NOT NULL, z)")
		if _, err := d.try("INSERT INTO next VALUES (1, 1)"); mended != (err == nil) {
			t.Errorf("the next table: %v", err)
		}
		if rows, err := d.try("SELECT * FROM crsql_changes"); mended != (err == nil && len(rows) == 1) {
			t.Errorf("%d changes, %v", len(rows), err)
		}
	})
	// However it was undone.
	d := openTest(t, ":memory:")
	d.run("CREATE TABLE strict (id INTEGER PRIMARY KEY NOT NULL, x UNIQUE ON CONFLICT ROLLBACK); INSERT INTO strict VALUES (1, 1)")
	for i, undo := range []func(*testing.T){
		func(t *testing.T) { d.run("ROLLBACK") },
		func(t *testing.T) {
			if _, err := d.try("INSERT INTO strict VALUES (2, 1)"); err == nil {
				t.Error("no conflict")
			}
		},
		nil, // Tx.Rollback
	} {
		const undone = "CREATE TABLE undone (id INTEGER PRIMARY KEY NOT NULL, x); SELECT crsql_as_crr('undone'); INSERT INTO undone VALUES (1, 1)"
		if undo != nil {
			d.run("BEGIN")
			d.run(undone)
			d.run("SELECT * FROM crsql_changes")
			undo(t)
		} else {
			tx, err := d.conn.BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec(undone); err != nil {
				t.Fatal(err)
			}
			if err := tx.Rollback(); err != nil {
				t.Fatal(err)
			}
		}
		name := fmt.Sprint("next", i)
		d.run("CREATE TABLE " + name + " (id INTEGER PRIMARY KEY NOT NULL, z); SELECT crsql_as_crr('" + name + "')")
		d.run("INSERT INTO " + name + " VALUES (1, 1)")
		if n := d.int("SELECT count(*) FROM crsql_changes"); n != int64(i)+1 {
			t.Errorf("%d changes, want %d", n, i+1)
		}
	}
}

// In a transaction that has written to a CRR, the next one that is made is none before the commit.
func TestMendedTableInTransaction(t *testing.T) {
	inBoth(t, func(t *testing.T, mended bool, opened func() *engineDB) {
		d := opened()
		makeCRR(d, plainSQL)
		d.script("BEGIN", "INSERT INTO t VALUES (1, 1, 1)")
		makeCRR(d, "CREATE TABLE next (id INTEGER PRIMARY KEY NOT NULL, z)")
		if _, err := d.try("INSERT INTO next VALUES (1, 1)"); mended != (err == nil) {
			t.Errorf("the next table: %v", err)
		}
		d.run("COMMIT")
	})
}

// An update that changes nothing raises crsql_db_version() until the connection ends, or commits something else: whoever
// notes that number never gets the rows that have it later.
func TestMendedNothingChanged(t *testing.T) {
	inBoth(t, func(t *testing.T, mended bool, opened func() *engineDB) {
		a, b := opened(), opened()
		makeCRR(a, plainSQL)
		makeCRR(b, plainSQL)
		a.run("CREATE TABLE other (x)")
		for i, nothing := range [][]string{
			{"UPDATE t SET x = x"},
			{"INSERT INTO t (id, x) VALUES (0, 1) ON CONFLICT DO UPDATE SET x = excluded.x"},
			{"BEGIN", "SAVEPOINT s", "INSERT INTO t VALUES (100, 1, 1)", "ROLLBACK TO s", "INSERT INTO other VALUES (1)", "COMMIT"},
			{"SELECT crsql_next_db_version()", "INSERT INTO other VALUES (1)"},
		} {
			a.run("INSERT INTO t VALUES (?, 1, 1)", i)
			a.script(nothing...)
			b.pull(a, 0)
			seen := a.int("SELECT crsql_db_version()") // what b has seen, it thinks
			a.run("INSERT INTO other VALUES (1)")
			a.run("INSERT INTO t VALUES (?, 1, 1)", 10+i)
			b.pull(a, seen)
			expect(t, b, mended, fmt.Sprintf("SELECT id FROM t WHERE id = %d", 10+i), "", fmt.Sprint(10+i))
		}
	})
}

// A table that is dropped and made again finds its old clocks. Rows that it holds by then stay deleted for everybody
// else, where the old ones say so.
func TestMendedTableMadeAgain(t *testing.T) {
	inBoth(t, func(t *testing.T, mended bool, opened func() *engineDB) {
		a, b := opened(), opened()
		makeCRR(a, plainSQL)
		makeCRR(b, plainSQL)
		a.script("INSERT INTO t VALUES (1, 'old', 1)", "DELETE FROM t")
		b.pull(a, 0)
		a.script("DROP TABLE t", plainSQL, "INSERT INTO t VALUES (1, 'new', 1)", "SELECT crsql_as_crr('t')")
		b.pull(a, 0)
		expect(t, a, mended, "SELECT * FROM t", `1 | "new" | 1`, `1 | "new" | 1`)
		expect(t, b, mended, "SELECT * FROM t", "", `1 | "new" | 1`)
	})
}

// Clocks that have outlived their row, since somebody wrote without triggers, refuse the change that has that row, and
// with it all that travels in the same transaction.
func TestMendedLostRow(t *testing.T) {
	inBoth(t, func(t *testing.T, mended bool, opened func() *engineDB) {
		d := opened()
		makeCRR(d, plainSQL)
		change := "INSERT INTO crsql_changes VALUES ('t', x'010901', 'x', 'one', 1, 1, x'aa', 1, 0)"
		d.script(change, "SELECT crsql_internal_sync_bit(1)", "DELETE FROM t", "SELECT crsql_internal_sync_bit(0)")
		if _, err := d.try(change); mended != (err == nil) {
			t.Errorf("the change: %v", err)
		}
		expect(t, d, mended, "SELECT id, x FROM t", "", `1 | "one"`)
	})
}

// A write to a cell at the highest version that is merged elsewhere is one that nobody else takes.
func TestMendedPinned(t *testing.T) {
	inBoth(t, func(t *testing.T, mended bool, opened func() *engineDB) {
		a, b := opened(), openOurs(t, ":memory:")
		makeCRR(a, plainSQL)
		makeCRR(b, plainSQL)
		a.run("INSERT INTO t VALUES (1, 'one', 1)")
		a.run("INSERT INTO crsql_changes VALUES ('t', x'010901', 'x', 'pinned', 9007199254740991, 1, x'aa', 1, 0)")
		seen := b.pull(a, 0)
		_, err := a.try("UPDATE t SET x = 'for itself'")
		if mended != (err != nil && strings.Contains(err.Error(), "pinned")) {
			t.Errorf("the write: %v", err)
		}
		expect(t, a, mended, "SELECT x FROM t", `"for itself"`, `"pinned"`)
		if mended {
			b.pull(a, seen)
		}
		expect(t, b, mended, "SELECT x FROM t", `"pinned"`, `"pinned"`)
	})
}
