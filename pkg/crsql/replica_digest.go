package crsql

import (
	"cmp"
	"context"
	"database/sql/driver"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// Prepared statements of digests.
const (
	stmtDigestScan     statementKind = 192 + iota // whole rows
	stmtDigestRow                                 // the row of a key
	stmtDigestKeys                                // keys
	stmtDigestCount                               // how many keys there are
	stmtDigestBase                                // how many rows the table itself has
	stmtDigestVersions                            // local versions of a key
)

// DigestRequest asks what a replica holds.
type DigestRequest struct {
	Table    string             // "": all tables
	Prefixes []changeset.Prefix // of Table's rows; none: the digest of the table as a whole
}

// DigestResult is what one snapshot holds.
type DigestResult struct {
	Vector  map[changeset.SiteID]int64 // own entry included
	Missing bool                       // there is no such table
	Tables  []changeset.TableDigest    // without prefixes: in bytewise order of their names
	Parts   []changeset.Part           // with prefixes: one for each
}

// A tableTree is the digest of a table as it was at a version.
type tableTree struct {
	newest int64 // highest local version of the table's clocks
	schema int64 // schema version
	tree   *changeset.DigestTree
}

// Digest computes digests of rows, in one snapshot. For tables as a whole it reads every row of them, so that what it says
// is what the database file holds now, however it came there. Parts of a table are answered from what that left behind, as
// far as it goes and while no change has come since, and otherwise by reading keys and the rows of the parts.
//
// It blocks on the disk, and returns soon after ctx ends.
func (r *Replica) Digest(ctx context.Context, q DigestRequest) (DigestResult, error) {
	var result DigestResult
	err := r.settled(ctx, func(s *session, v versions) (err error) {
		e := s.engine
		result = DigestResult{}
		if result.Vector, err = e.siteNumbers("SELECT site, version FROM main.crmesh_vector"); err != nil {
			return err
		}
		if own := v.heads().Own; own > 0 {
			result.Vector[e.siteID] = own
		}
		if len(q.Prefixes) > 0 {
			t := e.tables[q.Table]
			if t == nil {
				result.Missing = true
				return nil
			}
			result.Parts, err = r.digestParts(e, t, q.Prefixes)
			return err
		}
		for _, t := range e.order {
			if q.Table != "" && t.name != q.Table {
				continue
			}
			digest, err := r.digestTable(e, t)
			if err != nil {
				return fmt.Errorf("read table %q: %w", t.name, err)
			}
			result.Tables = append(result.Tables, digest)
		}
		slices.SortFunc(result.Tables, func(a, b changeset.TableDigest) int { return cmp.Compare(a.Table, b.Table) })
		return nil
	})
	return result, err
}

// digestTable reads all rows of a table, and keeps its tree.
func (r *Replica) digestTable(e *engine, t *table) (changeset.TableDigest, error) {
	d := changeset.TableDigest{Table: t.name, Columns: changeset.ColumnsDigest(t.pks, t.cols)}
	newest, err := e.newestOf(t.name + clockSuffix)
	if err != nil {
		return d, err
	}
	rows, err := e.digestNumber(stmtDigestCount, t, "SELECT count(*) FROM "+t.keys())
	if err != nil {
		return d, err
	}
	base, err := e.digestNumber(stmtDigestBase, t, "SELECT count(*) FROM "+t.base())
	if err != nil {
		return d, err
	}
	reader := newDigestReader(t)
	tree := changeset.NewDigestTree(rows)
	st, err := e.stmts.get(statementKey{kind: stmtDigestScan, table: t}, func() string { return t.digestSQL("") })
	if err != nil {
		return d, err
	}
	alive := int64(0)
	err = st.each(nil, func(row []driver.Value) error {
		sum, there, ok, err := reader.row(row)
		if err != nil || !ok {
			return err
		}
		tree.Add(sum.Place, sum.Digest)
		if there && sum.CL%2 == 1 {
			alive++
		}
		return nil
	})
	if err != nil {
		return d, err
	}
	d.Sum, d.Stray = tree.Total, max(base-alive, 0)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.trees == nil {
		r.trees = make(map[string]*tableTree)
	}
	maps.DeleteFunc(r.trees, func(name string, _ *tableTree) bool { return e.tables[name] == nil })
	r.trees[t.name] = &tableTree{newest: newest, schema: e.schemaVersion, tree: tree}
	return d, nil
}

// digestParts answers for parts of a table.
func (r *Replica) digestParts(e *engine, t *table, prefixes []changeset.Prefix) ([]changeset.Part, error) {
	newest, err := e.newestOf(t.name + clockSuffix)
	if err != nil {
		return nil, err
	}
	rows, err := e.digestNumber(stmtDigestCount, t, "SELECT count(*) FROM "+t.keys())
	if err != nil {
		return nil, err
	}
	coarse := slices.ContainsFunc(prefixes, func(p changeset.Prefix) bool { return p.Len < changeset.DepthFor(rows) })
	tree := r.treeOf(e, t, newest)
	if tree == nil && coarse {
		if _, err := r.digestTable(e, t); err != nil {
			return nil, err
		}
		tree = r.treeOf(e, t, newest)
	}
	parts := make([]changeset.Part, len(prefixes))
	var listed []changeset.Prefix
	var at []int // of listed, in parts
	for i, p := range prefixes {
		if tree != nil {
			if children, ok := tree.Children(p); ok {
				parts[i].Children = children
				continue
			}
		}
		listed, at = append(listed, p), append(at, i)
	}
	if len(listed) == 0 {
		return parts, nil
	}
	scan := changeset.NewPartScan(listed)
	reader := newDigestReader(t)
	err = e.eachKey(t, reader, scan.Wants, func(key int64) error {
		st, err := e.stmts.get(statementKey{kind: stmtDigestRow, table: t}, func() string {
			return t.digestSQL(" WHERE k.__crsql_key = ?")
		})
		if err != nil {
			return err
		}
		row, found, err := st.first(key)
		if err != nil || !found {
			return err
		}
		sum, _, ok, err := reader.row(row)
		if ok {
			sum.Key = slices.Clone(sum.Key)
			scan.Add(sum)
		}
		return err
	})
	for i, part := range scan.Parts() {
		parts[at[i]] = part
	}
	return parts, err
}

func (r *Replica) treeOf(e *engine, t *table, newest int64) *changeset.DigestTree {
	r.mu.Lock()
	defer r.mu.Unlock()
	if k := r.trees[t.name]; k != nil && k.newest == newest && k.schema == e.schemaVersion {
		return k.tree
	}
	return nil
}

// eachKey calls f for the short keys of the rows whose place is wanted.
func (e *engine) eachKey(t *table, reader *digestReader, wants func(changeset.Place) bool, f func(int64) error) error {
	st, err := e.stmts.get(statementKey{kind: stmtDigestKeys, table: t}, func() string {
		return "SELECT k.__crsql_key, " + idents("+k.", t.pks, ",") + " FROM " + t.keys() + " AS k"
	})
	if err != nil {
		return err
	}
	return st.each(nil, func(row []driver.Value) error {
		pk, err := reader.pack(row[1:])
		if err != nil {
			return err
		}
		if wants(changeset.PlaceOf(pk)) {
			return f(toInt64(row[0]))
		}
		return nil
	})
}

func (e *engine) digestNumber(kind statementKind, t *table, sql string) (int64, error) {
	st, err := e.stmts.get(statementKey{kind: kind, table: t}, func() string { return sql })
	if err != nil {
		return 0, err
	}
	n, _, err := st.int64()
	return n, err
}

// The columns of a row of digestSQL before the primary key and the values.
const (
	digestClocks = iota
	digestThere
	digestPK
)

// digestSQL returns the statement for rows as digests see them: all clocks as one text of packedVersions, whether the table
// itself holds the row, the key, and the values. It goes by the keys, not by the table: so deleted rows are there, too.
func (t *table) digestSQL(where string) string {
	sql := "SELECT (SELECT " + packedVersions + " FROM " + t.clock() + " WHERE key = k.__crsql_key), " +
		"t." + ident(t.pks[0]) + " IS NOT NULL, " + idents("+k.", t.pks, ",")
	for _, col := range t.cols {
		sql += ", +t." + ident(col)
	}
	return sql + " FROM " + t.keys() + " AS k LEFT JOIN " + t.base() + " AS t ON " + equalColumns("t", "k", t.pks) + where
}

// A digestReader makes digests of rows of one table.
type digestReader struct {
	t      *table
	order  []int // of t.cols, in bytewise order of their names
	clocks rowClocks
	keys   []changeset.Value
	packed []byte
	hasher changeset.RowHasher
}

func newDigestReader(t *table) *digestReader {
	d := &digestReader{t: t, order: make([]int, len(t.cols))}
	for i := range d.order {
		d.order[i] = i
	}
	slices.SortFunc(d.order, func(a, b int) int { return cmp.Compare(t.cols[a], t.cols[b]) })
	d.clocks.cells = make([]cell, len(t.cols))
	return d
}

// pack returns the packed key; it is valid until the next call.
func (d *digestReader) pack(pk []driver.Value) ([]byte, error) {
	d.keys = d.keys[:0]
	for _, v := range pk {
		d.keys = append(d.keys, fromDriver(v))
	}
	var err error
	d.packed, err = changeset.AppendPacked(d.packed[:0], d.keys)
	return d.packed, err
}

// row makes the digest of a row of digestSQL; ok is false for a key without clocks, which sync does not know of.
func (d *digestReader) row(row []driver.Value) (sum changeset.RowSum, there, ok bool, err error) {
	if row[digestClocks] == nil {
		return sum, false, false, nil
	}
	d.clocks.cl = 0
	clear(d.clocks.cells)
	for packed := toText(row[digestClocks]); packed != ""; {
		var text string
		text, packed, _ = strings.Cut(packed, "\x00")
		number, name, _ := strings.Cut(text, " ")
		version, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return sum, false, false, fmt.Errorf("a clock of table %q is damaged: %w", d.t.name, err)
		}
		d.clocks.set(d.t, name, version)
	}
	pk, values := row[digestPK:digestPK+len(d.t.pks)], row[digestPK+len(d.t.pks):]
	if sum.Key, err = d.pack(pk); err != nil {
		return sum, false, false, err
	}
	there = toInt64(row[digestThere]) == 1
	sum.Place, sum.CL = changeset.PlaceOf(sum.Key), d.clocks.cl
	d.hasher.Begin(d.t.name, sum.Key, sum.CL, there)
	if sum.CL%2 == 1 {
		for _, i := range d.order {
			if c := &d.clocks.cells[i]; c.clocked {
				d.hasher.Cell(d.t.cols[i], c.version, fromDriver(values[i]))
				sum.Versions += c.version
			}
		}
	}
	sum.Digest = d.hasher.Sum()
	return sum, there, true, nil
}
