package crsql

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// Migrate brings the CRRs to a schema as DB.Migrate does, on purpose: when the tables are others afterwards, their
// generation rises above all that was ever seen, and peers that accept newer schemas follow.
//
// It is for a schema that is given again at every start. One that was given last does nothing, though a peer's tables may
// have joined since. What the schema lacks is dropped only if the one before had it: what came from peers, or was made by
// hand, stays.
func (r *Replica) Migrate(ctx context.Context, schema string) (MigrateReport, error) {
	report, err := r.migrate(ctx, schema, nil)
	if err == nil && !report.Empty() {
		r.db.notify()
	}
	return report, err
}

// PlanMigration reports what Migrate would do, by doing it in a transaction that it undoes.
func (r *Replica) PlanMigration(ctx context.Context, schema string) (MigrateReport, error) {
	report, err := r.migrate(ctx, schema, errPlanned)
	if errors.Is(err, errPlanned) {
		err = nil
	}
	return report, err
}

// Empty reports whether nothing was changed.
func (m *MigrateReport) Empty() bool {
	return len(m.TablesCreated)+len(m.TablesDropped)+len(m.ColumnsAdded)+len(m.ColumnsDropped)+len(m.IndexesCreated)+
		len(m.IndexesDropped)+len(m.Others)+len(m.CRRs) == 0 && m.Changes == 0
}

func (r *Replica) migrate(ctx context.Context, schema string, end error) (report MigrateReport, err error) {
	err = r.db.transact(ctx, func(s *session) error {
		e := s.engine
		asked, _, err := e.text("SELECT value FROM main.crmesh_meta WHERE key = '" + metaAsked + "'")
		if err != nil || asked == schema {
			return cmp.Or(err, end)
		}
		before, err := r.readSchema(e)
		if err != nil {
			return err
		}
		if report, err = s.migrate(ctx, schema, keepUnnamed(asked)); err != nil {
			return err
		}
		if err := s.current(); err != nil {
			return err
		}
		after, err := e.readTableSchemas()
		if err != nil {
			return err
		}
		if err := e.setMetaText(metaAsked, schema); err != nil {
			return err
		}
		generation, err := e.nextGeneration(before.Generation)
		if err != nil {
			return err
		}
		if report.MadeAgain, err = e.madeAgain(before.Tables, after); err != nil {
			return err
		}
		if _, err := e.changedTo(before, after, generation); err != nil {
			return err
		}
		return end
	})
	if err != nil && !errors.Is(err, errPlanned) {
		return MigrateReport{}, err
	}
	return report, err
}

// keepUnnamed keeps what a schema does not name.
func keepUnnamed(schema string) *keeper {
	var shape *schemaShape
	if w, err := readWanted(schema); err == nil {
		shape = w.shape
	} else {
		shape = &schemaShape{}
	}
	return &keeper{
		table: func(name string, _ bool) bool { return shape.tables[strings.ToLower(name)] == nil },
		column: func(table, col string) bool {
			t := shape.tables[strings.ToLower(table)]
			return t == nil || t.column(col) == nil
		},
		index: func(name string) bool {
			o := schemaObject{kind: "index", name: name}
			_, named := shape.objects[o.key()]
			return !named
		},
	}
}

// nextGeneration returns the generation of a schema that is made now, at a database whose own is current.
func (e *engine) nextGeneration(current int64) (int64, error) {
	seen, err := e.metaNumber(metaSeen)
	return min(max(current, seen)+1, MaxGeneration), err
}

// changedTo records that the schema before became the tables after, of that generation, and what was dropped on the way.
// It does nothing, and returns false, where both are the same to others.
func (e *engine) changedTo(before Schema, after []TableSchema, generation int64) (bool, error) {
	there, was := namesOf(after), namesOf(before.Tables)
	dropped := 0
	for name := range was {
		if !there[name] {
			dropped++
			if err := e.setMeta(metaDropped+name, generation); err != nil {
				return false, err
			}
		}
	}
	for name := range there {
		if !was[name] {
			if err := e.exec("DELETE FROM main.crmesh_meta WHERE key = ?", metaDropped+name); err != nil {
				return false, err
			}
		}
	}
	if changeset.SchemaHash(after) == before.Hash {
		return false, nil
	}
	if err := e.setMeta(metaGeneration, generation); err != nil {
		return false, err
	}
	return true, e.raiseMeta(metaSeen, generation)
}

// madeAgain returns which of the tables, and of the columns of tables that stayed, have come and were dropped here on purpose before.
func (e *engine) madeAgain(before, after []TableSchema) ([]string, error) {
	var again []string
	was := namesOf(before)
	for _, t := range after {
		names := []string{droppedName(t.Name, "")}
		if was[names[0]] {
			for _, c := range t.Columns {
				names = append(names, droppedName(t.Name, c.Name))
			}
		}
		for _, name := range names {
			if was[name] {
				continue
			}
			dropped, err := e.metaNumber(metaDropped + name)
			if err != nil {
				return nil, err
			}
			if dropped > 0 {
				again = append(again, name)
			}
		}
	}
	return again, nil
}

// namesOf returns the names of tables and of columns, in quotes, so that none of the one kind is one of the other.
func namesOf(tables []TableSchema) map[string]bool {
	names := make(map[string]bool)
	for _, t := range tables {
		names[droppedName(t.Name, "")] = true
		for _, c := range t.Columns {
			names[droppedName(t.Name, c.Name)] = true
		}
	}
	return names
}

// droppedName names a column, or a table if the column is empty.
func droppedName(table, column string) string {
	if column == "" {
		return ident(table)
	}
	return ident(table) + "." + ident(column)
}

func (e *engine) raiseMeta(key string, n int64) error {
	return e.exec("INSERT INTO main.crmesh_meta VALUES (?, ?) ON CONFLICT DO UPDATE SET value = max(value, excluded.value)", key, n)
}

func (e *engine) setMetaText(key, text string) error {
	return e.exec("INSERT INTO main.crmesh_meta VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", key, text)
}

// SchemaStatements returns those statements of a script that describe a schema, as Migrate takes them, and how many others
// there are. It checks no more than what they begin with.
func SchemaStatements(script string) (schema string, others int, err error) {
	var text strings.Builder
	scanner := newSQLScanner(script)
	for {
		st, ok, err := scanner.next()
		if err != nil {
			return "", 0, fmt.Errorf("read the script: %w", err)
		}
		if !ok {
			return text.String(), others, nil
		}
		if !st.describes() {
			others++
			continue
		}
		text.WriteString(st.sql)
		text.WriteString(";\n")
	}
}

// describes reports whether a statement may be part of a schema.
func (s *sqlStatement) describes() bool {
	switch {
	case s.explain:
		return false
	case s.word(0) == "SELECT":
		w := wantedSchema{crrs: make(map[string]bool), orders: make(map[string]bool)}
		_, err := w.readCalls(s)
		return err == nil
	case s.word(0) != "CREATE":
		return false
	}
	switch s.word(1) {
	case "TABLE", "INDEX", "UNIQUE", "VIEW", "TRIGGER":
		return true
	}
	return false
}
