package signaling_test

import (
	"bytes"
	"testing"

	"github.com/crmesh/crmesh/pkg/signaling"
)

func FuzzParseLink(f *testing.F) {
	k := signaling.WriterKeys(signaling.Secret{1})
	write, _ := k.WriteLink("https://h/p/")
	f.Add(write)
	f.Add(k.ReadLink("http://[::1]:8/"))
	f.Add("#.")
	f.Fuzz(func(t *testing.T, text string) {
		link, err := signaling.ParseLink(text)
		if err != nil {
			return
		}
		again := link.Keys.ReadLink(link.Base)
		if w, ok := link.Keys.WriteLink(link.Base); ok {
			again = w
		}
		second, err := signaling.ParseLink(again)
		if err != nil || second.Base != link.Base || second.Keys.Room != link.Keys.Room || second.Keys.CanWrite() != link.Keys.CanWrite() {
			t.Fatalf("what was read comes back as %v, %v", second.Base, err)
		}
	})
}

// What parses marshals to a canonical form, which parses to the same.
func FuzzParseDescription(f *testing.F) {
	for _, seed := range []string{
		`{"kind":"want","session":1}`,
		`{"kind":"candidate","session":1,"candidate":{"candidate":"a","sdpMid":"0","sdpMLineIndex":0,"usernameFragment":"u"}}`,
		`{"kind":"offer","session":1,"sdp":"v=0","nonce":"AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","site":"AgAAAAAAAAAAAAAAAAAAAA"}`,
	} {
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
	for _, seed := range []string{
		`{"type":"join","room":"AAAAAAAAAAAAAAAAAAAAAA","peer":"AQAAAAAAAAAAAAAAAAAAAA","token":"abc","meta":{"replica":true,"name":"x"}}`,
		`{"type":"signal","to":"AQAAAAAAAAAAAAAAAAAAAA","from":"AQAAAAAAAAAAAAAAAAAAAA","sealed":"AQID"}`,
		`{"type":"joined","peer":"AQAAAAAAAAAAAAAAAAAAAA","token":"abc","members":[{"peer":"AgAAAAAAAAAAAAAAAAAAAA"}],"iceServers":[{"urls":["x"]}]}`,
		`{"type":"error","code":"rate","retryAfter":3,"peer":"AgAAAAAAAAAAAAAAAAAAAA"}`,
		`{"type":"leave"}`,
	} {
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

func FuzzOpenDescription(f *testing.F) {
	k := signaling.WriterKeys(signaling.Secret{1})
	sealed, err := k.SealDescription(bytes.NewReader(make([]byte, 12)), signaling.PeerID{1}, signaling.PeerID{2}, signaling.Description{Kind: signaling.KindWant})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := k.OpenDescription(signaling.PeerID{1}, signaling.PeerID{2}, text); err == nil && text != sealed {
			t.Fatal("a forged envelope opens")
		}
	})
}
