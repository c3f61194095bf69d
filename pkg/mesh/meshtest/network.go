package meshtest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
)

// SiteOf returns the site id of a peer: its name, again and again, to 16 bytes.
func SiteOf(name string) syncproto.SiteID { return syncproto.SiteID(strings.Repeat(name, 16)[:16]) }

// Network is peers and the connections between them. Nothing moves by itself: whoever holds it delivers messages,
// carries out reads and applies, and lets time pass.
type Network struct {
	Peers []*Peer
	Conns []*Conn // in order of opening
	// Mutate changes a changes message before it is sent, and so makes the sender a broken one; nil: nothing.
	Mutate func(*Conn, *Peer, *syncproto.Changes)
	// MutateApply changes what a store is asked to apply, and so makes it a broken one; nil: nothing.
	MutateApply func(*Peer, *syncproto.ApplyRequest)
	// Chunk is the most changes that a Read returns; 0: as many as the core asks for.
	Chunk int
	// Copies says that stores may be copies of others, so that links may be refused for it.
	Copies bool
	// Errors are the errors for which cores closed links, save superseded and parked.
	Errors []error
	// Messages counts what was sent, Chunks the reads that ended in the midst of a walk, Held the entries that were held back,
	// Resumed the walks that began where an earlier link's had ended.
	Messages, Chunks, Held, Resumed int
	// Log gets a line for each thing that a core wants done; nil: nobody reads it.
	Log func(line string)
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

// Add adds a peer with an empty Store.
func (n *Network) Add(name string, writer bool) *Peer {
	return n.AddWith(name, writer, NewStore(SiteOf(name)))
}

// AddWith adds a peer that keeps its rows in d.
func (n *Network) AddWith(name string, writer bool, d Database) *Peer {
	p := &Peer{Name: name, Store: d, Writer: writer, net: n, conns: map[syncproto.LinkID]*Conn{}}
	n.Peers = append(n.Peers, p)
	p.start()
	return p
}

// Crash ends a peer's core and its connections, and starts it anew from its store, which may be changed meanwhile.
func (n *Network) Crash(p *Peer, meanwhile ...func()) {
	n.CutUnless(func(a, b *Peer) bool { return a != p && b != p })
	for _, f := range meanwhile {
		f()
	}
	p.Store.Reopen()
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
		p.conns[p.lastLink] = c
	}
	for i, p := range c.Ends {
		other := c.Ends[1-i].Store.State().Site
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
		delete(p.conns, c.IDs[i])
		p.Core.Close(c.IDs[i])
	}
}

// CutUnless breaks the connections of those for whom may is false.
func (n *Network) CutUnless(may func(p, q *Peer) bool) {
	for _, c := range slices.Clone(n.Conns) {
		if !may(c.Ends[0], c.Ends[1]) {
			n.Cut(c)
		}
	}
}

// Remove takes a peer out of the network, with its connections.
func (n *Network) Remove(p *Peer) {
	n.CutUnless(func(a, b *Peer) bool { return a != p && b != p })
	n.Peers = slices.DeleteFunc(n.Peers, func(q *Peer) bool { return q == p })
}

// end returns the connection of a peer's link, and which end of it the peer is; nil if it is gone.
func (*Network) end(p *Peer, id syncproto.LinkID) (*Conn, int) {
	c := p.conns[id]
	if c != nil && c.Ends[1] == p && c.IDs[1] == id {
		return c, 1
	}
	return c, 0
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
			p.disputed = p.disputed || event.Kind == syncproto.EventStaleCopy || event.Kind == syncproto.EventSameSite
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
	e := request.Err
	expected := e == nil || e.Code == syncproto.CodeSuperseded || e.Code == syncproto.CodeParked ||
		n.Copies && (e.Code == syncproto.CodeStaleCopy || e.Code == syncproto.CodeSameSite)
	if !expected {
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

// Settle answers everything and delivers all messages until nothing moves, without letting time pass.
func (n *Network) Settle() { n.settle(n.Peers, func(*Conn) bool { return true }) }

func (n *Network) settle(peers []*Peer, among func(*Conn) bool) {
	for moved := true; moved; {
		moved = false
		for _, p := range peers {
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
				for len(c.Queues[from]) > 0 && !c.Stalled && among(c) {
					n.Deliver(c, from)
					moved = true
				}
			}
		}
	}
}

// Converse lets two peers say all to each other, as if nobody else were there.
func (n *Network) Converse(a, b *Peer) {
	peers := []*Peer{a, b}
	between := func(c *Conn) bool { return slices.Contains(peers, c.Ends[0]) && slices.Contains(peers, c.Ends[1]) }
	for range 2 * syncproto.PruneTicks {
		n.settle(peers, between)
		for _, p := range peers {
			p.Core.Tick()
			n.Pump(p)
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
