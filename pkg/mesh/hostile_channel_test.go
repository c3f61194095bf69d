package mesh

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
	"github.com/crmesh/crmesh/pkg/signaling"
)

// sites returns so many invented sites, ascending.
func sites(count int) []syncproto.SiteID {
	list := make([]syncproto.SiteID, count)
	for i := range list {
		list[i] = syncproto.SiteID(fmt.Sprintf("invented%08d", i))
	}
	return list
}

// message returns a frame with the message that parts make: numbers as uvarints, bytes and texts as they are.
func message(parts ...any) []byte {
	frame := []byte{byte(syncproto.FrameLast)}
	for _, p := range parts {
		switch p := p.(type) {
		case byte:
			frame = append(frame, p)
		case int:
			frame = binary.AppendUvarint(frame, uint64(p))
		case []byte:
			frame = append(frame, p...)
		case syncproto.SiteID:
			frame = append(frame, p...)
		}
	}
	return frame
}

// TestHostileChannel: whatever a member sends costs it its own link, with an error that says why, and nobody else's.
func TestHostileChannel(t *testing.T) {
	y := newBystanders(t)
	reader := func(s *stranger) { s.send(s.hello(nil)) }
	writer := func(s *stranger) { s.send(s.hello(s.proof())) }
	for name, c := range map[string]struct {
		do   func(*stranger)
		code syncproto.Code
	}{
		"an unknown frame":   {func(s *stranger) { s.write([]byte{9, 1, 2}) }, syncproto.CodeMalformed},
		"an empty frame":     {func(s *stranger) { s.write([]byte{1}) }, syncproto.CodeMalformed},
		"a short ping":       {func(s *stranger) { s.write([]byte{2, 1}) }, syncproto.CodeMalformed},
		"an oversized frame": {func(s *stranger) { s.write(make([]byte, 70_000)) }, syncproto.CodeTooLarge},
		"an unknown message": {func(s *stranger) { s.write([]byte{1, 77, 1, 2, 3}) }, syncproto.CodeMalformed},
		"no hello":           {func(s *stranger) { s.send(&syncproto.Have{}) }, syncproto.CodeMalformed},
		"changes before the hello": {func(s *stranger) {
			s.send(s.changes(1, "evil"))
			writer(s)
		}, syncproto.CodeMalformed},
		"a question before the hello": {func(s *stranger) { s.send(&syncproto.DigestRequest{ID: 1}) }, syncproto.CodeMalformed},
		"many questions at a time": {func(s *stranger) {
			reader(s)
			for range 100 {
				s.send(&syncproto.DigestRequest{ID: 1})
			}
		}, syncproto.CodeFlow},
		"an answer to no question": {func(s *stranger) {
			reader(s)
			s.send(&syncproto.DigestAnswer{Vector: syncproto.Vector{}})
		}, syncproto.CodeMalformed},
		"two hellos": {func(s *stranger) { reader(s); reader(s) }, syncproto.CodeMalformed},
		"a second hello, as a writer": {func(s *stranger) {
			reader(s)
			writer(s)
			s.send(s.changes(1, "evil"))
		}, syncproto.CodeMalformed},
		"another site": {func(s *stranger) {
			h := s.hello(nil)
			h.Site = "0123456789abcdef"
			s.send(h)
		}, syncproto.CodeMalformed},
		"the node's own site": {func(s *stranger) {
			h := s.hello(nil)
			h.Site = y.a.store.site
			s.send(h)
		}, syncproto.CodeSameSite},
		"a false proof": {func(s *stranger) { s.send(s.hello(make([]byte, syncproto.ProofLen))) }, syncproto.CodeBadProof},
		"the proof of another connection": {func(s *stranger) {
			other := s.remote
			other.Nonce[0] ^= 1
			s.send(s.hello(signaling.SignRole(y.room.keys.WriterPrivate, s.own, other)))
		}, syncproto.CodeBadProof},
		"a reader that writes": {func(s *stranger) { reader(s); s.send(s.changes(1, "evil")) }, syncproto.CodeReadOnly},
		"a reader with a schema": {func(s *stranger) {
			reader(s)
			s.send(&syncproto.Schema{Hash: [32]byte{1}, Tables: []syncproto.TableSchema{{Name: "evil", SQL: "CREATE TABLE evil (k)"}}})
		}, syncproto.CodeReadOnly},
		"more neighbours than there are links": {func(s *stranger) {
			h := s.hello(nil)
			h.Neighbours = sites(syncproto.MaxNeighbours + 1)
			s.send(h)
		}, syncproto.CodeMalformed},
		"ten million sites": {func(s *stranger) {
			reader(s)
			s.write(message(byte(syncproto.TypeHave), byte(0), 0, 10_000_000, sites(1)[0], 1, make([]byte, 16_000)))
		}, syncproto.CodeMalformed},
		"a million rows": {func(s *stranger) {
			writer(s)
			s.write(message(byte(syncproto.TypeChanges), byte(0), 0, 0, 1, 0, 16, s.site, 1, 1_000_000, make([]byte, 16_000)))
		}, syncproto.CodeMalformed},
		"a version of 2^63-1": {func(s *stranger) {
			writer(s)
			m := s.changes(1, "evil")
			m.Groups[0].Version = math.MaxInt64
			s.send(m)
		}, syncproto.CodeMalformed},
		"a claim of 2^63-1": {func(s *stranger) {
			writer(s)
			s.send(&syncproto.Changes{Claims: syncproto.Vector{s.site: math.MaxInt64}, Deps: syncproto.Vector{}})
		}, syncproto.CodeMalformed},
		"a claim of more than the node has written": {func(s *stranger) { // a writer's is believed: TestHostileClaims
			reader(s)
			s.send(&syncproto.Have{Delta: syncproto.Vector{y.a.store.site: syncproto.MaxVersion}})
		}, syncproto.CodeStaleCopy},
		"a count of messages never sent": {func(s *stranger) {
			reader(s)
			s.send(&syncproto.Have{Applied: 1000})
		}, syncproto.CodeMalformed},
		"a message without end, before the hello": {func(s *stranger) { s.parts(syncproto.MinMaxMessage + 1) }, syncproto.CodeTooLarge},
		"a message without end, of a reader":      {func(s *stranger) { reader(s); s.parts(syncproto.MinMaxMessage + 1) }, syncproto.CodeTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			s := y.meet(t)
			ended := s.refusal()
			c.do(s)
			if e := ended(); e == nil || e.Code != c.code {
				t.Errorf("the node said %v, not %v", e, c.code)
			}
			y.recovered(t, s)
			if y.a.store.get("stranger 0") != "" {
				t.Error("the stranger has written")
			}
		})
	}
}

