package crsql

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"

	"github.com/mattn/go-sqlite3"
)

// asCRR is crsql_as_crr([schema,] table): it makes an ordinary table a CRR. Doing it again changes nothing.
func (e *engine) asCRR(args []any) (any, error) {
	name, err := tableArgument(args)
	if err != nil {
		return nil, err
	}
	return "OK", e.alter("as_crr", func() error { return e.createCRR(name) })
}

// createCRR makes the table a CRR, if it is none.
func (e *engine) createCRR(name string) error {
	name, err := e.eligible(name)
	if err != nil {
		return err
	}
	if name, err = e.clockName(name); err != nil {
		return err
	}
	triggers, err := e.query("SELECT 1 FROM main.sqlite_master WHERE type = 'trigger' AND name = ?", name+"__crsql_itrig")
	if err != nil || len(triggers) > 0 {
		return err
	}
	t, err := e.readTable(name)
	if err != nil {
		return err
	}
	for _, sql := range append(dropTriggersSQL(name), t.schemaSQL()...) {
		if err := e.exec(sql); err != nil {
			return err
		}
	}
	e.outdate() // the table has joined the CRRs
	return e.backfill(t)
}

// clockName returns the name of a table as its clocks spell it, if there are any: the stock engine takes the name that
// it was given, in whatever case.
func (e *engine) clockName(name string) (string, error) {
	rows, err := e.query("SELECT name FROM main.sqlite_master WHERE type = 'table' AND name = ? COLLATE NOCASE", name+clockSuffix)
	if err != nil || len(rows) == 0 {
		return name, err
	}
	if spelled, ok := strings.CutSuffix(toText(rows[0][0]), clockSuffix); ok {
		return spelled, nil
	}
	return name, nil
}

// asTable is crsql_as_table(table): it makes a CRR an ordinary table again, and drops its clocks.
func (e *engine) asTable(args []any) (any, error) {
	name := toText(args[0])
	err := e.alter("as_table", func() error {
		rows, err := e.query("SELECT name FROM main.sqlite_master WHERE type = 'table' AND name = ? COLLATE NOCASE", name)
		if err != nil {
			return err
		}
		if len(rows) > 0 {
			name = toText(rows[0][0])
		}
		clocks, err := e.query("SELECT 1 FROM main.sqlite_master WHERE type = 'table' AND name = ? COLLATE NOCASE", name+clockSuffix)
		if err != nil {
			return err
		}
		if len(clocks) > 0 {
			if err := e.keepVersion(); err != nil {
				return err
			}
			e.stmts.release()
		}
		for _, sql := range append(dropTriggersSQL(name),
			"DROP TABLE IF EXISTS main."+ident(name+clockSuffix),
			"DROP TABLE IF EXISTS main."+ident(name+pksSuffix),
		) {
			if err := e.exec(sql); err != nil {
				return err
			}
		}
		return nil
	})
	return nil, err
}

// alter runs f, which changes the schema, in a savepoint that it undoes if f fails, and brings crsql_changes up to date.
func (e *engine) alter(savepoint string, f func() error) error {
	if err := e.savepoint(savepoint); err != nil {
		return err
	}
	err := f()
	if err == nil {
		e.outdate()
		err = e.ensureView()
	}
	if err == nil {
		err = e.exec("RELEASE " + savepoint)
	}
	if err != nil {
		err = errors.Join(err, e.undo(savepoint))
	}
	return err
}

// savepoint opens a savepoint for changes of the schema.
func (e *engine) savepoint(name string) error {
	if err := e.exec("SAVEPOINT " + name); err != nil {
		return fmt.Errorf("the schema cannot be changed here, use a SELECT of its own: %w", err)
	}
	e.stmts.release() // a table cannot be dropped while a statement looks at it
	return nil
}

// undo undoes what was done since a savepoint was opened, and ends it. If a cancelled context keeps it from that, it is
// done when the statement that runs has ended.
func (e *engine) undo(savepoint string) error {
	err := e.exec("ROLLBACK TO " + savepoint)
	e.readInTx = true
	e.forget()
	if err == nil {
		err = e.exec("RELEASE " + savepoint)
		var code sqlite3.Error
		if errors.As(err, &code) && code.Code == sqlite3.ErrBusy { // it is the whole transaction, which cannot commit for others
			err = e.exec("ROLLBACK")
		}
	}
	if err != nil {
		e.unfinished = append(e.unfinished, savepoint)
	}
	return err
}

// finishUndo undoes what undo could not: within a statement that is interrupted everything is, and as long as rows are open
// beside it.
func (e *engine) finishUndo() error {
	unfinished := e.unfinished
	e.unfinished = nil
	for i, savepoint := range unfinished {
		if e.sqlite.AutoCommit() {
			return nil // SQLite has rolled all back
		}
		if err := e.undo(savepoint); isInterrupt(err) { // again: rows are open beside it
			e.unfinished = unfinished[i:]
			return fmt.Errorf("undo what was interrupted: %w", err)
		} else if err != nil {
			e.unfinished = unfinished[i+1:]
			return err
		}
	}
	return nil
}

func dropTriggersSQL(name string) []string {
	var sql []string
	for _, suffix := range []string{"__crsql_itrig", "__crsql_utrig", "__crsql_dtrig"} {
		sql = append(sql, "DROP TRIGGER IF EXISTS main."+ident(name+suffix))
	}
	return sql
}

