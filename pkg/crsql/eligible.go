package crsql

import (
	"fmt"
	"strings"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// eligible returns the name of a table as it was created, or says why it cannot be a CRR and what to change.
func (e *engine) eligible(name string) (string, error) {
	rows, err := e.query("SELECT name, type, sql FROM main.sqlite_master WHERE type IN ('table', 'view') AND name = ? COLLATE NOCASE", name)
	if err != nil {
		return "", err
	}
	if len(rows) == 0 {
		return "", fmt.Errorf("there is no table %q: create it first", name)
	}
	name = toText(rows[0][0])
	sql := toText(rows[0][2])
	lower := strings.ToLower(name)
	switch {
	case toText(rows[0][1]) == "view":
		return "", fmt.Errorf("%q is a view: only tables can be CRRs", name)
	case strings.HasPrefix(lower, "crsql_") || strings.HasPrefix(lower, "sqlite_") ||
		strings.HasSuffix(lower, clockSuffix) || strings.HasSuffix(lower, pksSuffix):
		return "", fmt.Errorf("the name %q belongs to the system: give the table another", name)
	case strings.Contains(name, "'"):
		return "", fmt.Errorf("the name %q holds a ', and no other cr-sqlite could use the database any more: give the table another", name)
	case strings.HasPrefix(strings.ToUpper(sql), "CREATE VIRTUAL"):
		return "", fmt.Errorf("%q is a virtual table, which cannot have triggers: only ordinary tables can be CRRs", name)
	case hasKeyword(sql, "AUTOINCREMENT"):
		return "", fmt.Errorf("the table %q has an AUTOINCREMENT key, which two databases would give to different rows: use a key that names the row everywhere, such as a UUID", name)
	}
	checks := []struct{ sql, reason string }{
		{`SELECT 1 FROM pragma_index_list(?, 'main') WHERE "unique" = 1 AND origin <> 'pk'`,
			"has a UNIQUE index besides its primary key, which concurrent writes on two databases can break: drop it"},
		{`SELECT 1 FROM (SELECT count(*) AS n FROM pragma_table_info(?, 'main') WHERE pk > 0) WHERE n = 0`,
			"has no primary key: declare one, NOT NULL"},
		{`SELECT 1 FROM pragma_table_info(?, 'main') WHERE pk > 0 AND "notnull" = 0`,
			"has a primary key that may be NULL: declare its columns NOT NULL"},
		{`SELECT 1 FROM pragma_foreign_key_list(?)`,
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
			return "", fmt.Errorf("the table %q %s", name, check.reason)
		}
	}
	t, err := e.readTable(name)
	if err != nil {
		return "", err
	}
	if len(t.pks) > changeset.MaxPackedValues {
		return "", fmt.Errorf("the primary key of %q has more than %d columns", name, changeset.MaxPackedValues)
	}
	return name, nil
}

// hasKeyword reports whether word, in upper case, stands in sql outside quotes and comments.
func hasKeyword(sql, word string) bool {
	for i := 0; i < len(sql); {
		switch c := sql[i]; {
		case strings.HasPrefix(sql[i:], "--"):
			i += 1 + indexOr(sql[i:], "\n")
		case strings.HasPrefix(sql[i:], "/*"):
			i += 2 + indexOr(sql[i+2:], "*/") + 2
		case c == '\'' || c == '"' || c == '`':
			i += 2 + indexOr(sql[i+1:], string(c)) // a doubled quote reads as two quoted pieces: as good
		case c == '[':
			i += 2 + indexOr(sql[i+1:], "]")
		case isWord(c):
			end := i
			for end < len(sql) && isWord(sql[end]) {
				end++
			}
			if strings.EqualFold(sql[i:end], word) {
				return true
			}
			i = end
		default:
			i++
		}
	}
	return false
}

// indexOr is strings.Index, or the length of s where sub is not in it.
func indexOr(s, sub string) int {
	if i := strings.Index(s, sub); i >= 0 {
		return i
	}
	return len(s)
}

func isWord(c byte) bool {
	return c == '_' || c == '$' || c >= 0x80 || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}
