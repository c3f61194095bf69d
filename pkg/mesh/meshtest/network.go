package meshtest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
)

// SiteOf returns the site id of a peer that is named by a letter: that letter, 16 times.
func SiteOf(name string) syncproto.SiteID { return syncproto.SiteID(strings.Repeat(name[:1], 16)) }

// Network is peers and the connections between them. Nothing moves by itself: whoever holds it delivers messages,
// carries out reads and applies, and lets time pass.
type Network struct {
	Peers []*Peer
	Conns []*Conn // in order of opening
	// Mutate changes a changes message before it is sent, and so makes the sender a broken one; nil: nothing.
	Mutate func(*Conn, *Peer, *syncproto.Changes)
	// Chunk is the most changes that a Read returns; 0: as many as the core asks for.
	Chunk int
	// Errors are the errors for which cores closed links, save superseded.
	Errors []error
	// Messages counts what was sent.
	Messages int
	// Log gets a line for each thing that a core wants done; nil: nobody reads it.
	Log func(line string)
}

// Peer is a core with its store, and what the driver would hold: requests that are not answered yet.
type Peer struct {
	Name   string
	Store  *Store
	Core   *syncproto.Core
	Writer bool

	net       *Network
	lastLink  syncproto.LinkID
	starts    uint64
	reads     []*read
	apply     *apply
	committed bool // a commit that the core does not know of
	schema    schema
}

type read struct {
	request syncproto.ReadRequest
	result  *syncproto.ReadResult // nil until carried out
}

type apply struct {
	request syncproto.ApplyRequest
	result  *syncproto.ApplyResult // nil until carried out
}

// schema is a peer's tables.
type schema struct {
	tables   map[string]string
	requests []syncproto.SchemaRequest
}

// Conn is an open connection of two peers.
type Conn struct {
	Ends [2]*Peer
	IDs  [2]syncproto.LinkID
	// Queues are the messages under way, marshalled: [0] from Ends[0] to Ends[1].
	Queues  [2][][]byte
	Walked  [2]int64 // the last local version that Ends[i]'s walk for the other end has come to
	Stalled bool     // Settle delivers nothing
	closing [2]bool  // that end closes once its queue is empty
}

// Add adds a peer.
func (n *Network) Add(name string, writer bool) *Peer {
	p := &Peer{Name: name, Store: NewStore(SiteOf(name)), Writer: writer, net: n}
	n.Peers = append(n.Peers, p)
	p.start()
	return p
}

// start makes a core from what the store holds.
func (p *Peer) start() {
	s := p.Store.State()
	p.starts++
	core, err := syncproto.New(syncproto.Config{
		Site: s.Site, Writer: p.Writer, Own: s.Own, Newest: s.Newest, Vector: s.Vector, Seed: p.starts<<8 + uint64(p.Name[0]),
		SchemaHash: p.schema.hash(),
	})
	if err != nil {
		panic(err) // the model store's state is always good
	}
	p.Core, p.reads, p.apply, p.committed, p.schema.requests = core, nil, nil, false, nil
	core.SchemaChanged(p.schema.hash(), p.schema.list())
}

// Crash ends a peer's core and its connections, and starts it anew from its store.
func (n *Network) Crash(p *Peer) {
	for _, c := range slices.Clone(n.Conns) {
		if c.Ends[0] == p || c.Ends[1] == p {
			n.Cut(c)
		}
	}
	p.start()
}

// Find returns the connection of two peers, or nil.
func (n *Network) Find(a, b *Peer) *Conn {
	for _, c := range n.Conns {
		if c.Ends == [2]*Peer{a, b} || c.Ends == [2]*Peer{b, a} {
			return c
		}
	}
	return nil
}

// Connect opens a connection between two peers that have none.
func (n *Network) Connect(a, b *Peer) *Conn {
	c := &Conn{Ends: [2]*Peer{a, b}}
	n.Conns = append(n.Conns, c)
	for i, p := range c.Ends {
		p.lastLink++
		c.IDs[i] = p.lastLink
	}
	for i, p := range c.Ends {
		other := c.Ends[1-i].Store.site
		info := syncproto.OpenInfo{Remote: other, Resume: p.Store.State().Resume[other]}
		if p.Writer {
			info.Proof = make([]byte, syncproto.ProofLen)
		}
		p.Core.Open(c.IDs[i], info)
		n.Pump(p)
	}
	return c
}

// Cut breaks a connection. What is under way is lost.
func (n *Network) Cut(c *Conn) {
	i := slices.Index(n.Conns, c)
	if i < 0 {
		return
	}
	n.Conns = slices.Delete(n.Conns, i, i+1)
	for i, p := range c.Ends {
		p.Core.Close(c.IDs[i])
	}
}

