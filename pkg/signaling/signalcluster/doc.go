// Package signalcluster is what several signaling servers need to act as one: the messages that they send each other,
// and Room, which merges the members that each of them has. Both are without clock, lock and I/O; the signaling server
// owns those. Package natsbus carries the messages over NATS.
//
// Each server says which members it has, and it alone; so there is nothing to agree on but who has a peer of which two
// servers say that they have it, and that follows from the two records (Room.Winner). What gets lost on the way is
// noticed by its version and asked for again.
package signalcluster

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"time"

	"github.com/crmesh/crmesh/pkg/signaling"
)

// The times and bounds of a cluster. All servers of one have the same.
const (
	// BeatInterval is how often a server says that it is there.
	BeatInterval = time.Second
	// Lease is how long a server counts as there after it was last heard. Then its members are in their grace time.
	Lease = 5 * time.Second
	// Linger is how long a member stays that one server says to have no more and no other says to have yet.
	Linger = 5 * time.Second
	// InventoryInterval is how often a server says which version of each of its rooms is the latest.
	InventoryInterval = 10 * time.Second
	// StaleAfter is how long a room of another server is believed without having been in an inventory.
	StaleAfter = 5 * InventoryInterval / 2
	// AskInterval is the least time between two questions to one server about one room.
	AskInterval = time.Second
	// AskTimeout bounds how long the first member of a room at a server waits for what other servers have of it.
	AskTimeout = 300 * time.Millisecond
	// MaxSkew is how far the clock of another server may be ahead. What comes from beyond is dropped.
	MaxSkew = 5 * time.Minute

	// MaxMessage bounds a message, in bytes. NATS lets a megabyte pass unless told otherwise.
	MaxMessage = 128 << 10
	// MaxServers bounds the other servers that one server knows.
	MaxServers = 256
	// MaxRecords bounds the members of one room at one server, and what is kept of them.
	MaxRecords = 1024
	// MaxList bounds each other list in a message.
	MaxList = 1024
	// PartRecords is how many members go into one message; a room with more is sent in parts.
	PartRecords = 128
)

// ServerID names a server for one run of it: 16 random bytes.
type ServerID [16]byte

// NewServerID returns a random id.
func NewServerID() ServerID {
	var id ServerID
	_, _ = rand.Read(id[:]) // never fails
	return id
}

// TokenHash stands for a resume token, which no other server and no NATS gets to see.
type TokenHash [16]byte

const tokenLabel = "crmesh resume 1\x00"

// HashToken returns the hash of a resume token.
func HashToken(token string) TokenHash {
	sum := sha256.Sum256([]byte(tokenLabel + token))
	return TokenHash(sum[:16])
}

var strict64 = base64.RawURLEncoding.Strict()

var errID = errors.New("an id or hash is 16 bytes of base64url")

func parse16(dst *[16]byte, text []byte) error {
	if len(text) != strict64.EncodedLen(len(dst)) {
		return errID
	}
	b, err := strict64.DecodeString(string(text))
	if err != nil || len(b) != len(dst) {
		return errID
	}
	*dst = [16]byte(b)
	return nil
}

// String returns the id as in messages and subjects.
func (s ServerID) String() string { return strict64.EncodeToString(s[:]) }

// MarshalText implements encoding.TextMarshaler.
func (s ServerID) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *ServerID) UnmarshalText(text []byte) error { return parse16((*[16]byte)(s), text) }

// MarshalText implements encoding.TextMarshaler.
func (h TokenHash) MarshalText() ([]byte, error) {
	return []byte(strict64.EncodeToString(h[:])), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *TokenHash) UnmarshalText(text []byte) error { return parse16((*[16]byte)(h), text) }

// Subjects of NATS. All begin with Prefix, so that an account can be limited to them.
const (
	Prefix = "crmesh.signal.1."
	// AllSubject is for all servers: beats, inventories.
	AllSubject = Prefix + "all"
)

// RoomSubject is for the servers with members in the room.
func RoomSubject(room signaling.RoomID) string { return Prefix + "room." + room.String() }

// ServerSubject is for one server. box is a token of letters and digits, or "*" to subscribe to all.
func ServerSubject(id ServerID, box string) string {
	return Prefix + "server." + id.String() + "." + box
}

// Bus carries messages between servers: each to all others that have subscribed to its subject, at most once, and in
// order from one server to another. No method blocks but Close. All may be called from any goroutine.
type Bus interface {
	// Publish queues a message. If reply is not empty and nobody has subscribed to the subject, a message without data
	// comes back to reply. The error says that nothing was queued: there is no connection, or the queue is full.
	Publish(subject, reply string, data []byte) error
	// Subscribe and Unsubscribe begin and end the delivery of a subject. They hold through losses of the connection,
	// and take effect before what is published later.
	Subscribe(subject string)
	Unsubscribe(subject string)
	// Messages returns what comes in. It is bounded in messages and bytes: what a server does not take in time is lost. Missed counts
	// what was.
	Messages() <-chan BusMessage
	Missed() uint64
	// Connected tells whether there is a connection now, and Connects signals that there is one again.
	Connected() bool
	Connects() <-chan struct{}
}

// BusMessage is a message that came in. Data is empty if it says that nobody has subscribed to what was published with
// this subject as reply.
type BusMessage struct {
	Subject string
	Data    []byte
}
