package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// What TestSoak does unless CRMESH_SOAK, a duration, asks for more: so that it fits among the other tests.
const (
	soakShort      = 7 * time.Second
	soakPeersShort = 3
	soakPeersLong  = 8
)

// The pace of a soak.
const (
	soakPace  = 60 * time.Millisecond   // between two writes of one peer, on average
	soakKills = 900 * time.Millisecond  // between two kills, on average
	soakDown  = 1200 * time.Millisecond // how long a peer that was killed stays away, on average
	soakBatch = 25                      // rows of a batch, which is one statement
	soakEqual = 3 * time.Minute         // how long the databases may take to become equal
)

const soakSQL = `CREATE TABLE mark (id TEXT PRIMARY KEY NOT NULL, n INTEGER);
CREATE TABLE batch (id TEXT PRIMARY KEY NOT NULL, n INTEGER);
CREATE TABLE counter (id TEXT PRIMARY KEY NOT NULL, n INTEGER);
CREATE TABLE note (id TEXT PRIMARY KEY NOT NULL, body TEXT, n INTEGER);
SELECT crsql_as_crr('mark'); SELECT crsql_as_crr('batch'); SELECT crsql_as_crr('counter'); SELECT crsql_as_crr('note');
`

var soakTables = []string{"mark", "batch", "counter", "note"}

// soakPeer is a peer that is killed now and then, and what was acknowledged to the one who writes at it. Ids of rows begin with
// the peer's letter.
type soakPeer struct {
	letter string
	now    atomic.Pointer[replica] // nil while it is down

	// Used by the writer, and by the test when that has ended.
	random    *rand.Rand
	next      int
	marks     map[string]bool // acknowledged; false: to be deleted, and whether it was is not known
	gone      []string        // whose delete was acknowledged
	batches   []string        // acknowledged
	counter   int             // acknowledged
	committed int
	failed    error
}

// TestSoak: peers that write are killed at any instant and started again. No acknowledged commit is lost, a statement is
// there as a whole or not at all, and in the end all databases are equal, rows and clocks, and verify says so.
func TestSoak(t *testing.T) {
	t.Parallel()
	length, count := soakShort, soakPeersShort
	if s := os.Getenv("CRMESH_SOAK"); s != "" {
		var err error
		if length, err = time.ParseDuration(s); err != nil || length <= 0 {
			t.Fatalf("CRMESH_SOAK is %q, and no duration like 20m", s)
		}
		count = soakPeersLong
	}
	seed := rand.Uint64()
	t.Logf("%d peers for %v, seed %d", count, length, seed)
	l := newLab(t)
	server := l.signal()
	schema := l.file("soak.sql", soakSQL)
	peers := make([]*soakPeer, count)
	for i := range peers {
		p := &soakPeer{letter: string(rune('a' + i)), marks: map[string]bool{}, random: rand.New(rand.NewPCG(seed, uint64(i)))}
		r := l.peer(p.letter, l.write, "--schema", schema)
		p.now.Store(r)
		peers[i] = p
	}
	peers[0].now.Load().synced(count - 1)
	var writers sync.WaitGroup
	writing, stop := context.WithCancel(t.Context())
	defer writers.Wait()
	defer stop()
	for _, p := range peers {
		writers.Go(func() { p.write(writing) })
	}
	s := &soak{t: t, lab: l, server: server, peers: peers, random: rand.New(rand.NewPCG(seed, 1<<32))}
	s.run(length)
	stop()
	writers.Wait()
	for _, p := range peers {
		if p.failed != nil {
			t.Fatalf("a write at %s: %v", p.letter, p.failed)
		}
	}
	begun := time.Now()
	s.startAll()
	took := s.untilEqual(begun)
	committed := s.checkAcknowledged()
	for _, p := range peers {
		r := p.now.Load()
		r.synced(count - 1)
		// Of the room's members some are processes that were killed lately: they cannot be asked.
		out, err := l.try("verify", "--api", r.api)
		if !strings.HasPrefix(out, fmt.Sprintf("identical on %d of ", count-1)) || err != nil && exitCode(err) != exitUnproved {
			t.Errorf("verify at %s: %v, %s", p.letter, err, out)
		}
	}
	t.Logf("%d kills of peers, %d of the signaling server; %d commits acknowledged; equal %v after the last start",
		s.kills, s.serverKills, committed, took.Round(time.Millisecond))
	if s.kills == 0 || committed < 10*count {
		t.Errorf("that is no soak: %d kills, %d commits", s.kills, committed)
	}
}

