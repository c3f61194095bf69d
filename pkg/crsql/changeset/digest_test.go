package changeset

import (
	"encoding/hex"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write testdata/digests.txt anew from the code")

// digestRow is a row of testdata/digests.txt: name, table, packed key, cl, there, columns (name, version and packed value, by
// name), and then its place, its digest, and the sum of the digests so far. Fields are separated by tabs, those of a column
// by blanks, and columns by commas; bytes are hex.
type digestRow struct {
	name, table string
	key         []Value
	cl          int64
	there       bool
	cells       []digestCell
}

type digestCell struct {
	cid     string
	version int64
	val     Value
}

var digestRows = []digestRow{
	{"key-only", "tag", []Value{TextString("x")}, 1, true, nil},
	{"deleted", "tag", []Value{TextString("y")}, 2, false, nil},
	{"absent", "t", []Value{Integer(3)}, 1, false, []digestCell{{"c", 1, Null()}}},
	{"kinds", "tëst", []Value{Integer(-1), Blob(nil)}, 3, true, []digestCell{
		{"a", 1, Null()}, {"aa", 2, Integer(math.MinInt64)}, {"b", 3, Real(2)}, {"c", math.MaxInt64, TextString("Zürich\x00")},
		{"d", -1, Blob([]byte{0, 255})}, {"é", 0, Real(math.Inf(-1))},
	}},
	{"zero", "t", []Value{Integer(4)}, 1, true, []digestCell{{"c", 1, Real(0)}}},
	{"minus-zero", "t", []Value{Integer(4)}, 1, true, []digestCell{{"c", 1, Real(math.Copysign(0, -1))}}},
	{"integer-zero", "t", []Value{Integer(4)}, 1, true, []digestCell{{"c", 1, Integer(0)}}},
	{"long", "t", []Value{Blob(make([]byte, 300))}, math.MaxInt64, true, []digestCell{{"c", 1 << 40, Blob(make([]byte, 300))}}},
}

func TestDigestVectors(t *testing.T) {
	var sum Sum
	var lines []string
	var h RowHasher
	digests := map[string]Digest{}
	for _, r := range digestRows {
		pk, err := AppendPacked(nil, r.key)
		if err != nil {
			t.Fatal(err)
		}
		var cells []string
		h.Begin(r.table, pk, r.cl, r.there)
		for _, c := range r.cells {
			cells = append(cells, fmt.Sprintf("%s %d %x", c.cid, c.version, AppendValue(nil, c.val)))
			h.Cell(c.cid, c.version, c.val)
		}
		digests[r.name] = h.Sum()
		sum.Add(digests[r.name])
		place := PlaceOf(pk)
		lines = append(lines, fmt.Sprintf("%s\t%s\t%x\t%d\t%t\t%s\t%x\t%x\t%x", r.name, r.table, pk, r.cl, r.there, strings.Join(cells, ","),
			place[:], digests[r.name].Append(nil), sum.Digest.Append(nil)))
	}
	got := strings.Join(lines, "\n") + "\n"
	const path = "testdata/digests.txt"
	if *rewrite {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s, not\n%s", got, want)
	}
	if digests["zero"] != digests["minus-zero"] || digests["zero"] == digests["integer-zero"] {
		t.Error("0.0 is -0.0, and not 0")
	}
	columns := ColumnsDigest([]string{"b", "a"}, []string{"z", "é", "c"}).Append(nil)
	if got := hex.EncodeToString(columns); got != "2391f98c8ce9126438f0ca51458aa7e7" {
		t.Errorf("the columns have the digest %s", got)
	}
}

// randomRows returns rows whose places begin alike as often as not.
func randomRows(random *rand.Rand, n int) []RowSum {
	rows := make([]RowSum, n)
	for i := range rows {
		p := PlaceOf([]byte{byte(i), byte(i >> 8)})
		if i%2 == 0 {
			copy(p[:], "same")
		}
		rows[i] = RowSum{Place: p, Digest: Digest{random.Uint64(), random.Uint64()}}
	}
	return rows
}

// TestTreeAndScanAgree: whether sums come from a tree or from rows that pass by, and in whichever order, they are the same.
func TestTreeAndScanAgree(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{0, 1, 64, 65, 600, 20_000} {
		rows := randomRows(random, n)
		tree := NewDigestTree(int64(n))
		for _, r := range rows {
			tree.Add(r.Place, r.Digest)
		}
		random.Shuffle(n, func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
		same := Place{}
		copy(same[:], "same")
		for _, p := range []Prefix{{}, PrefixOf(same, 1), PrefixOf(same, 3), PrefixOf(same, 4), PrefixOf(same, 9), {Len: 2}} {
			scan := NewPartScan([]Prefix{p, p})
			var all Sum
			for _, r := range rows {
				if wanted := PrefixOf(r.Place, p.Len) == p; scan.Wants(r.Place) != wanted {
					t.Fatalf("%x is wanted: %t", r.Place, !wanted)
				}
				scan.Add(r)
				all.Add(r.Digest)
			}
			parts := scan.Parts()
			if len(parts) != 2 || !slices.Equal(parts[0].Children, parts[1].Children) {
				t.Fatalf("one prefix twice gives %+v", parts)
			}
			if children, ok := tree.Children(p); ok && !slices.Equal(children, parts[0].Children) {
				t.Errorf("%d rows, %v: the tree says %v, the rows %v", n, p, children, parts[0].Children)
			} else if ok != (p.Len < tree.depth && parts[0].Children != nil) {
				t.Errorf("%d rows, %v: the tree tells: %t", n, p, ok)
			}
			if p.Len == 0 && tree.Total != all {
				t.Errorf("the tree has %v, the rows %v", tree.Total, all)
			}
			var sums Sum
			for _, s := range parts[0].Sums(p) {
				sums.AddSum(s)
			}
			if p.Len == 0 && sums != all {
				t.Errorf("the children have %v, the rows %v", sums, all)
			}
		}
	}
}
