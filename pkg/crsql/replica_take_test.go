package crsql

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// offer is the node's schema as its peers get it.
func (n *node) offer() SchemaOffer {
	schema := n.state().Schema
	return SchemaOffer{schema.Hash, schema.Generation, schema.Tables}
}

func (n *node) take(o SchemaOffer, accept AcceptSchema) SchemaTaken {
	n.t.Helper()
	taken, err := n.TakeSchema(context.Background(), o, accept)
	if err != nil {
		n.t.Fatal(err)
	}
	return taken
}

func (n *node) migrate(schema string) MigrateReport {
	n.t.Helper()
	report, err := n.Migrate(context.Background(), schema)
	if err != nil {
		n.t.Fatal(err)
	}
	return report
}

func (n *node) replay() int {
	n.t.Helper()
	applied, err := n.ReplayParked(context.Background())
	if err != nil {
		n.t.Fatal(err)
	}
	return applied
}

func (n *node) parked() Parked {
	n.t.Helper()
	parked, err := n.Parked(context.Background())
	if err != nil {
		n.t.Fatal(err)
	}
	return parked
}

// columns is how a CRR looks to others.
func (n *node) columns(table string) string {
	var text []string
	for _, t := range n.state().Schema.Tables {
		if t.Name == table {
			for _, c := range t.Columns {
				text = append(text, c.Definition())
			}
		}
	}
	return strings.Join(text, ", ")
}

func noteWith(columns string) string {
	return "CREATE TABLE note (id INTEGER PRIMARY KEY NOT NULL, title TEXT" + columns + "); SELECT crsql_as_crr('note');"
}

const tagsSQL = "CREATE TABLE tag (k TEXT PRIMARY KEY NOT NULL, v); SELECT crsql_as_crr('tag');"

func TestTakeAdditive(t *testing.T) {
	a, b := newNode(t, "a"), newNode(t, "b")
	a.script(noteWith(", tags TEXT DEFAULT 'none', n INT NOT NULL DEFAULT -7, z DEFAULT (1+1), q VARCHAR(10)") + tagsSQL)
	b.script(noteWith(", own") + "CREATE TABLE local (id INTEGER PRIMARY KEY NOT NULL)")
	b.exec("INSERT INTO note VALUES (1, 'one', 2), (2, 'two', 3)")
	before, index := b.state().Heads, "CREATE INDEX note_own ON note (own)"
	b.script(index)

	taken := b.take(a.offer(), AcceptAdditive)
	if len(taken.Refused) > 0 || taken.Report.Changes != 0 {
		t.Errorf("taken %+v", taken)
	}
	equal(t, "added", taken.Report.ColumnsAdded, []string{"note.tags", "note.n", "note.q"})
	equal(t, "created", taken.Report.TablesCreated, []string{"tag"})
	if got, want := b.columns("note"), `"id" INTEGER NOT NULL, "title" TEXT, "own", "tags" TEXT DEFAULT 'none', "n" INT NOT NULL DEFAULT -7, "q" VARCHAR(10)`; got != want {
		t.Errorf("the columns are %s", got)
	}
	if got := b.state().Heads; got != before {
		t.Errorf("the heads went from %+v to %+v: a default is no change", before, got)
	}
	equal(t, "rows", b.query("SELECT * FROM note"), []string{`1 "one" 2 "none" -7 NULL `, `2 "two" 3 "none" -7 NULL `})
	equal(t, "local", b.query("SELECT name FROM sqlite_master WHERE name IN ('local', 'note_own') ORDER BY 1"), []string{`"local" `, `"note_own" `})
	// A column that cannot be added is told once nothing else is missing, and the rest is left alone.
	taken = b.take(a.offer(), AcceptAdditive)
	if !taken.Report.Empty() || len(taken.Refused) != 1 || !strings.Contains(taken.Refused[0].Error(), `"z" cannot be added: its default is no single literal`) {
		t.Errorf("taken %+v", taken)
	}
	// What is written to the columns travels.
	a.exec("INSERT INTO note VALUES (3, 'three', 'tag', 1, 2, 'q')")
	b.pull(a, all(Position{}))
	equal(t, "row", b.query("SELECT * FROM note WHERE id = 3"), []string{`3 "three" NULL "tag" 1 "q" `})
	if p := b.parked(); p.Changes != 1 || p.Tables[0].Table != "note" || !strings.Contains(p.Tables[0].Reason, "z") {
		t.Errorf("parked %+v", p)
	}
}

