package crsql

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/mattn/go-sqlite3"
)

// Bounds of a schema that crsql_automigrate and DB.Migrate take.
const (
	MaxSchemaBytes      = 1 << 20
	MaxSchemaStatements = 4096

	privatePageSize = 512     // of the private database, in bytes: each table and index takes a page
	privatePages    = 1 << 14 // 8 MiB
)

// A wantedSchema is what the text of a schema asks for.
type wantedSchema struct {
	steps  []schemaStep
	shape  *schemaShape
	crrs   map[string]bool // in lower case: the tables that it makes CRRs
	orders map[string]bool // in lower case: the tables whose rows it orders
}

// A schemaStep is one statement of a schema: it creates an object, or calls a function of ours.
type schemaStep struct {
	line     int
	sql      string
	object   schemaObject // of a CREATE
	function string       // of a SELECT
	args     []string
}

// A schemaObject is a row of sqlite_master.
type schemaObject struct{ kind, name, table, sql string }

func (o *schemaObject) key() string { return o.kind + " " + strings.ToLower(o.name) }

// schemaFunctions are those that a schema may call.
var schemaFunctions = []string{"crsql_as_crr", "crsql_fract_as_ordered"}

// readWanted finds out what a schema asks for, by applying it to a private database in memory. What it holds besides
// descriptions of tables, indexes, views and triggers is an error.
func readWanted(text string) (*wantedSchema, error) {
	switch {
	case len(text) > MaxSchemaBytes:
		return nil, fmt.Errorf("the schema has %d bytes, more than %d", len(text), MaxSchemaBytes)
	case strings.ContainsRune(text, 0):
		return nil, errors.New("the schema holds a NUL, at which SQLite stops reading: remove it")
	}
	db, err := openPrivate()
	if err != nil {
		return nil, fmt.Errorf("open a private database for the schema: %w", err)
	}
	w := &wantedSchema{crrs: make(map[string]bool), orders: make(map[string]bool)}
	err = w.read(db, text)
	if err == nil {
		w.shape, err = readShape(db.sqlite)
	}
	return w, errors.Join(err, db.sqlite.Close())
}

func (w *wantedSchema) read(db *privateDB, text string) error {
	scanner := newSQLScanner(text)
	var statements []sqlStatement
	for {
		st, ok, err := scanner.next()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		if statements = append(statements, st); len(statements) > MaxSchemaStatements {
			return fmt.Errorf("the schema has more than %d statements", MaxSchemaStatements)
		}
	}
	for i := range statements {
		steps, err := w.readStatement(db, &statements[i])
		if err != nil {
			return fmt.Errorf("line %d of the schema: %w", statements[i].line, err)
		}
		w.steps = append(w.steps, steps...)
	}
	return nil
}

func (w *wantedSchema) readStatement(db *privateDB, st *sqlStatement) ([]schemaStep, error) {
	if st.explain {
		return nil, errors.New("EXPLAIN is no part of a schema: leave it out")
	}
	if st.word(0) == "SELECT" {
		return w.readCalls(st)
	}
	kind := st.word(1)
	if kind == "UNIQUE" {
		kind = st.word(2)
	}
	switch {
	case st.word(0) != "CREATE":
		return nil, fmt.Errorf("%s is no part of a schema: run it on its own; a schema holds CREATE TABLE, INDEX, VIEW and TRIGGER, "+
			"and SELECT crsql_as_crr(...)", firstWord(st))
	case kind == "TEMP" || kind == "TEMPORARY":
		return nil, errors.New("temporary objects are no part of a schema: create them on their own")
	case kind == "VIRTUAL":
		return nil, errors.New("virtual tables are no part of a schema: create them on their own, they are left alone")
	case kind != "TABLE" && kind != "INDEX" && kind != "VIEW" && kind != "TRIGGER":
		return nil, errors.New("of CREATE a schema holds TABLE, INDEX, VIEW and TRIGGER")
	}
	object, err := db.create(st.sql)
	if err != nil || object == nil { // none: IF NOT EXISTS
		return nil, err
	}
	if reserved(object.name) {
		return nil, fmt.Errorf("the name %q belongs to the system: choose another", object.name)
	}
	return []schemaStep{{line: st.line, sql: st.sql, object: *object}}, nil
}

func firstWord(st *sqlStatement) string {
	if word := st.word(0); word != "" {
		return word
	}
	return "this statement"
}

// reserved reports whether a name is one of cr-sqlite's, SQLite's or the replica's, which a migration leaves alone.
func reserved(name string) bool {
	lower := strings.ToLower(name)
	return strings.HasPrefix(lower, "sqlite_") || strings.HasPrefix(lower, "crsql_") || strings.HasPrefix(lower, "crmesh_") ||
		strings.Contains(lower, "__crsql_")
}

