package signaling

// Code is the code of an Error, and the reason of the close that follows.
type Code string

// The codes. docs/SIGNALING.md says what a client does about each.
const (
	CodeBadMessage  Code = "bad-message"
	CodeBinary      Code = "binary"
	CodeBadUTF8     Code = "bad-utf8"
	CodeTooLarge    Code = "too-large"
	CodeSubprotocol Code = "subprotocol"
	CodePeerInUse   Code = "peer-in-use"
	CodeReplaced    Code = "replaced"
	CodeIdle        Code = "idle"
	CodeSlow        Code = "slow"
	CodeRate        Code = "rate"
	CodeJoinRate    Code = "join-rate"
	CodeNotAdmitted Code = "not-admitted"
	CodeRoomFull    Code = "room-full"
	CodeServerFull  Code = "server-full"
	CodeShutdown    Code = "shutdown"
	CodeUnreachable Code = "unreachable" // the connection stays open
)

// closeCodes maps the codes that end a connection to WebSocket close codes.
var closeCodes = map[Code]int{
	CodeBadMessage:  4400,
	CodeBinary:      1003,
	CodeBadUTF8:     1007,
	CodeTooLarge:    1009,
	CodeSubprotocol: 1002,
	CodePeerInUse:   4409,
	CodeReplaced:    4410,
	CodeIdle:        4408,
	CodeSlow:        4413,
	CodeRate:        4429,
	CodeJoinRate:    4429,
	CodeNotAdmitted: 4403,
	CodeRoomFull:    4503,
	CodeServerFull:  4503,
	CodeShutdown:    1001,
}

// Close returns the WebSocket close code of c, or 0 if c does not end the
// connection.
func (c Code) Close() int { return closeCodes[c] }
