package signalclient

import (
	"time"

	"github.com/crmesh/crmesh/pkg/signaling"
)

// Event is one of Joined, MemberJoined, MemberLeft, Signal, Unreachable and Disconnected.
type Event interface{ event() }

type (
	// Joined tells that the peer is a member of the room at a server: at the
	// start, after each loss, when ICE credentials were renewed and when a server
	// that stops handed over to its successor.
	Joined struct {
		URL        string
		Members    []signaling.Member // the others that this server knows, in order of id
		ICEServers []signaling.ICEServer
		Expires    time.Time // of the credentials in ICEServers; zero: never
		Resumed    bool      // the others did not see this peer go
	}
	// MemberJoined tells of a new member, or new meta of a known one.
	MemberJoined struct{ Member signaling.Member }
	// MemberLeft tells that a member is gone. Links to it may still be alive,
	// when only its signaling is broken.
	MemberLeft struct{ Peer signaling.PeerID }
	// Signal is a description that a member has sent to this peer.
	Signal struct {
		From        signaling.PeerID
		Description signaling.Description
	}
	// Unreachable tells that the server could not pass an envelope on: the
	// member is not connected to it now.
	Unreachable struct{ Peer signaling.PeerID }
	// Disconnected tells that the server is lost, or that an attempt to reach
	// one has failed, and when the next one follows. The members stay listed:
	// links to them do not depend on the server.
	Disconnected struct {
		URL     string
		Err     error
		RetryIn time.Duration
	}
)

func (Joined) event()       {}
func (MemberJoined) event() {}
func (MemberLeft) event()   {}
func (Signal) event()       {}
func (Unreachable) event()  {}
func (Disconnected) event() {}
