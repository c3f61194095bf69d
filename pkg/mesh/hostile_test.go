package mesh

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pion/datachannel"
	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/webrtc/v4"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
	"github.com/crmesh/crmesh/pkg/signaling"
)

// strangerMessage is the longest message of the channel that a stranger sends, in bytes.
const strangerMessage = 1 << 20

// stranger is a member that speaks WebRTC by hand, and whatever it likes on the channel.
type stranger struct {
	t      testing.TB
	client *hubClient
	pc     *webrtc.PeerConnection
	raw    datachannel.ReadWriteCloser
	site   syncproto.SiteID
	own    signaling.End
	remote signaling.End
}

// meetStranger joins the room under an id below that of n, answers n's offer, and returns once the channel is open.
func meetStranger(r *room, n *testNode) *stranger {
	t := r.t
	t.Helper()
	id := peerID(0)
	sum := sha256.Sum256(id[:])
	s := &stranger{t: t, client: r.hub.join(id), site: syncproto.SiteID(sum[:16])}
	settings := webrtc.SettingEngine{LoggerFactory: pionLogs{n.log}}
	settings.DetachDataChannels()
	settings.SetIncludeLoopbackCandidate(true)
	settings.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	settings.SetSCTPMaxMessageSize(strangerMessage)
	api := webrtc.NewAPI(webrtc.WithSettingEngine(settings), webrtc.WithMediaEngine(&webrtc.MediaEngine{}),
		webrtc.WithInterceptorRegistry(&interceptor.Registry{}))
	var err error
	if s.pc, err = api.NewPeerConnection(webrtc.Configuration{}); err != nil {
		t.Fatal(err)
	}
	negotiated, channelID := true, uint16(0)
	dc, err := s.pc.CreateDataChannel(channelLabel, &webrtc.DataChannelInit{Negotiated: &negotiated, ID: &channelID})
	if err != nil {
		t.Fatal(err)
	}
	open := make(chan datachannel.ReadWriteCloser, 1)
	dc.OnOpen(func() {
		raw, err := dc.Detach()
		if err != nil {
			t.Error(err)
		}
		open <- raw
	})
	for s.raw == nil {
		select {
		case e := <-s.client.events:
			if signal, ok := e.(Signal); ok && signal.From == n.id {
				s.take(signal)
			}
		case s.raw = <-open:
		case <-time.After(10 * time.Second):
			t.Fatal("the stranger got no channel")
		}
	}
	t.Cleanup(func() {
		r.hub.leave(id)
		if err := s.pc.GracefulClose(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *stranger) take(e Signal) {
	s.t.Helper()
	switch d := e.Description; d.Kind {
	case signaling.KindOffer:
		s.remote = s.end(d.SDP, d.Nonce)
		// pion keeps to what the other side takes, a stranger does not.
		sdp := strings.Replace(d.SDP, "a=max-message-size:65536", fmt.Sprint("a=max-message-size:", strangerMessage), 1)
		if sdp == d.SDP {
			s.t.Fatalf("the offer does not say what its side takes: %s", sdp)
		}
		if err := s.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: sdp}); err != nil {
			s.t.Fatal(err)
		}
		answer, err := s.pc.CreateAnswer(nil)
		if err != nil {
			s.t.Fatal(err)
		}
		gathered := webrtc.GatheringCompletePromise(s.pc)
		if err := s.pc.SetLocalDescription(answer); err != nil {
			s.t.Fatal(err)
		}
		<-gathered
		var nonce [32]byte
		_, _ = rand.Read(nonce[:])
		sdp = s.pc.LocalDescription().SDP
		s.own = s.end(sdp, nonce)
		answered := signaling.Description{Kind: signaling.KindAnswer, Session: d.Session, SDP: sdp, Nonce: nonce}
		copy(answered.Site[:], s.site)
		if err := s.client.Send(e.From, answered); err != nil {
			s.t.Fatal(err)
		}
	case signaling.KindCandidate:
		if d.Candidate != nil {
			if err := s.pc.AddICECandidate(webrtc.ICECandidateInit{Candidate: d.Candidate.Candidate, SDPMid: d.Candidate.SDPMid,
				SDPMLineIndex: d.Candidate.SDPMLineIndex}); err != nil {
				s.t.Fatal(err)
			}
		}
	}
}

func (s *stranger) end(sdp string, nonce [32]byte) signaling.End {
	fingerprint, err := signaling.Fingerprint(sdp)
	if err != nil {
		s.t.Fatal(err)
	}
	return signaling.End{Fingerprint: fingerprint, Nonce: nonce}
}

func (s *stranger) write(frame []byte) {
	s.t.Helper()
	if _, err := s.raw.Write(frame); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stranger) send(m syncproto.Message) {
	s.t.Helper()
	for rest := m.AppendMarshal(nil); rest != nil; {
		var frame []byte
		frame, rest = syncproto.AppendFrame(nil, rest)
		s.write(frame)
	}
}

func (s *stranger) hello(proof []byte) *syncproto.Hello {
	return &syncproto.Hello{Site: s.site, Writer: proof != nil, Proof: proof, MaxMessage: syncproto.MaxMessage}
}

// refused reads until the channel ends, and returns the error that was said before.
func (s *stranger) refused() *syncproto.Error {
	s.t.Helper()
	assembler := syncproto.NewAssembler(syncproto.MaxMessage)
	buf := make([]byte, 1<<17)
	var said *syncproto.Error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			n, err := s.raw.Read(buf)
			if err != nil {
				return
			}
			f, err := assembler.Frame(buf[:n])
			if err != nil || f.Kind != syncproto.FrameLast {
				continue
			}
			if m, err := syncproto.Parse(f.Message); err == nil {
				if e, ok := m.(*syncproto.Error); ok {
					said = e
				}
			}
		}
	}()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		s.t.Fatal("the node keeps the channel open")
	}
	return said
}

