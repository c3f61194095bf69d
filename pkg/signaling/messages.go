package signaling

import (
	"encoding/json"
	"errors"
	"fmt"
	"unicode"
	"unicode/utf8"
)

// Types of message, the value of the field "type".
const (
	TypeJoin         = "join"
	TypeJoined       = "joined"
	TypeMemberJoined = "member-joined"
	TypeMemberLeft   = "member-left"
	TypeMoving       = "moving"
	TypeSignal       = "signal"
	TypeLeave        = "leave"
	TypeError        = "error"
	TypePing         = "ping"
	TypePong         = "pong"
)

// Meta is what a member tells the others about itself through the server,
// which can read it.
type Meta struct {
	// Replica says: always on, prefer me for links.
	Replica bool `json:"replica"`
	// Reader says: I joined with the read link, and have nothing that others may take from me.
	Reader bool `json:"reader,omitempty"`
	// Name is for people: at most MaxName bytes, no control characters.
	Name string `json:"name"`
}

// Member is one member of a room.
type Member struct {
	Peer PeerID `json:"peer"`
	Meta Meta   `json:"meta"`
}

// ICEServer is an entry of the iceServers of new RTCPeerConnection.
type ICEServer struct {
	URLs       []string `json:"urls"`
	Username   string   `json:"username,omitempty"`
	Credential string   `json:"credential,omitempty"`
}

// Message is any of the messages below.
type Message interface{ messageType() string }

// The messages. A client sends Join, Signal (with To), Leave and Ping, the
// server the others and Signal (with From).
type (
	// Join asks to become a member. It comes first, and once.
	Join struct {
		Room      RoomID `json:"room"`
		Peer      PeerID `json:"peer"`
		Token     string `json:"token,omitempty"`     // of an earlier Joined
		Admission string `json:"admission,omitempty"` // the join token, for servers that ask for one
		Meta      Meta   `json:"meta"`
	}
	// Joined answers Join.
	Joined struct {
		Peer       PeerID      `json:"peer"`
		Token      string      `json:"token"`
		Members    []Member    `json:"members"` // the others, in order of id
		ICEServers []ICEServer `json:"iceServers"`
		TTL        int         `json:"ttl"` // seconds the credentials last, 0: for ever
		Resumed    bool        `json:"resumed"`
	}
	// MemberJoined announces a new member, or new meta of a known one.
	MemberJoined struct{ Member }
	// MemberLeft announces that a member is gone.
	MemberLeft struct {
		Peer PeerID `json:"peer"`
	}
	// Moving tells that the server stops soon: reconnect, with the token, after a
	// random time of at most Within. Until then it serves as before.
	Moving struct {
		Within int `json:"within"` // seconds
	}
	// SignalTo is the signal that a client sends.
	SignalTo struct {
		To     PeerID `json:"to"`
		Sealed string `json:"sealed"` // at most MaxSealed characters
	}
	// SignalFrom is the signal that a client receives.
	SignalFrom struct {
		From   PeerID `json:"from"`
		Sealed string `json:"sealed"`
	}
	// Leave ends the membership at once.
	Leave struct{}
	// Ping asks for a Pong.
	Ping struct{}
	// Pong answers Ping.
	Pong struct{}
	// Error says what went wrong. Codes other than CodeUnreachable are
	// followed by the end of the connection.
	Error struct {
		Code       Code    `json:"code"`
		Message    string  `json:"message"`
		RetryAfter int     `json:"retryAfter,omitempty"` // seconds
		Peer       *PeerID `json:"peer,omitempty"`       // of CodeUnreachable
	}
)

func (Join) messageType() string         { return TypeJoin }
func (Joined) messageType() string       { return TypeJoined }
func (MemberJoined) messageType() string { return TypeMemberJoined }
func (MemberLeft) messageType() string   { return TypeMemberLeft }
func (Moving) messageType() string       { return TypeMoving }
func (SignalTo) messageType() string     { return TypeSignal }
func (SignalFrom) messageType() string   { return TypeSignal }
func (Leave) messageType() string        { return TypeLeave }
func (Ping) messageType() string         { return TypePing }
func (Pong) messageType() string         { return TypePong }
func (Error) messageType() string        { return TypeError }

func (e Error) Error() string { return string(e.Code) + ": " + e.Message }

