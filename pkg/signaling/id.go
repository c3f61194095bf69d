package signaling

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
)

// RoomID names a room at the server. It is derived from the room's secret.
type RoomID [16]byte

// PeerID names a member of a room for one session. It is random.
type PeerID [16]byte

// NewPeerID returns a random peer id. It fails only if rand does.
func NewPeerID(rand io.Reader) (PeerID, error) {
	var id PeerID
	if _, err := io.ReadFull(rand, id[:]); err != nil {
		return PeerID{}, fmt.Errorf("signaling: no random bytes for a peer id: %w", err)
	}
	return id, nil
}

// Compare orders peer ids by their bytes: -1, 0 or 1. Of two members the
// greater one offers, the lesser one is polite.
func (p PeerID) Compare(q PeerID) int { return bytes.Compare(p[:], q[:]) }

// String returns the id as on the wire, 22 characters of base64url.
func (p PeerID) String() string { return encode(p[:]) }

// String returns the id as on the wire, 22 characters of base64url.
func (r RoomID) String() string { return encode(r[:]) }

// MarshalText returns the wire form, so that an id in a JSON message is a string.
func (p PeerID) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// MarshalText returns the wire form, so that an id in a JSON message is a string.
func (r RoomID) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText accepts the canonical wire form only.
func (p *PeerID) UnmarshalText(text []byte) error { return decodeInto(p[:], string(text), "peer id") }

// UnmarshalText accepts the canonical wire form only.
func (r *RoomID) UnmarshalText(text []byte) error { return decodeInto(r[:], string(text), "room id") }

// ParsePeerID reads the wire form of a peer id.
func ParsePeerID(s string) (PeerID, error) {
	var id PeerID
	err := decodeInto(id[:], s, "peer id")
	return id, err
}

// strict64 refuses non-zero trailing bits, so that each value has one spelling.
var strict64 = base64.RawURLEncoding.Strict()

func encode(b []byte) string { return strict64.EncodeToString(b) }

// decodeInto fills dst from exactly the base64url text of len(dst) bytes. The
// length is checked on the text, too: Go's decoder skips line breaks.
func decodeInto(dst []byte, s, what string) error {
	if len(s) != strict64.EncodedLen(len(dst)) {
		return fmt.Errorf("signaling: a %s has %d base64url characters, not %d",
			what, strict64.EncodedLen(len(dst)), len(s))
	}
	b, err := strict64.DecodeString(s)
	if err != nil || len(b) != len(dst) {
		return fmt.Errorf("signaling: a %s is base64url without padding, this one is not", what)
	}
	copy(dst, b)
	return nil
}
