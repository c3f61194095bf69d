package crsql

import (
	"slices"
	"strings"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// A shape is a table of the random scripts, as it is now in one database.
type shape struct {
	name    string
	columns []column
	keys    []string // the columns of the primary key, in its order
	options string
	indexes []index
}

// A column is a column of a shape. Its definition follows the name in CREATE TABLE.
type column struct{ name, def string }

func (c *column) generated() bool { return strings.Contains(c.def, "GENERATED") }

type index struct {
	name    string
	columns []string
}

var shapes = []shape{
	{name: "t1", keys: []string{"id"},
		columns: []column{{"id", "INTEGER NOT NULL"}, {"a", ""}, {"b", "TEXT DEFAULT 'x'"}, {"c", "REAL"}}},
	{name: "t2", keys: []string{"n", "k"}, indexes: []index{{"t2_v", []string{"v"}}, {"t2_wk", []string{"w", "k"}}},
		columns: []column{{"k", "TEXT NOT NULL"}, {"n", "INTEGER NOT NULL"}, {"v", ""}, {"w", "INTEGER NOT NULL DEFAULT 7"}}},
	{name: "t3", keys: []string{"a", "b"}, columns: []column{{"a", "INTEGER NOT NULL"}, {"b", "BLOB NOT NULL"}}},
	{name: "t4", keys: []string{"k"}, options: " WITHOUT ROWID", columns: []column{{"k", "TEXT NOT NULL"}, {"v", "NUMERIC"}}},
	{name: "t5", keys: []string{"k"}, options: " STRICT", columns: []column{{"k", "BLOB NOT NULL"}, {"v", "ANY"}, {"i", "INTEGER"}}},
	{name: "ünïcødé", keys: []string{"schlüssel"},
		columns: []column{{"schlüssel", "NOT NULL"}, {"ein wert", ""}, {"日本", "BOOLEAN"}, {"select", "TIMESTAMP"}}},
	{name: "t7", keys: []string{"id"}, columns: []column{
		{"id", "INTEGER NOT NULL"}, {"a", "INTEGER"}, {"g", `INTEGER GENERATED ALWAYS AS ("a" * 2) VIRTUAL`}, {"b", `TEXT COLLATE NOCASE CHECK ("b" <> 'bad')`}}},
	{name: "t8", keys: []string{"x", "y", "z"}, indexes: []index{{"t8_d", []string{"d"}}},
		columns: []column{{"z", "BLOB NOT NULL"}, {"d", "REAL NOT NULL DEFAULT 2"}, {"y", "TEXT NOT NULL"}, {"x", "INTEGER NOT NULL"}, {"e", "DEFAULT (1 + 2)"}}},
	{name: "t9", keys: []string{"group", "order"}, options: " WITHOUT ROWID",
		columns: []column{{"order", "INTEGER NOT NULL"}, {"group", "TEXT NOT NULL"}, {"from", "BLOB DEFAULT x'00ff'"}, {"table", "TEXT DEFAULT 'twice'"}, {"index", "NUMERIC DEFAULT -1.5"}}},
	{name: "t10", keys: []string{"id"}, columns: []column{
		{"id", "TEXT NOT NULL"}, {"a", "INTEGER NOT NULL DEFAULT (abs(-3))"}, {"s", `INTEGER GENERATED ALWAYS AS ("a" + 1) STORED`},
		{"b", "TEXT COLLATE RTRIM DEFAULT '1'"}, {"c", "DEFAULT NULL"}, {"d", `DEFAULT 1e3 CHECK (typeof("d") <> 'blob')`}}},
}

// What columns are added to the shapes.
var (
	newColumns = []string{"n1", "n2", "a", "neu é", "where"}
	newTypes   = []string{"", "TEXT", "INTEGER DEFAULT 5", "TEXT NOT NULL DEFAULT 'd'", "REAL DEFAULT 2", "DEFAULT NULL",
		"NUMERIC NOT NULL DEFAULT -1.5", "BLOB DEFAULT x'00'", "TEXT DEFAULT 'twice'", "INTEGER DEFAULT '7'"}
)

func (s *shape) table() string { return ident(s.name) }

func (s *shape) copy() shape {
	c := *s
	c.columns, c.keys, c.indexes = slices.Clone(s.columns), slices.Clone(s.keys), slices.Clone(s.indexes)
	return c
}

func copyShapes(list []shape) []shape {
	copied := make([]shape, len(list))
	for i := range list {
		copied[i] = list[i].copy()
	}
	return copied
}

// create returns the CREATE TABLE under another name.
func (s *shape) create(prefix, name string) string {
	var b strings.Builder
	b.WriteString("CREATE TABLE " + prefix + ident(name) + "(")
	for _, c := range s.columns {
		b.WriteString(strings.TrimSpace(ident(c.name)+" "+c.def) + ", ")
	}
	return b.String() + "PRIMARY KEY(" + idents("", s.keys, ", ") + "))" + s.options
}

func (s *shape) sql() string { return s.create("", s.name) }

func (i *index) sql(prefix, table string) string {
	return "CREATE INDEX " + prefix + ident(i.name) + " ON " + ident(table) + "(" + idents("", i.columns, ", ") + ")"
}

// schema returns the shapes as crsql_automigrate takes them: what is called stands on its own line, for the stock engine.
func schema(list []shape) string {
	var b strings.Builder
	for i := range list {
		s := &list[i]
		b.WriteString(s.create("IF NOT EXISTS ", s.name) + ";\nSELECT crsql_as_crr(" + literal(s.name) + ");\n")
		for _, i := range s.indexes {
			b.WriteString(i.sql("IF NOT EXISTS ", s.name) + ";\n")
		}
	}
	return b.String()
}

func (s *shape) column(name string) int {
	return slices.IndexFunc(s.columns, func(c column) bool { return c.name == name })
}

// cols returns the names of the columns that are written to, without the key's.
func (s *shape) cols() []string {
	var names []string
	for i := range s.columns {
		if c := &s.columns[i]; !c.generated() && !slices.Contains(s.keys, c.name) {
			names = append(names, c.name)
		}
	}
	return names
}

// kind returns what a key of the random scripts holds in a column.
func (s *shape) kind(name string) changeset.Kind {
	word, _, _ := strings.Cut(s.columns[s.column(name)].def, " ")
	switch word {
	case "INTEGER":
		return changeset.KindInteger
	case "TEXT":
		return changeset.KindText
	case "BLOB":
		return changeset.KindBlob
	}
	return changeset.KindNull // any
}

// Values at the edges of what a column can hold.
var edgeValues = []changeset.Value{
	changeset.Null(), changeset.Integer(0), changeset.Integer(1), changeset.Integer(-1), changeset.Integer(1 << 31),
	changeset.Integer(1<<53 + 1), changeset.Integer(-1 << 63), changeset.Real(1.5), changeset.Real(2), changeset.Real(1e300),
	changeset.TextString(""), changeset.TextString("a"), changeset.TextString("é日"), changeset.TextString("1"), changeset.TextString("2.0"),
	changeset.TextString("nul\x00in"), changeset.TextString("bad"),
	changeset.Blob(nil), changeset.Blob([]byte{0}), changeset.Blob([]byte{0, 255}), changeset.Blob([]byte("a")),
}
