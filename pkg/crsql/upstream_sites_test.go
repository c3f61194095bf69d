package crsql

import (
	"strings"
	"testing"
)

// A site is stored as a number, which it keeps: 0 is the database itself, others count from 1 as they are first heard of.
func TestUpstreamSiteLookaside(t *testing.T) {
	w := crrTwins(t, abSQL)
	own := dump(w.run("SELECT crsql_site_id()"))
	w.want("SELECT site_id FROM crsql_site_id", own)
	const merge = "INSERT INTO crsql_changes VALUES ('foo', crsql_pack_columns(?), 'b', 1, ?, 1, ?, 1, 0)"
	one, two := []byte(strings.Repeat("1", 16)), []byte("2")
	for i, site := range [][]byte{one, one, two, one, two} {
		w.run(merge, i+1, 1, site)
	}
	w.run("INSERT INTO foo VALUES (9, 9)")
	w.run(merge, 10, 1, []byte{}) // an empty one is the database itself
	w.run(merge, 11, 1, nil)      // and so is none
	w.want("SELECT site_id, count(*) FROM foo__crsql_clock GROUP BY 1", "0 | 3", "1 | 3", "2 | 2")
	w.want("SELECT ordinal FROM crsql_site_id", "0", "1", "2")
	w.want("SELECT hex(pk) FROM crsql_changes WHERE site_id = x'32'", `"010903"`, `"010905"`)
	w.want("SELECT hex(pk) FROM crsql_changes WHERE site_id IS crsql_site_id()", `"010909"`, `"01090A"`, `"01090B"`)
	w.want("SELECT count(*) FROM crsql_changes WHERE site_id IS NULL", "0")
	w.want("SELECT count(*) FROM crsql_changes WHERE site_id IS NOT NULL", "8")
	// Who writes last has it; who has no more rows keeps the number.
	w.run("UPDATE foo SET b = 7")
	w.want("SELECT DISTINCT site_id FROM crsql_changes", own)
	w.want("SELECT count(*) FROM crsql_site_id", "3")
	// One's own changes that come back stay one's own.
	w.run(merge, 1, 9, w.run("SELECT crsql_site_id()")[0][0])
	w.want("SELECT DISTINCT site_id FROM crsql_changes", own)
	w.refuse(merge, 1, 99, []byte(strings.Repeat("3", 17)))
}

// crsql_tracked_peers is a table that cr-sqlite makes and leaves to its users.
func TestUpstreamTrackedPeers(t *testing.T) {
	w := newTwins(t)
	w.run("INSERT INTO crsql_tracked_peers VALUES (x'aa', 5, 3, 0, 1)")
	w.run("INSERT INTO crsql_tracked_peers (site_id, version, tag, event) VALUES (x'bb', 1, 0, 0)")
	w.run("INSERT INTO crsql_tracked_peers VALUES (x'aa', 7, 0, 0, 1) ON CONFLICT DO UPDATE SET version = max(version, excluded.version), seq = excluded.seq")
	w.want("SELECT * FROM crsql_tracked_peers", "x'aa' | 7 | 0 | 0 | 1", "x'bb' | 1 | 0 | 0 | 0")
	w.refuse("INSERT INTO crsql_tracked_peers VALUES ('text', 5, 3, 0, 0)") // it is STRICT
	w.refuse("SELECT crsql_as_crr('crsql_tracked_peers')")
}

