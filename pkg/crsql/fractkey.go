package crsql

import (
	"errors"
	"fmt"
	"strings"
)

// A fractional key is a text that says where a row stands in a list. Keys compare bytewise, and between any two there is
// room for another, so that a row finds its place without a write to its neighbours. This file is pure.
//
// A key is an integer part and a fraction, in digits from space (0) to tilde (94). The integer part starts with a letter
// that says how many digits follow: a to z for 1 to 26 of them and growing numbers, Z down to A for 1 to 26 and numbers
// below zero. So a longer integer part sorts after a shorter one, or before it below zero. The fraction does not end with
// a space, which would be a second spelling of the same place.
const (
	fractDigits = 95
	fractMin    = ' '
	fractMax    = '~'

	fractFirst = "a " // the key of the first row of a list
)

// fractSmallest is the lowest integer part. It is no key by itself: there would be no place before it.
var fractSmallest = "A" + strings.Repeat(" ", 26)

// fractBetween returns a key between a and b. An empty a is the start of the list, an empty b its end.
func fractBetween(a, b string) (string, error) {
	for _, key := range []string{a, b} {
		if key != "" {
			if err := fractCheck(key); err != nil {
				return "", err
			}
		}
	}
	switch {
	case a == "" && b == "":
		return fractFirst, nil
	case a == "":
		return fractBefore(b)
	case b == "":
		return fractAfter(a), nil
	case a >= b:
		return "", fmt.Errorf("there is no place between the keys %s and %s: the first must be the lower one", fractShow(a), fractShow(b))
	}
	ia, ib := fractInteger(a), fractInteger(b)
	if ia == ib {
		return ia + fractMiddle(a[len(ia):], b[len(ib):]), nil
	}
	if next, ok := fractUp(ia); ok && next < b {
		return next, nil
	}
	return ia + fractMiddle(a[len(ia):], ""), nil
}

// fractBefore returns a key before b.
func fractBefore(b string) (string, error) {
	ib := fractInteger(b)
	if ib == fractSmallest {
		return ib + fractMiddle("", b[len(ib):]), nil
	}
	if len(ib) < len(b) {
		return ib, nil
	}
	key, ok := fractDown(ib)
	if !ok {
		return "", fmt.Errorf("there is no key before %s", fractShow(b))
	}
	return key, nil
}

// fractAfter returns a key after a.
func fractAfter(a string) string {
	ia := fractInteger(a)
	if next, ok := fractUp(ia); ok {
		return next
	}
	return ia + fractMiddle(a[len(ia):], "")
}

// fractMiddle returns a fraction between a and b, which is above a. An empty b stands for one.
func fractMiddle(a, b string) string {
	var key []byte
	for {
		n := 0
		for n < len(b) && b[n] == fractDigit(a, n) {
			n++
		}
		key = append(key, b[:n]...)
		a, b = a[min(n, len(a)):], b[n:]

		low, high := int(fractDigit(a, 0)-fractMin), fractDigits
		if b != "" {
			high = int(b[0] - fractMin)
		}
		if high-low > 1 {
			return string(append(key, byte(fractMin+(low+high+1)/2)))
		}
		if len(b) > 1 {
			return string(append(key, b[0]))
		}
		key = append(key, byte(fractMin+low))
		a, b = a[min(1, len(a)):], ""
	}
}

// fractDigit returns the i-th digit of a fraction, 0 after its end.
func fractDigit(fraction string, i int) byte {
	if i < len(fraction) {
		return fraction[i]
	}
	return fractMin
}

// fractUp returns the integer part after x, or false if x is the highest.
func fractUp(x string) (string, bool) {
	digits := []byte(x[1:])
	for i := len(digits) - 1; i >= 0; i-- {
		if digits[i] < fractMax {
			digits[i]++
			return x[:1] + string(digits), true
		}
		digits[i] = fractMin
	}
	switch head := x[0]; {
	case head == 'z':
		return "", false
	case head == 'Z':
		return fractFirst, true
	case head >= 'a':
		return string(head+1) + string(digits) + string(rune(fractMin)), true
	default:
		return string(head+1) + string(digits[1:]), true
	}
}

// fractDown returns the integer part before x, or false if x is the lowest.
func fractDown(x string) (string, bool) {
	digits := []byte(x[1:])
	for i := len(digits) - 1; i >= 0; i-- {
		if digits[i] > fractMin {
			digits[i]--
			return x[:1] + string(digits), true
		}
		digits[i] = fractMax
	}
	switch head := x[0]; {
	case head == 'A':
		return "", false
	case head == 'a':
		return "Z" + string(rune(fractMax)), true
	case head > 'a':
		return string(head-1) + string(digits[1:]), true
	default:
		return string(head-1) + string(digits) + string(rune(fractMax)), true
	}
}

// fractInteger returns the integer part of a key.
func fractInteger(key string) string { return key[:1+fractLen(key[0])] }

// fractLen returns how many digits follow the letter at the start of a key; 0 if that is no letter.
func fractLen(head byte) int {
	switch {
	case head >= 'a' && head <= 'z':
		return int(head-'a') + 1
	case head >= 'A' && head <= 'Z':
		return int('Z'-head) + 1
	}
	return 0
}

// fractCheck says what is wrong with a key.
func fractCheck(key string) error {
	if key == "" {
		return errors.New("a key is empty: give NULL for the start or the end of the list")
	}
	for i := range len(key) {
		if key[i] < fractMin || key[i] > fractMax {
			return fmt.Errorf("%s is no key: its characters are those from space to tilde", fractShow(key))
		}
	}
	n := fractLen(key[0])
	switch {
	case n == 0:
		return fmt.Errorf("%s is no key: the first character is a letter; write -1 or 1 to put a row first or last", fractShow(key))
	case len(key) < 1+n:
		return fmt.Errorf("%s is no key: %d characters follow a first %q", fractShow(key), n, key[:1])
	case key == fractSmallest:
		return fmt.Errorf("%s is no key: there is no place before it", fractShow(key))
	case len(key) > 1+n && key[len(key)-1] == fractMin:
		return fmt.Errorf("%s is no key: it ends with a space", fractShow(key))
	}
	return nil
}

// fractShow quotes a key for a message, and shortens it.
func fractShow(key string) string {
	const most = 40
	if len(key) > most {
		return fmt.Sprintf("%q (%d bytes)", key[:most]+"...", len(key))
	}
	return fmt.Sprintf("%q", key)
}