func TestTakeNever(t *testing.T) {
	a, b := newNode(t, "a"), newNode(t, "b")
	a.script(noteWith("") + tagsSQL)
	b.script(noteWith(""))
	if taken := b.take(a.offer(), AcceptNever); !taken.Report.Empty() || len(b.state().Schema.Tables) != 1 {
		t.Errorf("taken %+v", taken)
	}
}

// What a hostile writer's schema holds is never run, whatever the description beside it says.
func TestTakeHostile(t *testing.T) {
	n := newNode(t, "n")
	n.script(noteWith("") + "CREATE TABLE secret (id INTEGER PRIMARY KEY NOT NULL, v)")
	n.exec("INSERT INTO secret VALUES (1, 'mine')")
	n.exec("INSERT INTO note VALUES (1, 'one')")
	schema := func() []string { return n.query("SELECT type, name, sql FROM sqlite_master ORDER BY 1, 2") }
	before := schema()
	col := func(c changeset.Column) TableSchema {
		return TableSchema{Name: "note", SQL: "CREATE TABLE note (id INTEGER PRIMARY KEY NOT NULL)", Columns: []changeset.Column{c}}
	}
	for what, table := range map[string]TableSchema{
		"trigger":         {Name: "x", SQL: "CREATE TRIGGER x AFTER INSERT ON note BEGIN SELECT 1; END"},
		"view":            {Name: "x", SQL: "CREATE VIEW x AS SELECT 1"},
		"select":          {Name: "x", SQL: "CREATE TABLE x AS SELECT * FROM secret"},
		"function":        {Name: "x", SQL: "CREATE TABLE x (id INTEGER PRIMARY KEY NOT NULL, v DEFAULT (crsql_finalize()))"},
		"two":             {Name: "x", SQL: "CREATE TABLE x (id INTEGER PRIMARY KEY NOT NULL); DROP TABLE note"},
		"name":            {Name: "crmesh_log", SQL: "CREATE TABLE crmesh_log (id INTEGER PRIMARY KEY NOT NULL)"},
		"local":           {Name: "secret", SQL: "CREATE TABLE secret (id INTEGER PRIMARY KEY NOT NULL, v)"},
		"default":         col(changeset.Column{Name: "c", HasDefault: true, Default: "(random())"}),
		"default ends":    col(changeset.Column{Name: "c", HasDefault: true, Default: "1; DROP TABLE note"}),
		"default check":   col(changeset.Column{Name: "c", HasDefault: true, Default: "1 CHECK (random())"}),
		"default name":    col(changeset.Column{Name: "c", HasDefault: true, Default: `"x"`}),
		"default NUL":     col(changeset.Column{Name: "c", HasDefault: true, Default: "'a\x00b'"}),
		"type generated":  col(changeset.Column{Name: "c", Type: "GENERATED ALWAYS AS (1)"}),
		"type references": col(changeset.Column{Name: "c", Type: "INT REFERENCES secret (1)"}),
		"type foreign":    col(changeset.Column{Name: "c", Type: "INT REFERENCES secret"}),
		"type not null":   col(changeset.Column{Name: "c", Type: "INT NOT NULL DEFAULT 5"}),
		"type ends":       col(changeset.Column{Name: "c", Type: "INT); DROP TABLE note"}),
		"type unique":     col(changeset.Column{Name: "c", Type: "INT UNIQUE"}),
		"column NUL":      col(changeset.Column{Name: "c\x00", Type: "INT"}),
		"column sentinel": col(changeset.Column{Name: "-1", Type: "INT"}),
		"column long":     col(changeset.Column{Name: strings.Repeat("c", MaxName+1), Type: "INT"}),
		"column case":     col(changeset.Column{Name: "TITLE", Type: "TEXT"}),
		"column key":      col(changeset.Column{Name: "c", NotNull: true, Key: 2}),
		"column not null": col(changeset.Column{Name: "c", NotNull: true}),
	} {
		for _, accept := range []AcceptSchema{AcceptAdditive, AcceptAny} {
			tables := []TableSchema{table}
			taken := n.take(SchemaOffer{changeset.SchemaHash(tables), 5, tables}, accept)
			equal(t, what, schema(), before)
			if what != "local" && what != "name" && len(taken.Refused) != 1 {
				t.Errorf("%s, %s: taken %+v", what, accept, taken)
			}
		}
	}
	equal(t, "rows", n.query("SELECT * FROM note"), []string{`1 "one" `})
	if n.state().Schema.Generation != 0 {
		t.Error("what was refused gave the schema a generation")
	}
}

