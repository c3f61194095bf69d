package signalserver

import (
	"encoding/json"
	"log/slog"
	"slices"
	"time"

	"github.com/crmesh/crmesh/pkg/signaling"
	"github.com/crmesh/crmesh/pkg/signaling/signalcluster"
)

// cluster makes the server one of several that act as one. It is nil in a server that is alone; its methods that others
// call take that. All of it is guarded by Server.mu, except where it is said.
type cluster struct {
	s   *Server
	bus signalcluster.Bus // of its own
	id  signalcluster.ServerID
	log *slog.Logger

	clock   uint64 // the last one, see signalcluster.Message
	servers map[signalcluster.ServerID]*otherServer
	rooms   map[signaling.RoomID]*sharedRoom
	untold  map[signaling.RoomID]struct{} // rooms whose members were not told all changes yet
	asks    map[uint64]*asked
	lastAsk uint64
	remote  int // records of members at other servers, in all rooms
	stopped bool
	bad     badMessages
}

type otherServer struct{ heard time.Time }

// sharedRoom is a room that is here, and so it is in the cluster. It is there as long as the room has members here, or
// somebody is about to join.
type sharedRoom struct {
	*signalcluster.Room
	entering int
	ask      *asked // the first question is under way
	counted  int    // how many of cluster.remote are of this room
}

// asked is a question to all servers with members in one room.
type asked struct {
	room signaling.RoomID
	need map[signalcluster.ServerID]struct{} // those that are known to have an answer
	got  map[signalcluster.ServerID]struct{}
	done chan struct{} // closed when all have come
}

// changesAtOnce bounds what the members of a room are told in one go, far below what their send queues hold. The rest
// follows every changesPause.
const (
	changesAtOnce = 64
	changesPause  = 100 * time.Millisecond
)

// stateBytes is about how large a message with states becomes: below signalcluster.MaxMessage by one part of a room.
const stateBytes = 48 << 10

func newCluster(s *Server, bus signalcluster.Bus) *cluster {
	if bus == nil {
		return nil
	}
	cl := &cluster{
		s: s, bus: bus, id: signalcluster.NewServerID(), log: s.log,
		servers: map[signalcluster.ServerID]*otherServer{},
		rooms:   map[signaling.RoomID]*sharedRoom{},
		untold:  map[signaling.RoomID]struct{}{},
		asks:    map[uint64]*asked{},
	}
	bus.Subscribe(signalcluster.AllSubject)
	bus.Subscribe(signalcluster.ServerSubject(cl.id, "*"))
	cl.log.Info("cluster", "server", cl.id.String())
	return cl
}

// run takes what comes in and keeps time, until Shutdown.
func (cl *cluster) run() {
	beat := time.NewTicker(signalcluster.BeatInterval)
	defer beat.Stop()
	inventory := time.NewTicker(signalcluster.InventoryInterval)
	defer inventory.Stop()
	tell := time.NewTicker(changesPause)
	defer tell.Stop()
	cl.locked(func() { cl.broadcast(signalcluster.Message{Type: signalcluster.TypeBeat}) })
	for {
		select {
		case <-cl.s.closed:
			cl.locked(func() {
				cl.broadcast(signalcluster.Message{Type: signalcluster.TypeBye})
				cl.stopped = true
				cl.bus.Unsubscribe(signalcluster.AllSubject)
				cl.bus.Unsubscribe(signalcluster.ServerSubject(cl.id, "*"))
			})
			return
		case m := <-cl.bus.Messages():
			cl.receive(m)
		case <-cl.bus.Connects():
			cl.locked(func() { cl.inventory(signalcluster.AllSubject, true) })
		case now := <-beat.C:
			cl.locked(func() { cl.beat(now) })
		case <-inventory.C:
			cl.locked(func() { cl.inventory(signalcluster.AllSubject, false) })
		case <-tell.C:
			cl.locked(cl.tellRest)
		}
	}
}

func (cl *cluster) locked(f func()) {
	cl.s.mu.Lock()
	defer cl.s.mu.Unlock()
	f()
}

// tick returns a clock above all before.
func (cl *cluster) tick() uint64 {
	cl.clock = max(cl.clock+1, uint64(max(time.Now().UnixMilli(), 1)))
	return cl.clock
}

// publish sends a message, if it can be sent now. What is lost is found missing later.
func (cl *cluster) publish(subject, reply string, m signalcluster.Message) bool {
	if cl.stopped {
		return false
	}
	m.Server, m.Clock = cl.id, cl.tick()
	data, err := m.Marshal()
	if err != nil {
		cl.log.Error("a message to other servers cannot be written as JSON", "error", err)
		return false
	}
	if cl.bus.Publish(subject, reply, data) != nil {
		cl.s.metrics.clusterLost.Inc()
		return false
	}
	cl.s.metrics.clusterOut.Inc()
	return true
}

func (cl *cluster) broadcast(m signalcluster.Message) { cl.publish(signalcluster.AllSubject, "", m) }

// boxDirect is where a server gets what is not the answer to a question by number.
const boxDirect = "in"

func (cl *cluster) tellServer(id signalcluster.ServerID, m signalcluster.Message) bool {
	return cl.publish(signalcluster.ServerSubject(id, boxDirect), "", m)
}

func (cl *cluster) delta(id signaling.RoomID, d signalcluster.Delta) {
	d.Room = id
	cl.publish(signalcluster.RoomSubject(id), "", signalcluster.Message{Type: signalcluster.TypeDelta, Delta: &d})
}

