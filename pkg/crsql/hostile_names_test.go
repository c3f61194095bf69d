package crsql

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// oddNames are names that SQLite takes and that break SQL which is put together carelessly.
var oddNames = []string{
	`"`, `""`, `'`, `''`, `"; DROP TABLE neighbour; --`, `'); DROP TABLE neighbour; --`, "`", "[", "]", "[]", "%", "%s", "%d%n", "%_\\", ";", "--", "/*",
	" ", "  x ", "\t\n", "?", "?1", ":x", "$x", "@", "NULL", "select", "rowid", "oid", "c", "k", "s", "l", "t", "key", "col_name", "excluded", "new", "old",
	"temp", "main", "ünïcødé", "日本", "\U0001F600", "é", "a.b", "x\x01", strings.Repeat("n", MaxName-20), "0", "-2", "1e3", "crsql", "A", "__crsql_key",
}

// Each of them works as the name of a table, of a key column and of another, in all that is done with a CRR.
func TestOddNames(t *testing.T) {
	for i, name := range oddNames {
		t.Run(fmt.Sprintf("%.20q", name), func(t *testing.T) {
			table, pk, col := name, oddNames[(i+7)%len(oddNames)], oddNames[(i+19)%len(oddNames)]
			if strings.EqualFold(pk, "__crsql_key") { // the original's own name for the short key
				pk = "pk"
			}
			if strings.Contains(table, "'") { // the stock engine cannot open a database with such a CRR
				d := openTest(t, ":memory:")
				d.run("CREATE TABLE " + ident(table) + "(id INTEGER PRIMARY KEY NOT NULL)")
				if _, err := d.try("SELECT crsql_as_crr(?)", table); err == nil || !strings.Contains(err.Error(), "give the table another") {
					t.Errorf("the name is not refused: %v", err)
				}
				table = strings.ReplaceAll(table, "'", "`")
			}
			from, to := openTest(t, ":memory:"), openTest(t, ":memory:")
			var neighbours []*neighbour
			for _, d := range []*testDB{from, to} {
				neighbours = append(neighbours, newNeighbour(d))
				d.run("CREATE TABLE " + ident(table) + "(" + ident(pk) + " NOT NULL PRIMARY KEY, " + ident(col) + ", other DEFAULT 'd')")
				d.run("SELECT crsql_as_crr(?)", table)
			}
			q := func(sql string) string {
				return strings.NewReplacer("TABLE", ident(table), "PK", ident(pk), "COL", ident(col)).Replace(sql)
			}
			from.run(q("INSERT INTO TABLE(PK, COL) VALUES (1, 'one'), ('two', 2), (x'03', NULL)"))
			from.run(q("UPDATE TABLE SET COL = 'uno' WHERE PK = 1"))
			from.run(q("UPDATE TABLE SET PK = 'due' WHERE PK = 'two'"))
			from.run(q("DELETE FROM TABLE WHERE PK = x'03'"))
			from.run(q("INSERT OR REPLACE INTO TABLE(PK, COL) VALUES (x'03', 'three')"))
			to.pull(from, 0)
			to.pull(from, 0) // ties are compared with what is there
			want := dump(from.run(q("SELECT * FROM TABLE")))
			if got := dump(to.run(q("SELECT * FROM TABLE"))); got != want || strings.Count(got, "\n") != 2 {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			got := dump(to.run(`SELECT DISTINCT cid FROM crsql_changes WHERE "table" = ?`, table))
			if want := dump([][]changeset.Value{{textValue("-1")}, {textValue(col)}, {textValue("other")}}); got != want {
				t.Errorf("columns\n%s\nwant\n%s", got, want)
			}
			to.run("SELECT crsql_as_table(?)", table)
			for _, n := range neighbours {
				n.unharmed("the name " + name)
			}
		})
	}
}

// The same through a replica, which has statements of its own for names.
func TestOddNamesOfReplica(t *testing.T) {
	from, to := newNode(t, "from"), newNode(t, "to")
	for i, name := range oddNames {
		pk, col := oddNames[(i+7)%len(oddNames)], oddNames[(i+19)%len(oddNames)]
		if pk == "__crsql_key" {
			pk = "pk"
		}
		if strings.EqualFold(name, "temp") || strings.EqualFold(name, "main") || name == "__crsql_key" {
			continue // no peer may give a table such a name
		}
		name = strings.ReplaceAll(name, "'", "`") + strings.Repeat("_", strings.Count(name, "'")) // which no CRR may have
		from.script("CREATE TABLE " + ident(name) + "(" + ident(pk) + " NOT NULL PRIMARY KEY, " + ident(col) + ");" +
			"SELECT crsql_as_crr(" + literal(name) + "); INSERT INTO " + ident(name) + " VALUES (1, 'x'), (2, 'y'); DELETE FROM " + ident(name) + " WHERE " + ident(pk) + " = 2")
	}
	tables := from.state().Schema.Tables
	created, err := to.CreateTables(context.Background(), tables)
	if err != nil || created != len(tables) {
		t.Fatalf("%d of %d tables created: %v", created, len(tables), err)
	}
	to.pull(from, all(Position{}))
	if state := to.state(); state.Parked != 0 || state.Schema.Hash != from.state().Schema.Hash {
		t.Errorf("%d changes are parked", state.Parked)
	}
	for _, table := range tables {
		equal(t, table.Name, to.query("SELECT * FROM "+ident(table.Name)), []string{`1 "x" `})
	}
	if n := to.read(ReadRequest{Count: true, MaxBytes: 1, MaxChanges: 1, Decide: all(Position{}).Decide}).Remaining; n != int64(2*len(tables)) {
		t.Errorf("%d changes", n)
	}
}

// Names that no schema can hold, in a change or a function's argument, are refused and shown readable.
func TestNamesOfNothing(t *testing.T) {
	d := openTest(t, ":memory:")
	n := newNeighbour(d)
	long := strings.Repeat("x", 1<<20)
	for _, name := range append([]string{"", "a\x00b", "\x00", "\xff\xfe", long, "neighbour\x00", "neighbour__crsql_clock", "crsql_site_id", "sqlite_master", "crsql_changes"}, oddNames...) {
		for what, call := range map[string]func() error{
			"as a table": func() error {
				_, err := d.try("INSERT INTO crsql_changes VALUES (?, x'010901', 'n', 1, 9, 1, NULL, 1, 0)", name)
				return err
			},
			"as a column": func() error {
				_, err := d.try("INSERT INTO crsql_changes VALUES ('neighbour', x'010901', ?, 1, 9, 1, NULL, 1, 0)", name)
				return err
			},
			"for crsql_as_crr":       func() error { _, err := d.try("SELECT crsql_as_crr(?)", name); return err },
			"for crsql_after_insert": func() error { _, err := d.try("SELECT crsql_after_insert(?, 1)", name); return err },
			"for crsql_after_update": func() error { _, err := d.try("SELECT crsql_after_update(?, 1)", name); return err },
			"for crsql_after_delete": func() error { _, err := d.try("SELECT crsql_after_delete(?, 1)", name); return err },
		} {
			err := call()
			if err == nil || len(err.Error()) > 1000 || !utf8.ValidString(err.Error()) || strings.Contains(err.Error(), "\x00") {
				t.Errorf("the name %.20q %s: %.1000v", name, what, err)
			}
		}
		if _, err := d.try("SELECT crsql_as_table(?)", name); err != nil && strings.Contains(err.Error(), "internal error") {
			t.Errorf("the name %.20q for crsql_as_table: %v", name, err)
		}
	}
	n.unharmed("names of nothing")
}

// An error names the table, the key and the column, none of them longer than a person reads.
func TestErrorsNameTheRow(t *testing.T) {
	d := openTest(t, ":memory:")
	d.run("CREATE TABLE pair(k TEXT NOT NULL, n INTEGER NOT NULL, v CHECK (v <> 'bad'), PRIMARY KEY(n, k)); SELECT crsql_as_crr('pair')")
	pack := func(values ...changeset.Value) []byte {
		pk, err := changeset.AppendPacked(nil, values)
		if err != nil {
			t.Fatal(err)
		}
		return pk
	}
	key := pack(changeset.Integer(7), textValue(`a'b"c`+"\x00\xff\n"))
	long := pack(changeset.Integer(7), textValue(strings.Repeat("é", 100_000)))
	for _, test := range []struct {
		pk   []byte
		cid  string
		want string
	}{
		{key, "v", `table "pair", key (7, 'a''b"c\x00\xff\n'), column "v": the table refuses it: CHECK constraint failed`},
		{key, "w", `table "pair", key (7, 'a''b"c\x00\xff\n'), column "w": the table has no such column`},
		{pack(changeset.Real(1.5), changeset.Blob([]byte{0, 1})), "w", `key (1.5, x'0001'), column "w"`},
		{pack(changeset.Null(), changeset.Real(2)), "v", `key (NULL, 2.0), column "v": its primary key holds a NULL`},
		{[]byte{2, 9}, "v", `key x'0209', column "v": its primary key is damaged`},
		{nil, "v", `key x'', column "v": its primary key is damaged`},
		{long, "w", `key (7, 'é`},
		{append([]byte{9}, long...), "v", `key x'0902`},
	} {
		_, err := d.try("INSERT INTO crsql_changes VALUES ('pair', ?, ?, 'bad', 9, 1, NULL, 1, 0)", test.pk, test.cid)
		if err == nil || !strings.Contains(err.Error(), test.want) || len(err.Error()) > 600 {
			t.Errorf("got %v\nwant %s", err, test.want)
		}
	}
	// Errors of a local write's triggers do, too.
	d.run("CREATE TRIGGER broken BEFORE INSERT ON pair__crsql_clock BEGIN SELECT RAISE(ABORT, 'the disk is tired'); END")
	for _, sql := range []string{
		"INSERT INTO pair VALUES ('x', 1, 'v')", "SELECT crsql_after_delete('pair', 1, 'x')", "SELECT crsql_after_update('pair', 1, 'x', 1, 'x', 'new', 'old')",
	} {
		if _, err := d.try(sql); err == nil || !strings.Contains(err.Error(), `table "pair", key (1, 'x'): the disk is tired`) {
			t.Errorf("%s: %v", sql, err)
		}
	}
}
