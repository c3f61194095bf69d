package crsql

import (
	"errors"
	"fmt"
	"strings"
)

// automigrate is crsql_automigrate(schema [, cleanup]): it makes the database look like the schema. Tables, columns and
// indexes that the schema lacks are dropped, those that it has besides are created. It does all or nothing.
//
// The stock engine runs cleanup on the private database that it tries the schema on. That has to be finalized there, and
// not here: cleanup is accepted and does nothing.
func (e *engine) automigrate(args []any) (any, error) {
	if len(args) != 1 && len(args) != 2 {
		return nil, errors.New("give the schema as a text")
	}
	var schema string
	switch arg := args[0].(type) {
	case string:
		schema = arg
	default: // nothing would drop all tables
		return nil, errors.New("give the schema as a text; an empty text drops all tables")
	}
	wanted, err := readWanted(schema)
	if err != nil {
		return nil, err
	}
	e.migrated = MigrateReport{}
	err = e.alter("automigrate_tables", func() error {
		m, err := e.planMigration(wanted)
		if err != nil {
			return err
		}
		e.migrated.Ignored = m.ignored
		if err := e.dropView(); err != nil {
			return err
		}
		if err := e.applyMigration(m); err != nil {
			return err
		}
		return e.applySteps(wanted)
	})
	return "migration complete", err
}

// applyMigration drops what the wanted schema lacks, and changes the tables that both have.
func (e *engine) applyMigration(m *migration) error {
	for _, o := range m.drop {
		if err := e.exec("DROP " + strings.ToUpper(o.kind) + " IF EXISTS main." + ident(o.name)); err != nil { // triggers go with their views
			return fmt.Errorf("drop the %s %q: %w", o.kind, o.name, err)
		}
		if o.kind == "table" {
			e.migrated.TablesDropped = append(e.migrated.TablesDropped, o.name)
		}
	}
	for i := range m.changes {
		if err := e.changeTable(&m.changes[i]); err != nil {
			return err
		}
	}
	return nil
}

func (e *engine) changeTable(c *tableChange) error {
	// First what would keep a column from being dropped.
	for _, index := range c.dropIndexes {
		if err := e.exec("DROP INDEX main." + ident(index)); err != nil {
			return fmt.Errorf("drop the index %q: %w", index, err)
		}
		e.migrated.IndexesDropped = append(e.migrated.IndexesDropped, index)
	}
	if c.unorder {
		for _, o := range orderObjects(c.name) {
			if err := e.exec("DROP " + strings.ToUpper(o.kind) + " IF EXISTS main." + ident(o.name)); err != nil {
				return err
			}
		}
	}
	if len(c.dropColumns) == 0 && len(c.addColumns) == 0 {
		return nil
	}
	if c.crr {
		if err := e.dropTriggers(c.name); err != nil {
			return err
		}
	}
	for _, col := range c.dropColumns {
		if err := e.exec("ALTER TABLE main." + ident(c.name) + " DROP COLUMN " + ident(col)); err != nil {
			return fmt.Errorf("drop the column %q of %q: %w", col, c.name, err)
		}
		e.migrated.ColumnsDropped = append(e.migrated.ColumnsDropped, c.name+"."+col)
	}
	for i, col := range c.addColumns {
		if err := e.exec("ALTER TABLE main." + ident(c.name) + " ADD COLUMN " + c.definitions[i]); err != nil {
			return fmt.Errorf("add the column %q to %q: %w; give it a constant default, or %s", col, c.name, err, c.remake())
		}
		e.migrated.ColumnsAdded = append(e.migrated.ColumnsAdded, c.name+"."+col)
	}
	if c.crr {
		return e.refit(c.name)
	}
	return nil
}

// applySteps runs the statements of the schema whose objects are not there, and makes its calls.
func (e *engine) applySteps(w *wantedSchema) error {
	have, err := readShape(e.sqlite)
	if err != nil {
		return err
	}
	for i := range w.steps {
		step := &w.steps[i]
		if step.function != "" {
			err = e.call(step)
		} else if _, ok := have.objects[step.object.key()]; !ok {
			err = e.create(step)
		}
		if err != nil {
			return fmt.Errorf("line %d of the schema: %w", step.line, err)
		}
	}
	// A later statement may have given a CRR a UNIQUE index.
	for name := range w.crrs {
		if _, err := e.eligible(name); err != nil {
			return err
		}
	}
	return nil
}

func (e *engine) create(step *schemaStep) error {
	if err := e.exec(step.sql); err != nil {
		return err
	}
	switch step.object.kind {
	case "table":
		e.migrated.TablesCreated = append(e.migrated.TablesCreated, step.object.name)
	case "index":
		e.migrated.IndexesCreated = append(e.migrated.IndexesCreated, step.object.name)
	default:
		e.migrated.Others = append(e.migrated.Others, step.object.name)
	}
	return nil
}

// call makes a call of the schema.
func (e *engine) call(step *schemaStep) error {
	args := make([]string, len(step.args))
	for i, arg := range step.args {
		args[i] = literal(arg)
	}
	before := false
	table := step.args[len(step.args)-1]
	if step.function == "crsql_as_crr" {
		var err error
		if before, err = e.hasTriggers(table); err != nil {
			return err
		}
	}
	if err := e.exec("SELECT " + step.function + "(" + strings.Join(args, ", ") + ")"); err != nil {
		return err
	}
	if step.function == "crsql_as_crr" && !before {
		e.migrated.CRRs = append(e.migrated.CRRs, table)
	}
	return nil
}