// Errors of ParseClientMessage and ParseServerMessage.
var (
	// ErrBadMessage marks a frame that breaks the grammar.
	ErrBadMessage = errors.New("the frame is not a message of this protocol")
	// ErrBadUTF8 marks a text frame that is not text.
	ErrBadUTF8 = errors.New("the frame is not UTF-8")
	// ErrUnknownType marks a message of a later version: to be ignored.
	ErrUnknownType = errors.New("unknown type of message")
)

// MarshalMessage returns the JSON of m, "type" first.
func MarshalMessage(m Message) ([]byte, error) {
	if j, ok := m.(Joined); ok { // lists are lists on the wire, never null
		if j.Members == nil {
			j.Members = []Member{}
		}
		if j.ICEServers == nil {
			j.ICEServers = []ICEServer{}
		}
		m = j
	}
	body, err := marshalJSON(m)
	if err != nil {
		return nil, fmt.Errorf("signaling: message %s: %w", m.messageType(), err)
	}
	b := make([]byte, 0, len(body)+len(`{"type":"member-joined",`))
	b = append(b, `{"type":"`...)
	b = append(b, m.messageType()...)
	b = append(b, '"')
	if len(body) > len(`{}`) {
		b = append(b, ',')
	}
	return append(b, body[1:]...), nil
}

// ParseClientMessage reads a frame from a client: Join, SignalTo, Leave or
// Ping. The caller has bounded the frame by MaxClientFrame. The error wraps
// ErrBadUTF8, ErrBadMessage or ErrUnknownType and never quotes the frame.
func ParseClientMessage(frame []byte) (Message, error) {
	return parseFrame(frame, object.clientMessage)
}

func (o object) clientMessage(typ string) (m Message, err error) {
	switch typ {
	case TypeJoin:
		return o.join()
	case TypeSignal:
		var m SignalTo
		m.Sealed, err = o.signal("to", &m.To)
		return m, err
	case TypeLeave:
		return Leave{}, nil
	case TypePing:
		return Ping{}, nil
	}
	return nil, ErrUnknownType
}

// ParseServerMessage reads a frame from a server: Joined, MemberJoined,
// MemberLeft, Moving, SignalFrom, Error or Pong. The caller has bounded the frame by
// MaxServerFrame. Errors are those of ParseClientMessage.
func ParseServerMessage(frame []byte) (Message, error) {
	return parseFrame(frame, object.serverMessage)
}

func (o object) serverMessage(typ string) (m Message, err error) {
	switch typ {
	case TypeJoined:
		return o.joined()
	case TypeMemberJoined:
		member, err := o.member()
		return MemberJoined{member}, err
	case TypeMemberLeft:
		var m MemberLeft
		err = o.need("peer", &m.Peer)
		return m, err
	case TypeMoving:
		var m Moving
		if err := o.need("within", &m.Within); err != nil {
			return nil, err
		}
		if m.Within < 0 {
			return nil, fmt.Errorf("%w: field \"within\" is negative", ErrBadMessage)
		}
		return m, nil
	case TypeSignal:
		var m SignalFrom
		m.Sealed, err = o.signal("from", &m.From)
		return m, err
	case TypeError:
		return o.serverError()
	case TypePong:
		return Pong{}, nil
	}
	return nil, ErrUnknownType
}

// parseFrame reads the type of a frame and lets body read the rest. The
// message is nil if there is an error.
func parseFrame(frame []byte, body func(o object, typ string) (Message, error)) (Message, error) {
	if !utf8.Valid(frame) {
		return nil, ErrBadUTF8
	}
	o, err := parseObject(frame)
	if err != nil {
		return nil, fmt.Errorf("%w: it %w", ErrBadMessage, err)
	}
	var typ string
	if err := o.need("type", &typ); err != nil {
		return nil, err
	}
	m, err := body(o, typ)
	if err != nil {
		return nil, err
	}
	return m, nil
}

// need and may are required and optional with an error for the other side.
func (o object) need(name string, v any) error {
	if err := o.required(name, v); err != nil {
		return fmt.Errorf("%w: field %q %w", ErrBadMessage, name, err)
	}
	return nil
}

func (o object) may(name string, v any) error {
	if err := o.optional(name, v); err != nil {
		return fmt.Errorf("%w: field %q %w", ErrBadMessage, name, err)
	}
	return nil
}