// TestHostileEndless: a writer may send 64 MiB in one message, and so may begin one that never ends. While it does, and when it
// is gone, the others are none the worse for it.
func TestHostileEndless(t *testing.T) {
	y := newBystanders(t)
	s := y.meet(t)
	s.listen()
	c := y.strangers(t, s)
	s.send(s.hello(s.proof()))
	const size = 8 << 20
	s.parts(size)
	y.goOn(t)
	whileMoving(t, "the parts are read", c.bytesIn.Load, func() bool { return c.bytesIn.Load() >= size })
	if !slices.Contains(y.a.openConns(t), c) {
		t.Error("a message of 8 MiB was refused to a writer")
	}
	y.recovered(t, s)
}

// TestHostileNumbers: a version of a cell is any 64-bit number on the wire; what a store makes of it is its own affair (it
// parks it), and the link goes on.
func TestHostileNumbers(t *testing.T) {
	y := newBystanders(t)
	s := y.meet(t)
	s.listen()
	s.send(s.hello(s.proof()))
	m := s.changes(1, "huge", "small", "seq")
	m.Groups[0].Changes[0].ColVersion, m.Groups[0].Changes[0].CL = math.MaxInt64, math.MaxInt64
	m.Groups[0].Changes[1].ColVersion, m.Groups[0].Changes[1].CL = math.MinInt64, math.MinInt64
	m.Groups[0].Changes[2].Seq = math.MaxInt64
	s.send(m)
	for i, want := range []string{"huge", "small", "seq"} {
		key := fmt.Sprint("stranger ", i)
		until(t, "the row is at both", patience, func() bool { return y.a.store.get(key) == want && y.b.store.get(key) == want })
	}
	y.recovered(t, s)
}

