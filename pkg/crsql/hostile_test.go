package crsql

import "strings"

// A neighbour is a well-behaved row beside whatever a test does to a database, and the proof that it did no harm.
type neighbour struct {
	d       *testDB
	version int64 // of its cell
}

// newNeighbour makes the row in a table of its own.
func newNeighbour(d *testDB) *neighbour {
	d.t.Helper()
	d.run("CREATE TABLE neighbour(id INTEGER PRIMARY KEY NOT NULL, n); SELECT crsql_as_crr('neighbour'); INSERT INTO neighbour VALUES (1, 0)")
	return &neighbour{d: d, version: 1}
}

// unharmed checks that triggers are on, that the row can be written and is tracked, that no clock has lost its key, and
// that SQLite finds the file whole. It may run within a transaction.
func (n *neighbour) unharmed(after string) {
	t := n.d.t
	t.Helper()
	if bit := n.d.int("SELECT crsql_internal_sync_bit()"); bit != 0 {
		t.Fatalf("after %s the triggers are off", after)
	}
	n.d.run("UPDATE neighbour SET n = n + 1 WHERE id = 1")
	n.version++
	if got := n.d.int("SELECT col_version FROM crsql_changes WHERE \"table\" = 'neighbour' AND pk = x'010901'"); got != n.version {
		t.Fatalf("after %s the neighbour's cell has version %d, not %d", after, got, n.version)
	}
	for _, row := range n.d.run("SELECT name FROM sqlite_master WHERE name LIKE '%__crsql_clock'") {
		clock := string(row[0].Bytes())
		keys := strings.TrimSuffix(clock, clockSuffix) + pksSuffix
		if lost := n.d.int("SELECT count(*) FROM " + ident(clock) + " WHERE key NOT IN (SELECT __crsql_key FROM " + ident(keys) + ")"); lost != 0 {
			t.Fatalf("after %s %d clocks of %s have no key", after, lost, clock)
		}
	}
	if got := dump(n.d.run("PRAGMA integrity_check")); got != `"ok"` {
		t.Fatalf("after %s the integrity check says %s", after, got)
	}
}

// autocommit checks that no transaction is open.
func (n *neighbour) autocommit(after string) {
	n.d.t.Helper()
	if !n.d.engine.sqlite.AutoCommit() {
		n.d.t.Fatalf("after %s a transaction is open", after)
	}
}
