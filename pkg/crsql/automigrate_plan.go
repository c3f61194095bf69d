package crsql

import (
	"fmt"
	"slices"
	"strings"
)

// A migration is what leads from the schema of a database to a wanted one, apart from the objects that are to be created:
// those are the steps of the schema that are not there yet.
type migration struct {
	drop    []schemaObject // tables, and views and triggers that are defined anew
	changes []tableChange
	ignored []string
}

// A tableChange is what changes in a table.
type tableChange struct {
	name        string
	crr         bool
	dropIndexes []string
	dropColumns []string
	addColumns  []string // names
	definitions []string // of addColumns
	unorder     bool     // what crsql_fract_as_ordered made of it goes, and comes back if the schema wants it
}

// A keeper says what a migration leaves as it is, though the schema does not have it. A nil one keeps nothing.
type keeper struct {
	table   func(name string, crr bool) bool
	column  func(table, column string) bool
	index   func(name string) bool
	ordered bool // tables of crsql_fract_as_ordered, whose columns the schema may not change then
}

func (k *keeper) keepsTable(name string, crr bool) bool { return k != nil && k.table(name, crr) }
func (k *keeper) keepsColumn(table, col string) bool    { return k != nil && k.column(table, col) }
func (k *keeper) keepsIndex(name string) bool           { return k != nil && k.index(name) }

// planMigration compares the database with the wanted schema. What it cannot do is an error that names the column.
func (e *engine) planMigration(w *wantedSchema) (*migration, error) {
	have, err := readShape(e.sqlite)
	if err != nil {
		return nil, err
	}
	m := &migration{}
	for _, step := range w.steps {
		o, ok := have.objects[step.object.key()]
		if ok && (o.kind == "view" || o.kind == "trigger") && !sameSQL(o.sql, step.object.sql) {
			m.drop = append(m.drop, o)
		}
	}
	for _, key := range have.order {
		t, wanted := have.tables[key], w.shape.tables[key]
		if wanted == nil {
			if e.keep.keepsTable(t.name, have.isCRR(t.name)) {
				continue
			}
			m.drop = append(m.drop, schemaObject{kind: "table", name: t.name})
			continue
		}
		change, err := e.planTable(have, w, t, wanted)
		if err != nil {
			return nil, err
		}
		m.changes = append(m.changes, change)
		m.ignored = append(m.ignored, t.ignored(wanted)...)
	}
	return m, nil
}

func (e *engine) planTable(have *schemaShape, w *wantedSchema, t, wanted *tableShape) (tableChange, error) {
	c := tableChange{name: t.name, crr: have.isCRR(t.name)}
	refuse := func(what string) (tableChange, error) {
		return c, fmt.Errorf("the table %q %s; a migration cannot change that: %s", t.name, what, c.remake())
	}
	key := strings.ToLower(t.name)
	switch {
	case t.name != wanted.name:
		return refuse(fmt.Sprintf("is called %q in the schema", wanted.name))
	case c.crr && !w.crrs[key]:
		return c, fmt.Errorf("the table %q is a CRR, and the schema does not make it one: add SELECT crsql_as_crr(%[2]s) to the schema, "+
			"or make it an ordinary table first, with SELECT crsql_as_table(%[2]s)", t.name, literal(t.name))
	case t.options != wanted.options:
		return refuse("is STRICT or WITHOUT ROWID in one of database and schema, and not in the other")
	}
	for _, col := range t.columns {
		other := wanted.column(col.name)
		if other == nil {
			if e.keep.keepsColumn(t.name, col.name) {
				continue
			}
			if col.pk > 0 {
				return refuse(fmt.Sprintf("has the column %q in its primary key, and the schema has not", col.name))
			}
			c.dropColumns = append(c.dropColumns, col.name)
			continue
		}
		if what := col.differs(other); what != "" {
			return refuse(fmt.Sprintf("has the column %q %s", col.name, what))
		}
	}
	for _, col := range wanted.columns {
		switch {
		case t.column(col.name) != nil:
			continue
		case col.pk > 0:
			return refuse(fmt.Sprintf("lacks the column %q, which is in the primary key of the schema", col.name))
		}
		c.addColumns = append(c.addColumns, col.name)
		c.definitions = append(c.definitions, col.definition(wanted.definitions[strings.ToLower(col.name)]))
	}
	for _, index := range have.indexes[key] {
		o := have.objects[index]
		other, ok := w.shape.objects[index]
		drop := ok && !sameSQL(o.sql, other.sql) || !ok && !e.keep.keepsIndex(o.name)
		if !drop && !ok && len(c.dropColumns) > 0 {
			var err error
			if drop, err = e.indexes(o.name, c.dropColumns); err != nil {
				return c, err
			}
		}
		if drop {
			c.dropIndexes = append(c.dropIndexes, o.name)
		}
	}
	if e.keep != nil && e.keep.ordered && have.ordered(t.name) {
		if len(c.dropColumns)+len(c.addColumns) > 0 {
			return refuse("is ordered by crsql_fract_as_ordered, and has other columns in the schema")
		}
		return c, nil
	}
	c.unorder = have.ordered(t.name) && (len(c.dropColumns) > 0 || len(c.addColumns) > 0 || !w.orders[key])
	return c, nil
}

