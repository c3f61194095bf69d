package crsql

import (
	"path/filepath"
	"testing"
)

const idSQL = "CREATE TABLE foo (id PRIMARY KEY NOT NULL, a)"

// Each transaction that writes to a CRR has a version of its own, the next one; one that is undone leaves none.
func TestUpstreamVersions(t *testing.T) {
	w := newTwins(t)
	w.want("SELECT crsql_db_version()", "0")
	w.makeCRR(idSQL)
	w.want("SELECT crsql_db_version()", "0")
	version := func(want string, statements ...string) {
		t.Helper()
		w.script(statements...)
		w.want("SELECT crsql_db_version()", want)
	}
	version("1", "INSERT INTO foo VALUES (1, 2)")
	version("2", "UPDATE foo SET a = 3")
	version("3", "DELETE FROM foo")
	version("3", "DELETE FROM foo")
	version("3", "BEGIN", "INSERT INTO foo VALUES (1, 2)", "INSERT INTO foo VALUES (2, 2)", "ROLLBACK")
	version("3", "BEGIN", "INSERT INTO foo VALUES (1, 2)", "INSERT INTO foo VALUES (2, 2)")
	version("4", "COMMIT")
	w.want("SELECT DISTINCT db_version FROM crsql_changes", "4")
	w.refuse("INSERT INTO foo VALUES (3, 3), (1, 1)")
	version("4")
	version("4", "CREATE TABLE other (x)", "INSERT INTO other VALUES (1)")
	// A table that has rows when it becomes a CRR gets the next one for them.
	version("5", "CREATE TABLE bar (id PRIMARY KEY NOT NULL, a)", "INSERT INTO bar VALUES (1, 1), (2, 2)", "SELECT crsql_as_crr('bar')")
	w.want(`SELECT db_version, seq FROM crsql_changes WHERE "table" = 'bar'`, "5 | 0", "5 | 1")
}

func TestUpstreamVersionIsKept(t *testing.T) {
	dir := t.TempDir()
	for i, opened := range []func() *engineDB{
		func() *engineDB { return openOurs(t, filepath.Join(dir, "ours")) },
		func() *engineDB { return openTheirs(t, filepath.Join(dir, "theirs")) },
	} {
		d := opened()
		makeCRR(d, idSQL)
		site := d.text("SELECT crsql_site_id()")
		d.close()
		d = opened()
		expect(t, d, i == 0, "SELECT crsql_db_version()", "0", "0")
		d.script("INSERT INTO foo VALUES (1, 2)", "UPDATE foo SET a = 3")
		d.close()
		d = opened()
		expect(t, d, i == 0, "SELECT crsql_db_version()", "2", "2")
		expect(t, d, i == 0, "SELECT crsql_site_id()", site, site)
		d.close()
	}
}

// crsql_next_db_version gives the transaction's version, which never falls within it.
func TestUpstreamNextVersion(t *testing.T) {
	w := crrTwins(t, idSQL)
	w.run("BEGIN")
	for _, step := range []struct{ arg, want string }{{"", "1"}, {"", "1"}, {"-1", "1"}, {"0", "1"}, {"3", "3"}, {"2", "3"}, {"", "3"}} {
		w.want("SELECT crsql_next_db_version("+step.arg+")", step.want)
	}
	w.want("SELECT crsql_db_version()", "0")
	w.run("INSERT INTO foo VALUES (1, 2)")
	w.want("SELECT db_version FROM crsql_changes", "3")
	w.run("COMMIT")
	w.want("SELECT crsql_db_version()", "3")
}

