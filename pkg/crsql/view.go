package crsql

import (
	"strings"
)

// maxArms bounds the SELECTs that stand side by side in crsql_changes: SQLite takes 500 in one compound.
const maxArms = 400

// ensureView makes crsql_changes anew on this connection if the schema has changed since it was made. It is a temporary
// view, which belongs to the connection: each table's clocks joined with what they are about, one SELECT a CRR, so that
// a condition on db_version is an index search in each of them.
func (e *engine) ensureView() error {
	if err := e.refresh(); err != nil {
		return err
	}
	if e.viewSchema == e.schemaVersion {
		return nil
	}
	if err := e.dropView(); err != nil {
		return err
	}
	err := e.temporarily(
		e.viewSQL(),
		`CREATE TEMP TRIGGER crsql_changes_insert INSTEAD OF INSERT ON crsql_changes BEGIN SELECT `+mergeFunction+
			`(NEW."table", NEW.pk, NEW.cid, NEW.val, NEW.col_version, NEW.db_version, NEW.site_id, NEW.cl, NEW.seq); END`,
	)
	if err == nil {
		e.viewSchema = e.schemaVersion
	}
	return err
}

// dropView makes crsql_changes forget the tables. SQLite refuses to alter any table while a view would be left without
// what it names. IF EXISTS would not do: where there is a virtual table of that name (vtab_changes.go), SQLite would take
// that instead, and refuse.
func (e *engine) dropView() error {
	e.viewSchema = unknown
	there, err := e.query("SELECT 1 FROM sqlite_temp_master WHERE type = 'view' AND name = 'crsql_changes'")
	if err != nil || len(there) == 0 {
		return err
	}
	return e.temporarily("DROP VIEW temp.crsql_changes")
}

// temporarily runs statements on temporary objects. They are no writes to the database: they are allowed where those are
// forbidden, and not announced.
func (e *engine) temporarily(statements ...string) error {
	readOnly, err := e.query("PRAGMA query_only")
	if err != nil {
		return err
	}
	if readOnly[0][0] == int64(1) {
		if err := e.exec("PRAGMA query_only=0"); err != nil {
			return err
		}
		defer func() { _ = e.exec("PRAGMA query_only=1") }() // cannot fail where =0 did not
	}
	quiet := e.quiet
	e.quiet = true
	defer func() { e.quiet = quiet }()
	for _, sql := range statements {
		if err := e.exec(sql); err != nil {
			return err
		}
	}
	return nil
}

// changesColumns are the columns of crsql_changes.
const changesColumns = `"table", pk, cid, val, col_version, db_version, site_id, cl, seq`

func (e *engine) viewSQL() string {
	return "CREATE TEMP VIEW crsql_changes(" + changesColumns + ") AS " + e.allChangesSQL(func(int) string { return "" }) + " ORDER BY 6, 9"
}

// allChangesSQL returns the SELECT for the changes of all CRRs. Before the columns of crsql_changes each row has what
// extra returns for the CRR with an index in the engine's order: nothing, or expressions with a comma behind each.
func (e *engine) allChangesSQL(extra func(i int) string) string {
	arms := make([]string, len(e.order))
	for i, t := range e.order {
		arms[i] = t.changesSQL(extra(i))
	}
	if len(arms) == 0 {
		return "SELECT NULL" + strings.Repeat(", NULL", 8+strings.Count(extra(0), ",")) + " WHERE 0"
	}
	for len(arms) > maxArms {
		var groups []string
		for start := 0; start < len(arms); start += maxArms {
			group := arms[start:min(start+maxArms, len(arms))]
			groups = append(groups, "SELECT * FROM ("+strings.Join(group, " UNION ALL ")+")")
		}
		arms = groups
	}
	return strings.Join(arms, " UNION ALL ")
}

// changesSQL returns the SELECT for the changes of t, as c. The columns begin with extra.
func (t *table) changesSQL(extra string) string {
	val := "NULL"
	if len(t.cols) > 0 {
		var b strings.Builder
		b.WriteString("CASE c.col_name")
		for _, col := range t.cols {
			b.WriteString(" WHEN " + literal(col) + " THEN t." + ident(col))
		}
		b.WriteString(" END")
		val = b.String()
	}
	return "SELECT " + extra + literal(t.name) + ", crsql_pack_columns(" + idents("k.", t.pks, ",") + "), c.col_name, " + val +
		", c.col_version, c.db_version, s.site_id, coalesce(l.col_version, 1), c.seq" +
		" FROM " + t.clock() + " AS c" +
		" JOIN " + t.keys() + " AS k ON k.__crsql_key = c.key" +
		" LEFT JOIN main.crsql_site_id AS s ON s.ordinal = c.site_id" +
		" LEFT JOIN " + t.clock() + " AS l ON l.key = c.key AND l.col_name = " + sentinel +
		" LEFT JOIN " + t.base() + " AS t ON " + equalColumns("t", "k", t.pks)
}
