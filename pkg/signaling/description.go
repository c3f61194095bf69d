package signaling

import (
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// Kind tells what a description is for.
type Kind string

// The kinds of description.
const (
	KindOffer     Kind = "offer"
	KindAnswer    Kind = "answer"
	KindCandidate Kind = "candidate"
	KindWant      Kind = "want" // please offer
	KindBye       Kind = "bye"  // this link is closed on purpose
)

// Limits of the fields of a Candidate, in bytes.
const (
	maxCandidate     = 2048
	maxSDPMid        = 64
	maxUsernameFragm = 256
)

// Description is what an envelope holds.
type Description struct {
	Kind Kind
	// Session names one attempt at a link, at most MaxSession. Answers,
	// candidates and byes bear the number of their offer.
	Session uint64
	// SDP is the session description of an offer or answer.
	SDP string
	// Candidate goes with KindCandidate; nil means end of candidates.
	Candidate *Candidate
	// Nonce and Site go with offers and answers: 32 random bytes for the role
	// proof, and the site of the sender's database.
	Nonce [32]byte
	Site  [16]byte
}

// Candidate is the browser's RTCIceCandidateInit. It converts to and from
// pion's webrtc.ICECandidateInit.
type Candidate struct {
	Candidate        string  `json:"candidate"`
	SDPMid           *string `json:"sdpMid"`
	SDPMLineIndex    *uint16 `json:"sdpMLineIndex"`
	UsernameFragment *string `json:"usernameFragment"`
}

// ErrUnknownKind marks a description of a later version of the protocol: to
// be ignored, not counted as damage.
var ErrUnknownKind = errors.New("signaling: unknown kind of description")

// DescriptionError says what is wrong with a description.
type DescriptionError struct {
	Field  string // JSON name, "" for the whole
	Reason string
}

func (e *DescriptionError) Error() string {
	if e.Field == "" {
		return "signaling: the description " + e.Reason
	}
	return fmt.Sprintf("signaling: field %q of the description %s", e.Field, e.Reason)
}

// wireDescription gives the JSON fields their order.
type wireDescription struct {
	Kind      Kind       `json:"kind"`
	Session   uint64     `json:"session"`
	SDP       string     `json:"sdp,omitempty"`
	Candidate *Candidate `json:"candidate,omitempty"`
	Nonce     string     `json:"nonce,omitempty"`
	Site      string     `json:"site,omitempty"`
}

// Marshal returns the JSON of d. It fails with a *DescriptionError if d
// breaks a limit, or carries a field that does not belong to its kind.
func (d Description) Marshal() ([]byte, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	w := wireDescription{Kind: d.Kind, Session: d.Session, SDP: d.SDP, Candidate: d.Candidate}
	if d.Kind == KindOffer || d.Kind == KindAnswer {
		w.Nonce, w.Site = encode(d.Nonce[:]), encode(d.Site[:])
	}
	b, err := marshalJSON(w)
	if err != nil {
		return nil, &DescriptionError{Reason: "is not text: " + err.Error()}
	}
	if len(b) > MaxDescription {
		return nil, &DescriptionError{Reason: fmt.Sprintf("is %d bytes long, at most %d are allowed", len(b), MaxDescription)}
	}
	return b, nil
}

// ParseDescription reads the JSON of a description. The error is a
// *DescriptionError, or ErrUnknownKind. Nothing of b is kept.
func ParseDescription(b []byte) (Description, error) {
	if len(b) > MaxDescription {
		return Description{}, &DescriptionError{Reason: fmt.Sprintf("is %d bytes long, at most %d are allowed", len(b), MaxDescription)}
	}
	f, err := parseObject(b)
	if err != nil {
		return Description{}, &DescriptionError{Reason: err.Error()}
	}
	var d Description
	var kind string
	if err := f.required("kind", &kind); err != nil {
		return Description{}, &DescriptionError{"kind", err.Error()}
	}
	d.Kind = Kind(kind)
	switch d.Kind {
	case KindOffer, KindAnswer, KindCandidate, KindWant, KindBye:
	default:
		return Description{}, ErrUnknownKind
	}
	if err := f.required("session", &d.Session); err != nil {
		return Description{}, &DescriptionError{"session", err.Error()}
	}
	if err := d.parseBody(f); err != nil {
		return Description{}, err
	}
	if err := d.check(); err != nil {
		return Description{}, err
	}
	return d, nil
}

// parseBody reads the fields that depend on the kind and refuses the others.
func (d *Description) parseBody(f object) error {
	described := d.Kind == KindOffer || d.Kind == KindAnswer
	for _, name := range []string{"sdp", "nonce", "site"} {
		if !described && f.has(name) {
			return &DescriptionError{name, "does not belong to this kind"}
		}
	}
	if d.Kind != KindCandidate && f.has("candidate") {
		return &DescriptionError{"candidate", "does not belong to this kind"}
	}
	if described {
		var nonce, site string
		if err := f.required("sdp", &d.SDP); err != nil {
			return &DescriptionError{"sdp", err.Error()}
		}
		if err := f.required("nonce", &nonce); err != nil {
			return &DescriptionError{"nonce", err.Error()}
		}
		if err := f.required("site", &site); err != nil {
			return &DescriptionError{"site", err.Error()}
		}
		if decodeInto(d.Nonce[:], nonce, "nonce") != nil {
			return &DescriptionError{"nonce", "is not the base64url of 32 bytes"}
		}
		if decodeInto(d.Site[:], site, "site") != nil {
			return &DescriptionError{"site", "is not the base64url of 16 bytes"}
		}
	}
	if f.has("candidate") {
		c, err := parseCandidate(f["candidate"])
		if err != nil {
			return err
		}
		d.Candidate = c
	}
	return nil
}

func parseCandidate(raw json.RawMessage) (*Candidate, error) {
	f, err := parseObject(raw)
	if err != nil {
		return nil, &DescriptionError{"candidate", err.Error()}
	}
	var c Candidate
	if err := f.required("candidate", &c.Candidate); err != nil {
		return nil, &DescriptionError{"candidate.candidate", err.Error()}
	}
	if err := f.optional("sdpMid", &c.SDPMid); err != nil {
		return nil, &DescriptionError{"candidate.sdpMid", err.Error()}
	}
	if err := f.optional("sdpMLineIndex", &c.SDPMLineIndex); err != nil {
		return nil, &DescriptionError{"candidate.sdpMLineIndex", err.Error()}
	}
	if err := f.optional("usernameFragment", &c.UsernameFragment); err != nil {
		return nil, &DescriptionError{"candidate.usernameFragment", err.Error()}
	}
	return &c, nil
}

// check holds the rules that sending and receiving share.
func (d Description) check() error {
	switch d.Kind {
	case KindOffer, KindAnswer:
		if d.SDP == "" || len(d.SDP) > MaxSDP {
			return &DescriptionError{"sdp", fmt.Sprintf("has %d bytes, 1 to %d are allowed", len(d.SDP), MaxSDP)}
		}
	case KindCandidate, KindWant, KindBye:
		if d.SDP != "" {
			return &DescriptionError{"sdp", "does not belong to this kind"}
		}
		if d.Nonce != [32]byte{} || d.Site != [16]byte{} {
			return &DescriptionError{"nonce", "and site do not belong to this kind"}
		}
	default:
		return ErrUnknownKind
	}
	if d.Session > MaxSession {
		return &DescriptionError{"session", "is above 2^53-1"}
	}
	if !utf8.ValidString(d.SDP) {
		return &DescriptionError{"sdp", "is not UTF-8"}
	}
	if d.Candidate == nil {
		return nil
	}
	if d.Kind != KindCandidate {
		return &DescriptionError{"candidate", "does not belong to this kind"}
	}
	return d.Candidate.check()
}

func (c *Candidate) check() error {
	for _, f := range []struct {
		name  string
		value *string
		limit int
	}{
		{"candidate.candidate", &c.Candidate, maxCandidate},
		{"candidate.sdpMid", c.SDPMid, maxSDPMid},
		{"candidate.usernameFragment", c.UsernameFragment, maxUsernameFragm},
	} {
		if f.value == nil {
			continue
		}
		if len(*f.value) > f.limit {
			return &DescriptionError{f.name, fmt.Sprintf("has %d bytes, at most %d are allowed", len(*f.value), f.limit)}
		}
		if !utf8.ValidString(*f.value) {
			return &DescriptionError{f.name, "is not UTF-8"}
		}
	}
	return nil
}
