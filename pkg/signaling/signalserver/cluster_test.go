package signalserver_test

import (
	"strings"
	"testing"
	"time"

	"github.com/crmesh/crmesh/pkg/signaling"
	"github.com/crmesh/crmesh/pkg/signaling/signalcluster/natsbus/natstest"
	"github.com/crmesh/crmesh/pkg/signaling/signalserver"
)

// Servers of a cluster are one for their clients: members, envelopes and leaving cross them, and a member that is not
// connected is unreachable from everywhere.
func TestClusterActsAsOne(t *testing.T) {
	t.Parallel()
	_, nodes := startCluster(t, 3, func(c *signalserver.Config) { c.Grace = time.Second })
	a, b, c := nodes[0], nodes[1], nodes[2]
	x, y, _, _ := across(t, a, b, room)
	talk(x, y)
	z, joined := c.join(t, room)
	if got := members(joined); len(got) != 2 {
		t.Fatalf("members %v", got)
	}
	for _, p := range []*peer{x, y} {
		if m := expect[signaling.MemberJoined](p); m.Peer != z.id {
			t.Fatalf("joined: %v", m.Peer)
		}
	}
	talk(x, z)
	talk(z, y)
	other, _ := c.join(t, signaling.RoomID{9})
	y.send(signaling.Leave{})
	y.expectClose(1000, "leave")
	for _, p := range []*peer{x, z} {
		if m := expect[signaling.MemberLeft](p); m.Peer != y.id {
			t.Fatalf("left: %v", m.Peer)
		}
	}
	_ = z.ws.CloseNow()
	poll(t, "z is seen to be away", func() bool { return c.Stats().Connections == 1 })
	x.send(signaling.SignalTo{To: z.id, Sealed: "AQID"})
	for unreachable, gone := false, false; !unreachable || !gone; { // the latter after its grace time, which may be over already
		m, err := x.receive()
		if err != nil {
			t.Fatal(err)
		}
		switch m := m.(type) {
		case signaling.Error:
			unreachable = m.Code == signaling.CodeUnreachable && *m.Peer == z.id
		case signaling.MemberLeft:
			gone = m.Peer == z.id
		}
	}
	x.expectQuiet()
	other.expectQuiet()
}

// A client that comes back to another server goes on there; the old connection is replaced, and nobody sees it go. A
// wrong token gets nowhere.
func TestClusterResume(t *testing.T) {
	t.Parallel()
	_, nodes := startCluster(t, 3, nil)
	a, b, c := nodes[0], nodes[1], nodes[2]
	x, y, tokenX, _ := across(t, a, b, room)

	thief := c.connect(t) // c has no member of the room: it has to ask
	thief.id = x.id
	thief.send(signaling.Join{Room: room, Peer: x.id, Token: "ABCDEFGHIJKLMNOPQRSTUVWXYZ"})
	thief.expectEnd(signaling.CodePeerInUse)
	thief = b.connect(t)
	thief.send(signaling.Join{Room: room, Peer: x.id})
	thief.expectEnd(signaling.CodePeerInUse)

	again, joined := c.back(t, x, tokenX)
	if !joined.Resumed || joined.Token != tokenX || len(joined.Members) != 1 || joined.Members[0].Peer != y.id {
		t.Fatalf("joined: %+v", joined)
	}
	x.expectEnd(signaling.CodeReplaced)
	poll(t, "envelopes find the new server", func() bool { return b.Stats().Remote == 1 && a.Stats().Members == 0 })
	talk(again, y)
	again.expectQuiet()
	y.expectQuiet()

	// And back, where another member is.
	last, joined := b.back(t, x, tokenX)
	if !joined.Resumed || len(joined.Members) != 1 {
		t.Fatalf("joined: %+v", joined)
	}
	again.expectEnd(signaling.CodeReplaced)
	talk(last, y)
	y.expectQuiet()
}

