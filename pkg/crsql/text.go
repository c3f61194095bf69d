package crsql

import (
	"fmt"
	"strings"
)

// A text is what the engine wants to know of a statement's text before it runs. It may see more than there is, in a
// comment or a string: then it does a little work for nothing.
type text struct {
	plain       bool // one statement that cannot change the schema by itself, nor begin or end a transaction
	selects     bool // begins with SELECT
	merge       bool // inserts into crsql_changes
	changes     bool // names crsql_changes
	alters      bool // may alter a table
	rollback    bool // may undo a part of a transaction, of which SQLite tells nobody
	dropsView   bool // may drop crsql_changes
	dropsClocks bool // may drop a table of clocks
	multi       bool // may hold several statements
}

// readText reads a statement's text, and refuses one that SQLite would run a part of.
func readText(query string) (text, error) {
	var t text
	if len(query) > maxSQL {
		return t, fmt.Errorf("the SQL text has %d bytes, more than SQLite's limit of %d", len(query), maxSQL)
	}
	t.selects = hasFold(strings.TrimLeft(query, " \t\r\n"), "select")
	drop, clock := false, false
	for i := 0; i < len(query); i++ {
		switch query[i] {
		case 'a', 'A':
			t.alters = t.alters || hasFold(query[i:], "alter") && (i == 0 || !isNameByte(query[i-1])) && (i+5 == len(query) || !isNameByte(query[i+5]))
		case 'c', 'C':
			t.changes = t.changes || hasFold(query[i:], "crsql_changes")
		case 'r', 'R':
			t.rollback = t.rollback || hasFold(query[i:], "rollback")
		case 'd', 'D':
			drop = drop || hasFold(query[i:], "drop")
		case '_':
			clock = clock || hasFold(query[i:], clockSuffix)
		case ';':
			t.multi = t.multi || strings.TrimSpace(query[i+1:]) != ""
		case 0:
			return t, fmt.Errorf("the SQL text holds a NUL at byte %d, where SQLite would stop to read it: pass text as a parameter", i)
		}
	}
	t.dropsView, t.dropsClocks = drop && t.changes, drop && clock
	t.plain = !t.multi && plainVerb(query)
	t.merge = t.plain && hasFold(query, "INSERT INTO crsql_changes")
	return t, nil
}

// plainVerb reports whether a statement begins with a verb that reads or writes rows. Behind a comment it need not see.
func plainVerb(query string) bool {
	query = strings.TrimLeft(query, " \t\r\n")
	for _, verb := range [...]string{"SELECT ", "INSERT ", "UPDATE ", "DELETE ", "REPLACE ", "VALUES", "WITH "} {
		if hasFold(query, verb) {
			return true
		}
	}
	return false
}

func hasFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}