// indexes reports whether an index is on one of the columns.
func (e *engine) indexes(index string, columns []string) (bool, error) {
	rows, err := e.query("SELECT name FROM pragma_index_info(?, 'main')", index)
	for _, row := range rows {
		if slices.ContainsFunc(columns, func(c string) bool { return strings.EqualFold(c, toText(row[0])) }) {
			return true, err
		}
	}
	return false, err
}

// remake says how to change what ALTER TABLE cannot.
func (c *tableChange) remake() string {
	if c.crr {
		return fmt.Sprintf("copy its rows to a new table of that name between SELECT crsql_begin_alter(%s) and SELECT crsql_commit_alter(%s)",
			literal(c.name), literal(c.name))
	}
	return "copy its rows to a new table of that name"
}

// differs says how a column of the database differs from the schema's in what a migration cannot change, or "".
func (c *columnShape) differs(wanted *columnShape) string {
	null := func(c *columnShape) string {
		if c.notNull {
			return "NOT NULL"
		}
		return "that may be NULL"
	}
	def := func(c *columnShape) string {
		if c.def == nil {
			return "no default"
		}
		return "the default " + toText(c.def)
	}
	generated := func(c *columnShape) string {
		return map[int64]string{0: "not generated", 2: "generated VIRTUAL", 3: "generated STORED"}[c.generated]
	}
	switch {
	case c.name != wanted.name:
		return fmt.Sprintf("which the schema calls %q", wanted.name)
	case c.pk != wanted.pk:
		return fmt.Sprintf("at place %d of its primary key, and the schema at place %d (0: not in it)", c.pk, wanted.pk)
	case !sameSQL(c.kind, wanted.kind):
		return fmt.Sprintf("of the type %q, and the schema of the type %q", c.kind, wanted.kind)
	case c.notNull != wanted.notNull:
		return fmt.Sprintf("%s, and the schema one %s", null(c), null(wanted))
	case (c.def == nil) != (wanted.def == nil) || c.def != nil && !sameSQL(toText(c.def), toText(wanted.def)):
		return fmt.Sprintf("with %s, and the schema with %s", def(c), def(wanted))
	case c.generated != wanted.generated:
		return fmt.Sprintf("%s, and the schema %s", generated(c), generated(wanted))
	}
	return ""
}

// definition returns the column as ALTER TABLE ADD COLUMN takes it: in the words of the stock engine's migrations where
// those say it all, as the schema has it otherwise.
func (c *columnShape) definition(written string) string {
	tokens, err := significantTokens(written)
	if err != nil {
		return written
	}
	for i, token := range tokens {
		switch word := strings.ToUpper(token); word {
		case "CONSTRAINT", "UNIQUE", "CHECK", "COLLATE", "REFERENCES", "GENERATED", "AS", "ON":
			if i > 0 {
				return written
			}
		case "DEFAULT":
			if i > 0 && i+1 < len(tokens) && tokens[i+1] == "(" {
				return written
			}
		}
	}
	var b strings.Builder
	b.WriteString(ident(c.name) + " " + c.kind + " ")
	if c.notNull {
		b.WriteString("NOT NULL ")
	}
	b.WriteString(" ")
	if c.def != nil {
		b.WriteString("DEFAULT " + toText(c.def))
	}
	return strings.TrimSpace(b.String())
}

// ignored lists how the table is written differently in the schema, in what neither SQLite's pragmas show nor a migration
// changes, such as a CHECK or a COLLATE.
func (t *tableShape) ignored(wanted *tableShape) []string {
	var list []string
	for _, col := range t.columns {
		key := strings.ToLower(col.name)
		if wanted.column(col.name) != nil && !samePieces(t.definitions[key], wanted.definitions[key]) {
			list = append(list, fmt.Sprintf("the column %q of the table %q is written differently in the schema", col.name, t.name))
		}
	}
	if !samePieces(strings.Join(t.constraints, " "), strings.Join(wanted.constraints, " ")) {
		list = append(list, fmt.Sprintf("the constraints of the table %q are written differently in the schema", t.name))
	}
	return list
}

// isCRR reports whether the table has the triggers of a CRR.
func (s *schemaShape) isCRR(table string) bool {
	trigger := schemaObject{kind: "trigger", name: table + "__crsql_itrig"}
	_, ok := s.objects[trigger.key()]
	return ok
}

// ordered reports whether crsql_fract_as_ordered has been called for the table.
func (s *schemaShape) ordered(table string) bool {
	for _, o := range orderObjects(table) {
		if _, ok := s.objects[o.key()]; ok && o.kind == "trigger" {
			return true
		}
	}
	return false
}

// orderObjects are what crsql_fract_as_ordered makes.
func orderObjects(table string) []schemaObject {
	return []schemaObject{
		{kind: "trigger", name: "__crsql_" + table + "_fractindex_pend_trig"},
		{kind: "trigger", name: "__crsql_" + table + "_fractindex_ezmove"},
		{kind: "view", name: table + "_fractindex"},
	}
}
