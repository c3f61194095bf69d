package signalserver

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
	"time"
)

// wired is a wire and its other end.
func wired(t *testing.T) (*wire, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	peer, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{}
	w.take(c, nil)
	t.Cleanup(func() {
		_ = peer.Close()
		_ = w.Close()
	})
	return w, peer
}

// A frame of which the socket took a part goes on before anything else that is written meanwhile.
func TestBegunFrameStaysWhole(t *testing.T) {
	w, peer := wired(t)
	if w.low == nil {
		t.Skip("here nothing is written without waiting")
	}
	var want []byte
	for i := byte('a'); ; i++ { // until the socket is full
		frame := appendFrame(nil, bytes.Repeat([]byte{i}, 60_000))
		n, err := w.begin(frame)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 { // exactly full
			t.Skip("the socket takes whole frames only")
		}
		if want = append(want, frame...); n == len(frame) {
			continue
		}
		if n, err := w.begin(pingFrame); n != 0 || err != nil {
			t.Fatalf("%d bytes, %v: written into a frame", n, err)
		}
		written := make(chan error, 1)
		go func() { // ends with the reading below
			_, err := w.Write(pingFrame)
			written <- err
		}()
		finished := make(chan error, 1)
		go func() { finished <- w.finish(frame[n:], time.Now().Add(time.Minute)) }()
		want = append(want, pingFrame...)
		got := make([]byte, len(want))
		if _, err := io.ReadFull(peer, got); err != nil {
			t.Fatal(err)
		}
		if err := <-finished; err != nil {
			t.Fatal(err)
		}
		if err := <-written; err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Fatal("frames are mixed")
		}
		return
	}
}

// A write that nobody reads is over in time.
func TestWriteUntil(t *testing.T) {
	w, _ := wired(t)
	if err := w.writeUntil(make([]byte, 64<<20), time.Now().Add(50*time.Millisecond)); err == nil {
		t.Error("64 MB are written, and nobody has read them")
	}
}

// Alarms ring in order, each once, unless they were removed or set anew.
func TestAlarms(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 100 {
		a := alarms{sooner: make(chan struct{}, 1)}
		conns := make([]*conn, 50)
		for i := range conns {
			conns[i] = &conn{}
		}
		want := map[*conn]time.Duration{}
		for range 300 {
			c := conns[random.IntN(len(conns))]
			if random.IntN(4) == 0 {
				a.remove(c)
				delete(want, c)
				continue
			}
			want[c] = time.Duration(random.IntN(1000)) // long past
			a.set(c, want[c])
		}
		var rang []time.Duration
		for c, _ := a.next(); c != nil; c, _ = a.next() {
			if due, ok := want[c]; !ok || due != c.due {
				t.Fatalf("one rings for %v, is to for %v (%v)", c.due, due, ok)
			}
			delete(want, c)
			rang = append(rang, c.due)
		}
		if len(want) != 0 || !slices.IsSorted(rang) {
			t.Fatalf("%d did not ring; the others for %v", len(want), rang)
		}
	}
	a := alarms{sooner: make(chan struct{}, 1)}
	a.set(&conn{}, sinceEpoch()+time.Hour)
	if c, wait := a.next(); c != nil || wait < 59*time.Minute || wait > time.Hour {
		t.Errorf("rings in %v", wait)
	}
}
