package main

import (
	"context"
	"errors"
	"log/slog"

	"github.com/crmesh/crmesh/pkg/crsql"
	"github.com/crmesh/crmesh/pkg/crsql/changeset"
	"github.com/crmesh/crmesh/pkg/mesh"
	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
)

// store is a crsql.Replica as the mesh wants it.
type store struct {
	replica *crsql.Replica
	log     *slog.Logger
	accept  crsql.AcceptSchema // what is taken of the schemas of others
	missing *missing           // nil: nobody asks for it
}

func (s store) State(ctx context.Context) (mesh.State, error) {
	st, err := s.replica.State(ctx)
	if err != nil {
		return mesh.State{}, passing(err)
	}
	parked, err := s.replica.Parked(ctx)
	if err != nil {
		return mesh.State{}, passing(err)
	}
	return mesh.State{
		Site: st.Site, Vector: st.Vector, Resume: st.Resume, Tables: st.Schema.Tables, Parked: parkedStatus(parked),
		Untried: st.Untried, Heads: headsOf(st.Heads, st.Schema),
	}, nil
}

func (s store) Heads(ctx context.Context) (mesh.Heads, error) {
	h, err := s.replica.Heads(ctx)
	if err != nil {
		return mesh.Heads{}, passing(err)
	}
	schema, err := s.replica.Schema(ctx)
	return headsOf(h, schema), passing(err)
}

func headsOf(h crsql.Heads, s crsql.Schema) mesh.Heads {
	return mesh.Heads{Own: h.Own, Newest: h.Newest, SchemaHash: s.Hash, Generation: s.Generation, Schema: s.Version}
}

func (s store) Read(ctx context.Context, q syncproto.ReadRequest) (syncproto.ReadResult, error) {
	r, err := s.replica.Read(ctx, crsql.ReadRequest{
		After: crsql.Position(q.After), Only: q.Only, MaxBytes: q.MaxBytes, MaxChanges: q.MaxChanges, Count: q.Count,
		Decide: func(origin syncproto.SiteID, version int64) crsql.Decision {
			switch q.Decide(origin, version) {
			case syncproto.DecideSend:
				return crsql.Send
			case syncproto.DecideHold:
				return crsql.Hold
			case syncproto.DecideStop:
				return crsql.Stop
			default:
				return crsql.Skip
			}
		},
	})
	if err != nil {
		return syncproto.ReadResult{}, passing(err)
	}
	entries := make([]syncproto.Entry, len(r.Entries))
	for i, e := range r.Entries {
		entries[i] = syncproto.Entry(e)
	}
	return syncproto.ReadResult{
		Entries: entries, Next: syncproto.Position(r.Next), End: r.End,
		Own: r.Heads.Own, Newest: r.Heads.Newest, Remaining: r.Remaining,
	}, nil
}

func (s store) Apply(ctx context.Context, q syncproto.ApplyRequest) (syncproto.ApplyResult, error) {
	groups := make([]crsql.Group, len(q.Groups))
	for i, g := range q.Groups {
		groups[i] = crsql.Group{Origin: g.Origin, Version: g.Version, Changes: g.Changes}
	}
	r, err := s.replica.Apply(ctx, crsql.ApplyRequest{Groups: groups, Claims: q.Claims, Resume: q.Resume})
	if full := (*crsql.ParkedError)(nil); errors.As(err, &full) {
		h, err := s.replica.Heads(ctx)
		return syncproto.ApplyResult{
			Own: h.Own, Newest: h.Newest, Refused: &syncproto.Refusal{Group: full.Group, Reason: full.Error()},
		}, passing(err)
	}
	return syncproto.ApplyResult{
		Ls: r.Ls, Changed: r.Changed, Parked: r.Parked, Own: r.Heads.Own, Newest: r.Heads.Newest,
	}, passing(err)
}

func (s store) Digest(ctx context.Context, q syncproto.DigestRequest) (syncproto.DigestAnswer, error) {
	r, err := s.replica.Digest(ctx, crsql.DigestRequest{Table: q.Table, Prefixes: q.Prefixes})
	out := syncproto.DigestAnswer{Vector: r.Vector, Tables: r.Tables, Parts: r.Parts}
	switch {
	case r.Missing:
		out.Kind = syncproto.DigestNoTable
	case len(q.Prefixes) > 0:
		out.Kind = syncproto.DigestParts
	}
	if len(out.Tables) > syncproto.MaxDigestTables {
		s.log.Warn("the database has more tables than can be compared", "tables", len(out.Tables), "compared", syncproto.MaxDigestTables)
		out.Tables = out.Tables[:syncproto.MaxDigestTables]
	}
	return out, passing(err)
}

func (s store) Rows(ctx context.Context, table string, places []changeset.Place, maxBytes int) ([]syncproto.Entry, error) {
	r, err := s.replica.Rows(ctx, table, places, maxBytes)
	entries := make([]syncproto.Entry, len(r))
	for i, e := range r {
		entries[i] = syncproto.Entry(e)
	}
	return entries, passing(err)
}

func (s store) Schema(ctx context.Context) ([]syncproto.TableSchema, error) {
	schema, err := s.replica.Schema(ctx)
	return schema.Tables, passing(err)
}

// TakeSchema takes what --accept-schema allows of another's schema.
func (s store) TakeSchema(ctx context.Context, q syncproto.SchemaRequest) error {
	offer := crsql.SchemaOffer{Hash: q.Hash, Generation: q.Generation, Tables: q.Tables}
	taken, err := s.replica.TakeSchema(ctx, offer, s.accept)
	err = passing(err)
	for _, refused := range taken.Refused {
		if err != nil {
			break // said when it is asked again
		}
		s.log.Warn("what another peer's schema has was not taken", "err", refused)
	}
	if !taken.Report.Empty() {
		s.log.Info("took another peer's schema", append(reportText(taken.Report), "generation", q.Generation)...)
		tellMadeAgain(s.log, taken.Report)
	}
	return err
}

func (s store) Parked(ctx context.Context) (mesh.ParkedStatus, error) {
	p, err := s.replica.Parked(ctx)
	return parkedStatus(p), passing(err)
}

func parkedStatus(p crsql.Parked) mesh.ParkedStatus {
	out := mesh.ParkedStatus{Changes: p.Changes, Bytes: p.Bytes, More: p.More, Tables: make([]mesh.ParkedTable, len(p.Tables))}
	for i, t := range p.Tables {
		out.Tables[i] = mesh.ParkedTable(t)
	}
	return out
}

func (s store) Replay(ctx context.Context) error {
	n, err := s.replica.ReplayParked(ctx)
	if n > 0 {
		s.log.Info("changes that had been put aside were applied", "count", n)
	}
	if err == nil && s.missing != nil { // the schema has changed
		s.missing.look(ctx)
	}
	return passing(err)
}

// A database refuses a new site id where peers would refuse its vector.
var _ = [1]struct{}{}[crsql.MaxSites-syncproto.MaxVectorSites]

func (s store) Renew(ctx context.Context, reason string) error {
	err := s.replica.Renew(ctx, reason)
	if errors.Is(err, crsql.ErrLimit) {
		return &mesh.NoRenewalError{Err: err}
	}
	return passing(err)
}

func (s store) Commits() <-chan struct{} { return s.replica.Commits() }

// passing marks the errors that pass, so that the mesh asks again: another program keeps the database to itself, or there is no room.
func passing(err error) error {
	if errors.Is(err, crsql.ErrWriteLocked) || errors.Is(err, crsql.ErrFull) {
		return &mesh.UnavailableError{Err: err}
	}
	return err
}
