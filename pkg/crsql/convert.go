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

// toInt64 reads a function's argument as sqlite3_value_int64 does.
func toInt64(v any) int64 {
	switch v := v.(type) {
	case int64:
		return v
	case float64:
		switch { // Go leaves open what becomes of a number that is too large
		case v <= math.MinInt64:
			return math.MinInt64
		case v >= math.MaxInt64:
			return math.MaxInt64
		}
		return int64(v)
	case []byte:
		return toInt64(string(v))
	case string:
		v = strings.TrimSpace(v)
		end := 0
		for end < len(v) && (v[end] >= '0' && v[end] <= '9' || end == 0 && (v[0] == '-' || v[0] == '+')) {
			end++
		}
		n, _ := strconv.ParseInt(v[:end], 10, 64) // out of range gives the nearest, anything else 0
		return n
	}
	return 0
}

// toText reads a function's argument as a name.
func toText(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case []byte:
		return string(v)
	case int64:
		return strconv.FormatInt(v, 10)
	}
	return ""
}

// toBytes reads a function's argument as a blob.
func toBytes(v any) []byte {
	switch v := v.(type) {
	case string:
		return []byte(v)
	case []byte:
		return v
	case int64:
		return strconv.AppendInt(nil, v, 10)
	}
	return nil
}
