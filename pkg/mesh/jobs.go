package mesh

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
)

// maxReads bounds the reads of the store that run at the same time.
const maxReads = 2

// result is what a job brings back to the loop; one of the fields before err is set.
type result struct {
	read    *syncproto.ReadResult
	apply   *syncproto.ApplyResult
	resume  map[syncproto.SiteID]int64 // with apply
	parked  *parkedRead                // with apply: changes were put aside
	heads   *headsResult
	schema  syncproto.LinkID // the schema of this link was looked at
	renewed *renewed         // the store was asked for a new site id
	err     error            // the store failed
	look    *syncproto.LookResult
}

type headsResult struct {
	heads  Heads
	schema bool // it changed, and the following are set
	tables []syncproto.TableSchema
	parked parkedRead
}

// job runs f on a goroutine of its own and posts what it returns. The core keeps their number small: one read and one
// schema for each link, one apply, and the loop one of heads.
func (l *loop) job(f func(ctx context.Context) result) {
	n := l.node
	l.jobs++
	n.wg.Go(func() {
		r := f(n.ctx)
		select {
		case n.results <- r:
		case <-n.ctx.Done():
		}
	})
}

func (l *loop) read(r syncproto.ReadRequest) {
	l.job(func(ctx context.Context) result {
		select {
		case l.reads <- struct{}{}:
			defer func() { <-l.reads }()
		case <-ctx.Done():
			return result{err: ctx.Err()}
		}
		var out syncproto.ReadResult
		err := l.node.patiently(ctx, func() (err error) {
			out, err = l.store.Read(ctx, r)
			return err
		})
		if err != nil {
			return result{err: fmt.Errorf("changes cannot be read from the database: %w", err)}
		}
		out.ID, out.Link = r.ID, r.Link
		return result{read: &out}
	})
}

func (l *loop) apply(r syncproto.ApplyRequest) {
	l.job(func(ctx context.Context) result {
		var out syncproto.ApplyResult
		err := l.node.patiently(ctx, func() (err error) {
			out, err = l.store.Apply(ctx, r)
			return err
		})
		if err != nil {
			return result{err: fmt.Errorf("changes cannot be written to the database: %w", err)}
		}
		out.ID = r.ID
		done := result{apply: &out, resume: r.Resume}
		if slices.ContainsFunc(out.Parked, func(n int) bool { return n > 0 }) {
			var parked parkedRead
			err := l.node.patiently(ctx, func() (err error) {
				parked, err = l.parkedReads.read(ctx, l.store)
				return err
			})
			if err != nil {
				return result{err: fmt.Errorf("what was put aside cannot be read from the database: %w", err)}
			}
			done.parked = &parked
		}
		return done
	})
}

// lookInto looks into the database for another side. There is one such look at a time, beside reads.
func (l *loop) lookInto(r syncproto.LookRequest) {
	l.job(func(ctx context.Context) result {
		out := syncproto.LookResult{ID: r.ID}
		var start time.Time
		err := l.node.patiently(ctx, func() (err error) {
			start = time.Now()
			if r.Digest != nil {
				out.Answer = new(syncproto.DigestAnswer)
				*out.Answer, err = l.store.Digest(ctx, *r.Digest)
			} else {
				out.Entries, err = l.store.Rows(ctx, r.Resend.Table, r.Resend.Places, resendBytes)
			}
			return err
		})
		if err != nil {
			return result{err: fmt.Errorf("rows cannot be read from the database: %w", err)}
		}
		out.Millis = time.Since(start).Milliseconds()
		return result{look: &out}
	})
}

// heads asks the store how far it is, and what its tables are if the schema is not known. One such job runs at a time; what
// happens while it runs makes for one more.
//
// While the site id is renewed that waits: the state that comes with the new one says it.
func (l *loop) heads() {
	l.headsAsked = l.headsBegun + 1
	l.beginHeads()
}

func (l *loop) beginHeads() {
	if l.headsBegun > l.headsDone || l.headsAsked <= l.headsDone || l.renewals.reason != "" {
		return
	}
	l.headsBegun++
	known, untried := l.known, l.untried
	l.untried = false
	l.job(func(ctx context.Context) result {
		var out headsResult
		err := l.node.patiently(ctx, func() (err error) {
			out, err = l.readHeads(ctx, known, untried)
			return err
		})
		if err != nil {
			return result{err: fmt.Errorf("the state of the database cannot be read: %w", err)}
		}
		return result{heads: &out}
	})
}

// readHeads reads the heads, and all that depends on the schema if it is not the known one, or what is put aside was not tried
// with it.
func (l *loop) readHeads(ctx context.Context, known Heads, untried bool) (headsResult, error) {
	heads, err := l.store.Heads(ctx)
	if err != nil || !untried && heads.SchemaHash == known.SchemaHash && heads.Generation == known.Generation && heads.Schema == known.Schema {
		return headsResult{heads: heads}, err
	}
	// What had no table before may have one now.
	if err := l.store.Replay(ctx); err != nil {
		return headsResult{}, err
	}
	tables, err := l.store.Schema(ctx)
	if err != nil {
		return headsResult{}, err
	}
	parked, err := l.parkedReads.read(ctx, l.store)
	if err != nil {
		return headsResult{}, err
	}
	heads, err = l.store.Heads(ctx)
	return headsResult{heads, true, tables, parked}, err
}

// parkedRead is what was put aside at one moment.
type parkedRead struct {
	ParkedStatus
	number uint64 // of two, the later one has the higher
}

// parkedReads numbers what jobs read beside each other: their results need not come in the order of what they saw.
type parkedReads struct {
	mu   sync.Mutex
	last uint64
}

func (p *parkedReads) read(ctx context.Context, store Store) (parkedRead, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	status, err := store.Parked(ctx)
	p.last++
	return parkedRead{status, p.last}, err
}

// tookParked notes what is put aside, unless something later is known.
func (l *loop) tookParked(p parkedRead) {
	if p.number > l.parked.number {
		l.parked = p
	}
}

func (l *loop) takeSchema(r syncproto.SchemaRequest) {
	known := l.known
	l.job(func(ctx context.Context) result {
		if err := l.node.patiently(ctx, func() error { return l.store.TakeSchema(ctx, r) }); err != nil {
			return result{err: fmt.Errorf("the schema of the database cannot be changed: %w", err)}
		}
		var out headsResult
		err := l.node.patiently(ctx, func() (err error) {
			out, err = l.readHeads(ctx, known, false)
			return err
		})
		if err != nil {
			return result{err: fmt.Errorf("the state of the database cannot be read: %w", err)}
		}
		return result{heads: &out, schema: r.Link}
	})
}
