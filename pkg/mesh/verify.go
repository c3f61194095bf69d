package mesh

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
	"github.com/crmesh/crmesh/pkg/signaling"
)

// MaxVerifyRows is the largest VerifyOptions.Rows.
const MaxVerifyRows = syncproto.MaxDifferences

// ErrVerifying is returned by Verify while another call of it runs.
var ErrVerifying = errors.New("a verification is running already: wait for its end")

// VerifyOptions says what Verify does.
type VerifyOptions struct {
	// Table is the only one that is compared. "": all.
	Table string
	// Repair sends rows that differ again, in both directions as far as the roles allow.
	Repair bool
	// All makes links, for the time that it takes, to those members that have none with us: in a large room most have none. Without it
	// they are not asked. Two readers are never linked.
	All bool
	// Rows is how many of the rows that differ are listed for each table of a member, at most MaxVerifyRows. 0: none.
	Rows int
	// Progress, if not nil, is called now and then, by one goroutine at a time. It should return soon.
	Progress func(VerifyProgress)
}

// VerifyProgress says what Verify does now.
type VerifyProgress struct {
	Peer  string      `json:"peer"`
	Name  string      `json:"name"`
	Phase VerifyPhase `json:"phase"`
	Asked int         `json:"asked"` // questions so far
	Open  int         `json:"open"`  // rows that differed when they were last asked for
}

// VerifyPhase is a step of a verification of one member.
type VerifyPhase string

// The phases.
const (
	VerifyComparing VerifyPhase = "comparing" // tables, and parts of them
	VerifySettling  VerifyPhase = "settling"  // what differs may be under way: it is looked at again
	VerifyRepairing VerifyPhase = "repairing"
	VerifyDone      VerifyPhase = "done"
)

// VerifyOutcome says how a member's copy compares to ours.
type VerifyOutcome string

// The outcomes.
const (
	VerifyIdentical VerifyOutcome = "identical"  // each part was equal at a moment at which it was looked at
	VerifyDifferent VerifyOutcome = "different"  // in what both keep to
	VerifyUnsettled VerifyOutcome = "unsettled"  // rows differed at every look, but were under way, or written to, all the time
	VerifyNoAnswer  VerifyOutcome = "no answer"  // not in time, or the link ended
	VerifyNotLinked VerifyOutcome = "not linked" // and so was not asked; the error says why
)

// VerifyReport is what Verify found. The JSON of it, but for keys, is what the peer's API answers.
type VerifyReport struct {
	Identical int            `json:"identical"` // members whose copy is identical
	NotAsked  int            `json:"notAsked"`  // members that are VerifyNotLinked: nothing is known of their copies
	Total     int            `json:"total"`     // members of the room besides us
	Members   []MemberReport `json:"members"`   // by id
}

// MemberReport is how one member's copy compares to ours.
type MemberReport struct {
	Peer      string        `json:"peer"`
	Name      string        `json:"name"`
	Role      string        `json:"role,omitempty"` // writer or reader
	Outcome   VerifyOutcome `json:"outcome"`
	Error     string        `json:"error,omitempty"`
	Repaired  int           `json:"repaired"` // rows that differed and were sent again, and are equal now
	Questions int           `json:"questions"`
	Tables    []TableReport `json:"tables"` // those that differ, by name
}

// TableReport is how a table of a member compares to ours.
type TableReport struct {
	Table string     `json:"table"`
	State TableState `json:"state"`
	// Deleted rows are among those of Ours and Theirs, since both sides remember them.
	Ours        int64       `json:"ours"`
	Theirs      int64       `json:"theirs"`
	StrayOurs   int64       `json:"strayOurs"`   // rows here that were written past cr-sqlite, and are never sent
	StrayTheirs int64       `json:"strayTheirs"` // likewise there
	Different   int         `json:"different"`   // rows that differ and are settled
	Unsettled   int         `json:"unsettled"`   // rows that differed at every look, and may be under way
	More        bool        `json:"more"`        // there may be more of them than were looked at
	Rows        []RowReport `json:"-"`           // some of them
}

