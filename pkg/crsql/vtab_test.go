//go:build sqlite_vtable || vtable

package crsql

import (
	"bytes"
	"fmt"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

func TestUnpackColumns(t *testing.T) {
	if !HasVirtualTables {
		t.Error("the build says that it has no virtual tables")
	}
	o := startOracle(t)
	w := newTwin(t, o, "A")
	w.agree("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, x)")
	w.agree("SELECT crsql_as_crr('t')")
	w.agree("INSERT INTO t VALUES (1, 'a'), (300, 'b')")
	for _, sql := range []string{
		"SELECT cell FROM crsql_unpack_columns(crsql_pack_columns(1, 'two', 3.0, NULL, x'05', x'', ''))",
		"SELECT cell, typeof(cell), rowid FROM crsql_unpack_columns(crsql_pack_columns(1, 'two', 3.0, NULL, x'05', x'', ''))",
		"SELECT * FROM crsql_unpack_columns WHERE package = x'010901'",
		"SELECT cell FROM main.crsql_unpack_columns(x'010901')",
		"SELECT cell FROM crsql_unpack_columns(x'00')",         // no value
		"SELECT cell FROM crsql_unpack_columns(x'010901ffff')", // bytes after the last
		"SELECT cell FROM crsql_unpack_columns(x'0109ff')",     // unsigned
		"SELECT cell FROM crsql_unpack_columns(x'011100ff')",   // longer than it need be
		"SELECT cell FROM crsql_unpack_columns(x'0209')",       // the rest is missing
		"SELECT cell FROM crsql_unpack_columns(x'0106')",       // no kind
		"SELECT cell FROM crsql_unpack_columns(x'010b05')",     // shorter than it says
		"SELECT count(*) FROM crsql_unpack_columns(x'0209010902') AS a, crsql_unpack_columns(x'0209010902') AS b",
		"SELECT cell FROM crsql_unpack_columns(x'0209020901') ORDER BY cell",
		"SELECT cell FROM crsql_unpack_columns",
		"SELECT nowhere FROM crsql_unpack_columns(x'00')",
		"SELECT cell FROM crsql_unpack_columns(x'00', x'00')",
		"INSERT INTO crsql_unpack_columns(cell) VALUES (1)",
		"DELETE FROM crsql_unpack_columns",
		"CREATE VIRTUAL TABLE v USING crsql_unpack_columns",
		"CREATE VIEW cells AS SELECT cell FROM crsql_unpack_columns(x'010901')",
		"SELECT * FROM cells",
	} {
		w.both(sql)
	}
	// What the stock engine refuses for no reason, or dies of.
	for sql, want := range map[string]string{
		"SELECT t.x, cell FROM crsql_changes AS c, crsql_unpack_columns(c.pk) JOIN t ON t.id = cell WHERE t.id = 1": "\"a\" | 1",
		"SELECT (SELECT cell FROM crsql_unpack_columns(pk)) FROM crsql_changes":                                     "1\n300",
		"SELECT cell FROM crsql_unpack_columns(x'0209020901') ORDER BY cell LIMIT 1":                                "1",
		"SELECT cell FROM crsql_unpack_columns(x'0209010902') WHERE cell > 1":                                       "2",
		"SELECT package FROM crsql_unpack_columns(x'010901')":                                                       "x'010901'",
		"SELECT cell FROM crsql_unpack_columns(x'010901') WHERE package = x'010902'":                                "",
		"SELECT cell FROM crsql_unpack_columns(CAST(x'010902' AS TEXT))":                                            "2",
		"SELECT b.cell FROM crsql_unpack_columns(x'010c03010907') a, crsql_unpack_columns(a.cell) b":                "7",
		"SELECT cell FROM crsql_unpack_columns(x'')":                                                                "error",
		"SELECT cell FROM crsql_unpack_columns(NULL)":                                                               "error",
		"SELECT cell FROM crsql_unpack_columns(1)":                                                                  "error",
		"SELECT cell FROM crsql_unpack_columns(1.5)":                                                                "error",
		"SELECT cell FROM crsql_unpack_columns(x'01f9')":                                                            "error",
	} {
		rows, err := w.ours.try(sql)
		got := dump(rows)
		if err != nil {
			if got = "error"; !strings.Contains(err.Error(), "crsql_unpack_columns: ") {
				t.Errorf("%s: %v", sql, err)
			}
		}
		if got != want {
			t.Errorf("%s: %s, want %s", sql, got, want)
		}
	}
}

// Any values come back as they were packed, and any bytes give rows or an error.
func TestUnpackColumnsAnyBytes(t *testing.T) {
	d := openTest(t, ":memory:")
	value := rapid.OneOf(
		rapid.Just(changeset.Null()), rapid.Map(rapid.Int64(), changeset.Integer), rapid.Map(rapid.Float64(), changeset.Real),
		rapid.Map(rapid.String(), changeset.TextString), rapid.Map(rapid.SliceOf(rapid.Byte()), changeset.Blob),
	)
	rapid.Check(t, func(rt *rapid.T) {
		values := rapid.SliceOfN(value, 1, 255).Draw(rt, "values")
		packed, err := changeset.AppendPacked(nil, values)
		if err != nil {
			rt.Fatal(err)
		}
		rows, err := d.try("SELECT cell FROM crsql_unpack_columns(?)", packed)
		if err != nil || len(rows) != len(values) {
			rt.Fatalf("%d rows, %v", len(rows), err)
		}
		for i, v := range values {
			if !rows[i][0].Equal(v) {
				rt.Fatalf("value %d: %v, packed as %v", i, rows[i][0], v)
			}
		}
		hostile := rapid.SliceOf(rapid.Byte()).Draw(rt, "hostile")
		_, wrong := changeset.ParsePacked(hostile)
		if _, err := d.try("SELECT cell FROM crsql_unpack_columns(?)", hostile); (err == nil) != (wrong == nil || len(hostile) > 0 && hostile[0] == 0) {
			rt.Fatalf("%x: %v, and ParsePacked: %v", hostile, err, wrong)
		}
	})
}

// SQLite holds no Go memory, and ours none of SQLite's: both stay whole while the garbage collector runs all the time.
func TestVirtualTablesUnderGC(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(1))
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				runtime.GC()
			}
		}
	}()
	defer func() { close(stop); <-done }()
	for range 3 {
		d := openTest(t, filepath.Join(t.TempDir(), "db"))
		d.run("CREATE VIRTUAL TABLE note_schema USING clset(id INTEGER PRIMARY KEY NOT NULL, body)")
		for i := range 20 {
			text := strings.Repeat("x", 100*i)
			rows := d.run("SELECT a.cell, b.cell FROM crsql_unpack_columns(crsql_pack_columns(?, ?)) a, crsql_unpack_columns(crsql_pack_columns(?, ?)) b",
				text, []byte(text), i, text)
			if len(rows) != 4 || string(rows[1][0].Bytes()) != text || !bytes.Equal(rows[2][0].Bytes(), []byte(text)) || rows[2][1].Int64() != int64(i) {
				t.Fatalf("round %d: %s", i, dump(rows))
			}
			d.run("INSERT INTO note VALUES (?, ?)", i, text)
			d.run("SELECT rowid, schema FROM note_schema(1, 2)")
			rows = d.run("SELECT a.val, b.db_version, b.pk FROM main.crsql_changes AS a JOIN main.crsql_changes AS b ON b.db_version = a.db_version WHERE a.db_version > ?", i)
			if len(rows) != 1 || string(rows[0][0].Bytes()) != text || rows[0][1].Int64() != int64(i+1) {
				t.Fatalf("round %d: %s", i, dump(rows))
			}
			if _, err := d.try("SELECT * FROM main.crsql_changes LIMIT 1"); err != nil { // its cursor is closed in the middle
				t.Fatal(err)
			}
			if _, err := d.try("SELECT cell FROM crsql_unpack_columns(?)", []byte{255, 1}); err == nil {
				t.Fatal("a short package is accepted")
			}
		}
		d.run("DROP TABLE note_schema")
		d.close()
	}
}

