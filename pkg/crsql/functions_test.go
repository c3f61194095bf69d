package crsql

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// What cr-sqlite 0.16.3 has beyond the 0.16.0 that these tests run against: arguments and determinism, by name.
var since0160 = map[string]functionShape{
	"crsql_config_get": {1, true}, "crsql_config_set": {2, false}, "crsql_sha": {0, true},
}

// What only ours has, and why.
var onlyOurs = map[string]string{
	mergeFunction: "the trigger on the view crsql_changes calls it",
}

type functionShape struct {
	args          int64 // -1: any number
	deterministic bool
}

// Everything that the original registers is here, with the same number of arguments, and nothing else.
func TestEverythingOfOriginal(t *testing.T) {
	w := newTwin(t, startOracle(t), t.Name())
	const (
		functions     = "SELECT name, narg, flags & 0x800 FROM pragma_function_list WHERE name LIKE 'crsql%' OR name LIKE 'clset%'"
		modules       = "SELECT name FROM pragma_module_list WHERE name LIKE 'crsql%' OR name LIKE 'clset%' ORDER BY name"
		deterministic = 2
	)
	read := func(rows [][]changeset.Value) map[string]functionShape {
		shapes := make(map[string]functionShape)
		for _, row := range rows {
			shapes[string(row[0].Bytes())] = functionShape{row[1].Int64(), row[deterministic].Int64() != 0}
		}
		return shapes
	}
	ours, theirs := w.agree(functions)
	have, want := read(ours.rows), read(theirs.rows)
	if len(want) < 20 {
		t.Fatalf("the reference engine names %d functions only", len(want))
	}
	maps.Copy(want, since0160)
	for _, name := range slices.Sorted(maps.Keys(want)) {
		shape, ok := have[name]
		if !ok {
			t.Errorf("%s is missing", name)
		} else if shape != want[name] {
			t.Errorf("%s: %+v, the original's is %+v", name, shape, want[name])
		}
	}
	for name := range have {
		if _, ok := want[name]; !ok && onlyOurs[name] == "" {
			t.Errorf("%s is not the original's", name)
		}
	}
	ours, theirs = w.agree(modules)
	wanted := dump(theirs.rows)
	if !HasVirtualTables {
		wanted = "" // crsql_changes is a view, and the others are explained: TestWithoutVirtualTables
	}
	if got := dump(ours.rows); got != wanted {
		t.Errorf("modules:\n%s\nthe original's:\n%s", got, wanted)
	}
}

// Each function takes and refuses the same arguments as the original, and gives the same.
func TestFunctionsLikeOriginal(t *testing.T) {
	w := newTwin(t, startOracle(t), t.Name())
	for _, sql := range []string{
		"CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, x)",
		"CREATE TABLE plain(id INTEGER PRIMARY KEY NOT NULL, x)",
		"SELECT crsql_as_crr('t')",
		"SELECT crsql_as_table()",
		"SELECT crsql_as_table('plain')",
		"SELECT crsql_as_table('nowhere')",
		"SELECT crsql_as_table(NULL)",
		"SELECT crsql_as_table(1)",
		"SELECT crsql_as_table(x'74')",
		allSchema,
		"SELECT crsql_as_crr('t')",
		"SELECT crsql_as_table('T')",
		allSchema,
		"SELECT crsql_as_crr('t')",
		"SELECT crsql_as_table('t', 'x')",

		"SELECT typeof(crsql_site_id()), length(crsql_site_id()), crsql_site_id()",
		"SELECT crsql_site_id(1)",

		"SELECT crsql_db_version(1)",
		"SELECT crsql_db_version()",
		"SELECT crsql_next_db_version()",
		"SELECT crsql_next_db_version(5)",
		"SELECT crsql_next_db_version()",
		"SELECT crsql_db_version()",
		"SELECT crsql_next_db_version(NULL)",
		"SELECT crsql_next_db_version('7')",
		"SELECT crsql_next_db_version('9x')",
		"SELECT crsql_next_db_version('abc')",
		"SELECT crsql_next_db_version(10.9)",
		"SELECT crsql_next_db_version(x'3131')",
		"SELECT crsql_next_db_version(-5)",
		"SELECT crsql_next_db_version(-9e999)",
		"SELECT crsql_next_db_version(' 12')",
		"SELECT crsql_next_db_version('1e1')",
		"SELECT crsql_next_db_version('13.9')",
		"SELECT crsql_next_db_version('+14')",
		"SELECT crsql_next_db_version('-')",
		"SELECT crsql_next_db_version('')",
		"SELECT crsql_next_db_version(20, 30)",
		"SELECT crsql_next_db_version()",
		"BEGIN",
		"SELECT crsql_next_db_version(100)",
		"INSERT INTO t VALUES (1, 1)",
		"SELECT crsql_next_db_version()",
		"SELECT crsql_get_seq(), crsql_increment_and_get_seq(), crsql_increment_and_get_seq(), crsql_get_seq()",
		"SELECT crsql_get_seq()",
		"ROLLBACK",
		"SELECT crsql_get_seq(), crsql_increment_and_get_seq()",
		"SELECT crsql_get_seq()",
		"SELECT crsql_db_version(), crsql_next_db_version()",
		"INSERT INTO t VALUES (1, 1)",
		"SELECT crsql_get_seq()",
		"SELECT crsql_get_seq(1)",
		"SELECT crsql_increment_and_get_seq(1)",
		"SELECT crsql_rows_impacted(1)",
		"SELECT crsql_rows_impacted()",

		"SELECT crsql_internal_sync_bit()",
		"SELECT crsql_internal_sync_bit(1)",
		"SELECT crsql_internal_sync_bit()",
		"SELECT crsql_internal_sync_bit(NULL)",
		"SELECT crsql_internal_sync_bit('1')",
		"SELECT crsql_internal_sync_bit('x')",
		"SELECT crsql_internal_sync_bit(2.9)",
		"SELECT crsql_internal_sync_bit(4294967296)",
		"SELECT crsql_internal_sync_bit(4294967297)",
		"SELECT crsql_internal_sync_bit(-1)",
		"INSERT INTO t VALUES (2, 1)", // any bit keeps triggers quiet
		"SELECT crsql_internal_sync_bit(x'35')",
		"SELECT crsql_internal_sync_bit(7, 8)",
		"SELECT crsql_internal_sync_bit(0)",
		"SELECT * FROM crsql_changes",

		"SELECT crsql_pack_columns()",
		"SELECT crsql_pack_columns(NULL)",
		"SELECT crsql_pack_columns(1, 'a', x'', '', 2.5, NULL, -1, 9223372036854775807, -9223372036854775808)",
		"SELECT crsql_pack_columns(0.0, -0.0, 9e999, 1e-400)",
		"SELECT crsql_pack_columns('a' || char(0) || 'b', CAST(x'ff' AS TEXT))",
		"SELECT length(p), substr(p, 1, 8) FROM (SELECT crsql_pack_columns(zeroblob(100000)) AS p)",
		"SELECT length(p), substr(p, 1, 8) FROM (SELECT crsql_pack_columns(zeroblob(20000000)) AS p)",
		"SELECT crsql_pack_columns(1" + strings.Repeat(", 1", 126) + ")",
		"SELECT crsql_pack_columns(1" + strings.Repeat(", 1", 255) + ")",

		"SELECT crsql_fract_key_between()",
		"SELECT crsql_fract_key_between('a ')",
		"SELECT crsql_fract_key_between('a ', 'a!', 1)",
		"SELECT crsql_fract_key_between(NULL, NULL)",
		"SELECT crsql_fract_key_between(1, NULL)",
		"SELECT crsql_fract_key_between(-1, NULL)",
		"SELECT crsql_fract_key_between(NULL, 1.5)",
		"SELECT crsql_fract_key_between(9e999, NULL)",
		"SELECT crsql_fract_key_between(CAST('a ' AS BLOB), NULL)",
		"SELECT crsql_fract_key_between('b', NULL)",
		"SELECT crsql_fract_key_between('a!', 'a ')",
		"SELECT crsql_fract_key_between('a x ', NULL)",
		"CREATE INDEX by_place ON plain(crsql_fract_key_between(x, NULL))",
		"CREATE TABLE made(id INTEGER PRIMARY KEY NOT NULL, site AS (crsql_site_id()))",
		"SELECT * FROM made",

		"SELECT crsql_version()",
		"SELECT crsql_changes(1)",
		"SELECT crsql_finalize()",
		"SELECT crsql_finalize(1, 2)",
	} {
		w.both(sql)
	}
}