// TestHostileBytes: frames that are nearly right, and noise.
func TestHostileBytes(t *testing.T) {
	y := newBystanders(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for round := range 8 {
		s := y.meet(t)
		ended := s.refusal()
		if round%2 == 0 {
			s.send(s.hello(s.proof()))
		}
		for range 1 + random.IntN(20) {
			var m syncproto.Message = s.changes(1, "evil", "more")
			switch random.IntN(4) {
			case 0:
				m = s.hello(s.proof())
			case 1:
				m = &syncproto.Have{HasNeighbours: true, Neighbours: sites(3), Delta: syncproto.Vector{s.site: 9}}
			case 2:
				m = &syncproto.Schema{Tables: []syncproto.TableSchema{{Name: "x", SQL: "y"}}}
			}
			frame := append([]byte{byte(random.IntN(3))}, m.AppendMarshal(nil)...)
			for range 1 + random.IntN(3) {
				frame[1+random.IntN(len(frame)-1)] ^= byte(1 + random.IntN(255))
			}
			if _, err := s.raw.Write(frame); err != nil {
				break
			}
		}
		_, _ = s.raw.Write([]byte{9, 9}) // where all of that was good luck
		if e := ended(); e == nil {
			t.Errorf("round %d: the node gave no reason", round)
		}
		y.recovered(t, s)
	}
}

// TestHostileSilence: a member that says nothing is dead after a while; one that only pings keeps a link that costs nobody
// anything.
func TestHostileSilence(t *testing.T) {
	y := bystandersIn(t, newRoom(t))
	t.Run("nothing", func(t *testing.T) {
		s := y.meet(t)
		c := y.strangers(t, s)
		select {
		case <-c.done:
			if err := c.reason(); !errors.Is(err, errDead) && !errors.Is(err, errLost) {
				t.Errorf("the link ended: %v", err)
			}
		case <-time.After(patience):
			t.Fatal("the node does not give it up")
		}
		y.recovered(t, s)
	})
	t.Run("only pings", func(t *testing.T) {
		s := y.meet(t)
		s.listen()
		c := y.strangers(t, s)
		for begun := time.Now(); time.Since(begun) < 3*y.room.timing.dead/2; time.Sleep(y.room.timing.ping / 2) {
			s.pings(1)
			y.goOn(t)
		}
		if !slices.Contains(y.a.openConns(t), c) {
			t.Error("the link of one that pings was ended")
		}
		if len(c.queueNow()) > 8 {
			t.Errorf("%d messages wait for it", len(c.queueNow()))
		}
		y.recovered(t, s)
	})
}

// TestHostileDeaf: to a member that asks for everything and reads nothing, what waits for it is bounded, also what it asks
// for with pings; everybody else goes on.
func TestHostileDeaf(t *testing.T) {
	y := newBystanders(t)
	s := y.meet(t)
	c := y.strangers(t, s)
	s.send(s.hello(s.proof()))
	text := changeset.Text(bytes.Repeat([]byte("deaf"), 16<<10))
	for i := range 64 { // 4 MiB
		y.a.store.write(text, fmt.Sprint("large ", i))
	}
	// The window is 1 MiB, less than the stranger's transport and ours take.
	until(t, "nothing goes on", patience, func() bool { return c.ch.BufferedAmount() >= highWater })
	for i := range 30 { // most pongs are dropped because others wait already
		const pings = 4000
		all := c.bytesIn.Load() + pings*9
		s.pings(pings)
		whileMoving(t, "the pings are read", c.bytesIn.Load, func() bool { return c.bytesIn.Load() >= all })
		if i%5 == 0 {
			y.goOn(t)
		}
		if n := c.ch.BufferedAmount(); n > maxControlBuffered+syncproto.MaxFrame {
			t.Fatalf("%d bytes wait in the transport", n)
		}
		if n := len(c.queueNow()); n > syncproto.WindowMessages+16 {
			t.Fatalf("%d messages wait", n)
		}
	}
	y.recovered(t, s)
}

// TestHostileDeafQuestions: who asks one question after the other and reads no answer is given up soon.
func TestHostileDeafQuestions(t *testing.T) {
	y := newBystanders(t)
	s := y.meet(t)
	c := y.strangers(t, s)
	s.send(s.hello(s.proof()))
	text := changeset.Text(bytes.Repeat([]byte("deaf"), 16<<10))
	for i := range 64 {
		y.a.store.write(text, fmt.Sprint("large ", i))
	}
	until(t, "nothing goes on", patience, func() bool { return c.ch.BufferedAmount() >= highWater })
	asked := 0
	for over := false; !over; asked++ {
		s.send(&syncproto.DigestRequest{ID: int64(asked)})
		until(t, "the question is answered, or the link over", patience, func() bool {
			select {
			case <-c.done:
				over = true
			default:
			}
			answers := 0
			for _, m := range c.queueNow() { // the transport is full: none leaves it
				if _, ok := m.(*syncproto.DigestAnswer); ok {
					answers++
				}
			}
			return over || answers > asked
		})
		if asked > 2*maxUnread {
			t.Fatalf("%d questions were answered, and %d messages wait", asked, len(c.queueNow()))
		}
	}
	if err := c.reason(); !errors.Is(err, &syncproto.Error{Code: syncproto.CodeFlow}) || asked < maxUnread/2 {
		t.Errorf("after %d questions the link ended: %v", asked, err)
	}
	y.recovered(t, s)
}

// TestHostileFloods: floods of what is allowed. Each ends with what is not, so that its end is seen.
func TestHostileFloods(t *testing.T) {
	y := newBystanders(t)
	for name, flood := range map[string]func(*stranger, int){
		"pings": func(s *stranger, i int) { s.write(syncproto.AppendPing(nil, uint64(i))) },
		"haves": func(s *stranger, i int) {
			s.send(&syncproto.Have{Feed: i%2 == 0, Busy: i%3 == 0, Delta: syncproto.Vector{sites(10)[i%10]: int64(1 + i)},
				HasNeighbours: true, Neighbours: sites(i % 50)})
		},
		"resends": func(s *stranger, i int) {
			s.send(&syncproto.Resend{Table: "t", Places: []changeset.Place{{byte(i)}, changeset.PlaceOf([]byte{1, 11, 1, 'x'})}})
		},
		"schemas": func(s *stranger, i int) {
			m := &syncproto.Schema{Hash: [32]byte{byte(i), byte(i >> 8), 1}}
			for j := range 20 {
				m.Tables = append(m.Tables, syncproto.TableSchema{Name: fmt.Sprintf("flood %02d", j), SQL: "CREATE TABLE"})
			}
			s.send(m)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := y.meet(t)
			ended := s.refusal()
			h := s.hello(s.proof())
			h.Neighbours = sites(syncproto.MaxNeighbours)
			s.send(h)
			for i := range 3000 {
				s.flow()
				flood(s, i)
				if i%1000 == 500 {
					y.goOn(t)
				}
			}
			s.write([]byte{9, 9})
			if e := ended(); e == nil || e.Code != syncproto.CodeMalformed {
				t.Errorf("the node said %v", e)
			}
			y.recovered(t, s)
		})
	}
}

