package signaling

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
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
// encoding/json would look at each byte of an envelope five times and copy it: a signaling server does little else, and for anybody.
func parseObject(b []byte) (object, error) {
	if !utf8.Valid(b) {
		return nil, errors.New("is not UTF-8")
	}
	// What encoding/json and JavaScript take: of fields with one name the last, and half a surrogate pair.
	d := jsontext.NewDecoder(bytes.NewBuffer(b), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if t, err := d.ReadToken(); err != nil || t.Kind() != '{' {
		return nil, errNotObject
	}
	o := object{}
	for {
		t, err := d.ReadToken()
		if err != nil {
			return nil, errNotObject
		}
		if t.Kind() == '}' {
			break
		}
		name := t.String()
		value, err := d.ReadValue()
		if err != nil {
			return nil, errNotObject
		}
		end := int(d.InputOffset())
		o[name] = json.RawMessage(b[end-len(value) : end : end])
	}
	if _, err := d.ReadToken(); err != io.EOF {
		return nil, errNotObject
	}
	return o, nil
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
