package signaling_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"github.com/crmesh/crmesh/pkg/signaling"
)

func room(t testing.TB) signaling.Keys {
	t.Helper()
	k, err := signaling.NewRoom(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestNewRoomsDiffer(t *testing.T) {
	a, b := room(t), room(t)
	if a.Room == b.Room || a.Seal == b.Seal || a.Read == b.Read || a.WriterPublic.Equal(b.WriterPublic) {
		t.Fatal("two rooms share a key")
	}
	if _, err := signaling.NewRoom(iotest.ErrReader(errors.New("empty"))); err == nil {
		t.Fatal("a room without random bytes")
	}
}

func TestReadersCannotMakeWriteLinks(t *testing.T) {
	k := room(t)
	link, err := signaling.ParseLink(k.ReadLink("https://h/"))
	if err != nil {
		t.Fatal(err)
	}
	if text, ok := link.Keys.WriteLink("https://h/"); ok || text != "" {
		t.Fatalf("a reader made the write link %s", text)
	}
	if link.Keys.ReadLink("https://h/") != k.ReadLink("https://h/") {
		t.Fatal("a reader passes on another read link")
	}
}

func TestReadLinkWithoutItsLastPart(t *testing.T) {
	text := room(t).ReadLink("https://h/")
	_, err := signaling.ParseLink(text[:strings.LastIndex(text, ".")])
	if !errors.Is(err, signaling.ErrLinkReadCut) {
		t.Fatal(err)
	}
}

// Any change of one character of a link is noticed, except within the writer
// key, which nothing else vouches for.
func TestLinkWithOneChange(t *testing.T) {
	text, _ := room(t).WriteLink("")
	for i := 1; i < len(text); i++ {
		for _, c := range []byte("A9-_.#") {
			if text[i] == c {
				continue
			}
			changed := text[:i] + string(c) + text[i+1:]
			if _, err := signaling.ParseLink(changed); err == nil {
				t.Fatalf("character %d changed to %q, and the link is still good", i, c)
			}
		}
	}
}

func TestLinkErrorsAndKeysHideSecrets(t *testing.T) {
	k := room(t)
	text, _ := k.WriteLink("https://h/")
	_, err := signaling.ParseLink(text + "x")
	if err == nil || strings.Contains(err.Error(), text[12:40]) {
		t.Fatalf("the error shows the link: %v", err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if shown := fmt.Sprintf(verb, k.Read); shown != "(secret)" {
			t.Errorf("%s shows %s", verb, shown)
		}
	}
}

func TestLinkBases(t *testing.T) {
	k := room(t)
	for base, want := range map[string]string{
		"https://h":                "https://h/",
		"https://h:1/p/index.html": "https://h:1/p/",
		"HTTPS://h/":               "https://h/",
		"https://u:p@h/?utm=1":     "https://h/",
		"":                         "",
	} {
		text, _ := k.WriteLink(base)
		link, err := signaling.ParseLink(text)
		if err != nil || link.Base != want {
			t.Errorf("%q becomes %q, %v", base, link.Base, err)
		}
	}
	text, _ := k.WriteLink("")
	if link, err := signaling.ParseLink(text[1:]); err != nil || link.Keys.Room != k.Room {
		t.Errorf("a fragment without '#': %v", err)
	}
}

func TestWebSocketURL(t *testing.T) {
	for in, want := range map[string]string{
		"https://h":               "wss://h/v1/signal",
		"http://h:8787/":          "ws://h:8787/v1/signal",
		"https://h/p/#room":       "wss://h/p/v1/signal",
		"https://h/p/index.html":  "wss://h/p/v1/signal",
		" wss://h/p/v1/signal?x ": "wss://h/p/v1/signal",
		"ws://[::1]:1":            "ws://[::1]:1/v1/signal",
	} {
		if got, err := signaling.WebSocketURL(in); err != nil || got != want {
			t.Errorf("%s becomes %s, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "h", "h:8787", "ftp://h/", "https://", "https:///x", ":", "https://[::1#secret"} {
		got, err := signaling.WebSocketURL(in)
		if err == nil {
			t.Errorf("%q is taken for %s", in, got)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("the error shows the secret: %v", err)
		}
	}
}

func TestEnvelopeOpensOnlyWhereItBelongs(t *testing.T) {
	k, other := room(t), room(t)
	a, b, c := signaling.PeerID{1}, signaling.PeerID{2}, signaling.PeerID{3}
	d := signaling.Description{Kind: signaling.KindWant, Session: 4}
	sealed, err := k.SealDescription(rand.Reader, a, b, d)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := k.OpenDescription(a, b, sealed); err != nil || got != d {
		t.Fatalf("%+v, %v", got, err)
	}
	again, err := k.SealDescription(rand.Reader, a, b, d)
	if err != nil || again == sealed {
		t.Fatal("two envelopes are the same: the nonce is not random")
	}
	for name, open := range map[string]func() (signaling.Description, error){
		"sent back":     func() (signaling.Description, error) { return k.OpenDescription(b, a, sealed) },
		"another to":    func() (signaling.Description, error) { return k.OpenDescription(a, c, sealed) },
		"another from":  func() (signaling.Description, error) { return k.OpenDescription(c, b, sealed) },
		"another room":  func() (signaling.Description, error) { return other.OpenDescription(a, b, sealed) },
		"empty":         func() (signaling.Description, error) { return k.OpenDescription(a, b, "") },
		"cut":           func() (signaling.Description, error) { return k.OpenDescription(a, b, sealed[:38]) },
		"version 2":     func() (signaling.Description, error) { return k.OpenDescription(a, b, "Ag"+sealed[2:]) },
		"a line break":  func() (signaling.Description, error) { return k.OpenDescription(a, b, sealed+"\n") },
		"over the size": func() (signaling.Description, error) { return k.OpenDescription(a, b, strings.Repeat("A", 1<<20)) },
	} {
		if d, err := open(); !errors.Is(err, signaling.ErrNotOpened) {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
	}
	// The room id is bound by itself, not only through the key.
	moved := k
	moved.Room = other.Room
	if _, err := moved.OpenDescription(a, b, sealed); !errors.Is(err, signaling.ErrNotOpened) {
		t.Errorf("opens under another room id: %v", err)
	}
	for i := range sealed {
		changed := []byte(sealed)
		changed[i] ^= 1
		if _, err := k.OpenDescription(a, b, string(changed)); !errors.Is(err, signaling.ErrNotOpened) {
			t.Fatalf("character %d changed: %v", i, err)
		}
	}
}

func TestLargestDescriptionFitsAFrame(t *testing.T) {
	k := room(t)
	d := signaling.Description{Kind: signaling.KindOffer, Session: signaling.MaxSession, SDP: strings.Repeat("x", signaling.MaxSDP)}
	for len(mustMarshal(t, d)) < signaling.MaxDescription { // grow by escapes: one byte of SDP, two of JSON
		n := min(signaling.MaxDescription-len(mustMarshal(t, d)), signaling.MaxSDP)
		d.SDP = strings.Repeat("\n", n) + d.SDP[n:]
	}
	sealed, err := k.SealDescription(rand.Reader, signaling.PeerID{1}, signaling.PeerID{2}, d)
	if err != nil || len(sealed) != signaling.MaxSealed {
		t.Fatalf("%d characters, want %d: %v", len(sealed), signaling.MaxSealed, err)
	}
	frame, err := signaling.MarshalMessage(signaling.SignalTo{To: signaling.PeerID{2}, Sealed: sealed})
	if err != nil || len(frame) > signaling.MaxClientFrame {
		t.Fatalf("%d bytes, %v", len(frame), err)
	}
	if m, err := signaling.ParseClientMessage(frame); err != nil || m.(signaling.SignalTo).Sealed != sealed {
		t.Fatal(err)
	}
	d.SDP = "\n" + d.SDP[:len(d.SDP)-1]
	if strings.HasSuffix(d.SDP, "x") { // one byte more
		if _, err := d.Marshal(); err == nil {
			t.Fatal("a description over the limit is sealed")
		}
	}
	d.SDP = strings.Repeat("x", signaling.MaxSDP+1)
	if _, err := d.Marshal(); err == nil {
		t.Fatal("an sdp over the limit is sealed")
	}
	if _, err := signaling.ParseDescription(bytes.Repeat([]byte(" "), signaling.MaxDescription+1)); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Fatalf("a description over the limit is read: %v", err)
	}
}

func mustMarshal(t *testing.T, d signaling.Description) []byte {
	t.Helper()
	b, err := d.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A room of the greatest size an operator may choose, with names that JSON
// has to escape, still fits into one joined frame.
func TestLargestJoinedFitsAFrame(t *testing.T) {
	const mostMembers = 1024
	joined := signaling.Joined{Token: strings.Repeat("A", signaling.MaxToken), TTL: math.MaxInt32}
	for range mostMembers {
		joined.Members = append(joined.Members, signaling.Member{Meta: signaling.Meta{Reader: true, Name: strings.Repeat(`"`, signaling.MaxName)}})
	}
	frame, err := signaling.MarshalMessage(joined)
	if err != nil || len(frame) > signaling.MaxServerFrame-16<<10 {
		t.Fatalf("%d bytes leave no room for ICE servers: %v", len(frame), err)
	}
}

func TestRoleProof(t *testing.T) {
	k := room(t)
	own := signaling.End{Fingerprint: [32]byte{1}, Nonce: [32]byte{2}}
	remote := signaling.End{Fingerprint: [32]byte{3}, Nonce: [32]byte{4}}
	proof := signaling.SignRole(k.WriterPrivate, own, remote)
	verify := func(key ed25519.PublicKey, a, b signaling.End, proof []byte) bool {
		return signaling.VerifyRole(key, a, b, proof)
	}
	if !verify(k.WriterPublic, own, remote, proof) {
		t.Fatal("a good proof is refused")
	}
	change := func(e signaling.End, f func(*signaling.End)) signaling.End { f(&e); return e }
	for name, ok := range map[string]bool{
		"another fingerprint of the signer":   verify(k.WriterPublic, change(own, func(e *signaling.End) { e.Fingerprint[31]++ }), remote, proof),
		"another nonce of the signer":         verify(k.WriterPublic, change(own, func(e *signaling.End) { e.Nonce[31]++ }), remote, proof),
		"another fingerprint of the verifier": verify(k.WriterPublic, own, change(remote, func(e *signaling.End) { e.Fingerprint[0]++ }), proof),
		"another nonce of the verifier":       verify(k.WriterPublic, own, change(remote, func(e *signaling.End) { e.Nonce[0]++ }), proof),
		"another room":                        verify(room(t).WriterPublic, own, remote, proof),
		"no key":                              verify(nil, own, remote, proof),
		"no proof":                            verify(k.WriterPublic, own, remote, nil),
		"a long proof":                        verify(k.WriterPublic, own, remote, append(proof[:64:64], 0)),
	} {
		if ok {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestDescriptionsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringN(0, 60, 64)
		optional := func(label string) *string {
			if rapid.Bool().Draw(t, label+" is there") {
				s := text.Draw(t, label)
				return &s
			}
			return nil
		}
		d := signaling.Description{
			Kind:    rapid.SampledFrom([]signaling.Kind{signaling.KindOffer, signaling.KindAnswer, signaling.KindCandidate, signaling.KindWant, signaling.KindBye}).Draw(t, "kind"),
			Session: rapid.Uint64Range(0, signaling.MaxSession).Draw(t, "session"),
		}
		switch d.Kind {
		case signaling.KindOffer, signaling.KindAnswer:
			d.SDP = rapid.StringN(1, 2000, 4000).Draw(t, "sdp")
			copy(d.Nonce[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "nonce"))
			copy(d.Site[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "site"))
		case signaling.KindCandidate:
			if rapid.Bool().Draw(t, "not the end") {
				d.Candidate = &signaling.Candidate{Candidate: text.Draw(t, "candidate"), SDPMid: optional("mid"), UsernameFragment: optional("ufrag")}
				if rapid.Bool().Draw(t, "index is there") {
					index := rapid.Uint16().Draw(t, "index")
					d.Candidate.SDPMLineIndex = &index
				}
			}
		}
		b, err := d.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		got, err := signaling.ParseDescription(b)
		if err != nil {
			t.Fatal(err)
		}
		again, err := got.Marshal()
		if err != nil || !bytes.Equal(b, again) {
			t.Fatalf("%s\n%s\n%v", b, again, err)
		}
		if got.SDP != d.SDP || got.Nonce != d.Nonce || got.Site != d.Site || got.Session != d.Session || (got.Candidate == nil) != (d.Candidate == nil) {
			t.Fatalf("%+v, want %+v", got, d)
		}
	})
}

func TestDescriptionIsUTF8(t *testing.T) {
	for name, b := range map[string]string{
		"a byte that is no text": "{\"kind\":\"bye\",\"session\":1,\"x\":\"\xff\"}",
		"in the sdp":             "{\"kind\":\"offer\",\"session\":1,\"sdp\":\"\xff\",\"nonce\":\"AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\",\"site\":\"AgAAAAAAAAAAAAAAAAAAAA\"}",
	} {
		var wrong *signaling.DescriptionError
		if d, err := signaling.ParseDescription([]byte(b)); !errors.As(err, &wrong) {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
	}
	if b, err := (signaling.Description{Kind: signaling.KindAnswer, SDP: "\xff"}).Marshal(); err == nil {
		t.Errorf("marshals as %s", b)
	}
}