func (o object) join() (Message, error) {
	var m Join
	err := errors.Join(o.need("room", &m.Room), o.need("peer", &m.Peer), o.may("token", &m.Token),
		o.may("admission", &m.Admission))
	if err != nil {
		return nil, err
	}
	if len(m.Token) > MaxToken {
		return nil, fmt.Errorf("%w: field \"token\" has more than %d characters", ErrBadMessage, MaxToken)
	}
	if len(m.Admission) > MaxAdmission {
		return nil, fmt.Errorf("%w: field \"admission\" has more than %d characters", ErrBadMessage, MaxAdmission)
	}
	m.Meta, err = o.meta()
	return m, err
}

func (o object) signal(name string, peer *PeerID) (string, error) {
	var sealed string
	if err := errors.Join(o.need(name, peer), o.need("sealed", &sealed)); err != nil {
		return "", err
	}
	if sealed == "" || len(sealed) > MaxSealed {
		return "", fmt.Errorf("%w: field \"sealed\" has 1 to %d characters", ErrBadMessage, MaxSealed)
	}
	return sealed, nil
}

func (o object) member() (Member, error) {
	var m Member
	if err := o.need("peer", &m.Peer); err != nil {
		return Member{}, err
	}
	var err error
	m.Meta, err = o.meta()
	return m, err
}

func (o object) meta() (Meta, error) {
	if !o.has("meta") {
		return Meta{}, nil
	}
	f, err := parseObject(o["meta"])
	if err != nil {
		return Meta{}, fmt.Errorf("%w: field \"meta\" %w", ErrBadMessage, err)
	}
	var m Meta
	if err := errors.Join(f.may("replica", &m.Replica), f.may("reader", &m.Reader), f.may("name", &m.Name)); err != nil {
		return Meta{}, err
	}
	if err := m.Check(); err != nil {
		return Meta{}, fmt.Errorf("%w: %w", ErrBadMessage, err)
	}
	return m, nil
}

// Check tells whether the meta may be sent.
func (m Meta) Check() error {
	if len(m.Name) > MaxName {
		return fmt.Errorf("the name of a peer has at most %d bytes, this one has %d", MaxName, len(m.Name))
	}
	if !utf8.ValidString(m.Name) {
		return errors.New("the name of a peer is text, this one is not UTF-8")
	}
	for _, r := range m.Name {
		if unicode.IsControl(r) {
			return errors.New("the name of a peer has no control characters")
		}
	}
	return nil
}

func (o object) joined() (Message, error) {
	var m Joined
	var members, servers []json.RawMessage
	err := errors.Join(o.need("peer", &m.Peer), o.need("token", &m.Token), o.need("members", &members),
		o.may("iceServers", &servers), o.may("ttl", &m.TTL), o.may("resumed", &m.Resumed))
	if err != nil {
		return nil, err
	}
	if len(m.Token) > MaxToken || m.TTL < 0 {
		return nil, fmt.Errorf("%w: the token or the ttl is out of range", ErrBadMessage)
	}
	for _, raw := range members {
		f, err := parseObject(raw)
		if err != nil {
			return nil, fmt.Errorf("%w: a member %w", ErrBadMessage, err)
		}
		member, err := f.member()
		if err != nil {
			return nil, err
		}
		m.Members = append(m.Members, member)
	}
	for _, raw := range servers {
		f, err := parseObject(raw)
		if err != nil {
			return nil, fmt.Errorf("%w: an ICE server %w", ErrBadMessage, err)
		}
		var s ICEServer
		if err := errors.Join(f.need("urls", &s.URLs), f.may("username", &s.Username), f.may("credential", &s.Credential)); err != nil {
			return nil, err
		}
		m.ICEServers = append(m.ICEServers, s)
	}
	return m, nil
}

func (o object) serverError() (Message, error) {
	var m Error
	err := errors.Join(o.need("code", &m.Code), o.may("message", &m.Message), o.may("retryAfter", &m.RetryAfter), o.may("peer", &m.Peer))
	if err != nil {
		return nil, err
	}
	if m.RetryAfter < 0 {
		return nil, fmt.Errorf("%w: field \"retryAfter\" is negative", ErrBadMessage)
	}
	return m, nil
}
