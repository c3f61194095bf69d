package signalserver_test

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/crmesh/crmesh/pkg/signaling"
	"github.com/crmesh/crmesh/pkg/signaling/signalcluster"
	"github.com/crmesh/crmesh/pkg/signaling/signalcluster/natsbus/natstest"
	"github.com/crmesh/crmesh/pkg/signaling/signalserver"
)

// intruder is a client of NATS that says whatever it likes.
type intruder struct {
	t  *testing.T
	nc *nats.Conn
	id signalcluster.ServerID
}

func intrude(t *testing.T, url string) *intruder {
	t.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return &intruder{t: t, nc: nc, id: signalcluster.NewServerID()}
}

func (i *intruder) raw(subject string, data []byte) {
	i.t.Helper()
	if err := i.nc.Publish(subject, data); err != nil {
		i.t.Fatal(err)
	}
}

func (i *intruder) say(subject string, m signalcluster.Message) {
	i.t.Helper()
	if m.Server == (signalcluster.ServerID{}) {
		m.Server = i.id
	}
	if m.Clock == 0 {
		m.Clock = uint64(time.Now().UnixMilli())
	}
	data, err := m.Marshal()
	if err != nil {
		i.t.Fatal(err)
	}
	i.raw(subject, data)
}

// listen returns the next message on a subject that test takes.
func (i *intruder) listen(subject string) func(test func(signalcluster.Message) bool) signalcluster.Message {
	i.t.Helper()
	sub, err := i.nc.SubscribeSync(subject)
	if err != nil {
		i.t.Fatal(err)
	}
	if err := i.nc.Flush(); err != nil {
		i.t.Fatal(err)
	}
	return func(test func(signalcluster.Message) bool) signalcluster.Message {
		i.t.Helper()
		for {
			raw, err := sub.NextMsg(patience)
			if err != nil {
				i.t.Fatal(err)
			}
			m, err := signalcluster.Parse(raw.Data)
			if err != nil {
				i.t.Fatalf("%s: %v", raw.Data, err)
			}
			if test(m) {
				return m
			}
		}
	}
}

