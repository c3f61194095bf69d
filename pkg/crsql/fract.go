package crsql

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
)

// A fractIndex is a table whose rows are kept in an order that a column of fractional keys gives (fractkey.go), one list
// for each value of the list's columns.
//
// What keeps the order are triggers: -1 or 1 written to the column puts a row first or last, and a view with the columns
// after_<key> takes an insert or an update of a row that is to follow another.
type fractIndex struct {
	table string
	order string   // the column of keys
	list  []string // the columns that tell one list from another; none if the table is one list
	pks   []string // the columns of the primary key, in its order
	cols  []string // all columns but generated ones
	rowid bool     // the table has rowids
}

// asOrdered is crsql_fract_as_ordered(table, column of keys, list's columns...). Doing it again replaces what it made.
func (e *engine) asOrdered(args []any) (any, error) {
	if len(args) < 2 {
		return nil, errors.New("give the name of the table and of the column to order by, and the columns that tell one list from another")
	}
	return nil, e.alter("as_ordered", func() error {
		f, err := e.readFractIndex(args)
		if err != nil {
			return err
		}
		for _, sql := range f.schemaSQL() {
			if err := e.exec(sql); err != nil {
				return err
			}
		}
		return nil
	})
}

// readFractIndex reads the columns of the table that asOrdered is called for.
func (e *engine) readFractIndex(args []any) (*fractIndex, error) {
	f := &fractIndex{table: toText(args[0]), order: toText(args[1])}
	for _, arg := range args[2:] {
		f.list = append(f.list, toText(arg))
	}
	kind, err := e.query("SELECT type, wr FROM pragma_table_list(?) WHERE schema = 'main'", f.table)
	if err != nil {
		return nil, err
	}
	if len(kind) == 0 {
		return nil, fmt.Errorf("there is no table %q: create it first", f.table)
	}
	if kind[0][0] != "table" {
		return nil, fmt.Errorf("%q is a %s: only ordinary tables can be ordered", f.table, toText(kind[0][0]))
	}
	f.rowid = kind[0][1] == int64(0)
	t, err := e.readTable(f.table)
	if err != nil {
		return nil, err
	}
	if len(t.pks) == 0 {
		return nil, fmt.Errorf("the table %q has no primary key, by which a row could be named that another is to follow: declare one", f.table)
	}
	f.pks = t.pks
	rows, err := e.query("SELECT name FROM pragma_table_info(?, 'main') ORDER BY cid", f.table)
	if err != nil {
		return nil, err
	}
	known := make(map[string]bool)
	for _, row := range rows {
		f.cols = append(f.cols, toText(row[0]))
		known[toText(row[0])] = true
	}
	for _, name := range append([]string{f.order}, f.list...) {
		if !known[name] {
			return nil, fmt.Errorf("the table %q has no column %q, or it was given twice: give each column once, spelled as in CREATE TABLE", f.table, name)
		}
		known[name] = false
	}
	return f, nil
}