// schemaSQL returns what makes t a CRR. The texts are cr-sqlite's, blanks and all: sqlite_master keeps them.
func (t *table) schemaSQL() []string {
	value := literal(t.name)
	pks := idents("", t.pks, ",")
	newPKs, oldPKs := idents("NEW.", t.pks, ","), idents("OLD.", t.pks, ",")
	updated := value + ", " + newPKs + ", " + oldPKs
	if len(t.cols) > 0 {
		updated += ", " + idents("NEW.", t.cols, ",") + ", " + idents("OLD.", t.cols, ",")
	}
	clock, keys := ident(t.name+clockSuffix), ident(t.name+pksSuffix)
	return []string{
		"CREATE TABLE IF NOT EXISTS " + clock + ` (
      key INTEGER NOT NULL,
      col_name TEXT NOT NULL,
      col_version INTEGER NOT NULL,
      db_version INTEGER NOT NULL,
      site_id INTEGER NOT NULL DEFAULT 0,
      seq INTEGER NOT NULL,
      PRIMARY KEY (key, col_name)
    ) WITHOUT ROWID, STRICT`,
		"CREATE INDEX IF NOT EXISTS " + ident(t.name+clockSuffix+"_dbv_idx") + " ON " + clock + ` ("db_version")`,
		"CREATE TABLE IF NOT EXISTS " + keys + " (__crsql_key INTEGER PRIMARY KEY, " + pks + ")",
		"CREATE UNIQUE INDEX IF NOT EXISTS " + ident(t.name+pksSuffix+"_pks") + " ON " + keys + " (" + pks + ")",
		"CREATE TRIGGER " + ident(t.name+"__crsql_itrig") + `
      AFTER INSERT ON ` + ident(t.name) + ` WHEN crsql_internal_sync_bit() = 0
      BEGIN
        VALUES (crsql_after_insert(` + value + ", " + newPKs + `));
      END`,
		"CREATE TRIGGER " + ident(t.name+"__crsql_utrig") + `
      AFTER UPDATE ON ` + ident(t.name) + ` WHEN crsql_internal_sync_bit() = 0
      BEGIN
        VALUES (crsql_after_update(` + updated + `));
      END`,
		"CREATE TRIGGER " + ident(t.name+"__crsql_dtrig") + `
    AFTER DELETE ON ` + ident(t.name) + ` WHEN crsql_internal_sync_bit() = 0
    BEGIN
      VALUES (crsql_after_delete(` + value + ", " + oldPKs + `));
    END`,
	}
}

// backfill gives the rows that the table holds already their keys and clocks, as if they were inserted now.
func (e *engine) backfill(t *table) error {
	pks := idents("", t.pks, ", ")
	unknown := "SELECT " + idents("+", t.pks, ", ") + " FROM " + t.base() + " EXCEPT SELECT " + pks + " FROM " + t.keys()
	if err := e.backfillRows(t, t.all, unknown); err != nil {
		return err
	}
	// Clocks that outlived an earlier table may say that a row of this one is deleted: it has been inserted again. The
	// stock engine leaves it deleted for everybody else.
	if err := e.reviveRows(t); err != nil {
		return err
	}
	// They may also lack some of this table's columns. A default needs none.
	for i, col := range t.cols {
		missing, def, err := e.missingClock(t, col)
		if err != nil {
			return err
		}
		if err := e.backfillRows(t, strings.Repeat("\x00", i)+"\x01", missing, def...); err != nil {
			return err
		}
	}
	return nil
}

// fromRowsWithKeys returns the FROM of the rows of the table, as t, that have a short key, in k.
func (t *table) fromRowsWithKeys() string {
	on := make([]string, len(t.pks))
	for i, pk := range t.pks {
		on[i] = "t." + ident(pk) + " = k." + ident(pk)
	}
	return " FROM " + t.base() + " AS t JOIN " + t.keys() + " AS k ON " + strings.Join(on, " AND ")
}

// reviveRows gives the rows of the table whose sentinel says that they are deleted the next causal length.
func (e *engine) reviveRows(t *table) error {
	st, err := prepare(e.sqlite, "SELECT k.__crsql_key"+t.fromRowsWithKeys()+" JOIN "+t.clock()+
		" AS c ON c.key = k.__crsql_key AND c.col_name = "+sentinel+" AND c.col_version % 2 = 0")
	if err != nil {
		return err
	}
	defer st.close()
	return st.each(nil, func(row []driver.Value) error {
		version, err := e.nextVersion(0)
		if err != nil {
			return err
		}
		return e.runLocal(stmtRecreated, t, "", row[0].(int64), version, e.nextSeq(1))
	})
}

// backfillRows writes the clocks of the columns that cols marks, or the sentinel of a table without other columns, for
// each primary key that the query gives.
func (e *engine) backfillRows(t *table, cols, query string, args ...driver.Value) error {
	st, err := prepare(e.sqlite, query)
	if err != nil {
		return err
	}
	defer st.close()
	return st.each(args, func(row []driver.Value) error {
		pk := append([]driver.Value(nil), row...)
		key, err := e.findKey(t, pk, true)
		if err != nil {
			return err
		}
		version, err := e.nextVersion(0)
		if err != nil {
			return err
		}
		if len(t.cols) == 0 {
			return e.runLocal(stmtBackfillSentinel, t, "", key, version, e.nextSeq(1))
		}
		return e.runLocal(stmtBackfill, t, cols, key, version, e.nextSeq(count(cols)))
	})
}
