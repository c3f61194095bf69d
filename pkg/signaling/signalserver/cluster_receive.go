package signalserver

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/crmesh/crmesh/pkg/signaling"
	"github.com/crmesh/crmesh/pkg/signaling/signalcluster"
)

// receive takes a message from another server. It holds Server.mu only once the message has been read.
func (cl *cluster) receive(raw signalcluster.BusMessage) {
	received := time.Now()
	if len(raw.Data) == 0 {
		cl.locked(func() { cl.nobody(raw.Subject) })
		return
	}
	cl.s.metrics.clusterIn.Inc()
	m, err := signalcluster.Parse(raw.Data)
	cl.locked(func() {
		switch {
		case errors.Is(err, signalcluster.ErrUnknownType):
		case err != nil:
			cl.drop(received, err.Error())
		case m.Server == cl.id:
			cl.drop(received, "it claims to be from this server itself")
		case m.Clock > uint64(received.Add(signalcluster.MaxSkew).UnixMilli()):
			cl.drop(received, "the clock of its server is too far ahead of this machine's; set the clocks of both")
		case !cl.heard(m.Server, m.Type, received):
			cl.drop(received, "there are too many servers")
		default:
			cl.clock = max(cl.clock, m.Clock)
			cl.handle(m, received)
		}
	})
}

// heard notes that a server is there. One that is new gets the inventory, and is asked for its own.
func (cl *cluster) heard(id signalcluster.ServerID, typ signalcluster.Type, now time.Time) bool {
	if other, known := cl.servers[id]; known {
		other.heard = now
		return true
	}
	if typ == signalcluster.TypeBye {
		return true
	}
	if len(cl.servers) >= signalcluster.MaxServers {
		return false
	}
	cl.servers[id] = &otherServer{heard: now}
	cl.log.Info("another server of the cluster is there", "server", id.String(), "servers", len(cl.servers))
	cl.inventory(signalcluster.ServerSubject(id, boxDirect), true)
	return true
}

func (cl *cluster) handle(m signalcluster.Message, received time.Time) {
	switch m.Type {
	case signalcluster.TypeBye:
		if _, known := cl.servers[m.Server]; known {
			cl.lost(m.Server, received, "stops")
		}
	case signalcluster.TypeInventory:
		cl.compare(m, received)
	case signalcluster.TypeAsk:
		cl.states(m.Server, m.Rooms, m.Ask)
	case signalcluster.TypeState:
		cl.merge(m, received)
	case signalcluster.TypeDelta:
		shared, ok := cl.rooms[m.Delta.Room]
		if !ok || !cl.fits(len(m.Delta.Set)) {
			return // the last member here has just left
		}
		if shared.Delta(received, m.Server, *m.Delta) {
			cl.ask(m.Server, []signalcluster.RoomVersion{{Room: m.Delta.Room}})
		}
		cl.update(m.Delta.Room, shared)
	case signalcluster.TypeEnvelope:
		cl.deliver(m, received)
	case signalcluster.TypeUndelivered:
		if room, ok := cl.s.rooms[m.Room]; ok {
			if conn, ok := room.Conn(m.From); ok {
				cl.s.send(cl.s.conns[conn], cl.s.unreachable(m.To))
			}
		}
	}
}

// compare asks for what an inventory has that is not here.
func (cl *cluster) compare(m signalcluster.Message, now time.Time) {
	var missing []signalcluster.RoomVersion
	for _, rv := range m.Rooms {
		if shared, ok := cl.rooms[rv.Room]; ok && shared.Confirm(now, m.Server, rv.Version) {
			missing = append(missing, signalcluster.RoomVersion{Room: rv.Room})
		}
	}
	cl.ask(m.Server, missing)
	if m.Want {
		cl.inventory(signalcluster.ServerSubject(m.Server, boxDirect), false)
	}
}

// merge takes over what another server has.
func (cl *cluster) merge(m signalcluster.Message, now time.Time) {
	question := cl.asks[m.Ask]
	for _, state := range m.States {
		shared, ok := cl.rooms[state.Room]
		if !ok || !cl.fits(len(state.Members)) {
			continue
		}
		if shared.ApplyState(now, m.Server, state) && question != nil && question.room == state.Room {
			question.got[m.Server] = struct{}{}
		}
		cl.update(state.Room, shared)
	}
	if question == nil {
		return
	}
	for _, other := range m.Others {
		if _, there := cl.servers[other]; there {
			question.need[other] = struct{}{}
		}
	}
	for other := range question.need {
		if _, has := question.got[other]; !has {
			return
		}
	}
	if len(question.got) > 0 {
		cl.answered(m.Ask)
	}
}

// answered ends the wait for the answers to a question.
func (cl *cluster) answered(ask uint64) {
	question, ok := cl.asks[ask]
	if !ok {
		return
	}
	delete(cl.asks, ask)
	close(question.done)
	if shared, ok := cl.rooms[question.room]; ok && shared.ask == question {
		shared.ask = nil
	}
}

// nobody takes the notice that no other server has members in the room of a question.
func (cl *cluster) nobody(subject string) {
	box, ok := strings.CutPrefix(subject, signalcluster.ServerSubject(cl.id, ""))
	if !ok {
		return
	}
	if ask, err := strconv.ParseUint(box, 10, 64); err == nil {
		cl.answered(ask)
	}
}

// deliver hands an envelope from another server to its receiver.
func (cl *cluster) deliver(m signalcluster.Message, received time.Time) {
	if room, ok := cl.s.rooms[m.Room]; ok {
		if conn, ok := room.Conn(m.To); ok {
			if frame := cl.s.marshal(signaling.SignalFrom{From: m.From, Sealed: m.Sealed}); frame != nil {
				cl.s.enqueue(cl.s.conns[conn], outgoing{frame, received})
			}
			return
		}
	}
	cl.tellServer(m.Server, signalcluster.Message{Type: signalcluster.TypeUndelivered, Room: m.Room, From: m.From, To: m.To})
}

// maxRemote bounds the members of other servers that this one keeps in mind, in all rooms: some 100 MB.
const maxRemote = 1 << 18

// fits tells whether n more records of others may be kept.
func (cl *cluster) fits(n int) bool {
	if n == 0 || cl.remote+n <= maxRemote {
		return true
	}
	cl.drop(time.Now(), "there would be too many members at other servers")
	return false
}
