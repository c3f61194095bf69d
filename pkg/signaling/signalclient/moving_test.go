package signalclient_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/crmesh/crmesh/pkg/signaling"
	"github.com/crmesh/crmesh/pkg/signaling/signalclient"
	"github.com/crmesh/crmesh/pkg/signaling/signalserver"
)

// Clients move from a server that stops to its successor on the same port, and
// nobody is reported as gone or as disconnected.
func TestMoving(t *testing.T) {
	first := startServer(t, "127.0.0.1:0", signalserver.DefaultConfig())
	keys := newKeys(t)
	a := startClient(t, signalclient.Config{URLs: []string{first.url()}, Keys: keys})
	await[signalclient.Joined](t, a, nil)
	b := startClient(t, signalclient.Config{URLs: []string{first.url()}, Keys: keys})
	await[signalclient.Joined](t, b, nil)
	await[signalclient.MemberJoined](t, a, nil)

	_ = first.listener.Close() // as cmd/signal does it: the listener first, then the clients
	second := startServer(t, first.addr, signalserver.DefaultConfig())
	first.signal.Drain(context.Background(), 2*time.Second)

	// Both have gone of their own accord, or this would not be so.
	if n := first.signal.Stats().Connections; n != 0 {
		t.Fatalf("%d connections are left", n)
	}
	for _, c := range []*signalclient.Client{a, b} {
		for joined := false; !joined; {
			select {
			case e := <-c.Events():
				switch e := e.(type) {
				case signalclient.Joined:
					joined = true
				case signalclient.MemberJoined:
				default:
					t.Fatalf("got %+v", e)
				}
			case <-time.After(patience):
				t.Fatal("a client does not come back")
			}
		}
	}
	if n := second.signal.Stats().Members; n != 2 {
		t.Fatalf("%d members at the second server", n)
	}
	for _, ends := range [][2]*signalclient.Client{{a, b}, {b, a}} {
		if got := peersOf(ends[0].Members()); !slices.Equal(got, []signaling.PeerID{ends[1].Peer()}) {
			t.Errorf("members: %v", got)
		}
	}
	if err := a.Send(b.Peer(), signaling.Description{Kind: signaling.KindWant, Session: 1}); err != nil {
		t.Fatal(err)
	}
	await[signalclient.Signal](t, b, nil)
}
