package crsql

import (
	"strconv"
	"strings"
)

// A statementKind says what a prepared statement does.
type statementKind uint8

const (
	stmtSchemaVersion statementKind = iota
	stmtDataVersion
	stmtVersionFloor
	stmtSetting
	stmtMaxVersion
	stmtSiteOrdinal
	stmtNewSite
	stmtFindKey
	stmtNewKey
	stmtFindOrNewKey
	stmtDropKey
	stmtClocks
	stmtRowClocks
	stmtRowState
	stmtAheadClocks
	stmtAheadState
	stmtValues
	stmtCellSite
	stmtInserted
	stmtInsertedNew
	stmtUpdated
	stmtUpdatedOne
	stmtCreated
	stmtRecreated
	stmtDeleted
	stmtDropClocks
	stmtSetClock
	stmtBackfill
	stmtBackfillSentinel
	stmtMergeClocks
	stmtMergeClocksNew
	stmtMergeWrite
	stmtMergeCreate
	stmtMergeDelete
	stmtMergeZero
)

// sentinel is the col_name of a row's sentinel, as SQL.
const sentinel = "'-1'"

// nextOdd is the causal length after a row is created anew: the next odd one.
const nextOdd = "col_version + 1 + col_version % 2"

const clockColumns = " (key, col_name, col_version, db_version, site_id, seq) "

// statement returns the prepared statement that does kind to t, for the columns that cols marks (one byte a column).
func (e *engine) statement(kind statementKind, t *table, cols string) (*statement, error) {
	return e.stmts.get(statementKey{kind: kind, table: t, cols: cols}, func() string { return t.sql(kind, cols) })
}

