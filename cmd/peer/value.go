package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// exactInteger is the largest integer that every JSON reader keeps exactly.
const exactInteger = 1<<53 - 1

// appendJSON appends v as the API writes it; docs/API.md has the table.
func appendJSON(dst []byte, v changeset.Value) []byte {
	switch v.Kind() {
	case changeset.KindInteger:
		n := v.Int64()
		if n > exactInteger || n < -exactInteger {
			return fmt.Appendf(dst, `{"integer":"%d"}`, n)
		}
		return strconv.AppendInt(dst, n, 10)
	case changeset.KindReal:
		return appendReal(dst, v.Float64())
	case changeset.KindText:
		if !utf8.Valid(v.Bytes()) {
			return fmt.Appendf(dst, `{"text":"%s"}`, base64.StdEncoding.EncodeToString(v.Bytes()))
		}
		return appendJSONString(dst, string(v.Bytes()))
	case changeset.KindBlob:
		return fmt.Appendf(dst, `{"blob":"%s"}`, base64.StdEncoding.EncodeToString(v.Bytes()))
	default:
		return append(dst, "null"...)
	}
}

// appendReal writes a REAL so that it cannot be taken for an INTEGER.
func appendReal(dst []byte, f float64) []byte {
	if math.IsInf(f, 0) {
		return fmt.Appendf(dst, `{"real":"%sInfinity"}`, map[bool]string{true: "-"}[f < 0])
	}
	start := len(dst)
	dst = strconv.AppendFloat(dst, f, 'g', -1, 64)
	if !bytes.ContainsAny(dst[start:], ".e") {
		dst = append(dst, ".0"...)
	}
	return dst
}

func appendJSONString(dst []byte, s string) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string always encodes
	return append(dst, bytes.TrimSuffix(b.Bytes(), []byte("\n"))...)
}

// jsonValue is a changeset.Value in JSON.
type jsonValue struct{ changeset.Value }

func (v jsonValue) MarshalJSON() ([]byte, error) { return appendJSON(nil, v.Value), nil }

func (v *jsonValue) UnmarshalJSON(b []byte) error {
	value, err := parseJSON(bytes.TrimSpace(b))
	v.Value = value
	return err
}

var errValue = errors.New(`a value is null, a number, a string, {"blob":"<base64>"}, {"integer":"<digits>"}, ` +
	`{"real":"Infinity"} or {"text":"<base64>"}`)

// parseJSON reads what appendJSON writes.
func parseJSON(b []byte) (changeset.Value, error) {
	switch {
	case len(b) == 0:
		return changeset.Value{}, errValue
	case string(b) == "null":
		return changeset.Null(), nil
	case b[0] == '"':
		var s string
		if err := json.Unmarshal(b, &s); err != nil {
			return changeset.Value{}, errValue
		}
		return changeset.TextString(s), nil
	case b[0] == '{':
		return parseTyped(b)
	case b[0] == '-' || b[0] >= '0' && b[0] <= '9':
		return parseNumber(string(b))
	default: // true, false, arrays
		return changeset.Value{}, errValue
	}
}

func parseTyped(b []byte) (changeset.Value, error) {
	var fields map[string]string
	if err := json.Unmarshal(b, &fields); err != nil || len(fields) != 1 {
		return changeset.Value{}, errValue
	}
	for kind, text := range fields {
		switch kind {
		case "integer":
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				return changeset.Value{}, fmt.Errorf("%q is no integer of 64 bits", text)
			}
			return changeset.Integer(n), nil
		case "real":
			f, err := strconv.ParseFloat(text, 64)
			if err != nil || math.IsNaN(f) {
				return changeset.Value{}, fmt.Errorf("%q is no REAL", text)
			}
			return changeset.Real(f), nil
		case "blob", "text":
			raw, err := base64.StdEncoding.DecodeString(text)
			if err != nil {
				return changeset.Value{}, fmt.Errorf("the value of %q is not base64", kind)
			}
			if kind == "text" {
				return changeset.Text(raw), nil
			}
			return changeset.Blob(raw), nil
		}
	}
	return changeset.Value{}, errValue
}

// parseNumber makes an INTEGER of a number without fraction and exponent, and a REAL of any other.
func parseNumber(s string) (changeset.Value, error) {
	if !strings.ContainsAny(s, ".eE") {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return changeset.Value{}, fmt.Errorf("%s does not fit into 64 bits; write %s.0 for a REAL", s, s)
		}
		return changeset.Integer(n), nil
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return changeset.Value{}, fmt.Errorf("%s is too large for a REAL", s)
	}
	return changeset.Real(f), nil
}

// parseArgument reads an argument of the command line: `null`, a number in JSON's form, `text:...` taken as it is,
// `blob:` with hex digits; everything else is text.
func parseArgument(s string) (changeset.Value, error) {
	switch kind, rest, tagged := strings.Cut(s, ":"); {
	case s == "null":
		return changeset.Null(), nil
	case tagged && kind == "text":
		return changeset.TextString(rest), nil
	case tagged && kind == "blob":
		b, err := hex.DecodeString(rest)
		if err != nil {
			return changeset.Value{}, fmt.Errorf("%q is not blob: and hex digits; for a text that begins like that write text: before it", s)
		}
		return changeset.Blob(b), nil
	}
	if json.Valid([]byte(s)) && s == strings.TrimSpace(s) && (s[0] == '-' || s[0] >= '0' && s[0] <= '9') {
		return parseNumber(s)
	}
	return changeset.TextString(s), nil
}

// display is v for a person, in a table.
func display(v changeset.Value) string {
	switch v.Kind() {
	case changeset.KindInteger:
		return strconv.FormatInt(v.Int64(), 10)
	case changeset.KindReal:
		if f := v.Float64(); math.IsInf(f, 0) {
			return strconv.FormatFloat(f, 'g', -1, 64)
		}
		return string(appendReal(nil, v.Float64()))
	case changeset.KindText:
		return printable(string(v.Bytes()))
	case changeset.KindBlob:
		const most = 16
		if b := v.Bytes(); len(b) > most {
			return fmt.Sprintf("x'%x'... (%d bytes)", b[:most], len(b))
		}
		return fmt.Sprintf("x'%x'", v.Bytes())
	default:
		return "NULL"
	}
}

// printable keeps control characters away from the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '\u00b7'
		}
		return r
	}, strings.ToValidUTF8(s, "\ufffd"))
}
