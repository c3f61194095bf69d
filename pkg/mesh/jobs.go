package mesh

import (
	"context"
	"errors"
	"fmt"

	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
)

// maxReads bounds the reads of the store that run at the same time.
const maxReads = 2

// result is what a job brings back to the loop; one of the fields before err is set.
type result struct {
	read   *syncproto.ReadResult
	apply  *syncproto.ApplyResult
	resume map[syncproto.SiteID]int64 // with apply
	heads  *headsResult
	schema syncproto.LinkID // tables of this link were created
	err    error            // the store failed
}

type headsResult struct {
	heads  Heads
	tables []syncproto.TableSchema // if the schema changed
}

// job runs f on a goroutine of its own and posts what it returns. The core keeps their number small: one read and one
// schema for each link, one apply, and the loop one of heads.
func (n *Node) job(f func(ctx context.Context) result) {
	n.wg.Go(func() {
		r := f(n.ctx)
		select {
		case n.results <- r:
		case <-n.ctx.Done():
		}
	})
}

func (l *loop) read(r syncproto.ReadRequest) {
	l.node.job(func(ctx context.Context) result {
		select {
		case l.reads <- struct{}{}:
			defer func() { <-l.reads }()
		case <-ctx.Done():
			return result{err: ctx.Err()}
		}
		out, err := l.store.Read(ctx, r)
		if err != nil {
			return result{err: fmt.Errorf("changes cannot be read from the database: %w", err)}
		}
		out.ID, out.Link = r.ID, r.Link
		return result{read: &out}
	})
}

func (l *loop) apply(r syncproto.ApplyRequest) {
	l.node.job(func(ctx context.Context) result {
		out, err := l.store.Apply(ctx, r)
		if err != nil {
			return result{err: fmt.Errorf("changes cannot be written to the database: %w", err)}
		}
		out.ID = r.ID
		return result{apply: &out, resume: r.Resume}
	})
}

// heads asks the store how far it is, and what its tables are if the schema is not known. One such job runs at a time; what
// happens while it runs makes for one more.
func (l *loop) heads() {
	l.headsAsked = l.headsBegun + 1
	l.beginHeads()
}

func (l *loop) beginHeads() {
	if l.headsBegun > l.headsDone || l.headsAsked <= l.headsDone {
		return
	}
	l.headsBegun++
	known := l.schema
	l.node.job(func(ctx context.Context) result {
		out, err := l.readHeads(ctx, known)
		if err != nil {
			return result{err: fmt.Errorf("the state of the database cannot be read: %w", err)}
		}
		return result{heads: &out}
	})
}

func (l *loop) readHeads(ctx context.Context, known [32]byte) (headsResult, error) {
	heads, err := l.store.Heads(ctx)
	if err != nil || heads.SchemaHash == known {
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
	heads, err = l.store.Heads(ctx)
	return headsResult{heads, tables}, err
}

func (l *loop) createTables(r syncproto.SchemaRequest) {
	log := l.log
	l.node.job(func(ctx context.Context) result {
		// One at a time: a table that this database refuses costs no other.
		for i := range r.Tables {
			err := l.store.CreateTables(ctx, r.Tables[i:i+1])
			var refused *RefusedError
			if errors.As(err, &refused) {
				log.Warn("a table was not created", "err", refused)
			} else if err != nil {
				return result{err: fmt.Errorf("tables cannot be created in the database: %w", err)}
			}
		}
		out, err := l.readHeads(ctx, [32]byte{})
		if err != nil {
			return result{err: fmt.Errorf("the state of the database cannot be read: %w", err)}
		}
		return result{heads: &out, schema: r.Link}
	})
}
