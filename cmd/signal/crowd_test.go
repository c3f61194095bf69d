package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/crmesh/crmesh/pkg/signaling"
	"github.com/crmesh/crmesh/pkg/signaling/signalclient"
)

// crowd is the members of one room while servers come and go, and what happened to them.
type crowd struct {
	t       *testing.T
	members []*signalclient.Client
	wg      sync.WaitGroup
	stop    context.CancelFunc
	ctx     context.Context
	since   time.Time
	pause   time.Duration // between two envelopes of a member
	session atomic.Uint64 // the number of the last envelope, each has its own

	mu        sync.Mutex                   // guards the following
	joins     map[*signalclient.Client]int // times that it joined
	sent      map[uint64]struct{}          // envelopes that the client took
	got       map[uint64]int               // envelopes, and how often they came
	lost      int                          // connections that a server closed, or that broke
	incidents []string                     // what must not happen
}

// newCrowd starts n members, who join in their own time.
func newCrowd(t *testing.T, n int, url string, pause time.Duration) *crowd {
	t.Helper()
	keys, err := signaling.NewRoom(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	c := &crowd{t: t, since: time.Now(), ctx: ctx, stop: stop, pause: pause, joins: map[*signalclient.Client]int{}, sent: map[uint64]struct{}{}, got: map[uint64]int{}}
	for range n {
		client, err := signalclient.New(signalclient.Config{URLs: []string{url}, Keys: keys})
		if err != nil {
			t.Fatal(err)
		}
		c.members = append(c.members, client)
		c.wg.Go(func() { c.watch(client) })
	}
	t.Cleanup(func() {
		stop()
		var closing sync.WaitGroup
		for _, client := range c.members {
			closing.Go(client.Close)
		}
		closing.Wait()
		c.wg.Wait()
	})
	return c
}

// talk lets each member send envelopes to the others, until judge.
func (c *crowd) talk() {
	for i := range c.members {
		c.wg.Go(func() { c.speak(i) })
	}
}

// watch notes what a client reports, to its end.
func (c *crowd) watch(client *signalclient.Client) {
	for e := range client.Events() {
		c.mu.Lock()
		switch e := e.(type) {
		case signalclient.Joined:
			c.joins[client]++
		case signalclient.Signal:
			c.got[e.Description.Session]++
		case signalclient.Disconnected: // whoever moves in time is not lost, nor closed by the server
			if c.lost++; c.ctx.Err() == nil {
				c.t.Logf("after %v %v lost its connection: %v", time.Since(c.since).Round(time.Millisecond), client.Peer(), e.Err)
			}
		case signalclient.MemberLeft:
			c.incidents = append(c.incidents, fmt.Sprintf("%v was told that %v left", client.Peer(), e.Peer))
		}
		c.mu.Unlock()
	}
}

// speak sends an envelope to one member after the other.
func (c *crowd) speak(i int) {
	tick := time.NewTicker(c.pause)
	defer tick.Stop()
	for to := i + 1; ; to++ {
		select {
		case <-c.ctx.Done():
			return
		case <-tick.C:
		}
		other := c.members[to%len(c.members)]
		if other == c.members[i] {
			continue
		}
		n := c.session.Add(1)
		if c.members[i].Send(other.Peer(), signaling.Description{Kind: signaling.KindWant, Session: n}) == nil {
			c.mu.Lock()
			c.sent[n] = struct{}{}
			c.mu.Unlock()
		}
	}
}

// all tells whether every client has joined so often and knows all others.
func (c *crowd) all(joins int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, client := range c.members {
		if c.joins[client] < joins || len(client.Members()) != len(c.members)-1 {
			return false
		}
	}
	return true
}

func (c *crowd) await(what string, done func() bool) {
	c.t.Helper()
	poll(c.t, what, done)
}

// joined returns how often members have joined.
func (c *crowd) joined() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, joins := range c.joins {
		n += joins
	}
	return n
}

// heard returns how many envelopes above a number came.
func (c *crowd) heard(from uint64) (fresh int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n := range c.got {
		if n > from {
			fresh++
		}
	}
	return fresh
}

// judge ends the talk and says what was wrong: an envelope that came twice, or an incident.
func (c *crowd) judge() (sent, got, lost int) {
	c.t.Helper()
	c.stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	for n, times := range c.got {
		if times != 1 {
			c.t.Errorf("envelope %d came %d times", n, times)
		}
	}
	for _, incident := range c.incidents {
		c.t.Error(incident)
	}
	return len(c.sent), len(c.got), c.lost
}
