package crsql

import (
	"fmt"
	"strings"

	"github.com/mattn/go-sqlite3"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// eligible returns the name of a table as it was created, or says why it cannot be a CRR and what to change.
func (e *engine) eligible(name string) (string, error) {
	rows, err := e.query("SELECT name, type, sql FROM main.sqlite_master WHERE type IN ('table', 'view') AND name = ? COLLATE NOCASE", name)
	if err != nil {
		return "", err
	}
	if len(rows) == 0 {
		return "", fmt.Errorf("there is no table %s: create it first", nameText(name))
	}
	name = toText(rows[0][0])
	sql := toText(rows[0][2])
	lower := strings.ToLower(name)
	switch {
	case toText(rows[0][1]) == "view":
		return "", fmt.Errorf("%s is a view: only tables can be CRRs", nameText(name))
	case strings.HasPrefix(lower, "crsql_") || strings.HasPrefix(lower, "sqlite_") ||
		strings.HasSuffix(lower, clockSuffix) || strings.HasSuffix(lower, pksSuffix):
		return "", fmt.Errorf("the name %s belongs to the system: give the table another", nameText(name))
	case strings.Contains(name, "'"):
		return "", fmt.Errorf("the name %s holds a ', and no other cr-sqlite could use the database any more: give the table another", nameText(name))
	case strings.HasPrefix(strings.ToUpper(sql), "CREATE VIRTUAL"):
		return "", fmt.Errorf("%s is a virtual table, which cannot have triggers: only ordinary tables can be CRRs", nameText(name))
	case hasKeyword(sql, "AUTOINCREMENT"):
		return "", fmt.Errorf("the table %s has an AUTOINCREMENT key, which two databases would give to different rows: use a key that names the row everywhere, such as a UUID", nameText(name))
	}
	checks := []struct{ sql, reason string }{
		{`SELECT 1 FROM pragma_index_list(?, 'main') WHERE "unique" = 1 AND origin <> 'pk'`,
			"has a UNIQUE index besides its primary key, which concurrent writes on two databases can break: drop it"},
		{`SELECT 1 FROM (SELECT count(*) AS n FROM pragma_table_info(?, 'main') WHERE pk > 0) WHERE n = 0`,
			"has no primary key: declare one, NOT NULL"},
		{`SELECT 1 FROM pragma_table_info(?, 'main') WHERE pk > 0 AND "notnull" = 0`,
			"has a primary key that may be NULL: declare its columns NOT NULL"},
		{`SELECT 1 FROM pragma_foreign_key_list(?, 'main')`,
			"has a checked foreign key, which changes can break that arrive in another order: leave REFERENCES out"},
		{`SELECT 1 FROM pragma_table_info(?, 'main') WHERE "notnull" = 1 AND dflt_value IS NULL AND pk = 0`,
			"has a NOT NULL column without a DEFAULT, so that a row cannot arrive one column at a time: give it a default or let it be NULL"},
		{`SELECT 1 FROM pragma_table_info(?, 'main') WHERE name = ` + sentinel,
			"has a column named -1, which stands for the row itself in changes: rename it"},
	}
	for _, check := range checks {
		rows, err := e.query(check.sql, name)
		if err != nil {
			return "", err
		}
		if len(rows) > 0 {
			return "", fmt.Errorf("the table %s %s", nameText(name), check.reason)
		}
	}
	t, err := e.readTable(name)
	if err != nil {
		return "", err
	}
	if len(t.pks) > changeset.MaxPackedValues {
		return "", fmt.Errorf("the primary key of %s has more than %d columns", nameText(name), changeset.MaxPackedValues)
	}
	// Its trigger passes the new and the old value of each column to crsql_after_update.
	if most := (e.sqlite.GetLimit(sqlite3.SQLITE_LIMIT_FUNCTION_ARG) - 1) / 2; len(t.pks)+len(t.cols) > most {
		return "", fmt.Errorf("the table %s has %d columns, at most %d can be tracked: move some to another table", nameText(name), len(t.pks)+len(t.cols), most)
	}
	for _, n := range append(append([]string{name}, t.pks...), t.cols...) {
		if len(n) > MaxName {
			return "", fmt.Errorf("the name %s of the table or of one of its columns has %d bytes, at most %d can be replicated: rename it", nameText(n), len(n), MaxName)
		}
	}
	return name, nil
}

// hasKeyword reports whether word stands in sql outside quotes and comments.
func hasKeyword(sql, word string) bool {
	scanner := newSQLScanner(sql)
	for {
		kind, text, err := scanner.token()
		switch {
		case err != nil || kind == tokenEnd:
			return false
		case kind == tokenWord && strings.EqualFold(text, word):
			return true
		}
	}
}
