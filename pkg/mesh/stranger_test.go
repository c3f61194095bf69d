package mesh

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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

// strangerMessage is the longest message of the channel that a stranger sends, and strangerBuffer what its transport takes
// that it does not read, both in bytes.
const (
	strangerMessage = 1 << 20
	strangerBuffer  = 256 << 10
)

// stranger is a member that speaks WebRTC by hand, and whatever it likes on the channel.
type stranger struct {
	t      testing.TB
	room   *room
	client *hubClient
	pc     *webrtc.PeerConnection
	dc     *webrtc.DataChannel
	raw    datachannel.ReadWriteCloser
	site   syncproto.SiteID
	own    signaling.End
	remote signaling.End
	left   sync.Once
	doomed bool        // the channel is to end; what is written after that does not matter
	over   atomic.Bool // it has
}

// meetStranger joins the room under an id below that of n, answers n's offer, and returns once the channel is open.
func meetStranger(t testing.TB, r *room, n *testNode) *stranger {
	t.Helper()
	id := peerID(0)
	sum := sha256.Sum256(id[:])
	s := &stranger{t: t, room: r, client: r.hub.join(id), site: syncproto.SiteID(sum[:16])}
	settings := webrtc.SettingEngine{LoggerFactory: pionLogs{n.log}}
	settings.DetachDataChannels()
	settings.SetIncludeLoopbackCandidate(true)
	settings.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	settings.SetSCTPMaxMessageSize(strangerMessage)
	settings.SetSCTPMaxReceiveBufferSize(strangerBuffer)
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
	s.dc = dc
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
		case <-time.After(patience):
			t.Fatal("the stranger got no channel")
		}
	}
	t.Cleanup(s.leave)
	return s
}

// leave ends the stranger, once.
func (s *stranger) leave() {
	s.left.Do(func() {
		s.room.hub.leave(s.client.id)
		if err := s.pc.GracefulClose(); err != nil {
			s.t.Error(err)
		}
	})
}

