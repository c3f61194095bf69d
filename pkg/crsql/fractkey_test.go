package crsql

import (
	"math/rand/v2"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// fractKeys draws keys, near the edges of the integer part more often than elsewhere.
func fractKeys() *rapid.Generator[string] {
	digit := rapid.OneOf(rapid.Just(byte(fractMin)), rapid.Just(byte(fractMax)), rapid.ByteRange(fractMin, fractMax))
	return rapid.Custom(func(t *rapid.T) string {
		head := rapid.SampledFrom([]byte("aaabbyzZZYBA")).Draw(t, "head")
		n := fractLen(head)
		key := string(head) + string(rapid.SliceOfN(digit, n, n).Draw(t, "integer"))
		key += string(rapid.SliceOfN(digit, 0, 4).Draw(t, "fraction"))
		if key = key[:1+n] + strings.TrimRight(key[1+n:], " "); key == fractSmallest {
			key += "!"
		}
		return key
	})
}

// A key between two is one, lies between them, and leaves room on both sides. A nil end is open.
func TestFractBetweenIsBetween(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := fractKeys().Draw(t, "a"), fractKeys().Draw(t, "b")
		if a > b {
			a, b = b, a
		}
		switch rapid.IntRange(0, 4).Draw(t, "open") {
		case 0:
			a = ""
		case 1:
			b = ""
		}
		for range rapid.IntRange(1, 20).Draw(t, "times") {
			key, err := fractBetween(a, b)
			if a == b && a != "" {
				if err == nil {
					t.Fatalf("%q lies between %q and itself", key, a)
				}
				return
			}
			if err != nil {
				t.Fatalf("between %q and %q: %v", a, b, err)
			}
			if key == fractSmallest { // 95^26 steps before the first row: the stock engine gives it out as well
				return
			}
			if err := fractCheck(key); err != nil {
				t.Fatalf("between %q and %q: %v", a, b, err)
			}
			if a != "" && key <= a || b != "" && key >= b {
				t.Fatalf("between %q and %q: %q", a, b, key)
			}
			if rapid.Bool().Draw(t, "left") {
				b = key
			} else {
				a = key
			}
		}
	})
}

// Bytes that are no key are refused, whatever they are.
func TestFractRefusesWhatIsNoKey(t *testing.T) {
	for _, key := range []string{
		"0", " ", "a", "b0", "a0 ", "a ! ", fractSmallest, "A" + strings.Repeat(" ", 25), "é", "a\x1f", "a\x7f", "aé", "a \x00", "-1", "\xff",
		"z" + strings.Repeat("~", 25), strings.Repeat("{", 1000),
	} {
		for _, ends := range [][2]string{{key, ""}, {"", key}, {key, "zz"}, {" ", key}} {
			if got, err := fractBetween(ends[0], ends[1]); err == nil {
				t.Errorf("between %q and %q: %q", ends[0], ends[1], got)
			}
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := string(rapid.SliceOf(rapid.Byte()).Draw(t, "a")), string(rapid.SliceOf(rapid.Byte()).Draw(t, "b"))
		if key, err := fractBetween(a, b); err == nil && key != fractSmallest && fractCheck(key) != nil {
			t.Fatalf("between %q and %q: %q", a, b, key)
		}
	})
}

// The keys are the stock engine's, to the byte.
func TestFractKeysAreTheOriginals(t *testing.T) {
	o, d := startOracle(t), openTest(t, ":memory:")
	random := rand.New(rand.NewPCG(1, 2))
	const sql = "SELECT crsql_fract_key_between(?, ?)"
	value := func(key string) changeset.Value {
		if key == "" {
			return changeset.Null()
		}
		return changeset.TextString(key)
	}
	pairs := 20000
	if testing.Short() {
		pairs = 2000
	}
	compare := func(pairs [][2]string) (keys []string) {
		steps := make([]oracleStep, len(pairs))
		for i, p := range pairs {
			steps[i] = oracleStep{SQL: sql, Args: []any{encodeTyped(value(p[0])), encodeTyped(value(p[1]))}}
		}
		for i, theirs := range o.ask("A", false, steps...) {
			rows, err := d.try(sql, toDriver(value(pairs[i][0])), toDriver(value(pairs[i][1])))
			if err != nil || theirs.err != nil {
				t.Fatalf("between %q and %q: ours: %v, theirs: %v", pairs[i][0], pairs[i][1], err, theirs.err)
			}
			if dump(rows) != dump(theirs.rows) {
				t.Fatalf("between %q and %q: ours: %s, theirs: %s", pairs[i][0], pairs[i][1], dump(rows), dump(theirs.rows))
			}
			keys = append(keys, string(rows[0][0].Bytes()))
		}
		return keys
	}
	generator := fractKeys()
	for start := 0; start < pairs; start += 500 {
		var batch [][2]string
		for i := range 500 {
			a, b := generator.Example(start+i), generator.Example(random.IntN(1<<30))
			if a > b {
				a, b = b, a
			}
			if n := random.IntN(8); n == 0 || a == b {
				a = ""
			} else if n == 1 {
				b = ""
			}
			batch = append(batch, [2]string{a, b})
		}
		compare(batch)
	}
	// Long chains of inserts at one place. Up to 255 bytes: the stock engine takes 256 and 257 for a number of one byte, and
	// refuses the key.
	for _, left := range []func() bool{
		func() bool { return true }, func() bool { return false }, func() bool { return random.IntN(2) == 0 },
	} {
		for _, ends := range [][2]string{{"", ""}, {"a ", "a!"}, {"", "a "}, {"Zz", ""}, {"Z~", "a "}} {
			for range 1200 {
				key := compare([][2]string{ends})[0]
				if len(key) > 255 {
					break
				}
				if left() {
					ends[1] = key
				} else {
					ends[0] = key
				}
			}
		}
	}
}

// Keys of 256 bytes and more are keys like any other: the stock engine refuses those of 256 and 257.
func TestFractLongKeys(t *testing.T) {
	o := startOracle(t)
	for _, n := range []int{254, 255, 256, 257, 258, 511, 512, 1 << 20} {
		a := "a " + strings.Repeat("~", n-2)
		key, err := fractBetween(a, "a!")
		if err != nil || len(key) != n+1 || key[n] != 'P' {
			t.Errorf("%d bytes: %v, %d bytes", n, err, len(key))
		}
		if n > 1000 {
			break
		}
		theirs := o.ask("A", false, oracleStep{SQL: "SELECT crsql_fract_key_between(?, 'a!')", Args: []any{encodeTyped(changeset.TextString(a))}})[0]
		refused := n%256 < 2
		if (theirs.err != nil) != refused {
			t.Errorf("%d bytes: the stock engine says %v", n, theirs.err)
		}
		if theirs.err == nil && string(theirs.rows[0][0].Bytes()) != key {
			t.Errorf("%d bytes: the stock engine's key differs", n)
		}
	}
}
