package syncproto

import (
	"cmp"
	"slices"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// schemaState is a link's part in passing schemas on.
type schemaState struct {
	remoteHash   [32]byte
	remoteTables []TableSchema // without their statements; nil: it has not told them
	differences  []string      // between our tables and those, for a person

	told schemaVersion // what the other side knows of ours
	sent schemaVersion // at which our tables were sent to it

	schemaWait bool    // a SchemaRequest is outstanding: what came after it waits
	schemaNext *Schema // came meanwhile; the latest only, since it is complete
}

// schemaVersion is what tells one state of a schema from another.
type schemaVersion struct {
	hash       [32]byte
	generation int64
}

// SchemaChanged gives the schema's hash, generation and tables: after New, and whenever one of them changed, before the
// Committed that came with the change. The core takes tables over.
func (c *Core) SchemaChanged(hash [32]byte, generation int64, tables []TableSchema) {
	c.schemaHash, c.schemaGiven = hash, true
	c.schemaGeneration = min(generation, MaxGeneration)
	c.schemaTables = slices.Clone(tables)
	slices.SortFunc(c.schemaTables, func(a, b TableSchema) int { return cmp.Compare(a.Name, b.Name) })
	for _, id := range c.order {
		c.compareSchema(c.links[id])
	}
}

// compareSchema finds out how the other side's tables differ from ours, as far as it has told them.
func (c *Core) compareSchema(l *link) {
	l.differences = nil
	if l.remoteTables != nil && l.remoteHash != c.schemaHash {
		l.differences = changeset.SchemaDifferences(c.schemaTables, l.remoteTables)
	}
}

// announceSchema tells the other side of our schema: our tables where its schema is another, once for each state of ours;
// otherwise the hash alone, where it knows another one of us. A reader's tables are no business of others.
func (c *Core) announceSchema(l *link) {
	if !c.schemaGiven {
		return
	}
	ours := schemaVersion{hash: c.schemaHash}
	if c.cfg.Writer {
		ours.generation = c.schemaGeneration
	}
	full := c.cfg.Writer && ours.hash != [32]byte{} && ours.hash != l.remoteHash && ours != l.sent
	if !full && ours == l.told {
		return
	}
	m := &Schema{Hash: ours.hash, Generation: ours.generation}
	l.told = ours
	if full {
		l.sent = ours
		m.Tables = c.tablesFor(l)
	}
	c.send(l, m)
}

// tablesFor returns those of our tables that a message for the link holds.
func (c *Core) tablesFor(l *link) []TableSchema {
	var tables []TableSchema
	total := 64
	for i := range c.schemaTables {
		t := &c.schemaTables[i]
		size, ok := sizeOfTable(t)
		if !ok || total+size > min(l.maxMessage, MaxSchemaBytes) || len(tables) == MaxSchemaTables {
			c.event(l, Event{Kind: EventTooLarge, Table: t.Name, Size: size})
			continue
		}
		total += size
		tables = append(tables, *t)
	}
	return tables
}

func (c *Core) stepSchema(l *link, m *Schema) {
	if !l.writer && len(m.Tables) > 0 {
		c.fail(l, &Error{CodeReadOnly, "this peer has not proved that it may write: it needs the room's write link"})
		return
	}
	if m.Hash != l.remoteHash {
		l.remoteTables = nil
	}
	l.remoteHash = m.Hash
	if len(m.Tables) > 0 {
		l.remoteTables = make([]TableSchema, len(m.Tables))
		for i, t := range m.Tables {
			l.remoteTables[i] = TableSchema{Name: t.Name, Columns: t.Columns}
		}
	}
	c.compareSchema(l)
	switch {
	case !l.writer:
	case l.schemaWait:
		l.schemaNext = m
	case c.concerns(m):
		l.schemaWait = true
		c.requestSchema(l, m)
	}
}

// concerns reports whether the store is asked about another's schema: where there are other tables, and where ours are
// those of a later generation.
func (c *Core) concerns(m *Schema) bool {
	if m.Hash == c.schemaHash {
		return m.Generation > c.schemaGeneration
	}
	return len(m.Tables) > 0
}

func (c *Core) requestSchema(l *link, m *Schema) {
	c.ready.Schemas = append(c.ready.Schemas, SchemaRequest{l.id, m.Hash, m.Generation, m.Tables})
}

// SchemaApplied answers a SchemaRequest.
func (c *Core) SchemaApplied(id LinkID) {
	l := c.open(id)
	if l == nil || !l.schemaWait {
		return
	}
	next := l.schemaNext
	l.schemaNext = nil
	if next != nil && c.concerns(next) {
		c.requestSchema(l, next)
		return
	}
	l.schemaWait = false
	if l.remoteHash != c.schemaHash {
		c.event(l, Event{Kind: EventSchemaDiffers})
	}
}
