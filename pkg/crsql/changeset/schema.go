package changeset

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Column is a column of a CRR as other databases have to know it. Generated columns are none.
type Column struct {
	Name       string
	Type       string // as declared; empty: none
	NotNull    bool
	HasDefault bool
	Default    string // the expression in SQL, if HasDefault
	Key        int    // its place in the primary key, from 1; 0: not in it
}

// TableSchema is a CRR: its name, its CREATE TABLE statement, and its columns in their order.
type TableSchema struct {
	Name, SQL string
	Columns   []Column
}

// MaxDifferences is how many sentences SchemaDifferences returns; one more says how many there are besides.
const MaxDifferences = 50

// maxQuoted is how many characters of a name, type or default a sentence holds.
const maxQuoted = 60

// SchemaHash returns the schema hash of docs/PROTOCOL.md. It does not depend on the order of the tables and their columns,
// nor on comments and white space; zero: no CRR.
func SchemaHash(tables []TableSchema) [32]byte {
	if len(tables) == 0 {
		return [32]byte{}
	}
	var text []byte
	for _, t := range slices.SortedFunc(slices.Values(tables), byTableName) {
		text = append(append(text, t.Name...), 0)
		for _, c := range slices.SortedFunc(slices.Values(t.Columns), byColumnName) {
			text = append(append(text, c.Name...), 0)
			text = append(append(text, c.plainType()...), 0)
			text = append(text, '0', 0)
			if c.NotNull {
				text[len(text)-2] = '1'
			}
			text = append(append(text, c.plainDefault()...), 0)
			text = append(strconv.AppendInt(text, int64(c.Key), 10), 0)
		}
		text = append(text, '\n')
	}
	return sha256.Sum256(text)
}

func byTableName(a, b TableSchema) int { return cmp.Compare(a.Name, b.Name) }
func byColumnName(a, b Column) int     { return cmp.Compare(a.Name, b.Name) }

// plainType returns the type in upper case, ASCII letters only: SQLite does not heed the case of these.
func (c *Column) plainType() string {
	return strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' {
			return r - 'a' + 'A'
		}
		return r
	}, plainSQL(c.Type))
}

// plainDefault returns the default's expression, empty for none. DEFAULT NULL is none.
func (c *Column) plainDefault() string {
	text := plainSQL(c.Default)
	if !c.HasDefault || strings.EqualFold(text, "NULL") {
		return ""
	}
	return text
}

// sqlPiece finds quoted text, which is kept, and comments and white space, which become one blank.
var sqlPiece = regexp.MustCompile(`'(?:[^']|'')*'|"(?:[^"]|"")*"|` + "`(?:[^`]|``)*`" +
	`|\[[^\]]*\]|(?:[ \t\n\f\r]|--[^\n]*(?:\n|$)|/\*(?s:.*?)(?:\*/|$))+`)

func plainSQL(sql string) string {
	plain := sqlPiece.ReplaceAllStringFunc(sql, func(piece string) string {
		if strings.ContainsRune("'\"`[", rune(piece[0])) {
			return piece
		}
		return " "
	})
	return strings.Trim(plain, " ")
}

// SchemaDifferences says in sentences without a full stop how two schemas differ that have two hashes, in order of their
// tables and columns, such as "note: column tags is missing here". There are at most MaxDifferences, and one more.
func SchemaDifferences(here, there []TableSchema) []string {
	var all []string
	ours, theirs := byName(here, tableName), byName(there, tableName)
	for _, name := range unionOf(ours, theirs) {
		a, b := ours[name], theirs[name]
		switch {
		case a == nil:
			all = append(all, quoted(name)+": table is missing here")
		case b == nil:
			all = append(all, quoted(name)+": table is missing there")
		default:
			all = append(all, tableDifferences(a, b)...)
		}
	}
	if more := len(all) - MaxDifferences; more > 0 {
		all = append(all[:MaxDifferences], fmt.Sprintf("and %d more", more))
	}
	return all
}

