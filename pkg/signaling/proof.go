package signaling

import (
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"strings"
)

const proofLabel = "crmesh role 1\x00"

// End is one end of a link, as far as the role proof is concerned.
type End struct {
	// Fingerprint is the SHA-256 of the end's DTLS certificate.
	Fingerprint [32]byte
	// Nonce is the nonce of the end's offer or answer.
	Nonce [32]byte
}

// SignRole returns the proof that own is a writer, for the one link between
// own and remote. The key must be Keys.WriterPrivate of a writer.
func SignRole(key ed25519.PrivateKey, own, remote End) []byte {
	return ed25519.Sign(key, proofMessage(own, remote))
}

// VerifyRole tells whether signature proves that signer is a writer, to
// verifier, on the one link between the two. It accepts any input.
func VerifyRole(key ed25519.PublicKey, signer, verifier End, signature []byte) bool {
	return len(key) == ed25519.PublicKeySize && ed25519.Verify(key, proofMessage(signer, verifier), signature)
}

func proofMessage(own, remote End) []byte {
	m := make([]byte, 0, len(proofLabel)+4*32)
	m = append(m, proofLabel...)
	m = append(m, own.Fingerprint[:]...)
	m = append(m, remote.Fingerprint[:]...)
	m = append(m, own.Nonce[:]...)
	return append(m, remote.Nonce[:]...)
}

// ErrFingerprint is returned for a session description without exactly one
// SHA-256 fingerprint. No link is made from it.
var ErrFingerprint = errors.New("signaling: the session description has no single sha-256 fingerprint")

// Fingerprint returns the SHA-256 fingerprint that a session description
// names. The same one may stand at the session and at the media level; two
// different ones are refused, for the proof would not say which one counts.
func Fingerprint(sdp string) ([32]byte, error) {
	var found [32]byte
	seen := false
	for line := range strings.Lines(sdp) {
		value, ok := strings.CutPrefix(strings.TrimRight(line, "\r\n"), "a=fingerprint:")
		if !ok {
			continue
		}
		algorithm, text, _ := strings.Cut(value, " ")
		if !strings.EqualFold(algorithm, "sha-256") {
			continue
		}
		fp, ok := parseFingerprint(text)
		if !ok || (seen && fp != found) {
			return [32]byte{}, ErrFingerprint
		}
		found, seen = fp, true
	}
	if !seen {
		return [32]byte{}, ErrFingerprint
	}
	return found, nil
}

// parseFingerprint reads 32 pairs of hex digits separated by colons.
func parseFingerprint(text string) (fp [32]byte, ok bool) {
	if len(text) != 32*3-1 {
		return fp, false
	}
	pairs := strings.Split(text, ":")
	if len(pairs) != len(fp) {
		return fp, false
	}
	for i, pair := range pairs {
		b, err := hex.DecodeString(pair)
		if err != nil || len(b) != 1 {
			return fp, false
		}
		fp[i] = b[0]
	}
	return fp, true
}
