package signaling_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/crmesh/crmesh/pkg/signaling"
)

// vectors returns the texts that golden vectors hold in the named fields: each form of each message is a seed.
func vectors(f *testing.F, file string, fields ...string) (texts []string) {
	f.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		f.Fatal(err)
	}
	var groups map[string][]map[string]any
	if err := json.Unmarshal(b, &groups); err != nil {
		f.Fatal(err)
	}
	for _, group := range groups {
		for _, vector := range group {
			for _, field := range fields {
				if text, ok := vector[field].(string); ok {
					texts = append(texts, text)
				}
			}
		}
	}
	if len(texts) == 0 {
		f.Fatalf("%s has no vectors with %v", file, fields)
	}
	return texts
}

func FuzzParseLink(f *testing.F) {
	for _, seed := range append(vectors(f, "links.json", "writeLink", "readLink", "text"), vectors(f, "admission.json", "link")...) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		link, err := signaling.ParseLink(text)
		if err != nil {
			return
		}
		base := signaling.WithToken(link.Base, link.Token)
		again := link.Keys.ReadLink(base)
		if w, ok := link.Keys.WriteLink(base); ok {
			again = w
		}
		second, err := signaling.ParseLink(again)
		if err != nil || second.Base != link.Base || second.Token != link.Token || second.Keys.Room != link.Keys.Room || second.Keys.CanWrite() != link.Keys.CanWrite() {
			t.Fatalf("what was read comes back as %v, %v", second.Base, err)
		}
	})
}

// What parses marshals to a canonical form, which parses to the same.
func FuzzParseDescription(f *testing.F) {
	for _, seed := range vectors(f, "descriptions.json", "json") {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := signaling.ParseDescription(b)
		if err != nil {
			return
		}
		canonical, err := d.Marshal()
		if err != nil {
			// Escapes such as " " may grow a description beyond the limit.
			if len(b) < signaling.MaxDescription/6 {
				t.Fatal(err)
			}
			return
		}
		d2, err := signaling.ParseDescription(canonical)
		if err != nil {
			t.Fatal(err)
		}
		again, err := d2.Marshal()
		if err != nil || !bytes.Equal(canonical, again) {
			t.Fatalf("%s\n%s\n%v", canonical, again, err)
		}
	})
}

func FuzzParseMessage(f *testing.F) {
	for _, seed := range vectors(f, "messages.json", "json") {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		for _, parse := range []func([]byte) (signaling.Message, error){signaling.ParseClientMessage, signaling.ParseServerMessage} {
			m, err := parse(frame)
			if err != nil {
				continue
			}
			canonical, err := signaling.MarshalMessage(m)
			if err != nil {
				t.Fatal(err)
			}
			m2, err := parse(canonical)
			if err != nil {
				t.Fatalf("%s: %v", canonical, err)
			}
			again, err := signaling.MarshalMessage(m2)
			if err != nil || !bytes.Equal(canonical, again) {
				t.Fatalf("%s\n%s\n%v", canonical, again, err)
			}
		}
	})
}

