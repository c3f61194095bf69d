package syncproto

import (
	"encoding/binary"
	"slices"
)

// A frame is one message of the data channel: a type byte and a payload.
const (
	MaxFrame         = 16384 // bytes of a frame that is sent, the type byte included
	MaxFrameAccepted = 65536 // bytes of a frame that is accepted
)

// FrameKind is a frame's type byte.
type FrameKind byte

// The frames.
const (
	FramePart FrameKind = 0 // a part of a message; more follow
	FrameLast FrameKind = 1 // the last part of a message
	FramePing FrameKind = 2 // 8 bytes to be sent back
	FramePong FrameKind = 3 // the 8 bytes of a ping
)

// AppendFrame appends to dst a frame with as much of message as fits, and returns it and what is left of message: nil
// once the frame was the last. The message is not empty.
func AppendFrame(dst, message []byte) (frame, rest []byte) {
	if n := MaxFrame - 1; len(message) > n {
		return append(append(dst, byte(FramePart)), message[:n]...), message[n:]
	}
	return append(append(dst, byte(FrameLast)), message...), nil
}

// AppendPing appends a ping frame to dst.
func AppendPing(dst []byte, token uint64) []byte { return appendToken(dst, FramePing, token) }

// AppendPong appends a pong frame to dst.
func AppendPong(dst []byte, token uint64) []byte { return appendToken(dst, FramePong, token) }

func appendToken(dst []byte, kind FrameKind, token uint64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, byte(kind)), token)
}

// Frame is what an Assembler made of one frame.
type Frame struct {
	Kind    FrameKind
	Message []byte // of FrameLast: the whole message, owned by the caller
	Token   uint64 // of FramePing and FramePong
}

// Assembler puts the messages of one link together from its frames.
type Assembler struct {
	max   int
	limit int // of the next message
	buf   []byte
}

// NewAssembler returns an Assembler of messages of at most maxMessage bytes, and of at most MinMaxMessage until a hello has
// come that claims the writer role: nothing that a reader has to say is longer, and a member that proves nothing makes
// nobody keep 64 MiB of a message that never ends.
func NewAssembler(maxMessage int) *Assembler {
	return &Assembler{max: maxMessage, limit: min(maxMessage, MinMaxMessage)}
}

// Frame takes the next frame; it copies what it keeps. After an error, which is an *Error, the link is of no more use.
func (a *Assembler) Frame(b []byte) (Frame, error) {
	if len(b) > MaxFrameAccepted {
		return Frame{}, &Error{CodeTooLarge, "a frame is longer than 65536 bytes"}
	}
	if len(b) < 2 {
		return Frame{}, malformed("a frame has no payload")
	}
	kind, payload := FrameKind(b[0]), b[1:]
	switch kind {
	case FramePing, FramePong:
		if len(payload) != 8 {
			return Frame{}, malformed("a ping or pong does not carry 8 bytes")
		}
		return Frame{Kind: kind, Token: binary.BigEndian.Uint64(payload)}, nil
	case FramePart, FrameLast:
		if len(payload) > a.limit-len(a.buf) {
			return Frame{}, &Error{CodeTooLarge, "a message is longer than this peer accepts"}
		}
	default:
		return Frame{}, malformed("a frame has the unknown type %d", kind)
	}
	if kind == FramePart {
		a.buf = append(a.buf, payload...)
		return Frame{Kind: kind}, nil
	}
	message := append(a.buf, payload...)
	a.buf = nil
	if claimsWriter(message) {
		a.limit = a.max
	}
	return Frame{Kind: kind, Message: slices.Clip(message)}, nil
}
