package changeset

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// lines returns the tab-separated lines of a file in testdata, which TypeScript tests read too.
func lines(t testing.TB, name string) [][]string {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var all [][]string
	for line := range strings.Lines(string(data)) {
		all = append(all, strings.Split(strings.TrimSuffix(line, "\n"), "\t"))
	}
	if len(all) == 0 {
		t.Fatalf("testdata/%s is empty", name)
	}
	return all
}

func typedValue(t testing.TB, pair []string) Value {
	t.Helper()
	if pair == nil {
		return Null()
	}
	var err error
	var v Value
	switch pair[0] {
	case "integer":
		var n int64
		n, err = strconv.ParseInt(pair[1], 10, 64)
		v = Integer(n)
	case "real":
		var n uint64
		n, err = strconv.ParseUint(pair[1], 16, 64)
		v = Real(math.Float64frombits(n))
	default:
		var b []byte
		b, err = hex.DecodeString(pair[1])
		v = Text(b)
		if pair[0] == "blob" {
			v = Blob(b)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestPackedVectors(t *testing.T) {
	for _, line := range lines(t, "packed.txt") {
		t.Run(line[0], func(t *testing.T) {
			var pairs [][]string
			if err := json.Unmarshal([]byte(line[1]), &pairs); err != nil {
				t.Fatal(err)
			}
			var want []Value
			for _, pair := range pairs {
				want = append(want, typedValue(t, pair))
			}
			packed, err := AppendPacked([]byte("before"), want)
			if got := hex.EncodeToString(packed[len("before"):]); err != nil || got != line[2] {
				t.Fatalf("packs to %s, %v, want %s", got, err, line[2])
			}
			for name, parse := range map[string]func([]byte) ([]Value, error){"ParsePacked": ParsePacked, "ParseCanonical": ParseCanonical} {
				got, err := parse(packed[len("before"):])
				if err != nil || !equalValues(got, want) {
					t.Fatalf("%s gives %v, %v, want %v", name, got, err, want)
				}
			}
		})
	}
}

func TestPackedRefusals(t *testing.T) {
	for _, line := range lines(t, "refused.txt") {
		t.Run(line[0], func(t *testing.T) {
			b, err := hex.DecodeString(line[2])
			if err != nil {
				t.Fatal(err)
			}
			_, err = ParseCanonical(b)
			if parse := new(ParseError); !errors.As(err, &parse) || parse.Offset > len(b) || parse.Reason == "" {
				t.Errorf("ParseCanonical: %v, want a ParseError", err)
			}
			_, err = ParsePacked(b)
			if refused := err != nil; refused != (line[1] == "both") {
				t.Errorf("ParsePacked: %v", err)
			}
		})
	}
}

func TestAppendPackedBounds(t *testing.T) {
	if _, err := AppendPacked(nil, make([]Value, MaxPackedValues+1)); err == nil {
		t.Error("more values than a byte can count are packed")
	}
	b, err := AppendPacked(nil, make([]Value, MaxPackedValues))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseCanonical(b); err != nil || len(got) != MaxPackedValues {
		t.Errorf("%d values, %v", len(got), err)
	}
}

// A short key must not make us take the memory that it announces.
func TestParseAllocates(t *testing.T) {
	hostile := []byte{1, 4<<3 | byte(KindBlob), 0x7f, 0xff, 0xff, 0xff}
	if n := testing.AllocsPerRun(100, func() {
		if _, err := ParsePacked(hostile); err == nil {
			t.Error("a length past the end parses")
		}
	}); n > 4 {
		t.Errorf("%v allocations", n)
	}
}

func equalValues(a, b []Value) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !a[i].Equal(b[i]) {
			return false
		}
	}
	return true
}

// anyValue draws a value of any kind.
func anyValue() *rapid.Generator[Value] {
	return rapid.Custom(func(t *rapid.T) Value {
		switch rapid.IntRange(0, 4).Draw(t, "kind") {
		case 0:
			return Integer(rapid.Int64().Draw(t, "integer"))
		case 1:
			return Real(rapid.Float64().Draw(t, "real"))
		case 2:
			return Text(rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "text"))
		case 3:
			return Blob(rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "blob"))
		}
		return Null()
	})
}

func TestPackedRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(anyValue(), 1, 20).Draw(t, "values")
		packed, err := AppendPacked(nil, values)
		if err != nil {
			t.Fatal(err)
		}
		size := 1
		for _, v := range values {
			size += v.Size()
		}
		if size != len(packed) {
			t.Fatalf("Size says %d, packed are %d bytes", size, len(packed))
		}
		if got, err := ParseCanonical(packed); err != nil || !equalValues(got, values) {
			t.Fatalf("%x gives %v, %v", packed, got, err)
		}
		v, rest, err := ParseValue(append(AppendValue(nil, values[0]), "rest"...))
		if err != nil || !v.Equal(values[0]) || string(rest) != "rest" {
			t.Fatalf("ParseValue gives %v, %q, %v", v, rest, err)
		}
		for i := range packed { // no prefix of a key is a key
			if _, err := ParsePacked(packed[:i]); err == nil {
				t.Fatalf("the first %d bytes of %x parse", i, packed)
			}
		}
	})
}

// What parses strictly packs to the same bytes, and what parses at all packs to something that parses to the same.
func FuzzParsePacked(f *testing.F) {
	for _, name := range []string{"packed.txt", "refused.txt"} {
		for _, line := range lines(f, name) {
			b, err := hex.DecodeString(line[2])
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		values, err := ParsePacked(b)
		strict, strictErr := ParseCanonical(b)
		if err != nil {
			if strictErr == nil {
				t.Fatalf("only the strict parser takes %x", b)
			}
			return
		}
		again, err := AppendPacked(nil, values)
		if err != nil {
			t.Fatal(err)
		}
		if strictErr == nil && (!bytes.Equal(again, b) || !equalValues(strict, values)) {
			t.Fatalf("%x parses strictly and packs to %x", b, again)
		}
		if strictErr != nil && bytes.Equal(again, b) {
			t.Fatalf("%x is canonical and refused: %v", b, strictErr)
		}
		if back, err := ParseCanonical(again); err != nil || !equalValues(back, values) {
			t.Fatalf("%x packs to %x, which gives %v, %v", b, again, back, err)
		}
	})
}

// A value that parses packs to the same bytes, whatever follows it, and says how many they are.
func FuzzParseValue(f *testing.F) {
	for _, name := range []string{"packed.txt", "refused.txt"} {
		for _, line := range lines(f, name) {
			b, err := hex.DecodeString(line[2])
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b[min(1, len(b)):])
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		count := 0
		for rest := b; len(rest) > 0; count++ {
			v, after, err := ParseValue(rest)
			if err != nil {
				if parse := new(ParseError); !errors.As(err, &parse) || parse.Offset < 0 || parse.Offset > len(rest) || parse.Reason == "" {
					t.Fatalf("%x: %v", rest, err)
				}
				return
			}
			size := len(rest) - len(after)
			if !bytes.Equal(after, rest[size:]) || v.Size() != size || !bytes.Equal(AppendValue(nil, v), rest[:size]) {
				t.Fatalf("%x gives %v, of %d bytes, and leaves %x", rest, v, v.Size(), after)
			}
			if alone, none, err := ParseValue(rest[:size:size]); err != nil || len(none) != 0 || !alone.Equal(v) || Compare(alone, v) != 0 {
				t.Fatalf("%x alone gives %v, %v", rest[:size], alone, err)
			}
			if _, _, err := ParseValue(rest[:size-1]); err == nil && size > 1 {
				t.Fatalf("a part of %x parses", rest[:size])
			}
			rest = after
		}
		if count == 0 || count > MaxPackedValues {
			return
		}
		// As many of them as there are make a key.
		key := append([]byte{byte(count)}, b...)
		values, err := ParseCanonical(key)
		if err != nil || len(values) != count {
			t.Fatalf("%x gives %v, %v", key, values, err)
		}
		if again, err := AppendPacked(nil, values); err != nil || !bytes.Equal(again, key) {
			t.Fatalf("%x packs to %x, %v", key, again, err)
		}
	})
}

func ExampleAppendPacked() {
	key, _ := AppendPacked(nil, []Value{Integer(1), TextString("ab"), Null(), Real(2)})
	fmt.Printf("%x\n", key)
	// Output: 0409010b02616205024000000000000000
}