// Each type of message, made of any values, is read as it was written, or refused for what breaks a limit.
func FuzzMessageValues(f *testing.F) {
	kinds := []func(id [16]byte, text, more string, n int, flag bool) signaling.Message{
		func(id [16]byte, text, more string, n int, flag bool) signaling.Message {
			return signaling.Join{Room: id, Peer: signaling.PeerID{byte(n)}, Token: more, Admission: text, Meta: signaling.Meta{Replica: flag, Name: more}}
		},
		func(id [16]byte, text, _ string, _ int, _ bool) signaling.Message {
			return signaling.SignalTo{To: id, Sealed: text}
		},
		func([16]byte, string, string, int, bool) signaling.Message { return signaling.Leave{} },
		func([16]byte, string, string, int, bool) signaling.Message { return signaling.Ping{} },
		func(id [16]byte, text, more string, n int, flag bool) signaling.Message {
			j := signaling.Joined{Peer: id, Token: text, TTL: n, Resumed: flag}
			for i := range max(n, 0) % 4 {
				j.Members = append(j.Members, signaling.Member{Peer: signaling.PeerID{byte(i)}, Meta: signaling.Meta{Reader: flag, Name: more}})
				j.ICEServers = append(j.ICEServers, signaling.ICEServer{URLs: []string{text, more}, Username: more, Credential: text})
			}
			return j
		},
		func(id [16]byte, text, _ string, _ int, flag bool) signaling.Message {
			return signaling.MemberJoined{Member: signaling.Member{Peer: id, Meta: signaling.Meta{Replica: flag, Name: text}}}
		},
		func(id [16]byte, _, _ string, _ int, _ bool) signaling.Message { return signaling.MemberLeft{Peer: id} },
		func(_ [16]byte, _, _ string, n int, _ bool) signaling.Message { return signaling.Moving{Within: n} },
		func(id [16]byte, text, _ string, _ int, _ bool) signaling.Message {
			return signaling.SignalFrom{From: id, Sealed: text}
		},
		func(id [16]byte, text, more string, n int, flag bool) signaling.Message {
			e := signaling.Error{Code: signaling.Code(text), Message: more, RetryAfter: n}
			if peer := signaling.PeerID(id); flag {
				e.Peer = &peer
			}
			return e
		},
		func([16]byte, string, string, int, bool) signaling.Message { return signaling.Pong{} },
	}
	for kind := range kinds {
		f.Add(byte(kind), []byte("0123456789abcdef"), "AQID", "name", 3, true)
		f.Add(byte(kind), []byte{}, "\xff\x00", "\u2028<>&", -1, false)
	}
	f.Fuzz(func(t *testing.T, kind byte, bytes []byte, text, more string, n int, flag bool) {
		var id [16]byte
		copy(id[:], bytes)
		m := kinds[int(kind)%len(kinds)](id, text, more, n, flag)
		frame, err := signaling.MarshalMessage(m)
		if err != nil {
			t.Fatal(err)
		}
		var parsed []signaling.Message
		for _, parse := range []func([]byte) (signaling.Message, error){signaling.ParseClientMessage, signaling.ParseServerMessage} {
			got, err := parse(frame)
			switch {
			case err == nil:
				parsed = append(parsed, got)
			case !errors.Is(err, signaling.ErrBadMessage) && !errors.Is(err, signaling.ErrUnknownType) && !errors.Is(err, signaling.ErrBadUTF8):
				t.Fatalf("an error of another kind: %v", err)
			case text != "" && strings.Contains(err.Error(), text) && len(text) > 64:
				t.Fatalf("the error quotes the frame: %v", err)
			}
		}
		if len(parsed) > 1 {
			t.Fatalf("%s is a message of both sides: %#v", frame, parsed)
		}
		// JSON has no way to write what is not UTF-8: it comes as U+FFFD.
		if len(parsed) == 1 && utf8.ValidString(text) && utf8.ValidString(more) && !reflect.DeepEqual(parsed[0], m) {
			t.Fatalf("%#v comes as %#v", m, parsed[0])
		}
	})
}

func FuzzOpenDescription(f *testing.F) {
	k := signaling.WriterKeys(signaling.Secret{1})
	sealed, err := k.SealDescription(bytes.NewReader(make([]byte, 12)), signaling.PeerID{1}, signaling.PeerID{2}, signaling.Description{Kind: signaling.KindWant})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range vectors(f, "seal.json", "sealed") {
		f.Add(seed)
	}
	f.Add(sealed[:len(sealed)-1])
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := k.OpenDescription(signaling.PeerID{1}, signaling.PeerID{2}, text); err == nil && text != sealed {
			t.Fatal("a forged envelope opens")
		}
	})
}

// Whatever a member seals, a good one opens it as the description that it is, or refuses it; nobody else's key or pair
// opens it, nor does one changed bit.
func FuzzSealed(f *testing.F) {
	k, a, b := signaling.WriterKeys(signaling.Secret{1}), signaling.PeerID{1}, signaling.PeerID{2}
	block, err := aes.NewCipher(k.Seal[:])
	if err != nil {
		f.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		f.Fatal(err)
	}
	pair := append(append(append([]byte{}, k.Room[:]...), a[:]...), b[:]...)
	for _, seed := range vectors(f, "descriptions.json", "json") {
		f.Add([]byte(seed), uint16(9))
	}
	f.Fuzz(func(t *testing.T, plain []byte, bit uint16) {
		envelope := append([]byte{1}, make([]byte, aead.NonceSize())...)
		envelope = aead.Seal(envelope, envelope[1:], plain, pair)
		got, err := k.OpenDescription(a, b, base64.RawURLEncoding.EncodeToString(envelope))
		want, reason := signaling.ParseDescription(plain)
		if len(plain) > signaling.MaxDescription {
			reason = signaling.ErrNotOpened
		}
		if !reflect.DeepEqual(got, want) || (err == nil) != (reason == nil) || err != nil && err.Error() != reason.Error() {
			t.Fatalf("%v, %v; want %v, %v", got, err, want, reason)
		}
		if _, err := k.OpenEnvelope(b, a, envelope); !errors.Is(err, signaling.ErrNotOpened) {
			t.Fatalf("it opens the other way round: %v", err)
		}
		if _, err := signaling.WriterKeys(signaling.Secret{2}).OpenEnvelope(a, b, envelope); !errors.Is(err, signaling.ErrNotOpened) {
			t.Fatalf("it opens in another room: %v", err)
		}
		envelope[int(bit/8)%len(envelope)] ^= 1 << (bit % 8)
		if _, err := k.OpenEnvelope(a, b, envelope); !errors.Is(err, signaling.ErrNotOpened) {
			t.Fatalf("it opens with bit %d changed: %v", bit, err)
		}
	})
}
