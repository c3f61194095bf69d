package signaling

import (
	"bytes"
	"encoding/json"
	"maps"
	"runtime"
	"strings"
	"testing"
	"unicode/utf8"
)

var objects = []string{
	`{}`, ` { } `, `{"a":1}`, "\t{\r\n\"a\" : [1, {\"b\":\"]}\"}] , \"c\":null}\n", `{"a":1,"a":"2"}`, `{"\u0061\n":"\ud800\"\\\/"}`, `{"":-0.5e+7}`,
	`{"A":true,"a":false}`, `{"a":"é😀"}`, `{"a":{}}`, `{"a":[]}`, `{"a":"","b":""}`,
	``, ` `, `null`, `[]`, `"a"`, `{`, `}`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{,}`, `{"a":1 "b":2}`, `{"a":1 2}`, `{"a":01}`, `{"a":+1}`, `{"a":nul}`,
	`{"a":1}}`, `{"a":1} x`, `{'a':1}`, `{a:1}`, `{"a":[}`, `{"a":[1}}`, `{"a":{]}`, `{"a":["]}`, `{"a":"\x"}`, `{"a":"\u12g4"}`, `{"a":"\u12"}`,
	`{"a":"\`, `{"a":"\u`, `{"a":"b`, "{\"a\":\"\n\"}", "{\"a\":\"\x00\"}", "{\"a\n\":1}", "{\"a\":\"\xff\"}", "{\"a\":1}\xff", `{"a":,}`, `{"a"::1}`, `{"a":1:2}`,
	`{"a":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`, "\ufeff{}", "{\u00a0}", "{\"a\":\v1}",
}

// What an object is, and its fields, encoding/json says, too.
func FuzzParseObject(f *testing.F) {
	for _, seed := range objects {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parseObject(b)
		if !utf8.Valid(b) {
			if err == nil {
				t.Fatal("what is no UTF-8 is read")
			}
			return
		}
		var want map[string]json.RawMessage
		good := json.Unmarshal(b, &want) == nil && want != nil
		if good != (err == nil) {
			t.Fatalf("%v; encoding/json: %v", err, good)
		}
		if good && !maps.EqualFunc(got, want, func(a, b json.RawMessage) bool { return bytes.Equal(a, b) }) {
			t.Fatalf("got %q, encoding/json %q", got, want)
		}
	})
}

// An envelope is copied once when it is read, for whoever it is passed on to: an attacker's would keep the garbage collector busy.
func TestEnvelopesAreReadWithoutCopies(t *testing.T) {
	frame, err := MarshalMessage(SignalTo{Sealed: strings.Repeat("A", MaxSealed)})
	if err != nil {
		t.Fatal(err)
	}
	const times = 100
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range times {
		if _, err := ParseClientMessage(frame); err != nil {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if n := (after.TotalAlloc - before.TotalAlloc) / times; n > MaxSealed*3/2 {
		t.Errorf("a message of %d bytes takes %d bytes more to be read", len(frame), n)
	}
}
