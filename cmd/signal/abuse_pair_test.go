//go:build linux

package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/crmesh/crmesh/pkg/signaling"
	"github.com/crmesh/crmesh/pkg/signaling/signalclient"
)

// pairInterval is the time between the envelopes of the pair in one direction: less than half of what it may send.
const pairInterval = 25 * time.Millisecond

// behaved is two members of a room who behave, and whom no attack may hurt.
type behaved struct {
	t       testing.TB
	clients [2]*signalclient.Client
	wg      sync.WaitGroup
	stop    context.CancelFunc

	mu        sync.Mutex // guards the following
	joins     int
	next      uint64               // number of the next envelope
	under     map[uint64]time.Time // envelopes that were sent and have not arrived
	took      []time.Duration      // of those that have arrived
	incidents []string             // what must not happen
}

func newBehaved(t testing.TB, url string) *behaved {
	t.Helper()
	keys, err := signaling.NewRoom(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	p := &behaved{t: t, stop: stop, under: map[uint64]time.Time{}}
	for i := range p.clients {
		c, err := signalclient.New(signalclient.Config{URLs: []string{url}, Keys: keys})
		if err != nil {
			t.Fatal(err)
		}
		p.clients[i] = c
		p.wg.Go(func() { p.watch(c) })
	}
	t.Cleanup(func() {
		stop()
		for _, c := range p.clients {
			c.Close()
		}
		p.wg.Wait()
	})
	poll(t, "the pair", func() bool {
		return len(p.clients[0].Members()) == 1 && len(p.clients[1].Members()) == 1
	})
	p.wg.Go(func() { p.talk(ctx) })
	return p
}

func (p *behaved) watch(c *signalclient.Client) {
	for e := range c.Events() {
		now := time.Now()
		p.mu.Lock()
		switch e := e.(type) {
		case signalclient.Joined:
			p.joins++
		case signalclient.MemberJoined:
		case signalclient.Signal:
			sent, ok := p.under[e.Description.Session]
			if !ok {
				p.incidents = append(p.incidents, fmt.Sprintf("envelope %d came twice", e.Description.Session))
			}
			delete(p.under, e.Description.Session)
			p.took = append(p.took, now.Sub(sent))
		default:
			p.incidents = append(p.incidents, fmt.Sprintf("%T %+v", e, e))
		}
		p.mu.Unlock()
	}
}

// talk sends an envelope in each direction, time and again.
func (p *behaved) talk(ctx context.Context) {
	tick := time.NewTicker(pairInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for i, c := range p.clients {
			p.mu.Lock()
			p.next++
			n := p.next
			p.under[n] = time.Now()
			p.mu.Unlock()
			if err := c.Send(p.clients[1-i].Peer(), signaling.Description{Kind: signaling.KindWant, Session: n}); err != nil {
				p.mu.Lock()
				p.incidents = append(p.incidents, fmt.Sprintf("envelope %d cannot be sent: %v", n, err))
				p.mu.Unlock()
			}
		}
	}
}

// arrived waits until all envelopes that have been sent so far have arrived.
func (p *behaved) arrived() {
	p.t.Helper()
	p.mu.Lock()
	until := p.next
	p.mu.Unlock()
	poll(p.t, "the envelopes of the pair", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		for n := range p.under {
			if n <= until {
				return false
			}
		}
		return true
	})
}

// unhurt proves that the pair has lost nothing, and has the connections that it had.
func (p *behaved) unhurt() {
	p.t.Helper()
	p.arrived()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.joins != len(p.clients) {
		p.t.Errorf("the two have joined %d times", p.joins)
	}
	for _, incident := range p.incidents {
		p.t.Error(incident)
	}
}
