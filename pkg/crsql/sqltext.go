package crsql

import (
	"fmt"
	"strings"
)

// A sqlStatement is one statement of a script.
type sqlStatement struct {
	sql     string   // without the semicolon
	line    int      // of its first word in the script, from 1
	explain bool     // it begins with EXPLAIN
	words   []string // its leading keywords, without EXPLAIN [QUERY PLAN]
}

// maxWords is how many leading keywords of a statement are kept, in upper case.
const maxWords = 4

// word returns the i-th leading keyword, or "".
func (s *sqlStatement) word(i int) string {
	if i < len(s.words) {
		return s.words[i]
	}
	return ""
}

// A sqlScanner cuts a script into statements as SQLite does: at semicolons outside strings, names, comments and the
// bodies of triggers.
type sqlScanner struct {
	script string
	pos    int
	line   int
}

func newSQLScanner(script string) *sqlScanner { return &sqlScanner{script: script, line: 1} }

// next returns the next statement that is more than white space and comments; false at the end of the script.
func (s *sqlScanner) next() (sqlStatement, bool, error) {
	var st sqlStatement
	start, leading := -1, true
	trigger, afterSemicolon, afterEnd := false, false, false
	for {
		kind, text, err := s.token()
		if err != nil {
			return st, false, err
		}
		if kind == tokenEnd {
			if start < 0 {
				return st, false, nil
			}
			st.sql = s.script[start:s.pos]
			return st, true, nil
		}
		if kind == tokenSpace {
			continue
		}
		if text == ";" {
			if start < 0 {
				continue
			}
			if !trigger || afterEnd {
				st.sql = s.script[start : s.pos-1]
				return st, true, nil
			}
			afterSemicolon = true
			continue
		}
		if start < 0 {
			start, st.line = s.pos-len(text), s.line-strings.Count(text, "\n")
		}
		if kind != tokenWord {
			leading = false
		} else if leading && len(st.words) < maxWords {
			st.addWord(strings.ToUpper(text))
			trigger = trigger || isTrigger(st.words)
		}
		afterEnd = afterSemicolon && kind == tokenWord && strings.EqualFold(text, "END")
		afterSemicolon = false
	}
}

func (s *sqlStatement) addWord(word string) {
	if len(s.words) == 0 {
		switch {
		case word == "EXPLAIN":
			s.explain = true
			return
		case s.explain && (word == "QUERY" || word == "PLAN"):
			return
		}
	}
	s.words = append(s.words, word)
}

func isTrigger(words []string) bool {
	if len(words) == 0 || words[0] != "CREATE" || words[len(words)-1] != "TRIGGER" {
		return false
	}
	return len(words) == 2 || len(words) == 3 && (words[1] == "TEMP" || words[1] == "TEMPORARY")
}

type tokenKind uint8

const (
	tokenEnd    tokenKind = iota
	tokenSpace            // white space or a comment
	tokenWord             // a keyword, a bare name or a number
	tokenQuoted           // a string or a quoted name, with its quotes
	tokenSign             // any other character
)

// token returns the next token.
func (s *sqlScanner) token() (tokenKind, string, error) {
	if s.pos >= len(s.script) {
		return tokenEnd, "", nil
	}
	rest, line := s.script[s.pos:], s.line
	n, kind := 1, tokenSign
	switch c := rest[0]; {
	case strings.IndexByte(" \t\n\r\f", c) >= 0:
		kind = tokenSpace
		for n < len(rest) && strings.IndexByte(" \t\n\v\f\r", rest[n]) >= 0 { // a \v is none by itself
			n++
		}
	case strings.HasPrefix(rest, byteOrderMark):
		kind, n = tokenSpace, len(byteOrderMark)
	case strings.HasPrefix(rest, "--"):
		kind = tokenSpace
		if n = strings.IndexByte(rest, '\n'); n < 0 {
			n = len(rest)
		}
	case strings.HasPrefix(rest, "/*"):
		kind = tokenSpace
		n = len(rest) // SQLite lets a comment run to the end
		if end := strings.Index(rest[2:], "*/"); end >= 0 {
			n = end + 4
		}
	case c == '\'' || c == '"' || c == '`':
		kind = tokenQuoted
		if n = quotedLen(rest, c); n < 0 {
			return kind, "", fmt.Errorf("line %d: the %c that opens there is never closed", line, c)
		}
	case c == '[':
		kind = tokenQuoted
		if n = strings.IndexByte(rest, ']') + 1; n == 0 {
			return kind, "", fmt.Errorf("line %d: the [ that opens there is never closed", line)
		}
	case strings.IndexByte("$@:#", c) >= 0:
		n = variableLen(rest)
	case isNameByte(c):
		kind = tokenWord
		for n < len(rest) && isNameByte(rest[n]) {
			n++
		}
	}
	text := rest[:n]
	s.pos += n
	s.line += strings.Count(text, "\n")
	return kind, text, nil
}

