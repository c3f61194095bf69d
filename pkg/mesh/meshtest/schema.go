package meshtest

import (
	"crypto/sha256"
	"maps"
	"slices"

	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
)

// schema is a peer's tables.
type schema struct {
	tables     map[string]string
	generation int64
	requests   []syncproto.SchemaRequest
}

// hash stands for the schema hash of docs/PROTOCOL.md: zero without tables.
func (s *schema) hash() [32]byte {
	if len(s.tables) == 0 {
		return [32]byte{}
	}
	var b []byte
	for _, name := range slices.Sorted(maps.Keys(s.tables)) {
		b = append(append(append(b, name...), 0), s.tables[name]...)
		b = append(b, '\n')
	}
	return sha256.Sum256(b)
}

func (s *schema) list() []syncproto.TableSchema {
	var out []syncproto.TableSchema
	for _, name := range slices.Sorted(maps.Keys(s.tables)) {
		out = append(out, syncproto.TableSchema{Name: name, SQL: s.tables[name]})
	}
	return out
}

func (s *schema) add(t syncproto.TableSchema) bool {
	if _, ok := s.tables[t.Name]; ok {
		return false
	}
	if s.tables == nil {
		s.tables = map[string]string{}
	}
	s.tables[t.Name] = t.SQL
	return true
}

// CreateTable gives the peer a table of its own.
func (p *Peer) CreateTable(name, sql string) {
	if p.schema.add(syncproto.TableSchema{Name: name, SQL: sql}) {
		p.Core.SchemaChanged(p.schema.hash(), p.schema.generation, p.schema.list())
	}
}

// Migrate counts what was made of the peer's tables as a migration on purpose: its schema is a newer one.
func (p *Peer) Migrate(generation int64) {
	p.schema.generation = generation
	p.Core.SchemaChanged(p.schema.hash(), generation, p.schema.list())
}

// CreateTables carries out the core's schema requests. It reports whether there were any.
func (p *Peer) CreateTables() bool {
	requests := p.schema.requests
	p.schema.requests = nil
	for _, r := range requests {
		changed := false
		for _, t := range r.Tables {
			changed = p.schema.add(t) || changed
		}
		if p.schema.hash() == r.Hash && r.Generation > p.schema.generation {
			p.schema.generation, changed = r.Generation, true
		}
		if changed {
			p.Core.SchemaChanged(p.schema.hash(), p.schema.generation, p.schema.list())
		}
		p.Core.SchemaApplied(r.Link)
	}
	return len(requests) > 0
}