func (s *stranger) take(e Signal) {
	s.t.Helper()
	switch d := e.Description; d.Kind {
	case signaling.KindOffer:
		end := s.end(d.SDP, d.Nonce)
		if end == s.remote {
			return // repeated, since there may be another way now; the answer is on its way
		}
		s.remote = end
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
	if _, err := s.raw.Write(frame); err != nil && !s.doomed {
		s.t.Fatal(err)
	}
}

func (s *stranger) send(m syncproto.Message) {
	s.t.Helper()
	for rest := m.AppendMarshal(nil); rest != nil; {
		var frame []byte
		frame, rest = syncproto.AppendFrame(nil, rest)
		s.flow()
		s.write(frame)
	}
}

func (s *stranger) hello(proof []byte) *syncproto.Hello {
	return &syncproto.Hello{Site: s.site, Writer: proof != nil, Proof: proof, MaxMessage: syncproto.MaxMessage}
}

// proof is the writer's, for this connection.
func (s *stranger) proof() []byte {
	return signaling.SignRole(s.room.keys.WriterPrivate, s.own, s.remote)
}

// changes is a group of one cell for each value, by the stranger.
func (s *stranger) changes(version int64, values ...string) *syncproto.Changes {
	g := syncproto.Group{Origin: s.site, Version: version}
	for i, v := range values {
		pk, err := changeset.AppendPacked(nil, []changeset.Value{changeset.TextString(fmt.Sprint("stranger ", i))})
		if err != nil {
			s.t.Fatal(err)
		}
		g.Changes = append(g.Changes, changeset.Change{Table: "t", PK: pk, CID: "v", Val: changeset.TextString(v), ColVersion: version,
			CL: 1, Seq: int64(i), Site: s.site})
	}
	return &syncproto.Changes{Groups: []syncproto.Group{g}}
}

// listen reads whatever comes, as one does who goes on, until the channel ends.
func (s *stranger) listen() {
	go func() {
		for buf := make([]byte, 1<<17); ; {
			if _, err := s.raw.Read(buf); err != nil {
				return
			}
		}
	}()
}

// parts sends at least so many bytes of a message that does not end, unless it is refused.
func (s *stranger) parts(size int) {
	s.t.Helper()
	for part := make([]byte, syncproto.MaxFrameAccepted); size > 0; size -= len(part) - 1 {
		s.flow()
		if _, err := s.raw.Write(part); err != nil {
			return
		}
	}
}

// pings sends so many pings.
func (s *stranger) pings(count int) {
	s.t.Helper()
	for i := range count {
		s.flow()
		s.write(syncproto.AppendPing(nil, uint64(i)))
	}
}

// flow waits while much is on its way, since pion keeps everything that is written, and the channel is there.
func (s *stranger) flow() {
	s.t.Helper()
	until(s.t, "the node reads", patience, func() bool { return s.dc.BufferedAmount() < 1<<20 || s.over.Load() })
}

// refusal reads until the channel ends. What it returns waits for that, and returns the error that was said before.
func (s *stranger) refusal() func() *syncproto.Error {
	s.doomed = true
	assembler := syncproto.NewAssembler(syncproto.MaxMessage)
	buf := make([]byte, 1<<17)
	var said *syncproto.Error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer s.over.Store(true)
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
	return func() *syncproto.Error {
		s.t.Helper()
		select {
		case <-ended:
		case <-time.After(patience):
			s.t.Fatal("the node keeps the channel open")
		}
		return said
	}
}

// bystanders are two linked nodes, of which strangers meet the first, and how things were before the latest.
type bystanders struct {
	room       *room
	a, b       *testNode
	link       *conn // of a to b
	written    int
	goroutines int
	heap       uint64
}

// spare is how much more may be in use after a stranger than before, in bytes: caches of pion and of the runtime.
const spare = 24 << 20

// newBystanders makes them; they take silence for as long as in life, since a slow machine is silent for longer than tests wait.
func newBystanders(t testing.TB) *bystanders {
	r := newRoom(t)
	r.timing.suspect, r.timing.dead = SuspectAfter, DeadAfter
	return bystandersIn(t, r)
}

func bystandersIn(t testing.TB, r *room) *bystanders {
	y := &bystanders{room: r, a: r.add("a", 2), b: r.add("b", 3)}
	linked(t, y.a, y.b)
	y.link = y.a.openConns(t)[0]
	y.goOn(t)
	return y
}

// meet lets a stranger meet the first of them.
func (y *bystanders) meet(t testing.TB) *stranger {
	t.Helper()
	y.goroutines, y.heap = runtime.NumGoroutine(), inUse()
	return meetStranger(t, y.room, y.a)
}

func inUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// goOn checks that rows go both ways between the bystanders, over the link that they had.
func (y *bystanders) goOn(t testing.TB) {
	t.Helper()
	for _, n := range []*testNode{y.a, y.b} {
		y.written++
		value := fmt.Sprint("value ", y.written)
		n.store.writeText(value, "of the bystanders")
		until(t, "the row is at both", patience, func() bool {
			return y.a.store.get("of the bystanders") == value && y.b.store.get("of the bystanders") == value
		})
	}
	if !slices.Contains(y.a.openConns(t), y.link) {
		t.Error("the link between the bystanders was replaced")
	}
}

// recovered checks that they go on after the stranger s, and that nothing of it is left.
func (y *bystanders) recovered(t testing.TB, s *stranger) {
	t.Helper()
	s.leave()
	until(t, "the node has forgotten the stranger", patience, func() bool {
		return len(y.a.openConns(t)) == 1 && y.a.Connections() == 1
	})
	y.goOn(t)
	until(t, "no goroutine is left", patience, func() bool { return runtime.NumGoroutine() <= y.goroutines })
	until(t, "memory is back", patience, func() bool { return inUse() < y.heap+spare })
}

// strangers returns the node's end of a stranger's channel.
func (y *bystanders) strangers(t testing.TB, s *stranger) *conn {
	t.Helper()
	var c *conn
	until(t, "the node has the stranger's link", patience, func() bool {
		for _, x := range y.a.openConns(t) {
			if x.peer == s.client.id {
				c = x
			}
		}
		return c != nil
	})
	return c
}

// queueNow returns the messages that wait to be sent.
func (c *conn) queueNow() []syncproto.Message {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.queue)
}

// vector returns what the node claims to cover.
func (n *testNode) vector(t testing.TB) syncproto.Vector {
	t.Helper()
	var v syncproto.Vector
	done := make(chan struct{})
	n.inspect(t, func(l *loop) { v = l.core.Vector(); close(done) })
	<-done
	return v
}
