package crsql

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
)

// asCRR is crsql_as_crr([schema,] table): it makes an ordinary table a CRR. Doing it again changes nothing.
func (e *engine) asCRR(args []any) (any, error) {
	if len(args) == 2 && !strings.EqualFold(toText(args[0]), "main") {
		return nil, fmt.Errorf("only tables of the main database can be CRRs, not those of %s", nameText(toText(args[0])))
	}
	if len(args) != 1 && len(args) != 2 {
		return nil, errors.New("give the name of the table, or \"main\" and the name")
	}
	name := toText(args[len(args)-1])
	err := e.alter("as_crr", func() error {
		name, err := e.eligible(name)
		if err != nil {
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
		e.fresh = false // the table has joined the CRRs
		return e.backfill(t)
	})
	return "OK", err
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
	if err := e.exec("SAVEPOINT " + savepoint); err != nil {
		return err
	}
	e.stmts.release() // a table cannot be dropped while a statement looks at it
	err := f()
	if err == nil {
		e.fresh = false
		err = e.ensureView()
	}
	undo := error(nil)
	if err != nil {
		undo = e.exec("ROLLBACK TO " + savepoint)
		e.readInTx = true
		e.forget()
	}
	if undo == nil {
		undo = e.exec("RELEASE " + savepoint)
	}
	if undo != nil {
		e.unfinished = append(e.unfinished, savepoint)
		if err == nil {
			err = undo
		}
	}
	return err
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
	if err := e.backfillRows(t, "SELECT "+idents("+", t.pks, ", ")+" FROM "+t.base()+" EXCEPT SELECT "+pks+" FROM "+t.keys(), t.all); err != nil {
		return err
	}
	// Clocks that outlived an earlier table may say that a row of this one is deleted: it has been inserted again. The
	// stock engine leaves it deleted for everybody else.
	if err := e.reviveRows(t); err != nil {
		return err
	}
	// They may also lack some of this table's columns. A default needs none.
	for i, col := range t.cols {
		missing, err := e.missingClock(t, col)
		if err != nil {
			return err
		}
		if err := e.backfillRows(t, missing, strings.Repeat("\x00", i)+"\x01"); err != nil {
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

// missingClock returns the query for the keys of rows that hold a value in col which is not its default and has no clock.
func (e *engine) missingClock(t *table, col string) (string, error) {
	rows, err := e.query(`SELECT "notnull", dflt_value FROM pragma_table_info(?, 'main') WHERE name = ?`, t.name, col)
	if err != nil {
		return "", err
	}
	sql := "SELECT " + idents("+t.", t.pks, ", ") + t.fromRowsWithKeys() + " LEFT JOIN " + t.clock() + " AS c ON c.key = k.__crsql_key AND c.col_name = " + literal(col) + " WHERE c.key IS NULL"
	switch notNull, def := rows[0][0], rows[0][1]; {
	case def != nil:
		sql += " AND t." + ident(col) + " IS NOT (" + toText(def) + ")"
	case notNull == int64(0):
		sql += " AND t." + ident(col) + " IS NOT NULL"
	}
	return sql, nil
}

// backfillRows writes the clocks of the columns that cols marks, or the sentinel of a table without other columns, for
// each primary key that the query gives.
func (e *engine) backfillRows(t *table, query, cols string) error {
	st, err := prepare(e.sqlite, query)
	if err != nil {
		return err
	}
	defer st.close()
	return st.each(nil, func(row []driver.Value) error {
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
