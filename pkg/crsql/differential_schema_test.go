package crsql

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"pgregory.net/rapid"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// The schema changes of the random scripts, and what has to be put right in the stock engine after them: ours gives the
// clocks that a migration or a key update makes a new version, theirs one that peers have passed.

func (d *differential) create(p *pair, s *shape) {
	d.both(p, s.sql())
	for _, index := range s.indexes {
		d.both(p, index.sql("", s.name))
	}
}

// A schemaOp is one change of a table inside an alteration.
type schemaOp struct {
	kind   int
	column string
	to     column
	keys   []string
	value  changeset.Value
	row    []changeset.Value // key of the row to change; nil: all
}

const (
	opAdd = iota
	opDrop
	opRename
	opUpdate
	opInsert
	opDelete
	opRemake
	opIndex
	opUnfit // makes it no CRR
	opKinds
)

// op draws a change that suits the table.
func (d *differential) op(s *shape) schemaOp {
	names := make([]string, len(s.columns))
	for i := range s.columns {
		names[i] = s.columns[i].name
	}
	op := schemaOp{
		kind:   rapid.IntRange(0, opKinds-1).Draw(d.rt, "op"),
		column: rapid.SampledFrom(names).Draw(d.rt, "column"),
		to:     column{rapid.SampledFrom(newColumns).Draw(d.rt, "new column"), rapid.SampledFrom(newTypes).Draw(d.rt, "type")},
	}
	switch op.kind {
	case opUpdate, opInsert, opDelete:
		op.value = d.value()
		if op.kind == opInsert || rapid.IntRange(0, 2).Draw(d.rt, "one row") > 0 {
			op.row = d.key(s)
		}
		if cols := s.cols(); len(cols) > 0 {
			op.column = rapid.SampledFrom(cols).Draw(d.rt, "written")
		}
	case opRemake:
		for range rapid.IntRange(1, 3).Draw(d.rt, "keys") {
			name := rapid.SampledFrom(names).Draw(d.rt, "key column")
			if !slices.Contains(op.keys, name) && !s.columns[s.column(name)].generated() {
				op.keys = append(op.keys, name)
			}
		}
		if op.keys == nil {
			op.keys = s.keys
		}
	case opUnfit:
		if rapid.IntRange(0, 3).Draw(d.rt, "unfit") > 0 {
			op.kind = opAdd
		}
	}
	return op
}

// apply does op to the table and notes what has become of it.
func (d *differential) apply(p *pair, s *shape, op schemaOp) {
	alter := "ALTER TABLE " + s.table() + " "
	switch op.kind {
	case opAdd:
		if d.both(p, strings.TrimSpace(alter+"ADD COLUMN "+ident(op.to.name)+" "+op.to.def)).err == nil {
			s.columns = append(s.columns, op.to)
		}
	case opDrop:
		if d.both(p, alter+"DROP COLUMN "+ident(op.column)).err == nil {
			i := s.column(op.column)
			s.columns = slices.Delete(s.columns, i, i+1)
		} else { // the newer SQLite's next ALTER in the transaction would miss the column: it reads the schema again for this
			d.both(p, "SELECT 1 FROM "+s.table())
		}
	case opRename:
		if d.both(p, alter+"RENAME COLUMN "+ident(op.column)+" TO "+ident(op.to.name)).err == nil {
			s.rename(op.column, op.to.name)
		}
	case opUpdate:
		if len(s.cols()) == 0 {
			return
		}
		sql, args := "UPDATE "+s.table()+" SET "+ident(op.column)+" = ?", []changeset.Value{op.value}
		if len(op.row) == len(s.keys) {
			sql, args = sql+" WHERE "+isParams(s.keys), append(args, op.row...)
		}
		d.both(p, sql, args...)
	case opInsert:
		if len(op.row) == len(s.keys) {
			d.both(p, "INSERT OR IGNORE INTO "+s.table()+"("+idents("", s.keys, ",")+") VALUES ("+marks(len(s.keys))+")", op.row...)
		}
	case opDelete:
		if len(op.row) == len(s.keys) {
			d.both(p, "DELETE FROM "+s.table()+" WHERE "+isParams(s.keys), op.row...)
		}
	case opRemake:
		d.remake(p, s, op)
	case opIndex:
		if s.column(op.column) < 0 {
			return // SQLite takes a name in quotes for a text; whether it does so here is a setting
		}
		name := s.name + "_" + op.column
		if i := slices.IndexFunc(s.indexes, func(i index) bool { return i.name == name }); i >= 0 {
			if d.both(p, "DROP INDEX "+ident(name)).err == nil {
				s.indexes = slices.Delete(s.indexes, i, i+1)
			}
		} else if index := (index{name, []string{op.column}}); d.both(p, index.sql("", s.name)).err == nil {
			s.indexes = append(s.indexes, index)
		}
	case opUnfit:
		d.both(p, alter+"ADD COLUMN unfit REFERENCES other(x)")
	}
}