// byteOrderMark is a space to SQLite where a token begins, as at the start of a file.
const byteOrderMark = "\ufeff"

// variableLen returns the length of the parameter at the start of s: $name, or $name(anything but space).
func variableLen(s string) int {
	n := 1
	for n < len(s) && (isNameByte(s[n]) || s[n] == ':' && strings.HasPrefix(s[n:], "::")) {
		n++
		if s[n-1] == ':' {
			n++
		}
	}
	if n > 1 && n < len(s) && s[n] == '(' {
		if end := strings.IndexAny(s[n:], ") \t\n\v\f\r"); end >= 0 && s[n+end] == ')' {
			n += end + 1
		}
	}
	return n
}

// quotedLen returns the length of the string or name at the start of s with both quotes, a doubled quote standing for
// one; -1 if it does not end.
func quotedLen(s string, quote byte) int {
	for i := 1; i < len(s); i++ {
		if s[i] != quote {
			continue
		}
		if i+1 == len(s) || s[i+1] != quote {
			return i + 1
		}
		i++
	}
	return -1
}

func isNameByte(c byte) bool {
	return c == '_' || c == '$' || c >= 0x80 || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// oneStatement returns the only statement of sql.
func oneStatement(sql string) (sqlStatement, error) {
	if len(sql) > MaxStatement {
		return sqlStatement{}, overLimit("the SQL statement", len(sql), MaxStatement)
	}
	s := newSQLScanner(sql)
	st, ok, err := s.next()
	if err != nil {
		return st, err
	}
	if !ok {
		return st, fmt.Errorf("there is no SQL statement: give one")
	}
	if _, more, err := s.next(); err != nil || more {
		return st, fmt.Errorf("there is more than one SQL statement: give one at a time, or run them as a script")
	}
	return st, nil
}

// refused says why a statement cannot be run by the users of a DB, or "".
func (s *sqlStatement) refused() string {
	switch s.word(0) {
	case "BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE":
		return s.word(0) + " is not allowed here: the statements run in a transaction already"
	case "ATTACH", "DETACH":
		return s.word(0) + " is not allowed here: a replica has one database"
	case "VACUUM":
		return "VACUUM is not allowed here: it cannot run in a transaction; run it with sqlite3 while the peer is stopped"
	case "PRAGMA":
		return "PRAGMA is not allowed here: the connection's settings are the program's"
	case "CREATE":
		if s.temporary() {
			return "temporary tables, views and triggers are not allowed here: they would stay on the connection that all writes share"
		}
	}
	return ""
}

// temporary reports whether a CREATE makes something temporary.
func (s *sqlStatement) temporary() bool {
	scanner := newSQLScanner(s.sql)
	name := "" // the token before
	for {
		kind, text, err := scanner.significant()
		switch {
		case err != nil || text == "(":
			return false
		case text == ".": // the first is behind the schema's name
			return strings.EqualFold(unquote(name), "temp")
		case kind == tokenWord && (strings.EqualFold(text, "TEMP") || strings.EqualFold(text, "TEMPORARY")) && strings.EqualFold(name, "CREATE"):
			return true
		}
		name = text
	}
}

// readOnlyPragmas are those that a query may use: they describe the schema.
var readOnlyPragmas = map[string]bool{
	"TABLE_INFO": true, "TABLE_XINFO": true, "TABLE_LIST": true, "INDEX_LIST": true, "INDEX_INFO": true,
	"INDEX_XINFO": true, "FOREIGN_KEY_LIST": true, "COLLATION_LIST": true, "FUNCTION_LIST": true,
}

// notQuery says why a statement cannot be run as a query, or "".
func (s *sqlStatement) notQuery() string {
	switch s.word(0) {
	case "SELECT", "VALUES", "WITH":
		return ""
	case "PRAGMA": // with EXPLAIN, too: some of them take effect when they are prepared
		if readOnlyPragmas[s.word(1)] {
			return ""
		}
		return "of PRAGMAs a query may use those that describe tables and indexes"
	}
	if s.explain {
		return ""
	}
	return "a query reads: it starts with SELECT, VALUES, WITH or EXPLAIN; run anything else as a write"
}
