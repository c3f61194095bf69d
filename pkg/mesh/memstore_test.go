package mesh

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
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
	refused string // a table that TakeSchema leaves out
	table   string // that write writes to
	full    bool   // Apply refuses what is not of table t
	parked  ParkedStatus
	applies int
	drop    func(changeset.Change) bool // changes that Apply loses, though it takes the claims for them

	opened   int64 // own versions above it may be in use elsewhere
	renewals int
	noNew    error         // what Renew returns
	renewing chan struct{} // if set: Renew waits until it is closed, or its context ends
	hold     chan struct{} // likewise for Apply
	waited   int           // calls that had to wait
}

type memCell struct {
	change changeset.Change // DBVersion is the local version

	sum    *changeset.RowSum // of the following
	summed changeset.Change
}

type memOrigin struct {
	site    syncproto.SiteID
	version int64
}

func newMemStore(name string) *memStore {
	sum := sha256.Sum256([]byte(name))
	return &memStore{
		site: syncproto.SiteID(sum[:16]), commits: make(chan struct{}, 1), cells: map[string]*memCell{},
		table: "t", log: map[int64]memOrigin{}, vector: syncproto.Vector{}, resume: map[syncproto.SiteID]int64{},
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
		s.cells[string(pk)] = &memCell{change: changeset.Change{Table: s.table, PK: pk, CID: "v", Val: value, ColVersion: version,
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

// addTable gives the store a table of its own.
func (s *memStore) addTable(t syncproto.TableSchema) {
	s.mu.Lock()
	s.tables = append(s.tables, t)
	s.mu.Unlock()
	s.commits <- struct{}{}
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
		Tables: slices.Clone(s.tables), Parked: s.parked}, s.broken
}

func (s *memStore) headsLocked() Heads {
	h := Heads{Own: s.own, Newest: s.newest}
	if len(s.tables) > 0 {
		h.SchemaHash, h.Schema = changeset.SchemaHash(s.tables), int64(len(s.tables))
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

func (s *memStore) Apply(ctx context.Context, r syncproto.ApplyRequest) (syncproto.ApplyResult, error) {
	if err := s.await(ctx, &s.hold); err != nil {
		return syncproto.ApplyResult{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.applies++
	out := syncproto.ApplyResult{Own: s.own, Newest: s.newest}
	for i, g := range r.Groups {
		if s.full && g.Changes[0].Table != "t" {
			out.Refused = &syncproto.Refusal{Group: i, Reason: "no more is put aside"}
			return out, s.broken
		}
	}
	for _, g := range r.Groups {
		var l, changed int64
		for _, c := range g.Changes {
			if s.drop != nil && s.drop(c) {
				continue
			}
			old := s.cells[string(c.PK)]
			if old != nil && (old.change.ColVersion > c.ColVersion ||
				old.change.ColVersion == c.ColVersion && changeset.Compare(old.change.Val, c.Val) >= 0) {
				continue
			}
			l = s.newest + 1
			changed++
			c.DBVersion = l
			s.cells[string(c.PK)] = &memCell{change: c}
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

func (s *memStore) Digest(_ context.Context, q syncproto.DigestRequest) (syncproto.DigestAnswer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := syncproto.DigestAnswer{Vector: maps.Clone(s.vector)}
	if s.own > 0 {
		out.Vector[s.site] = s.own
	}
	has := func(name string) bool {
		return slices.ContainsFunc(s.tables, func(t syncproto.TableSchema) bool { return t.Name == name })
	}
	if len(q.Prefixes) > 0 {
		out.Kind = syncproto.DigestNoTable
		if has(q.Table) {
			out.Kind = syncproto.DigestParts
			scan := changeset.NewPartScan(q.Prefixes)
			for _, r := range s.rowSums(q.Table) {
				scan.Add(r)
			}
			out.Parts = scan.Parts()
		}
		return out, s.broken
	}
	for _, t := range s.tables {
		if q.Table != "" && q.Table != t.Name {
			continue
		}
		d := changeset.TableDigest{Table: t.Name, Columns: changeset.ColumnsDigest([]string{"k"}, []string{t.SQL})}
		for _, r := range s.rowSums(t.Name) {
			d.Sum.Add(r.Digest)
		}
		out.Tables = append(out.Tables, d)
	}
	slices.SortFunc(out.Tables, func(a, b changeset.TableDigest) int { return strings.Compare(a.Table, b.Table) })
	return out, s.broken
}

// rowSums is called with mu held.
func (s *memStore) rowSums(table string) []changeset.RowSum {
	var h changeset.RowHasher
	var out []changeset.RowSum
	for _, cell := range s.cells {
		c := &cell.change
		if c.Table != table {
			continue
		}
		if cell.sum == nil || cell.summed.ColVersion != c.ColVersion || !cell.summed.Val.Equal(c.Val) {
			h.Begin(c.Table, c.PK, c.CL, true)
			h.Cell(c.CID, c.ColVersion, c.Val)
			cell.summed = *c
			cell.sum = &changeset.RowSum{
				Place: changeset.PlaceOf(c.PK), Key: c.PK, CL: c.CL, Versions: c.ColVersion, Digest: h.Sum(),
			}
		}
		out = append(out, *cell.sum)
	}
	return out
}

func (s *memStore) Rows(_ context.Context, table string, places []changeset.Place, _ int) ([]syncproto.Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	by := map[int64]*syncproto.Entry{}
	for _, cell := range s.cells {
		c := cell.change
		if c.Table != table || !slices.Contains(places, changeset.PlaceOf(c.PK)) {
			continue
		}
		e := by[c.DBVersion]
		if e == nil {
			e = &syncproto.Entry{L: c.DBVersion, Origin: s.site, Version: c.DBVersion}
			if origin, ok := s.log[e.L]; ok {
				e.Origin, e.Version = origin.site, origin.version
			}
			by[e.L] = e
		}
		e.Changes = append(e.Changes, c)
	}
	var out []syncproto.Entry
	for _, l := range slices.Sorted(maps.Keys(by)) {
		out = append(out, *by[l])
	}
	return out, s.broken
}

func (s *memStore) Schema(context.Context) ([]syncproto.TableSchema, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.tables), s.broken
}

func (s *memStore) TakeSchema(_ context.Context, r syncproto.SchemaRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range r.Tables {
		if t.Name != s.refused && !slices.ContainsFunc(s.tables, func(o syncproto.TableSchema) bool { return o.Name == t.Name }) {
			s.tables = append(s.tables, t)
		}
	}
	return s.broken
}

func (s *memStore) Parked(context.Context) (ParkedStatus, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.parked, s.broken
}

// copy is what a backup holds, or another machine that was made of one. It takes itself for the original.
func (s *memStore) copy() *memStore {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := &memStore{site: s.site, table: s.table, commits: make(chan struct{}, 1), cells: map[string]*memCell{}, log: maps.Clone(s.log),
		vector: maps.Clone(s.vector), resume: maps.Clone(s.resume), newest: s.newest, own: s.own, tables: slices.Clone(s.tables), opened: s.own}
	for key, c := range s.cells {
		out.cells[key] = &memCell{change: c.change}
	}
	return out
}

func (s *memStore) Renew(ctx context.Context, _ string) error {
	if err := s.await(ctx, &s.renewing); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.renewals++
	if s.noNew != nil {
		return s.noNew
	}
	old, id := s.site, make([]byte, 16)
	_, _ = rand.Read(id)
	s.site, s.own, s.resume = syncproto.SiteID(id), 0, map[syncproto.SiteID]int64{}
	if s.opened > 0 {
		s.vector[old] = max(s.vector[old], s.opened)
	}
	l := s.newest + 1
	for _, c := range s.cells {
		if _, foreign := s.log[c.change.DBVersion]; foreign || c.change.DBVersion == l {
			continue
		}
		if c.change.DBVersion <= s.opened {
			continue
		}
		c.change.DBVersion, c.change.Site, s.newest, s.own = l, s.site, l, l
		c.change.ColVersion++
	}
	for own := range s.opened {
		if _, foreign := s.log[own+1]; !foreign {
			s.log[own+1] = memOrigin{old, own + 1}
		}
	}
	s.opened = s.own
	return s.broken
}

// await waits until a channel of the store is closed, if there is one.
func (s *memStore) await(ctx context.Context, which *chan struct{}) error {
	s.mu.Lock()
	until := *which
	if until != nil {
		s.waited++
	}
	s.mu.Unlock()
	if until == nil {
		return nil
	}
	select {
	case <-until:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// block makes the calls that await a channel wait until it is closed.
func (s *memStore) block(which *chan struct{}) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	*which = make(chan struct{})
	return *which
}

// waits returns how many calls had to wait.
func (s *memStore) waits() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.waited
}

func (s *memStore) siteID() syncproto.SiteID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.site
}

func (s *memStore) asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.renewals
}

func (s *memStore) Replay(context.Context) error { return nil }

func (s *memStore) Commits() <-chan struct{} { return s.commits }

var errDiskFull = errors.New("database or disk is full")