func (s *shape) rename(from, to string) {
	s.columns[s.column(from)].name = to
	for i := range s.columns {
		s.columns[i].def = strings.ReplaceAll(s.columns[i].def, ident(from), ident(to))
	}
	swap := func(names []string) {
		for i := range names {
			if names[i] == from {
				names[i] = to
			}
		}
	}
	swap(s.keys)
	for i := range s.indexes {
		s.indexes[i].columns = slices.Clone(s.indexes[i].columns)
		swap(s.indexes[i].columns)
	}
}

// remake copies the table into one with another primary key, as far as the rows have one.
func (d *differential) remake(p *pair, s *shape, op schemaOp) {
	remade := s.copy()
	remade.keys, remade.indexes = slices.Clone(op.keys), nil
	for i := range remade.columns {
		c := &remade.columns[i]
		if slices.Contains(op.keys, c.name) && !strings.Contains(c.def, "NOT NULL") {
			word, rest, _ := strings.Cut(c.def, " ")
			if strings.ToUpper(word) != word || word == "DEFAULT" {
				word, rest = "", c.def
			}
			c.def = strings.TrimSpace(word + " NOT NULL " + rest)
		}
	}
	var names []string
	for i := range s.columns {
		if !s.columns[i].generated() {
			names = append(names, s.columns[i].name)
		}
	}
	list := idents("", names, ",")
	for _, sql := range []string{
		remade.create("", "remade"),
		"INSERT OR IGNORE INTO remade(" + list + ") SELECT " + list + " FROM " + s.table() + " ORDER BY " + idents("", s.keys, ","),
		"DROP TABLE " + s.table(),
		"ALTER TABLE remade RENAME TO " + s.table(),
	} {
		if d.both(p, sql).err != nil {
			d.both(p, "DROP TABLE IF EXISTS remade")
			return
		}
	}
	*s = remade
}

// alter changes a table between crsql_begin_alter and crsql_commit_alter, in a transaction that ends with it: what the
// stock engine knows of a table that was altered is wrong until then.
func (d *differential) alter(p *pair, s *shape) {
	where := []*pair{p}
	if rapid.IntRange(0, 1).Draw(d.rt, "everywhere") == 1 { // as a migration is
		where = nil
		for _, other := range d.pairs {
			if other == p || !other.inTx {
				where = append(where, other)
			}
		}
	}
	var ops []schemaOp
	for range rapid.IntRange(0, 4).Draw(d.rt, "ops") {
		ops = append(ops, d.op(s))
	}
	commit := rapid.IntRange(0, 4).Draw(d.rt, "commit") > 0
	name := s.name
	for _, p := range where {
		if i := slices.IndexFunc(p.shapes, func(s shape) bool { return s.name == name }); i >= 0 {
			d.alterOne(p, i, ops, commit)
		}
	}
}

func (d *differential) alterOne(p *pair, i int, ops []schemaOp, commit bool) {
	before := copyShapes(p.shapes)
	s := &p.shapes[i]
	if !p.inTx {
		d.both(p, "BEGIN")
	}
	highest := d.schemaVersion(p)
	d.both(p, "SELECT crsql_begin_alter(?)", changeset.TextString(s.name))
	for _, op := range ops {
		if op.kind < opUpdate && s.column(op.column) < 0 {
			continue // the other database has it no more
		}
		d.apply(p, s, op)
	}
	highest = max(highest, d.schemaVersion(p))
	clocks := d.readClocks(p, s)
	failed := d.both(p, "SELECT crsql_commit_alter(?)", changeset.TextString(s.name)).err != nil
	switch {
	case failed: // theirs has rolled all back, ours up to crsql_begin_alter
		p.ours.run("ROLLBACK")
	case !slices.Equal(slices.Sorted(slices.Values(before[i].keys)), slices.Sorted(slices.Values(s.keys))):
		clocks = nil // all are new
		fallthrough
	default:
		d.settle(p, s, clocks)
		if commit {
			d.both(p, "COMMIT")
		} else {
			d.both(p, "ROLLBACK")
		}
	}
	p.inTx = false
	if failed || !commit {
		p.shapes, p.impactedDiffers = before, true
		d.passSchemaVersion(p, highest)
	}
	d.compare(p, schemaDump)
}

