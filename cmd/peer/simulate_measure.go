package main

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
)

// maxSamples bounds the times from commit to visible that are kept; of more, a random choice stands for all.
const maxSamples = 1 << 17

// journal knows each write of a simulation: when it was committed, and which rows must be there at the end.
type journal struct {
	begun time.Time

	mu        sync.Mutex // guards the following
	random    *rand.Rand
	next      int64
	committed []time.Duration // since begun, by number of the write; 0: not yet, or never
	rows      []simRow        // inserted
	deleted   map[int64]bool  // somebody deleted the row, or tried to
	commits   int64

	visible         []time.Duration // samples
	visibleCount    int64
	visibleMax      time.Duration
	rowsReceived    int64
	rowsNeeded      int64
	changesReceived int64
	changesNeeded   int64
}

// simRow is a row that was inserted, and by which database.
type simRow struct {
	id    int64
	owner *simFile
}

// simFile is one database of a peer, through all times that it is open.
type simFile struct {
	path string
	seen []uint64 // bits: the writes that came from others. Guarded by the journal's mu
}

func newJournal(random *rand.Rand) *journal {
	return &journal{begun: time.Now(), random: random, committed: make([]time.Duration, 1), deleted: map[int64]bool{}}
}

// begin returns the number of a write, from 1.
func (j *journal) begin() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.next++
	j.committed = append(j.committed, 0)
	return j.next
}

// done notes that a write is durable.
func (j *journal) done(n int64, inserted bool, owner *simFile) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.committed[n] = max(time.Since(j.begun), 1)
	j.commits++
	if inserted {
		j.rows = append(j.rows, simRow{n, owner})
	}
}

// anyRow returns a row that was inserted, for a change; 0: there is none. It is no longer expected where it is to be deleted.
func (j *journal) anyRow(random *rand.Rand, forDelete bool) int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.rows) == 0 {
		return 0
	}
	id := j.rows[random.IntN(len(j.rows))].id
	if forDelete {
		j.deleted[id] = true
	}
	return id
}

// required returns the rows that must be in every database at the end: a database that lives on has them acknowledged, and
// nobody deleted them.
func (j *journal) required(alive map[*simFile]bool) []int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	var out []int64
	for _, r := range j.rows {
		if alive[r.owner] && !j.deleted[r.id] {
			out = append(out, r.id)
		}
	}
	return out
}

// applied notes what a database got from others. A write that was committed before the peer came counts for copies, and not
// for times.
func (j *journal) applied(db *simFile, came time.Duration, q syncproto.ApplyRequest, r syncproto.ApplyResult) {
	now := time.Since(j.begun)
	j.mu.Lock()
	defer j.mu.Unlock()
	for i, g := range q.Groups {
		n := numberOf(g.Group)
		first := n == 0 && r.Ls[i] != 0
		if n > 0 && n <= j.next {
			first = db.note(n)
			if committed := j.committed[n]; first && committed >= came {
				j.sample(now - committed)
			}
		}
		changes := int64(len(g.Changes))
		j.rowsReceived++
		j.changesReceived += changes
		if first {
			j.rowsNeeded++
			j.changesNeeded += changes
		}
	}
}

// numberOf returns the number of the write that a group brings; 0 for a deletion.
func numberOf(g syncproto.Group) int64 {
	for _, c := range g.Changes {
		if c.Table == simTable && c.CID == simNumber {
			return c.Val.Int64()
		}
	}
	return 0
}

// note marks a write as seen; it is true the first time.
func (db *simFile) note(n int64) bool {
	word, bit := int(n/64), uint64(1)<<(n%64)
	if word >= len(db.seen) {
		db.seen = append(db.seen, make([]uint64, word+1-len(db.seen))...)
	}
	if db.seen[word]&bit != 0 {
		return false
	}
	db.seen[word] |= bit
	return true
}

// sample keeps a time, or lets it take the place of another with the right probability.
func (j *journal) sample(d time.Duration) {
	j.visibleCount++
	j.visibleMax = max(j.visibleMax, d)
	if len(j.visible) < maxSamples {
		j.visible = append(j.visible, d)
	} else if i := j.random.Int64N(j.visibleCount); i < maxSamples {
		j.visible[i] = d
	}
}

// measuredStore tells the journal what comes from others.
type measuredStore struct {
	store
	journal *journal
	db      *simFile
	came    time.Duration
}

func (s measuredStore) Apply(ctx context.Context, q syncproto.ApplyRequest) (syncproto.ApplyResult, error) {
	r, err := s.store.Apply(ctx, q)
	if err == nil {
		s.journal.applied(s.db, s.came, q, r)
	}
	return r, err
}

// millis returns a percentile of the samples in milliseconds; 0 where there are none.
func millis(samples []time.Duration, percent int) float64 {
	if len(samples) == 0 {
		return 0
	}
	slices.Sort(samples)
	return inMillis(samples[len(samples)*percent/100])
}

func inMillis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
