package crsql

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"unsafe"

	"github.com/mattn/go-sqlite3"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// keyOfSize returns a packed key of one text with so many bytes.
func keyOfSize(t testing.TB, size int) []byte {
	t.Helper()
	for n := size - 6; n <= size; n++ {
		pk, err := changeset.AppendPacked(nil, []changeset.Value{textValue(strings.Repeat("k", n))})
		if err != nil {
			t.Fatal(err)
		}
		if len(pk) == size {
			return pk
		}
	}
	t.Fatalf("no key has %d bytes", size)
	return nil
}

func TestKeyLimit(t *testing.T) {
	d := openTest(t, ":memory:")
	n := newNeighbour(d)
	d.run("CREATE TABLE t(k TEXT PRIMARY KEY NOT NULL, x); SELECT crsql_as_crr('t')")
	insert := "INSERT INTO crsql_changes VALUES ('t', ?, 'x', 1, 9, 1, NULL, 1, 0)"
	d.run(insert, keyOfSize(t, MaxKey))
	if _, err := d.try(insert, keyOfSize(t, MaxKey+1)); err == nil || !strings.Contains(err.Error(), "its primary key has 1048577 bytes") {
		t.Errorf("a merge with a key beyond the limit: %.300v", err)
	}
	n.unharmed("a large key")
	const most = MaxKey - 10 // of one text
	d.run("INSERT INTO t VALUES (?, 1)", strings.Repeat("l", most))
	large := strings.Repeat("m", most+1)
	if _, err := d.try("INSERT INTO t VALUES (?, 1)", large); err == nil || !strings.Contains(err.Error(), ErrLimit.Error()) {
		t.Errorf("a local key beyond the limit: %.300v", err)
	}
	if _, err := d.try("UPDATE t SET k = ? WHERE length(k) = ?", large, most); err == nil || !strings.Contains(err.Error(), ErrLimit.Error()) {
		t.Errorf("an update to a key beyond the limit: %.300v", err)
	}
	n.unharmed("large local keys")
	if got := d.int("SELECT count(*) FROM t"); got != 2 {
		t.Errorf("%d rows", got)
	}
	// A row that was there before its table became a CRR can still be updated and deleted.
	d.run("CREATE TABLE old(k TEXT PRIMARY KEY NOT NULL, x)")
	d.run("INSERT INTO old VALUES (?, 1)", large)
	d.run("SELECT crsql_as_crr('old'); UPDATE old SET x = 2; DELETE FROM old")
	n.unharmed("a large key of old")
}

func TestTableLimits(t *testing.T) {
	d := openTest(t, ":memory:")
	n := newNeighbour(d)
	wide := func(name string, columns int) string {
		var b strings.Builder
		b.WriteString("CREATE TABLE " + ident(name) + "(id INTEGER PRIMARY KEY NOT NULL")
		for i := 1; i < columns; i++ {
			fmt.Fprintf(&b, ", c%d", i)
		}
		return b.String() + ")"
	}
	most := (d.engine.sqlite.GetLimit(sqlite3.SQLITE_LIMIT_FUNCTION_ARG) - 1) / 2
	d.run(wide("widest", most))
	d.run("SELECT crsql_as_crr('widest'); INSERT INTO widest(id) VALUES (1); UPDATE widest SET c1 = 2; UPDATE widest SET id = 2")
	d.run(wide("wider", most+1))
	if _, err := d.try("SELECT crsql_as_crr('wider')"); err == nil || !strings.Contains(err.Error(), "columns, at most") {
		t.Errorf("a table with too many columns: %v", err)
	}
	d.run("INSERT INTO wider(id) VALUES (1); UPDATE wider SET c1 = 2")
	name := strings.Repeat("n", MaxName)
	d.run("CREATE TABLE " + name + "(id INTEGER PRIMARY KEY NOT NULL, " + name + "); SELECT crsql_as_crr('" + name + "'); INSERT INTO " + name + " VALUES (1, 2)")
	for _, sql := range []string{
		"CREATE TABLE " + name + "n(id INTEGER PRIMARY KEY NOT NULL); SELECT crsql_as_crr('" + name + "n')",
		"CREATE TABLE c(id INTEGER PRIMARY KEY NOT NULL, " + name + "n); SELECT crsql_as_crr('c')",
		"CREATE TABLE k(" + name + "n INTEGER PRIMARY KEY NOT NULL); SELECT crsql_as_crr('k')",
	} {
		if _, err := d.try(sql); err == nil || !strings.Contains(err.Error(), "1025 bytes, at most 1024") {
			t.Errorf("a name beyond the limit: %v", err)
		}
	}
	n.unharmed("tables at the limits")
}

