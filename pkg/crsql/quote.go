package crsql

import "strings"

// ident quotes a name of a table or column for SQL.
func ident(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// literal quotes a text for SQL. It must hold no NUL, which no name in a schema can.
func literal(text string) string { return `'` + strings.ReplaceAll(text, `'`, `''`) + `'` }

// idents quotes names, each with a prefix such as "NEW.", and joins them with sep.
func idents(prefix string, names []string, sep string) string {
	var b strings.Builder
	for i, name := range names {
		if i > 0 {
			b.WriteString(sep)
		}
		b.WriteString(prefix)
		b.WriteString(ident(name))
	}
	return b.String()
}

// marks returns n parameter marks: "?,?,?".
func marks(n int) string { return strings.TrimSuffix(strings.Repeat("?,", n), ",") }

// isParams returns `"a" IS ? AND "b" IS ?`.
func isParams(names []string) string { return idents("", names, " IS ? AND ") + " IS ?" }

// equalColumns returns the condition under which a table has the row of a key that another holds as it was given: "a"."x"
// IS +"b"."x" AND ... The plus takes the affinity off a column that has no type: then it is compared as a parameter is, by
// a's. The text '1' of a TEXT column is the key 1.
func equalColumns(a, b string, names []string) string {
	on := make([]string, len(names))
	for i, name := range names {
		on[i] = a + "." + ident(name) + " IS +" + b + "." + ident(name)
	}
	return strings.Join(on, " AND ")
}
