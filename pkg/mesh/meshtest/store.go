// Package meshtest tests the sync core and what drives it: a model of a store, a simulated network with seeded faults, and
// traces that a person reads.
package meshtest

import (
	"cmp"
	"slices"
	"sync"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
)

// Table and Column name what the cells of a Store are stored as.
const (
	Table  = "t"
	Column = "v"
)

// Store is a model of a database with the log, vector and resume tables of the sync protocol, in memory. A cell is a key and an
// integer; the larger (version, value) wins. It is safe for concurrent use, and no method blocks.
type Store struct {
	mu      sync.Mutex
	site    syncproto.SiteID
	cells   map[string]cell
	entries map[int64]*entry
	order   []int64 // of entries, ascending; may name ones that are gone
	last    int64   // highest local version ever used
	own     int64   // highest own version that anybody was told of
	vector  syncproto.Vector
	resume  map[syncproto.SiteID]int64
	opened  int64 // own versions above it may be in use elsewhere
	commits chan struct{}
	refuses string // a key whose changes Apply refuses; empty: none
	full    bool   // the next Apply refuses a group in its midst
}

type cell struct {
	version, value, seq, l int64
	site                   syncproto.SiteID
}

type entry struct {
	origin  syncproto.SiteID
	version int64
	keys    map[string]bool
}

// Write is a key and the value that a commit gives it. A Store takes any value; of a real database Deleted deletes the key's row.
type Write struct {
	Key   string
	Value int64
}

// Deleted is the value of a Write that deletes.
const Deleted = -1

// Database is what a Peer keeps its rows in: a Store, or a real database. Its methods do what those of a Store do.
type Database interface {
	State() State
	// Write commits one transaction and returns its version and what it made of the keys that it changed; none if it
	// changed nothing.
	Write(writes ...Write) (version int64, cells map[string]Cell)
	Apply(r syncproto.ApplyRequest) syncproto.ApplyResult
	Read(r syncproto.ReadRequest) syncproto.ReadResult
	CellOf(key string) Cell
	Cells() map[string]Cell
	// Reopen does what the end of the process and a new one do to it.
	Reopen()
}

// Cell is a key's state, which replicas that are in sync agree on.
type Cell struct{ Version, Value int64 }

// Covers reports whether c is o or beats it.
func (c Cell) Covers(o Cell) bool {
	return c.Version > o.Version || c.Version == o.Version && c.Value >= o.Value
}

// NewStore returns an empty store of a site.
func NewStore(site syncproto.SiteID) *Store {
	return &Store{
		site: site, cells: map[string]cell{}, entries: map[int64]*entry{}, vector: syncproto.Vector{},
		resume: map[syncproto.SiteID]int64{}, commits: make(chan struct{}, 1),
	}
}

// State is what a core is made from.
type State struct {
	Site        syncproto.SiteID
	Own, Newest int64
	Vector      syncproto.Vector
	Resume      map[syncproto.SiteID]int64
}

// State returns what a core is made from. The caller owns it.
func (s *Store) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := State{Site: s.site, Own: s.tellOwn(), Newest: s.newest(), Vector: syncproto.Vector{}, Resume: map[syncproto.SiteID]int64{}}
	for site, version := range s.vector {
		st.Vector[site] = version
	}
	for site, reached := range s.resume {
		st.Resume[site] = reached
	}
	return st
}

// Write implements Database.
func (s *Store) Write(writes ...Write) (version int64, cells map[string]Cell) {
	cells = map[string]Cell{}
	for _, ch := range s.Commit(writes...) {
		key, c := KeyOf(ch)
		version, cells[key] = ch.DBVersion, c
	}
	return version, cells
}

// Reopen implements Database: a Store forgets nothing.
func (s *Store) Reopen() {}

// Commits gets a value after commits; one stands for all that came before it is taken.
func (s *Store) Commits() <-chan struct{} { return s.commits }

