package crsql

import "testing"

// What cr-sqlite's own tests say of causal lengths and sentinels. Each step runs in the original too, and what it answers
// must be the same: see twins.

const abSQL = "CREATE TABLE foo (a INTEGER PRIMARY KEY NOT NULL, b INTEGER) STRICT"

// crrTwins returns twins with a CRR.
func crrTwins(t *testing.T, create string) *twins {
	t.Helper()
	w := newTwins(t)
	w.makeCRR(create)
	return w
}

const lengths = "SELECT hex(pk), cid, col_version, cl FROM crsql_changes"

// An insert counts as length 1 and writes no sentinel; neither does an update, an upsert or a replacement of a row that is
// there.
func TestUpstreamNoSentinel(t *testing.T) {
	w := crrTwins(t, abSQL)
	w.run("PRAGMA recursive_triggers = 0") // SQLite's default, which the wasm build changes
	for _, step := range []struct{ sql, want string }{
		{"INSERT OR REPLACE INTO foo VALUES (1, 2)", `"010901" | "b" | 1 | 1`},
		{"INSERT OR REPLACE INTO foo VALUES (1, 3)", `"010901" | "b" | 2 | 1`},
		{"INSERT INTO foo VALUES (1, 4) ON CONFLICT DO UPDATE SET b = excluded.b", `"010901" | "b" | 3 | 1`},
		{"UPDATE foo SET b = 5", `"010901" | "b" | 4 | 1`},
		{"UPDATE foo SET b = 6 WHERE a = 3", `"010901" | "b" | 4 | 1`},
		{"INSERT OR IGNORE INTO foo VALUES (1, 7)", `"010901" | "b" | 4 | 1`},
	} {
		w.run(step.sql)
		w.want(lengths, step.want)
	}
	w.refuse("INSERT INTO foo VALUES (1, 8)")
	w.want(lengths, `"010901" | "b" | 4 | 1`)
}

// A replacement deletes first where recursive_triggers is on, and then it is the next length.
func TestUpstreamReplaceRecursive(t *testing.T) {
	w := crrTwins(t, abSQL)
	w.script("PRAGMA recursive_triggers = 1", "INSERT INTO foo VALUES (1, 2)", "INSERT OR REPLACE INTO foo VALUES (1, 3)")
	w.want(lengths, `"010901" | "-1" | 3 | 3`, `"010901" | "b" | 1 | 3`)
}

// Deletes make the length even, inserts odd, and it only rises. A delete leaves nothing of a row but its sentinel.
func TestUpstreamLengthRises(t *testing.T) {
	w := crrTwins(t, abSQL)
	w.run("INSERT INTO foo VALUES (1, 2)")
	for _, step := range []struct {
		sql  string
		want []string
	}{
		{"DELETE FROM foo", []string{`"010901" | "-1" | 2 | 2`}},
		{"DELETE FROM foo", []string{`"010901" | "-1" | 2 | 2`}},
		{"INSERT INTO foo VALUES (1, 2)", []string{`"010901" | "-1" | 3 | 3`, `"010901" | "b" | 1 | 3`}},
		{"UPDATE foo SET b = 3", []string{`"010901" | "-1" | 3 | 3`, `"010901" | "b" | 2 | 3`}},
		{"DELETE FROM foo WHERE a = 1", []string{`"010901" | "-1" | 4 | 4`}},
		{"INSERT INTO foo VALUES (1, 4) ON CONFLICT DO UPDATE SET b = 5", []string{`"010901" | "-1" | 5 | 5`, `"010901" | "b" | 1 | 5`}},
	} {
		w.run(step.sql)
		w.want(lengths, step.want...)
	}
}

// An update of a key is a delete of the old one and an insert of the new one, each with the length that it had.
func TestUpstreamKeyLengths(t *testing.T) {
	w := crrTwins(t, abSQL)
	w.script("INSERT INTO foo VALUES (1, 2)", "UPDATE foo SET a = 2 WHERE a = 1")
	w.want("SELECT hex(pk), cid, cl FROM crsql_changes", `"010901" | "-1" | 2`, `"010902" | "-1" | 1`, `"010902" | "b" | 1`)
	w.run("UPDATE foo SET a = 1")
	w.want("SELECT hex(pk), cid, cl FROM crsql_changes", `"010901" | "-1" | 3`, `"010901" | "b" | 3`, `"010902" | "-1" | 2`)
	w.script("DELETE FROM foo", "INSERT INTO foo VALUES (1, 2)", "UPDATE foo SET a = 3")
	w.want("SELECT hex(pk), cid, cl FROM crsql_changes", `"010901" | "-1" | 6`, `"010902" | "-1" | 2`, `"010903" | "-1" | 1`, `"010903" | "b" | 1`)
}

// A table of nothing but its key has sentinels only.
func TestUpstreamKeysOnly(t *testing.T) {
	const create = "CREATE TABLE jx (id1 NOT NULL, id2 NOT NULL, PRIMARY KEY (id1, id2))"
	a, b := crrTwins(t, create), crrTwins(t, create)
	a.run("INSERT INTO jx VALUES (1, 2)")
	a.want(lengths, `"0209010902" | "-1" | 1 | 1`)
	b.pull(a, 0)
	b.want("SELECT * FROM jx", "1 | 2")
	a.run("UPDATE jx SET id2 = 3")
	b.pull(a, 0)
	b.want("SELECT * FROM jx", "1 | 3")
	b.run("DELETE FROM jx")
	a.pull(b, 0)
	a.want("SELECT * FROM jx")
	a.run("INSERT INTO jx VALUES (1, 3)")
	a.want("SELECT hex(pk), cid, cl FROM crsql_changes", `"0209010902" | "-1" | 2`, `"0209010903" | "-1" | 3`)
	b.pull(a, 0)
	b.want("SELECT * FROM jx", "1 | 3")
}
