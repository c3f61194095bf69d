package main

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

func drawValue(t *rapid.T) changeset.Value {
	switch rapid.IntRange(0, 4).Draw(t, "kind") {
	case 0:
		return changeset.Null()
	case 1:
		return changeset.Integer(rapid.Int64().Draw(t, "integer"))
	case 2:
		return changeset.Real(rapid.OneOf(rapid.Float64(), rapid.Just(math.Inf(1)), rapid.Just(math.Inf(-1)), rapid.Just(5.0),
			rapid.Just(math.Copysign(0, -1)), rapid.Just(1e21)).Draw(t, "real"))
	case 3:
		return changeset.Text(rapid.OneOf(rapid.SliceOf(rapid.Byte()),
			rapid.Map(rapid.String(), func(s string) []byte { return []byte(s) })).Draw(t, "text"))
	default:
		return changeset.Blob(rapid.SliceOf(rapid.Byte()).Draw(t, "blob"))
	}
}

// Every value comes out of JSON as the value that went in.
func TestJSONKeepsValues(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := drawValue(t)
		b, err := json.Marshal(jsonValue{v})
		if err != nil {
			t.Fatalf("%v does not encode: %v", v, err)
		}
		var back jsonValue
		if err := json.Unmarshal(b, &back); err != nil || !back.Equal(v) {
			t.Fatalf("%s came back as another value (%v)", b, err)
		}
	})
}

func TestArguments(t *testing.T) {
	for _, c := range []struct {
		text string
		want changeset.Value
	}{
		{"5", changeset.Integer(5)}, {"-5", changeset.Integer(-5)}, {"5.0", changeset.Real(5)}, {"1e3", changeset.Real(1000)},
		{"null", changeset.Null()}, {"NULL", changeset.TextString("NULL")}, {"", changeset.TextString("")},
		{"05", changeset.TextString("05")}, {"+5", changeset.TextString("+5")}, {"5 ", changeset.TextString("5 ")},
		{"text:5", changeset.TextString("5")}, {"text:", changeset.TextString("")}, {"blob:00ff", changeset.Blob([]byte{0, 255})},
		{"blob:", changeset.Blob(nil)}, {"a:b", changeset.TextString("a:b")}, {"true", changeset.TextString("true")},
		{"-", changeset.TextString("-")},
	} {
		if got, err := parseArgument(c.text); err != nil || !got.Equal(c.want) {
			t.Errorf("%q is %v (%v), not %v", c.text, got, err, c.want)
		}
	}
	for _, text := range []string{"99999999999999999999", "blob:0", "blob:xx", "1e999"} {
		if v, err := parseArgument(text); err == nil {
			t.Errorf("%q was taken as %v", text, v)
		}
	}
}

// Nothing that comes out of a database reaches the terminal as a control character.
func TestDisplay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := display(drawValue(t))
		if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 }) {
			t.Fatalf("%q holds a control character", s)
		}
	})
}