// TestHostileVector: a writer claims as many sites as a vector holds, and all take them over. Whoever is linked is counted
// all the same, and no row is kept back.
func TestHostileVector(t *testing.T) {
	y := newBystanders(t)
	s := y.meet(t)
	s.listen()
	s.send(s.hello(s.proof()))
	claims := syncproto.Vector{}
	for _, site := range sites(syncproto.MaxVectorSites) {
		claims[site] = 1
	}
	s.send(&syncproto.Changes{Claims: claims, Deps: syncproto.Vector{}})
	const full = syncproto.MaxVectorSites - syncproto.ReservedSites
	for _, n := range []*testNode{y.a, y.b} {
		until(t, "the vector is full", patience, func() bool { return len(n.vector(t)) >= full })
	}
	s.leave()
	c := y.room.add("c", 4)
	linked(t, c, y.a)
	linked(t, c, y.b)
	c.store.writeText("from the newcomer", "c")
	until(t, "the row is everywhere", patience, func() bool {
		return y.a.store.get("c") == "from the newcomer" && y.b.store.get("c") == "from the newcomer"
	})
	y.goOn(t)
	for _, n := range []*testNode{y.a, y.b, c} {
		until(t, "the node is in sync", patience, func() bool {
			status, err := n.Status(t.Context())
			return err == nil && status.Synced
		})
		v := n.vector(t)
		for _, other := range []*testNode{y.a, y.b, c} {
			if v[other.store.site] == 0 {
				t.Errorf("%s is not in the vector of %s", other.id, n.id)
			}
		}
		if len(v) > full+3 {
			t.Errorf("the vector of %s has %d sites", n.id, len(v))
		}
	}
}

