package syncproto

import (
	"encoding/binary"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

func appendTable(dst []byte, t *TableSchema) []byte {
	dst = appendString(appendString(dst, t.Name), t.SQL)
	dst = binary.AppendUvarint(dst, uint64(len(t.Columns)))
	for i := range t.Columns {
		c := &t.Columns[i]
		dst = appendString(appendString(dst, c.Name), c.Type)
		dst = append(dst, bit(c.NotNull, flagNotNull)|bit(c.HasDefault, flagDefault))
		if c.HasDefault {
			dst = appendString(dst, c.Default)
		}
		dst = binary.AppendUvarint(dst, uint64(c.Key))
	}
	return dst
}

func (p *parser) column() changeset.Column {
	c := changeset.Column{Name: p.text("a name", 1, MaxName), Type: p.text("a type", 0, MaxTypeName)}
	f := p.flags(flagNotNull | flagDefault)
	c.NotNull, c.HasDefault = f&flagNotNull != 0, f&flagDefault != 0
	if c.HasDefault {
		c.Default = p.text("a default", 1, MaxSchemaSQL)
	}
	place := p.number("a place in the primary key", 0)
	if place > MaxColumns {
		p.fail("a place in the primary key is above 2000")
		return c
	}
	c.Key = int(place)
	return c
}

// sizeOfTable returns how many bytes a table takes in a message, at most; false where no message holds it.
func sizeOfTable(t *TableSchema) (int, bool) {
	if !nameOK(t.Name) || !textOK(t.SQL, MaxSchemaSQL) || len(t.Columns) > MaxColumns {
		return len(t.SQL), false
	}
	size := len(t.Name) + len(t.SQL) + 12
	for i := range t.Columns {
		c := &t.Columns[i]
		if !nameOK(c.Name) || c.Type != "" && !textOK(c.Type, MaxTypeName) || c.HasDefault && !textOK(c.Default, MaxSchemaSQL) ||
			c.Key > MaxColumns {
			return len(t.SQL), false
		}
		size += len(c.Name) + len(c.Type) + len(c.Default) + 12
	}
	return size, true
}
