package changeset

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
	"slices"
)

// Digests tell whether two databases hold the same rows. docs/PROTOCOL.md has their layout.

// Bounds of digests.
const (
	MaxPartRows  = 64             // rows that a Part lists; a part of more is given by its children
	MaxKeyShown  = 128            // bytes of a packed key that a RowSum carries
	PartChildren = 16             // children of a prefix: one for each nibble
	MaxPrefix    = 2*placeLen - 1 // nibbles of a prefix, so that it has children
	maxDepth     = 4              // nibbles of the buckets of a DigestTree: 65,536 of 24 bytes
	bucketRows   = 32             // rows that a bucket should have
	placeLen     = 16
)

// Digest is the digest of a row, or the sum of those of a set of rows: a number of 128 bits.
type Digest struct{ Hi, Lo uint64 }

// DigestOf returns the number whose big-endian bytes b begins with; b has 16 bytes at least.
func DigestOf(b []byte) Digest {
	return Digest{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}
}

// Append appends the 16 bytes of d, big-endian.
func (d Digest) Append(dst []byte) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(dst, d.Hi), d.Lo)
}

// Sum is how many rows a set has, and the sum of their digests modulo 2^128: so their order does not matter, and sets that
// share no row are added.
type Sum struct {
	Count  int64
	Digest Digest
}

// Add adds a row.
func (s *Sum) Add(d Digest) { s.AddSum(Sum{1, d}) }

// AddSum adds the rows of another set.
func (s *Sum) AddSum(o Sum) {
	var carry uint64
	s.Count += o.Count
	s.Digest.Lo, carry = bits.Add64(s.Digest.Lo, o.Digest.Lo, 0)
	s.Digest.Hi, _ = bits.Add64(s.Digest.Hi, o.Digest.Hi, carry)
}

// RowHasher makes the digest of one row after the other. Its zero value is ready for use.
type RowHasher struct{ buf []byte }

// Begin begins a row: its table, packed key and causal length, and whether the table itself holds the row.
func (h *RowHasher) Begin(table string, pk []byte, cl int64, there bool) {
	h.buf = appendCounted(h.buf[:0], table)
	h.buf = appendCounted(h.buf, pk)
	h.buf = binary.AppendUvarint(h.buf, uint64(cl))
	if there {
		h.buf = append(h.buf, 1)
	} else {
		h.buf = append(h.buf, 0)
	}
}

// Cell adds a column. Cells come in bytewise order of their names; the sentinel is none of them, nor has a deleted row any.
func (h *RowHasher) Cell(cid string, version int64, v Value) {
	h.buf = appendCounted(h.buf, cid)
	h.buf = binary.AppendUvarint(h.buf, uint64(version))
	if v.Kind() == KindReal && v.Float64() == 0 {
		v = Real(0) // a merge takes -0.0 for equal to it, and leaves each where it is
	}
	h.buf = AppendValue(h.buf, v)
}

// Sum returns the row's digest.
func (h *RowHasher) Sum() Digest {
	sum := sha256.Sum256(h.buf)
	return DigestOf(sum[:])
}

func appendCounted[T string | []byte](dst []byte, s T) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// ColumnsDigest is the digest of the columns that a table has: key is the primary key's in its order, and cells the
// others in any. Rows of two tables are compared only where it is the same.
func ColumnsDigest(key, cells []string) Digest {
	b := binary.AppendUvarint(nil, uint64(len(key)))
	for _, name := range key {
		b = appendCounted(b, name)
	}
	for _, name := range slices.Sorted(slices.Values(cells)) {
		b = appendCounted(b, name)
	}
	sum := sha256.Sum256(b)
	return DigestOf(sum[:])
}

// Place is where a row stands among those of its table: the first 16 bytes of the SHA-256 of its packed key. So rows are
// spread evenly whatever the keys are, and a range of places holds the same rows for everybody, in whatever order they
// are read.
type Place [placeLen]byte

// PlaceOf returns the place of a row by its packed key.
func PlaceOf(pk []byte) Place {
	sum := sha256.Sum256(pk)
	return Place(sum[:placeLen])
}

func (p Place) nibble(i uint8) byte { return p[i/2] >> (4 * (1 - i%2)) & 15 }

// Prefix names the rows of a table whose places begin with the first Len nibbles (4 bits) of Place, at most MaxPrefix. The
// rest of Place is zero. The zero Prefix names all rows.
type Prefix struct {
	Place Place
	Len   uint8
}

// PrefixOf returns the prefix of p with n nibbles.
func PrefixOf(p Place, n uint8) Prefix {
	clear(p[(n+1)/2:])
	if n%2 == 1 {
		p[n/2] &= 0xf0
	}
	return Prefix{p, n}
}

// Child returns the prefix that is longer by the nibble i.
func (p Prefix) Child(i int) Prefix {
	p.Place[p.Len/2] |= byte(i) << (4 * (1 - p.Len%2))
	p.Len++
	return p
}