// Lengths of 2^31 and more, without the memory: nobody reads them.
func TestTextLimits(t *testing.T) {
	huge := func(n int) string { return unsafe.String(unsafe.StringData("x"), n) }
	for n, want := range map[int]bool{maxBound: true, maxBound + 1: false, 1 << 31: false, 1<<32 + 5: false} {
		for _, v := range []driver.Value{huge(n), unsafe.Slice(unsafe.StringData("x"), n)} {
			if err := checkArgs([]driver.NamedValue{{Ordinal: 1, Value: int64(1)}, {Ordinal: 2, Value: v}}); (err == nil) != want {
				t.Errorf("%T of %d bytes: %v", v, n, err)
			}
		}
	}
	for _, n := range []int{maxSQL + 1, 1<<32 + 5} {
		if _, err := readText(huge(n)); err == nil {
			t.Errorf("a statement of %d bytes is run", n)
		}
	}
	n := newNode(t, "n")
	ctx := context.Background()
	padded := func(size int) string { return "SELECT 1 /*" + strings.Repeat("x", size-13) + "*/" }
	if _, err := n.db.Exec(ctx, padded(MaxStatement)); err != nil {
		t.Errorf("a statement of the largest size: %v", err)
	}
	if _, err := n.db.Exec(ctx, padded(MaxStatement+1)); !errors.Is(err, ErrLimit) {
		t.Errorf("a larger one: %v", err)
	}
	if _, err := n.db.Query(ctx, padded(MaxStatement+1), nil, nil); !errors.Is(err, ErrLimit) {
		t.Errorf("a larger query: %v", err)
	}
	if err := n.db.ExecScript(ctx, "SELECT 1;"+padded(MaxStatement)+";"+padded(MaxStatement)); err != nil {
		t.Errorf("a script of large statements: %v", err)
	}
	if err := n.db.ExecScript(ctx, "SELECT 1;\n"+padded(MaxStatement+1)); !errors.Is(err, ErrLimit) || !strings.HasPrefix(err.Error(), "line 2: ") {
		t.Errorf("a script with a larger one: %v", err)
	}
}

func TestValueLimit(t *testing.T) {
	n := newNode(t, "n")
	n.script(noteSQL)
	n.exec("INSERT INTO note VALUES (1, 'mine', NULL, NULL)")
	ctx := context.Background()
	body := func(id int64, size int) changeset.Change {
		c := title(id, "", 1)
		c.CID, c.Val = "body", changeset.Blob(make([]byte, size))
		return c
	}
	overhead := body(2, 1<<24).Val.Size() - 1<<24 + len(noteKey(2))
	largest := body(2, MaxValue-overhead)
	unknown := largest // it is parked, with its reason
	unknown.Table, unknown.CID = strings.Repeat("t", MaxName), strings.Repeat("c", MaxName)
	got := n.apply(Group{Origin: siteX, Version: 1, Changes: []changeset.Change{largest, unknown}})
	equal(t, "changed", got.Changed, []int64{1})
	equal(t, "parked", got.Parked, []int{1})
	_, err := n.Apply(ctx, ApplyRequest{Groups: []Group{{Origin: siteX, Version: 2, Changes: []changeset.Change{title(5, "beside it", 1), body(3, MaxValue-overhead+1)}}}})
	if !errors.Is(err, ErrLimit) || !strings.Contains(err.Error(), `table "note", key (3), column "body"`) {
		t.Errorf("a value beyond the limit: %v", err)
	}
	equal(t, "notes", n.query("SELECT id, length(body) FROM note"), []string{"1 NULL ", fmt.Sprintf("2 %d ", MaxValue-overhead)})
	// Such a value that is there already, by another program, keeps nothing from being read or written.
	n.exec("UPDATE note SET body = zeroblob(?) WHERE id = 1", int64(MaxValue+1))
	if got := n.readAll(4096); got[len(got)-1].Changes[0].Val.Size() < MaxValue {
		t.Errorf("%d entries", len(got))
	}
	n.exec("UPDATE note SET title = 'still mine' WHERE id = 1")
}

