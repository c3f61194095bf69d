package crsql

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

func TestConfig(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	d, other := openTest(t, path), openTest(t, path)
	get := func(d *testDB) int64 { return d.int("SELECT crsql_config_get('merge-equal-values')") }
	if get(d) != 0 {
		t.Error("the setting is on by itself")
	}
	for _, step := range []struct {
		set       string
		value     string // that crsql_config_set returns and crsql_master holds
		effective int64
	}{
		{"1", "1", 1}, {"0", "0", 0}, {"2", "2", 2}, {"-1", "-1", -1}, {"4294967297", "4294967297", 1}, // as in the stock engine
	} {
		if got := dump(d.run("SELECT crsql_config_set('merge-equal-values', " + step.set + ")")); got != step.value {
			t.Errorf("set to %s: %s", step.set, got)
		}
		if got := dump(d.run("SELECT value FROM crsql_master WHERE key = 'config.merge-equal-values'")); got != step.value {
			t.Errorf("set to %s: crsql_master holds %s", step.set, got)
		}
		if a, b := get(d), get(other); a != step.effective || b != step.effective {
			t.Errorf("set to %s: %d here, %d on another connection", step.set, a, b)
		}
	}
	if fresh := openTest(t, path); get(fresh) != 1 {
		t.Error("the setting is not read at open")
	}
	for _, sql := range []string{
		"SELECT crsql_config_set('merge-equal-values', 'on')", "SELECT crsql_config_set('merge-equal-values', '1')",
		"SELECT crsql_config_set('merge-equal-values', 1.0)", "SELECT crsql_config_set('merge-equal-values', NULL)",
		"SELECT crsql_config_set('merge-equal-values', x'01')", "SELECT crsql_config_set('Merge-Equal-Values', 1)",
		"SELECT crsql_config_set('config.merge-equal-values', 1)", "SELECT crsql_config_set(NULL, 1)", "SELECT crsql_config_get('')",
		"SELECT crsql_config_get(NULL)", "SELECT crsql_config_get(1)", "SELECT crsql_config_get()", "SELECT crsql_config_set('merge-equal-values')",
	} {
		if _, err := d.try(sql); err == nil {
			t.Errorf("%s is accepted", sql)
		} else if !strings.Contains(err.Error(), "crsql_config_") {
			t.Errorf("%s: %v", sql, err)
		}
	}
	if get(d) != 1 {
		t.Error("a refused call changed the setting")
	}
	d.run("DELETE FROM crsql_master WHERE key = 'config.merge-equal-values'")
	d.run("INSERT INTO crsql_master VALUES ('config.merge-equal-values', 'broken'), ('config.another', 1)")
	if get(other) != 0 || get(openTest(t, path)) != 0 {
		t.Error("a setting that is no number counts")
	}
}

// A setting is undone with its transaction.
func TestConfigRollback(t *testing.T) {
	d := openTest(t, ":memory:")
	get := func() int64 { return d.int("SELECT crsql_config_get('merge-equal-values')") }
	d.run("BEGIN")
	d.run("SELECT crsql_config_set('merge-equal-values', 1)")
	if get() != 1 {
		t.Error("the setting has no effect in its transaction")
	}
	d.run("ROLLBACK")
	if get() != 0 {
		t.Error("the setting survives a rollback")
	}
	d.run("BEGIN")
	d.run("SAVEPOINT s")
	d.run("SELECT crsql_config_set('merge-equal-values', 1)")
	d.run("ROLLBACK TO s")
	if get() != 0 {
		t.Error("the setting survives a rollback to a savepoint")
	}
	d.run("COMMIT")
}

// Of equal values under equal versions the larger site's wins, if the setting is on, and nothing else changes. The outcomes
// are those of the stock engine 0.16.3.
func TestMergeEqualValues(t *testing.T) {
	own := "mmmmmmmmmmmmmmmm"
	for _, on := range []int{0, 1, 2} {
		d := openTest(t, ":memory:")
		d.run("UPDATE crsql_site_id SET site_id = CAST(? AS BLOB) WHERE ordinal = 0", own)
		d.engine.dataVersion = unknown
		d.run("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, x); SELECT crsql_as_crr('t')")
		d.run(fmt.Sprintf("SELECT crsql_config_set('merge-equal-values', %d)", on))
		d.run("INSERT INTO t VALUES (1, 'v')")
		for _, step := range []struct {
			site string // NULL if empty
			cid  string
			cl   int64
			wins bool
		}{
			{"a", "x", 1, false}, {"", "x", 1, false}, {own, "x", 1, false}, {"n", "x", 1, true}, {"n", "x", 1, false},
			{own, "x", 1, false}, {"", "x", 1, false}, {"nn", "x", 1, true}, {"z", "-1", 1, false},
			{"z", "-1", 2, true}, {"zz", "-1", 2, false}, // a delete that is known stays its first maker's
			{"b", "-1", 3, true}, {"z", "-1", 3, false},
		} {
			val, version := any("v"), int64(1)
			if step.cid == "-1" {
				val, version = nil, step.cl
			}
			d.run("BEGIN")
			d.run("INSERT INTO crsql_changes VALUES ('t', x'010901', ?, ?, ?, 0, CAST(nullif(?, '') AS BLOB), ?, 5)", step.cid, val, version, step.site, step.cl)
			impacted := d.int("SELECT crsql_rows_impacted()")
			d.run("COMMIT")
			wins := step.wins && (on == 1 || step.cid == "-1")
			if (impacted == 1) != wins {
				t.Errorf("setting %d, %+v: %d impacted", on, step, impacted)
			}
			if site := step.site; wins && d.int("SELECT count(*) FROM crsql_changes WHERE site_id = CAST(? AS BLOB) AND cid = ? AND seq = 5", site, step.cid) != 1 {
				t.Errorf("setting %d, %+v: %s", on, step, dump(d.run("SELECT cid, site_id FROM crsql_changes")))
			}
		}
	}
}

