package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/crmesh/crmesh/pkg/mesh"
	"github.com/crmesh/crmesh/pkg/signaling"
)

const (
	// simLook is the time between two comparisons of all databases, and simLookShare how much longer than a comparison it is.
	simLook      = 50 * time.Millisecond
	simLookShare = 3
)

// simulation is a run with all that is in it.
type simulation struct {
	simulateCommand
	dir     string
	log     *slog.Logger
	keys    signaling.Keys
	network *simNetwork
	server  *simServer
	journal *journal
	peers   []*simPeer
	writers int         // lives that wrote; of whoever starts peers
	fail    func(error) // ends the run for a reason that is none of its faults

	mu     sync.Mutex // guards the following
	faults faultCounts
	phase  string
	differ int // databases that were not equal to the first at the last look
}

// simulate runs c, with its databases in dir. progress gets a line each second. Nothing runs any more when it returns.
func simulate(ctx context.Context, c simulateCommand, dir string, log *slog.Logger,
	progress func(string)) (_ *simulationReport, err error) {
	base := measureFootprint()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s, err := newSimulation(ctx, c, dir, log, cancel)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	var shown sync.WaitGroup
	showing, hide := context.WithCancel(ctx)
	defer func() { hide(); shown.Wait() }()
	shown.Go(func() { s.show(showing, progress) })
	report, err := s.run(ctx, base)
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, context.Canceled):
		return nil, errors.New("the simulation was interrupted")
	case cause != nil:
		return nil, cause
	}
	return report, err
}

// newSimulation makes a network and a signaling server for peers that do not run yet. fail ends it for a reason.
func newSimulation(ctx context.Context, c simulateCommand, dir string, log *slog.Logger,
	fail func(error)) (_ *simulation, err error) {
	s := &simulation{simulateCommand: c, dir: dir, log: log, fail: fail, phase: "linking"}
	s.journal = newJournal(s.random(streamJournal))
	for i := range c.Peers {
		s.peers = append(s.peers, &simPeer{index: i})
	}
	if s.keys, err = signaling.NewRoom(rand.Reader); err != nil {
		return nil, err
	}
	if s.network, err = newSimNetwork(c.Peers, c.Loss/100, c.Delay, s.random(streamNetwork)); err != nil {
		return nil, fmt.Errorf("there is no virtual network: %w", err)
	}
	if s.server, err = newSimServer(ctx, c.Peers, log); err != nil {
		return nil, errors.Join(err, s.network.close())
	}
	return s, nil
}

// close ends all that runs.
func (s *simulation) close() error {
	var all sync.WaitGroup
	for _, p := range s.peers {
		if l := p.now(); l != nil {
			all.Go(l.end)
		}
	}
	all.Wait()
	s.server.stop()
	return s.network.close()
}

// run is a simulation from the first peer to the report.
func (s *simulation) run(ctx context.Context, base footprint) (*simulationReport, error) {
	for _, p := range s.peers {
		if err := s.start(ctx, p); err != nil {
			return nil, fmt.Errorf("%s does not start: %w", p.name(), err)
		}
	}
	if err := s.together(ctx); err != nil {
		return nil, err
	}
	begun := time.Now()
	s.wreak(ctx)
	if ctx.Err() != nil { // a peer may be missing
		return nil, ctx.Err()
	}
	wrote := time.Since(begun)
	s.setPhase("settling")
	took, equal, err := s.settle(ctx)
	if err != nil {
		return nil, err
	}
	s.setPhase("measuring")
	report, err := s.report(ctx, base)
	if err != nil {
		return nil, err
	}
	report.Equal, report.SettleSeconds, report.WriteSeconds = equal, took.Seconds(), wrote.Seconds()
	return report, nil
}

// together waits until each peer has a link, and nothing to send or receive.
func (s *simulation) together(ctx context.Context) error {
	waiting, cancel := context.WithTimeout(ctx, s.Settle)
	defer cancel()
	for _, p := range s.peers {
		_, err := p.now().node.Wait(waiting, mesh.Condition{Links: 1, Synced: true})
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			return fmt.Errorf("%w within %v: %s has no link that is in sync; give them longer with --settle, or lose fewer packets", errNotReady, s.Settle, p.name())
		}
		if err != nil {
			return fmt.Errorf("%w within %v: %s has no link that is in sync: %w", errNotReady, s.Settle, p.name(), err)
		}
	}
	return nil
}

// wreak lets all peers write for the duration, with all faults that were asked for, and returns when all is healed.
func (s *simulation) wreak(ctx context.Context) {
	s.setPhase("writing")
	writing, stop := context.WithTimeout(ctx, s.Duration)
	defer stop()
	for _, p := range s.peers {
		s.write(writing, p)
	}
	var faults sync.WaitGroup
	if s.Partition > 0 {
		faults.Go(func() { s.partitions(writing) })
	}
	if s.RestartSignal {
		faults.Go(func() { s.restarts(writing) })
	}
	if s.Churn {
		faults.Go(func() { s.churn(writing) })
	}
	<-writing.Done()
	faults.Wait()
	for _, p := range s.peers {
		if l := p.now(); l != nil {
			l.writer.Wait()
		}
	}
}