func TestClset(t *testing.T) {
	o := startOracle(t)
	for i, create := range []string{
		"CREATE VIRTUAL TABLE note_schema USING clset(id INTEGER PRIMARY KEY NOT NULL, body TEXT DEFAULT 'a,b', n)",
		"CREATE VIRTUAL TABLE \"a note_schema\" USING clset(a PRIMARY KEY NOT NULL)",
		"CREATE VIRTUAL TABLE anote_schema USING clset ( a NOT NULL , b, c , PRIMARY KEY ( a ) )",
		"CREATE VIRTUAL TABLE IF NOT EXISTS main.note_schema USING clset(id PRIMARY KEY NOT NULL)",
	} {
		w := newTwin(t, o, fmt.Sprintf("clset %d", i))
		w.both(create)
		w.both(allSchema)
		base := strings.TrimSuffix(string(w.ours.run("SELECT name FROM sqlite_master WHERE name LIKE '%schema'")[0][0].Bytes()), clsetSuffix)
		w.both("INSERT INTO " + ident(base) + " DEFAULT VALUES")
		w.both("INSERT INTO " + ident(base) + " SELECT 1" + strings.Repeat(", 2", len(w.ours.run("SELECT name FROM pragma_table_info(?)", base))-1))
		w.both("SELECT * FROM " + ident(base))
		w.both("SELECT * FROM crsql_changes")
		w.agree("INSERT INTO " + ident(base+clsetSuffix) + "(schema) VALUES ('x')")
		w.both("DROP TABLE " + ident(base+clsetSuffix))
		w.both(allSchema)
		w.both("SELECT * FROM crsql_changes")
		if v := w.ours.int("SELECT crsql_db_version()"); v < 1 { // as theirs does, which has no clocks left
			t.Errorf("the version fell to %d", v)
		}
	}
}

