package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// faultCounts are the faults that a simulation has made, besides the network's.
type faultCounts struct {
	partitions, restarts, kills, newDatabases int
	partition                                 string // the one that goes on; "": none
	serverDown                                bool
}

// Streams of random numbers, so that one kind of fault does not change the instants of another.
const (
	streamNetwork = iota
	streamJournal
	streamPartition
	streamServer
	streamChurn
	streamWriters // and above: one for each life of a peer
)

func (s *simulation) random(stream int) *rand.Rand {
	return rand.New(rand.NewPCG(s.Seed, uint64(stream)))
}

// about returns a time from half of d to one and a half.
func about(random *rand.Rand, d time.Duration) time.Duration {
	return d/2 + time.Duration(random.Int64N(int64(d)+1))
}

func (s *simulation) note(f func(*faultCounts)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.faults)
}

// partitions splits the network again and again until ctx is done, and leaves it whole.
func (s *simulation) partitions(ctx context.Context) {
	random := s.random(streamPartition)
	defer func() {
		s.network.heal()
		s.note(func(f *faultCounts) { f.partition = "" })
	}()
	for pause(ctx, about(random, s.Every)) {
		first := s.network.partition(random)
		s.note(func(f *faultCounts) {
			f.partitions++
			f.partition = fmt.Sprintf("%d + %d", first, s.Peers-first)
		})
		s.log.Info("partition", "peers", first)
		pause(ctx, s.Partition)
		s.network.heal()
		s.note(func(f *faultCounts) { f.partition = "" })
		s.log.Info("no partition")
	}
}

// restarts stops the signaling server for a while, again and again until ctx is done, and leaves it running.
func (s *simulation) restarts(ctx context.Context) {
	random := s.random(streamServer)
	for pause(ctx, about(random, s.Every)) {
		s.server.stop()
		s.note(func(f *faultCounts) { f.restarts++; f.serverDown = true })
		pause(ctx, about(random, s.Every/2))
		if err := s.server.start(context.WithoutCancel(ctx)); err != nil {
			s.fail(err)
			return
		}
		s.note(func(f *faultCounts) { f.serverDown = false })
	}
}

// churn kills one peer after another and brings them back, the first and each third after it with a new database, until ctx
// is done; at least half of the peers are up at any time. It leaves all up.
func (s *simulation) churn(ctx context.Context) {
	random := s.random(streamChurn)
	type absence struct {
		peer *simPeer
		back time.Time
	}
	var down []absence
	next := time.Now().Add(about(random, s.Every))
	for {
		at := next
		for _, d := range down {
			if d.back.Before(at) {
				at = d.back
			}
		}
		over := !pause(ctx, time.Until(at))
		down = slices.DeleteFunc(down, func(d absence) bool {
			if !over && time.Now().Before(d.back) {
				return false
			}
			s.returns(ctx, d.peer)
			return true
		})
		if over {
			return
		}
		if time.Now().Before(next) {
			continue
		}
		next = time.Now().Add(about(random, s.Every))
		if len(down) >= s.Peers/2 {
			continue
		}
		p := s.peers[random.IntN(s.Peers)]
		for p.now() == nil {
			p = s.peers[random.IntN(s.Peers)]
		}
		down = append(down, absence{p, time.Now().Add(about(random, s.Every))})
		s.kills(p)
	}
}

func (s *simulation) kills(p *simPeer) {
	forget := false
	s.note(func(f *faultCounts) {
		f.kills++
		if forget = f.kills%3 == 1; forget {
			f.newDatabases++
		}
	})
	s.log.Info("killed", "peer", p.name(), "new database", forget)
	if err := s.kill(p, forget); err != nil {
		s.fail(fmt.Errorf("the database of %s cannot be removed: %w", p.name(), err))
	}
}

// returns brings a peer back, also when the writing is over.
func (s *simulation) returns(writing context.Context, p *simPeer) {
	if err := s.start(context.WithoutCancel(writing), p); err != nil {
		s.fail(fmt.Errorf("%s does not start again: %w", p.name(), err))
		return
	}
	s.write(writing, p)
	s.log.Info("is back", "peer", p.name())
}