// end returns the connection of a peer's link, and which end of it the peer is; nil if it is gone.
func (n *Network) end(p *Peer, id syncproto.LinkID) (*Conn, int) {
	for _, c := range n.Conns {
		for i := range c.Ends {
			if c.Ends[i] == p && c.IDs[i] == id {
				return c, i
			}
		}
	}
	return nil, 0
}

// Deliver hands the next message from Ends[from] to the other end, and returns it; nil if there is none.
func (n *Network) Deliver(c *Conn, from int) syncproto.Message {
	if len(c.Queues[from]) == 0 {
		return nil
	}
	b := c.Queues[from][0]
	c.Queues[from] = c.Queues[from][1:]
	to := c.Ends[1-from]
	m, err := syncproto.Parse(b)
	if err != nil {
		n.Errors = append(n.Errors, fmt.Errorf("%s sent what does not parse: %w", c.Ends[from].Name, err))
		to.Core.Refuse(c.IDs[1-from], syncproto.AsError(err))
	} else {
		to.Core.Step(c.IDs[1-from], m)
	}
	if c.closing[from] && len(c.Queues[from]) == 0 {
		n.Cut(c)
	}
	return m
}

// Pump does what a peer's core wants done; reads and applies wait for CarryOut and Answer.
func (n *Network) Pump(p *Peer) {
	for {
		r := p.Core.Ready()
		if r.Empty() {
			return
		}
		for _, s := range r.Sends {
			n.send(p, s)
		}
		for _, request := range r.Reads {
			n.logRead(p, request)
			p.reads = append(p.reads, &read{request: request})
		}
		if r.Apply != nil {
			n.logApply(p, *r.Apply)
			p.apply = &apply{request: *r.Apply}
		}
		for _, request := range r.Schemas {
			n.logSchema(p, request)
			p.schema.requests = append(p.schema.requests, request)
		}
		for _, event := range r.Events {
			n.logEvent(p, event)
		}
		for _, request := range r.Closes {
			n.close(p, request)
		}
	}
}

func (n *Network) send(p *Peer, s syncproto.Send) {
	c, i := n.end(p, s.Link)
	if c == nil || c.closing[i] {
		return
	}
	if m, ok := s.Message.(*syncproto.Changes); ok && n.Mutate != nil {
		n.Mutate(c, p, m)
	}
	n.logSend(p, c.Ends[1-i], s.Message)
	c.Queues[i] = append(c.Queues[i], s.Message.AppendMarshal(nil))
	n.Messages++
}

func (n *Network) close(p *Peer, request syncproto.Close) {
	if e := request.Err; e != nil && e.Code != syncproto.CodeSuperseded {
		n.Errors = append(n.Errors, fmt.Errorf("%s closed a link: %w", p.Name, e))
	}
	c, i := n.end(p, request.Link)
	if c != nil {
		n.logClose(p, c.Ends[1-i], request)
	}
	if c == nil {
		p.Core.Close(request.Link)
		return
	}
	if c.closing[i] = true; len(c.Queues[i]) == 0 {
		n.Cut(c)
	}
}

// Commit writes one transaction. The core learns of it by Notify.
func (p *Peer) Commit(writes ...Write) {
	p.Store.Commit(writes...)
	p.committed = true
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
		result := p.Store.Apply(p.apply.request)
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

// Settle answers everything and delivers all messages until nothing moves, without letting time pass.
func (n *Network) Settle() {
	for moved := true; moved; {
		moved = false
		for _, p := range n.Peers {
			moved = p.CreateTables() || moved
			moved = p.Notify() || moved
			n.Pump(p)
			for p.Pending() > 0 {
				p.Answer(0)
				n.Pump(p)
				moved = true
			}
		}
		for _, c := range slices.Clone(n.Conns) {
			for from := range 2 {
				for len(c.Queues[from]) > 0 && !c.Stalled {
					n.Deliver(c, from)
					moved = true
				}
			}
		}
	}
}

// Tick lets one tick pass at every peer.
func (n *Network) Tick() {
	for _, p := range n.Peers {
		p.Core.Tick()
		n.Pump(p)
	}
}

// Run settles and ticks until quiet ticks have passed without a message, and reports whether that took at most limit ticks.
func (n *Network) Run(quiet, limit int) bool {
	for still, ticks := 0, 0; ticks < limit; ticks++ {
		before := n.Messages
		n.Settle()
		n.Tick()
		n.Settle()
		if still++; n.Messages != before {
			still = 0
		}
		if still >= quiet {
			return true
		}
	}
	return false
}
