package signaling

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
)

// The info strings of the key derivation, see docs/SIGNALING.md.
const (
	infoRead = "crmesh read"
	infoRoom = "crmesh room"
	infoSeal = "crmesh seal"
)

// Secret is a write secret or a read secret. It must not be logged; String
// hides it.
type Secret [32]byte

// String hides the secret.
func (Secret) String() string { return "(secret)" }

// GoString hides the secret from %#v.
func (Secret) GoString() string { return "(secret)" }

// Keys is everything that membership of a room is made of.
type Keys struct {
	Room          RoomID
	Read          Secret // root of Room and Seal; all members have it
	Seal          Secret // AES-256-GCM key of the envelopes
	WriterPublic  ed25519.PublicKey
	WriterPrivate ed25519.PrivateKey // nil for readers
}

// CanWrite tells whether the holder of these keys is a writer.
func (k Keys) CanWrite() bool { return k.WriterPrivate != nil }

// Link is a room link: where the page is, and the keys of the room.
type Link struct {
	// Base is the address of the page, ending in "/", or "" for a link that
	// is only a fragment.
	Base string
	// Token is the join token that the link brings along, "?token=..." before
	// '#', or "". It is not part of Base.
	Token string
	Keys  Keys
}

// Reasons why a text is not a room link. Each is wrapped in a *LinkError.
var (
	ErrLinkEmpty    = errors.New("the room link is empty; copy it again from the page or from `peer room new`")
	ErrLinkNoSecret = errors.New("the room link has nothing behind '#'; the part after '#' is the key, copy the whole link")
	ErrLinkBase     = errors.New("the room link does not start with http:// or https:// and a host; copy it again")
	ErrLinkParts    = errors.New("a room link has two parts behind '#' (write) or three (read), separated by '.'; this one has another number, copy it again")
	ErrLinkText     = errors.New("a part behind '#' of the room link is cut or mistyped; copy the whole link again")
	ErrLinkMismatch = errors.New("the room and the secret in the link do not belong together; it was changed on the way, copy it again")
	ErrLinkReadCut  = errors.New("this is a read link whose last part, the writer key, is missing; copy the whole link again")
)

// LinkError says in one sentence what is wrong with a room link. It never
// holds the link, which is a secret.
type LinkError struct{ Reason error }

func (e *LinkError) Error() string { return e.Reason.Error() }

// Unwrap returns the reason, one of the ErrLink values.
func (e *LinkError) Unwrap() error { return e.Reason }

// NewRoom makes a room: the keys of a writer, from 32 bytes of rand, which
// must be cryptographically random (crypto/rand.Reader). It fails only if
// rand does.
func NewRoom(rand io.Reader) (Keys, error) {
	var w Secret
	if _, err := io.ReadFull(rand, w[:]); err != nil {
		return Keys{}, fmt.Errorf("signaling: no random bytes for a room: %w", err)
	}
	return WriterKeys(w), nil
}

// WriterKeys derives the keys of a room from its write secret.
func WriterKeys(write Secret) Keys {
	private := ed25519.NewKeyFromSeed(write[:])
	var read Secret
	derive(read[:], write[:], infoRead)
	k := ReaderKeys(read, private.Public().(ed25519.PublicKey))
	k.WriterPrivate = private
	return k
}

// ReaderKeys derives the keys of a member who may only read. It keeps
// writerPublic, which must be 32 bytes.
func ReaderKeys(read Secret, writerPublic ed25519.PublicKey) Keys {
	k := Keys{Read: read, WriterPublic: writerPublic}
	derive(k.Room[:], read[:], infoRoom)
	derive(k.Seal[:], read[:], infoSeal)
	return k
}

// WriteLink returns the link that makes its holder a writer. base is the
// address of the page, or "" for the fragment alone. ok is false when k holds
// no writer key.
func (k Keys) WriteLink(base string) (link string, ok bool) {
	if !k.CanWrite() {
		return "", false
	}
	return base + "#" + k.Room.String() + "." + encode(k.WriterPrivate.Seed()), true
}

// ReadLink returns the link that makes its holder a reader. base is the
// address of the page, or "" for the fragment alone.
func (k Keys) ReadLink(base string) string {
	return base + "#" + k.Room.String() + "." + encode(k.Read[:]) + "." + encode(k.WriterPublic)
}

// ParseLink reads a write or read link, with or without the part before '#'.
// White space around it is ignored. The error is a *LinkError.
func ParseLink(text string) (Link, error) {
	link, err := parseLink(text)
	if err != nil {
		return Link{}, &LinkError{Reason: err}
	}
	return link, nil
}

func parseLink(text string) (Link, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return Link{}, ErrLinkEmpty
	}
	base, fragment, found := strings.Cut(text, "#")
	if !found {
		if strings.Contains(text, "/") {
			return Link{}, ErrLinkNoSecret
		}
		base, fragment = "", text
	}
	if fragment == "" {
		return Link{}, ErrLinkNoSecret
	}
	base, token, err := normalBase(base)
	if err != nil {
		return Link{}, err
	}
	keys, err := parseFragment(fragment)
	if err != nil {
		return Link{}, err
	}
	return Link{Base: base, Token: token, Keys: keys}, nil
}

// normalBase returns the base with an explicit path that ends in "/", and the
// join token of its query.
func normalBase(base string) (normal, token string, err error) {
	if base == "" {
		return "", "", nil
	}
	u, err := url.Parse(base)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return "", "", ErrLinkBase
	}
	token = tokenOf(u)
	u.User, u.RawQuery, u.ForceQuery = nil, "", false
	if i := strings.LastIndexByte(u.Path, '/'); i >= 0 {
		u.Path, u.RawPath = u.Path[:i+1], ""
	} else {
		u.Path, u.RawPath = "/", ""
	}
	return u.String(), token, nil
}

func parseFragment(fragment string) (Keys, error) {
	parts := strings.Split(fragment, ".")
	if len(parts) != 2 && len(parts) != 3 {
		return Keys{}, ErrLinkParts
	}
	var room RoomID
	var secret Secret
	if decodeInto(room[:], parts[0], "room id") != nil || decodeInto(secret[:], parts[1], "secret") != nil {
		return Keys{}, ErrLinkText
	}
	if len(parts) == 2 {
		keys := WriterKeys(secret)
		switch {
		case keys.Room == room:
			return keys, nil
		case ReaderKeys(secret, nil).Room == room:
			return Keys{}, ErrLinkReadCut
		}
		return Keys{}, ErrLinkMismatch
	}
	public := make(ed25519.PublicKey, ed25519.PublicKeySize)
	if decodeInto(public, parts[2], "writer key") != nil {
		return Keys{}, ErrLinkText
	}
	keys := ReaderKeys(secret, public)
	if keys.Room != room {
		return Keys{}, ErrLinkMismatch
	}
	return keys, nil
}

// derive fills out with HKDF-SHA256 of the secret, empty salt.
func derive(out, secret []byte, info string) {
	key, err := hkdf.Key(sha256.New, secret, nil, info, len(out))
	if err != nil {
		// HKDF-SHA256 gives up to 8160 bytes; we ask for 32 at most.
		panic("signaling: HKDF is exhausted: " + err.Error())
	}
	copy(out, key)
}
