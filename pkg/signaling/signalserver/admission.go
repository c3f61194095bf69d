package signalserver

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"time"

	"github.com/crmesh/crmesh/pkg/signaling"
)

// admissionRetry is what a client without a good join token is told to wait: the operator or the owner of the link has to
// act first.
const admissionRetry = time.Minute

// admission decides who may begin a membership.
type admission struct {
	tokens [][sha256.Size]byte // digests, so that all comparisons are of one length
	keys   [][]byte
}

func newAdmission(cfg *Config) admission {
	var a admission
	for _, t := range cfg.JoinTokens {
		a.tokens = append(a.tokens, sha256.Sum256([]byte(t)))
	}
	for _, k := range cfg.JoinKeys {
		a.keys = append(a.keys, []byte(k))
	}
	return a
}

// check tells whether the token admits to the room; nil: it does, or nobody is asked. Static tokens are compared in
// constant time, and all of them.
func (a admission) check(token string, room signaling.RoomID, now time.Time) error {
	if len(a.tokens)+len(a.keys) == 0 {
		return nil
	}
	digest, same := sha256.Sum256([]byte(token)), 0
	for _, t := range a.tokens {
		same |= subtle.ConstantTimeCompare(digest[:], t[:])
	}
	if same == 1 {
		return nil
	}
	err := signaling.ErrNotAdmitted
	for _, key := range a.keys {
		switch e := signaling.VerifyAdmission(token, key, room, now); {
		case e == nil:
			return nil
		case !errors.Is(e, signaling.ErrNotAdmitted):
			err = e // signed with this key; this says more
		}
	}
	return err
}

// notAdmitted is what the client is told.
func notAdmitted(token string, err error) signaling.Error {
	e := signaling.Error{Code: signaling.CodeNotAdmitted, RetryAfter: seconds(admissionRetry)}
	switch {
	case token == "":
		e.Message = "This server asks for a join token; ask its operator for one, or for a link that has it."
	case errors.Is(err, signaling.ErrAdmissionExpired):
		e.Message = "The join token has expired; ask the operator of this server for a new one."
	case errors.Is(err, signaling.ErrAdmissionRoom):
		e.Message = "The join token is for another room; ask the operator of this server for one for this room."
	default:
		e.Message = "This server does not know the join token; ask its operator for a good one."
	}
	return e
}

// checkAdmission returns what is wrong with the tokens and keys of the configuration. It quotes none of them.
func (c *Config) checkAdmission() (errs []error) {
	for i, t := range c.JoinTokens {
		if err := signaling.CheckJoinToken(t); err != nil {
			errs = append(errs, &FieldError{"JoinTokens", fmt.Errorf("join token number %d cannot be one: %w", i+1, err)})
		}
	}
	for i, k := range c.JoinKeys {
		if len(k) < signaling.MinAdmissionKey {
			errs = append(errs, &FieldError{"JoinKeys", fmt.Errorf("key number %d for join tokens has fewer than %d bytes", i+1, signaling.MinAdmissionKey)})
		}
	}
	return errs
}
