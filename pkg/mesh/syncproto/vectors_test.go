package syncproto

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

var rewrite = flag.Bool("rewrite", false, "write the files in testdata anew from the code")

var testValues = []changeset.Value{
	changeset.Null(), changeset.Integer(0), changeset.Integer(1), changeset.Integer(-1), changeset.Integer(1 << 53),
	changeset.Integer(math.MinInt64), changeset.Integer(math.MaxInt64), changeset.Real(2), changeset.Real(1.5),
	changeset.Real(math.Copysign(0, -1)), changeset.Real(math.Inf(1)), changeset.TextString(""),
	changeset.TextString("a\x00b"), changeset.TextString("Zürich"), changeset.Text([]byte{0xff, 0xfe}),
	changeset.Blob(nil), changeset.Blob([]byte{0, 0xff}), changeset.Blob(bytes.Repeat([]byte{7}, 300)),
}

func testSite(n byte) SiteID { return SiteID(bytes.Repeat([]byte{n}, 16)) }

type namedMessage struct {
	name string
	m    Message
}

func testMessages() []namedMessage {
	a, b, c := testSite(0xaa), testSite(0xbb), testSite(0xcc)
	proof := make([]byte, ProofLen)
	hash := [32]byte{}
	for i := range proof {
		proof[i] = byte(i)
		hash[i/2] = byte(255 - i)
	}
	var every []changeset.Change
	for i, v := range testValues {
		every = append(every, changeset.Change{
			Table: "tëst", PK: []byte{1, 9, 1}, CID: fmt.Sprintf("c%d", i), Val: v, ColVersion: int64(i), CL: 1, Seq: int64(i), Site: a,
		})
	}
	cell := func(table string, pk byte, cid string, v changeset.Value, seq int64, site SiteID) changeset.Change {
		return changeset.Change{Table: table, PK: []byte{1, 9, pk}, CID: cid, Val: v, ColVersion: 1, CL: 1, Seq: seq, Site: site}
	}
	one := changeset.Integer(1)
	digest := func(n uint64) changeset.Digest { return changeset.Digest{Hi: n, Lo: ^n} }
	place := func(n byte) changeset.Place { return changeset.Place(bytes.Repeat([]byte{n}, 16)) }
	children := make([]changeset.Sum, changeset.PartChildren)
	children[3], children[15] = changeset.Sum{Count: 1, Digest: digest(5)}, changeset.Sum{Count: MaxVersion, Digest: digest(6)}
	return []namedMessage{
		{"hello-reader", &Hello{Site: a, MaxMessage: MaxMessage, Vector: Vector{}}},
		{"hello-writer", &Hello{
			Site: b, Writer: true, Feed: true, Busy: true, Proof: proof, SchemaHash: hash, MaxMessage: MinMaxMessage,
			Resume: MaxVersion, Neighbours: []SiteID{a, c}, Vector: Vector{a: 1, b: 127, c: MaxVersion},
		}},
		{"changes-claims-only", &Changes{Reached: 5, Claims: Vector{a: 5}, Deps: Vector{}}},
		{"changes-deps", &Changes{Reached: 128, Claims: Vector{a: 300, b: 4}, Deps: Vector{c: 2}}},
		{"changes-empty", &Changes{}},
		{"changes-mid-walk", &Changes{Reached: 7, Remaining: 1000, Groups: []Group{
			{Origin: a, Version: 8, Changes: []changeset.Change{cell("t", 1, "x", one, 0, a)}},
		}}},
		{"changes-values", &Changes{Reached: 1, Groups: []Group{{Origin: a, Version: 1, Changes: every}}, Claims: Vector{a: 1}, Deps: Vector{}}},
		{"changes-rows-and-groups", &Changes{Reached: 9, Groups: []Group{
			{Origin: a, Version: 3, Changes: []changeset.Change{
				cell("t", 1, "x", one, 0, a), cell("t", 1, "y", one, 1, b), cell("t", 2, "x", one, 2, a), cell("t", 1, "x", one, 3, a),
				cell("u", 1, "t", one, 4, a),
			}},
			{Origin: b, Version: 2, Changes: []changeset.Change{cell("t", 3, "x", one, 0, b), cell("t", 3, "y", one, 0, "")}},
			{Origin: a, Version: 3, Changes: []changeset.Change{cell("u", 1, "x", one, 9, "short")}},
		}, Claims: Vector{a: 3, b: 2}, Deps: Vector{}}},
		{"changes-delete-and-create", &Changes{Reached: 2, Groups: []Group{{Origin: c, Version: 2, Changes: []changeset.Change{
			{Table: "t", PK: []byte{1, 11, 1, 'k'}, CID: changeset.SentinelCID, ColVersion: 2, CL: 2, Seq: 0, Site: c},
			{Table: "t", PK: []byte{1, 11, 1, 'l'}, CID: changeset.SentinelCID, ColVersion: 3, CL: 3, Seq: 1, Site: c},
			{Table: "t", PK: []byte{1, 11, 1, 'l'}, CID: "-2", Val: one, ColVersion: 1, CL: 3, Seq: 2, Site: c},
		}}}}},
		{"changes-odd-numbers", &Changes{Groups: []Group{{Origin: a, Version: 1, Changes: []changeset.Change{
			{Table: "t", PK: nil, CID: "x", ColVersion: -1, CL: math.MinInt64, Seq: math.MaxInt64, Site: a},
		}}}}},
		{"changes-span", &Changes{Reached: 7, Groups: []Group{
			{Origin: a, Version: 8, Changes: []changeset.Change{cell("t", 1, "x", one, 0, a)}},
		}, Spans: []Span{{Origin: a, After: 6, Version: 8, Deps: Vector{}}}}},
		{"changes-spans-and-claims", &Changes{Reached: 7, Groups: []Group{
			{Origin: b, Version: 3, Changes: []changeset.Change{cell("t", 1, "x", one, 0, a)}},
			{Origin: a, Version: MaxVersion, Changes: []changeset.Change{cell("t", 2, "x", one, 0, a)}},
		}, Claims: Vector{c: 4}, Deps: Vector{b: 1}, Spans: []Span{
			{Origin: a, After: 0, Version: MaxVersion, Deps: Vector{b: 2, c: 300}}, {Origin: b, After: 2, Version: 3, Deps: Vector{}},
		}}},
		{"have-nothing", &Have{Delta: Vector{}}},
		{"have-all", &Have{Feed: true, Busy: true, Applied: 300, Delta: Vector{a: 1, b: 2}, HasNeighbours: true, Neighbours: []SiteID{a, b, c}}},
		{"have-no-neighbours", &Have{Applied: 1, Delta: Vector{a: 9}, HasNeighbours: true}},
		{"error-flow", &Error{Code: CodeFlow, Sentence: "too much is in flight"}},
		{"error-unknown-code", &Error{Code: 65535}},
		{"bye", &Bye{Sentence: "the user left · tschüss"}},
		{"bye-silent", &Bye{}},
		{"prune", &Prune{Prune: []SiteID{a, c}, Graft: []SiteID{b}}},
		{"prune-none", &Prune{}},
		{"relay", &Relay{Hops: MaxRelayHops, From: [16]byte([]byte(a)), To: [16]byte([]byte(b)), Sealed: bytes.Repeat([]byte{1}, MinRelayed)}},
		{"relay-last-hop", &Relay{From: [16]byte([]byte(c)), To: [16]byte([]byte(a)), Sealed: bytes.Repeat([]byte{2}, 300)}},
		{"need", &Need{Needed: true}},
		{"need-not", &Need{}},
		{"schema-none", &Schema{}},
		{"schema-hash-alone", &Schema{Hash: hash, Generation: MaxGeneration}},
		{"schema", &Schema{Hash: hash, Generation: 3, Tables: []TableSchema{
			{Name: "cities", SQL: "CREATE TABLE cities (id INTEGER PRIMARY KEY NOT NULL, name TEXT DEFAULT '', \"wert ä\" NOT NULL DEFAULT 0)",
				Columns: []changeset.Column{
					{Name: "id", Type: "INTEGER", NotNull: true, Key: 1}, {Name: "name", Type: "TEXT", HasDefault: true, Default: "''"},
					{Name: "wert ä", NotNull: true, HasDefault: true, Default: "0"},
				}},
			{Name: "ländər", SQL: "CREATE TABLE \"ländər\" (a PRIMARY KEY NOT NULL)", Columns: []changeset.Column{{Name: "a", NotNull: true, Key: 1}}},
			{Name: "x", SQL: "x"},
		}}},
		{"digest-request-all", &DigestRequest{ID: 1}},
		{"digest-request-table", &DigestRequest{ID: MaxVersion, Table: "tëst"}},
		{"digest-request-parts", &DigestRequest{ID: 2, Table: "t", Prefixes: []changeset.Prefix{
			{}, changeset.PrefixOf(place(0xab), 1), changeset.PrefixOf(place(0xab), 2), changeset.PrefixOf(place(0xcd), changeset.MaxPrefix),
		}}},
		{"digest-answer-none", &DigestAnswer{ID: 3, Vector: Vector{}}},
		{"digest-answer-tables", &DigestAnswer{ID: 4, Vector: Vector{a: 1, b: 2}, Tables: []changeset.TableDigest{
			{Table: "t", Columns: digest(1), Sum: changeset.Sum{Count: 300, Digest: digest(2)}, Stray: 1}, {Table: "tëst", Columns: digest(3)},
		}}},
		{"digest-answer-parts", &DigestAnswer{ID: 5, Kind: DigestParts, Vector: Vector{a: 1}, Parts: []changeset.Part{
			{}, {Children: children}, {Rows: []changeset.RowSum{
				{Place: place(1), Key: []byte{1, 9, 1}, CL: 1, Versions: 12, Digest: digest(7)},
				{Place: place(2), CL: math.MinInt64, Versions: -1, Digest: digest(8)},
			}},
		}}},
		{"digest-answer-no-table", &DigestAnswer{ID: 6, Kind: DigestNoTable, Vector: Vector{}}},
		{"resend", &Resend{Table: "tëst", Places: []changeset.Place{place(1), place(2)}}},
	}
}

