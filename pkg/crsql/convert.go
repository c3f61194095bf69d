package crsql

import (
	"database/sql/driver"
	"math"
	"strconv"
	"strings"
	"unsafe"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// toDriver returns v as mattn binds it. It shares v's memory, which mattn copies when it binds.
func toDriver(v changeset.Value) driver.Value {
	switch v.Kind() {
	case changeset.KindInteger:
		return v.Int64()
	case changeset.KindReal:
		return v.Float64()
	case changeset.KindText:
		b := v.Bytes()
		return unsafe.String(unsafe.SliceData(b), len(b)) // values are never modified
	case changeset.KindBlob:
		if b := v.Bytes(); b != nil {
			return b
		}
		return []byte{} // a nil slice would be bound as NULL
	default:
		return nil
	}
}

// fromDriver returns what mattn read from a column without a declared type, or passed to a function, as a Value.
// A nil slice is NULL (function arguments), an empty one the empty blob. It shares v's memory.
func fromDriver(v any) changeset.Value {
	switch v := v.(type) {
	case int64:
		return changeset.Integer(v)
	case float64:
		return changeset.Real(v)
	case string:
		return changeset.Text(unsafe.Slice(unsafe.StringData(v), len(v))) // values are never modified
	case []byte:
		if v != nil {
			return changeset.Blob(v)
		}
	}
	return changeset.Null()
}

// toInt64 reads a function's argument as sqlite3_value_int64 does: a text or blob by the integer that it begins with,
// and what is out of range as the nearest integer.
func toInt64(v any) int64 {
	switch v := v.(type) {
	case int64:
		return v
	case float64:
		const largest = 1<<63 - 1024 // that is a float64 below 2^63
		switch {
		case v < -largest:
			return math.MinInt64
		case v > largest:
			return math.MaxInt64
		}
		return int64(v)
	case string:
		return leadingInt64(v)
	case []byte:
		return leadingInt64(string(v[:min(len(v), maxNumber)]))
	}
	return 0
}

// maxNumber is how many bytes of a blob are looked at for a number.
const maxNumber = 4096

func leadingInt64(s string) int64 {
	s = strings.TrimLeft(s, " \t\n\v\f\r")
	end := 0
	for end < len(s) && (s[end] >= '0' && s[end] <= '9' || end == 0 && (s[0] == '-' || s[0] == '+')) {
		end++
	}
	n, _ := strconv.ParseInt(s[:end], 10, 64) // out of range gives the nearest, anything else 0
	return n
}

// toText reads a function's argument as sqlite3_value_text does.
func toText(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case []byte:
		return string(v)
	case int64:
		return strconv.FormatInt(v, 10)
	case float64:
		return floatText(v, floatDigits)
	}
	return ""
}

// floatDigits is how many digits cr-sqlite's SQLite writes of a number.
const floatDigits = 15

// floatText returns a number as SQLite writes it, with a decimal point and so many digits at most; -1: as many as tell
// it from all others.
func floatText(v float64, digits int) string {
	switch {
	case v == 0:
		return "0.0" // also the negative one
	case math.IsInf(v, 0):
		return strings.TrimPrefix(strconv.FormatFloat(v, 'g', -1, 64), "+")
	}
	mantissa, exponent, found := strings.Cut(strconv.FormatFloat(v, 'g', digits, 64), "e")
	if !strings.Contains(mantissa, ".") {
		mantissa += ".0"
	}
	if found {
		return mantissa + "e" + exponent
	}
	return mantissa
}

// toBytes reads a function's argument as sqlite3_value_blob does.
func toBytes(v any) []byte {
	switch v := v.(type) {
	case []byte:
		return v
	case string, int64, float64:
		return []byte(toText(v))
	}
	return nil
}
