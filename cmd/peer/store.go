package main

import (
	"context"
	"errors"
	"log/slog"

	"github.com/crmesh/crmesh/pkg/crsql"
	"github.com/crmesh/crmesh/pkg/mesh"
	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
)

// store is a crsql.Replica as the mesh wants it.
type store struct {
	replica *crsql.Replica
	log     *slog.Logger
}

func (s store) State(ctx context.Context) (mesh.State, error) {
	st, err := s.replica.State(ctx)
	if err != nil {
		return mesh.State{}, err
	}
	return mesh.State{
		Site: st.Site, Vector: st.Vector, Resume: st.Resume, Tables: tables(st.Schema.Tables),
		Heads: mesh.Heads{Own: st.Heads.Own, Newest: st.Heads.Newest, SchemaHash: st.Schema.Hash},
	}, nil
}

func (s store) Heads(ctx context.Context) (mesh.Heads, error) {
	h, err := s.replica.Heads(ctx)
	if err != nil {
		return mesh.Heads{}, err
	}
	schema, err := s.replica.Schema(ctx)
	return mesh.Heads{Own: h.Own, Newest: h.Newest, SchemaHash: schema.Hash}, err
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
		return syncproto.ReadResult{}, err
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
	var r crsql.ApplyResult
	err := s.patiently(ctx, func() (err error) {
		r, err = s.replica.Apply(ctx, crsql.ApplyRequest{Groups: groups, Claims: q.Claims, Resume: q.Resume})
		return err
	})
	return syncproto.ApplyResult{
		Ls: r.Ls, Changed: r.Changed, Parked: r.Parked, Own: r.Heads.Own, Newest: r.Heads.Newest,
	}, err
}

func (s store) Schema(ctx context.Context) ([]syncproto.TableSchema, error) {
	schema, err := s.replica.Schema(ctx)
	return tables(schema.Tables), err
}

func (s store) CreateTables(ctx context.Context, list []syncproto.TableSchema) error {
	wanted := make([]crsql.TableSchema, len(list))
	for i, t := range list {
		wanted[i] = crsql.TableSchema(t)
	}
	err := s.patiently(ctx, func() error {
		_, err := s.replica.CreateTables(ctx, wanted)
		return err
	})
	var refused *crsql.SchemaError
	if errors.As(err, &refused) {
		return &mesh.RefusedError{Table: refused.Table, Reason: refused.Reason}
	}
	return err
}

func (s store) Replay(ctx context.Context) error {
	return s.patiently(ctx, func() error {
		n, err := s.replica.ReplayParked(ctx)
		if n > 0 {
			s.log.Info("changes that had been put aside were applied", "count", n)
		}
		return err
	})
}

func (s store) Commits() <-chan struct{} { return s.replica.Commits() }

// patiently repeats a write for as long as another program keeps the database to itself: that is no reason to stop.
func (s store) patiently(ctx context.Context, write func() error) error {
	for {
		err := write()
		if !errors.Is(err, crsql.ErrWriteLocked) || ctx.Err() != nil {
			return err
		}
		s.log.Warn("another program keeps the database locked; changes of other peers wait")
	}
}

func tables(list []crsql.TableSchema) []syncproto.TableSchema {
	out := make([]syncproto.TableSchema, len(list))
	for i, t := range list {
		out[i] = syncproto.TableSchema(t)
	}
	return out
}