// A schema that a peer offers may not make this database tell of more than MaxSchemaChanges changes.
func TestTakeBound(t *testing.T) {
	a, b := newNode(t, "a"), newNode(t, "b")
	a.script(noteWith(", n"))
	b.script(noteWith(""))
	fill := func(rows int) {
		b.script("ALTER TABLE note ADD COLUMN x") // not between crsql_begin_alter and crsql_commit_alter: it has no clocks
		b.exec("WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i WHERE n < ?) INSERT OR REPLACE INTO note SELECT n, 't', 'x' FROM i", rows)
		b.script("DELETE FROM note__crsql_clock WHERE col_name = 'x'")
	}
	fill(MaxSchemaChanges + 1)
	taken := b.take(a.offer(), AcceptAdditive)
	if len(taken.Refused) != 1 || !strings.Contains(taken.Refused[0].Error(), "10001 changes would go out") || !taken.Report.Empty() {
		t.Fatalf("taken %+v", taken)
	}
	b.exec("DELETE FROM note WHERE id = 1")
	if taken = b.take(a.offer(), AcceptAdditive); len(taken.Refused) != 0 || taken.Report.Changes != MaxSchemaChanges {
		t.Fatalf("taken %+v", taken.Report)
	}
}

func TestMigrateOnPurpose(t *testing.T) {
	n, other := newNode(t, "n"), newNode(t, "other")
	first := noteWith(", old") + "CREATE INDEX note_old ON note (old);" + tagsSQL
	n.migrate(first)
	n.exec("INSERT INTO note VALUES (1, 'one', 'gone')")
	if s := n.state().Schema; s.Generation != 1 {
		t.Errorf("the generation is %d", s.Generation)
	}
	// A table and a column come from a peer: neither is the schema's, and both stay.
	other.script(noteWith(", old, theirs") + "CREATE TABLE peers (id INTEGER PRIMARY KEY NOT NULL); SELECT crsql_as_crr('peers');")
	o := other.offer()
	o.Generation = 1
	n.take(o, AcceptAdditive)
	n.script("CREATE TABLE local (x)")
	if report := n.migrate(first); !report.Empty() {
		t.Errorf("the same schema again: %+v", report)
	}
	plan, err := n.PlanMigration(context.Background(), noteWith(", new"))
	if err != nil || n.state().Schema.Generation != 1 || strings.Contains(n.columns("note"), "new") {
		t.Fatalf("the plan %+v, %v", plan, err)
	}
	report := n.migrate(noteWith(", new"))
	if fmt.Sprint(report) != fmt.Sprint(plan) {
		t.Errorf("did %+v, planned %+v", report, plan)
	}
	equal(t, "dropped", report.TablesDropped, []string{"tag"})
	equal(t, "dropped columns", report.ColumnsDropped, []string{"note.old"})
	equal(t, "dropped indexes", report.IndexesDropped, []string{"note_old"})
	if got := n.columns("note"); got != `"id" INTEGER NOT NULL, "title" TEXT, "theirs", "new"` || n.state().Schema.Generation != 2 {
		t.Errorf("the columns are %s, the generation %d", got, n.state().Schema.Generation)
	}
	equal(t, "tables", n.query("SELECT name FROM sqlite_master WHERE name IN ('local', 'peers', 'tag') ORDER BY 1"), []string{`"local" `, `"peers" `})
	// What was dropped on purpose does not come back from those who still have it, unless they do so on purpose too.
	old := newNode(t, "old")
	old.script(first)
	if taken := n.take(old.offer(), AcceptAdditive); !taken.Report.Empty() || len(taken.Refused) > 0 {
		t.Errorf("taken %+v", taken)
	}
	o = old.offer()
	o.Generation = 2
	taken := n.take(o, AcceptAdditive)
	equal(t, "back", append(taken.Report.ColumnsAdded, taken.Report.TablesCreated...), []string{"note.old", "tag"})
	equal(t, "made again", taken.Report.MadeAgain, []string{`"note"."old"`, `"tag"`})
	n.migrate(noteWith(", new, old"))
	n.migrate(noteWith(", new"))
	if report := n.migrate(noteWith(", new, old")); fmt.Sprint(report.MadeAgain) != `["note"."old"]` {
		t.Errorf("made again: %+v", report)
	}
	n.migrate(noteWith(", new"))
	generation := n.state().Schema.Generation
	// What cannot be migrated is an error that says what to do, and nothing changes.
	if _, err := n.Migrate(context.Background(), strings.Replace(noteWith(", new"), "TEXT", "INTEGER", 1)); err == nil || !strings.Contains(err.Error(), "copy its rows") {
		t.Errorf("another type: %v", err)
	}
	if n.state().Schema.Generation != generation {
		t.Error("a failed migration counts")
	}
}

