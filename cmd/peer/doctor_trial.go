package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
	"github.com/crmesh/crmesh/pkg/mesh"
	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
	"github.com/crmesh/crmesh/pkg/signaling"
)

// trialLook is the time between two looks at how far the trial link is.
const trialLook = 50 * time.Millisecond

// trial makes a link to one member, as a reader without a database, and leaves it with bye once both have said hello.
func (d *doctor) trial(ctx context.Context, room *probeRoom) {
	if d.keys.Room == (signaling.RoomID{}) || room.id == (signaling.PeerID{}) {
		return // no room was named
	}
	if len(room.members) == 0 {
		d.bad("link", "start a peer, or open the page, with this link somewhere else, and run this again", "nobody else is in the room")
		return
	}
	target, ok := trialTarget(room.members)
	if !ok {
		d.bad("link", "start a peer, or open the page, with the write link somewhere else, and run this again",
			"only readers are in the room, and two readers are never linked")
		return
	}
	d.doing("trying a link to " + printable(nameOf(target)))
	s := room.signaler(target)
	defer s.close()
	node, err := mesh.Start(ctx, mesh.Config{
		Store: newNoStore(), Signaler: s, Peer: room.id, Keys: d.keys, Net: d.net, Logger: d.log, ICEServers: bounded(d.servers),
		RelayOnly: d.relayOnly,
	})
	if err != nil {
		d.bad("link", "report this as a fault of the program", "no trial link could be made: %v", err)
		return
	}
	defer func() { _ = node.Close() }() // says bye
	limit := time.After(d.trialTimeout)
	look := time.NewTicker(trialLook)
	defer look.Stop()
	var last mesh.MemberStatus
	for {
		status, err := node.Status(ctx)
		if err != nil {
			return // ctx ended
		}
		if len(status.Members) > 0 {
			last = status.Members[0]
		}
		if last.Live {
			d.good("link", "a link to %s works; it is a %s", nameOf(target), last.Role)
			return
		}
		if last.State == mesh.LinkWaiting && last.Error != "" {
			break // the attempt is over
		}
		select {
		case <-look.C:
			continue
		case <-limit:
		case <-ctx.Done():
			return
		}
		break
	}
	found, advice := failedAt(last)
	d.bad("link", advice, "the trial link to %s fails at the stage %s", nameOf(target), found)
}

// trialTarget returns a writer, and one that is always on where there is one.
func trialTarget(members []signaling.Member) (target signaling.Member, ok bool) {
	for _, m := range members {
		if !m.Meta.Reader && (!ok || m.Meta.Replica && !target.Meta.Replica) {
			target, ok = m, true
		}
	}
	return target, ok
}

// failedAt names the stage of a link that did not come about, and what a person can do.
func failedAt(m mesh.MemberStatus) (found, advice string) {
	why := ""
	if m.Error != "" {
		why = ": " + m.Error
	}
	if m.Error == mesh.ErrNoRelay.Error() {
		return "gather (TURN)" + why, "see the findings about TURN servers above"
	}
	switch m.Reached {
	case mesh.LinkChecking:
		return "check (ICE)" + why, "let UDP out of both networks; give one replica --udp-port or --tcp-port and open it, or set up a TURN server"
	case mesh.LinkSecuring:
		return "DTLS" + why, "see whether something in between inspects or shortens UDP packets, or take another path with --tcp-port or a TURN server"
	case mesh.LinkOpening:
		return "SCTP" + why, "see whether something in between inspects or shortens UDP packets, or take another path with --tcp-port or a TURN server"
	case mesh.LinkOpen:
		return "hello" + why, "update both ends to the same version, and see in the member's log why it refuses"
	default:
		return "signal" + why, "see whether the member still runs and is not stopped or asleep; it did not answer the offer"
	}
}

func nameOf(m signaling.Member) string {
	if m.Meta.Name != "" {
		return fmt.Sprintf("%q", m.Meta.Name)
	}
	return m.Peer.String()
}

func bounded(s []signaling.ICEServer) []signaling.ICEServer {
	return s[:min(len(s), mesh.MaxICEServers)]
}

// oneMember is a membership as the mesh wants it, in which there is one other member.
type oneMember struct {
	room   *probeRoom
	target signaling.Member
	events chan mesh.SignalEvent
	stop   context.CancelFunc
	wg     sync.WaitGroup
}

func (s *oneMember) Events() <-chan mesh.SignalEvent { return s.events }

func (s *oneMember) Send(to signaling.PeerID, d signaling.Description) error {
	return s.room.client.Send(to, d)
}

func (s *oneMember) Check() { s.room.client.Check() }

func (s *oneMember) close() {
	s.stop()
	s.wg.Wait()
}

func (s *oneMember) translate(ctx context.Context) {
	for {
		select {
		case e, open := <-s.room.client.Events():
			if !open {
				return
			}
			t := translated(e)
			if signal, ok := t.(mesh.Signal); !ok || signal.From != s.target.Peer {
				continue
			}
			select {
			case s.events <- t:
			case <-ctx.Done():
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// noStore is a store that holds nothing, keeps nothing and says so.
type noStore struct {
	site    syncproto.SiteID
	commits chan struct{}
}

func newNoStore() noStore {
	var site [16]byte
	_, _ = rand.Read(site[:]) // never fails
	return noStore{syncproto.SiteID(site[:]), make(chan struct{})}
}

func (s noStore) State(context.Context) (mesh.State, error) { return mesh.State{Site: s.site}, nil }

func (noStore) Heads(context.Context) (mesh.Heads, error) { return mesh.Heads{}, nil }

func (noStore) Read(_ context.Context, r syncproto.ReadRequest) (syncproto.ReadResult, error) {
	return syncproto.ReadResult{ID: r.ID, Link: r.Link, Next: r.After, End: true}, nil
}

func (noStore) Apply(_ context.Context, r syncproto.ApplyRequest) (syncproto.ApplyResult, error) {
	return syncproto.ApplyResult{ID: r.ID, Ls: make([]int64, len(r.Groups)), Changed: make([]int64, len(r.Groups))}, nil
}

func (noStore) Digest(context.Context, syncproto.DigestRequest) (syncproto.DigestAnswer, error) {
	return syncproto.DigestAnswer{Kind: syncproto.DigestNoTable}, nil
}

func (noStore) Rows(context.Context, string, []changeset.Place, int) ([]syncproto.Entry, error) {
	return nil, nil
}

func (noStore) Schema(context.Context) ([]syncproto.TableSchema, error) { return nil, nil }

func (noStore) TakeSchema(context.Context, syncproto.SchemaRequest) error { return nil }

func (noStore) Parked(context.Context) (mesh.ParkedStatus, error) { return mesh.ParkedStatus{}, nil }

func (noStore) Replay(context.Context) error { return nil }

func (noStore) Renew(context.Context, string) error {
	return &mesh.NoRenewalError{Err: errors.New("there is no database")}
}

func (s noStore) Commits() <-chan struct{} { return s.commits }