// testMalformed is bytes that are no message, and the code of the error that Parse gives.
func testMalformed() []struct {
	name string
	b    []byte
	code Code
} {
	byName := map[string][]byte{}
	for _, m := range testMessages() {
		byName[m.name] = m.m.AppendMarshal(nil)
	}
	a, b := []byte(testSite(0xaa)), []byte(testSite(0xbb))
	manySites := func(n int) []byte { // a vector without its count
		var out []byte
		for i := range n {
			out = append(append(out, testSite(byte(i))...), 1)
		}
		return out
	}
	cat := func(parts ...any) []byte {
		var out []byte
		for _, p := range parts {
			switch p := p.(type) {
			case int:
				out = append(out, byte(p))
			case rune:
				out = append(out, byte(p))
			case string:
				out = append(out, p...)
			case []byte:
				out = append(out, p...)
			default:
				panic(fmt.Sprintf("%T", p))
			}
		}
		return out
	}
	edit := func(name string, at int, b ...byte) []byte {
		out := bytes.Clone(byName[name])
		copy(out[at:], b)
		return out
	}
	uv := func(v uint64) []byte { return binary.AppendUvarint(nil, v) }
	group := func(rows ...any) []byte { return cat(TypeChanges, 0, 0, 0, 1, 0, 16, a, 1, cat(rows...)) }
	row := func(name []byte, cells ...any) []byte { return cat(name, 1, 'k', cat(cells...)) }
	cellX := cat(0, 1, 'x', 5, 1, 1, 0, 1)
	name := func(s string) []byte { return cat(0, len(s), s) }
	hello := byName["hello-writer"]
	var ascending []byte
	for i := range MaxNeighbours + 1 {
		ascending = append(ascending, cat(make([]byte, 14), i>>8, i)...)
	}
	return []struct {
		name string
		b    []byte
		code Code
	}{
		{"empty", nil, CodeMalformed},
		{"type-zero", []byte{0}, CodeMalformed},
		{"type-unknown", []byte{0x7f}, CodeMalformed},
		{"hello-version-2", edit("hello-reader", 1, 2), CodeVersion},
		{"hello-version-2-short", []byte{1, 2}, CodeVersion},
		{"hello-version-cut-off", []byte{1}, CodeMalformed},
		{"hello-cut-off", hello[:len(hello)-1], CodeMalformed},
		{"hello-trailing", cat(hello, 0), CodeMalformed},
		{"hello-flag-unknown", edit("hello-writer", 18, 15), CodeMalformed},
		{"hello-writer-without-proof", edit("hello-reader", 18, 1), CodeMalformed},
		{"hello-reader-with-proof", edit("hello-writer", 18, 6), CodeMalformed},
		{"hello-proof-short", cat(hello[:19], 1, 0, hello[84:]), CodeMalformed},
		{"hello-max-message-small", cat(TypeHello, 1, a, 0, 0, make([]byte, 32), uv(MinMaxMessage-1), 0, 0, 0), CodeMalformed},
		{"hello-resume-large", cat(TypeHello, 1, a, 0, 0, make([]byte, 32), uv(MinMaxMessage), uv(MaxVersion+1), 0, 0), CodeMalformed},
		{"hello-neighbours-twice", cat(TypeHello, 1, a, 0, 0, make([]byte, 32), uv(MinMaxMessage), 0, 2, a, a, 0), CodeMalformed},
		{"hello-neighbours-many", cat(TypeHello, 1, a, 0, 0, make([]byte, 32), uv(MinMaxMessage), 0, uv(MaxNeighbours+1), ascending, 0), CodeMalformed},
		{"vector-descending", cat(TypeHave, 0, 0, 2, bytes.Repeat([]byte{2}, 16), 1, bytes.Repeat([]byte{1}, 16), 1), CodeMalformed},
		{"vector-twice", cat(TypeHave, 0, 0, 2, a, 1, a, 2), CodeMalformed},
		{"vector-version-zero", cat(TypeHave, 0, 0, 1, a, 0), CodeMalformed},
		{"vector-version-large", cat(TypeHave, 0, 0, 1, a, uv(MaxVersion+1)), CodeMalformed},
		{"vector-count-huge", cat(TypeHave, 0, 0, uv(math.MaxUint64)), CodeMalformed},
		{"vector-count-over-limit", cat(TypeHave, 0, 0, uv(MaxVectorSites+1), make([]byte, 17)), CodeMalformed},
		{"vector-count-ten-million", cat(TypeHave, 0, 0, uv(10_000_000), a, 1), CodeMalformed},
		{"vector-short", cat(TypeHave, 0, 0, 2, a, 1), CodeMalformed},
		{"number-long-form", cat(TypeHave, 0, 0x80, 0, 0), CodeMalformed},
		{"number-11-bytes", cat(TypeHave, 0, bytes.Repeat([]byte{0x80}, 10), 1, 0), CodeMalformed},
		{"number-over-64-bits", cat(TypeHave, 0, bytes.Repeat([]byte{0xff}, 9), 2, 0), CodeMalformed},
		{"number-cut-off", cat(TypeHave, 0, 0x80), CodeMalformed},
		{"have-flag-unknown", cat(TypeHave, 8, 0, 0), CodeMalformed},
		{"have-neighbours-missing", cat(TypeHave, 4, 0, 0), CodeMalformed},
		{"changes-flag-unknown", cat(TypeChanges, 4, 0, 0, 0), CodeMalformed},
		{"spans-none", cat(TypeChanges, 2, 0, 0, 0, 0), CodeMalformed},
		{"spans-missing", cat(TypeChanges, 2, 0, 0, 0), CodeMalformed},
		{"spans-over-limit", cat(TypeChanges, 2, 0, 0, 0, uv(MaxSpans+1), make([]byte, 4*MaxSpans+8)), CodeMalformed},
		{"spans-descending", cat(TypeChanges, 2, 0, 0, 0, 2, 0, 16, b, 0, 1, 0, 0, 16, a, 0, 1, 0), CodeMalformed},
		{"spans-twice", cat(TypeChanges, 2, 0, 0, 0, 2, 0, 16, a, 0, 1, 0, 1, 1, 1, 0), CodeMalformed},
		{"span-origin-short", cat(TypeChanges, 2, 0, 0, 0, 1, 0, 1, 'a', 0, 1, 0), CodeMalformed},
		{"span-empty", cat(TypeChanges, 2, 0, 0, 0, 1, 0, 16, a, 0, 0, 0), CodeMalformed},
		{"span-version-large", cat(TypeChanges, 2, 0, 0, 0, 1, 0, 16, a, uv(MaxVersion), 1, 0), CodeMalformed},
		{"span-deps-over-limit", cat(TypeChanges, 2, 0, 0, 0, 1, 0, 16, a, 0, 1, uv(MaxSpanDeps+1), manySites(MaxSpanDeps+1)), CodeMalformed},
		{"prune-descending", cat(TypePrune, 2, b, a, 0), CodeMalformed},
		{"prune-over-limit", cat(TypePrune, uv(MaxPrunes+1), make([]byte, 16*(MaxPrunes+1)), 0), CodeMalformed},
		{"prune-and-graft", cat(TypePrune, 1, a, 1, a), CodeMalformed},
		{"prune-short", cat(TypePrune, 0), CodeMalformed},
		{"changes-groups-over-limit", cat(TypeChanges, 0, 0, 0, uv(MaxGroups+1), make([]byte, 8*MaxGroups)), CodeMalformed},
		{"changes-groups-huge", cat(TypeChanges, 0, 0, 0, uv(MaxGroups)), CodeMalformed},
		{"changes-deps-missing", cat(TypeChanges, 1, 0, 0, 0, 0), CodeMalformed},
		{"group-well-formed-otherwise", cat(group(1, row(name("t"), 1, cellX)), 0), CodeMalformed},
		{"group-origin-short", cat(TypeChanges, 0, 0, 0, 1, 0, 1, 'a', 1, 1, row(name("t"), 1, cellX)), CodeMalformed},
		{"group-origin-unknown", cat(TypeChanges, 0, 0, 0, 1, 1, 1, 1, row(name("t"), 1, cellX)), CodeMalformed},
		{"group-version-zero", cat(TypeChanges, 0, 0, 0, 1, 0, 16, a, 0, 1, row(name("t"), 1, cellX)), CodeMalformed},
		{"group-version-huge", cat(TypeChanges, 0, 0, 0, 1, 0, 16, a, uv(math.MaxInt64), 1, row(name("t"), 1, cellX)), CodeMalformed},
		{"group-no-row", group(0), CodeMalformed},
		{"group-rows-million", cat(TypeChanges, 0, 0, 0, 1, 0, 16, a, 1, uv(1_000_000), row(name("t"), 1, cellX)), CodeMalformed},
		{"group-rows-huge", group(uv(MaxChanges), row(name("t"), 1, cellX)), CodeMalformed},
		{"row-no-cell", group(1, row(name("t"), 0)), CodeMalformed},
		{"row-cells-huge", group(1, row(name("t"), uv(MaxChanges+1), cellX)), CodeMalformed},
		{"row-key-past-end", group(1, name("t"), uv(1<<40), cellX), CodeMalformed},
		{"row-key-twice", group(2, row(name("t"), 1, cellX), row([]byte{1}, 1, 2, 5, 1, 1, 1, 1)), CodeMalformed},
		{"name-empty", group(1, row(name(""), 1, cellX)), CodeMalformed},
		{"name-twice", group(1, row(name("t"), 1, 0, 1, 't', 5, 1, 1, 0, 1)), CodeMalformed},
		{"name-not-utf8", group(1, row(name("\xff"), 1, cellX)), CodeMalformed},
		{"name-surrogate", group(1, row(name("\xed\xa0\x80"), 1, cellX)), CodeMalformed},
		{"name-long", group(1, row(cat(0, uv(MaxName+1), strings.Repeat("n", MaxName+1)), 1, cellX)), CodeMalformed},
		{"name-unknown", group(1, row([]byte{1}, 1, cellX)), CodeMalformed},
		{"site-long", group(1, row(name("t"), 1, 0, 1, 'x', 5, 1, 1, 0, 0, 17, a, 1)), CodeMalformed},
		{"site-twice", group(1, row(name("t"), 1, 0, 1, 'x', 5, 1, 1, 0, 0, 16, a)), CodeMalformed},
		{"site-unknown", group(1, row(name("t"), 1, 0, 1, 'x', 5, 1, 1, 0, 2)), CodeMalformed},
		{"value-unknown-kind", group(1, row(name("t"), 1, 0, 1, 'x', 6, 1, 1, 0, 1)), CodeMalformed},
		{"value-integer-long-form", group(1, row(name("t"), 1, 0, 1, 'x', 0x11, 0, 1, 1, 1, 0, 1)), CodeMalformed},
		{"value-nan", group(1, row(name("t"), 1, 0, 1, 'x', 2, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0, 1, 1, 0, 1)), CodeMalformed},
		{"value-text-past-end", group(1, row(name("t"), 1, 0, 1, 'x', 0x0b, 200, 1, 1, 0, 1)), CodeMalformed},
		{"value-null-with-length", group(1, row(name("t"), 1, 0, 1, 'x', 0x0d, 1, 1, 0, 1)), CodeMalformed},
		{"error-code-zero", []byte{TypeError, 0, 0}, CodeMalformed},
		{"error-code-large", cat(TypeError, uv(65536), 0), CodeMalformed},
		{"error-sentence-long", cat(TypeError, 1, uv(MaxSentence+1), strings.Repeat("e", MaxSentence+1)), CodeMalformed},
		{"bye-not-utf8", cat(TypeBye, 1, 0xff), CodeMalformed},
		{"bye-trailing", cat(TypeBye, 0, 0), CodeMalformed},
		{"schema-descending", cat(TypeSchema, make([]byte, 32), 0, 2, 1, 'b', 1, 's', 0, 1, 'a', 1, 's', 0), CodeMalformed},
		{"schema-name-empty", cat(TypeSchema, make([]byte, 32), 0, 1, 0, 1, 's', 0, 0), CodeMalformed},
		{"schema-sql-empty", cat(TypeSchema, make([]byte, 32), 0, 1, 1, 'a', 0, 0, 0), CodeMalformed},
		{"schema-tables-huge", cat(TypeSchema, make([]byte, 32), 0, uv(MaxSchemaTables+1), make([]byte, 5*MaxSchemaTables+8)), CodeMalformed},
		{"schema-generation", cat(TypeSchema, make([]byte, 32), uv(MaxGeneration+1), 0), CodeMalformed},
		{"schema-columns-huge", cat(TypeSchema, make([]byte, 32), 0, 1, 1, 'a', 1, 's', uv(MaxColumns+1), make([]byte, 5*MaxColumns+8)), CodeMalformed},
		{"schema-column-flag", cat(TypeSchema, make([]byte, 32), 0, 1, 1, 'a', 1, 's', 1, 1, 'c', 0, 4, 0), CodeMalformed},
		{"schema-column-name-empty", cat(TypeSchema, make([]byte, 32), 0, 1, 1, 'a', 1, 's', 1, 0, 0, 0, 0, 0), CodeMalformed},
		{"schema-column-default-empty", cat(TypeSchema, make([]byte, 32), 0, 1, 1, 'a', 1, 's', 1, 1, 'c', 0, 2, 0, 0), CodeMalformed},
		{"schema-column-key", cat(TypeSchema, make([]byte, 32), 0, 1, 1, 'a', 1, 's', 1, 1, 'c', 0, 0, uv(MaxColumns+1)), CodeMalformed},
		{"relay-hops-over-limit", edit("relay", 1, MaxRelayHops+1), CodeMalformed},
		{"relay-trailing", cat(byName["relay"], 0), CodeMalformed},
		{"relay-envelope-short", cat(TypeRelay, 0, a, a, uv(MinRelayed-1), make([]byte, MinRelayed-1)), CodeMalformed},
		{"relay-envelope-long", cat(TypeRelay, 0, a, a, uv(MaxRelayed+1), make([]byte, MaxRelayed+1)), CodeMalformed},
		{"need-flag", cat(TypeNeed, 2), CodeMalformed},
		{"need-short", cat(TypeNeed), CodeMalformed},
		{"need-trailing", cat(TypeNeed, 1, 0), CodeMalformed},
		{"schema-hash-short", cat(TypeSchema, make([]byte, 31)), CodeMalformed},
		{"digest-request-prefix-without-table", cat(TypeDigestRequest, 1, 0, 1, 0), CodeMalformed},
		{"digest-request-prefixes-many", cat(TypeDigestRequest, 1, 1, 't', MaxDigestParts+1, make([]byte, MaxDigestParts+1)), CodeMalformed},
		{"digest-request-prefix-long", cat(TypeDigestRequest, 1, 1, 't', 1, changeset.MaxPrefix+1, make([]byte, 16)), CodeMalformed},
		{"digest-request-prefix-bits", cat(TypeDigestRequest, 1, 1, 't', 1, 1, 0x11), CodeMalformed},
		{"digest-request-prefix-short", cat(TypeDigestRequest, 1, 1, 't', 1, 3, 0x11), CodeMalformed},
		{"digest-answer-kind", cat(TypeDigestAnswer, 1, 3, 0), CodeMalformed},
		{"digest-answer-tables-many", cat(TypeDigestAnswer, 1, 0, 0, uv(MaxDigestTables+1), make([]byte, 40*MaxDigestTables)), CodeMalformed},
		{"digest-answer-tables-order", cat(TypeDigestAnswer, 1, 0, 0, 2, 1, 't', make([]byte, 34), 1, 't', make([]byte, 34)), CodeMalformed},
		{"digest-answer-count-large", cat(TypeDigestAnswer, 1, 0, 0, 1, 1, 't', make([]byte, 16), uv(MaxVersion+1), make([]byte, 17)), CodeMalformed},
		{"digest-answer-part-kind", cat(TypeDigestAnswer, 1, 1, 0, 1, 2, 0), CodeMalformed},
		{"digest-answer-parts-many", cat(TypeDigestAnswer, 1, 1, 0, MaxDigestParts+1, bytes.Repeat([]byte{1, 0}, MaxDigestParts+1)), CodeMalformed},
		{"digest-answer-rows-many", cat(TypeDigestAnswer, 1, 1, 0, 1, 1, changeset.MaxPartRows+1, make([]byte, 35*(changeset.MaxPartRows+1))), CodeMalformed},
		{"digest-answer-rows-order", cat(TypeDigestAnswer, 1, 1, 0, 1, 1, 2, make([]byte, 2*35)), CodeMalformed},
		{"digest-answer-key-long", cat(TypeDigestAnswer, 1, 1, 0, 1, 1, 1, make([]byte, 16), uv(changeset.MaxKeyShown+1),
			make([]byte, changeset.MaxKeyShown+1+18)), CodeMalformed},
		{"resend-no-table", cat(TypeResend, 0, 1, make([]byte, 16)), CodeMalformed},
		{"resend-no-row", cat(TypeResend, 1, 't', 0), CodeMalformed},
		{"resend-many", cat(TypeResend, 1, 't', MaxResend+1, make([]byte, 16*(MaxResend+1))), CodeMalformed},
	}
}