// TableState says in what a table differs.
type TableState string

// The states of a table.
const (
	TableRows    TableState = "rows"    // in its rows
	TableOurs    TableState = "ours"    // the member has no such table
	TableTheirs  TableState = "theirs"  // we have no such table
	TableColumns TableState = "columns" // its columns are others, so that rows cannot be compared
)

// RowReport is a row that differs.
type RowReport struct {
	Key     []changeset.Value // of its primary key; nil: it is too long to be shown
	Place   string            // names it all the same: see docs/PROTOCOL.md, hex
	Better  RowBetter
	Settled bool
}

// RowBetter says which side's row a merge prefers.
type RowBetter string

// Which side has the better row.
const (
	OnlyOurs     RowBetter = "only ours"
	OnlyTheirs   RowBetter = "only theirs"
	BetterOurs   RowBetter = "ours"
	BetterTheirs RowBetter = "theirs"
	BetterNone   RowBetter = "none" // the versions are the same, and only values differ: the greater one of each wins
)

// Why a member was not asked, when no link was tried.
var (
	errNoLink     = errors.New("there is no link with it, and none was to be made")
	errTwoReaders = errors.New("both sides are readers, and two readers are never linked; ask at a writer")
	errDeparted   = errors.New("it has left the room")
)

// maxVerifying is how many members are asked at the same time.
const maxVerifying = 4

// Verify compares the database with those of all members that are linked, or of all members, row by row as far as needed, and
// returns what differs. It blocks until all have answered, or ctx ends: what is not known by then is reported as such, and is no error:
// all copies are equal if VerifyReport.Identical is VerifyReport.Total.
// Errors are those of our own database, ErrVerifying and ErrClosed.
//
// It compares what databases say of themselves: it finds faults, not lies.
func (n *Node) Verify(ctx context.Context, o VerifyOptions) (VerifyReport, error) {
	if o.Rows < 0 || o.Rows > MaxVerifyRows {
		return VerifyReport{}, fmt.Errorf("mesh: VerifyOptions.Rows is 0 to %d, not %d", MaxVerifyRows, o.Rows)
	}
	if !n.verifying.TryLock() {
		return VerifyReport{}, ErrVerifying
	}
	defer n.verifying.Unlock()
	if err := n.hasTable(ctx, o.Table); err != nil {
		return VerifyReport{}, err
	}
	v := &verification{node: n, store: n.cfg.Store, o: o}
	var status Status
	links := map[string]verifyLink{}
	listed := map[string]signaling.PeerID{}
	barred := map[string]bool{} // whom we are never linked with
	err := n.onLoop(ctx, func(l *loop) {
		status = l.status()
		for id, meta := range l.listed {
			listed[id.String()] = id
			barred[id.String()] = !l.near.mayLink(meta)
		}
		for _, k := range l.links {
			links[k.conn.peer.String()] = verifyLink{k.id, k.conn}
		}
	})
	if err != nil {
		return VerifyReport{}, err
	}
	report := VerifyReport{Total: len(status.Members), Members: make([]MemberReport, len(status.Members))}
	var linked, others []func()
	for i, m := range status.Members {
		r := &report.Members[i]
		*r = MemberReport{Peer: m.Peer, Name: m.Name, Role: m.Role, Outcome: VerifyNotLinked, Tables: []TableReport{}}
		link, hasLink := links[m.Peer]
		id, isListed := listed[m.Peer]
		switch {
		case hasLink && m.Live:
			linked = append(linked, func() { v.ask(ctx, link, m, r) })
		case barred[m.Peer]:
			r.Error = errTwoReaders.Error()
		case !isListed:
			r.Error = errDeparted.Error()
		case !o.All:
			r.Error = errNoLink.Error()
		default:
			others = append(others, func() { v.visit(ctx, id, r) })
		}
	}
	atOnce(maxVerifying, linked)
	atOnce(maxVerifying, others)
	for _, m := range report.Members {
		switch m.Outcome {
		case VerifyIdentical:
			report.Identical++
		case VerifyNotLinked:
			report.NotAsked++
		}
	}
	slices.SortFunc(report.Members, func(a, b MemberReport) int { return strings.Compare(a.Peer, b.Peer) })
	return report, v.failed
}

