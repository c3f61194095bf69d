package crsql

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// maxShown is how much of a name or key an error message shows, in characters.
const maxShown = 100

// shorten cuts a text that is shown to maxShown characters.
func shorten(text string) string {
	if len(text) <= maxShown {
		return text
	}
	n := 0
	for i := range text {
		if n++; n > maxShown {
			return text[:i] + "…"
		}
	}
	return text
}

// nameText returns a name for an error message, in quotes.
func nameText(name string) string {
	if len(name) > utf8.UTFMax*maxShown { // quote no megabytes
		name = name[:utf8.UTFMax*maxShown]
	}
	return strconv.Quote(shorten(name))
}

// keyText returns a packed primary key for an error message: (1, 'ab'), or its bytes in hex where they are none.
func keyText(pk []byte) string {
	values, err := changeset.ParsePacked(pk)
	if err != nil {
		return shorten("x'" + hex.EncodeToString(pk[:min(len(pk), maxShown)]) + "'")
	}
	return valuesText(values)
}

// valuesText returns values for an error message: (1, 'ab').
func valuesText(values []changeset.Value) string {
	var b strings.Builder
	b.WriteByte('(')
	for i, v := range values {
		if b.Len() > utf8.UTFMax*maxShown {
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		data := v.Bytes()
		data = data[:min(len(data), utf8.UTFMax*maxShown)]
		switch v.Kind() {
		case changeset.KindInteger:
			b.WriteString(strconv.FormatInt(v.Int64(), 10))
		case changeset.KindReal:
			b.WriteString(floatText(v.Float64(), -1))
		case changeset.KindText:
			quoted := strconv.Quote(string(data))
			b.WriteString(literal(strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)))
		case changeset.KindBlob:
			b.WriteString("x'" + hex.EncodeToString(data) + "'")
		default:
			b.WriteString("NULL")
		}
	}
	b.WriteByte(')')
	return shorten(b.String())
}

// naming makes the errors of f, which a trigger calls with a table and the values of a row's primary key, name both.
func (e *engine) naming(f func(args []any) error) func(args []any) error {
	return func(args []any) error {
		err := f(args)
		if err == nil || len(args) == 0 {
			return err
		}
		t := e.tables[toText(args[0])]
		if t == nil || len(args) <= len(t.pks) {
			return err // which says so
		}
		key := make([]changeset.Value, len(t.pks))
		for i := range key {
			key[i] = fromDriver(args[1+i])
		}
		return fmt.Errorf("table %s, key %s: %w", nameText(t.name), valuesText(key), err)
	}
}