func TestSchemaStatements(t *testing.T) {
	schema, others, err := SchemaStatements(noteSQL + "; -- x\nINSERT INTO note VALUES (1, ';', 2, 3); PRAGMA user_version = 3; CREATE TEMP TABLE x (y);" +
		"CREATE TRIGGER z AFTER INSERT ON x BEGIN SELECT 1; END; SELECT 1; CREATE UNIQUE INDEX i ON x (y)")
	if err != nil || others != 4 || strings.Count(schema, "\n") != 4+strings.Count(noteSQL, "\n") || strings.Contains(schema, "INSERT INTO") {
		t.Errorf("%d others, %v: %s", others, err, schema)
	}
	if _, _, err := SchemaStatements("CREATE TABLE 'x"); err == nil {
		t.Error("a script that ends in a text is read")
	}
}

// takeAll lets all nodes take each other's schemas, in any order, until nothing changes. It reports false if that goes on.
func takeAll(t *testing.T, accept map[*node]AcceptSchema, nodes ...*node) bool {
	t.Helper()
	for range 10 {
		moved := false
		for _, n := range nodes {
			for _, from := range nodes {
				before := n.state().Schema
				n.take(from.offer(), accept[n])
				after := n.state().Schema
				moved = moved || before.Hash != after.Hash || before.Generation != after.Generation
			}
		}
		if !moved {
			return true
		}
	}
	return false
}