func tableDifferences(a, b *TableSchema) []string {
	var all []string
	ours, theirs := byName(a.Columns, columnName), byName(b.Columns, columnName)
	for _, name := range unionOf(ours, theirs) {
		add := func(format string, args ...any) {
			all = append(all, quoted(a.Name)+": column "+quoted(name)+" "+fmt.Sprintf(format, args...))
		}
		a, b := ours[name], theirs[name]
		switch {
		case a == nil:
			add("is missing here")
			continue
		case b == nil:
			add("is missing there")
			continue
		}
		if x, y := a.plainType(), b.plainType(); x != y {
			add("has %s here and %s there", typeText(x), typeText(y))
		}
		if a.NotNull != b.NotNull {
			add("%s here and %s there", nullText(a.NotNull), nullText(b.NotNull))
		}
		if x, y := a.plainDefault(), b.plainDefault(); x != y {
			add("has %s here and %s there", defaultText(x), defaultText(y))
		}
		if a.Key != b.Key {
			add("is %s here and %s there", keyText(a.Key), keyText(b.Key))
		}
	}
	return all
}

func tableName(t *TableSchema) string { return t.Name }
func columnName(c *Column) string     { return c.Name }

func byName[T any](list []T, name func(*T) string) map[string]*T {
	m := make(map[string]*T, len(list))
	for i := range list {
		m[name(&list[i])] = &list[i]
	}
	return m
}

// unionOf returns the names in either map, ascending.
func unionOf[T any](a, b map[string]*T) []string {
	var names []string
	for name := range a {
		names = append(names, name)
	}
	for name := range b {
		if a[name] == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func quoted(s string) string {
	if runes := []rune(s); len(runes) > maxQuoted {
		return string(runes[:maxQuoted]) + "..."
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

func typeText(s string) string {
	if s == "" {
		return "no type"
	}
	return "the type " + quoted(s)
}

func nullText(notNull bool) string {
	if notNull {
		return "is NOT NULL"
	}
	return "may be NULL"
}

func defaultText(s string) string {
	if s == "" {
		return "no default"
	}
	return "the default " + quoted(s)
}

func keyText(place int) string {
	if place == 0 {
		return "no part of the primary key"
	}
	return fmt.Sprintf("part %d of the primary key", place)
}

// MissingColumns returns the columns of there that here lacks, in their order.
func MissingColumns(here, there *TableSchema) []Column {
	ours := byName(here.Columns, columnName)
	var missing []Column
	for _, c := range there.Columns {
		if ours[c.Name] == nil {
			missing = append(missing, c)
		}
	}
	return missing
}

// What a column's definition may hold to be added to a table because a peer has it: a type of words and numbers, and a
// default that is one literal, so that nothing of it is ever run.
var (
	addableType    = regexp.MustCompile(`^[A-Za-z0-9_ ]{0,100}(?:\([0-9+\-., ]{0,100}\))?$`)
	addableDefault = regexp.MustCompile(`^(?i:[+-]? ?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:e[+-]?[0-9]+)?|[+-]? ?0x[0-9a-f]+|'(?:[^'\x00]|'')*'|x'(?:[0-9a-f]{2})*'|NULL|TRUE|FALSE)$`)
)

// Addable says why the column cannot be added to a table that has rows, without its full stop; empty: it can.
func (c *Column) Addable() string {
	switch {
	case c.Name == "" || strings.ContainsRune(c.Name, 0):
		return "its name is empty or holds a NUL"
	case c.Key > 0:
		return "it is part of the primary key"
	case c.NotNull && c.plainDefault() == "":
		return "it is NOT NULL and has no default"
	case !addableType.MatchString(plainSQL(c.Type)):
		return "its type is not of words and numbers"
	case c.HasDefault && !addableDefault.MatchString(plainSQL(c.Default)):
		return "its default is no single literal"
	}
	return ""
}

// Definition returns the column as ALTER TABLE ADD COLUMN takes it. It is for columns that are Addable.
func (c *Column) Definition() string {
	sql := `"` + strings.ReplaceAll(c.Name, `"`, `""`) + `"`
	if t := plainSQL(c.Type); t != "" {
		sql += " " + t
	}
	if c.NotNull {
		sql += " NOT NULL"
	}
	if c.HasDefault {
		sql += " DEFAULT " + plainSQL(c.Default)
	}
	return sql
}
