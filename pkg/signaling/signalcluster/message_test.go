package signalcluster_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/crmesh/crmesh/pkg/signaling"
	"github.com/crmesh/crmesh/pkg/signaling/signalcluster"
)

// Whatever Parse takes is within the bounds, reads the same when it is written again, and does no harm to a room.
func FuzzMessage(f *testing.F) {
	record := signalcluster.Record{Peer: signaling.PeerID{1}, Meta: signaling.Meta{Name: "n"}, Gen: 5, Began: 4, Live: true}
	server := signalcluster.ServerID{3}
	for _, m := range []signalcluster.Message{
		{Type: signalcluster.TypeBeat}, {Type: signalcluster.TypeBye},
		{Type: signalcluster.TypeInventory, Want: true, Rooms: []signalcluster.RoomVersion{{Room: roomID, Version: 3}}},
		{Type: signalcluster.TypeAsk, Ask: 1, Rooms: []signalcluster.RoomVersion{{Room: roomID}}},
		{Type: signalcluster.TypeState, Ask: 1, Others: []signalcluster.ServerID{server},
			States: []signalcluster.State{{Room: roomID, Version: 3, Parts: 2, Part: 1, Members: []signalcluster.Record{record}}}},
		{Type: signalcluster.TypeDelta, Delta: &signalcluster.Delta{Room: roomID, Version: 3, Set: []signalcluster.Record{record},
			Left: []signaling.PeerID{{1}}, Moved: []signaling.PeerID{{2}}}},
		{Type: signalcluster.TypeEnvelope, Room: roomID, From: signaling.PeerID{1}, To: signaling.PeerID{2}, Sealed: "AQID"},
		{Type: signalcluster.TypeUndelivered, Room: roomID, From: signaling.PeerID{1}, To: signaling.PeerID{2}},
	} {
		m.Server, m.Clock = server, 9
		data, err := m.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		if _, err := signalcluster.Parse(data); err != nil {
			f.Fatalf("%s: %v", data, err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := signalcluster.Parse(data)
		if err != nil {
			return
		}
		again, err := m.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if second, err := signalcluster.Parse(again); err == nil && !reflect.DeepEqual(normal(m), normal(second)) || err != nil && len(again) <= signalcluster.MaxMessage {
			t.Fatalf("%+v\n%+v\n%v", m, second, err)
		}
		room, now := signalcluster.NewRoom(signalcluster.ServerID{1}), time.Unix(1, 0)
		room.Set(1, record)
		for range 2 {
			for _, s := range m.States {
				room.ApplyState(now, m.Server, s)
			}
			if m.Delta != nil {
				room.Delta(now, m.Server, *m.Delta)
			}
			for _, v := range m.Rooms {
				room.Confirm(now, m.Server, v.Version)
			}
			for _, loss := range room.Losses() {
				room.Move(2, loss.Peer)
			}
		}
		room.Lost(m.Server, now)
		room.Tick(now.Add(time.Hour))
		for more := true; more; {
			_, more = room.Changes(1)
		}
		if own, others := room.Counts(); own > 1 || others != 0 {
			t.Fatalf("%d own members and %d others are left", own, others)
		}
	})
}

// normal makes empty lists nil, as they are written.
func normal(m signalcluster.Message) signalcluster.Message {
	m.Rooms, m.States, m.Others = empty(m.Rooms), empty(m.States), empty(m.Others)
	for i := range m.States {
		m.States[i].Members = empty(m.States[i].Members)
	}
	if m.Delta != nil {
		m.Delta.Set, m.Delta.Left, m.Delta.Moved = empty(m.Delta.Set), empty(m.Delta.Left), empty(m.Delta.Moved)
	}
	return m
}

func empty[T any](list []T) []T {
	if len(list) == 0 {
		return nil
	}
	return list
}

// A part of a room leaves room for others in its message, whatever the names are.
func TestPartFits(t *testing.T) {
	room := signalcluster.NewRoom(signalcluster.ServerID{1})
	for i := range signalcluster.PartRecords {
		room.Set(uint64(i+1), signalcluster.Record{Peer: signaling.PeerID{byte(i), 255}, Gen: 1 << 53, Began: 1 << 53, Live: true,
			Meta: signaling.Meta{Replica: true, Reader: true, Name: strings.Repeat("<", signaling.MaxName)}})
	}
	data, err := signalcluster.Message{Type: signalcluster.TypeState, Server: signalcluster.ServerID{1}, Clock: 1 << 53, States: room.State(roomID, 0)}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := signalcluster.Parse(data); err != nil || len(data) > signalcluster.MaxMessage*5/8 {
		t.Fatalf("%d bytes: %v", len(data), err)
	}
}