// crsql_rows_impacted counts what merges changed in the transaction.
func TestUpstreamRowsImpacted(t *testing.T) {
	w := crrTwins(t, idSQL)
	w.run("INSERT INTO foo VALUES (1, 2)")
	count := func(want string, values ...string) {
		t.Helper()
		w.script("BEGIN", "INSERT INTO crsql_changes VALUES "+strings.Join(values, ", "))
		w.want("SELECT crsql_rows_impacted()", want)
		w.run("COMMIT")
		w.want("SELECT crsql_rows_impacted()", "0")
	}
	count("0", "('foo', x'010901', 'a', 2, 1, 1, NULL, 1, 1)") // it is there
	count("0", "('foo', x'010901', 'a', 0, 1, 1, NULL, 1, 1)") // a smaller value
	count("0", "('foo', x'010901', 'a', 9, 0, 0, NULL, 1, 1)") // an older version
	count("1", "('foo', x'010901', 'a', 3, 1, 1, NULL, 1, 1)")
	count("1", "('foo', x'010901', 'a', 2, 2, 2, NULL, 1, 1)")
	count("1", "('foo', x'010902', 'a', 2, 1, 1, NULL, 1, 1)")
	count("3", "('foo', x'010903', 'a', 2, 1, 1, NULL, 1, 1)", "('foo', x'010904', 'a', 2, 1, 1, NULL, 1, 1)", "('foo', x'010905', 'a', 2, 1, 1, NULL, 1, 1)")
	count("1", "('foo', x'010901', '-1', NULL, 2, 2, NULL, 2, 1)")
	count("0", "('foo', x'010901', '-1', NULL, 2, 2, NULL, 2, 1)")
	count("0", "('foo', x'010901', 'a', 9, 9, 9, NULL, 1, 1)") // of a life that is over
	count("2", "('foo', x'010901', 'a', 9, 1, 1, NULL, 3, 1)") // of the next one: its sentinel, too
}

// While crsql_internal_sync_bit is on, what the connection writes has no clocks; a merge sets it while it writes, so that
// triggers can tell.
func TestUpstreamSyncBit(t *testing.T) {
	w := crrTwins(t, idSQL)
	w.want("SELECT crsql_internal_sync_bit()", "0")
	w.want("SELECT crsql_internal_sync_bit(1)", "1")
	w.script("INSERT INTO foo VALUES (1, 2)", "UPDATE foo SET a = 5", "INSERT INTO foo VALUES (2, 2)", "DELETE FROM foo WHERE id = 2")
	w.want("SELECT count(*) FROM foo__crsql_clock", "0")
	w.want("SELECT crsql_internal_sync_bit(0)", "0")
	w.run("INSERT INTO foo VALUES (3, 3)")
	w.want("SELECT count(*) FROM crsql_changes", "1")
	w.script("CREATE TABLE log (a INTEGER PRIMARY KEY, by)",
		"CREATE TRIGGER here AFTER INSERT ON foo WHEN crsql_internal_sync_bit() = 0 BEGIN INSERT INTO log (by) VALUES ('local'); END",
		"CREATE TRIGGER there AFTER INSERT ON foo WHEN crsql_internal_sync_bit() = 1 BEGIN INSERT INTO log (by) VALUES ('merge'); END")
	w.run("INSERT INTO crsql_changes VALUES ('foo', x'010904', 'a', 1, 4, 4, x'aa', 3, 6)")
	w.want("SELECT cid, col_version, db_version, site_id, cl, seq FROM crsql_changes WHERE pk = x'010904'", `"-1" | 3 | 4 | x'aa' | 3 | 6`, `"a" | 4 | 4 | x'aa' | 3 | 6`)
	w.run("INSERT INTO foo VALUES (5, 5)")
	w.want("SELECT by FROM log", `"local"`, `"merge"`)
	w.want("SELECT crsql_internal_sync_bit()", "0")
}

// A whole row may come as a change that the table has no use for.
func TestUpstreamUnknownChanges(t *testing.T) {
	w := crrTwins(t, idSQL)
	w.run("CREATE TABLE plain (id PRIMARY KEY NOT NULL, a)")
	for _, change := range []string{
		"('nowhere', x'010901', 'a', 1, 1, 1, NULL, 1, 0)", "('plain', x'010901', 'a', 1, 1, 1, NULL, 1, 0)",
		"('foo', x'010901', 'nowhere', 1, 1, 1, NULL, 1, 0)",
	} {
		w.refuse("INSERT INTO crsql_changes VALUES " + change)
		w.want("SELECT count(*) FROM crsql_changes", "0")
	}
	w.run("INSERT INTO foo VALUES (1, 1)")
	w.refuse("UPDATE crsql_changes SET val = 1")
	w.refuse("DELETE FROM crsql_changes")
}