// Commit writes one transaction, whose changes it returns. Every two neighbouring keys share a sequence number.
func (s *Store) Commit(writes ...Write) []changeset.Change {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	var changes []changeset.Change
	for i, w := range writes {
		c := cell{version: s.cells[w.Key].version + 1, value: w.Value, seq: int64(i / 2), l: s.last, site: s.site}
		s.put(w.Key, c, s.site, s.last)
		changes = append(changes, change(w.Key, c))
	}
	select {
	case s.commits <- struct{}{}:
	default:
	}
	return changes
}

// Refuse makes Apply refuse changes of a key; an empty one: no longer.
func (s *Store) Refuse(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuses = key
}

// SetFull makes the next Apply with groups refuse one in its midst, or not.
func (s *Store) SetFull(full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.full = full
}

// Cells returns what all keys hold.
func (s *Store) Cells() map[string]Cell {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]Cell{}
	for key, c := range s.cells {
		out[key] = Cell{c.version, c.value}
	}
	return out
}

// CellOf returns what a key holds; zero if it was never written.
func (s *Store) CellOf(key string) Cell {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.cells[key]
	return Cell{c.version, c.value}
}

// KeyOf returns the key and the cell of a change that a Store made.
func KeyOf(ch changeset.Change) (string, Cell) {
	values, err := changeset.ParseCanonical(ch.PK)
	if err != nil || len(values) != 1 {
		return string(ch.PK), Cell{ch.ColVersion, ch.Val.Int64()}
	}
	return string(values[0].Bytes()), Cell{ch.ColVersion, ch.Val.Int64()}
}

// Apply does what an ApplyRequest asks for.
func (s *Store) Apply(r syncproto.ApplyRequest) syncproto.ApplyResult {
	s.mu.Lock()
	defer s.mu.Unlock()
	result := syncproto.ApplyResult{ID: r.ID}
	if s.full && len(r.Groups) > 0 {
		s.full = false
		at := len(r.Groups) / 2
		s.applyGroups(r.Groups[:at], &result) // as one that takes several transactions
		result.Own, result.Newest = s.tellOwn(), s.newest()
		result.Refused = &syncproto.Refusal{Group: at, Reason: "no room for it"}
		return result
	}
	for i, g := range r.Groups {
		for _, ch := range g.Changes {
			if key, _ := KeyOf(ch); s.refuses != "" && key == s.refuses {
				result.Own, result.Newest = s.tellOwn(), s.newest()
				result.Refused = &syncproto.Refusal{Group: i, Reason: "no room for it"}
				return result
			}
		}
	}
	s.applyGroups(r.Groups, &result)
	for site, version := range r.Claims {
		s.vector[site] = max(s.vector[site], version)
	}
	for site, reached := range r.Resume {
		s.resume[site] = reached
	}
	result.Own, result.Newest = s.tellOwn(), s.newest()
	return result
}

func (s *Store) applyGroups(groups []syncproto.ApplyGroup, result *syncproto.ApplyResult) {
	for _, g := range groups {
		l, changed := s.last+1, int64(0)
		for _, ch := range g.Changes {
			key, incoming := KeyOf(ch)
			c := s.cells[key]
			if (Cell{c.version, c.value}).Covers(incoming) {
				continue
			}
			s.put(key, cell{incoming.Version, incoming.Value, ch.Seq, l, ch.Site}, g.Origin, g.Version)
			changed++
		}
		if changed > 0 {
			s.last = l
		} else {
			l = 0
		}
		result.Ls = append(result.Ls, l)
		result.Changed = append(result.Changed, changed)
	}
}

// tellOwn returns the highest own version that has rows, or was told before. One whose rows were all beaten before anybody
// asked stays unknown, as in a real database.
func (s *Store) tellOwn() int64 {
	for i := len(s.order) - 1; i >= 0 && s.order[i] > s.own; i-- {
		if e := s.entries[s.order[i]]; e != nil && e.origin == s.site {
			s.own = s.order[i]
		}
	}
	return s.own
}

