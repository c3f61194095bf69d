package signaling

import (
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"io"
)

// sealVersion is the first byte of an envelope.
const sealVersion = 1

const (
	sealNonce    = 12
	sealTag      = 16
	sealOverhead = 1 + sealNonce + sealTag
)

// ErrNotOpened is the reason why an envelope is dropped: another version, cut,
// changed, made with another key, or for another pair of peers.
var ErrNotOpened = errors.New("signaling: the envelope does not open")

// SealDescription makes the envelope that carries d from one peer to another,
// as the base64url text of the signal message. See SealEnvelope.
func (k Keys) SealDescription(rand io.Reader, from, to PeerID, d Description) (string, error) {
	b, err := k.SealEnvelope(rand, from, to, d)
	if err != nil {
		return "", err
	}
	return encode(b), nil
}

// SealEnvelope makes the envelope that carries d from one peer to another, in
// bytes, as members relay it. rand gives the 12 bytes of the nonce and must be
// cryptographically random; with random nonces a key is good for about 2^32
// envelopes, far more than a room ever sends.
func (k Keys) SealEnvelope(rand io.Reader, from, to PeerID, d Description) ([]byte, error) {
	plain, err := d.Marshal()
	if err != nil {
		return nil, err
	}
	b := make([]byte, 1+sealNonce, len(plain)+sealOverhead)
	b[0] = sealVersion
	if _, err := io.ReadFull(rand, b[1:]); err != nil {
		return nil, fmt.Errorf("signaling: no random bytes for a nonce: %w", err)
	}
	return k.aead().Seal(b, b[1:], plain, k.additional(from, to)), nil
}

// OpenDescription opens an envelope that from sent to to. The error is
// ErrNotOpened, ErrUnknownKind or a *DescriptionError; each means: drop it.
func (k Keys) OpenDescription(from, to PeerID, sealed string) (Description, error) {
	if len(sealed) > MaxSealed {
		return Description{}, ErrNotOpened
	}
	b, err := strict64.DecodeString(sealed)
	if err != nil || strict64.EncodedLen(len(b)) != len(sealed) {
		return Description{}, ErrNotOpened
	}
	return k.OpenEnvelope(from, to, b)
}

// OpenEnvelope is OpenDescription of an envelope in bytes. Nothing of b is kept.
func (k Keys) OpenEnvelope(from, to PeerID, b []byte) (Description, error) {
	if len(b) < sealOverhead || len(b) > MaxDescription+sealOverhead || b[0] != sealVersion {
		return Description{}, ErrNotOpened
	}
	plain, err := k.aead().Open(nil, b[1:1+sealNonce], b[1+sealNonce:], k.additional(from, to))
	if err != nil {
		return Description{}, ErrNotOpened
	}
	return ParseDescription(plain)
}

// additional binds an envelope to its room, sender and receiver.
func (k Keys) additional(from, to PeerID) []byte {
	aad := make([]byte, 0, len(k.Room)+len(from)+len(to))
	aad = append(aad, k.Room[:]...)
	aad = append(aad, from[:]...)
	return append(aad, to[:]...)
}

func (k Keys) aead() cipher.AEAD {
	block, err := aes.NewCipher(k.Seal[:])
	if err != nil {
		panic("signaling: AES refuses a key of 32 bytes: " + err.Error()) // cannot be
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic("signaling: GCM refuses AES: " + err.Error()) // cannot be
	}
	return aead
}
