package changeset

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"slices"
)

// The packed form. A value is one byte and its data, big-endian:
//
//	byte     n<<3 | kind, n being the number of bytes of the integer that follows
//	INTEGER  n bytes, the fewest that hold it as an unsigned number: 0 takes none, a negative one 8
//	REAL     8 bytes, IEEE 754; n is 0
//	TEXT     n bytes of length, again the fewest, and then the text
//	BLOB     likewise
//	NULL     nothing; n is 0
//
// A packed key is one byte with the number of values, and the values.

// MaxPackedValues is the largest number of values in a packed key.
const MaxPackedValues = 255

// maxIntBytes is the length of the longest integer in packed form.
const maxIntBytes = 8

// ParseError says why bytes are no packed value or key.
type ParseError struct {
	Offset int    // of the byte at fault, from the start of what was parsed
	Reason string // a sentence without its full stop
}

// Error returns the reason and the offset.
func (e *ParseError) Error() string {
	return fmt.Sprintf("packed value: %s (at byte %d)", e.Reason, e.Offset)
}

func parseError(offset int, reason string) error { return &ParseError{Offset: offset, Reason: reason} }

// AppendValue appends v in packed form to dst and returns the extended slice.
func AppendValue(dst []byte, v Value) []byte {
	switch kind := v.Kind(); kind {
	case KindInteger:
		return appendUint(dst, kind, v.num)
	case KindReal:
		return binary.BigEndian.AppendUint64(append(dst, byte(kind)), v.num)
	case KindText, KindBlob:
		return append(appendUint(dst, kind, uint64(len(v.data))), v.data...)
	default:
		return append(dst, byte(KindNull))
	}
}

// AppendPacked appends the packed key of values to dst and returns the extended slice.
// It refuses more than MaxPackedValues values.
func AppendPacked(dst []byte, values []Value) ([]byte, error) {
	if len(values) > MaxPackedValues {
		return dst, fmt.Errorf("a packed key holds at most %d values, not %d", MaxPackedValues, len(values))
	}
	dst = append(dst, byte(len(values)))
	for _, v := range values {
		dst = AppendValue(dst, v)
	}
	return dst, nil
}

// ParsePacked returns the values of a packed key. Like cr-sqlite it accepts integers that are longer than they need
// be and ignores bytes after the last value. Unlike it, it refuses a key without values, one with fewer values than
// it announces, and a length that points past the end. The values share b's memory. Errors are a *ParseError.
func ParsePacked(b []byte) ([]Value, error) { return AppendParsed(nil, b) }

// AppendParsed is ParsePacked, and appends the values to dst. Upon an error it returns dst as it was.
func AppendParsed(dst []Value, b []byte) ([]Value, error) {
	values, _, err := appendParsed(dst, b, false)
	return values, err
}

// ParseCanonical is ParsePacked for bytes that another program sent: it accepts only what AppendPacked makes,
// so that what parses packs to the same bytes again.
func ParseCanonical(b []byte) ([]Value, error) {
	values, rest, err := appendParsed(nil, b, true)
	if err == nil && len(rest) > 0 {
		return nil, parseError(len(b)-len(rest), "bytes follow the last value")
	}
	return values, err
}

// ParseValue parses the value at the start of b, and returns it with what follows it. It accepts only what AppendValue
// makes. The value shares b's memory. Errors are a *ParseError.
func ParseValue(b []byte) (Value, []byte, error) { return parseValue(b, 0, true) }

func appendParsed(dst []Value, b []byte, strict bool) ([]Value, []byte, error) {
	if len(b) == 0 {
		return dst, nil, parseError(0, "the key is empty")
	}
	count, rest := int(b[0]), b[1:]
	if count == 0 {
		return dst, nil, parseError(0, "the key holds no value")
	}
	// A value takes at least one byte: a short key must not make us reserve memory for what it announces.
	if len(rest) < count {
		return dst, nil, parseError(len(b), "the key has fewer values than it announces")
	}
	values := slices.Grow(dst, count)
	for range count {
		v, after, err := parseValue(rest, len(b)-len(rest), strict)
		if err != nil {
			return dst, nil, err
		}
		values, rest = append(values, v), after
	}
	return values, rest, nil
}

// parseValue parses the value at the start of b, which lies at offset of what the caller was given.
func parseValue(b []byte, offset int, strict bool) (Value, []byte, error) {
	if len(b) == 0 {
		return Value{}, nil, parseError(offset, "a value is missing")
	}
	kind, n, rest := Kind(b[0]&7), int(b[0]>>3), b[1:]
	switch kind {
	case KindReal, KindNull:
		if strict && n != 0 {
			return Value{}, nil, parseError(offset, "the kind of the value takes no length")
		}
		if kind == KindNull {
			return Value{}, rest, nil
		}
		if len(rest) < 8 {
			return Value{}, nil, parseError(offset, "the value ends early")
		}
		v := Real(math.Float64frombits(binary.BigEndian.Uint64(rest)))
		if strict && v.Kind() != KindReal {
			return Value{}, nil, parseError(offset, "NaN is no value of SQLite")
		}
		return v, rest[8:], nil
	case KindInteger, KindText, KindBlob:
		if n > maxIntBytes {
			return Value{}, nil, parseError(offset, "an integer has more than 8 bytes")
		}
		if len(rest) < n {
			return Value{}, nil, parseError(offset, "the value ends early")
		}
		if strict && n > 0 && rest[0] == 0 {
			return Value{}, nil, parseError(offset, "an integer is longer than it need be")
		}
		var num uint64
		for _, c := range rest[:n] {
			num = num<<8 | uint64(c)
		}
		rest = rest[n:]
		if kind == KindInteger {
			return Value{kind: KindInteger, num: num}, rest, nil
		}
		if num > uint64(len(rest)) {
			return Value{}, nil, parseError(offset, "the length points past the end")
		}
		return Value{kind: kind, data: rest[:num:num]}, rest[num:], nil
	default:
		return Value{}, nil, parseError(offset, "the kind of the value is unknown")
	}
}

// appendUint appends the byte that announces n bytes of kind, and n in the fewest bytes.
func appendUint(dst []byte, kind Kind, n uint64) []byte {
	size := uintBytes(n)
	dst = append(dst, byte(size<<3)|byte(kind))
	for shift := 8 * (size - 1); shift >= 0; shift -= 8 {
		dst = append(dst, byte(n>>shift))
	}
	return dst
}

func uintBytes(n uint64) int { return (bits.Len64(n) + 7) / 8 }
