package mesh

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
)

// memStore is a database in memory: one table of keys and values, where the higher version of a value wins, and then the
// higher value.
type memStore struct {
	site    syncproto.SiteID
	commits chan struct{}

	mu      sync.Mutex
	cells   map[string]*memCell
	log     map[int64]memOrigin // foreign entries
	vector  syncproto.Vector
	resume  map[syncproto.SiteID]int64
	newest  int64
	own     int64
	tables  []syncproto.TableSchema
	broken  error  // what every method returns
	refused string // a table that CreateTables refuses; then it creates none
	applies int
}

type memCell struct {
	change changeset.Change // DBVersion is the local version
}

type memOrigin struct {
	site    syncproto.SiteID
	version int64
}

func newMemStore(name string) *memStore {
	sum := sha256.Sum256([]byte(name))
	return &memStore{
		site: syncproto.SiteID(sum[:16]), commits: make(chan struct{}, 1), cells: map[string]*memCell{},
		log: map[int64]memOrigin{}, vector: syncproto.Vector{}, resume: map[syncproto.SiteID]int64{},
		tables: []syncproto.TableSchema{{Name: "t", SQL: "CREATE TABLE t (k PRIMARY KEY NOT NULL, v)"}},
	}
}

// write sets keys to a value in one commit.
func (s *memStore) write(value changeset.Value, keys ...string) {
	s.mu.Lock()
	s.newest++
	s.own = s.newest
	for i, key := range keys {
		pk, err := changeset.AppendPacked(nil, []changeset.Value{changeset.TextString(key)})
		if err != nil {
			panic(err)
		}
		version := int64(1)
		if c := s.cells[string(pk)]; c != nil {
			version = c.change.ColVersion + 1
		}
		s.cells[string(pk)] = &memCell{changeset.Change{Table: "t", PK: pk, CID: "v", Val: value, ColVersion: version,
			DBVersion: s.newest, Site: s.site, CL: 1, Seq: int64(i)}}
	}
	s.mu.Unlock()
	select {
	case s.commits <- struct{}{}:
	default:
	}
}

func (s *memStore) writeText(value string, keys ...string) {
	s.write(changeset.TextString(value), keys...)
}

// content is what two stores must agree on.
func (s *memStore) content() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := sha256.New()
	for _, key := range slices.Sorted(maps.Keys(s.cells)) {
		c := s.cells[key].change
		fmt.Fprintf(h, "%x %d ", key, c.ColVersion)
		h.Write(changeset.AppendValue(nil, c.Val))
	}
	return fmt.Sprintf("%d keys %x", len(s.cells), h.Sum(nil)[:8])
}

func (s *memStore) get(key string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	pk, _ := changeset.AppendPacked(nil, []changeset.Value{changeset.TextString(key)})
	if c := s.cells[string(pk)]; c != nil {
		return string(c.change.Val.Bytes())
	}
	return ""
}

func (s *memStore) breakWith(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = err
}

func (s *memStore) State(context.Context) (State, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return State{Site: s.site, Heads: s.headsLocked(), Vector: maps.Clone(s.vector), Resume: maps.Clone(s.resume),
		Tables: slices.Clone(s.tables)}, s.broken
}

func (s *memStore) headsLocked() Heads {
	h := Heads{Own: s.own, Newest: s.newest}
	if len(s.tables) > 0 {
		h.SchemaHash = sha256.Sum256([]byte(fmt.Sprint(s.tables)))
	}
	return h
}

func (s *memStore) Heads(context.Context) (Heads, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.headsLocked(), s.broken
}

func (s *memStore) Read(_ context.Context, r syncproto.ReadRequest) (syncproto.ReadResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	entries := map[int64][]changeset.Change{}
	var remaining int64
	for _, c := range s.cells {
		l := c.change.DBVersion
		if (syncproto.Position{L: l, Seq: c.change.Seq}).Compare(r.After) > 0 && (r.Only == nil || slices.Contains(r.Only, l)) {
			entries[l] = append(entries[l], c.change)
			remaining++
		}
	}
	out := syncproto.ReadResult{Next: r.After, Own: s.own, Newest: s.newest, Remaining: remaining, End: true}
	size, count := 0, 0
	for _, l := range slices.Sorted(maps.Keys(entries)) {
		origin, ok := s.log[l]
		if !ok {
			origin = memOrigin{s.site, l}
		}
		e := syncproto.Entry{L: l, Origin: origin.site, Version: origin.version}
		switch r.Decide(origin.site, origin.version) {
		case syncproto.DecideStop:
			out.End = false
			return out, s.broken
		case syncproto.DecideHold:
			e.Held = true
			out.Entries = append(out.Entries, e)
		case syncproto.DecideSend:
			changes := entries[l]
			slices.SortFunc(changes, func(a, b changeset.Change) int {
				if a.Seq != b.Seq {
					return int(a.Seq - b.Seq)
				}
				return bytes.Compare(a.PK, b.PK)
			})
			for i, c := range changes {
				n := len(c.PK) + c.Val.Size() + 20
				run := i > 0 && changes[i-1].Seq == c.Seq
				if count > 0 && !run && (size+n > r.MaxBytes || count+1 > r.MaxChanges) {
					out.End = false
					if len(e.Changes) > 0 {
						out.Entries = append(out.Entries, e)
					}
					return out, s.broken
				}
				e.Changes = append(e.Changes, c)
				size, count = size+n, count+1
				out.Next = syncproto.Position{L: l, Seq: c.Seq}
			}
			out.Entries = append(out.Entries, e)
		}
		out.Next = syncproto.Position{L: l, Seq: math.MaxInt64}
	}
	return out, s.broken
}

func (s *memStore) Apply(_ context.Context, r syncproto.ApplyRequest) (syncproto.ApplyResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.applies++
	out := syncproto.ApplyResult{}
	for _, g := range r.Groups {
		var l, changed int64
		for _, c := range g.Changes {
			old := s.cells[string(c.PK)]
			if old != nil && (old.change.ColVersion > c.ColVersion ||
				old.change.ColVersion == c.ColVersion && changeset.Compare(old.change.Val, c.Val) >= 0) {
				continue
			}
			l = s.newest + 1
			changed++
			c.DBVersion = l
			s.cells[string(c.PK)] = &memCell{c}
		}
		if l > 0 {
			s.newest = l
			s.log[l] = memOrigin{g.Origin, g.Version}
		}
		out.Ls, out.Changed = append(out.Ls, l), append(out.Changed, changed)
	}
	for site, version := range r.Claims {
		s.vector[site] = max(s.vector[site], version)
	}
	maps.Copy(s.resume, r.Resume)
	out.Own, out.Newest = s.own, s.newest
	return out, s.broken
}

func (s *memStore) Schema(context.Context) ([]syncproto.TableSchema, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.tables), s.broken
}

func (s *memStore) CreateTables(_ context.Context, tables []syncproto.TableSchema) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range tables {
		if t.Name == s.refused {
			return &RefusedError{t.Name, "its name is not to this store's liking"}
		}
	}
	for _, t := range tables {
		if !slices.ContainsFunc(s.tables, func(o syncproto.TableSchema) bool { return o.Name == t.Name }) {
			s.tables = append(s.tables, t)
		}
	}
	return s.broken
}

func (s *memStore) Replay(context.Context) error { return nil }

func (s *memStore) Commits() <-chan struct{} { return s.commits }

var errDiskFull = errors.New("database or disk is full")
