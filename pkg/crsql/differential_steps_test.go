package crsql

import (
	"errors"
	"fmt"
	"slices"

	"pgregory.net/rapid"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

func (d *differential) value() changeset.Value {
	return rapid.SampledFrom(edgeValues).Draw(d.rt, "value")
}

func (d *differential) key(s *shape) []changeset.Value {
	key := make([]changeset.Value, len(s.keys))
	for i, name := range s.keys {
		switch n := rapid.IntRange(0, 2).Draw(d.rt, "key"); s.kind(name) {
		case changeset.KindInteger:
			key[i] = changeset.Integer([]int64{1, -2, 1 << 40}[n])
		case changeset.KindText:
			key[i] = changeset.TextString([]string{"", "k", "k\x00é"}[n])
		case changeset.KindBlob:
			key[i] = changeset.Blob([][]byte{{}, {1}, {1, 0}}[n])
		default:
			key[i] = []changeset.Value{changeset.Integer(1), changeset.Real(1.5), changeset.TextString("1")}[n]
		}
	}
	return key
}

func (d *differential) insert(p *pair, s *shape) {
	verb := rapid.SampledFrom([]string{"INSERT", "INSERT", "INSERT OR REPLACE", "INSERT OR IGNORE", "UPSERT"}).Draw(d.rt, "verb")
	names, args := append([]string(nil), s.keys...), d.key(s)
	for _, col := range s.cols() {
		if rapid.IntRange(0, 4).Draw(d.rt, "give") > 0 {
			names, args = append(names, col), append(args, d.value())
		}
	}
	suffix := ""
	if verb == "UPSERT" {
		verb, suffix = "INSERT", " ON CONFLICT DO NOTHING"
		if len(names) > len(s.keys) {
			col := ident(names[len(names)-1])
			suffix = " ON CONFLICT DO UPDATE SET " + col + " = excluded." + col
		}
	}
	d.both(p, verb+" INTO "+s.table()+"("+idents("", names, ",")+") VALUES ("+marks(len(names))+")"+suffix, args...)
}

// step does one random thing to a database, and compares what it has come to.
func (d *differential) step(p *pair) {
	s := &p.shapes[rapid.IntRange(0, len(p.shapes)-1).Draw(d.rt, "table")]
	switch n := rapid.IntRange(0, 23).Draw(d.rt, "step"); {
	case n < 6:
		d.insert(p, s)
	case n < 8:
		d.update(p, s)
	case n < 10:
		if rapid.IntRange(0, 4).Draw(d.rt, "all") == 0 {
			d.both(p, "DELETE FROM "+s.table())
		} else {
			d.both(p, "DELETE FROM "+s.table()+" WHERE "+isParams(s.keys), d.key(s)...)
		}
	case n < 11:
		d.other(p, s)
	case n < 13:
		d.transaction(p)
	case n < 16 && len(d.pairs) > 1:
		d.sync(p)
	case n < 18:
		d.updateKey(p, s)
	case n < 20:
		d.alter(p, s)
		return
	case n < 21 && !p.inTx:
		d.automigrate(p)
		return
	default:
		d.synthetic(p, s)
	}
	d.compare(p)
}

func (d *differential) update(p *pair, s *shape) {
	cols := s.cols()
	if len(cols) == 0 {
		return
	}
	cols = cols[:rapid.IntRange(1, len(cols)).Draw(d.rt, "columns")]
	var args []changeset.Value
	for range cols {
		args = append(args, d.value())
	}
	where := ""
	if rapid.IntRange(0, 3).Draw(d.rt, "one row") > 0 {
		where = " WHERE " + isParams(s.keys)
		args = append(args, d.key(s)...)
	}
	d.both(p, "UPDATE "+s.table()+" SET "+idents("", cols, " = ?, ")+" = ?"+where, args...)
}

// other runs what is rarer in a database's life.
func (d *differential) other(p *pair, s *shape) {
	switch rapid.IntRange(0, 6).Draw(d.rt, "other") {
	case 0: // changes nothing
		col := ident(append(append([]string(nil), s.cols()...), s.keys...)[0])
		d.both(p, "UPDATE "+s.table()+" SET "+col+" = "+col)
	case 1: // the same key may stand twice
		names := append(append([]string(nil), s.keys...), s.cols()...)
		var args []changeset.Value
		for range 2 {
			args = append(args, d.key(s)...)
			for range s.cols() {
				args = append(args, d.value())
			}
		}
		d.both(p, "INSERT OR REPLACE INTO "+s.table()+"("+idents("", names, ",")+") VALUES ("+marks(len(names))+"), ("+marks(len(names))+")", args...)
	case 2:
		if !p.inTx { // what follows cannot be refused, but is several statements
			d.tell(p, keepFloor)
			d.both(p, "SELECT crsql_as_table(?)", changeset.TextString(s.name))
			d.insert(p, s)
			d.both(p, "SELECT crsql_as_crr(?)", changeset.TextString(s.name))
		}
	case 3: // a table whose clocks outlive it
		if !p.inTx {
			// Of clocks without their row the stock engine makes an error when they tie, ours lets the change win.
			d.both(p, "DELETE FROM "+s.table())
			d.both(p, "DROP TABLE "+s.table())
			d.create(p, s)
			d.both(p, "SELECT crsql_as_crr(?)", changeset.TextString(s.name))
			d.insert(p, s) // not earlier: see TestTableMadeAgain
			d.insert(p, s)
		}
	case 4:
		d.both(p, "SELECT crsql_next_db_version(?)", changeset.Integer(rapid.Int64Range(0, 20).Draw(d.rt, "next")))
		if !p.inTx { // committed at once: of a merge without effect, ours is no commit
			d.both(p, "DELETE FROM crsql_tracked_peers")
		}
	case 5: // a table that is no CRR
		d.both(p, "INSERT OR REPLACE INTO crsql_tracked_peers VALUES (x'01', 1, 1, 1, 1)")
	default:
		for _, where := range []string{
			"db_version > 1 AND site_id IS NOT crsql_site_id()", "site_id = crsql_site_id() AND db_version <= 2", "cid = '-1'", "cl = 1 AND seq < 2", "col_version > 1",
			`"table" = 't1' AND pk = x'010901'`, "val IS NULL", "val IS NOT NULL", "cl = 1 ORDER BY db_version DESC, seq DESC",
		} {
			sql := "SELECT * FROM crsql_changes WHERE " + where
			theirs := d.oracle.ask(p.name, false, oracleStep{SQL: sql})[0]
			if theirs.err != nil {
				d.fail("%s: %s: theirs: %v", p.name, sql, theirs.err)
			}
			if ours, theirs := dump(p.ours.run(sql)), dump(theirs.rows); ours != theirs {
				d.fail("%s: %s\n%s", p.name, sql, difference(ours, theirs))
			}
		}
	}
}

func (d *differential) transaction(p *pair) {
	if !p.inTx {
		d.both(p, "BEGIN")
		p.inTx = true
		return
	}
	switch rapid.IntRange(0, 5).Draw(d.rt, "end") {
	case 0, 1, 2:
		if d.both(p, "COMMIT").err == nil {
			p.inTx = false
		}
	case 3:
		if d.both(p, "ROLLBACK").err == nil {
			p.inTx, p.impactedDiffers = false, true
		}
	case 4:
		d.both(p, "SAVEPOINT s")
	default:
		d.both(p, "ROLLBACK TO s")
	}
}

// sync merges changes of another database, in a random order.
func (d *differential) sync(p *pair) {
	from := rapid.SampledFrom(d.pairs).Draw(d.rt, "from")
	rows := d.oracle.ask(from.name, false, oracleStep{SQL: "SELECT * FROM crsql_changes"})[0].rows
	rows = d.fitting(p, rows)
	if rapid.IntRange(0, 1).Draw(d.rt, "shuffled") == 1 {
		rows = rapid.Permutation(rows).Draw(d.rt, "order")
	}
	if rapid.IntRange(0, 3).Draw(d.rt, "part") == 0 {
		rows = rows[:len(rows)/2]
	}
	if rapid.IntRange(0, 1).Draw(d.rt, "batch") == 1 {
		d.applyBatch(p, rows)
		return
	}
	for _, row := range rows {
		d.both(p, "INSERT INTO crsql_changes VALUES (?,?,?,?,?,?,?,?,?)", row...)
	}
}

// fitting leaves out the changes whose key has another number of columns here: the stock engine binds stale values.
func (d *differential) fitting(p *pair, rows [][]changeset.Value) [][]changeset.Value {
	var fit [][]changeset.Value
	for _, row := range rows {
		i := slices.IndexFunc(p.shapes, func(s shape) bool { return s.name == string(row[0].Bytes()) })
		pk, err := changeset.ParsePacked(row[1].Bytes())
		if err != nil {
			d.fail("%v", err)
		}
		if i < 0 || len(pk) == len(p.shapes[i].keys) {
			fit = append(fit, row)
		}
	}
	return fit
}

// synthetic merges changes that nobody wrote.
func (d *differential) synthetic(p *pair, s *shape) {
	var rows [][]changeset.Value
	key, oneKey := d.key(s), rapid.Bool().Draw(d.rt, "one key")
	for range rapid.IntRange(1, 8).Draw(d.rt, "changes") {
		if !oneKey {
			key = d.key(s)
		}
		pk, err := changeset.AppendPacked(nil, key)
		if err != nil {
			d.fail("%v", err)
		}
		cid := rapid.SampledFrom(append([]string{changeset.SentinelCID}, s.cols()...)).Draw(d.rt, "cid")
		if rapid.IntRange(0, 30).Draw(d.rt, "unknown column") == 0 {
			cid = "nowhere"
		}
		cl := rapid.Int64Range(-1, 5).Draw(d.rt, "cl")
		version, val := rapid.Int64Range(0, 4).Draw(d.rt, "col_version"), d.value()
		if cid == changeset.SentinelCID || cl%2 == 0 {
			version, val = max(cl, 0), changeset.Null() // our engine takes nothing else for a sentinel's version
		}
		site := changeset.Null()
		switch rapid.IntRange(0, 4).Draw(d.rt, "site") {
		case 0, 1:
			site = changeset.Blob([]byte("an unknown site!"))
		case 2:
			site = changeset.Blob([]byte("short"))
		case 3:
			site = changeset.Blob(nil)
		}
		dbVersion := rapid.Int64Range(0, 9).Draw(d.rt, "db_version")
		if p.inTx {
			dbVersion = 0 // the stock engine lets a refused change raise the transaction's version
		}
		rows = append(rows, []changeset.Value{
			changeset.TextString(s.name), changeset.Blob(pk), changeset.TextString(cid), val, changeset.Integer(version),
			changeset.Integer(dbVersion), site, changeset.Integer(cl),
			changeset.Integer(rapid.Int64Range(0, 9).Draw(d.rt, "seq")),
		})
	}
	if rapid.IntRange(0, 1).Draw(d.rt, "batch") == 1 {
		d.applyBatch(p, rows)
		return
	}
	for _, row := range rows {
		d.both(p, "INSERT INTO crsql_changes VALUES (?,?,?,?,?,?,?,?,?)", row...)
	}
}

// applyBatch merges changes under one version: theirs one by one, ours with applyChanges.
func (d *differential) applyBatch(p *pair, rows [][]changeset.Value) {
	wasInTx := p.inTx
	if !wasInTx {
		d.both(p, "BEGIN")
		p.inTx = true
	}
	d.both(p, "DELETE FROM crsql_tracked_peers") // a merge without effect writes nothing in ours, and so does not commit
	version := d.both(p, "SELECT crsql_db_version() + 1").rows[0][0].Int64()
	refused := map[int]bool{}
	changes := make([]changeset.Change, len(rows))
	for i, row := range rows {
		row = append([]changeset.Value(nil), row...)
		row[5] = changeset.Integer(version)
		typed := make([]any, len(row))
		for j, v := range row {
			typed[j] = encodeTyped(v)
		}
		d.script = append(d.script, fmt.Sprintf("%s: batch %d %s", p.name, i, dumpRow(row)))
		if d.theirs(p, "INSERT INTO crsql_changes VALUES (?,?,?,?,?,?,?,?,?)", typed).err != nil {
			refused[i], p.impactedDiffers = true, true
		}
		changes[i] = changeOf(row)
	}
	anyRefused := len(refused) > 0
	// Of the changes to a row ours writes what is left in the end. One that theirs refuses may be of no account then, and
	// not be refused: such ones are not given to ours.
	var given []changeset.Change
	var index []int
	for i := range changes {
		if !refused[i] || i+1 == len(changes) || !sameRow(&changes[i], &changes[i+1]) {
			given, index = append(given, changes[i]), append(index, i)
		} else {
			delete(refused, i)
		}
	}
	_, err := p.ours.engine.applyChanges(version, given)
	var failed ChangeErrors
	if err != nil && !errors.As(err, &failed) {
		d.fail("%s: applyChanges: %v", p.name, err)
	}
	for _, f := range failed {
		if i := index[f.Index]; !refused[i] {
			d.fail("%s: applyChanges refuses %d: %v", p.name, i, f)
		} else {
			delete(refused, i)
		}
	}
	for i := range refused {
		d.fail("%s: applyChanges accepts %d, which the reference refuses", p.name, i)
	}
	if anyRefused {
		d.raise(p)
	}
	if !wasInTx {
		d.compare(p)
		d.both(p, "COMMIT")
		p.inTx = false
		p.impactedDiffers = p.impactedDiffers && len(rows) == 0
	}
}

func changeOf(row []changeset.Value) changeset.Change {
	return changeset.Change{
		Table: string(row[0].Bytes()), PK: row[1].Bytes(), CID: string(row[2].Bytes()), Val: row[3], ColVersion: row[4].Int64(),
		DBVersion: row[5].Int64(), Site: changeset.SiteID(row[6].Bytes()), CL: row[7].Int64(), Seq: row[8].Int64(),
	}
}