// readVectors returns the tab-separated fields of each line of a file in testdata; want is how many there are.
func readVectors(t testing.TB, name string, want int) [][]string {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var out [][]string
	for _, line := range strings.Split(strings.TrimSuffix(string(b), "\n"), "\n") {
		fields := strings.Split(line, "\t")
		if len(fields) != want {
			t.Fatalf("%s: a line has %d fields, not %d: %.80s", name, len(fields), want, line)
		}
		out = append(out, fields)
	}
	return out
}

func rewriteVectors(t testing.TB, name string, lines []string) {
	t.Helper()
	if err := os.WriteFile("testdata/"+name, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestMessageVectors(t *testing.T) {
	messages := testMessages()
	if *rewrite {
		var lines []string
		for _, m := range messages {
			lines = append(lines, fmt.Sprintf("%s\t%s\t%x", m.name, describe(m.m), m.m.AppendMarshal(nil)))
		}
		rewriteVectors(t, "messages.txt", lines)
	}
	vectors := readVectors(t, "messages.txt", 3)
	if len(vectors) != len(messages) {
		t.Fatalf("messages.txt has %d lines, the test %d messages: run go test -rewrite and read the diff", len(vectors), len(messages))
	}
	for i, v := range vectors {
		b := unhex(t, v[2])
		if got := messages[i].m.AppendMarshal(nil); !bytes.Equal(got, b) {
			t.Errorf("%s marshals to\n%x, not\n%x", v[0], got, b)
		}
		m, err := Parse(b)
		if err != nil {
			t.Errorf("%s: %v", v[0], err)
			continue
		}
		if got := describe(m); got != v[1] {
			t.Errorf("%s parses to\n%s, not\n%s", v[0], got, v[1])
		}
		if got := m.AppendMarshal(nil); !bytes.Equal(got, unhex(t, v[2])) {
			t.Errorf("%s marshals again to\n%x, not\n%s", v[0], got, v[2])
		}
		for n := range len(b) {
			if _, err := Parse(unhex(t, v[2])[:n]); err == nil {
				t.Errorf("%s parses when cut off after %d bytes", v[0], n)
			}
		}
	}
}

func TestMalformedVectors(t *testing.T) {
	if *rewrite {
		var lines []string
		for _, m := range testMalformed() {
			lines = append(lines, fmt.Sprintf("%s\t%x\t%s", m.name, m.b, m.code))
		}
		rewriteVectors(t, "malformed.txt", lines)
	}
	for _, v := range readVectors(t, "malformed.txt", 3) {
		m, err := Parse(unhex(t, v[1]))
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%s parses to %s", v[0], describe(m))
		} else if e.Code.String() != v[2] {
			t.Errorf("%s: %v, not %s", v[0], e, v[2])
		}
	}
}

func TestMessageTooLarge(t *testing.T) {
	_, err := Parse(make([]byte, MaxMessage+1))
	if !errors.Is(err, &Error{Code: CodeTooLarge}) {
		t.Fatalf("got %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, v := range readVectors(f, "messages.txt", 3) {
		f.Add(unhex(f, v[2]))
	}
	for _, v := range readVectors(f, "malformed.txt", 3) {
		f.Add(unhex(f, v[1]))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(bytes.Clone(b))
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Sentence == "" {
				t.Fatalf("not a proper error: %v", err)
			}
			return
		}
		if got := m.AppendMarshal(nil); !bytes.Equal(got, b) {
			t.Fatalf("%x marshals to %x", b, got)
		}
	})
}
