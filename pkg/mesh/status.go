package mesh

import (
	"context"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
	"github.com/crmesh/crmesh/pkg/signaling"
)

// Status is a picture of a Node. The caller owns it. The JSON of it is what the peer's API answers.
type Status struct {
	Peer        string           `json:"peer"`        // our peer id
	Site        string           `json:"site"`        // of the database, hex
	Writer      bool             `json:"writer"`      // false: we receive only
	Version     int64            `json:"version"`     // highest own version
	Vector      map[string]int64 `json:"vector"`      // what the database covers, by site in hex
	SchemaHash  string           `json:"schemaHash"`  // hex
	Generation  int64            `json:"generation"`  // of the schema; 0: it was never migrated on purpose
	Synced      bool             `json:"synced"`      // see Condition.Synced
	Renewals    int              `json:"renewals"`    // new site ids that the database took while the Node ran
	Connections int              `json:"connections"` // PeerConnections that exist
	Database    DatabaseStatus   `json:"database"`
	Ports       PortStatus       `json:"ports"`
	Server      ServerStatus     `json:"server"`
	Members     []MemberStatus   `json:"members"` // the others, by id
	Applied     AppliedStatus    `json:"applied"`
	Parked      ParkedStatus     `json:"parked"`
	Relay       RelayStatus      `json:"relay"`
}

// ServerStatus is how the signaling server is doing.
type ServerStatus struct {
	Joined bool   `json:"joined"`          // we are in the room, as far as the server knows
	Error  string `json:"error,omitempty"` // why not
}

// DatabaseStatus is how the database is doing.
type DatabaseStatus struct {
	Error      string `json:"error,omitempty"` // why it cannot be used for now, and what a person can do
	WaitMillis int64  `json:"waitMillis"`      // for how long what has to be read or written waits for that
}

// AppliedStatus counts what came from others since the Node started.
type AppliedStatus struct {
	Changes   int64 `json:"changes"`   // received
	Rows      int64 `json:"rows"`      // changed by them
	Redundant int64 `json:"redundant"` // changes that were known already
	Parked    int64 `json:"parked"`    // changes put aside
}

// ParkedStatus is what is put aside now, because it does not fit the tables here.
type ParkedStatus struct {
	Changes int64         `json:"changes"`
	Bytes   int64         `json:"bytes"`  // that these take, about
	Tables  []ParkedTable `json:"tables"` // those with the most changes
	More    int64         `json:"more"`   // how many lines Tables lacks
}

// ParkedTable is the changes to a table that are put aside for one reason.
type ParkedTable struct {
	Table   string `json:"table"`
	Reason  string `json:"reason"`
	Changes int64  `json:"changes"`
}

// MemberStatus is one member of the room and the link to it.
type MemberStatus struct {
	Peer    string    `json:"peer"`
	Name    string    `json:"name"`
	Replica bool      `json:"replica"`
	Reader  bool      `json:"reader"` // it says that it only reads; Role is what it has proved
	State   LinkState `json:"state"`
	Reached LinkState `json:"reached"`         // how far the latest attempt has got, whatever became of it
	Error   string    `json:"error,omitempty"` // why there is no link, or why the last one ended
	// The following are zero while there is no link.
	Path       *PathStatus `json:"path,omitempty"` // what the link goes over
	Site       string      `json:"site,omitempty"`
	Role       string      `json:"role,omitempty"` // writer or reader, once it is known
	Live       bool        `json:"live"`           // both sides have said hello
	RTT        float64     `json:"rttMillis"`      // milliseconds; 0: not measured yet
	BytesIn    uint64      `json:"bytesIn"`
	BytesOut   uint64      `json:"bytesOut"`
	RateIn     float64     `json:"rateIn"`     // bytes a second, over the last one
	RateOut    float64     `json:"rateOut"`    // likewise
	ChangesIn  int64       `json:"changesIn"`  // received over this link
	ChangesOut int64       `json:"changesOut"` // sent over this link
	Remaining  int64       `json:"remaining"`  // changes still to come, about
	Unsent     int64       `json:"unsent"`     // changes still to send, about
	LagMillis  int64       `json:"lagMillis"`  // for how long it has not had all that we have; 0: it has
	CatchingUp bool        `json:"catchingUp"` // our first catch-up from it is not complete
	SameSchema bool        `json:"sameSchema"`
	// SchemaDifference says how its tables differ from ours, in sentences: changeset.SchemaDifferences. Empty where they do
	// not, or where it is a reader, which does not tell its tables.
	SchemaDifference []string `json:"schemaDifference,omitempty"`
}