// TestHostileWithholding: a writer claims to have sent what a third one wrote, and has not. Those who believe it miss the rows, also
// from who has them, and look in sync to everybody. Verify finds exactly these rows, and Repair mends them.
func TestHostileWithholding(t *testing.T) {
	y := newBystanders(t)
	honest := newMemStore("c")
	honest.writeText("withheld", "c0", "c1", "c2")
	state, err := honest.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := y.meet(t)
	s.listen()
	s.send(s.hello(s.proof()))
	s.send(&syncproto.Changes{Claims: syncproto.Vector{honest.site: state.Heads.Own}, Deps: syncproto.Vector{}})
	believers := []*testNode{y.a, y.b}
	for _, n := range believers {
		until(t, "the lie is believed", patience, func() bool { return n.vector(t)[honest.site] == state.Heads.Own })
	}
	s.leave()
	c := y.room.addStore(honest, "c", 4)
	for _, n := range believers {
		linked(t, c, n)
	}
	c.store.writeText("told", "later")
	for _, n := range append(believers, c) {
		n.await(t, Condition{Links: 2, Synced: true})
	}
	want := []string{"t c0 only theirs", "t c1 only theirs", "t c2 only theirs"}
	for _, n := range believers {
		if n.store.get("later") != "told" || n.store.get("c1") != "" {
			t.Fatalf("%s has %q and %q", n.id, n.store.get("later"), n.store.get("c1"))
		}
		for _, m := range n.verify(t, VerifyOptions{Rows: 10}).Members {
			if m.Peer == c.id.String() && (m.Outcome != VerifyDifferent || !slices.Equal(keysOf(m), want)) {
				t.Errorf("%s: %s %v", n.id, m.Outcome, keysOf(m))
			}
		}
		n.verify(t, VerifyOptions{Repair: true})
		for _, m := range n.verify(t, VerifyOptions{}).Members {
			if m.Peer == c.id.String() && m.Outcome != VerifyIdentical {
				t.Errorf("%s after the repair: %+v", n.id, m)
			}
		}
	}
	y.room.equal(y.a, y.b, c)
}