func TestClsetRefused(t *testing.T) {
	o := startOracle(t)
	w := newTwin(t, o, "A")
	w.agree("CREATE TABLE taken(id INTEGER PRIMARY KEY NOT NULL)")
	before := dump(w.ours.run(allSchema))
	for _, begin := range []string{"", "BEGIN"} {
		for _, create := range []string{
			"note USING clset(id INTEGER PRIMARY KEY NOT NULL)",          // another ending
			"note_Schema USING clset(id INTEGER PRIMARY KEY NOT NULL)",   // case counts
			"note_schema USING clset(id)",                                // no CRR
			"note_schema USING clset(id INTEGER PRIMARY KEY)",            // nor that
			"note_schema USING clset(id PRIMARY KEY NOT NULL, x UNIQUE)", // nor that
			"note_schema USING clset",
			"note_schema USING clset()",
			"note_schema USING clset(id id id, ,)",
			"taken_schema USING clset(id INTEGER PRIMARY KEY NOT NULL)",
			"note_schema USING clset(id INTEGER PRIMARY KEY NOT NULL; DROP TABLE taken)",
		} {
			if begin != "" {
				w.agree("BEGIN")
			}
			ours, _ := w.agree("CREATE VIRTUAL TABLE " + create)
			if ours.err == nil {
				t.Errorf("%s is accepted", create)
			}
			if begin != "" {
				w.ours.run("INSERT INTO taken VALUES (NULL)") // the transaction goes on
				w.ours.run("COMMIT")
				w.oracle.ask(w.name, false, oracleStep{SQL: "ROLLBACK"})
			}
			if after := dump(w.ours.run(allSchema)); after != before {
				t.Errorf("%s left behind:\n%s", create, after)
			}
			for _, sql := range []string{"SELECT * FROM note", "SELECT * FROM note_schema", "SELECT * FROM note__crsql_clock"} {
				if _, err := w.ours.try(sql); err == nil {
					t.Errorf("%s after %s", sql, create)
				}
			}
			w.ours.run("SELECT * FROM crsql_changes")
		}
	}
	if _, err := w.ours.try("CREATE VIRTUAL TABLE temp.note_schema USING clset(id INTEGER PRIMARY KEY NOT NULL)"); err == nil { // the stock engine makes its clocks elsewhere
		t.Error("a temporary CRR is accepted")
	}
	w.ours.run("CREATE VIRTUAL TABLE note_schema USING clset(id INTEGER PRIMARY KEY NOT NULL)")
	w.ours.run("INSERT INTO note VALUES (1)")
	if n := w.ours.int("SELECT count(*) FROM crsql_changes"); n != 1 {
		t.Errorf("%d changes", n)
	}
}