// atOnce runs all of f, so many at the same time.
func atOnce(most int, f []func()) {
	places := make(chan struct{}, most)
	var wg sync.WaitGroup
	for _, run := range f {
		wg.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			run()
		})
	}
	wg.Wait()
}

// ask compares with a member that is linked.
func (v *verification) ask(ctx context.Context, link verifyLink, m MemberStatus, report *MemberReport) {
	mv := &memberVerification{verification: v, link: link, report: report}
	mv.run(ctx, m)
}

// visit makes a link for it.
func (v *verification) visit(ctx context.Context, id signaling.PeerID, report *MemberReport) {
	defer v.node.part(id)
	link, m, err := v.node.visit(ctx, id)
	if err != nil {
		report.Error = err.Error()
		return
	}
	report.Role = m.Role
	v.ask(ctx, link, m, report)
}

// hasTable returns an error for a table that is not synced here.
func (n *Node) hasTable(ctx context.Context, name string) error {
	if name == "" {
		return nil
	}
	tables, err := n.cfg.Store.Schema(ctx)
	if err != nil {
		return fmt.Errorf("the tables of the database cannot be read: %w", err)
	}
	if !slices.ContainsFunc(tables, func(t syncproto.TableSchema) bool { return t.Name == name }) {
		return fmt.Errorf("there is no synced table %q here", name)
	}
	return nil
}

type verifyLink struct {
	id   syncproto.LinkID
	conn *conn
}

// verification is a call of Verify.
type verification struct {
	node  *Node
	store Store
	o     VerifyOptions

	mu     sync.Mutex // guards the following
	failed error      // our own database

	rootMu   sync.Mutex // guards the following; held while it is read
	root     *syncproto.DigestAnswer
	rootHead int64 // newest at that time
}

// ours answers a question from our own database. What was read of whole tables serves for all members, unless there is
// something newer.
func (v *verification) ours(ctx context.Context, q syncproto.DigestRequest) (*syncproto.DigestAnswer, error) {
	if len(q.Prefixes) > 0 {
		a, err := v.store.Digest(ctx, q)
		return &a, v.note(ctx, err)
	}
	v.rootMu.Lock()
	defer v.rootMu.Unlock()
	heads, err := v.store.Heads(ctx)
	if err == nil && (v.root == nil || v.rootHead != heads.Newest) {
		var a syncproto.DigestAnswer
		if a, err = v.store.Digest(ctx, q); err == nil {
			v.root, v.rootHead = &a, heads.Newest
		}
	}
	return v.root, v.note(ctx, err)
}

// note keeps an error of our own database.
func (v *verification) note(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.failed = fmt.Errorf("the database cannot be read: %w", err)
	return v.failed
}

func (v *verification) progress(p VerifyProgress) {
	if v.o.Progress == nil {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.o.Progress(p)
}

// onLoop runs f on the loop, which owns the core and the links.
func (n *Node) onLoop(ctx context.Context, f func(*loop)) error {
	done := make(chan struct{})
	r := request{ctx: ctx, inspect: func(l *loop) { defer close(done); f(l) }}
	select {
	case n.requests <- r:
	case <-ctx.Done():
		return ctx.Err()
	case <-n.done:
		return n.endErr()
	}
	select {
	case <-done: // soon: the loop has taken it
		return nil
	case <-n.done:
		return n.endErr()
	}
}