// Three peers with schemas of their own come to rest, whatever each accepts, and what was parked meanwhile is applied.
func TestTakeComesToRest(t *testing.T) {
	ways := []AcceptSchema{AcceptAdditive, AcceptAny, AcceptNever}
	run := 0
	for _, x := range ways {
		for _, y := range ways {
			for _, z := range ways {
				run++
				t.Run(fmt.Sprintf("%s %s %s", x, y, z), func(t *testing.T) {
					t.Parallel()
					a, b, c := newNode(t, "a"), newNode(t, "b"), newNode(t, "c")
					nodes, accept := []*node{a, b, c}, map[*node]AcceptSchema{a: x, b: y, c: z}
					for _, n := range nodes {
						n.migrate(noteWith(""))
					}
					a.migrate(noteWith(", aa") + tagsSQL)
					b.migrate(noteWith(", bb DEFAULT 4"))
					c.migrate(noteWith(", cc TEXT NOT NULL DEFAULT ''"))
					a.exec("INSERT INTO note VALUES (1, 'a', 'of a')")
					a.exec("INSERT INTO tag VALUES ('k', 1)")
					b.exec("INSERT INTO note VALUES (2, 'b', 'of b')")
					c.exec("INSERT INTO note VALUES (3, 'c', 'of c')")
					for _, n := range nodes {
						for _, from := range nodes {
							if n != from {
								n.pull(from, all(Position{}))
							}
						}
					}
					if len(a.query("SELECT 1 FROM note")) != 3 || b.parked().Changes != 3 {
						t.Fatalf("%d rows, parked %+v", len(a.query("SELECT 1 FROM note")), b.parked())
					}
					if !takeAll(t, accept, nodes...) {
						t.Fatal("it does not come to rest")
					}
					hash := a.state().Schema.Hash
					for _, n := range nodes {
						n.replay()
						if accept[n] == AcceptNever {
							continue
						}
						if slices.Contains([]AcceptSchema{x, y, z}, AcceptNever) || x != y || y != z {
							continue
						}
						if s := n.state().Schema; s.Hash != hash || s.Generation != 2 {
							t.Errorf("%s has another schema: %s", n.name, n.columns("note"))
						}
						if p := n.parked(); x == AcceptAdditive && p.Changes != 0 {
							t.Errorf("%s has parked %+v", n.name, p)
						}
					}
					if x == AcceptAdditive && y == x && z == x {
						want := []string{`1 "a" "of a" 4 "" `, `2 "b" NULL "of b" "" `, `3 "c" NULL 4 "of c" `}
						for _, n := range nodes {
							equal(t, n.name, n.query("SELECT id, title, aa, bb, cc FROM note ORDER BY id"), want)
							equal(t, n.name, n.query("SELECT * FROM tag"), []string{`"k" 1 `})
						}
					}
				})
			}
		}
	}
	if run != 27 {
		t.Errorf("%d runs", run)
	}
}

// The newer schema wins as a whole where that is accepted, and what it has no place for is lost.
func TestTakeAny(t *testing.T) {
	a, b := newNode(t, "a"), newNode(t, "b")
	for _, n := range []*node{a, b} {
		n.migrate(noteWith(", old") + tagsSQL)
		n.script("CREATE INDEX note_title ON note (title); CREATE INDEX note_old ON note (old, title); CREATE TABLE local (x)")
	}
	b.exec("INSERT INTO note VALUES (1, 'one', 'old')")
	a.migrate(noteWith(", new") + "CREATE TABLE more (id INTEGER PRIMARY KEY NOT NULL); SELECT crsql_as_crr('more');")
	taken := b.take(a.offer(), AcceptAny)
	if len(taken.Refused) > 0 || taken.Report.Changes != 0 {
		t.Fatalf("taken %+v", taken)
	}
	if s := b.state().Schema; s.Hash != a.state().Schema.Hash || s.Generation != 2 {
		t.Errorf("the columns are %s, the generation %d", b.columns("note"), s.Generation)
	}
	equal(t, "indexes", b.query("SELECT name FROM sqlite_master WHERE name LIKE 'note\\_%' ESCAPE '\\' AND type = 'index' AND name NOT LIKE '%crsql%' OR name = 'local' ORDER BY 1"),
		[]string{`"local" `, `"note_title" `})
	if taken := a.take(b.offer(), AcceptAny); !taken.Report.Empty() {
		t.Errorf("taken back %+v", taken)
	}
	// An older one is not taken, though it has more.
	old := newNode(t, "old")
	old.script(noteWith(", old, older") + tagsSQL)
	if taken := b.take(old.offer(), AcceptAny); !taken.Report.Empty() {
		t.Errorf("taken from an older one %+v", taken)
	}
	// A schema that says of itself what it is not would drop tables: it is refused.
	o := a.offer()
	o.Generation, o.Tables = 9, o.Tables[:1]
	o.Hash[0] ^= 1
	if taken := b.take(o, AcceptAny); len(taken.Refused) != 1 || len(b.state().Schema.Tables) != 2 {
		t.Errorf("taken %+v", taken)
	}
	o.Tables = []TableSchema{{Name: "note", SQL: "CREATE TABLE note (id INTEGER PRIMARY KEY NOT NULL)", Columns: a.offer().Tables[1].Columns}}
	o.Hash = changeset.SchemaHash(o.Tables)
	if taken := b.take(o, AcceptAny); len(taken.Refused) != 1 || !strings.Contains(taken.Refused[0].Error(), "become others") || len(b.state().Schema.Tables) != 2 {
		t.Errorf("taken %+v", taken)
	}
}