// TestHostileChannel: whatever a member sends costs it its own link, with an error that says why, and nobody else's.
func TestHostileChannel(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(*stranger, *room)
		code syncproto.Code
	}{
		"an unknown frame":   {func(s *stranger, _ *room) { s.write([]byte{9, 1, 2}) }, syncproto.CodeMalformed},
		"an empty frame":     {func(s *stranger, _ *room) { s.write([]byte{1}) }, syncproto.CodeMalformed},
		"a short ping":       {func(s *stranger, _ *room) { s.write([]byte{2, 1}) }, syncproto.CodeMalformed},
		"an oversized frame": {func(s *stranger, _ *room) { s.write(make([]byte, 70_000)) }, syncproto.CodeTooLarge},
		"an unknown message": {func(s *stranger, _ *room) { s.write([]byte{1, 77, 1, 2, 3}) }, syncproto.CodeMalformed},
		"no hello":           {func(s *stranger, _ *room) { s.send(&syncproto.Have{}) }, syncproto.CodeMalformed},
		"two hellos":         {func(s *stranger, _ *room) { s.send(s.hello(nil)); s.send(s.hello(nil)) }, syncproto.CodeMalformed},
		"another site": {func(s *stranger, _ *room) {
			h := s.hello(nil)
			h.Site = "0123456789abcdef"
			s.send(h)
		}, syncproto.CodeMalformed},
		"a false proof": {func(s *stranger, _ *room) { s.send(s.hello(make([]byte, syncproto.ProofLen))) }, syncproto.CodeBadProof},
		"the proof of another connection": {func(s *stranger, r *room) {
			other := s.remote
			other.Nonce[0] ^= 1
			s.send(s.hello(signaling.SignRole(r.keys.WriterPrivate, s.own, other)))
		}, syncproto.CodeBadProof},
		"a reader that writes": {func(s *stranger, _ *room) {
			s.send(s.hello(nil))
			pk, _ := changeset.AppendPacked(nil, []changeset.Value{changeset.TextString("evil")})
			s.send(&syncproto.Changes{Groups: []syncproto.Group{{Origin: s.site, Version: 1, Changes: []changeset.Change{
				{Table: "t", PK: pk, CID: "v", Val: changeset.TextString("evil"), ColVersion: 1, CL: 1, Site: s.site}}}}})
		}, syncproto.CodeReadOnly},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t)
			a, b := r.add("a", 2), r.add("b", 3)
			linked(t, a, b)
			before := a.openConns(t)[0]
			s := meetStranger(r, a)
			c.do(s, r)
			if e := s.refused(); e == nil || e.Code != c.code {
				t.Errorf("the node said %v, not %v", e, c.code)
			}
			// Everybody else goes on over the same link.
			a.store.writeText("after", "k")
			r.equal(a, b)
			b.store.writeText("and back", "k")
			r.equal(a, b)
			if a.store.get("evil") != "" {
				t.Error("a reader has written")
			}
			if conns := a.openConns(t); !containsConn(conns, before) {
				t.Error("the other link was replaced")
			}
		})
	}
}

