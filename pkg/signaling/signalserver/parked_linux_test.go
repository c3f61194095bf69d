package signalserver_test

import (
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/crmesh/crmesh/pkg/signaling"
	"github.com/crmesh/crmesh/pkg/signaling/signalserver"
)

// Members that leave while they are parked, by word or because their socket ends, are gone for the others, and nothing of
// them counts any more: no place, no room, no socket that is watched. Of the WebSockets that they had before, no memory is taken.
func TestParkedMembersLeave(t *testing.T) {
	const places = 4
	h := start(t, func(c *signalserver.Config) {
		c.IdleTimeout, c.Grace = 6*time.Second, 50*time.Millisecond // parked after 1 s
		c.MaxConnectionsPerAddress = places
	})
	stays, leaves := h.pair(t, room)
	breaks, _ := h.join(t, room)
	for _, p := range []*peer{stays, leaves} {
		expect[signaling.MemberJoined](p)
	}
	alone, _ := h.join(t, signaling.RoomID{2})
	left := h.Sessions()
	if n := left(); n != places {
		t.Fatalf("%d sessions are there, so this test sees nothing", n)
	}
	type arrival struct {
		message signaling.Message
		err     error
	}
	read := func(p *peer) <-chan arrival { // who reads answers pings
		c := make(chan arrival, 1)
		go func() {
			defer close(c) // also where nothing came in time
			m, err := p.receive()
			c <- arrival{m, err}
		}()
		return c
	}
	toStays, toLeaves, toBreaks, toAlone := read(stays), read(leaves), read(breaks), read(alone)
	poll(t, "all are parked", func() bool { return h.Parked() == places })
	poll(t, "no goroutine reads for them", func() bool {
		all := make([]byte, 1<<20)
		return !strings.Contains(string(all[:runtime.Stack(all, true)]), "signalserver.(*Server).read(")
	})
	poll(t, "their sessions take no memory", func() bool {
		runtime.GC()
		return left() == 0
	})
	if _, response, err := h.dial(t, nil); err == nil || response.StatusCode != http.StatusTooManyRequests {
		t.Fatalf("one above the limit got in: %v", err)
	}

	leaves.send(signaling.Leave{})
	if m, ok := (<-toStays).message.(signaling.MemberLeft); !ok || m.Peer != leaves.id {
		t.Fatalf("got %+v", m)
	}
	if a := <-toLeaves; a.err == nil {
		t.Fatalf("who has left got %+v", a.message)
	}
	_ = breaks.ws.CloseNow()
	if m := expect[signaling.MemberLeft](stays); m.Peer != breaks.id {
		t.Fatalf("got %+v", m)
	}
	<-toBreaks
	alone.send(signaling.Leave{})
	<-toAlone

	want := signalserver.Stats{Connections: 1, Rooms: 1, Members: 1}
	poll(t, "one member is left", func() bool { return h.Stats() == want })
	if watched, queued := h.Watched(), h.Queued(); watched != 1 || queued != 0 {
		t.Errorf("%d sockets are watched, %d bytes are queued", watched, queued)
	}
	for range places - 1 {
		h.connect(t)
	}
	stays.expectQuiet()
}