// The virtual table outlives the connection, and one statement's text may make, use and drop it. A table that is gone
// already does not keep the virtual one from being dropped, as it does in the stock engine.
func TestClsetLater(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	d := openTest(t, path)
	before := dump(d.run(allSchema))
	d.run(`CREATE VIRTUAL TABLE "it is_schema" USING clset(id INTEGER PRIMARY KEY NOT NULL, x); INSERT INTO "it is" VALUES (1, 2); SELECT * FROM crsql_changes`)
	d.close()
	d = openTest(t, path)
	if n := d.int("SELECT count(*) FROM crsql_changes"); n != 1 || len(d.run(`SELECT rowid FROM "it is_schema"('a')`)) != 0 {
		t.Errorf("%d changes", n)
	}
	other := openTest(t, path)
	if n := other.int("SELECT count(*) FROM crsql_changes"); n != 1 {
		t.Errorf("%d changes on another connection", n)
	}
	d.run("BEGIN; DROP TABLE \"it is_schema\"; ROLLBACK")
	if n := d.int("SELECT count(*) FROM crsql_changes"); n != 1 {
		t.Errorf("%d changes after a rollback", n)
	}
	d.run("DROP TABLE \"it is_schema\"; SELECT * FROM crsql_changes; SELECT crsql_db_version()")
	if n := len(other.run("SELECT * FROM crsql_changes")); n != 0 {
		t.Errorf("%d changes on another connection after the drop", n)
	}
	d.run("CREATE VIRTUAL TABLE t_schema USING clset(id INTEGER PRIMARY KEY NOT NULL, x); DROP TABLE t")
	d.run("DROP TABLE t_schema")
	// Once renamed it stands for the table that its name says, which is none, or no CRR.
	d.run("CREATE VIRTUAL TABLE u_schema USING clset(id INTEGER PRIMARY KEY NOT NULL); CREATE VIRTUAL TABLE w_schema USING clset(id INTEGER PRIMARY KEY NOT NULL); CREATE TABLE plain(a)")
	d.run("ALTER TABLE u_schema RENAME TO renamed; ALTER TABLE w_schema RENAME TO plain_schema")
	d.close()
	d = openTest(t, path)
	d.run("DROP TABLE renamed; DROP TABLE plain_schema; INSERT INTO plain VALUES (1); INSERT INTO u VALUES (1); INSERT INTO w VALUES (1)")
	if n := d.int("SELECT count(*) FROM crsql_changes"); n != 2 {
		t.Errorf("%d changes", n)
	}
	for _, table := range []string{"u", "w"} {
		d.run("SELECT crsql_as_table(?)", table)
		d.run("DROP TABLE " + table)
	}
	d.run("DROP TABLE plain")
	if got := dump(d.run(allSchema)); got != before {
		t.Errorf("left behind:\n%s", got)
	}
	if got := dump(d.run("PRAGMA integrity_check")); got != `"ok"` {
		t.Error(got)
	}
}
