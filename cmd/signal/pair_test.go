package main

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
	"github.com/crmesh/crmesh/pkg/mesh"
	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
	"github.com/crmesh/crmesh/pkg/signaling"
	"github.com/crmesh/crmesh/pkg/signaling/signalclient"
)

// pair is two mesh nodes with an open data channel between them, over which both ping each other.
type pair struct {
	t       *testing.T
	nodes   []*mesh.Node
	signals []*introducer
	said    int64     // descriptions that went between them when the channel was open
	bytes   [2]uint64 // that came over it at the last check
}

func newPair(t *testing.T, url string) *pair {
	t.Helper()
	keys, err := signaling.NewRoom(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p := &pair{t: t}
	for range 2 {
		client, err := signalclient.New(signalclient.Config{URLs: []string{url}, Keys: keys})
		if err != nil {
			t.Fatal(err)
		}
		s := &introducer{Client: client, events: make(chan mesh.SignalEvent), closed: make(chan struct{})}
		s.task.Go(s.translate)
		var site [16]byte
		_, _ = rand.Read(site[:]) // never fails
		store := emptyStore{site: syncproto.SiteID(site[:]), commits: make(chan struct{})}
		node, err := mesh.Start(t.Context(), mesh.Config{Store: store, Signaler: s, Peer: client.Peer(), Keys: keys})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = node.Close()
			close(s.closed)
			client.Close()
			s.task.Wait()
		})
		p.nodes, p.signals = append(p.nodes, node), append(p.signals, s)
	}
	poll(t, "the channel is open", func() bool {
		return len(p.status(0).Members) == 1 && p.status(0).Members[0].Live && len(p.status(1).Members) == 1 && p.status(1).Members[0].Live
	})
	p.said = p.descriptions()
	return p
}

func (p *pair) status(i int) mesh.Status {
	p.t.Helper()
	status, err := p.nodes[i].Status(context.Background())
	if err != nil {
		p.t.Fatal(err)
	}
	return status
}

// descriptions returns how many went through the server. A new channel, and a restart of ICE, takes some.
func (p *pair) descriptions() int64 {
	return p.signals[0].descriptions.Load() + p.signals[1].descriptions.Load()
}

// joined returns how often the two have joined.
func (p *pair) joined() int {
	return int(p.signals[0].joins.Load() + p.signals[1].joins.Load())
}

// check checks that the channel is the one that was there, and that something still comes over it.
func (p *pair) check() {
	p.t.Helper()
	for i := range p.nodes {
		poll(p.t, "something comes over the channel", func() bool {
			status := p.status(i)
			if len(status.Members) != 1 || !status.Members[0].Live || status.Connections != 1 || status.Members[0].BytesIn < p.bytes[i] {
				p.t.Fatalf("node %d: %d connections, members %+v", i, status.Connections, status.Members)
			}
			if status.Members[0].BytesIn == p.bytes[i] {
				return false
			}
			p.bytes[i] = status.Members[0].BytesIn
			return true
		})
	}
	if n := p.descriptions(); n != p.said {
		p.t.Fatalf("the channel was made again: %d descriptions, %d before", n, p.said)
	}
}

// introducer is a client as a node wants it. It counts.
type introducer struct {
	*signalclient.Client
	events              chan mesh.SignalEvent
	closed              chan struct{} // nobody reads events any more
	task                sync.WaitGroup
	joins, descriptions atomic.Int64
}

func (s *introducer) Events() <-chan mesh.SignalEvent { return s.events }

func (s *introducer) translate() {
	for e := range s.Client.Events() {
		var out mesh.SignalEvent
		switch e := e.(type) {
		case signalclient.Joined:
			s.joins.Add(1)
			out = mesh.Joined{Members: e.Members, ICEServers: e.ICEServers}
		case signalclient.MemberJoined:
			out = mesh.MemberJoined{Member: e.Member}
		case signalclient.MemberLeft:
			out = mesh.MemberLeft{Peer: e.Peer}
		case signalclient.Signal:
			s.descriptions.Add(1)
			out = mesh.Signal{From: e.From, Description: e.Description}
		case signalclient.Unreachable:
			out = mesh.Unreachable{Peer: e.Peer}
		case signalclient.Disconnected:
			out = mesh.Disconnected{Err: e.Err, RetryIn: e.RetryIn}
		}
		select {
		case s.events <- out:
		case <-s.closed:
		}
	}
}

// emptyStore is a database without tables.
type emptyStore struct {
	site    syncproto.SiteID
	commits chan struct{}
}

func (s emptyStore) State(context.Context) (mesh.State, error) { return mesh.State{Site: s.site}, nil }

func (emptyStore) Heads(context.Context) (mesh.Heads, error) { return mesh.Heads{}, nil }

func (emptyStore) Read(_ context.Context, r syncproto.ReadRequest) (syncproto.ReadResult, error) {
	return syncproto.ReadResult{ID: r.ID, Link: r.Link, Next: r.After, End: true}, nil
}

func (emptyStore) Apply(_ context.Context, r syncproto.ApplyRequest) (syncproto.ApplyResult, error) {
	return syncproto.ApplyResult{ID: r.ID, Ls: make([]int64, len(r.Groups)), Changed: make([]int64, len(r.Groups))}, nil
}

func (emptyStore) Digest(context.Context, syncproto.DigestRequest) (syncproto.DigestAnswer, error) {
	return syncproto.DigestAnswer{Kind: syncproto.DigestNoTable}, nil
}

func (emptyStore) Rows(context.Context, string, []changeset.Place, int) ([]syncproto.Entry, error) {
	return nil, nil
}

func (emptyStore) Schema(context.Context) ([]syncproto.TableSchema, error) { return nil, nil }

func (emptyStore) TakeSchema(context.Context, syncproto.SchemaRequest) error { return nil }

func (emptyStore) Parked(context.Context) (mesh.ParkedStatus, error) { return mesh.ParkedStatus{}, nil }

func (emptyStore) Replay(context.Context) error { return nil }

func (emptyStore) Renew(context.Context, string) error {
	return &mesh.NoRenewalError{Err: errors.New("there is no database")}
}

func (s emptyStore) Commits() <-chan struct{} { return s.commits }