// put stores a cell, moving its key from its entry to the one of c.l.
func (s *Store) put(key string, c cell, origin syncproto.SiteID, version int64) {
	if old, ok := s.cells[key]; ok && old.l != c.l {
		e := s.entries[old.l]
		delete(e.keys, key)
		if len(e.keys) == 0 {
			delete(s.entries, old.l)
		}
	}
	s.cells[key] = c
	e := s.entries[c.l]
	if e == nil {
		e = &entry{origin, version, map[string]bool{}}
		s.entries[c.l] = e
		s.order = append(s.order, c.l)
	}
	e.keys[key] = true
}

// newest returns the highest local version that has rows.
func (s *Store) newest() int64 {
	for i := len(s.order) - 1; i >= 0; i-- {
		if s.entries[s.order[i]] != nil {
			return s.order[i]
		}
	}
	return 0
}

// Read does what a ReadRequest asks for.
func (s *Store) Read(r syncproto.ReadRequest) syncproto.ReadResult {
	s.mu.Lock()
	defer s.mu.Unlock()
	result := syncproto.ReadResult{ID: r.ID, Link: r.Link, Next: r.After, Own: s.tellOwn(), Newest: s.newest()}
	if r.Count {
		result.Remaining = s.count(r.After)
	}
	bytes, changes := 0, 0
	at, _ := slices.BinarySearch(s.order, r.After.L)
	for _, l := range s.order[at:] {
		e := s.entries[l]
		if e == nil || l == r.After.L && r.After.Seq == syncproto.EntryEnd {
			continue
		}
		if r.Only != nil {
			if _, found := slices.BinarySearch(r.Only, l); !found {
				continue
			}
		}
		decision := r.Decide(e.origin, e.version)
		if decision == syncproto.DecideStop {
			return result
		}
		whole := syncproto.Position{L: l, Seq: syncproto.EntryEnd}
		out := syncproto.Entry{L: l, Origin: e.origin, Version: e.version, Held: decision == syncproto.DecideHold}
		if decision == syncproto.DecideSend {
			for _, run := range s.runs(l, e, r.After) {
				size := 0
				for _, ch := range run {
					size += len(ch.PK) + ch.Val.Size() + 16
				}
				if changes > 0 && (changes+len(run) > r.MaxChanges || bytes+size > r.MaxBytes) {
					if len(out.Changes) > 0 {
						result.Entries = append(result.Entries, out)
					}
					return result
				}
				out.Changes = append(out.Changes, run...)
				changes += len(run)
				bytes += size
				result.Next = syncproto.Position{L: l, Seq: run[0].Seq}
			}
		}
		if decision != syncproto.DecideSkip && (out.Held || len(out.Changes) > 0) {
			result.Entries = append(result.Entries, out)
		}
		result.Next = whole
	}
	result.End = true
	return result
}

// runs returns the changes of an entry behind after, in runs of equal sequence numbers.
func (s *Store) runs(l int64, e *entry, after syncproto.Position) [][]changeset.Change {
	var changes []changeset.Change
	for key := range e.keys {
		if c := s.cells[key]; after.Compare(syncproto.Position{L: l, Seq: c.seq}) < 0 {
			changes = append(changes, change(key, c))
		}
	}
	slices.SortFunc(changes, func(a, b changeset.Change) int {
		return cmp.Or(cmp.Compare(a.Seq, b.Seq), slices.Compare(a.PK, b.PK))
	})
	var out [][]changeset.Change
	for len(changes) > 0 {
		n := 1
		for n < len(changes) && changes[n].Seq == changes[0].Seq {
			n++
		}
		out, changes = append(out, changes[:n:n]), changes[n:]
	}
	return out
}

func (s *Store) count(after syncproto.Position) int64 {
	n := int64(0)
	for _, c := range s.cells {
		if after.Compare(syncproto.Position{L: c.l, Seq: c.seq}) < 0 {
			n++
		}
	}
	return n
}

func change(key string, c cell) changeset.Change {
	pk, err := changeset.AppendPacked(nil, []changeset.Value{changeset.TextString(key)})
	if err != nil {
		panic("a key of one value always packs")
	}
	return changeset.Change{
		Table: Table, PK: pk, CID: Column, Val: changeset.Integer(c.value), ColVersion: c.version, DBVersion: c.l,
		Site: c.site, CL: 1, Seq: c.seq,
	}
}