// RowSum is one row of a Part.
type RowSum struct {
	Place    Place
	Key      []byte // packed; nil where it has more than MaxKeyShown bytes
	CL       int64  // causal length
	Versions int64  // sum of the cells' col_versions, modulo 2^64
	Digest   Digest
}

// Part is what a prefix names: Children, one Sum for each nibble that may follow, or where it is at most MaxPartRows rows
// these, in ascending order of their places, and Children is nil.
type Part struct {
	Children []Sum
	Rows     []RowSum
}

// Sums returns the part's children, whichever way it is given.
func (p Part) Sums(of Prefix) [PartChildren]Sum {
	var out [PartChildren]Sum
	copy(out[:], p.Children)
	for i := range p.Rows {
		out[p.Rows[i].Place.nibble(of.Len)].Add(p.Rows[i].Digest)
	}
	return out
}

// DigestTree is the digest of a table by places: so fine that most of the way to single rows takes no other look at them.
type DigestTree struct {
	Total   Sum
	depth   uint8
	buckets []Sum
}

// DepthFor returns how many nibbles tell the buckets of a table of so many rows apart.
func DepthFor(rows int64) uint8 {
	depth := uint8(0)
	for n := int64(bucketRows); n < rows && depth < maxDepth; n *= PartChildren {
		depth++
	}
	return depth
}

// NewDigestTree returns the tree of a table that has about so many rows.
func NewDigestTree(rows int64) *DigestTree {
	depth := DepthFor(rows)
	return &DigestTree{depth: depth, buckets: make([]Sum, 1<<(4*depth))}
}

// Add adds a row.
func (t *DigestTree) Add(p Place, d Digest) {
	t.Total.Add(d)
	t.buckets[bucket(p, t.depth)].Add(d)
}

func bucket(p Place, depth uint8) int {
	return int(binary.BigEndian.Uint32(p[:]) >> (32 - 4*uint32(depth)) & (1<<(4*depth) - 1))
}

// Children returns the sums below a prefix. It is false where the tree is too coarse to tell, or the rows are so few that
// they are to be listed.
func (t *DigestTree) Children(p Prefix) ([]Sum, bool) {
	if p.Len >= t.depth {
		return nil, false
	}
	width := 1 << (4 * (t.depth - p.Len - 1)) // buckets of a child
	at := bucket(p.Place, t.depth)
	out := make([]Sum, PartChildren)
	var total int64
	for i := range out {
		for _, b := range t.buckets[at+i*width : at+(i+1)*width] {
			out[i].AddSum(b)
		}
		total += out[i].Count
	}
	return out, total > MaxPartRows
}

// PartScan makes parts of the rows that pass by, in any order.
type PartScan struct {
	lengths []uint8 // of the prefixes, each once
	by      map[Prefix]*gathering
	order   []*gathering
}

type gathering struct {
	prefix   Prefix
	children [PartChildren]Sum
	rows     []RowSum
	many     bool
}

// NewPartScan returns a scan for the parts that prefixes name.
func NewPartScan(prefixes []Prefix) *PartScan {
	s := &PartScan{by: make(map[Prefix]*gathering, len(prefixes))}
	for _, p := range prefixes {
		g := s.by[p]
		if g == nil {
			g = &gathering{prefix: p}
			s.by[p] = g
			if !slices.Contains(s.lengths, p.Len) {
				s.lengths = append(s.lengths, p.Len)
			}
		}
		s.order = append(s.order, g)
	}
	return s
}

// Wants reports whether a row at place belongs to one of the parts.
func (s *PartScan) Wants(place Place) bool {
	for _, n := range s.lengths {
		if s.by[PrefixOf(place, n)] != nil {
			return true
		}
	}
	return false
}

// Add adds a row. It keeps r.Key only where that is short, and as it is.
func (s *PartScan) Add(r RowSum) {
	if len(r.Key) > MaxKeyShown {
		r.Key = nil
	}
	for _, n := range s.lengths {
		g := s.by[PrefixOf(r.Place, n)]
		if g == nil {
			continue
		}
		g.children[r.Place.nibble(n)].Add(r.Digest)
		if len(g.rows) == MaxPartRows {
			g.many = true
		} else {
			g.rows = append(g.rows, r)
		}
	}
}

// Parts returns the parts, in the order of the prefixes.
func (s *PartScan) Parts() []Part {
	out := make([]Part, len(s.order))
	for i, g := range s.order {
		if g.many {
			out[i].Children = g.children[:]
			continue
		}
		slices.SortFunc(g.rows, func(a, b RowSum) int { return bytes.Compare(a.Place[:], b.Place[:]) })
		out[i].Rows = g.rows
	}
	return out
}

// TableDigest is the digest of a table.
type TableDigest struct {
	Table   string
	Columns Digest // see ColumnsDigest
	Sum     Sum
	// Stray is how many rows the table holds beside those that sync knows of: they were written past cr-sqlite.
	Stray int64
}