func (d *differential) schemaVersion(p *pair) int64 {
	return d.oracle.ask(p.name, false, oracleStep{SQL: "PRAGMA schema_version"})[0].rows[0][0].Int64()
}

// passSchemaVersion raises the version of the schema above the highest so far: the stock engine notices a change only at
// a version that it never saw, and a rollback brings old ones back.
func (d *differential) passSchemaVersion(p *pair, highest int64) {
	for range (highest - d.schemaVersion(p) + 3) / 2 { // in ours too, since a commit makes both read their version again
		d.both(p, "CREATE TABLE bump(x)")
		d.both(p, "DROP TABLE bump")
	}
}

// A clockRow is a row of a clock table.
type clockRow struct {
	key                     int64
	col                     string
	version, dbVersion, seq int64
	site, pk                string
	local                   bool
	atRow                   bool // the table has the row
}

type clockKey struct {
	key int64
	col string
}

func clockQuery(s *shape, atRow string) string {
	return "SELECT c.key, c.col_name, c.col_version, c.db_version, c.seq, s.site_id, c.site_id = 0, " + atRow + ", k.* FROM " +
		ident(s.name+clockSuffix) + " c JOIN " + ident(s.name+pksSuffix) + " k ON k.__crsql_key = c.key LEFT JOIN crsql_site_id s ON s.ordinal = c.site_id"
}

func readClockRows(rows [][]changeset.Value) map[clockKey]clockRow {
	clocks := make(map[clockKey]clockRow)
	for _, row := range rows {
		c := clockRow{
			key: row[0].Int64(), col: string(row[1].Bytes()), version: row[2].Int64(), dbVersion: row[3].Int64(), seq: row[4].Int64(),
			site: dumpRow(row[5:6]), local: row[6].Int64() == 1, atRow: row[7].Int64() == 1, pk: dumpRow(row[9:]),
		}
		clocks[clockKey{c.key, c.col}] = c
	}
	return clocks
}

// readClocks reads the clocks as both engines have them before one of them differs.
func (d *differential) readClocks(p *pair, s *shape) map[clockKey]clockRow {
	return readClockRows(p.ours.run(clockQuery(s, "0")))
}

// settle checks how the clocks that crsql_commit_alter has written differ, and gives theirs the ones of ours. before are
// those that were there, or nil if all have been made anew.
func (d *differential) settle(p *pair, s *shape, before map[clockKey]clockRow) {
	next := int64(unknown)
	for key, clock := range d.readClocks(p, s) {
		if old, known := before[key]; known && old.pk == clock.pk {
			continue
		}
		if next == unknown {
			next = p.ours.int("SELECT crsql_next_db_version()")
		}
		if clock.dbVersion != next {
			d.fail("%s: the new clock %+v is not of the next version, %d", p.name, clock, next)
		}
	}
	current := d.tell(p, oracleStep{SQL: "SELECT crsql_db_version()"})[0][0].Int64()
	d.adopt(p, s, func(ours, theirs clockRow, next int64) string {
		old, known := before[clockKey{ours.key, ours.col}]
		switch {
		case !ours.local || ours.dbVersion != next:
			return "ours is not a local write of this transaction"
		case ours.col == changeset.SentinelCID && theirs.version%2 == 0 && ours.version == theirs.version+1 && ours.atRow:
			return "" // theirs leaves a row deleted that is there
		case known && old.pk == ours.pk:
			return "the clock was there before"
		case ours.version != theirs.version || theirs.dbVersion != current || !theirs.local:
			return "theirs is no write of the current version"
		}
		return ""
	})
	// Theirs lets the version fall when clocks of this transaction go.
	const floor = "SELECT value FROM crsql_master WHERE key = 'pre_compact_dbversion'"
	stored := func(rows [][]changeset.Value) int64 {
		if rows == nil {
			return 0
		}
		return rows[0][0].Int64()
	}
	ours, theirs := stored(p.ours.run(floor)), stored(d.tell(p, oracleStep{SQL: floor}))
	if ours < theirs {
		d.fail("%s: pre_compact_dbversion: ours %d, theirs %d", p.name, ours, theirs)
	}
	if ours != theirs {
		d.tell(p, oracleStep{SQL: "INSERT OR REPLACE INTO crsql_master VALUES ('pre_compact_dbversion', ?)", Args: []any{encodeTyped(changeset.Integer(ours))}})
	}
}

