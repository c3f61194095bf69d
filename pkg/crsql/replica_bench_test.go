package crsql

import (
	"fmt"
	"testing"
	"time"
)

const citySQL = `CREATE TABLE city (id INTEGER PRIMARY KEY NOT NULL, name TEXT, ascii TEXT, country TEXT, feature TEXT, population INTEGER, lat REAL, lon REAL);
	SELECT crsql_as_crr('city')`

// fillCities writes rows of seven columns in one transaction: one entry.
func (n *node) fillCities(rows int) {
	n.t.Helper()
	n.exec(`WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i WHERE n < ?)
		INSERT INTO city SELECT n, 'Name of city ' || n, 'Ascii name ' || n, 'XY', 'PPL', n * 7919 % 1000003, n / 1000.0, -n / 2000.0 FROM i`, rows)
}

// BenchmarkEntry reads one entry as a peer is served it, message by message, and applies it as a peer gets it.
func BenchmarkEntry(b *testing.B) {
	for _, rows := range []int{10_000, 138_398} {
		b.Run(fmt.Sprint(rows), func(b *testing.B) {
			from := newNode(b, "from")
			from.script(citySQL)
			start := time.Now()
			from.fillCities(rows)
			b.ReportMetric(float64(rows*7)/time.Since(start).Seconds(), "inserted/s")
			for b.Loop() {
				to := newNode(b, "to")
				to.script(citySQL)
				var reading, applying time.Duration
				changes, messages := 0, 0
				for q := all(Position{}); ; {
					start := time.Now()
					got := from.read(q)
					reading += time.Since(start)
					start = time.Now()
					for _, e := range got.Entries {
						changes += len(e.Changes)
						messages++
						to.apply(Group{Origin: e.Origin, Version: e.Version, Changes: e.Changes})
					}
					applying += time.Since(start)
					if q.After = got.Next; got.End {
						break
					}
				}
				if changes != rows*7 {
					b.Fatalf("%d changes, want %d", changes, rows*7)
				}
				b.ReportMetric(float64(changes)/reading.Seconds(), "read/s")
				b.ReportMetric(float64(changes)/applying.Seconds(), "applied/s")
				b.ReportMetric(float64(messages), "messages")
			}
		})
	}
}
