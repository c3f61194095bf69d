package mesh

import (
	"net"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/pion/transport/v5"
	"github.com/pion/transport/v5/stdnet"
	"github.com/pion/webrtc/v4"

	"github.com/crmesh/crmesh/pkg/signaling"
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
	until(t, "there is another link", patience, func() bool {
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
	case <-time.After(patience):
		t.Error("the member waits for SCTP")
	}
	release()
	asked.Wait()
	m.closeAttempt(m.att)
}

// silentNet is a network in which no name server answers, and no server over TCP, until answer is closed.
type silentNet struct {
	transport.Net
	asked  chan<- string
	answer <-chan struct{}
}

func (n silentNet) ResolveUDPAddr(_, address string) (*net.UDPAddr, error) {
	n.asked <- address
	<-n.answer
	return nil, net.UnknownNetworkError("there is no such name")
}

func (n silentNet) DialTCP(network string, local, remote *net.TCPAddr) (transport.TCPConn, error) {
	n.asked <- remote.String()
	<-n.answer
	return n.Net.DialTCP(network, local, remote)
}

// TestSilentServers: a member whose ICE servers cannot be looked up, or do not take its connection, waits for them no longer
// than its attempt lasts.
func TestSilentServers(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	for name, server := range map[string]signaling.ICEServer{
		"lookup": {URLs: []string{"stun:silent.example:3478"}},
		"dial":   {URLs: []string{"turn:" + listener.Addr().String() + "?transport=tcp"}, Username: "user", Credential: "password"},
	} {
		t.Run(name, func(t *testing.T) {
			std, err := stdnet.NewNet()
			if err != nil {
				t.Fatal(err)
			}
			r := newRoom(t)
			r.timing.close = time.Hour
			asked, answer := make(chan string, 100), make(chan struct{})
			defer close(answer)
			a := r.add("a", 1, onNet(silentNet{std, asked, answer}), func(c *Config) { c.ICEServers = []signaling.ICEServer{server} })
			b := r.add("b", 2)
			linked(t, a, b)
			c := a.openConns(t)[0]
			receive(t, asked)
			c.close(errDead)
			until(t, "there is another link", patience, func() bool {
				now := a.openConns(t)
				return len(now) == 1 && now[0] != c && b.state(t, a) == LinkOpen
			})
		})
	}
}