// What is parked is counted by table and reason, passed on, kept, and bounded.
func TestParkedQuota(t *testing.T) {
	n := newNode(t, "n")
	n.script(noteSQL)
	n.quota = quota{changes: 5, bytes: 10_000}
	group := func(version int64, changes ...changeset.Change) Group {
		return Group{Origin: siteX, Version: version, Changes: changes}
	}
	unknown := func(id int64, value string) changeset.Change {
		c := title(id, value, 1)
		c.CID = "nothing"
		return c
	}
	n.apply(group(1, unknown(1, "a"), unknown(2, "b")), group(2, unknown(3, "c"), title(9, "fits", 1)))
	q := ApplyRequest{Groups: []Group{group(3, title(10, "fits", 1)), group(4, unknown(4, "d"), unknown(5, "e"), unknown(6, "f"))},
		Claims: map[changeset.SiteID]int64{siteX: 4}}
	var full *ParkedError
	if _, err := n.Apply(context.Background(), q); !errors.As(err, &full) || full.Group != 1 {
		t.Fatalf("got %v", err)
	}
	if state := n.state(); len(state.Vector) != 0 || state.Parked != 3 {
		t.Errorf("after a refused request: vector %v, %d parked", state.Vector, state.Parked)
	}
	// A later value of what is parked takes no more room, and the same one none.
	q = ApplyRequest{Groups: []Group{group(5, unknown(4, "d"), unknown(5, "e"))}}
	if _, err := n.Apply(context.Background(), q); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Apply(context.Background(), ApplyRequest{Groups: []Group{group(6, unknown(6, "f"))}}); !errors.As(err, &full) {
		t.Fatalf("got %v", err)
	}
	p := n.parked()
	if p.Changes != 5 || len(p.Tables) != 1 || p.Tables[0].Changes != 5 || p.Bytes < 500 {
		t.Errorf("parked %+v", p)
	}
	equal(t, "bytes", n.query("SELECT sum(100 + length(pk) + length(CAST(val AS BLOB)) + length(CAST(tbl || cid || reason AS BLOB))) FROM crmesh_parked"), []string{fmt.Sprint(p.Bytes, " ")})
	n.script("SELECT crsql_begin_alter('note'); ALTER TABLE note ADD COLUMN [nothing]; SELECT crsql_commit_alter('note')")
	if applied := n.replay(); applied != 5 || n.parked().Changes+n.parked().Bytes != 0 {
		t.Errorf("applied %d, still %+v", applied, n.parked())
	}
	// The bytes are bounded too.
	large := unknown(7, strings.Repeat("x", 20_000))
	large.CID = "other"
	if _, err := n.Apply(context.Background(), ApplyRequest{Groups: []Group{group(7, large)}}); !errors.As(err, &full) {
		t.Errorf("got %v", err)
	}
}

// State tells that what is parked has not been tried with the schema that is there: whoever starts after a migration must try it.
func TestUntried(t *testing.T) {
	n := newNode(t, "n")
	untried := func(when string, want bool) {
		t.Helper()
		if got := n.state().Untried; got != want {
			t.Errorf("%s: untried is %v", when, got)
		}
	}
	n.script(noteSQL)
	untried("with nothing parked", false)
	tagged := func(id int64, cid string) changeset.Change {
		c := title(id, "x", 1)
		c.CID = cid
		return c
	}
	n.apply(Group{Origin: siteX, Version: 1, Changes: []changeset.Change{tagged(1, "tag"), tagged(2, "other")}})
	n.replay()
	untried("once it was tried in vain", false)
	n.reopen()
	untried("at the next start", false)
	n.script("SELECT crsql_begin_alter('note'); ALTER TABLE note ADD COLUMN tag; SELECT crsql_commit_alter('note')")
	n.reopen()
	untried("after a migration", true)
	if applied := n.replay(); applied != 1 {
		t.Errorf("applied %d", applied)
	}
	untried("once what fits was applied", false)
}
