package changeset

import (
	"bytes"
	"cmp"
)

// Compare orders values as a merge does when versions are equal: NULL < BLOB < TEXT < REAL < INTEGER, and within a
// kind numbers by size, text and blobs bytewise with the shorter first. Every INTEGER is above every REAL, whatever
// their sizes. It returns -1, 0 or 1; 0.0 and -0.0 are equal.
func Compare(a, b Value) int {
	if a.Kind() != b.Kind() {
		return cmp.Compare(b.Kind(), a.Kind()) // the kinds are numbered from the highest to the lowest
	}
	switch a.Kind() {
	case KindInteger:
		return cmp.Compare(a.Int64(), b.Int64())
	case KindReal:
		return cmp.Compare(a.Float64(), b.Float64())
	case KindText, KindBlob:
		return bytes.Compare(a.data, b.data)
	default:
		return 0
	}
}

// Equal reports whether a and b are the same value of the same kind, to the bit: 0.0 and -0.0 differ.
func (v Value) Equal(o Value) bool {
	return v.Kind() == o.Kind() && v.num == o.num && bytes.Equal(v.data, o.data)
}