// seq counts what a transaction writes, from 0, and keeps its order on other databases.
func TestUpstreamSeq(t *testing.T) {
	const create = "CREATE TABLE foo (a PRIMARY KEY NOT NULL, b, c, d)"
	a, b := crrTwins(t, create), crrTwins(t, create)
	seqs := func(w *twins, condition string, want ...string) {
		t.Helper()
		w.want("SELECT seq FROM crsql_changes WHERE "+condition, want...)
	}
	a.script("BEGIN", "INSERT INTO foo VALUES (1, 2, 3, 4)", "INSERT INTO foo VALUES (2, 2, 3, 4)")
	a.want("SELECT crsql_get_seq()", "6")
	a.run("COMMIT")
	a.want("SELECT crsql_get_seq()", "0")
	seqs(a, "db_version = 1", "0", "1", "2", "3", "4", "5")
	a.script("BEGIN", "UPDATE foo SET c = 'c', d = 'd' WHERE a = 1", "UPDATE foo SET c = 'c', d = 'd' WHERE a = 2", "COMMIT")
	seqs(a, "db_version = 2", "0", "1", "2", "3")
	a.run("DELETE FROM foo")
	seqs(a, "1", "0", "1")
	// A row that is made again: its sentinel first, then its columns.
	a.run("INSERT INTO foo VALUES (1, 5, 6, 7)")
	seqs(a, "db_version = 4", "0", "1", "2", "3")
	a.script("BEGIN", "DELETE FROM foo", "INSERT INTO foo VALUES (1, 5, 6, 7)", "UPDATE foo SET b = 8", "COMMIT")
	a.want("SELECT cid, seq FROM crsql_changes WHERE db_version = 5", `"-1" | 1`, `"b" | 5`, `"c" | 3`, `"d" | 4`)
	b.pull(a, 0)
	b.want("SELECT cid, seq FROM crsql_changes WHERE pk = x'010901'", `"-1" | 1`, `"b" | 5`, `"c" | 3`, `"d" | 4`)
	// Tables of one transaction share it.
	a.makeCRR("CREATE TABLE bar (a PRIMARY KEY NOT NULL)")
	a.script("BEGIN", "INSERT INTO bar VALUES (1)", "INSERT INTO foo VALUES (9, 1, 1, 1)", "INSERT INTO bar VALUES (2)", "COMMIT")
	a.want(`SELECT "table", seq FROM crsql_changes WHERE db_version = 6`, `"bar" | 0`, `"bar" | 4`, `"foo" | 1`, `"foo" | 2`, `"foo" | 3`)
}

// A rollback starts seq anew, one to a savepoint does not; what was undone leaves a gap.
func TestUpstreamSavepoints(t *testing.T) {
	w := crrTwins(t, idSQL)
	w.script("BEGIN", "INSERT INTO foo VALUES (1, 1)", "SAVEPOINT s", "INSERT INTO foo VALUES (2, 2)", "INSERT INTO foo VALUES (3, 3)", "ROLLBACK TO s")
	w.want("SELECT crsql_get_seq()", "3")
	w.script("INSERT INTO foo VALUES (4, 4)", "RELEASE s", "COMMIT")
	w.want("SELECT hex(pk), db_version, seq FROM crsql_changes", `"010901" | 1 | 0`, `"010904" | 1 | 3`)
	w.wantKeys("foo", "1 | 1", "2 | 4") // the short keys were undone, too
	w.script("BEGIN", "INSERT INTO foo VALUES (5, 5)", "ROLLBACK")
	w.want("SELECT crsql_get_seq()", "0")
	w.script("SAVEPOINT outermost", "INSERT INTO foo VALUES (6, 6)", "RELEASE outermost")
	w.want("SELECT db_version, seq FROM crsql_changes WHERE pk = x'010906'", "2 | 0")
	// A merge that is undone leaves neither its row nor its site.
	w.script("BEGIN", "SAVEPOINT s", "INSERT INTO crsql_changes VALUES ('foo', x'010907', 'a', 7, 1, 1, x'aa', 1, 0)", "ROLLBACK TO s", "COMMIT")
	w.want("SELECT count(*) FROM crsql_site_id", "1")
	w.run("INSERT INTO crsql_changes VALUES ('foo', x'010907', 'a', 7, 1, 1, x'bb', 1, 0)")
	w.want("SELECT site_id FROM crsql_changes WHERE pk = x'010907'", "x'bb'")
}

// Merged rows keep their seq, and are stored under a version of this database that is no lower than theirs.
func TestUpstreamMergedVersions(t *testing.T) {
	w := crrTwins(t, idSQL)
	w.run("INSERT INTO crsql_changes VALUES ('foo', x'010901', 'a', 1, 1, 7, x'aa', 1, 42)")
	w.want("SELECT db_version, seq FROM crsql_changes", "7 | 42")
	w.run("INSERT INTO crsql_changes VALUES ('foo', x'010902', 'a', 1, 1, 3, x'aa', 1, 43)")
	w.want("SELECT db_version, seq FROM crsql_changes WHERE seq = 43", "8 | 43")
	w.script("BEGIN", "INSERT INTO foo VALUES (3, 3)", "INSERT INTO crsql_changes VALUES ('foo', x'010904', 'a', 1, 1, 20, x'aa', 1, 44)", "INSERT INTO foo VALUES (5, 5)", "COMMIT")
	w.want("SELECT hex(pk), db_version FROM crsql_changes WHERE db_version > 8", `"010903" | 9`, `"010904" | 20`, `"010905" | 20`)
}
