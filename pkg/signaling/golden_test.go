package signaling_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/crmesh/crmesh/pkg/signaling"
)

var update = flag.Bool("update", false, "write what follows from the inputs into testdata")

// golden reads testdata/name into v, lets fill compute what follows from the
// inputs, and compares that with the file (or writes it, with -update).
func golden[V any](t *testing.T, name string, fill func(t *testing.T, v *V)) {
	t.Helper()
	file := filepath.Join("testdata", name)
	have, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var v V
	decoder := json.NewDecoder(bytes.NewReader(have))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&v); err != nil {
		t.Fatal(err)
	}
	fill(t, &v)
	var want bytes.Buffer
	encoder := json.NewEncoder(&want)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(v); err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(have, want.Bytes()) {
		return
	}
	if *update {
		if err := os.WriteFile(file, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Errorf("%s does not hold what this code computes; it would be:\n%s", file, want.String())
}

func unhex(t *testing.T, dst []byte, text string) {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(dst) {
		t.Fatalf("%q is not the hex of %d bytes", text, len(dst))
	}
	copy(dst, b)
}

var linkReasons = map[string]error{
	"empty":     signaling.ErrLinkEmpty,
	"no-secret": signaling.ErrLinkNoSecret,
	"base":      signaling.ErrLinkBase,
	"parts":     signaling.ErrLinkParts,
	"text":      signaling.ErrLinkText,
	"mismatch":  signaling.ErrLinkMismatch,
	"read-cut":  signaling.ErrLinkReadCut,
}

func TestGoldenLinks(t *testing.T) {
	type room struct {
		Name         string `json:"name"`
		Write        string `json:"write"`
		Base         string `json:"base"`
		Read         string `json:"read"`
		RoomB64      string `json:"roomB64"`
		Seal         string `json:"seal"`
		WriterPublic string `json:"writerPublic"`
		WriteLink    string `json:"writeLink"`
		ReadLink     string `json:"readLink"`
	}
	type bad struct {
		Name   string `json:"name"`
		Text   string `json:"text"`
		Reason string `json:"reason"`
	}
	type vectors struct {
		Rooms []room `json:"rooms"`
		Bad   []bad  `json:"bad"`
	}
	golden(t, "links.json", func(t *testing.T, v *vectors) {
		for i := range v.Rooms {
			r := &v.Rooms[i]
			var write signaling.Secret
			unhex(t, write[:], r.Write)
			k := signaling.WriterKeys(write)
			r.Read, r.Seal = hex.EncodeToString(k.Read[:]), hex.EncodeToString(k.Seal[:])
			r.RoomB64, r.WriterPublic = k.Room.String(), hex.EncodeToString(k.WriterPublic)
			r.WriteLink, _ = k.WriteLink(r.Base)
			r.ReadLink = k.ReadLink(r.Base)

			link, err := signaling.ParseLink("\n" + r.WriteLink + " ")
			if err != nil || link.Base != r.Base || !link.Keys.CanWrite() || !link.Keys.WriterPrivate.Equal(k.WriterPrivate) || link.Keys.Seal != k.Seal {
				t.Errorf("%s: write link: %v, %v", r.Name, link.Base, err)
			}
			link, err = signaling.ParseLink(r.ReadLink)
			if err != nil || link.Base != r.Base || link.Keys.CanWrite() || !link.Keys.WriterPublic.Equal(k.WriterPublic) || link.Keys.Seal != k.Seal {
				t.Errorf("%s: read link: %v, %v", r.Name, link.Base, err)
			}
		}
		for _, b := range v.Bad {
			_, err := signaling.ParseLink(b.Text)
			var linkError *signaling.LinkError
			if !errors.As(err, &linkError) || !errors.Is(err, linkReasons[b.Reason]) || linkReasons[b.Reason] == nil {
				t.Errorf("%s: %v, want %s", b.Name, err, b.Reason)
			}
		}
	})
}

func TestGoldenSeal(t *testing.T) {
	type envelope struct {
		Name      string `json:"name"`
		Write     string `json:"write"`
		From      string `json:"from"`
		To        string `json:"to"`
		Nonce     string `json:"nonce"`
		Plaintext string `json:"plaintext"`
		Sealed    string `json:"sealed"`
	}
	type vectors struct {
		Sealed []envelope `json:"sealed"`
	}
	golden(t, "seal.json", func(t *testing.T, v *vectors) {
		for i := range v.Sealed {
			e := &v.Sealed[i]
			var write signaling.Secret
			var from, to signaling.PeerID
			nonce := make([]byte, 12)
			unhex(t, write[:], e.Write)
			unhex(t, from[:], e.From)
			unhex(t, to[:], e.To)
			unhex(t, nonce, e.Nonce)
			k := signaling.WriterKeys(write)
			d, err := signaling.ParseDescription([]byte(e.Plaintext))
			if err != nil {
				t.Fatalf("%s: %v", e.Name, err)
			}
			if again, err := d.Marshal(); err != nil || string(again) != e.Plaintext {
				t.Errorf("%s: marshals as %s, %v", e.Name, again, err)
			}
			e.Sealed, err = k.SealDescription(bytes.NewReader(nonce), from, to, d)
			if err != nil {
				t.Fatalf("%s: %v", e.Name, err)
			}
			if got, err := k.OpenDescription(from, to, e.Sealed); err != nil || got != d {
				t.Errorf("%s: opens as %+v, %v", e.Name, got, err)
			}
		}
	})
}

func TestGoldenDescriptions(t *testing.T) {
	type valid struct {
		Name      string `json:"name"`
		JSON      string `json:"json"`
		Canonical string `json:"canonical"`
	}
	type other struct {
		Name string `json:"name"`
		JSON string `json:"json"`
	}
	type vectors struct {
		Valid   []valid `json:"valid"`
		Invalid []other `json:"invalid"`
		Unknown []other `json:"unknown"`
	}
	golden(t, "descriptions.json", func(t *testing.T, v *vectors) {
		for i := range v.Valid {
			d, err := signaling.ParseDescription([]byte(v.Valid[i].JSON))
			if err != nil {
				t.Fatalf("%s: %v", v.Valid[i].Name, err)
			}
			canonical, err := d.Marshal()
			if err != nil {
				t.Fatalf("%s: %v", v.Valid[i].Name, err)
			}
			v.Valid[i].Canonical = string(canonical)
		}
		for _, d := range v.Invalid {
			var wrong *signaling.DescriptionError
			if _, err := signaling.ParseDescription([]byte(d.JSON)); !errors.As(err, &wrong) {
				t.Errorf("%s: %v", d.Name, err)
			}
		}
		for _, d := range v.Unknown {
			if _, err := signaling.ParseDescription([]byte(d.JSON)); !errors.Is(err, signaling.ErrUnknownKind) {
				t.Errorf("%s: %v", d.Name, err)
			}
		}
	})
}

func TestGoldenMessages(t *testing.T) {
	type frame struct {
		Name      string `json:"name"`
		JSON      string `json:"json"`
		Canonical string `json:"canonical,omitempty"`
	}
	type vectors struct {
		Client    []frame `json:"client"`
		Server    []frame `json:"server"`
		Bad       []frame `json:"bad"`
		BadClient []frame `json:"badClient"`
		Unknown   []frame `json:"unknown"`
	}
	type parser = func([]byte) (signaling.Message, error)
	canonical := func(t *testing.T, frames []frame, parse parser) {
		for i := range frames {
			m, err := parse([]byte(frames[i].JSON))
			if err != nil {
				t.Fatalf("%s: %v", frames[i].Name, err)
			}
			b, err := signaling.MarshalMessage(m)
			if err != nil {
				t.Fatalf("%s: %v", frames[i].Name, err)
			}
			frames[i].Canonical = string(b)
		}
	}
	refused := func(t *testing.T, frames []frame, parse parser, want error) {
		for _, f := range frames {
			if m, err := parse([]byte(f.JSON)); !errors.Is(err, want) || m != nil {
				t.Errorf("%s: %v, %v", f.Name, m, err)
			}
		}
	}
	golden(t, "messages.json", func(t *testing.T, v *vectors) {
		canonical(t, v.Client, signaling.ParseClientMessage)
		canonical(t, v.Server, signaling.ParseServerMessage)
		refused(t, v.Bad, signaling.ParseClientMessage, signaling.ErrBadMessage)
		refused(t, v.Bad, signaling.ParseServerMessage, signaling.ErrBadMessage)
		refused(t, v.BadClient, signaling.ParseClientMessage, signaling.ErrBadMessage)
		refused(t, v.Unknown, signaling.ParseClientMessage, signaling.ErrUnknownType)
		refused(t, v.Unknown, signaling.ParseServerMessage, signaling.ErrUnknownType)
	})
}

func TestGoldenIDs(t *testing.T) {
	type pair struct {
		Name    string `json:"name"`
		Lesser  string `json:"lesser"`
		Greater string `json:"greater"`
	}
	type vectors struct {
		Ordered []pair   `json:"ordered"`
		Bad     []string `json:"bad"`
	}
	golden(t, "ids.json", func(t *testing.T, v *vectors) {
		for _, p := range v.Ordered {
			lesser, err1 := signaling.ParsePeerID(p.Lesser)
			greater, err2 := signaling.ParsePeerID(p.Greater)
			if err1 != nil || err2 != nil || lesser.Compare(greater) != -1 || greater.Compare(lesser) != 1 || lesser.String() != p.Lesser {
				t.Errorf("%s: %v, %v", p.Name, err1, err2)
			}
		}
		for _, text := range v.Bad {
			if id, err := signaling.ParsePeerID(text); err == nil {
				t.Errorf("%q is taken for %v", text, id)
			}
		}
	})
}

func TestGoldenProofs(t *testing.T) {
	type proof struct {
		Name              string `json:"name"`
		Seed              string `json:"seed"`
		OwnFingerprint    string `json:"ownFingerprint"`
		RemoteFingerprint string `json:"remoteFingerprint"`
		OwnNonce          string `json:"ownNonce"`
		RemoteNonce       string `json:"remoteNonce"`
		Public            string `json:"public"`
		Signature         string `json:"signature"`
	}
	type fingerprint struct {
		Name        string `json:"name"`
		SDP         string `json:"sdp"`
		Fingerprint string `json:"fingerprint"` // "": refused
	}
	type vectors struct {
		Proofs       []proof       `json:"proofs"`
		Fingerprints []fingerprint `json:"fingerprints"`
	}
	golden(t, "proofs.json", func(t *testing.T, v *vectors) {
		for i := range v.Proofs {
			p := &v.Proofs[i]
			var seed [32]byte
			var own, remote signaling.End
			unhex(t, seed[:], p.Seed)
			unhex(t, own.Fingerprint[:], p.OwnFingerprint)
			unhex(t, remote.Fingerprint[:], p.RemoteFingerprint)
			unhex(t, own.Nonce[:], p.OwnNonce)
			unhex(t, remote.Nonce[:], p.RemoteNonce)
			key := ed25519.NewKeyFromSeed(seed[:])
			public := key.Public().(ed25519.PublicKey)
			signature := signaling.SignRole(key, own, remote)
			p.Public, p.Signature = hex.EncodeToString(public), hex.EncodeToString(signature)
			if !signaling.VerifyRole(public, own, remote, signature) {
				t.Errorf("%s: its own proof is refused", p.Name)
			}
			if signaling.VerifyRole(public, remote, own, signature) {
				t.Errorf("%s: a proof sent back counts as one of the other end", p.Name)
			}
		}
		for _, f := range v.Fingerprints {
			fp, err := signaling.Fingerprint(f.SDP)
			if f.Fingerprint == "" {
				if !errors.Is(err, signaling.ErrFingerprint) {
					t.Errorf("%s: %x, %v", f.Name, fp, err)
				}
			} else if err != nil || hex.EncodeToString(fp[:]) != f.Fingerprint {
				t.Errorf("%s: %x, %v", f.Name, fp, err)
			}
		}
	})
}

func TestGoldenGraphs(t *testing.T) {
	type room struct {
		Name    string   `json:"name"`
		Members []string `json:"members"` // the kind and the id
		Links   []string `json:"links"`   // of each member: the places of the others in members, ascending
	}
	type vectors struct {
		Rooms []room `json:"rooms"`
	}
	golden(t, "graph.json", func(t *testing.T, v *vectors) {
		for i := range v.Rooms {
			r := &v.Rooms[i]
			members := make([]signaling.Member, len(r.Members))
			at := map[signaling.PeerID]int{}
			for j, text := range r.Members {
				kind, id, _ := strings.Cut(text, " ")
				peer, err := signaling.ParsePeerID(id)
				if err != nil {
					t.Fatalf("%s: %v", r.Name, err)
				}
				members[j] = signaling.Member{Peer: peer, Meta: signaling.Meta{Replica: kind == "replica", Reader: kind == "reader"}}
				at[peer] = j
			}
			r.Links = nil
			for _, m := range members {
				var places []int
				for _, other := range signaling.Graph(members, m.Peer) {
					places = append(places, at[other])
				}
				slices.Sort(places)
				r.Links = append(r.Links, strings.Trim(fmt.Sprint(places), "[]"))
			}
		}
	})
}
