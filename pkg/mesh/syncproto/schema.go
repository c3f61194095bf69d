package syncproto

import (
	"cmp"
	"slices"
)

// schemaState is a link's part in passing schemas on.
type schemaState struct {
	remoteHash [32]byte
	sentHash   [32]byte
	schemaWait bool          // a SchemaRequest is outstanding: what came after it waits
	schemaNext []TableSchema // came meanwhile; the latest only, since it is complete
	schemaMore bool
}

// SchemaChanged gives the schema's hash and tables: after New, and whenever it changed, before the Committed that came
// with the change. The core takes tables over.
func (c *Core) SchemaChanged(hash [32]byte, tables []TableSchema) {
	c.schemaHash, c.schemaGiven = hash, true
	c.schemaTables = slices.Clone(tables)
	slices.SortFunc(c.schemaTables, func(a, b TableSchema) int { return cmp.Compare(a.Name, b.Name) })
}

// announceSchema sends our tables to one whose schema differs, once for each state of ours.
func (c *Core) announceSchema(l *link) {
	if !c.cfg.Writer || !c.schemaGiven || c.schemaHash == [32]byte{} || c.schemaHash == l.remoteHash ||
		c.schemaHash == l.sentHash {
		return
	}
	l.sentHash = c.schemaHash
	m := &Schema{Hash: c.schemaHash}
	size := 64
	for _, t := range c.schemaTables {
		size += len(t.Name) + len(t.SQL) + 10
		if !nameOK(t.Name) || !textOK(t.SQL, MaxSchemaSQL) || size > l.maxMessage ||
			len(m.Tables) == MaxSchemaTables {
			c.event(l, Event{Kind: EventTooLarge, Table: t.Name, Size: len(t.SQL)})
			continue
		}
		m.Tables = append(m.Tables, t)
	}
	c.send(l, m)
}

func (c *Core) stepSchema(l *link, m *Schema) {
	if !l.writer {
		c.fail(l, &Error{CodeReadOnly, "this peer has not proved that it may write: it needs the room's write link"})
		return
	}
	l.remoteHash = m.Hash
	if m.Hash == c.schemaHash || len(m.Tables) == 0 {
		return
	}
	if l.schemaWait {
		l.schemaNext, l.schemaMore = m.Tables, true
		return
	}
	l.schemaWait = true
	c.ready.Schemas = append(c.ready.Schemas, SchemaRequest{l.id, m.Tables})
}

// SchemaApplied answers a SchemaRequest.
func (c *Core) SchemaApplied(id LinkID) {
	l := c.open(id)
	if l == nil || !l.schemaWait {
		return
	}
	if l.schemaMore {
		c.ready.Schemas = append(c.ready.Schemas, SchemaRequest{id, l.schemaNext})
		l.schemaNext, l.schemaMore = nil, false
		return
	}
	l.schemaWait = false
	if l.remoteHash != c.schemaHash {
		c.event(l, Event{Kind: EventSchemaDiffers})
	}
}