// schemaSQL returns what makes the table ordered. The texts are cr-sqlite's, blanks and all: sqlite_master keeps them.
func (f *fractIndex) schemaSQL() []string {
	pending, move := ident("__crsql_"+f.table+"_fractindex_pend_trig"), ident("__crsql_"+f.table+"_fractindex_ezmove")
	table, order, view := ident(f.table), ident(f.order), ident(f.table+"_fractindex")
	ends := " AND " + order + " != -1 AND " + order + " != 1"
	lowest := "SELECT MIN(" + order + ") FROM " + table + " WHERE " + newRow(f.list) + ends
	highest := "SELECT MAX(" + order + ") FROM " + table + " WHERE " + newRow(f.list) + ends
	row := "_rowid_ = NEW._rowid_"
	if !f.rowid {
		row = newRow(f.pks)
	}
	var after, follows, given []string
	for _, pk := range f.pks {
		after = append(after, "NULL AS "+ident("after_"+pk))
		follows = append(follows, ident(pk)+" = NEW."+ident("after_"+pk))
		given = append(given, "NEW."+ident("after_"+pk))
	}
	var others, sets []string
	for _, col := range f.cols {
		if col != f.order {
			others = append(others, col)
			sets = append(sets, ident(col)+" = NEW."+ident(col))
		}
	}
	predecessor := strings.Join(follows, " AND ")
	conflict := "crsql_fract_fix_conflict_return_old_key(\n" +
		"                    " + strings.Join([]string{literal(f.table), literal(f.order), separated(f.list) + "-1", literals(f.pks), strings.Join(given, ", ")}, ", ") + "\n"
	return []string{
		"DROP TRIGGER IF EXISTS main." + pending,
		"DROP TRIGGER IF EXISTS main." + move, // or it would go on with the column of an earlier call
		"DROP VIEW IF EXISTS main." + view,
		"CREATE TRIGGER main." + pending + " AFTER INSERT ON " + table + `
        WHEN CAST(NEW.` + order + " AS INTEGER) = -1 OR CAST(NEW." + order + ` AS INTEGER) = 1 BEGIN
            UPDATE ` + table + " SET " + order + " = CASE CAST(NEW." + order + ` AS INTEGER)
            WHEN -1 THEN crsql_fract_key_between(NULL, (` + lowest + `))
            WHEN 1 THEN crsql_fract_key_between((` + highest + `), NULL)
            END
            WHERE ` + row + `;
        END`,
		"CREATE TRIGGER main." + move + " AFTER UPDATE OF " + order + " ON " + table + `
      WHEN NEW.` + order + " = -1 OR NEW." + order + ` = 1 BEGIN
        UPDATE ` + table + " SET " + order + " = CASE NEW." + order + `
        WHEN -1 THEN crsql_fract_key_between(NULL, (` + lowest + `))
        WHEN 1 THEN crsql_fract_key_between((` + highest + `), NULL)
        END
        WHERE ` + row + `;
      END`,
		"CREATE VIEW main." + view + ` AS
        SELECT *, ` + strings.Join(after, ", ") + `
        FROM ` + table,
		"CREATE TRIGGER main." + ident(f.table+"_fractindex_insert_trig") + `
        INSTEAD OF INSERT ON ` + view + `
        BEGIN
            INSERT INTO ` + table + `
              (` + idents("", others, ", ") + ", " + order + `)
            VALUES
              (
                ` + idents("NEW.", others, ", ") + `,
                CASE (
                  SELECT count(*) FROM ` + table + " WHERE " + newRow(f.list) + " AND " + order + " = (SELECT " + order + " FROM " + table + " WHERE " + predecessor + `)
                )
                  WHEN 1 THEN crsql_fract_key_between(
                    (SELECT ` + order + " FROM " + table + " WHERE " + predecessor + `),
                    (SELECT ` + order + " FROM " + table + " WHERE " + newRow(f.list) + " AND " + order + ` >
                      (SELECT ` + order + " FROM " + table + " WHERE " + predecessor + `)
                    ORDER BY ` + order + ` ASC LIMIT 1)
                  )
                  WHEN 0 THEN -1
                  ELSE ` + conflict + `                  )
                END
              );
        END`,
		"CREATE TRIGGER main." + ident(f.table+"_fractindex_update_trig") + `
      INSTEAD OF UPDATE ON ` + view + `
      BEGIN
        UPDATE ` + table + ` SET
          ` + strings.Join(sets, ",\n") + `,
          ` + order + ` = CASE (
            SELECT count(*) FROM ` + table + " WHERE " + newRow(f.list) + " AND " + order + ` = (
              SELECT ` + order + " FROM " + table + " WHERE " + predecessor + `
            )
          )
          WHEN 1 THEN crsql_fract_key_between(
            (SELECT ` + order + " FROM " + table + " WHERE " + predecessor + `),
            (SELECT ` + order + " FROM " + table + " WHERE " + newRow(f.list) + " AND " + order + ` > (
              SELECT ` + order + " FROM " + table + " WHERE " + predecessor + `
            ) ORDER BY ` + order + ` ASC LIMIT 1)
          )
          WHEN 0 THEN -1
          ELSE ` + strings.Replace(conflict, "                    ", "            ", 1) + `          )
          END
        WHERE ` + newRow(f.pks) + `;
      END`,
	}
}

// newRow returns the condition that columns are those of a trigger's new row.
func newRow(names []string) string {
	if len(names) == 0 {
		return "1"
	}
	conditions := make([]string, len(names))
	for i, name := range names {
		conditions[i] = ident(name) + " = NEW." + ident(name)
	}
	return strings.Join(conditions, " AND ")
}

