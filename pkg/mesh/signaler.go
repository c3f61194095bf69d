package mesh

import (
	"time"

	"github.com/crmesh/crmesh/pkg/signaling"
)

// Signaler introduces the Node to the other members of its room. It belongs to whoever made it: the Node does not
// close it.
type Signaler interface {
	// Events returns the channel of what happens, in order. It does not block and is the same at every call. The Node
	// reads it without delay until Close. A channel that is closed means that no more introductions come.
	Events() <-chan SignalEvent
	// Send passes a description on to a member. It must not block for longer than it takes to queue it. An error means
	// that it was not sent; the Node tries again in its own time.
	Send(to signaling.PeerID, d signaling.Description) error
	// Check says that the network may have changed: the connection to the server may be dead without a word. It does not block.
	Check()
}

// SignalEvent is one of Joined, MemberJoined, MemberLeft, Signal, Unreachable and Disconnected.
type SignalEvent interface{ signalEvent() }

// Joined says that the signaling server took us in, first or again, or that it has new ICE servers. A member that was
// known and is not among Members stays one until MemberLeft.
type Joined struct {
	Members    []signaling.Member    // the others that the server knows
	ICEServers []signaling.ICEServer // for connections made from now on
}

// MemberJoined says that a member is there, or has new meta.
type MemberJoined struct{ Member signaling.Member }

// MemberLeft says that a member left the room. An open link to it stays.
type MemberLeft struct{ Peer signaling.PeerID }

// Signal is a description from a member, out of an envelope that opened.
type Signal struct {
	From        signaling.PeerID
	Description signaling.Description
}

// Unreachable says that the server could not pass something on to a member, for it is not connected to it now.
type Unreachable struct{ Peer signaling.PeerID }

// Disconnected says that the server is out of reach. Links stay.
type Disconnected struct {
	Err     error
	RetryIn time.Duration
}

func (Joined) signalEvent()       {}
func (MemberJoined) signalEvent() {}
func (MemberLeft) signalEvent()   {}
func (Signal) signalEvent()       {}
func (Unreachable) signalEvent()  {}
func (Disconnected) signalEvent() {}