// A request that no peer can send is refused whole, in words, and the next one works.
func TestRequestLimits(t *testing.T) {
	n := newNode(t, "n")
	n.script(noteSQL)
	ctx := context.Background()
	good := Group{Origin: siteX, Version: 1, Changes: []changeset.Change{title(1, "good", 1)}}
	with := func(change func(*Group)) ApplyRequest {
		g := good
		g.Changes = append([]changeset.Change(nil), good.Changes...)
		change(&g)
		return ApplyRequest{Groups: []Group{g}}
	}
	sites := func(count int) map[changeset.SiteID]int64 {
		list := make(map[changeset.SiteID]int64, count)
		for i := range count {
			list[changeset.SiteID(fmt.Sprintf("%016d", i))] = 1
		}
		return list
	}
	for name, q := range map[string]ApplyRequest{
		"no origin":          with(func(g *Group) { g.Origin = "" }),
		"a long origin":      with(func(g *Group) { g.Origin = siteX + "x" }),
		"a negative version": with(func(g *Group) { g.Version = -1 }),
		"a large version":    with(func(g *Group) { g.Version = changeset.MaxVersion + 1 }),
		"a long table":       with(func(g *Group) { g.Changes[0].Table = strings.Repeat("t", MaxName+1) }),
		"a long column":      with(func(g *Group) { g.Changes[0].CID = strings.Repeat("t", MaxName+1) }),
		"a long site":        with(func(g *Group) { g.Changes[0].Site = siteX + "x" }),
		"a very long site":   with(func(g *Group) { g.Changes[0].Site = changeset.SiteID(strings.Repeat("s", 1000)) }),
		"a claim of nobody":  {Claims: map[changeset.SiteID]int64{"": 1}},
		"a claim of MinInt":  {Claims: map[changeset.SiteID]int64{siteX: math.MinInt64}},
		"a resume of MaxInt": {Resume: map[changeset.SiteID]int64{siteX: math.MaxInt64}},
		"too many claims":    {Claims: sites(MaxSites + 1)},
		"too many resumes":   {Resume: sites(MaxSites + 1)},
	} {
		if _, err := n.Apply(ctx, q); !errors.Is(err, ErrLimit) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if state := n.state(); state.Heads != (Heads{}) || len(state.Vector)+len(state.Resume) != 0 || state.Parked != 0 {
		t.Errorf("refused requests left %+v", state)
	}
	q := ApplyRequest{Groups: []Group{good}, Claims: sites(MaxSites), Resume: sites(MaxSites)}
	q.Groups[0].Version = changeset.MaxVersion
	if got, err := n.Apply(ctx, q); err != nil || got.Changed[0] != 1 {
		t.Errorf("a request at the limits: %+v, %v", got, err)
	}
	tables := make([]TableSchema, MaxTables+1)
	for i := range tables {
		tables[i] = TableSchema{Name: "note", SQL: noteSQL}
	}
	if _, err := n.CreateTables(ctx, tables); !errors.Is(err, ErrLimit) {
		t.Errorf("too many tables: %v", err)
	}
	sql := func(size int) TableSchema {
		const text = "CREATE TABLE t (id INTEGER PRIMARY KEY NOT NULL)"
		return TableSchema{Name: "t", SQL: text + "/*" + strings.Repeat("x", size-len(text)-4) + "*/"}
	}
	if _, err := n.CreateTables(ctx, []TableSchema{sql(MaxTableSQL + 1)}); !errors.As(err, new(*SchemaError)) {
		t.Errorf("a long statement: %v", err)
	}
	if created, err := n.CreateTables(ctx, []TableSchema{sql(MaxTableSQL)}); err != nil || created != 1 {
		t.Errorf("the longest: %d created, %v", created, err)
	}
}

// Read takes any position, and limits of any size.
func TestReadAnywhere(t *testing.T) {
	n := newNode(t, "n")
	n.script(noteSQL)
	n.exec("INSERT INTO note VALUES (1, 'a', NULL, NULL)")
	n.exec("INSERT INTO note VALUES (2, 'b', NULL, NULL)")
	edges := []int64{math.MinInt64, math.MinInt64 + 1, -1 << 47, -1, 0, 1, 2, 3, 1 << 46, 1 << 47, 1<<53 - 1, math.MaxInt64 - 1, math.MaxInt64}
	ctx := context.Background()
	for _, l := range edges {
		for _, seq := range edges {
			for _, limit := range []int{math.MinInt64, -1, 0, 1, math.MaxInt64} {
				q := all(Position{L: l, Seq: seq})
				q.MaxBytes, q.MaxChanges, q.Count = limit, limit, true
				for range 2 {
					got, err := n.Read(ctx, q)
					if err != nil {
						t.Fatalf("%+v: %v", q.After, err)
					}
					if l < 1 && (len(got.Entries) == 0 || got.Entries[0].L != 1) {
						t.Errorf("%+v: got %+v", q.After, got)
					}
					if l > 2 && (len(got.Entries) != 0 || !got.End) {
						t.Errorf("%+v: got %+v", q.After, got)
					}
					q.Only = edges
				}
			}
		}
	}
	if _, err := n.Read(ctx, ReadRequest{}); err == nil {
		t.Error("a request without Decide is carried out")
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("a panic of Decide is swallowed")
			}
		}()
		_, _ = n.Read(ctx, ReadRequest{MaxChanges: 1, Decide: func(changeset.SiteID, int64) Decision { panic("in Decide") }})
	}()
	for range DefaultReaders + 1 { // no connection is lost
		if got := n.read(all(Position{})); len(got.Entries) != 2 {
			t.Errorf("got %+v", got)
		}
	}
}

// The sites that an engine remembers are bounded.
func TestOrdinalsBound(t *testing.T) {
	d := openTest(t, ":memory:")
	d.run("SELECT crsql_db_version(); BEGIN")
	for i := range maxOrdinals + 10 {
		if _, err := d.engine.ordinal(changeset.SiteID(fmt.Sprintf("%016d", i))); err != nil {
			t.Fatal(err)
		}
		if len(d.engine.ordinals) > maxOrdinals {
			t.Fatalf("%d sites are remembered", len(d.engine.ordinals))
		}
	}
	for _, i := range []int{0, maxOrdinals, maxOrdinals + 9} {
		if n, err := d.engine.ordinal(changeset.SiteID(fmt.Sprintf("%016d", i))); err != nil || n != int64(i+1) {
			t.Errorf("site %d has ordinal %d, %v", i, n, err)
		}
	}
	d.run("COMMIT")
}
