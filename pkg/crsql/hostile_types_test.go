package crsql

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

func textValue(s string) changeset.Value { return changeset.TextString(s) }
func blobValue(s string) changeset.Value { return changeset.Blob([]byte(s)) }

// oddValues are what nobody should put into a column of crsql_changes, or give to a function.
var oddValues = []changeset.Value{
	changeset.Null(),
	changeset.Integer(0), changeset.Integer(1), changeset.Integer(-1), changeset.Integer(7), changeset.Integer(49),
	changeset.Integer(1 << 53), changeset.Integer(math.MaxInt64), changeset.Integer(math.MinInt64),
	changeset.Real(1), changeset.Real(-1), changeset.Real(1.9), changeset.Real(1e300), changeset.Real(-1e300), changeset.Real(9e18),
	changeset.Real(math.Inf(1)), changeset.Real(1e-7),
	textValue(""), textValue("1"), textValue(" 7"), textValue("7 "), textValue("+7"), textValue("-1"), textValue("--1"), textValue("1e1"),
	textValue("7abc"), textValue("abc"), textValue("99999999999999999999"), textValue("-99999999999999999999"), textValue("\x00"),
	textValue("1\x002"), textValue("x"), textValue("t"), textValue("\xff"), textValue("\v7"), textValue("\u00a07"), textValue("0x10"),
	textValue("1.9"), textValue("sixteen bytes id"),
	blobValue(""), blobValue("1"), blobValue("7"), blobValue("x"), blobValue("t"), blobValue("-1"), blobValue("\x01\x09\x01"),
	blobValue("\xff"), blobValue("sixteen bytes id"), blobValue("seventeen bytes i"),
}

// What is put into a column of crsql_changes is read as the original reads it, whatever its type. Numbers out of range,
// which it would store, are refused.
func TestTypesOfChangesAgainstTheOriginal(t *testing.T) {
	o := startOracle(t)
	good := []changeset.Value{
		textValue("t"), blobValue("\x01\x09\x01"), textValue("x"), textValue("new"), changeset.Integer(9), changeset.Integer(3),
		blobValue("site"), changeset.Integer(1), changeset.Integer(0),
	}
	for column, name := range []string{"table", "pk", "cid", "val", "col_version", "db_version", "site_id", "cl", "seq"} {
		for i, v := range oddValues {
			row := append([]changeset.Value(nil), good...)
			row[column] = v
			p := newPair(t, o, fmt.Sprint(name, i))
			p.both(`CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, x, "1.0", "7", "1", "1.9", "1.0e-07")`)
			p.both("SELECT crsql_as_crr('t')")
			p.both("INSERT INTO t(id, x) VALUES (1, 'old')")
			ours, theirs := p.ask("INSERT INTO crsql_changes VALUES (?,?,?,?,?,?,?,?,?)", row...)
			n := toInt64(toDriver(v))
			outOfRange := n > changeset.MaxVersion && column >= 4 && name != "site_id" || n < 0 && (name == "col_version" || name == "seq")
			if (ours.err != nil) != (theirs.err != nil || outOfRange) {
				t.Errorf("%s = %v: ours: %v, theirs: %v", name, encodeTyped(v), ours.err, theirs.err)
			}
			if !outOfRange {
				p.both("SELECT * FROM crsql_changes")
				p.both("SELECT * FROM t")
			}
			p.close()
		}
	}
}

// Likewise the arguments of functions.
func TestTypesOfArgumentsAgainstTheOriginal(t *testing.T) {
	o := startOracle(t)
	for i, v := range oddValues {
		p := newPair(t, o, fmt.Sprint("f", i))
		p.both(`CREATE TABLE "1"(id INTEGER PRIMARY KEY NOT NULL); CREATE TABLE x(id INTEGER PRIMARY KEY NOT NULL); CREATE TABLE "1.9"(id INTEGER PRIMARY KEY NOT NULL)`)
		p.both("SELECT crsql_pack_columns(?, 1)", v)
		p.both("SELECT crsql_internal_sync_bit(?)", v)
		p.both("SELECT crsql_internal_sync_bit()")
		if n := toInt64(toDriver(v)); n <= changeset.MaxVersion {
			p.both("SELECT crsql_next_db_version(?)", v)
		}
		if kind := v.Kind(); kind != changeset.KindNull && kind != changeset.KindBlob && !strings.Contains(string(v.Bytes()), "\x00") {
			// The original stops to read a name at a NUL.
			ours, theirs := p.ask("SELECT crsql_as_crr(?)", v)
			if (ours.err != nil) != (theirs.err != nil) {
				t.Errorf("crsql_as_crr(%v): ours: %v, theirs: %v", encodeTyped(v), ours.err, theirs.err)
			}
		}
		p.close()
	}
}

// A twin is a database in both engines.
type twin struct {
	t      *testing.T
	name   string
	ours   *testDB
	oracle *oracle
}

func newPair(t *testing.T, o *oracle, name string) *twin {
	t.Helper()
	p := &twin{t: t, name: name, ours: openTest(t, ":memory:"), oracle: o}
	site := o.ask(name, false, oracleStep{SQL: "SELECT crsql_site_id()"})[0].rows[0][0]
	p.ours.run("UPDATE crsql_site_id SET site_id = ? WHERE ordinal = 0", site.Bytes())
	p.ours.engine.dataVersion = unknown // the site id is read again
	return p
}

func (p *twin) close() {
	p.oracle.ask(p.name, true)
	p.ours.close()
}

// ask runs a statement in both engines.
func (p *twin) ask(sql string, args ...changeset.Value) (ours, theirs answer) {
	typed, native := make([]any, len(args)), make([]any, len(args))
	for i, v := range args {
		typed[i], native[i] = encodeTyped(v), toDriver(v)
	}
	ours.rows, ours.err = p.ours.try(sql, native...)
	theirs = p.oracle.ask(p.name, false, oracleStep{SQL: sql, Args: typed})[0]
	if strings.HasPrefix(sql, "UPDATE ") {
		p.oracle.ask(p.name, false, unraise)
	}
	return ours, theirs
}

// both runs a statement in both engines, which must agree.
func (p *twin) both(sql string, args ...changeset.Value) {
	p.t.Helper()
	ours, theirs := p.ask(sql, args...)
	if (ours.err != nil) != (theirs.err != nil) || dump(ours.rows) != dump(theirs.rows) {
		typed := make([]any, len(args))
		for i, v := range args {
			typed[i] = encodeTyped(v)
		}
		p.t.Errorf("%s: %s %v\nours:   %s, %v\ntheirs: %s, %v", p.name, sql, typed, dump(ours.rows), ours.err, dump(theirs.rows), theirs.err)
	}
}
