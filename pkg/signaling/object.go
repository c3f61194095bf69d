package signaling

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"unicode/utf8"
)

// object is a JSON object whose fields are looked up by their exact name.
// encoding/json's structs would take "KIND" for "kind", JavaScript does not.
type object map[string]json.RawMessage

var (
	errNotObject = errors.New("is not a JSON object")
	errMissing   = errors.New("is missing")
	errWrongType = errors.New("has the wrong type or range")
)

// parseObject reads one JSON object in UTF-8 with nothing behind it. The fields are parts of b.
//
// It takes what encoding/json takes, which would look at each byte of an envelope five times and copy it: a signaling
// server does little else, and for anybody.
func parseObject(b []byte) (object, error) {
	if !utf8.Valid(b) {
		return nil, errors.New("is not UTF-8")
	}
	s := scanner{rest: b}
	if !s.next('{') {
		return nil, errNotObject
	}
	o := object{}
	for first := true; !s.next('}'); first = false {
		if !first && !s.next(',') {
			return nil, errNotObject
		}
		name, ok := s.name()
		if !ok || !s.next(':') {
			return nil, errNotObject
		}
		if o[name], ok = s.value(); !ok {
			return nil, errNotObject
		}
	}
	if s.space(); len(s.rest) > 0 {
		return nil, errNotObject
	}
	return o, nil
}

// scanner takes JSON apart, from its beginning.
type scanner struct{ rest []byte }

func (s *scanner) space() {
	for len(s.rest) > 0 && strings.IndexByte(" \t\r\n", s.rest[0]) >= 0 {
		s.rest = s.rest[1:]
	}
}

// next takes c, if that comes next.
func (s *scanner) next(c byte) bool {
	if s.space(); len(s.rest) == 0 || s.rest[0] != c {
		return false
	}
	s.rest = s.rest[1:]
	return true
}

// name takes the name of a field.
func (s *scanner) name() (name string, ok bool) {
	s.space()
	n := quoted(s.rest)
	if n == 0 {
		return "", false
	}
	raw := s.rest[:n]
	s.rest = s.rest[n:]
	if name, ok = plain(raw); !ok {
		ok = json.Unmarshal(raw, &name) == nil
	}
	return name, ok
}

// value takes a value. What is not a string is little, or what nobody asks for.
func (s *scanner) value() (raw json.RawMessage, ok bool) {
	s.space()
	n := quoted(s.rest)
	if ok = n > 0; !ok {
		n = extent(s.rest)
		ok = json.Valid(s.rest[:n])
	}
	raw, s.rest = s.rest[:n:n], s.rest[n:]
	return raw, ok
}

// quoted returns the length of the string that b begins with, or 0 if there is none.
func quoted(b []byte) int {
	if len(b) == 0 || b[0] != '"' {
		return 0
	}
	n := 1 + bytes.IndexByte(b[1:], '"')
	if n == 0 {
		return 0
	}
	if bytes.IndexByte(b[:n], '\\') < 0 { // an envelope, and nearly all else
		for _, c := range b[:n] {
			if c < ' ' {
				return 0
			}
		}
		return n + 1
	}
	for i := 1; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			return i + 1
		case c < ' ':
			return 0
		case c != '\\':
		case i+1 == len(b):
			return 0
		case b[i+1] == 'u':
			for _, h := range b[min(i+2, len(b)):min(i+6, len(b))] {
				if !strings.ContainsRune("0123456789abcdefABCDEF", rune(h)) {
					return 0
				}
			}
			i += 5 // if b ends before that, so does the loop
		case strings.IndexByte(`"\/bfnrt`, b[i+1]) >= 0:
			i++
		default:
			return 0
		}
	}
	return 0
}

// extent returns how far the value reaches that b begins with, if it is one.
func extent(b []byte) int {
	depth := 0
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			n := quoted(b[i:])
			if n == 0 {
				return 0
			}
			i += n - 1
		case '[', '{':
			depth++
		case ']', '}':
			if depth == 0 {
				return i
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case ',', ' ', '\t', '\r', '\n':
			if depth == 0 {
				return i
			}
		}
	}
	return len(b)
}

// has tells whether the field is there and not null.
func (o object) has(name string) bool {
	raw, ok := o[name]
	return ok && !bytes.Equal(raw, []byte("null"))
}

// required reads a field that must be there. v must not be a struct.
func (o object) required(name string, v any) error {
	if !o.has(name) {
		return errMissing
	}
	return o.optional(name, v)
}

// optional reads a field that may be absent or null; then v stays as it is.
func (o object) optional(name string, v any) error {
	if !o.has(name) {
		return nil
	}
	if s, ok := v.(*string); ok {
		if text, ok := plain(o[name]); ok {
			*s = text
			return nil
		}
	}
	if json.Unmarshal(o[name], v) != nil {
		return errWrongType
	}
	return nil
}

// plain returns a string of valid JSON in which nothing is escaped. It spares a second look at each byte of an envelope.
func plain(raw json.RawMessage) (string, bool) {
	if raw[0] != '"' || bytes.IndexByte(raw, '\\') >= 0 {
		return "", false
	}
	return string(raw[1 : len(raw)-1]), true
}

// marshalJSON is json.Marshal without the HTML escapes, which would only
// make SDP longer.
func marshalJSON(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}
