package crsql

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// SchemaError says why a table or a column that a peer has was not created here, or why its schema was not taken. It is the
// fault of whoever sent the statement.
type SchemaError struct {
	Table  string // empty: the whole schema
	Reason string // a sentence without its full stop
}

// Error returns the reason, with the table.
func (e *SchemaError) Error() string {
	if e.Table == "" {
		return "the schema of a peer was not taken: " + e.Reason
	}
	return fmt.Sprintf("the table %s of a peer was not taken: %s", nameText(e.Table), e.Reason)
}

// CreateTables creates those of the tables that do not exist, as CRRs, and leaves those that exist as they are. It does
// so in one transaction: all or none. A statement must be one CREATE TABLE of the table that it stands for, and no
// more; anything else, and a table that cannot be a CRR, is a *SchemaError. It returns how many tables it created.
//
// Changes that were parked for the lack of them wait for ReplayParked.
func (r *Replica) CreateTables(ctx context.Context, tables []TableSchema) (created int, err error) {
	if len(tables) > MaxTables {
		return 0, fmt.Errorf("%d tables, at most %d can be created at a time: %w", len(tables), MaxTables, ErrLimit)
	}
	statements := make([]sqlStatement, len(tables))
	for i, table := range tables {
		if statements[i], err = createStatement(table); err != nil {
			return 0, err
		}
	}
	err = r.db.transact(ctx, func(s *session) error {
		created = 0
		for i, table := range tables {
			exists, err := s.engine.query("SELECT 1 FROM main.sqlite_master WHERE name = ? COLLATE NOCASE", table.Name)
			if err != nil {
				return err
			}
			if len(exists) > 0 {
				continue
			}
			if err := s.createCRR(ctx, table.Name, statements[i].sql); err != nil {
				return err
			}
			created++
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	if created > 0 {
		r.db.notify()
	}
	return created, nil
}

func (s *session) createCRR(ctx context.Context, name, sql string) error {
	refuse := func(err error) error {
		if ctx.Err() != nil || !s.engine.refusable(err) {
			return err
		}
		return &SchemaError{Table: name, Reason: err.Error()}
	}
	if err := s.run(ctx, sql); err != nil {
		return refuse(err)
	}
	// What a reading of the text may have missed shows in what it did.
	made, err := s.engine.query("SELECT 1 FROM main.sqlite_master WHERE type = 'table' AND name = ?", name)
	if err != nil {
		return err
	}
	if len(made) != 1 {
		return &SchemaError{Table: name, Reason: "its statement creates another table"}
	}
	if err := s.run(ctx, "SELECT crsql_as_crr("+literal(name)+")"); err != nil {
		return refuse(err)
	}
	return nil
}

// createStatement returns the statement of a table if it is CREATE TABLE name (...), and only that.
func createStatement(table TableSchema) (sqlStatement, error) {
	refuse := func(reason string) (sqlStatement, error) {
		return sqlStatement{}, &SchemaError{Table: table.Name, Reason: reason}
	}
	switch {
	case table.Name == "" || strings.ContainsRune(table.Name, 0):
		return refuse("a table needs a name without a NUL")
	case reserved(table.Name):
		return refuse("its name is reserved")
	}
	if len(table.Name) > MaxName || len(table.SQL) > MaxTableSQL {
		return refuse(fmt.Sprintf("its name has more than %d bytes, or its statement more than %d", MaxName, MaxTableSQL))
	}
	if strings.ContainsRune(table.SQL, 0) {
		return refuse("its statement holds a NUL")
	}
	st, err := oneStatement(table.SQL)
	if err != nil {
		return refuse(err.Error())
	}
	scanner := newSQLScanner(st.sql)
	for _, want := range []string{"CREATE", "TABLE"} {
		kind, text, err := scanner.significant()
		if err != nil || kind != tokenWord || !strings.EqualFold(text, want) {
			return refuse("its statement is no CREATE TABLE")
		}
	}
	kind, text, err := scanner.significant()
	if err == nil && kind == tokenWord && strings.EqualFold(text, "IF") { // NOT EXISTS name: SQLite checks the words
		for range 3 {
			if kind, text, err = scanner.significant(); err != nil {
				break
			}
		}
	}
	if err != nil || kind != tokenWord && kind != tokenQuoted || unquote(text) != table.Name {
		return refuse("its statement names another table")
	}
	if _, text, err := scanner.significant(); err != nil || text != "(" {
		return refuse("its statement is no list of columns") // a schema name, or AS SELECT
	}
	for {
		kind, text, err := scanner.significant()
		if err != nil {
			return st, nil
		}
		// In a DEFAULT or a CHECK such a function would run with our writes: crsql_internal_sync_bit(1) would end them all.
		if (kind == tokenWord || kind == tokenQuoted && text[0] != '\'') && strings.HasPrefix(strings.ToLower(unquote(text)), "crsql_") {
			return refuse("its statement uses a name that begins with crsql_")
		}
	}
}

// significant returns the next token that is no space.
func (s *sqlScanner) significant() (tokenKind, string, error) {
	for {
		kind, text, err := s.token()
		if err != nil {
			return kind, "", err
		}
		if kind == tokenEnd {
			return kind, "", errors.New("the statement ends early")
		}
		if kind != tokenSpace {
			return kind, text, nil
		}
	}
}

// unquote returns the name that a token stands for.
func unquote(token string) string {
	quote := token[:1]
	switch quote {
	case `'`, `"`, "`":
		return strings.ReplaceAll(token[1:len(token)-1], quote+quote, quote)
	case "[":
		return token[1 : len(token)-1]
	}
	return token
}
