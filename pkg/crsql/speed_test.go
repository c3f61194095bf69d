package crsql

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

const (
	benchRows    = 20000
	benchColumns = 4
)

func openBench(b *testing.B) *testDB {
	d := openTest(b, "file:"+filepath.Join(b.TempDir(), "bench.db")+"?_journal_mode=WAL&_synchronous=NORMAL")
	d.run("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, a TEXT, b INTEGER, c REAL, d TEXT); SELECT crsql_as_crr('t')")
	return d
}

// benchChanges are the changes that inserting benchRows rows gives.
func benchChanges(b *testing.B, version int64) []changeset.Change {
	var changes []changeset.Change
	for i := range int64(benchRows) {
		pk := packedInt(b, i)
		for j, val := range []changeset.Value{
			changeset.TextString(fmt.Sprintf("row %d", i)), changeset.Integer(i), changeset.Real(float64(i)), changeset.TextString("some text"),
		} {
			changes = append(changes, changeset.Change{
				Table: "t", PK: pk, CID: string(rune('a' + j)), Val: val, ColVersion: version, Site: "0123456789abcdef", CL: 1, Seq: i*benchColumns + int64(j),
			})
		}
	}
	return changes
}

func reportChanges(b *testing.B) {
	b.ReportMetric(float64(b.N)*benchRows*benchColumns/b.Elapsed().Seconds(), "changes/s")
}

func benchApply(b *testing.B, versions ...int64) {
	for b.Loop() {
		b.StopTimer()
		d := openBench(b)
		for i, version := range versions {
			changes := benchChanges(b, version)
			if i == len(versions)-1 {
				b.StartTimer()
			}
			d.run("BEGIN")
			if _, err := d.engine.applyChanges(version, changes); err != nil {
				b.Fatal(err)
			}
			d.run("COMMIT")
		}
		b.StopTimer()
		d.close()
		b.StartTimer()
	}
	reportChanges(b)
}

func BenchmarkApplyNew(b *testing.B)   { benchApply(b, 1) }
func BenchmarkApplyNewer(b *testing.B) { benchApply(b, 1, 2) }
func BenchmarkApplyAgain(b *testing.B) { benchApply(b, 1, 1) }

func BenchmarkInsert(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		d := openBench(b)
		b.StartTimer()
		d.run("BEGIN")
		stmt, err := d.conn.PrepareContext(b.Context(), "INSERT INTO t VALUES (?, ?, ?, ?, 'some text')")
		if err != nil {
			b.Fatal(err)
		}
		for i := range benchRows {
			if _, err := stmt.Exec(i, "row", i, float64(i)); err != nil {
				b.Fatal(err)
			}
		}
		if err := stmt.Close(); err != nil {
			b.Fatal(err)
		}
		d.run("COMMIT")
		b.StopTimer()
		d.close()
		b.StartTimer()
	}
	b.ReportMetric(float64(b.N)*benchRows/b.Elapsed().Seconds(), "rows/s")
}

func BenchmarkOneRowCommits(b *testing.B) {
	d := openBench(b)
	d.run("INSERT INTO t(id) VALUES (1)")
	stmt, err := d.conn.PrepareContext(b.Context(), "UPDATE t SET b = ? WHERE id = 1")
	if err != nil {
		b.Fatal(err)
	}
	defer stmt.Close()
	i := 0
	for b.Loop() {
		i++
		if _, err := stmt.Exec(i); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReadChanges(b *testing.B) {
	d := openBench(b)
	d.run("BEGIN")
	if _, err := d.engine.applyChanges(1, benchChanges(b, 1)); err != nil {
		b.Fatal(err)
	}
	d.run("COMMIT")
	for b.Loop() {
		rows, err := d.conn.QueryContext(b.Context(), "SELECT * FROM crsql_changes WHERE db_version > 0")
		if err != nil {
			b.Fatal(err)
		}
		n := 0
		for rows.Next() {
			n++
		}
		if err := rows.Close(); err != nil || n != benchRows*benchColumns {
			b.Fatalf("%d rows, %v", n, err)
		}
	}
	reportChanges(b)
}