// The functions that the wasm lacks, or whose result is each engine's own.
func TestFunctionsOfOurs(t *testing.T) {
	d := openTest(t, ":memory:")
	for sql, want := range map[string]string{
		"SELECT crsql_sha()":  `"` + engineSHA + `"`,
		"SELECT crsql_sha(1)": "error",
		"SELECT crsql_pack_columns(1" + strings.Repeat(", 1", 254) + ")": fmt.Sprintf("x'ff%s'", strings.Repeat("0901", 255)),
		"SELECT crsql_pack_columns(1" + strings.Repeat(", 1", 255) + ")": "error",
		"SELECT crsql_after_insert()":                                    "error",
		"SELECT crsql_after_insert('t')":                                 "error",
		"SELECT crsql_after_update()":                                    "error",
		"SELECT crsql_after_delete(1)":                                   "error",
		"SELECT crsql_internal_merge()":                                  "error",
		"SELECT crsql_internal_merge(1, 2, 3, 4, 5, 6, 7, 8, 9)":         "error",
		"SELECT crsql_next_db_version(9223372036854775807)":              "error",
		"SELECT crsql_next_db_version(9e999)":                            "error",
		"SELECT crsql_next_db_version('99999999999999999999999999999')":  "error",
	} {
		rows, err := d.try(sql)
		got := dump(rows)
		if err != nil {
			got = "error"
			if !strings.Contains(err.Error(), "crsql_") {
				t.Errorf("%s: %v", sql, err)
			}
		}
		if got != want {
			t.Errorf("%.100s: %.100s, want %.100s (%v)", sql, got, want, err)
		}
	}
}

// mattn has no way to tell SQLite that functions are innocuous. Under trusted_schema = OFF they cannot be used by triggers, and
// the error says so; reading goes on.
func TestUntrustedSchema(t *testing.T) {
	d := openTest(t, ":memory:")
	d.run("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, ord); SELECT crsql_as_crr('t'); INSERT INTO t VALUES (1, 1)")
	d.run("PRAGMA trusted_schema = OFF")
	for _, sql := range []string{"INSERT INTO t VALUES (2, 1)", "UPDATE t SET ord = 5", "DELETE FROM t", "INSERT INTO crsql_changes VALUES ('t', x'010907', '-1', NULL, 1, 1, x'aa', 1, 0)"} {
		if _, err := d.try(sql); err == nil || !strings.Contains(err.Error(), "PRAGMA trusted_schema = ON") {
			t.Errorf("%s: %v", sql, err)
		}
	}
	if n := d.int("SELECT count(*) FROM crsql_changes"); n != 1 {
		t.Errorf("%d changes", n)
	}
	d.run("PRAGMA trusted_schema = ON")
	d.run("INSERT INTO t VALUES (2, 1)")
}
