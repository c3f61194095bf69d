package meshtest

import (
	"maps"

	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
)

// storeBackup is a Backup of a Store.
type storeBackup struct{ of, saved *Store }

// Backup implements Machine.
func (s *Store) Backup() Backup { return storeBackup{s, s.copy()} }

func (b storeBackup) Last() int64 { return b.saved.last }

func (b storeBackup) Restore() Database { return b.saved.copy() }

// Start implements Backup. Both are started: the first one's disk was copied while it was off.
func (b storeBackup) Start(string) Machine {
	b.of.mu.Lock()
	defer b.of.mu.Unlock()
	b.of.opened = b.saved.last
	return b.saved.copy()
}

// ForgetReached implements Machine.
func (s *Store) ForgetReached(site syncproto.SiteID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.resume, site)
}

func (s *Store) copy() *Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := NewStore(s.site)
	out.cells, out.order, out.last, out.own = maps.Clone(s.cells), append(out.order, s.order...), s.last, s.own
	out.vector, out.resume, out.opened = maps.Clone(s.vector), maps.Clone(s.resume), s.last
	for l, e := range s.entries {
		out.entries[l] = &entry{e.origin, e.version, maps.Clone(e.keys)}
	}
	return out
}

// Renew implements Machine. Own entries above the version at which it was opened are written anew, with versions that beat
// the old ones; unless again is false: then they only get another origin.
func (s *Store) Renew(site syncproto.SiteID, again bool) []Commit {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, certain := s.site, min(s.own, s.opened)
	s.site, s.own, s.resume = site, 0, map[syncproto.SiteID]int64{}
	var writes []Commit
	doubtful := map[string]bool{}
	for _, l := range s.order {
		e := s.entries[l]
		if e == nil || e.origin != old || e.version != l {
			continue
		}
		if l <= s.opened {
			certain = max(certain, l)
			continue
		}
		if e.origin = site; again {
			maps.Copy(doubtful, e.keys)
			continue
		}
		w := Commit{Version: l, Cells: map[string]Cell{}}
		for key := range e.keys {
			w.Cells[key] = Cell{s.cells[key].version, s.cells[key].value}
		}
		writes, s.own = append(writes, w), l
	}
	if len(doubtful) > 0 {
		s.last++
		s.own = s.last
		w := Commit{Version: s.last, Cells: map[string]Cell{}}
		for key := range doubtful {
			c := cell{version: s.cells[key].version + 1, value: s.cells[key].value, l: s.last, site: site}
			s.put(key, c, site, s.last)
			w.Cells[key] = Cell{c.version, c.value}
		}
		writes = append(writes, w)
	}
	if certain > 0 {
		s.vector[old] = max(s.vector[old], certain)
	}
	s.opened = s.last
	return writes
}