// Several ties in one batch are decided as if they came one by one.
func TestMergeEqualValuesInBatches(t *testing.T) {
	change := func(site, val string) changeset.Change {
		return changeset.Change{Table: "t", PK: packedInt(t, 1), CID: "x", Val: changeset.TextString(val), ColVersion: 1, CL: 1, Site: changeset.SiteID(site)}
	}
	d := openTest(t, ":memory:")
	d.run("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, x); SELECT crsql_as_crr('t'); SELECT crsql_config_set('merge-equal-values', 1)")
	d.run("BEGIN")
	impacted, err := d.engine.applyChanges(1, []changeset.Change{
		change("b", "v"), change("a", "v"), change("c", "v"), change("c", "v"), change("z", "u"), change("bb", "v"), change("a", "w"), change("d", "w"),
	})
	if err != nil || impacted != 4 {
		t.Errorf("%d impacted, %v", impacted, err)
	}
	d.run("COMMIT")
	if got := dump(d.run("SELECT val, site_id FROM crsql_changes")); got != `"w" | x'64'` {
		t.Errorf("the cell is %s", got)
	}
}

// A site that is missing from crsql_site_id does not stop a merge.
func TestMergeEqualValuesRepairs(t *testing.T) {
	d := openTest(t, ":memory:")
	d.run("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, x); SELECT crsql_as_crr('t'); SELECT crsql_config_set('merge-equal-values', 1)")
	d.run("INSERT INTO t VALUES (1, 2); UPDATE t__crsql_clock SET site_id = 77")
	d.run("INSERT INTO crsql_changes VALUES ('t', x'010901', 'x', 2, 1, 1, x'00', 1, 0)")
	if got := dump(d.run("SELECT site_id FROM crsql_changes")); got != "x'00'" {
		t.Errorf("the cell's site is %s", got)
	}
}

// A parked change gives way to one of a larger site.
func TestMergeEqualValuesParked(t *testing.T) {
	for on, want := range []string{"x'62'", "x'63'"} {
		n := newNode(t, "n")
		n.exec("SELECT crsql_config_set('merge-equal-values', ?)", on)
		for i, site := range []changeset.SiteID{"b", "a", "c"} {
			n.apply(Group{Origin: site, Version: 1 + int64(i), Changes: []changeset.Change{{
				Table: "later", PK: packedInt(t, 1), CID: "x", Val: changeset.Integer(1), ColVersion: 1, CL: 1, Site: site,
			}}})
		}
		if got := strings.Join(n.query("SELECT site FROM crmesh_parked"), ","); strings.TrimSpace(got) != want {
			t.Errorf("setting %d: parked of %s, want %s", on, got, want)
		}
	}
}

// Databases with the setting end with the same site for each cell, whatever the order in which they merge.
func TestMergeEqualValuesConverges(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dbs := make([]*testDB, rapid.IntRange(2, 4).Draw(rt, "databases"))
		for i := range dbs {
			dbs[i] = openTest(t, ":memory:")
			defer dbs[i].close()
			dbs[i].run("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, x, y); SELECT crsql_as_crr('t'); SELECT crsql_config_set('merge-equal-values', 1)")
		}
		merge := func(from, to *testDB) {
			rows := from.run("SELECT * FROM crsql_changes")
			rows = rapid.Permutation(rows).Draw(rt, "order")
			if rapid.Bool().Draw(rt, "batch") {
				changes := make([]changeset.Change, len(rows))
				for i, row := range rows {
					changes[i] = changeOf(row)
				}
				to.run("BEGIN")
				if _, err := to.engine.applyChanges(to.int("SELECT crsql_db_version() + 1"), changes); err != nil {
					rt.Fatal(err)
				}
				to.run("COMMIT")
				return
			}
			for _, row := range rows {
				args := make([]any, len(row))
				for i, v := range row {
					args[i] = toDriver(v)
				}
				to.run("INSERT INTO crsql_changes VALUES (?,?,?,?,?,?,?,?,?)", args...)
			}
		}
		pick := func() *testDB { return rapid.SampledFrom(dbs).Draw(rt, "database") }
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			d, id, v := pick(), rapid.IntRange(1, 2).Draw(rt, "id"), rapid.IntRange(0, 1).Draw(rt, "value")
			switch rapid.IntRange(0, 5).Draw(rt, "step") {
			case 0, 1:
				d.run("INSERT INTO t VALUES (?, ?, 0) ON CONFLICT DO UPDATE SET x = excluded.x", id, v)
			case 2:
				d.run("UPDATE t SET y = 1 - y WHERE id = ?", id)
			case 3:
				d.run("DELETE FROM t WHERE id = ?", id)
			default:
				merge(d, pick())
			}
		}
		for range 2 {
			for _, from := range dbs {
				for _, to := range dbs {
					if from != to {
						merge(from, to)
					}
				}
			}
		}
		const cells = "SELECT pk, cid, val, col_version, cl, site_id FROM crsql_changes WHERE cid <> '-1'"
		for i, d := range dbs[1:] {
			if a, b := dump(dbs[0].run(cells)), dump(d.run(cells)); a != b {
				rt.Fatalf("database 0:\n%s\ndatabase %d:\n%s", a, i+1, b)
			}
		}
	})
}
