package meshtest

import (
	"maps"
	"slices"

	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
)

// Peer is a core with its store, and what the driver would hold: requests that are not answered yet.
type Peer struct {
	Name   string
	Store  Database
	Core   *syncproto.Core
	Writer bool

	net       *Network
	lastLink  syncproto.LinkID
	conns     map[syncproto.LinkID]*Conn
	starts    uint64
	reads     []*read
	apply     *apply
	committed bool // a commit that the core does not know of
	disputed  bool // somebody says that its site's numbers are in use elsewhere
	schema    schema
	state     *State // as stored, nil: it has to be asked
}

// stored returns the site and the vector that the peer's store holds. To ask it for more, or more often, would be to tell of
// commits: what was told of has to stay known.
func (p *Peer) stored() *State {
	if p.state == nil {
		s := p.Store.State()
		p.state = &s
	}
	return p.state
}

type read struct {
	request syncproto.ReadRequest
	result  *syncproto.ReadResult // nil until carried out
}

type apply struct {
	request syncproto.ApplyRequest
	result  *syncproto.ApplyResult // nil until carried out
}

// start makes a core from what the store holds.
func (p *Peer) start() {
	p.state = nil
	s := p.stored()
	p.starts++
	core, err := syncproto.New(syncproto.Config{
		Site: s.Site, Writer: p.Writer, Own: s.Own, Newest: s.Newest, Vector: maps.Clone(s.Vector), Seed: p.starts<<8 + uint64(p.Name[0]),
		SchemaHash: p.schema.hash(),
	})
	if err != nil {
		panic(err) // the model store's state is always good
	}
	p.Core, p.reads, p.apply, p.committed, p.disputed, p.schema.requests = core, nil, nil, false, false, nil
	core.SchemaChanged(p.schema.hash(), p.schema.generation, p.schema.list())
}

// Commit writes one transaction. The core learns of it by Notify.
func (p *Peer) Commit(writes ...Write) (version int64, cells map[string]Cell) {
	p.committed = true
	return p.Store.Write(writes...)
}

// Notify tells the core of commits. It reports whether there was one to tell of.
func (p *Peer) Notify() bool {
	if !p.committed {
		return false
	}
	p.committed = false
	s := p.Store.State()
	p.Core.Committed(s.Own, s.Newest)
	return true
}

// Pending returns how many reads, and then applies, wait.
func (p *Peer) Pending() int {
	if p.apply != nil {
		return len(p.reads) + 1
	}
	return len(p.reads)
}

// CarryOut lets the store do request number i of Pending. It reports whether it had not been done yet.
func (p *Peer) CarryOut(i int) bool {
	if i == len(p.reads) {
		if p.apply.result != nil {
			return false
		}
		request := p.apply.request
		if p.net.MutateApply != nil {
			p.net.MutateApply(p, &request)
		}
		result := p.Store.Apply(request)
		p.state = nil
		p.apply.result = &result
		return true
	}
	if p.reads[i].result != nil {
		return false
	}
	request := p.reads[i].request
	if p.net.Chunk > 0 {
		request.MaxChanges = min(request.MaxChanges, p.net.Chunk)
	}
	result := p.Store.Read(request)
	p.reads[i].result = &result
	if request.Only != nil {
		return true
	}
	if !result.End {
		p.net.Chunks++
	}
	for _, e := range result.Entries {
		if e.Held {
			p.net.Held++
		}
	}
	if c, end := p.net.end(p, request.Link); c != nil && c.Walked[end] == 0 && request.After.L > 0 {
		p.net.Resumed++
	}
	return true
}

// Answer gives the core the result of request number i of Pending, carrying it out first if need be.
func (p *Peer) Answer(i int) {
	p.CarryOut(i)
	if i == len(p.reads) {
		result := *p.apply.result
		p.apply = nil
		p.Core.Applied(result)
		return
	}
	r := p.reads[i]
	p.reads = slices.Delete(p.reads, i, i+1)
	if c, end := p.net.end(p, r.request.Link); c != nil && r.request.Only == nil {
		c.Walked[end] = r.result.Next.L
		if r.result.Next.Seq != syncproto.EntryEnd {
			c.Walked[end]--
		}
	}
	p.Core.ReadDone(*r.result)
}