// readCalls reads SELECT f('a', ...), g('b', ...). The calls are made later, from what is read here: the statement itself
// is never run.
func (w *wantedSchema) readCalls(st *sqlStatement) ([]schemaStep, error) {
	wrong := fmt.Errorf("a SELECT in a schema calls %s with texts, and nothing else: SELECT crsql_as_crr('table')",
		strings.Join(schemaFunctions, " or "))
	tokens, err := significantTokens(st.sql)
	if err != nil {
		return nil, err
	}
	var steps []schemaStep
	for i := 1; i < len(tokens); i++ {
		step := schemaStep{line: st.line, function: strings.ToLower(tokens[i])}
		if !slices.Contains(schemaFunctions, step.function) || i+1 >= len(tokens) || tokens[i+1] != "(" {
			return nil, wrong
		}
		for i++; i < len(tokens) && tokens[i] != ")"; i++ {
			if i+1 >= len(tokens) || tokens[i] != "(" && tokens[i] != "," || tokens[i+1][0] != '\'' && tokens[i+1][0] != '"' {
				return nil, wrong
			}
			i++
			step.args = append(step.args, unquote(tokens[i]))
		}
		if len(step.args) == 0 || i >= len(tokens) {
			return nil, wrong
		}
		if i++; i < len(tokens) && tokens[i] != "," {
			return nil, wrong
		}
		switch step.function {
		case "crsql_as_crr":
			w.crrs[strings.ToLower(step.args[len(step.args)-1])] = true
		case "crsql_fract_as_ordered":
			w.orders[strings.ToLower(step.args[0])] = true
		}
		steps = append(steps, step)
	}
	if len(steps) == 0 || tokens[len(tokens)-1] == "," {
		return nil, wrong
	}
	return steps, nil
}

// significantTokens returns the tokens of sql without white space and comments.
func significantTokens(sql string) ([]string, error) {
	scanner := newSQLScanner(sql)
	var tokens []string
	for {
		kind, token, err := scanner.token()
		if err != nil || kind == tokenEnd {
			return tokens, err
		}
		if kind != tokenSpace {
			tokens = append(tokens, token)
		}
	}
}

// A privateDB is a database in memory that a schema of unknown origin is applied to. It reaches no file, holds no rows
// and is bounded in size.
type privateDB struct {
	sqlite  *sqlite3.SQLiteConn
	guarded bool  // a statement of the schema runs
	last    int64 // rowid of the last object
}

func openPrivate() (*privateDB, error) {
	opened, err := (&sqlite3.SQLiteDriver{}).Open(":memory:")
	if err != nil {
		return nil, err
	}
	db := &privateDB{sqlite: opened.(*sqlite3.SQLiteConn)}
	for _, pragma := range []string{
		fmt.Sprintf("page_size=%d", privatePageSize), fmt.Sprintf("max_page_count=%d", privatePages), "trusted_schema=OFF",
	} {
		if _, err := db.sqlite.Exec("PRAGMA "+pragma, nil); err != nil {
			return nil, errors.Join(err, db.sqlite.Close())
		}
	}
	db.sqlite.SetLimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
	db.sqlite.SetLimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, MaxSchemaBytes)
	db.sqlite.SetLimit(sqlite3.SQLITE_LIMIT_LENGTH, MaxSchemaBytes)
	db.sqlite.RegisterAuthorizer(db.authorize)
	return db, nil
}

// authorize lets a statement of the schema describe objects of the main database, and do nothing else.
func (db *privateDB) authorize(op int, arg, _, schema string) int {
	if !db.guarded {
		return sqlite3.SQLITE_OK
	}
	allowed := false
	switch op {
	case sqlite3.SQLITE_CREATE_TABLE, sqlite3.SQLITE_CREATE_INDEX, sqlite3.SQLITE_CREATE_VIEW, sqlite3.SQLITE_CREATE_TRIGGER,
		sqlite3.SQLITE_READ, sqlite3.SQLITE_REINDEX:
		allowed = schema == "main"
	case sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE:
		allowed = schema == "main" && arg == "sqlite_master"
	case sqlite3.SQLITE_FUNCTION: // in a CHECK, a default or an index: it is not run, there are no rows
		allowed = true
	}
	if allowed {
		return sqlite3.SQLITE_OK
	}
	return sqlite3.SQLITE_DENY
}

// create runs a CREATE statement and returns what it made; nil if it was there already.
func (db *privateDB) create(sql string) (*schemaObject, error) {
	db.guarded = true
	_, err := queryOn(db.sqlite, sql)
	db.guarded = false
	var code sqlite3.Error
	switch {
	case errors.As(err, &code) && code.Code == sqlite3.ErrAuth:
		return nil, fmt.Errorf("a schema describes tables, indexes, views and triggers; it reads and writes nothing (%w)", err)
	case errors.As(err, &code) && code.Code == sqlite3.ErrFull:
		return nil, fmt.Errorf("the schema is too large, it has too many tables and indexes (%v)", err) // no disk is full
	case err != nil:
		return nil, err
	}
	rows, err := queryOn(db.sqlite, `SELECT rowid, type, name, tbl_name, sql FROM main.sqlite_master
		WHERE rowid > ? AND sql IS NOT NULL AND name NOT LIKE 'sqlite\_%' ESCAPE '\'`, db.last)
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	if len(rows) > 1 {
		return nil, errors.New("it creates more than one object: separate its statements with semicolons")
	}
	db.last, _ = rows[0][0].(int64)
	object := readObject(rows[0][1:])
	return &object, nil
}

func readObject(row []driver.Value) schemaObject {
	return schemaObject{kind: toText(row[0]), name: toText(row[1]), table: toText(row[2]), sql: toText(row[3])}
}