// literals quotes names as texts.
func literals(names []string) string {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = literal(name)
	}
	return strings.Join(quoted, ", ")
}

// separated is literals with a comma after each, and one blank more than it needs: the stock engine's text.
func separated(names []string) string {
	if len(names) == 0 {
		return " "
	}
	return literals(names) + ",  "
}

// fractKeyBetween is crsql_fract_key_between(low, high).
func fractKeyBetween(low, high any) (any, error) {
	var keys [2]string
	for i, arg := range []any{low, high} {
		key, null, err := fractArgument(arg)
		if err != nil {
			return nil, err
		}
		if !null {
			keys[i] = key
		}
	}
	key, err := fractBetween(keys[0], keys[1])
	if err != nil {
		return nil, err
	}
	return key, nil
}

// fractArgument reads a function's argument as a key, and reports whether it is NULL.
func fractArgument(v any) (key string, null bool, err error) {
	switch v := v.(type) {
	case string:
		key = v
	case []byte:
		if v == nil {
			return "", true, nil
		}
		key = string(v)
	default:
		key = fmt.Sprint(v)
	}
	return key, false, fractCheck(key)
}

// fractFixConflict is crsql_fract_fix_conflict_return_old_key(table, column of keys, list's columns..., -1, names of the
// key's columns..., their values...). The view's triggers call it where a row is to follow one that shares its place with
// others, as happens when two databases insert at the same place: it moves that one down, in front of the others, and
// returns a key between it and them.
func (e *engine) fractFixConflict(args []any) (any, error) {
	if len(args) < 4 {
		return nil, errors.New("give the table, the column of keys, the list's columns, -1, the names of the key's columns and their values")
	}
	table, order := toText(args[0]), toText(args[1])
	list, rest := []string(nil), args[2:]
	for len(rest) > 0 {
		if _, ok := rest[0].(int64); ok {
			break
		}
		list, rest = append(list, toText(rest[0])), rest[1:]
	}
	if len(rest) < 3 || len(rest)%2 == 0 {
		return nil, errors.New("after -1 there is a value for each name of the key's columns, and one at least")
	}
	rest = rest[1:]
	pks, values := make([]string, len(rest)/2), make([]driver.Value, len(rest)/2)
	for i := range pks {
		pks[i], values[i] = toText(rest[i]), rest[len(pks)+i]
	}
	from, row := "main."+ident(table), idents("", pks, " = ? AND ")+" = ?"
	rows, err := e.query("SELECT +"+ident(order)+" FROM "+from+" WHERE "+row, values...)
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("the table %q has no row with the key %v that another could follow", table, values)
	}
	target, null, err := fractArgument(rows[0][0])
	if err == nil && null {
		err = errors.New("the row that another is to follow has no place itself: write -1 or 1 to its column " + ident(order))
	}
	if err != nil {
		return nil, err
	}
	before, err := e.fractLower(table, order, list, row, values, target)
	if err != nil {
		return nil, err
	}
	moved, err := fractBetween(before, target)
	if err != nil {
		return nil, err
	}
	if err := e.exec("UPDATE "+from+" SET "+ident(order)+" = ? WHERE "+row, append([]driver.Value{moved}, values...)...); err != nil {
		return nil, err
	}
	key, err := fractBetween(moved, target)
	if err != nil {
		return nil, err
	}
	return key, nil
}

// fractLower returns the highest key below target in the list of the row with the values of a key; "" if there is none.
func (e *engine) fractLower(table, order string, list []string, row string, values []driver.Value, target string) (string, error) {
	from := "main." + ident(table) + " AS o"
	var args []driver.Value
	if len(list) > 0 {
		on := make([]string, len(list))
		for i, col := range list {
			on[i] = "o." + ident(col) + " = l." + ident(col)
		}
		from += " JOIN (SELECT " + idents("", list, ", ") + " FROM main." + ident(table) + " WHERE " + row + ") AS l ON " + strings.Join(on, " AND ")
		args = append(args, values...)
	}
	column := "o." + ident(order)
	rows, err := e.query("SELECT +"+column+" FROM "+from+" WHERE "+column+" < ? ORDER BY "+column+" DESC LIMIT 1", append(args, target)...)
	if err != nil || len(rows) == 0 {
		return "", err
	}
	before, null, err := fractArgument(rows[0][0])
	if err != nil || null {
		return "", err
	}
	return before, nil
}