// sql returns the text of the statement that does kind to t. The order of its parameters is beside it.
func (t *table) sql(kind statementKind, cols string) string {
	const relocal = "db_version = excluded.db_version, seq = excluded.seq, site_id = 0"
	switch kind {
	case stmtFindKey: // pk...
		return "SELECT __crsql_key FROM " + t.keys() + " WHERE " + isParams(t.pks)
	case stmtNewKey: // pk...
		return "INSERT INTO " + t.keys() + " (" + idents("", t.pks, ",") + ") VALUES (" + marks(len(t.pks)) + ")"
	case stmtFindOrNewKey: // pk...; no change if the key is there
		return "INSERT OR IGNORE INTO " + t.keys() + " (" + idents("", t.pks, ",") + ") VALUES (" + marks(len(t.pks)) + ")"
	case stmtDropKey: // key
		return "DELETE FROM " + t.keys() + " WHERE __crsql_key = ?"
	case stmtRowClocks: // pk...
		return t.stateSQL(1, false)
	case stmtRowState: // pk...
		return t.stateSQL(1, true)
	case stmtAheadClocks: // pk... of each row
		return t.stateSQL(aheadRows, false)
	case stmtAheadState: // pk... of each row
		return t.stateSQL(aheadRows, true)
	case stmtClocks: // key
		return "SELECT col_name, col_version FROM " + t.clock() + " WHERE key = ?"
	case stmtValues: // pk...; an expression has no declared type, by which mattn would convert
		return "SELECT " + t.eachColumn(cols, func(_, col int) string { return "+" + ident(t.cols[col]) }) + " FROM " + t.base() + " WHERE " + isParams(t.pks)
	case stmtCellSite: // key, col_name
		return "SELECT s.site_id FROM " + t.clock() + " AS c JOIN main.crsql_site_id AS s ON s.ordinal = c.site_id WHERE c.key = ? AND c.col_name = ?"
	case stmtInsertedNew: // the same for a new key: FAIL, since there is nothing to undo, spares SQLite a journal for the statement
		return "INSERT OR FAIL INTO " + t.clock() + clockColumns + "VALUES " + t.firstClocks(cols)
	case stmtInserted: // key, db_version, first seq
		return "INSERT INTO " + t.clock() + clockColumns + "VALUES " + t.firstClocks(cols) + " ON CONFLICT DO UPDATE SET col_version = " + stepTo("col_version + 1") + ", " + relocal
	case stmtUpdated: // key, db_version, seq; of one column
		return "INSERT INTO " + t.clock() + clockColumns + "VALUES (?1," + literal(cols) + ",1,?2,0,?3)" +
			" ON CONFLICT DO UPDATE SET col_version = " + stepTo("col_version + 1") + ", " + relocal
	case stmtUpdatedOne: // db_version, seq, pk...; the same without the key, if it and the column's clock are there
		return "UPDATE " + t.clock() + " SET col_version = " + stepTo("col_version + 1") +
			", db_version = ?, seq = ?, site_id = 0 WHERE key = (SELECT __crsql_key FROM " + t.keys() + " WHERE " + isParams(t.pks) + ") AND col_name = " + literal(cols)
	case stmtCreated: // key, db_version, seq
		return "INSERT INTO " + t.clock() + clockColumns + "VALUES (?1," + sentinel + ",1,?2,0,?3)" +
			" ON CONFLICT DO UPDATE SET col_version = " + stepTo(nextOdd) + ", " + relocal
	case stmtRecreated: // key, db_version, seq; only if there is a sentinel
		return "UPDATE " + t.clock() + " SET col_version = " + stepTo(nextOdd) + ", db_version = ?2, seq = ?3, site_id = 0 WHERE key = ?1 AND col_name = " + sentinel
	case stmtDeleted: // key, db_version, seq
		return "INSERT INTO " + t.clock() + clockColumns + "VALUES (?1," + sentinel + ",2,?2,0,?3)" +
			" ON CONFLICT DO UPDATE SET col_version = " + stepTo("col_version + 1") + ", " + relocal
	case stmtDropClocks: // key
		return "DELETE FROM " + t.clock() + " WHERE key = ? AND col_name IS NOT " + sentinel
	case stmtSetClock: // key, col_version, db_version, seq; of one column, locally
		return "INSERT OR REPLACE INTO " + t.clock() + clockColumns + "VALUES (?1," + literal(cols) + ",?2,?3,0,?4)"
	case stmtBackfill: // key, db_version, first seq
		return "INSERT OR IGNORE INTO " + t.clock() + clockColumns + "VALUES " + t.firstClocks(cols)
	case stmtBackfillSentinel: // key, db_version, seq
		return "INSERT OR IGNORE INTO " + t.clock() + clockColumns + "VALUES (?1," + sentinel + ",1,?2,0,?3)"
	case stmtMergeClocks, stmtMergeClocksNew: // key, db_version, and for each column col_version, site, seq
		or := "REPLACE"
		if kind == stmtMergeClocksNew {
			or = "FAIL" // as in stmtInsertedNew
		}
		return "INSERT OR " + or + " INTO " + t.clock() + clockColumns + "VALUES " +
			t.eachColumn(cols, func(i, col int) string {
				name := sentinel
				if col < len(t.cols) {
					name = literal(t.cols[col])
				}
				n := 3 + 3*i
				return "(?1," + name + ",?" + strconv.Itoa(n) + ",?2,?" + strconv.Itoa(n+1) + ",?" + strconv.Itoa(n+2) + ")"
			})
	case stmtMergeWrite: // pk..., value of each column
		var names, sets string
		t.eachColumn(cols, func(i, col int) string {
			name := ident(t.cols[col])
			names += "," + name
			if i > 0 {
				sets += ","
			}
			sets += name + "=?" + strconv.Itoa(len(t.pks)+i+1) // excluded would be the row of a table of that name
			return ""
		})
		return "INSERT INTO " + t.base() + " (" + idents("", t.pks, ",") + names + ") VALUES (" + marks(len(t.pks)+count(cols)) +
			") ON CONFLICT DO UPDATE SET " + sets
	case stmtMergeCreate: // pk...
		return "INSERT INTO " + t.base() + " (" + idents("", t.pks, ",") + ") VALUES (" + marks(len(t.pks)) + ") ON CONFLICT DO NOTHING"
	case stmtMergeDelete: // pk...
		return "DELETE FROM " + t.base() + " WHERE " + isParams(t.pks)
	case stmtMergeZero: // key, db_version
		return "UPDATE " + t.clock() + " SET col_version = 0, db_version = ?2 WHERE key = ?1 AND col_name IS NOT " + sentinel
	}
	panic("crsql: a statement kind without text")
}

// firstClocks returns the rows of new clocks for the columns that cols marks: ?1 is the key, ?2 the db_version, ?3 the
// first seq.
func (t *table) firstClocks(cols string) string {
	return t.eachColumn(cols, func(i, col int) string {
		return "(?1," + literal(t.cols[col]) + ",1,?2,0,?3+" + strconv.Itoa(i) + ")"
	})
}

// eachColumn joins what f returns for each column that cols marks: the i-th is the column with index col.
func (t *table) eachColumn(cols string, f func(i, col int) string) string {
	var parts []string
	for col := range len(cols) {
		if cols[col] != 0 {
			parts = append(parts, f(len(parts), col))
		}
	}
	return strings.Join(parts, ",")
}

// count returns how many columns cols marks.
func count(cols string) int { return len(cols) - strings.Count(cols, "\x00") }