// What is no message of a server, or an impossible one, is dropped and said; members notice nothing.
func TestClusterDropsNonsense(t *testing.T) {
	t.Parallel()
	nats, nodes := startCluster(t, 2, nil)
	a, b := nodes[0], nodes[1]
	x, y, _, _ := across(t, a, b, room)
	i := intrude(t, nats.URL())
	beat := i.listen(signalcluster.AllSubject)
	victim := beat(func(m signalcluster.Message) bool { return m.Type == signalcluster.TypeBeat }).Server
	now := uint64(time.Now().UnixMilli())
	record := signalcluster.Record{Peer: signaling.PeerID{5}, Gen: now, Began: now}
	long := record
	long.Meta.Name = strings.Repeat("n", signaling.MaxName+1)
	future := record
	future.Gen = now + 1e6

	subjects := []string{signalcluster.AllSubject, signalcluster.RoomSubject(room), signalcluster.ServerSubject(victim, "in"),
		signalcluster.ServerSubject(victim, "1"), signalcluster.ServerSubject(victim, "x")}
	var nonsense [][]byte
	for _, text := range []string{"\x00", "null", "[]", "{}", `"x"`, `{"type":"beat"}`, "{\"type\":\"\xff\"}", strings.Repeat("[", 20_000),
		`{"type":"beat","server":"AAAAAAAAAAAAAAAAAAAAAA","clock":1}`, `{"type":"beat","server":"x","clock":1}`,
		`{"type":"beat","server":"AQAAAAAAAAAAAAAAAAAAAA","clock":-1}`, `{"type":"delta","server":"AQAAAAAAAAAAAAAAAAAAAA","clock":1}`} {
		nonsense = append(nonsense, []byte(text))
	}
	nonsense = append(nonsense, bytes.Repeat([]byte("x"), 500_000))
	var impossible []signalcluster.Message
	for _, set := range [][]signalcluster.Record{{long}, {future}, {{Peer: record.Peer}}, {{Peer: record.Peer, Gen: 1, Began: 2}},
		make([]signalcluster.Record, signalcluster.MaxRecords+1)} {
		impossible = append(impossible,
			signalcluster.Message{Type: signalcluster.TypeDelta, Delta: &signalcluster.Delta{Room: room, Version: now, Set: set}},
			signalcluster.Message{Type: signalcluster.TypeState, States: []signalcluster.State{{Room: room, Version: now, Parts: 1, Members: set}}})
	}
	impossible = append(impossible,
		signalcluster.Message{Type: signalcluster.TypeBeat, Clock: now + 3_600_000},
		signalcluster.Message{Type: signalcluster.TypeDelta, Delta: &signalcluster.Delta{Room: room, Version: 5, Prev: 5}},
		signalcluster.Message{Type: signalcluster.TypeDelta, Delta: &signalcluster.Delta{Room: room, Version: now * 2}},
		signalcluster.Message{Type: signalcluster.TypeState, States: []signalcluster.State{{Room: room, Version: now, Parts: 1, Part: 1}}},
		signalcluster.Message{Type: signalcluster.TypeState, States: []signalcluster.State{{Room: room, Version: now, Parts: 1 << 30}}},
		signalcluster.Message{Type: signalcluster.TypeInventory, Rooms: make([]signalcluster.RoomVersion, signalcluster.MaxList+1)},
		signalcluster.Message{Type: signalcluster.TypeEnvelope, Room: room, From: y.id, To: x.id},
		signalcluster.Message{Type: signalcluster.TypeEnvelope, Room: room, From: y.id, To: x.id, Sealed: strings.Repeat("A", signaling.MaxSealed+1)},
	)
	for _, m := range impossible {
		i.say(signalcluster.RoomSubject(room), m)
	}
	poll(t, "each is counted", func() bool { return b.samples(t)["cluster_bad_total"] == float64(len(impossible)) })
	for _, data := range nonsense {
		i.raw(subjects[rand.N(len(subjects))], data)
	}
	// Of a later version: ignored. Of nobody, and for nobody: of no effect.
	i.say(signalcluster.RoomSubject(room), signalcluster.Message{Type: "later"})
	for _, typ := range []signalcluster.Type{signalcluster.TypeAsk, signalcluster.TypeState, signalcluster.TypeInventory, signalcluster.TypeUndelivered} {
		i.say(signalcluster.ServerSubject(victim, "in"), signalcluster.Message{Type: typ, Ask: 99, Want: true, Room: signaling.RoomID{8},
			Rooms: []signalcluster.RoomVersion{{Room: signaling.RoomID{8}, Version: 3}}})
	}
	i.raw(signalcluster.ServerSubject(victim, "7"), nil)
	// Random bytes, and good messages with some of them changed.
	good, err := signalcluster.Message{Type: signalcluster.TypeDelta, Server: i.id, Clock: now, Delta: &signalcluster.Delta{Room: signaling.RoomID{8},
		Version: now, Set: []signalcluster.Record{record}}}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	const changed = 2000
	came := func(n *node) float64 {
		s := n.samples(t)
		return s["cluster_received_total"] + s["cluster_missed_total"]
	}
	atA, atB := came(a), came(b)
	for range changed {
		data := bytes.Clone(good)
		for range 1 + rand.N(4) {
			data[rand.N(len(data))] = byte(rand.N(256))
		}
		i.raw(signalcluster.RoomSubject(room), data)
	}
	// An envelope amid such a flood may be lost.
	poll(t, "all has come", func() bool { return came(a) >= atA+changed && came(b) >= atB+changed })
	if n := b.samples(t)["cluster_bad_total"]; n <= float64(len(impossible)+100) {
		t.Errorf("%v messages are counted", n)
	}
	talk(x, y)
	x.expectQuiet()
	y.expectQuiet()
	if !strings.Contains(b.log.String(), "a message from NATS was dropped") {
		t.Error("the log does not say that messages are dropped")
	}
	if n := strings.Count(b.log.String(), "a message from NATS was dropped"); n > 10 {
		t.Errorf("the log says it %d times", n)
	}
}

// What a server says that is alone with it is bounded: servers, members, and what members here are told at once.
func TestClusterBoundsOthers(t *testing.T) {
	t.Parallel()
	nats := natstest.Start(t, nil)
	a := startNode(t, nats.URL(), nil)
	x, _ := a.join(t, room)
	i := intrude(t, nats.URL())
	now := uint64(time.Now().UnixMilli())
	for n := range signalcluster.MaxServers + 50 {
		i.say(signalcluster.AllSubject, signalcluster.Message{Type: signalcluster.TypeBeat, Server: signalcluster.ServerID{1, byte(n), byte(n >> 8)}})
	}
	poll(t, "too many servers are dropped", func() bool { return a.samples(t)["cluster_bad_total"] >= 50 })
	if n := a.Stats().Servers; n != signalcluster.MaxServers {
		t.Errorf("%d servers", n)
	}
	// A room of 1,000, all at once: x hears of them in portions that its queue holds.
	server := signalcluster.ServerID{1}
	const members = 1000
	for part := range members / signalcluster.PartRecords {
		var set []signalcluster.Record
		for n := range signalcluster.PartRecords {
			set = append(set, signalcluster.Record{Peer: signaling.PeerID{9, byte(part), byte(n)}, Gen: now, Began: now})
		}
		i.say(signalcluster.ServerSubject(ownID(t, a), "in"), signalcluster.Message{Type: signalcluster.TypeState, Server: server, Clock: now,
			States: []signalcluster.State{{Room: room, Version: now, Part: part, Parts: members / signalcluster.PartRecords, Members: set}}})
	}
	for range members / signalcluster.PartRecords * signalcluster.PartRecords {
		expect[signaling.MemberJoined](x)
	}
	x.expectQuiet()
}