// write writes at p until ctx is done, as one program would, whenever p is there.
func (p *soakPeer) write(ctx context.Context) {
	for ctx.Err() == nil && p.failed == nil {
		if r := p.now.Load(); r != nil {
			p.failed = p.writeOnce(r)
		}
		select {
		case <-time.After(time.Duration(p.random.Int64N(int64(2 * soakPace)))):
		case <-ctx.Done():
		}
	}
}

func (p *soakPeer) writeOnce(r *replica) error {
	p.next++
	n := strconv.Itoa(p.next)
	id := fmt.Sprintf("%s%06d", p.letter, p.next)
	var acknowledge func()
	var err error
	switch p.random.IntN(10) {
	case 0: // one statement, many rows
		err = r.tryExec(`WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i WHERE n < ?2)
			INSERT INTO batch SELECT ?1 || '-' || n, n FROM i`, id, strconv.Itoa(soakBatch))
		acknowledge = func() { p.batches = append(p.batches, id) }
	case 1, 2, 3:
		err = r.tryExec("INSERT INTO counter VALUES (?1, ?2) ON CONFLICT DO UPDATE SET n = excluded.n", p.letter, n)
		acknowledge = func() { p.counter = p.next }
	case 4: // what everybody writes
		id := "text:" + strconv.Itoa(p.random.IntN(30))
		if p.random.IntN(3) == 0 {
			err = r.tryExec("DELETE FROM note WHERE id = ?", id)
		} else {
			err = r.tryExec("INSERT INTO note VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET body = excluded.body, n = n + 1", id, p.letter+n, n)
		}
		acknowledge = func() {}
	case 5:
		for old, there := range p.marks {
			if there {
				p.marks[old] = false // the answer may get lost
				err = r.tryExec("DELETE FROM mark WHERE id = ?", old)
				acknowledge = func() { p.gone = append(p.gone, old) }
				break
			}
		}
		if acknowledge == nil {
			return nil
		}
	default:
		err = r.tryExec("INSERT INTO mark VALUES (?1, ?2)", id, n)
		acknowledge = func() { p.marks[id] = true }
	}
	if err == nil {
		p.committed++
		acknowledge()
		return nil
	}
	var gone *errUnreachable
	if errors.As(err, &gone) {
		return nil // killed, or not there yet
	}
	return err
}

// soak kills the processes of a lab and starts them again.
type soak struct {
	t                  *testing.T
	lab                *lab
	server             *process
	peers              []*soakPeer
	random             *rand.Rand
	down               map[*soakPeer]time.Time // when it is to be started
	kills, serverKills int
}

func (s *soak) run(length time.Duration) {
	s.down = map[*soakPeer]time.Time{}
	kill := time.Now()
	for end := time.Now().Add(length); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		for p, at := range s.down {
			if time.Now().After(at) {
				s.start(p)
			}
		}
		if time.Now().Before(kill) {
			s.mustRun()
			continue
		}
		kill = time.Now().Add(time.Duration(s.random.Int64N(int64(2 * soakKills))))
		if s.random.IntN(20) == 0 {
			s.server.kill()
			s.serverKills++
			s.server = s.lab.signal()
		}
		// Also one that has only just been started, and more than one.
		for range 1 + s.random.IntN(2) {
			p := s.peers[s.random.IntN(len(s.peers))]
			if r := p.now.Load(); r != nil {
				p.now.Store(nil)
				r.quiet = true
				r.kill()
				s.kills++
				s.down[p] = time.Now().Add(time.Duration(s.random.Int64N(int64(2 * soakDown))))
			}
		}
	}
}

// start starts a peer without waiting for it.
func (s *soak) start(p *soakPeer) {
	delete(s.down, p)
	p.now.Store(s.lab.begin(p.letter, s.lab.write))
}