// PathStatus is the pair of addresses that a link uses, by the kinds of ICE: "host" (an interface has it), "srflx" and "prflx" (that of
// a router, as STUN or the other side sees it) or "relay" (a TURN server has it).
type PathStatus struct {
	Local  string `json:"local"`
	Remote string `json:"remote"`
}

// Condition is what Wait waits for: all of its fields.
type Condition struct {
	// Links is the least number of live links.
	Links int
	// Synced asks that nothing is left to send or to receive on any link, that every link is live, and that there is at
	// least one unless the room has no other member to be linked with. In a large room there are links to a few members only,
	// and what is with them reaches the others over their links.
	Synced bool
}

// request is a call of Status or Wait.
type request struct {
	ctx       context.Context
	condition Condition
	reply     chan reply       // with room for one
	heads     int              // the look at the store's heads that has to be over first
	live      signaling.PeerID // whose link has to be live, unless zero
	inspect   func(*loop)      // in place of all that: run on the loop, see onLoop
}

type reply struct {
	status Status
	err    error
}

func (r request) answer(s Status, err error) { r.reply <- reply{s, err} }

// Status returns a picture of the Node. It blocks for the loop, which is some microseconds.
func (n *Node) Status(ctx context.Context) (Status, error) { return n.Wait(ctx, Condition{}) }

// Wait blocks until the condition holds, and returns the status at that moment; or until ctx or the Node ends.
func (n *Node) Wait(ctx context.Context, c Condition) (Status, error) {
	return n.wait(request{ctx: ctx, condition: c, reply: make(chan reply, 1)})
}

func (n *Node) wait(r request) (Status, error) {
	ctx := r.ctx
	select {
	case n.requests <- r:
	case <-ctx.Done():
		return Status{}, ctx.Err()
	case <-n.done:
		return Status{}, n.endErr()
	}
	select {
	case out := <-r.reply:
		return out.status, out.err
	case <-ctx.Done():
		return Status{}, ctx.Err()
	case <-n.done:
		return Status{}, n.endErr()
	}
}

func (n *Node) endErr() error {
	if n.err != nil {
		return n.err
	}
	return ErrClosed
}

func (l *loop) request(r request) {
	if r.inspect != nil {
		r.inspect(l)
		return
	}
	if r.condition.Synced {
		// What was committed before the call counts, though we may not have heard of it yet.
		l.heads()
		r.heads = l.headsAsked
	}
	if l.holds(r) {
		r.answer(l.status(), nil)
		return
	}
	l.waiting = append(l.waiting, r)
}

// checkWaiting answers who waited for what now holds, and forgets who no longer waits.
func (l *loop) checkWaiting() {
	l.waiting = slices.DeleteFunc(l.waiting, func(r request) bool {
		if r.ctx.Err() != nil {
			return true
		}
		if !l.holds(r) {
			return false
		}
		r.answer(l.status(), nil)
		return true
	})
}

func (l *loop) holds(r request) bool {
	c := r.condition
	if c == (Condition{}) && r.live == (signaling.PeerID{}) {
		return true
	}
	if l.renewals.reason != "" {
		return false
	}
	if r.live != (signaling.PeerID{}) {
		if k := l.linkTo(r.live); k == nil || !k.live {
			return false
		}
	}
	live := 0
	for _, k := range l.core.Status().Links {
		if k.Live {
			live++
		}
	}
	return live >= c.Links && (!c.Synced || l.headsDone >= r.heads && l.synced(live))
}

func (l *loop) synced(live int) bool {
	return l.renewals.reason == "" && l.core.Synced() && (live > 0 || l.joined && len(l.near.wanted) == 0)
}