// ownID reads the id of a server from its log.
func ownID(t *testing.T, n *node) signalcluster.ServerID {
	t.Helper()
	_, rest, ok := strings.Cut(n.log.String(), "msg=cluster server=")
	var id signalcluster.ServerID
	if !ok || id.UnmarshalText([]byte(rest[:22])) != nil {
		t.Fatal("the log does not name the server")
	}
	return id
}

// A message that is lost is found missing and asked for: one delta of two, and the answer comes at once. The next
// inventory would find it, too.
func TestClusterLostMessage(t *testing.T) {
	t.Parallel()
	nats := natstest.Start(t, nil)
	a := startNode(t, nats.URL(), func(c *signalserver.Config) { c.MaxMembers = 100 })
	x, _ := a.join(t, room)
	i := intrude(t, nats.URL())
	mine := i.listen(signalcluster.ServerSubject(i.id, "*"))
	now := uint64(time.Now().UnixMilli())
	p, q := signalcluster.Record{Peer: signaling.PeerID{1}, Gen: now, Began: now}, signalcluster.Record{Peer: signaling.PeerID{2}, Gen: now, Began: now}
	i.say(signalcluster.RoomSubject(room), signalcluster.Message{Type: signalcluster.TypeDelta, Delta: &signalcluster.Delta{Room: room, Version: now - 3, Set: []signalcluster.Record{p}}})
	if m := expect[signaling.MemberJoined](x); m.Peer != p.Peer {
		t.Fatalf("joined: %v", m.Peer)
	}
	i.say(signalcluster.RoomSubject(room), signalcluster.Message{Type: signalcluster.TypeDelta, Delta: &signalcluster.Delta{Room: room, Prev: now - 2, Version: now - 1, Left: []signaling.PeerID{p.Peer}}})
	mine(func(m signalcluster.Message) bool {
		return m.Type == signalcluster.TypeAsk && len(m.Rooms) == 1 && m.Rooms[0].Room == room
	})
	state := signalcluster.State{Room: room, Version: now, Parts: 1, Members: []signalcluster.Record{q}}
	i.say(signalcluster.ServerSubject(ownID(t, a), "in"), signalcluster.Message{Type: signalcluster.TypeState, States: []signalcluster.State{state}})
	if m := expect[signaling.MemberJoined](x); m.Peer != q.Peer {
		t.Fatalf("joined: %v", m.Peer)
	}
	if m := expect[signaling.MemberLeft](x); m.Peer != p.Peer { // after it lingered
		t.Fatalf("left: %v", m.Peer)
	}
	// An envelope to somebody who is not here comes back as undelivered, and one from here does, too.
	i.say(signalcluster.ServerSubject(ownID(t, a), "in"), signalcluster.Message{Type: signalcluster.TypeEnvelope, Room: room, From: q.Peer, To: p.Peer, Sealed: "AQID"})
	mine(func(m signalcluster.Message) bool {
		return m.Type == signalcluster.TypeUndelivered && m.From == q.Peer && m.To == p.Peer
	})
	i.say(signalcluster.ServerSubject(ownID(t, a), "in"), signalcluster.Message{Type: signalcluster.TypeUndelivered, Room: room, From: x.id, To: q.Peer})
	if e := expect[signaling.Error](x); e.Code != signaling.CodeUnreachable || *e.Peer != q.Peer {
		t.Fatalf("got %+v", e)
	}
}

// Whoever reads along at NATS gets no resume token.
func TestClusterHidesTokens(t *testing.T) {
	t.Parallel()
	nats, nodes := startCluster(t, 2, nil)
	i := intrude(t, nats.URL())
	sub, err := i.nc.SubscribeSync(">")
	if err != nil {
		t.Fatal(err)
	}
	if err := i.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	x, y, tokenX, tokenY := across(t, nodes[0], nodes[1], room)
	again, _ := nodes[1].back(t, x, tokenX)
	x.expectEnd(signaling.CodeReplaced)
	talk(again, y)
	y.send(signaling.Leave{})
	for left := false; !left; {
		raw, err := sub.NextMsg(patience)
		if err != nil {
			t.Fatal(err)
		}
		for _, token := range []string{tokenX, tokenY} {
			if bytes.Contains(raw.Data, []byte(token)) {
				t.Fatalf("%s: %s", raw.Subject, raw.Data)
			}
		}
		m, err := signalcluster.Parse(raw.Data)
		left = err == nil && m.Type == signalcluster.TypeDelta && len(m.Delta.Left) > 0
	}
}
