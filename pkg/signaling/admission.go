package signaling

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	// MaxAdmission bounds a join token, in characters.
	MaxAdmission = 256
	// MinAdmissionKey is the least length of a key that signs join tokens, in bytes.
	MinAdmissionKey = 16

	admissionMark  = "a1."                    // of signed tokens, version 1
	admissionLabel = "crmesh admission 1\x00" // before what is signed
)

// Errors of Admission.Verify and CheckJoinToken.
var (
	// ErrNotAdmitted says that a token was not signed with this key, or is no signed token at all.
	ErrNotAdmitted = errors.New("the join token is not one of this server")
	// ErrAdmissionExpired says that a token was good until some time ago.
	ErrAdmissionExpired = errors.New("the join token has expired")
	// ErrAdmissionRoom says that a good token is for another room.
	ErrAdmissionRoom = errors.New("the join token is for another room")
	// ErrJoinToken says that a text cannot be a join token.
	ErrJoinToken = fmt.Errorf("a join token has 1 to %d letters, digits and characters of \"-._~\"", MaxAdmission)
)

// Admission is what a signed join token says: whoever shows it may join until Expires, at the servers that have the key.
type Admission struct {
	Expires time.Time // whole seconds
	Room    RoomID    // the only room it is good for; the zero id: any
}

// Sign returns the token, of at most MaxAdmission characters; docs/SIGNALING.md has the format. The key has
// MinAdmissionKey bytes or more, Expires is after 1970.
func (a Admission) Sign(key []byte) (string, error) {
	if len(key) < MinAdmissionKey {
		return "", fmt.Errorf("a key for join tokens has %d bytes or more", MinAdmissionKey)
	}
	if a.Expires.Unix() <= 0 {
		return "", errors.New("a join token expires after 1970")
	}
	room := ""
	if a.Room != (RoomID{}) {
		room = a.Room.String()
	}
	said := admissionMark + strconv.FormatInt(a.Expires.Unix(), 10) + "." + room
	return said + "." + encode(admissionMAC(key, said)), nil
}

// VerifyAdmission reads a signed token and checks it against one key, the time, and the room that is to be joined. The
// error is ErrNotAdmitted, ErrAdmissionExpired or ErrAdmissionRoom; the latter two only of tokens with a good signature.
func VerifyAdmission(token string, key []byte, room RoomID, now time.Time) error {
	cut := strings.LastIndexByte(token, '.')
	if len(token) > MaxAdmission || len(key) < MinAdmissionKey || cut < 0 {
		return ErrNotAdmitted
	}
	said := token[:cut]
	var mac [sha256.Size]byte
	if decodeInto(mac[:], token[cut+1:], "signature") != nil || !hmac.Equal(mac[:], admissionMAC(key, said)) {
		return ErrNotAdmitted
	}
	a, err := parseAdmission(said)
	switch {
	case err != nil:
		return ErrNotAdmitted
	case !now.Before(a.Expires):
		return ErrAdmissionExpired
	case a.Room != (RoomID{}) && a.Room != room:
		return ErrAdmissionRoom
	}
	return nil
}

// parseAdmission reads what was signed. Each Admission has one spelling.
func parseAdmission(said string) (Admission, error) {
	rest, marked := strings.CutPrefix(said, admissionMark)
	expires, room, found := strings.Cut(rest, ".")
	seconds, err := strconv.ParseInt(expires, 10, 64)
	if !marked || !found || err != nil || seconds <= 0 || strconv.FormatInt(seconds, 10) != expires {
		return Admission{}, ErrNotAdmitted
	}
	a := Admission{Expires: time.Unix(seconds, 0)}
	if room == "" {
		return a, nil
	}
	if a.Room.UnmarshalText([]byte(room)) != nil || a.Room == (RoomID{}) {
		return Admission{}, ErrNotAdmitted
	}
	return a, nil
}

func admissionMAC(key []byte, said string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(admissionLabel))
	mac.Write([]byte(said))
	return mac.Sum(nil)
}

// CheckJoinToken tells whether text may be a join token, signed or not: it must pass through an address unchanged. The
// error is ErrJoinToken, which does not quote it.
func CheckJoinToken(text string) error {
	if text == "" || len(text) > MaxAdmission {
		return ErrJoinToken
	}
	for i := range len(text) {
		c := text[i]
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		if !letter && (c < '0' || c > '9') && strings.IndexByte("-._~", c) < 0 {
			return ErrJoinToken
		}
	}
	return nil
}

// tokenOf returns the join token in the query of a link's base; "" if there is none, or what is there cannot be one.
func tokenOf(u *url.URL) string {
	token := u.Query().Get("token")
	if CheckJoinToken(token) != nil {
		return ""
	}
	return token
}

// WithToken returns the base of a link that brings a join token along: base,
// which ends in "/", with "?token=" and the token. Without a token, or without
// a base to hang it on, it is base itself.
func WithToken(base, token string) string {
	if base == "" || token == "" {
		return base
	}
	return base + "?token=" + token
}
