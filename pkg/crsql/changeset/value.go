package changeset

import "math"

// Kind is the storage class of a Value. The numbers are those of the packed form.
type Kind uint8

// The five storage classes of SQLite, numbered as cr-sqlite packs them.
const (
	KindInteger Kind = 1
	KindReal    Kind = 2
	KindText    Kind = 3
	KindBlob    Kind = 4
	KindNull    Kind = 5
)

// Value is one SQLite value with its storage class: 2 and 2.0 are different values.
// The zero Value is NULL. Text is bytes, and may hold a NUL or invalid UTF-8, as in SQLite.
type Value struct {
	kind Kind // 0 stands for KindNull
	num  uint64
	data []byte
}

// Null returns the NULL value.
func Null() Value { return Value{} }

// Integer returns an INTEGER value.
func Integer(v int64) Value { return Value{kind: KindInteger, num: uint64(v)} }

// Real returns a REAL value; NaN is NULL, as in SQLite.
func Real(v float64) Value {
	if math.IsNaN(v) {
		return Value{}
	}
	return Value{kind: KindReal, num: math.Float64bits(v)}
}

// Text returns a TEXT value that owns b from now on.
func Text(b []byte) Value { return Value{kind: KindText, data: b} }

// TextString returns a TEXT value holding s.
func TextString(s string) Value { return Value{kind: KindText, data: []byte(s)} }

// Blob returns a BLOB value that owns b from now on. A nil b is the empty blob, not NULL.
func Blob(b []byte) Value { return Value{kind: KindBlob, data: b} }

// Kind returns the storage class.
func (v Value) Kind() Kind {
	if v.kind == 0 {
		return KindNull
	}
	return v.kind
}

// Int64 returns an INTEGER's value; it is 0 for every other kind.
func (v Value) Int64() int64 {
	if v.kind != KindInteger {
		return 0
	}
	return int64(v.num)
}

// Float64 returns a REAL's value; it is 0 for every other kind.
func (v Value) Float64() float64 {
	if v.kind != KindReal {
		return 0
	}
	return math.Float64frombits(v.num)
}

// Bytes returns the bytes of a TEXT or BLOB, owned by the Value; nil for every other kind.
func (v Value) Bytes() []byte { return v.data }

// Size returns the length of v in packed form, in bytes.
func (v Value) Size() int {
	switch v.Kind() {
	case KindInteger:
		return 1 + uintBytes(v.num)
	case KindReal:
		return 1 + 8
	case KindText, KindBlob:
		return 1 + uintBytes(uint64(len(v.data))) + len(v.data)
	default:
		return 1
	}
}
