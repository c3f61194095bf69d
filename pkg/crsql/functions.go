package crsql

import (
	"errors"
	"fmt"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// engineSHA is what crsql_sha() returns, in place of the commit that the stock engine was built from.
const engineSHA = "crmesh-crsql"

// mergeFunction is what the trigger on crsql_changes calls.
const mergeFunction = "crsql_internal_merge"

// deterministic are the functions that SQLite is told give the same result throughout a statement, so that a schema may
// use them for generated columns and indexes: the stock engine's choice, with which such a schema was made.
var deterministic = map[string]bool{
	"crsql_as_crr": true, "crsql_config_get": true, "crsql_fract_key_between": true, "crsql_get_seq": true, "crsql_sha": true, "crsql_site_id": true,
}

// register makes the SQL functions known to the connection.
func (e *engine) register() error {
	functions := map[string]any{
		"crsql_site_id": func() (any, error) {
			if err := e.refresh(); err != nil {
				return nil, err
			}
			return []byte(e.siteID), nil
		},
		"crsql_db_version": func() (any, error) { return number(e.currentVersion()) },
		"crsql_next_db_version": guard("crsql_next_db_version", func(args []any) (any, error) {
			atLeast := int64(0)
			if len(args) == 1 {
				atLeast = toInt64(args[0])
			}
			e.unsure = true
			return number(e.nextVersion(atLeast))
		}),
		"crsql_get_seq":               func() int64 { return e.seq },
		"crsql_increment_and_get_seq": func() int64 { return e.nextSeq(1) },
		"crsql_rows_impacted":         func() int64 { return e.rowsImpacted },
		"crsql_internal_sync_bit": func(args ...any) int64 {
			if len(args) == 1 {
				e.syncBit = int64(int32(toInt64(args[0]))) // as wide as the original's
			}
			return e.syncBit
		},
		"crsql_sha":          func() string { return engineSHA },
		"crsql_finalize":     func(...any) string { e.finalize(); return "finalized" },
		"crsql_pack_columns": guard("crsql_pack_columns", packColumns),
		"crsql_as_crr":       guard("crsql_as_crr", e.asCRR),
		"crsql_begin_alter":  guard("crsql_begin_alter", e.beginAlter),
		"crsql_automigrate":  guard("crsql_automigrate", e.automigrate),
		"crsql_commit_alter": guard("crsql_commit_alter", e.commitAlter),
		"crsql_as_table":     func(name any) (any, error) { return guard("crsql_as_table", e.asTable)(name) },
		"crsql_after_insert": guard("crsql_after_insert", zero(e.naming(e.afterInsert))),
		"crsql_after_update": guard("crsql_after_update", zero(e.naming(e.afterUpdate))),
		"crsql_after_delete": guard("crsql_after_delete", zero(e.naming(e.afterDelete))),
		mergeFunction:        guard(mergeFunction, e.mergeRow),

		"crsql_config_set": func(name, value any) (any, error) {
			return guard("crsql_config_set", func(args []any) (any, error) { return e.configSet(args[0], args[1]) })(name, value)
		},
		"crsql_config_get": func(name any) (any, error) {
			return guard("crsql_config_get", func(args []any) (any, error) { return e.configGet(args[0]) })(name)
		},
		"crsql_fract_as_ordered": guard("crsql_fract_as_ordered", e.asOrdered),
		"crsql_fract_key_between": func(low, high any) (any, error) {
			return guard("crsql_fract_key_between", func(args []any) (any, error) { return fractKeyBetween(args[0], args[1]) })(low, high)
		},
		"crsql_fract_fix_conflict_return_old_key": guard("crsql_fract_fix_conflict_return_old_key", e.fractFixConflict),
	}
	for name, f := range functions {
		if err := e.sqlite.RegisterFunc(name, e.callback(name, f), deterministic[name]); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	// The triggers ask for each row: without arguments to convert the answer takes a third of the time. SQLite prefers the
	// function with the right number of arguments.
	return e.sqlite.RegisterFunc("crsql_internal_sync_bit", func() int64 { return e.syncBit }, false)
}

// guard makes f an SQL function of any number of arguments, whose errors begin with its name.
func guard(name string, f func(args []any) (any, error)) func(args ...any) (any, error) {
	return func(args ...any) (any, error) {
		result, err := f(args)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return result, nil
	}
}

// zero makes f return 0, as the triggers' functions do.
func zero(f func(args []any) error) func(args []any) (any, error) {
	return func(args []any) (any, error) { return int64(0), f(args) }
}

func number(n int64, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return n, nil
}

func packColumns(args []any) (any, error) {
	values := make([]changeset.Value, len(args))
	for i, arg := range args {
		values[i] = fromDriver(arg)
	}
	packed, err := changeset.AppendPacked(nil, values)
	if err != nil {
		return nil, err
	}
	return packed, nil
}

// mergeRow is called for each row inserted into crsql_changes, with its nine columns.
func (e *engine) mergeRow(args []any) (any, error) {
	if len(args) != 9 {
		return nil, errors.New("a change has nine columns")
	}
	e.nested = true
	defer func() { e.nested = false }()
	e.merged++
	return int64(0), e.mergeOne(changeOfRow(args))
}
