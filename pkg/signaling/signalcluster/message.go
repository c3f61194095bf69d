package signalcluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/crmesh/crmesh/pkg/signaling"
)

// Type is the type of a Message.
type Type string

// The types. What belongs to each is said in Message.
const (
	TypeBeat        Type = "beat"        // I am there. To all.
	TypeBye         Type = "bye"         // I stop. To all.
	TypeInventory   Type = "inventory"   // The versions of my rooms: Rooms, Want. To all, or to one.
	TypeAsk         Type = "ask"         // Send me the State of Rooms: Rooms, Ask. To a room, or to one.
	TypeState       Type = "state"       // States, and Ask and Others if it is an answer. To one.
	TypeDelta       Type = "delta"       // Delta. To its room.
	TypeEnvelope    Type = "envelope"    // Room, From, To, Sealed. To the server that has To.
	TypeUndelivered Type = "undelivered" // Room, From, To: the envelope did not find To. To the server that has From.
)

// Message is what servers send each other, as JSON.
type Message struct {
	Type   Type     `json:"type"`
	Server ServerID `json:"server"` // who sends it
	// Clock is the sender's: milliseconds since 1970, or more, if that is needed to be above all that it has seen.
	Clock uint64 `json:"clock"`

	// Want asks for the inventory of whoever gets this one.
	Want  bool          `json:"want,omitempty"`
	Rooms []RoomVersion `json:"rooms,omitempty"`
	// Ask numbers a question; 0: the answer needs none.
	Ask    uint64     `json:"ask,omitempty"`
	States []State    `json:"states,omitempty"`
	Others []ServerID `json:"others,omitempty"` // who else has members in the room that was asked for
	Delta  *Delta     `json:"delta,omitempty"`

	Room   signaling.RoomID `json:"room,omitzero"`
	From   signaling.PeerID `json:"from,omitzero"`
	To     signaling.PeerID `json:"to,omitzero"`
	Sealed string           `json:"sealed,omitempty"`
}

// RoomVersion names a version of the sender's members in a room.
type RoomVersion struct {
	Room    signaling.RoomID `json:"room"`
	Version uint64           `json:"version,omitempty"`
}

// State is all members that the sender has in a room, or one of Parts parts of them, which come in order.
type State struct {
	Room    signaling.RoomID `json:"room"`
	Version uint64           `json:"version"`
	Part    int              `json:"part,omitempty"` // from 0
	Parts   int              `json:"parts"`
	Members []Record         `json:"members,omitempty"`
}

// Delta is a change from version Prev to Version; if Prev is 0, Set is all members. Left have left the room, Moved
// are now members at another server.
type Delta struct {
	Room    signaling.RoomID   `json:"room"`
	Prev    uint64             `json:"prev,omitempty"`
	Version uint64             `json:"version"`
	Set     []Record           `json:"set,omitempty"`
	Left    []signaling.PeerID `json:"left,omitempty"`
	Moved   []signaling.PeerID `json:"moved,omitempty"`
}

// Record is a member at a server.
type Record struct {
	Peer signaling.PeerID `json:"peer"`
	Meta signaling.Meta   `json:"meta"`
	// Gen is the clock of the server at the last join or resume there.
	Gen uint64 `json:"gen"`
	// Began is the Gen with which the membership began, wherever that was.
	Began uint64 `json:"began"`
	// Token is the hash of the resume token.
	Token TokenHash `json:"token"`
	// Live says that it is connected, not in its grace time.
	Live bool `json:"live,omitempty"`
}

// Errors of Parse, besides those that say what is wrong.
var (
	// ErrUnknownType marks a message of a later version: to be ignored.
	ErrUnknownType = errors.New("the type of the message is unknown")
	// ErrBadMessage marks a message that no server of this kind has sent.
	ErrBadMessage = errors.New("it is not a message of a signaling server")
)

// Marshal returns the JSON of m.
func (m Message) Marshal() ([]byte, error) { return json.Marshal(m) }

// Parse reads a message and checks all that can be checked without knowing more; whatever it returns is safe to use. The
// error wraps ErrUnknownType or ErrBadMessage and does not quote the message.
func Parse(data []byte) (Message, error) {
	if len(data) > MaxMessage {
		return Message{}, fmt.Errorf("%w: it has more than %d bytes", ErrBadMessage, MaxMessage)
	}
	if !utf8.Valid(data) {
		return Message{}, fmt.Errorf("%w: it is not UTF-8", ErrBadMessage)
	}
	var m Message
	if err := json.Unmarshal(data, &m); err != nil {
		return Message{}, fmt.Errorf("%w: its JSON does not fit", ErrBadMessage) // err may quote it
	}
	if err := m.check(); err != nil {
		return Message{}, err
	}
	return m, nil
}

func (m *Message) check() error {
	bad := func(what string) error { return fmt.Errorf("%w: %s", ErrBadMessage, what) }
	if m.Server == (ServerID{}) || m.Clock == 0 {
		return bad("it has no sender or no clock")
	}
	if len(m.Rooms) > MaxList || len(m.States) > MaxList || len(m.Others) > MaxList {
		return bad("a list is too long")
	}
	switch m.Type {
	case TypeBeat, TypeBye, TypeInventory, TypeAsk:
	case TypeState:
		for _, s := range m.States {
			if s.Parts < 1 || s.Part < 0 || s.Part >= s.Parts || s.Parts > MaxRecords || s.Version == 0 || s.Version > m.Clock {
				return bad("a state has impossible numbers")
			}
			if err := m.checkRecords(s.Members); err != nil {
				return err
			}
		}
	case TypeDelta:
		d := m.Delta
		if d == nil || d.Version <= d.Prev || d.Version > m.Clock {
			return bad("a delta has impossible numbers")
		}
		if len(d.Left) > MaxRecords || len(d.Moved) > MaxRecords {
			return bad("a list is too long")
		}
		return m.checkRecords(d.Set)
	case TypeEnvelope:
		if m.Sealed == "" || len(m.Sealed) > signaling.MaxSealed || m.From == m.To {
			return bad("an envelope has nothing or too much in it, or comes from who gets it")
		}
	case TypeUndelivered:
	default:
		return ErrUnknownType
	}
	return nil
}

func (m *Message) checkRecords(list []Record) error {
	if len(list) > MaxRecords {
		return fmt.Errorf("%w: a list is too long", ErrBadMessage)
	}
	for _, r := range list {
		if r.Gen == 0 || r.Began == 0 || r.Began > r.Gen || r.Gen > m.Clock {
			return fmt.Errorf("%w: a member has impossible numbers", ErrBadMessage)
		}
		if r.Meta.Check() != nil {
			return fmt.Errorf("%w: a member has a name that cannot be", ErrBadMessage)
		}
	}
	return nil
}