// beat says that this server is there, and ends what is over.
func (cl *cluster) beat(now time.Time) {
	cl.broadcast(signalcluster.Message{Type: signalcluster.TypeBeat})
	for id, other := range cl.servers {
		if now.Sub(other.heard) >= signalcluster.Lease {
			cl.lost(id, now, "was not heard")
		}
	}
	for id, room := range cl.rooms {
		if room.Tick(now) {
			cl.update(id, room)
		}
		for _, server := range room.Stale(now) {
			cl.ask(server, []signalcluster.RoomVersion{{Room: id}})
		}
	}
}

// lost begins the grace time of all members of another server.
func (cl *cluster) lost(id signalcluster.ServerID, now time.Time, why string) {
	delete(cl.servers, id)
	cl.log.Info("another server of the cluster is gone", "server", id.String(), "why", why)
	for _, room := range cl.rooms {
		room.Lost(id, now.Add(cl.s.cfg.Load().Grace))
	}
}

// inventory sends the version of each room with members here.
func (cl *cluster) inventory(subject string, want bool) {
	list := make([]signalcluster.RoomVersion, 0, len(cl.rooms))
	for id, room := range cl.rooms {
		if own, _ := room.Counts(); own > 0 {
			list = append(list, signalcluster.RoomVersion{Room: id, Version: room.Version()})
		}
	}
	if len(list) == 0 {
		cl.publish(subject, "", signalcluster.Message{Type: signalcluster.TypeInventory, Want: want})
	}
	for part := range slices.Chunk(list, signalcluster.MaxList) {
		cl.publish(subject, "", signalcluster.Message{Type: signalcluster.TypeInventory, Want: want, Rooms: part})
		want = false
	}
}

func (cl *cluster) ask(server signalcluster.ServerID, rooms []signalcluster.RoomVersion) {
	for part := range slices.Chunk(rooms, signalcluster.MaxList) {
		cl.tellServer(server, signalcluster.Message{Type: signalcluster.TypeAsk, Rooms: part})
	}
}

// update tells the members here what has changed elsewhere, and gives up those who are members elsewhere now.
func (cl *cluster) update(id signaling.RoomID, shared *sharedRoom) {
	_, others := shared.Counts()
	cl.remote += others - shared.counted
	shared.counted = others
	room := cl.s.rooms[id]
	for _, loss := range shared.Losses() {
		cl.giveUp(id, shared, room, loss)
	}
	changes, more := shared.Changes(changesAtOnce)
	if delete(cl.untold, id); more {
		cl.untold[id] = struct{}{}
	}
	if room == nil {
		return
	}
	for _, c := range changes {
		if c.Left {
			cl.s.broadcast(id, room, c.Peer, signaling.MemberLeft{Peer: c.Peer})
		} else {
			cl.s.broadcast(id, room, c.Peer, signaling.MemberJoined{Member: c.Member})
		}
	}
	cl.s.settle(id, room)
}

// giveUp ends the membership here of a peer that is a member elsewhere.
func (cl *cluster) giveUp(id signaling.RoomID, shared *sharedRoom, room *signaling.Roster, loss signalcluster.Loss) {
	cl.delta(id, shared.Move(cl.tick(), loss.Peer))
	if room == nil {
		return
	}
	conn, ok := cl.s.conns[room.Evict(loss.Peer)]
	if !ok {
		return
	}
	switch {
	case loss.Theft:
		conn.fail(peerInUse(cl.s.cfg.Load().Grace))
	case loss.Record.Live:
		conn.fail(replaced)
	default: // nobody is at the other server now: this client, if it is there at all, is not to wait as one that is replaced does
		conn.fail(signaling.Error{Code: signaling.CodeIdle, Message: "This connection is not the latest of its peer; reconnect."})
	}
}

// tellRest goes on with what update has left.
func (cl *cluster) tellRest() {
	for id := range cl.untold {
		if room, ok := cl.rooms[id]; ok {
			cl.update(id, room)
		} else {
			delete(cl.untold, id)
		}
	}
}

// states sends what is here of rooms.
func (cl *cluster) states(server signalcluster.ServerID, rooms []signalcluster.RoomVersion, ask uint64) {
	var others []signalcluster.ServerID
	var list []signalcluster.State
	size := 0
	flush := func() {
		cl.tellServer(server, signalcluster.Message{Type: signalcluster.TypeState, States: list, Ask: ask, Others: others})
		list, size = nil, 0
	}
	for _, asked := range rooms {
		room, ok := cl.rooms[asked.Room]
		if !ok {
			room = &sharedRoom{Room: signalcluster.NewRoom(cl.id)}
		}
		if ask != 0 {
			others = room.Servers()
		}
		for _, state := range room.State(asked.Room, cl.tick()) {
			body, err := json.Marshal(state)
			if err != nil {
				cl.log.Error("the state of a room cannot be written as JSON", "error", err)
				return
			}
			if size += len(body); size > stateBytes && len(list) > 0 {
				flush()
				size = len(body)
			}
			list = append(list, state)
		}
	}
	if len(list) > 0 {
		flush()
	}
}

// badMessages bounds what is logged about them.
type badMessages struct {
	said time.Time
	more int
}

// badPause is the least time between two lines in the log about messages that were dropped.
const badPause = 10 * time.Second

// drop counts a message that is of no use, and says so.
func (cl *cluster) drop(now time.Time, why string) {
	cl.s.metrics.clusterBad.Inc()
	if now.Sub(cl.bad.said) < badPause {
		cl.bad.more++
		return
	}
	cl.log.Warn("a message from NATS was dropped; only servers of one cluster may use its account", "why", why, "more", cl.bad.more)
	cl.bad = badMessages{said: now}
}
