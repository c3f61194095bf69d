package mesh

import (
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"
)

// stick has SCTP's end wait for ever, as it may: until the returned function is called, and the test ends at the latest.
func stick(t *testing.T, s *webrtc.SCTPTransport) (release func()) {
	lock := (*sync.RWMutex)(reflect.ValueOf(s).Elem().FieldByName("lock").Addr().UnsafePointer()) // held while it ends
	lock.Lock()
	release = sync.OnceFunc(lock.Unlock)
	t.Cleanup(release)
	return release
}

// TestStuckClose: a connection whose end never comes is left behind, and the member is linked anew.
func TestStuckClose(t *testing.T) {
	r := newRoom(t)
	r.timing.close = 200 * time.Millisecond
	a, b := r.add("a", 1), r.add("b", 2)
	linked(t, a, b)
	c := a.openConns(t)[0]
	release := stick(t, c.ch.(*dataChannel).dc.Transport())
	a.inspect(t, func(l *loop) { l.networkChanged(&network{l.node.addresses(), time.Now()}) }) // it looks at the path
	c.close(errDead)
	until(t, "there is another link", 15*time.Second, func() bool {
		now := a.openConns(t)
		return len(now) == 1 && now[0] != c && a.state(t, b) == LinkOpen && b.state(t, a) == LinkOpen
	})
	release()
}

// TestStuckAttempt: nothing that a member asks of its attempt waits for SCTP's end.
func TestStuckAttempt(t *testing.T) {
	n := newRoom(t).add("a", 1)
	m := &member{node: n.Node, id: peerID(2), log: n.log, pion: make(chan pionEvent, maxPion)}
	var err error
	if m.att, err = m.newAttempt(1); err != nil {
		t.Fatal(err)
	}
	m.att.described = true
	n.network.Store(&network{})
	release := stick(t, m.att.pc.SCTP())
	var asked sync.WaitGroup
	asked.Go(func() {
		m.show()
		_ = m.ended(errNoAnswer)
		m.gone(m.att)
	})
	done := make(chan struct{})
	go func() { asked.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Error("the member waits for SCTP")
	}
	release()
	asked.Wait()
	m.closeAttempt(m.att)
}
