package crsql

import (
	"database/sql/driver"
	"slices"
	"strings"

	"github.com/mattn/go-sqlite3"
)

// A schemaShape is what a migration compares: the objects of a database that a schema may describe.
type schemaShape struct {
	objects map[string]schemaObject // by key
	indexes map[string][]string     // keys of the indexes of a table, by its name in lower case
	order   []string                // of tables, in lower case, in the order of their creation
	tables  map[string]*tableShape  // by name in lower case
}

// A tableShape is a table of either database.
type tableShape struct {
	name        string
	columns     []columnShape
	options     [2]bool           // WITHOUT ROWID, STRICT
	definitions map[string]string // of the columns, by name in lower case, as they are written
	constraints []string          // of the table
}

// A columnShape is a column as pragma_table_xinfo describes it.
type columnShape struct {
	name, kind string
	notNull    bool
	def        driver.Value // text of the default; nil: none
	pk         int64        // place in the primary key, from 1
	generated  int64        // 0: not generated; 2: VIRTUAL; 3: STORED
}

// column returns the column of a name, whatever its case; nil if there is none.
func (t *tableShape) column(name string) *columnShape {
	for i := range t.columns {
		if strings.EqualFold(t.columns[i].name, name) {
			return &t.columns[i]
		}
	}
	return nil
}

// readShape reads the main database of a connection, without the tables that belong to cr-sqlite, SQLite, the replica or
// a virtual table.
func readShape(c *sqlite3.SQLiteConn) (*schemaShape, error) {
	rows, err := queryOn(c, "SELECT type, name, tbl_name, sql FROM main.sqlite_master WHERE sql IS NOT NULL ORDER BY rowid")
	if err != nil {
		return nil, err
	}
	s := &schemaShape{objects: make(map[string]schemaObject), indexes: make(map[string][]string), tables: make(map[string]*tableShape)}
	virtual := virtualTables(rows)
	for _, row := range rows {
		o := readObject(row)
		s.objects[o.key()] = o
		if o.kind == "index" {
			table := strings.ToLower(o.table)
			s.indexes[table] = append(s.indexes[table], o.key())
		}
		if o.kind != "table" || reserved(o.name) || ofVirtual(o.name, virtual) {
			continue
		}
		t, err := readTableShape(c, &o)
		if err != nil {
			return nil, err
		}
		s.tables[strings.ToLower(o.name)] = t
		s.order = append(s.order, strings.ToLower(o.name))
	}
	return s, nil
}

// virtualTables returns the names of the virtual tables, in lower case.
func virtualTables(rows [][]driver.Value) []string {
	var names []string
	for _, row := range rows {
		if o := readObject(row); o.kind == "table" && strings.HasPrefix(strings.ToUpper(o.sql), "CREATE VIRTUAL") {
			names = append(names, strings.ToLower(o.name))
		}
	}
	return names
}

// ofVirtual reports whether a table is virtual or keeps the rows of one that is. SQLite tells only where it knows the
// module.
func ofVirtual(name string, virtual []string) bool {
	return slices.ContainsFunc(virtual, func(v string) bool {
		return strings.EqualFold(name, v) || strings.HasPrefix(strings.ToLower(name), v+"_")
	})
}

func readTableShape(c *sqlite3.SQLiteConn, o *schemaObject) (*tableShape, error) {
	t := &tableShape{name: o.name}
	rows, err := queryOn(c, `SELECT name, type, "notnull", dflt_value, pk, hidden FROM pragma_table_xinfo(?, 'main') ORDER BY cid`, o.name)
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		t.columns = append(t.columns, columnShape{
			name: toText(row[0]), kind: toText(row[1]), notNull: toInt64(row[2]) != 0, def: row[3], pk: toInt64(row[4]), generated: toInt64(row[5]),
		})
	}
	err = t.readDefinitions(o.sql)
	return t, err
}

// constraintWords are what a constraint of a table starts with. None can be the bare name of a column.
var constraintWords = []string{"CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN"}

// readDefinitions cuts a CREATE TABLE, which SQLite has accepted, into its columns and constraints.
func (t *tableShape) readDefinitions(sql string) error {
	t.definitions = make(map[string]string)
	scanner := newSQLScanner(sql)
	depth, start, closed := 0, 0, false
	for {
		kind, token, err := scanner.token()
		if err != nil || kind == tokenEnd {
			return err
		}
		end := scanner.pos - len(token)
		switch {
		case closed:
			t.options[0] = t.options[0] || strings.EqualFold(token, "WITHOUT")
			t.options[1] = t.options[1] || strings.EqualFold(token, "STRICT")
		case token == "(":
			if depth++; depth == 1 {
				start = scanner.pos
			}
		case token == ")":
			if depth--; depth == 0 {
				t.addDefinition(sql[start:end])
				closed = true
			}
		case token == "," && depth == 1:
			t.addDefinition(sql[start:end])
			start = scanner.pos
		}
	}
}

func (t *tableShape) addDefinition(text string) {
	scanner := newSQLScanner(text)
	kind, first, err := scanner.significant()
	if err != nil {
		return
	}
	start, end := scanner.pos-len(first), scanner.pos
	for err == nil { // a comment at the end would hide what is put behind it
		end = scanner.pos
		_, _, err = scanner.significant()
	}
	text = text[start:end]
	if kind == tokenWord && slices.Contains(constraintWords, strings.ToUpper(first)) {
		t.constraints = append(t.constraints, text)
		return
	}
	t.definitions[strings.ToLower(unquote(first))] = text
}

// sameSQL reports whether two texts have the same tokens, whatever the white space, the case of words and the quotes of
// names.
func sameSQL(a, b string) bool { return slices.Equal(plainTokens(a), plainTokens(b)) }

// samePieces is sameSQL for pieces that may stand in another order.
func samePieces(a, b string) bool {
	x, y := plainTokens(a), plainTokens(b)
	slices.Sort(x)
	slices.Sort(y)
	return slices.Equal(x, y)
}

func plainTokens(sql string) []string {
	tokens, err := significantTokens(sql)
	if err != nil {
		return []string{sql}
	}
	for i, token := range tokens {
		if token[0] != '\'' {
			tokens[i] = strings.ToLower(unquote(token))
		}
	}
	return tokens
}