// adopt gives theirs the clocks of ours. Each that differs must be one that check, which says what is wrong, accepts; next
// is the version of this transaction.
func (d *differential) adopt(p *pair, s *shape, check func(ours, theirs clockRow, next int64) string) {
	on := make([]string, len(s.keys))
	for i, pk := range s.keys {
		on[i] = "t." + ident(pk) + " = k." + ident(pk)
	}
	sql := clockQuery(s, "EXISTS (SELECT 1 FROM "+s.table()+" t WHERE "+strings.Join(on, " AND ")+")")
	ours, theirs := readClockRows(p.ours.run(sql)), readClockRows(d.tell(p, oracleStep{SQL: sql}))
	next := unknown
	var steps []oracleStep
	for key, mine := range ours {
		other, ok := theirs[key]
		if !ok || mine.pk != other.pk {
			d.fail("%s: the clock %v: ours %v, theirs %v", p.name, key, mine, other)
		}
		if mine == other {
			continue
		}
		if next == unknown {
			next = int(d.tell(p, oracleStep{SQL: "SELECT crsql_next_db_version()"})[0][0].Int64())
		}
		if why := check(mine, other, int64(next)); why != "" {
			d.fail("%s: the clock %v: %s\nours %+v\ntheirs %+v", p.name, key, why, mine, other)
		}
		step := oracleStep{SQL: "UPDATE " + ident(s.name+clockSuffix) + " SET col_version = ?, db_version = ?, site_id = 0, seq = ? WHERE key = ? AND col_name = ?"}
		for _, n := range []int64{mine.version, mine.dbVersion, mine.seq, mine.key} {
			step.Args = append(step.Args, encodeTyped(changeset.Integer(n)))
		}
		step.Args = append(step.Args, encodeTyped(changeset.TextString(mine.col)))
		steps = append(steps, step)
	}
	if len(ours) != len(theirs) {
		d.fail("%s: %d clocks of %s, theirs has %d", p.name, len(ours), s.name, len(theirs))
	}
	const get = "SELECT crsql_get_seq()"
	seq := p.ours.int(get) - d.tell(p, oracleStep{SQL: get})[0][0].Int64()
	for range seq {
		steps = append(steps, oracleStep{SQL: "SELECT crsql_increment_and_get_seq()"})
	}
	for range -seq {
		p.ours.run("SELECT crsql_increment_and_get_seq()")
	}
	if steps != nil {
		d.tell(p, steps...)
	}
}

// updateKey moves a row to another key. Ours makes the columns that move new writes.
func (d *differential) updateKey(p *pair, s *shape) {
	verb := rapid.SampledFrom([]string{"UPDATE ", "UPDATE OR REPLACE ", "UPDATE OR IGNORE "}).Draw(d.rt, "verb")
	sets, args := s.keys, d.key(s)
	if cols := s.cols(); len(cols) > 0 && rapid.Bool().Draw(d.rt, "also a column") {
		sets, args = append(slices.Clone(sets), cols[0]), append(args, d.value())
	}
	own := !p.inTx
	if own {
		d.both(p, "BEGIN")
		p.inTx = true
	}
	moved := d.both(p, verb+s.table()+" SET "+idents("", sets, " = ?, ")+" = ? WHERE "+isParams(s.keys), append(args, d.key(s)...)...)
	if moved.err == nil {
		keys := map[int64]bool{}
		d.adopt(p, s, func(ours, theirs clockRow, next int64) string {
			keys[ours.key] = true
			switch {
			case ours.col == changeset.SentinelCID || !ours.atRow || len(keys) > 1:
				return "it is not of the moved row"
			case !ours.local || ours.dbVersion != next:
				return "ours is not a local write of this transaction"
			case ours.version < theirs.version:
				return "ours has a lower version"
			}
			return ""
		})
	}
	if own {
		d.both(p, "COMMIT")
		p.inTx = false
	}
}