// A server that stops says so; one that dies is missed. The members of both are in their grace time then: they come back
// elsewhere unnoticed, or leave.
func TestClusterServerDies(t *testing.T) {
	for _, dies := range []bool{false, true} {
		name := "stops"
		if dies {
			name = "dies"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nats := natstest.Start(t, nil)
			grace := func(c *signalserver.Config) { c.Grace = 3 * time.Second }
			wire := newCable(t, nats.Address())
			a, b := startNode(t, wire.url(), grace), startNode(t, nats.URL(), grace)
			awaitServers(t, []*node{a, b}, 1)
			x, y, tokenX, _ := across(t, a, b, room)
			gone, _ := a.join(t, room)
			expect[signaling.MemberJoined](x)
			expect[signaling.MemberJoined](y)
			if dies {
				wire.pull()
			} else {
				go func() { _ = a.Shutdown(t.Context()) }() // waited for at the end of the test
				x.expectEnd(signaling.CodeShutdown)
				gone.expectEnd(signaling.CodeShutdown)
			}
			poll(t, "b misses a", func() bool { return b.Stats().Servers == 0 })
			again, joined := b.back(t, x, tokenX)
			if !joined.Resumed || len(joined.Members) != 2 {
				t.Fatalf("joined: %+v", joined)
			}
			talk(again, y)
			for _, p := range []*peer{again, y} {
				if m := expect[signaling.MemberLeft](p); m.Peer != gone.id {
					t.Fatalf("left: %v", m.Peer)
				}
			}
			talk(again, y)
		})
	}
}

// Without NATS rooms go on here and there; what has changed meanwhile is merged when it is back.
func TestClusterWithoutNATS(t *testing.T) {
	t.Parallel()
	nats, nodes := startCluster(t, 2, func(c *signalserver.Config) { c.Grace = time.Second })
	a, b := nodes[0], nodes[1]
	x, y, tokenX, _ := across(t, a, b, room)
	nats.Stop()
	// A second member at a, which b cannot hear of, and who cannot be told from b.
	x2, joined := a.join(t, room)
	if len(joined.Members) != 2 {
		t.Fatalf("members %v", members(joined))
	}
	expect[signaling.MemberJoined](x)
	talk(x, x2)
	x.send(signaling.SignalTo{To: y.id, Sealed: "AQID"})
	if e := expect[signaling.Error](x); e.Code != signaling.CodeUnreachable {
		t.Fatalf("got %+v", e)
	}
	if status, _ := get(t, a.harness, "/readyz"); status != 200 {
		t.Errorf("/readyz: %d", status)
	}
	a.expectSamples(t, map[string]float64{"cluster_connected": 0, "cluster_members": 1})
	// After lease and grace time each side is alone.
	for _, p := range []*peer{x, x2} {
		if m := expect[signaling.MemberLeft](p); m.Peer != y.id {
			t.Fatalf("left: %v", m.Peer)
		}
	}
	if m := expect[signaling.MemberLeft](y); m.Peer != x.id {
		t.Fatalf("left: %v", m.Peer)
	}
	// x comes to b, which cannot know it any more, and lets it keep its token.
	moved, joined := b.back(t, x, tokenX)
	if joined.Resumed || joined.Token != tokenX || len(joined.Members) != 1 {
		t.Fatalf("joined: %+v", joined)
	}
	expect[signaling.MemberJoined](y)
	talk(moved, y)

	nats.Start()
	x.expectEnd(signaling.CodeReplaced)
	for _, p := range []*peer{moved, y} {
		if m := expect[signaling.MemberJoined](p); m.Peer != x2.id {
			t.Fatalf("joined: %v", m.Peer)
		}
	}
	if m := expect[signaling.MemberJoined](x2); m.Peer != y.id {
		t.Fatalf("joined: %v", m.Peer)
	}
	talk(x2, y)
	poll(t, "a knows where x is", func() bool { return a.Stats().Remote == 2 && a.Stats().Members == 1 })
	talk(x2, moved)
	for _, p := range []*peer{x2, y, moved} {
		p.expectQuiet()
	}
}