func (s *soak) startAll() {
	for _, p := range s.peers {
		if p.now.Load() == nil {
			s.start(p)
		}
	}
	for _, p := range s.peers {
		s.lab.ok("wait", "--api", p.now.Load().api, "--timeout", patience.String())
	}
}

// mustRun looks whether a peer has ended by itself.
func (s *soak) mustRun() {
	for _, p := range s.peers {
		r := p.now.Load()
		if r == nil {
			continue
		}
		select {
		case err := <-r.end:
			r.end <- err
			if !strings.Contains(r.out.String(), "--api") { // another program took the port
				s.t.Fatalf("%s ended by itself: %v\n%s", p.letter, err, r.out)
			}
			s.start(p)
		default:
		}
	}
}

// untilEqual waits until all peers hold the same, and returns how long that took.
func (s *soak) untilEqual(begun time.Time) time.Duration {
	for {
		s.mustRun()
		took := time.Since(begun)
		first, same := s.content(s.peers[0]), true
		for _, p := range s.peers[1:] {
			same = same && s.content(p) == first
		}
		if same {
			s.t.Logf("each holds %s", first)
			return took
		}
		if took > soakEqual {
			for _, p := range s.peers {
				s.t.Logf("%s holds %s", p.letter, s.content(p))
			}
			s.t.Fatalf("after %v the databases still differ", soakEqual)
		}
	}
}

// content hashes what a peer holds, as its API tells it: all rows, and their clocks without what is local to a database.
// Nor is a clock's site looked at: where two sites wrote one value, each may keep its own.
func (s *soak) content(p *soakPeer) string {
	h := sha256.New()
	lines := 0
	add := func(sql string, args ...string) {
		text := p.now.Load().query(sql, args...)
		if text != "" {
			lines += 1 + strings.Count(text, "\n")
		}
		fmt.Fprintln(h, text)
	}
	for _, table := range soakTables {
		for part := range 4 { // an answer has at most 64 MB
			where := fmt.Sprintf(" WHERE length(id) %% 2 = %d AND unicode(substr(id, -1)) %% 2 = %d", part/2, part%2)
			add("SELECT * FROM " + table + where + " ORDER BY id")
		}
		for part := range 2 {
			add(`SELECT hex(pk), cid, quote(val), typeof(val), col_version, cl FROM crsql_changes
				WHERE "table" = ? AND unicode(substr(hex(pk), -1)) % 2 = ? ORDER BY 1, 2`, table, strconv.Itoa(part))
		}
	}
	return fmt.Sprintf("%d rows and clocks, %x", lines, h.Sum(nil)[:8])
}

// checkAcknowledged compares what was acknowledged with what is there, and returns how many commits that was.
func (s *soak) checkAcknowledged() (committed int) {
	read := func(sql string) map[string]int {
		rows := map[string]int{}
		for line := range strings.Lines(s.peers[0].now.Load().query(sql)) {
			var id string
			var n int
			if _, err := fmt.Sscanf(line, "%q %d", &id, &n); err != nil {
				s.t.Fatalf("a row %q: %v", line, err)
			}
			rows[id] = n
		}
		return rows
	}
	marks, counters := read("SELECT id, n FROM mark"), read("SELECT id, n FROM counter")
	batches := read("SELECT substr(id, 1, 7), count(*) FROM batch GROUP BY 1")
	for id, n := range batches {
		if n != soakBatch {
			s.t.Errorf("of the statement that inserted %s %d rows are there, not %d", id, n, soakBatch)
		}
	}
	for _, p := range s.peers {
		committed += p.committed
		for id, acknowledged := range p.marks {
			if _, there := marks[id]; acknowledged && !there {
				s.t.Errorf("the acknowledged row %s is lost", id)
			}
		}
		for _, id := range p.gone {
			if _, there := marks[id]; there {
				s.t.Errorf("the row %s is back, though its delete was acknowledged", id)
			}
		}
		for _, id := range p.batches {
			if batches[id] == 0 {
				s.t.Errorf("the acknowledged rows of %s are lost", id)
			}
		}
		if n := counters[p.letter]; n < p.counter || n > p.next {
			s.t.Errorf("the counter of %s is at %d; %d was acknowledged and %d is the last that was tried", p.letter, n, p.counter, p.next)
		}
	}
	return committed
}
