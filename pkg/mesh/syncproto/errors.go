package syncproto

import (
	"errors"
	"fmt"
	"strings"
)

// Code is the kind of an error that one peer reports to another.
type Code uint16

// The codes of docs/PROTOCOL.md. A receiver treats one that it does not know like CodeInternal.
const (
	CodeVersion    Code = 1
	CodeMalformed  Code = 2
	CodeTooLarge   Code = 3
	CodeReadOnly   Code = 4
	CodeBadProof   Code = 5
	CodeSameSite   Code = 6
	CodeFlow       Code = 7
	CodeStaleCopy  Code = 8
	CodeSuperseded Code = 9
	CodeInternal   Code = 10
	CodeParked     Code = 11
)

var codeNames = [...]string{
	CodeVersion: "version", CodeMalformed: "malformed", CodeTooLarge: "too-large", CodeReadOnly: "read-only",
	CodeBadProof: "bad-proof", CodeSameSite: "same-site", CodeFlow: "flow", CodeStaleCopy: "stale-copy",
	CodeSuperseded: "superseded", CodeInternal: "internal", CodeParked: "parked",
}

// String returns the code's name in docs/PROTOCOL.md.
func (c Code) String() string {
	if int(c) < len(codeNames) && codeNames[c] != "" {
		return codeNames[c]
	}
	return fmt.Sprintf("code %d", uint16(c))
}

// Error is an error that ends a link: as a message from the other side, as what Parse found, or as what the core found.
type Error struct {
	Code     Code
	Sentence string // for a person, without "error:" before it; at most MaxSentence bytes
}

// Error returns the code's name and the sentence.
func (e *Error) Error() string { return e.Code.String() + ": " + e.Sentence }

// Is makes errors.Is compare codes: errors.Is(err, &Error{Code: CodeFlow}).
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code && (t.Sentence == "" || t.Sentence == e.Sentence)
}

// AsError returns err as an *Error: itself if it is one, otherwise one with CodeInternal and its text.
func AsError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Code: CodeInternal, Sentence: truncate(err.Error(), MaxSentence)}
}

func malformed(format string, args ...any) *Error {
	return &Error{Code: CodeMalformed, Sentence: fmt.Sprintf(format, args...)}
}

// truncate makes s valid UTF-8 and cuts it to at most n bytes, at the start of a character.
func truncate(s string, n int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xc0 == 0x80 {
		n--
	}
	return s[:n]
}
