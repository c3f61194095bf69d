package main

import (
	"context"
	"sync"

	"github.com/crmesh/crmesh/pkg/mesh"
	"github.com/crmesh/crmesh/pkg/signaling"
	"github.com/crmesh/crmesh/pkg/signaling/signalclient"
)

// signaler is a signalclient.Client as the mesh wants it. There is no client before join, so that a node can bind its ports
// before others hear of it.
type signaler struct {
	client *signalclient.Client // nil: not joined
	events chan mesh.SignalEvent
	wg     sync.WaitGroup
	ctx    context.Context
	stop   context.CancelFunc
}

func newSignaler() *signaler {
	s := &signaler{events: make(chan mesh.SignalEvent)}
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s
}

// join makes the client and enters the room; it is called once.
func (s *signaler) join(cfg signalclient.Config) error {
	client, err := signalclient.New(cfg)
	if err != nil {
		return err
	}
	s.client = client
	s.wg.Go(s.translate)
	return nil
}

func (s *signaler) Events() <-chan mesh.SignalEvent { return s.events }

// Send is called for members only, of whom an event has told: there is a client.
func (s *signaler) Send(to signaling.PeerID, d signaling.Description) error {
	return s.client.Send(to, d)
}

func (s *signaler) Check() { s.client.Check() }

// close leaves the room and waits for all that runs. The node no longer reads events.
func (s *signaler) close() {
	s.stop()
	if s.client != nil {
		s.client.Close()
	}
	s.wg.Wait()
}

// translate ends when the client is closed. Once stop was called nobody listens, but the client is still drained.
func (s *signaler) translate() {
	defer close(s.events)
	for e := range s.client.Events() {
		select {
		case s.events <- translated(e):
		case <-s.ctx.Done():
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
	case signalclient.Unreachable:
		return mesh.Unreachable{Peer: e.Peer}
	case signalclient.Disconnected:
		return mesh.Disconnected{Err: e.Err, RetryIn: e.RetryIn}
	default:
		panic("peer: signalclient has an event that is not translated") // a fault in this program
	}
}
