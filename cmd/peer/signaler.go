package main

import (
	"context"
	"sync"

	"github.com/crmesh/crmesh/pkg/mesh"
	"github.com/crmesh/crmesh/pkg/signaling"
	"github.com/crmesh/crmesh/pkg/signaling/signalclient"
)

// signaler is a signalclient.Client as the mesh wants it.
type signaler struct {
	client *signalclient.Client
	events chan mesh.SignalEvent
	wg     sync.WaitGroup
	stop   context.CancelFunc
}

func newSignaler(client *signalclient.Client) *signaler {
	ctx, stop := context.WithCancel(context.Background())
	s := &signaler{client: client, events: make(chan mesh.SignalEvent), stop: stop}
	s.wg.Go(func() { s.translate(ctx) })
	return s
}

func (s *signaler) Events() <-chan mesh.SignalEvent { return s.events }

func (s *signaler) Send(to signaling.PeerID, d signaling.Description) error {
	return s.client.Send(to, d)
}

// close leaves the room and waits for all that runs. The node no longer reads events.
func (s *signaler) close() {
	s.stop()
	s.client.Close()
	s.wg.Wait()
}

// translate ends when the client is closed. Once stop was called nobody listens, but the client is still drained.
func (s *signaler) translate(ctx context.Context) {
	defer close(s.events)
	for e := range s.client.Events() {
		select {
		case s.events <- translated(e):
		case <-ctx.Done():
		}
	}
}

func translated(e signalclient.Event) mesh.SignalEvent {
	switch e := e.(type) {
	case signalclient.Joined:
		return mesh.Joined{Members: e.Members, ICEServers: e.ICEServers}
	case signalclient.MemberJoined:
		return mesh.MemberJoined{Member: e.Member}
	case signalclient.MemberLeft:
		return mesh.MemberLeft{Peer: e.Peer}
	case signalclient.Signal:
		return mesh.Signal{From: e.From, Description: e.Description}
	case signalclient.Disconnected:
		return mesh.Disconnected{Err: e.Err, RetryIn: e.RetryIn}
	default:
		panic("peer: signalclient has an event that is not translated") // a fault in this program
	}
}