// What happens elsewhere while a server is cut off for less than the lease is made up for.
func TestClusterShortCut(t *testing.T) {
	t.Parallel()
	nats := natstest.Start(t, nil)
	wire := newCable(t, nats.Address())
	a, b := startNode(t, wire.url(), nil), startNode(t, nats.URL(), nil)
	awaitServers(t, []*node{a, b}, 1)
	x, y, _, _ := across(t, a, b, room)
	wire.pull()
	poll(t, "a is cut off", func() bool { return a.samples(t)["cluster_connected"] == 0 })
	z, _ := b.join(t, room)
	expect[signaling.MemberJoined](y)
	y.send(signaling.Leave{})
	if m := expect[signaling.MemberLeft](z); m.Peer != y.id {
		t.Fatalf("left: %v", m.Peer)
	}
	wire.plug()
	if m := expect[signaling.MemberJoined](x); m.Peer != z.id {
		t.Fatalf("joined: %v", m.Peer)
	}
	talk(x, z)
	if m := expect[signaling.MemberLeft](x); m.Peer != y.id {
		t.Fatalf("left: %v", m.Peer)
	}
	z.expectQuiet()
}

// A server starts without NATS, and finds the others later.
func TestClusterStartsWithoutNATS(t *testing.T) {
	t.Parallel()
	nats := natstest.Start(t, nil)
	nats.Stop()
	a, b := startNode(t, nats.URL(), nil), startNode(t, nats.URL(), nil)
	x, joinedX := a.join(t, room)
	y, joinedY := b.join(t, room)
	if len(joinedX.Members)+len(joinedY.Members) != 0 {
		t.Fatal("they cannot know each other")
	}
	nats.Start()
	if m := expect[signaling.MemberJoined](x); m.Peer != y.id {
		t.Fatalf("joined: %v", m.Peer)
	}
	if m := expect[signaling.MemberJoined](y); m.Peer != x.id {
		t.Fatalf("joined: %v", m.Peer)
	}
	talk(x, y)
	if !strings.Contains(a.log.String(), "NATS cannot be reached yet") {
		t.Error("the log does not warn")
	}
}

// The limit of members holds for all servers together; a resume is no new member.
func TestClusterFull(t *testing.T) {
	t.Parallel()
	_, nodes := startCluster(t, 2, func(c *signalserver.Config) { c.MaxMembers = 2 })
	x, y, tokenX, _ := across(t, nodes[0], nodes[1], room)
	third := nodes[1].connect(t)
	third.send(signaling.Join{Room: room, Peer: third.id})
	third.expectEnd(signaling.CodeRoomFull)
	again, joined := nodes[1].back(t, x, tokenX)
	if !joined.Resumed || len(joined.Members) != 1 {
		t.Fatalf("joined: %+v", joined)
	}
	x.expectEnd(signaling.CodeReplaced)
	talk(again, y)
}

// A drained server's clients go on at another one, and nobody is seen to leave, neither there nor here.
func TestClusterDrain(t *testing.T) {
	t.Parallel()
	_, nodes := startCluster(t, 2, nil)
	a, b := nodes[0], nodes[1]
	x, joinedX := a.join(t, room)
	x2, joinedX2 := a.join(t, room)
	expect[signaling.MemberJoined](x)
	go a.Drain(t.Context(), time.Second)
	expect[signaling.Moving](x)
	expect[signaling.Moving](x2)
	_ = x.ws.CloseNow()
	moved, joined := b.back(t, x, joinedX.Token)
	if !joined.Resumed || len(joined.Members) != 1 {
		t.Fatalf("joined: %+v", joined)
	}
	poll(t, "a knows where x is", func() bool { return a.Stats().Remote == 1 })
	talk(moved, x2)
	x2.expectQuiet()
	shutdown(t, a.harness)
	x2.expectEnd(signaling.CodeShutdown)
	moved2, joined := b.back(t, x2, joinedX2.Token)
	if !joined.Resumed || len(joined.Members) != 1 {
		t.Fatalf("joined: %+v", joined)
	}
	talk(moved, moved2)
	moved.expectQuiet()
}
