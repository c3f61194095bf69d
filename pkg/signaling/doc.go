// Package signaling holds what members of a room and the signaling server
// agree on: room links and the keys behind them, sealed envelopes, the
// descriptions inside, role proofs, the JSON messages on the WebSocket, and
// the membership of a room. docs/SIGNALING.md is the specification.
//
// The package does no I/O, starts no goroutine and reads no clock: time and
// randomness are handed in. Nothing here blocks. Values are safe to use from
// several goroutines as long as none of them writes; a Roster belongs to one
// goroutine at a time.
package signaling

// Limits of the protocol. They are the same everywhere; limits that an
// operator may choose are in signalserver.Config.
const (
	// Subprotocol is the WebSocket subprotocol both sides must name.
	Subprotocol = "crmesh.signal.1"
	// Path is where the server takes WebSockets, relative to its base address.
	Path = "v1/signal"

	// MaxClientFrame bounds one text frame from client to server, in bytes.
	MaxClientFrame = 64 << 10
	// MaxServerFrame bounds one text frame from server to client, in bytes.
	// It is larger because joined lists every member of a room.
	MaxServerFrame = 256 << 10
	// MaxDescription bounds the plaintext of an envelope, in bytes.
	MaxDescription = 32 << 10
	// MaxSealed bounds the base64url text of an envelope, in characters.
	MaxSealed = (MaxDescription+sealOverhead)*4/3 + 1
	// MaxSDP bounds the sdp of an offer or answer, in bytes.
	MaxSDP = 24 << 10
	// MaxName bounds Meta.Name, in bytes.
	MaxName = 64
	// MaxToken bounds a resume token, in characters.
	MaxToken = 64
	// MaxSession is the greatest session number: what a JavaScript number holds exactly.
	MaxSession = 1<<53 - 1
)