func containsConn(conns []*conn, c *conn) bool {
	for _, x := range conns {
		if x == c {
			return true
		}
	}
	return false
}

// TestReaderReceives: a node with the read keys gets everything, and is shown as a reader.
func TestReaderReceives(t *testing.T) {
	r := newRoom(t)
	a := r.add("a", 1)
	reader := r.add("r", 2, func(c *Config) { c.Keys = signaling.ReaderKeys(r.keys.Read, r.keys.WriterPublic) })
	a.store.writeText("x", "k")
	a.await(t, Condition{Links: 1, Synced: true})
	until(t, "the reader has it", 10*time.Second, func() bool { return reader.store.get("k") == "x" })
	if s := a.await(t, Condition{}); s.Members[0].Role != "reader" {
		t.Errorf("the reader is shown as %q", s.Members[0].Role)
	}
}

// TestStoreFails: the node reports the error of its store and stops; the others go on.
func TestStoreFails(t *testing.T) {
	r := newRoom(t)
	a, b, c := r.add("a", 1), r.add("b", 2), r.add("c", 3)
	linked(t, a, b, c)
	b.store.breakWith(errDiskFull)
	a.store.writeText("x", "k")
	select {
	case <-b.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the node goes on")
	}
	if err := b.Err(); !errors.Is(err, errDiskFull) || !strings.Contains(err.Error(), "database") {
		t.Errorf("the node ended with %v", err)
	}
	if _, err := b.Status(t.Context()); !errors.Is(err, errDiskFull) {
		t.Errorf("Status: %v", err)
	}
	r.equal(a, c)
}

// TestWaitEnds: Wait ends with its context, and with the node.
func TestWaitEnds(t *testing.T) {
	r := newRoom(t)
	a := r.add("a", 1)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := a.Wait(ctx, Condition{Links: 1}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Wait: %v", err)
	}
	waited := make(chan error, 1)
	go func() {
		_, err := a.Wait(context.Background(), Condition{Links: 1})
		waited <- err
	}()
	r.stop(a)
	if err := receive(t, waited); !errors.Is(err, ErrClosed) {
		t.Errorf("Wait: %v", err)
	}
}

// TestLargeValue: a value of 10 MB passes, and pings pass it by: the link is never suspect.
func TestLargeValue(t *testing.T) {
	r := newRoom(t)
	a, b := r.add("a", 1), r.add("b", 2)
	linked(t, a, b)
	big := make([]byte, 10_000_000)
	_, _ = rand.Read(big)
	a.store.write(changeset.Blob(big), "big")
	until(t, "the value is there", 20*time.Second, func() bool { return b.store.get("big") == string(big) })
	if s := b.await(t, Condition{Links: 1}); s.Members[0].State != LinkOpen {
		t.Errorf("the link is %s", s.Members[0].State)
	}
}

// TestManyCommits: a burst of commits arrives in order of time, whatever is combined on the way.
func TestManyCommits(t *testing.T) {
	r := newRoom(t)
	a, b := r.add("a", 1), r.add("b", 2)
	linked(t, a, b)
	for i := range 2000 {
		a.store.writeText(fmt.Sprint(i), fmt.Sprint("k", i%50))
	}
	a.await(t, Condition{Links: 1, Synced: true})
	r.equal(a, b)
}