// settle waits until all databases are equal, and says how long that took.
func (s *simulation) settle(ctx context.Context) (took time.Duration, equal bool, err error) {
	begun := time.Now()
	digests := make([]knownDigest, len(s.peers))
	for {
		look := time.Now()
		differ := 0
		for i, p := range s.peers {
			if err := digests[i].refresh(ctx, p.now()); err != nil {
				return 0, false, fmt.Errorf("%s cannot be compared: %w", p.name(), err)
			}
			if digests[i].sum != digests[0].sum {
				differ++
			}
		}
		s.mu.Lock()
		s.differ = differ
		s.mu.Unlock()
		if differ == 0 {
			return look.Sub(begun), true, nil
		}
		if time.Since(begun) > s.Settle {
			return time.Since(begun), false, nil
		}
		pause(ctx, max(simLook, simLookShare*time.Since(look)))
	}
}

// knownDigest is the digest of a database at one of its local versions.
type knownDigest struct {
	newest int64
	known  bool
	sum    [32]byte
}

// refresh reads the database again if it has changed.
func (d *knownDigest) refresh(ctx context.Context, l *life) error {
	heads, err := l.replica.Heads(ctx)
	if err != nil || d.known && d.newest == heads.Newest {
		return err
	}
	if d.sum, err = l.digest(ctx); err == nil {
		d.newest, d.known = heads.Newest, true
	}
	return err
}

// report collects all figures but those of time.
func (s *simulation) report(ctx context.Context, base footprint) (*simulationReport, error) {
	now := measureFootprint()
	alive := map[*simFile]bool{}
	for _, p := range s.peers {
		alive[p.db] = true
	}
	required := s.journal.required(alive)
	r := &simulationReport{Seed: s.Seed, Peers: s.Peers}
	for i, p := range s.peers {
		lost, rows, err := p.now().lost(ctx, required)
		if err != nil {
			return nil, err
		}
		r.LostRows, r.Rows = max(r.LostRows, lost), rows
		status, err := p.now().node.Status(ctx)
		if err != nil {
			return nil, err
		}
		links := liveLinks(status)
		r.Links.Mean += float64(links) / float64(s.Peers)
		r.Links.Max = max(r.Links.Max, links)
		if i == 0 || links < r.Links.Min {
			r.Links.Min = links
		}
	}
	packets, peers := s.network.counts(), int64(s.Peers)
	j := s.journal
	j.mu.Lock()
	defer j.mu.Unlock()
	r.Commits, r.RowsReceived, r.RowsNeeded, r.Changes = j.commits, j.rowsReceived, j.rowsNeeded, j.changesNeeded
	r.Visible = visibleReport{j.visibleCount, millis(j.visible, 50), millis(j.visible, 99), inMillis(j.visibleMax)}
	r.Bytes = packets.Bytes
	r.CopiesPerRow = float64(r.RowsReceived) / float64(max(r.RowsNeeded, 1))
	r.BytesPerChange = float64(r.Bytes) / float64(max(r.Changes, 1))
	r.HeapPerPeer = (now.heap - base.heap) / peers
	r.ResidentPerPeer = max(now.resident-base.resident, 0) / peers
	r.Goroutines = float64(now.goroutines-base.goroutines) / float64(peers)
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.faults
	r.Faults = simulationFaults{packets.Lost, f.partitions, packets.Cut, f.restarts, f.kills, f.newDatabases}
	return r, nil
}

func liveLinks(status mesh.Status) int {
	n := 0
	for _, m := range status.Members {
		if m.Live {
			n++
		}
	}
	return n
}

func (s *simulation) setPhase(phase string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.phase = phase
}

// show tells each second how far the simulation is, until ctx ends. It ends the simulation where a peer has stopped by itself.
func (s *simulation) show(ctx context.Context, progress func(string)) {
	begun := time.Now()
	for pause(ctx, time.Second) {
		up, links := 0, 0
		for _, p := range s.peers {
			l := p.now()
			if l == nil {
				continue
			}
			status, err := l.node.Status(ctx)
			if err != nil {
				if broken := l.node.Err(); broken != nil {
					s.fail(fmt.Errorf("%s stopped: %w", p.name(), broken))
				}
				continue
			}
			up++
			links += liveLinks(status)
		}
		s.journal.mu.Lock()
		commits := s.journal.commits
		s.journal.mu.Unlock()
		s.mu.Lock()
		line := fmt.Sprintf("%3.0f s  %-9s  %d peers, %d links, %d commits; %d packets lost, %d kills",
			time.Since(begun).Seconds(), s.phase, up, links/2, commits, s.network.counts().Lost, s.faults.kills)
		if s.faults.partition != "" {
			line += "; partition " + s.faults.partition
		}
		if s.faults.serverDown {
			line += "; the signaling server is down"
		}
		if s.differ > 0 {
			line += fmt.Sprintf("; %d databases differ from the first", s.differ)
		}
		s.mu.Unlock()
		progress(line)
	}
}

// footprint is what the process holds, in bytes.
type footprint struct {
	heap       int64 // of Go, with stacks
	resident   int64 // in all; 0: the system does not tell
	goroutines int
}

func measureFootprint() footprint {
	debug.FreeOSMemory() // collects, too
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	out := footprint{heap: int64(m.HeapAlloc + m.StackInuse), goroutines: runtime.NumGoroutine()}
	b, err := os.ReadFile("/proc/self/statm")
	if fields := strings.Fields(string(b)); err == nil && len(fields) > 1 {
		pages, _ := strconv.ParseInt(fields[1], 10, 64)
		out.resident = pages * int64(os.Getpagesize())
	}
	return out
}