// automigrate brings a database to a schema that differs from its own.
func (d *differential) automigrate(p *pair) {
	var wanted, after []shape
	changed := map[string]bool{} // the tables that ours alters too
	for i := range p.shapes {
		have, want := &p.shapes[i], p.shapes[i].copy()
		for range rapid.IntRange(0, 2).Draw(d.rt, "changes") {
			d.vary(have, &want)
		}
		then := want.copy() // what is added comes last
		slices.SortStableFunc(then.columns, func(x, y column) int {
			return cmp.Compare(uint(have.column(x.name)), uint(have.column(y.name)))
		})
		changed[have.name] = !slices.Equal(have.columns, then.columns)
		wanted, after = append(wanted, want), append(after, then)
	}
	if rapid.IntRange(0, 3).Draw(d.rt, "new table") == 0 {
		s := rapid.SampledFrom(shapes).Draw(d.rt, "table")
		if !slices.ContainsFunc(p.shapes, func(have shape) bool { return have.name == s.name }) {
			wanted, after = append(wanted, s.copy()), append(after, s.copy())
		}
	}
	if rapid.IntRange(0, 4).Draw(d.rt, "drop") == 0 {
		// Dropped and made again, without its rows: theirs fails to read the clocks of a table that is missing.
		i := rapid.IntRange(0, len(p.shapes)-1).Draw(d.rt, "dropped")
		d.both(p, "DELETE FROM "+p.shapes[i].table())
		d.migrate(p, slices.Delete(copyShapes(p.shapes), i, i+1), nil)
		after[i] = wanted[i].copy()
		changed[after[i].name] = true
	}
	d.migrate(p, wanted, changed)
	p.shapes = after
	d.compare(p, schemaDump)
}

// vary changes a table of a wanted schema as crsql_automigrate of the stock engine can.
func (d *differential) vary(have, want *shape) {
	switch rapid.IntRange(0, 3).Draw(d.rt, "vary") {
	case 0:
		c := column{rapid.SampledFrom(newColumns).Draw(d.rt, "new column"), rapid.SampledFrom(newTypes).Draw(d.rt, "type")}
		word, _, _ := strings.Cut(c.def, " ")
		strict := slices.Contains([]string{"INTEGER", "TEXT", "REAL", "BLOB"}, word)
		if have.column(c.name) < 0 && want.column(c.name) < 0 && (strict || have.options != " STRICT") {
			want.columns = slices.Insert(want.columns, rapid.IntRange(0, len(want.columns)).Draw(d.rt, "at"), c)
		}
	case 1:
		i := rapid.IntRange(0, len(want.columns)-1).Draw(d.rt, "column")
		name := want.columns[i].name
		used := func(s *shape) bool {
			return slices.Contains(s.keys, name) ||
				slices.ContainsFunc(s.indexes, func(i index) bool { return slices.Contains(i.columns, name) }) ||
				slices.ContainsFunc(s.columns, func(c column) bool { return c.name != name && strings.Contains(c.def, ident(name)) })
		}
		if !used(want) && !used(have) && !want.columns[i].generated() { // which theirs does not see
			want.columns = slices.Delete(want.columns, i, i+1)
		}
	case 2:
		if len(want.indexes) > 0 {
			want.indexes = want.indexes[1:]
		}
	case 3:
		want.indexes = append(want.indexes, index{fmt.Sprintf("%s_more%d", want.name, len(want.indexes)), []string{want.keys[0]}})
	}
}

// migrate runs crsql_automigrate in both engines. Theirs alters those tables too that do not change.
func (d *differential) migrate(p *pair, wanted []shape, changed map[string]bool) {
	d.both(p, "BEGIN")
	clocks := map[string]map[clockKey]clockRow{}
	for i := range p.shapes {
		clocks[p.shapes[i].name] = d.readClocks(p, &p.shapes[i])
	}
	got := d.both(p, "SELECT crsql_automigrate(?, 'SELECT crsql_finalize()')", changeset.TextString(schema(wanted)))
	if got.err != nil || dump(got.rows) != `"migration complete"` {
		d.fail("%s: crsql_automigrate: %v %v", p.name, got.err, got.rows)
	}
	for i := range p.shapes {
		s := &p.shapes[i]
		if !changed[s.name] && slices.ContainsFunc(wanted, func(w shape) bool { return w.name == s.name }) {
			p.ours.run("SELECT crsql_begin_alter(?)", s.name)
			p.ours.run("SELECT crsql_commit_alter(?)", s.name)
		}
	}
	for i := range wanted {
		if before, ok := clocks[wanted[i].name]; ok {
			d.settle(p, &wanted[i], before)
		}
	}
	d.both(p, "COMMIT")
	d.same(p, schemaDump)
}
