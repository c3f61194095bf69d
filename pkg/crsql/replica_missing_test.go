package crsql

import (
	"context"
	"database/sql"
	"testing"
)

// TestMissing: what a table lost when another program dropped it is found, whether the table is there again or not, until
// it is back.
func TestMissing(t *testing.T) {
	n := newNode(t, "n")
	n.script(`CREATE TABLE "a b" (k TEXT NOT NULL, l NOT NULL, v, PRIMARY KEY (k, l)); SELECT crsql_as_crr('a b');
		CREATE TABLE o (id INTEGER PRIMARY KEY NOT NULL, v); SELECT crsql_as_crr('o');
		INSERT INTO "a b" VALUES ('x', 1, 2), ('y', 1.5, NULL), ('z', x'00', 3); DELETE FROM "a b" WHERE k = 'z'; INSERT INTO o VALUES (1, 1)`)
	missing := func(want ...MissingRows) {
		t.Helper()
		got, err := n.Missing(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "missing", got, want)
	}
	outside := func(statements string) {
		t.Helper()
		other, err := sql.Open(DriverName, n.path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = other.Close() }()
		if _, err := other.Exec(statements); err != nil {
			t.Fatal(err)
		}
	}
	missing()
	outside(`DROP TABLE "a b"`)
	missing(MissingRows{Table: "a b", Gone: true, Rows: 2})
	outside(`CREATE TABLE "a b" (k TEXT NOT NULL, l NOT NULL, v, PRIMARY KEY (k, l))`)
	missing(MissingRows{Table: "a b", Rows: 2})
	outside(`SELECT crsql_as_crr('a b')`)
	missing(MissingRows{Table: "a b", Rows: 2})
	n.exec(`INSERT INTO "a b" VALUES ('x', 1, 3)`)
	missing(MissingRows{Table: "a b", Rows: 1})
	n.exec(`INSERT INTO "a b" VALUES ('y', 1.5, 3)`)
	missing()
	outside(`SELECT crsql_as_table('o'); DROP TABLE o`) // on purpose
	missing()
}