// look measures rates and lags; it is called once a second.
func (l *loop) look(now time.Time) {
	if len(l.links) == 0 {
		return
	}
	for _, s := range l.core.Status().Links {
		k := l.links[s.Link]
		if k == nil {
			continue
		}
		if seconds := now.Sub(k.lastLook).Seconds(); seconds > 0 {
			in, out := k.conn.bytesIn.Load(), k.conn.bytesOut.Load()
			k.rateIn, k.rateOut = float64(in-k.in)/seconds, float64(out-k.out)/seconds
			k.in, k.out, k.lastLook = in, out, now
		}
		switch {
		case s.Behind == 0 && !s.Serving:
			k.behind = time.Time{}
		case k.behind.IsZero():
			k.behind = now
		}
	}
}

func (l *loop) status() Status {
	core := l.core.Status()
	applied := plus(l.renewals.before, core.Applied)
	s := Status{
		Peer: l.node.peer.String(), Site: core.Site.String(), Writer: core.Writer, Version: core.Own,
		Vector: make(map[string]int64, len(core.Vector)), SchemaHash: hex.EncodeToString(l.known.SchemaHash[:]), Generation: l.known.Generation,
		Connections: l.node.Connections(), Ports: l.node.ports.status(), Members: make([]MemberStatus, 0, max(len(l.members), len(l.listed))),
		Renewals: l.renewals.count,
		Relay:    l.node.relays.status(),
		Database: l.node.hindrance.status(),
		Server:   ServerStatus{Joined: l.node.introduced.Load()},
		Applied: AppliedStatus{
			Changes: applied.Changes, Rows: applied.Changed, Redundant: applied.Redundant, Parked: applied.Parked,
		},
		Parked: l.parked.ParkedStatus,
	}
	if l.serverErr != nil {
		s.Server.Error = l.serverErr.Error()
	}
	for site, version := range core.Vector {
		s.Vector[site.String()] = version
	}
	live := 0
	byConn := make(map[*conn]syncproto.LinkStatus, len(core.Links))
	for _, ls := range core.Links {
		if ls.Live {
			live++
		}
		if k := l.links[ls.Link]; k != nil {
			byConn[k.conn] = ls
		}
	}
	s.Synced = l.synced(live)
	for _, m := range l.members {
		s.Members = append(s.Members, l.memberStatus(m, byConn))
	}
	for id, meta := range l.listed {
		if l.members[id] == nil {
			s.Members = append(s.Members, MemberStatus{
				Peer: id.String(), Name: meta.Name, Replica: meta.Replica, Reader: meta.Reader, State: LinkUnlinked, Reached: LinkWaiting,
			})
		}
	}
	slices.SortFunc(s.Members, func(a, b MemberStatus) int { return strings.Compare(a.Peer, b.Peer) })
	return s
}

func (l *loop) memberStatus(m *member, byConn map[*conn]syncproto.LinkStatus) MemberStatus {
	m.mu.Lock()
	out := MemberStatus{Peer: m.id.String(), Name: m.meta.Name, Replica: m.meta.Replica, Reader: m.meta.Reader, State: m.state, Reached: m.reached, Path: m.path}
	if m.err != nil && m.state != LinkOpen {
		out.Error = m.err.Error()
	}
	m.mu.Unlock()
	for c, ls := range byConn {
		if c.peer == m.id {
			l.linkStatus(&out, l.byConn[c], ls)
		}
	}
	return out
}

func (l *loop) linkStatus(out *MemberStatus, k *link, ls syncproto.LinkStatus) {
	c := k.conn
	out.Site, out.Live, out.SameSchema = c.site.String(), ls.Live, ls.Schema
	if ls.Live {
		out.Role = "reader"
		if ls.Writer {
			out.Role = "writer"
		}
	}
	out.RTT = float64(c.rtt.Load()) / float64(time.Millisecond)
	out.BytesIn, out.BytesOut, out.RateIn, out.RateOut = c.bytesIn.Load(), c.bytesOut.Load(), k.rateIn, k.rateOut
	out.ChangesIn, out.ChangesOut, out.Remaining, out.Unsent = ls.Received, ls.Sent, ls.Remaining, ls.Unsent
	out.CatchingUp, out.SchemaDifference = ls.CatchingUp, ls.Differences
	if !k.behind.IsZero() {
		out.LagMillis = time.Since(k.behind).Milliseconds()
	}
	if out.State == LinkOpen && c.silence() >= l.node.timing.suspect {
		out.State = LinkSuspect
	}
}
