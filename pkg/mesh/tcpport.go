package mesh

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/logging"
	"github.com/pion/transport/v5"
)

// Bounds of the TCP port.
const (
	// maxTCPConns bounds the TCP connections that are open at a time, those of strangers included; more are closed at once.
	maxTCPConns = 1024
	// firstPacketTimeout is how long a TCP connection may take until it says which link it belongs to, and how long it is
	// kept for a link that is not there.
	firstPacketTimeout = 10 * time.Second
	// acceptPause is how long the port waits after it could not take a connection, since the process had no file left.
	acceptPause = 100 * time.Millisecond
	// tcpReadQueue is how many packets of one connection wait to be read.
	tcpReadQueue = 64
	// tcpWriteBuffer is how many bytes of one connection wait to be written; more are lost, as they are with UDP.
	tcpWriteBuffer = 4 << 20
)

// tcpPort is one TCP port for all connections whose UDP packets do not get through (ICE-TCP, RFC 6544, passive).
type tcpPort struct {
	listener *boundedListener
	mux      *ice.TCPMuxDefault
}

// openTCPPort binds the port at all addresses, IPv4 and IPv6.
func openTCPPort(n transport.Net, port int, log logging.LeveledLogger) (*tcpPort, error) {
	n, err := currentNet(n)
	if err != nil {
		return nil, fmt.Errorf("the network interfaces cannot be listed: %w", err)
	}
	l, err := n.ListenTCP("tcp", &net.TCPAddr{Port: port})
	if err != nil {
		return nil, fmt.Errorf("the TCP port %d cannot be opened, choose another one: %w", port, err)
	}
	b := &boundedListener{Listener: l, limit: maxTCPConns, done: make(chan struct{})}
	return &tcpPort{b, ice.NewTCPMuxDefault(ice.TCPMuxParams{
		Listener: b, Logger: log, ReadBufferSize: tcpReadQueue, WriteBufferSize: tcpWriteBuffer,
		FirstStunBindTimeout: firstPacketTimeout, AliveDurationForConnFromStun: firstPacketTimeout,
	})}, nil
}

func (t *tcpPort) address() string {
	a := t.listener.Addr().(*net.TCPAddr)
	return fmt.Sprintf(":%d", a.Port)
}

// boundedListener takes at most limit connections at a time, and outlives a lack of files: pion stops listening at the
// first error.
type boundedListener struct {
	net.Listener
	limit int64
	open  atomic.Int64
	done  chan struct{}
	close sync.Once
}

func (l *boundedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil, err
		case err != nil:
			select {
			case <-time.After(acceptPause):
			case <-l.done:
				return nil, net.ErrClosed
			}
		case l.open.Load() >= l.limit:
			_ = c.Close()
		default:
			l.open.Add(1)
			return &countedConn{Conn: c, open: &l.open}, nil
		}
	}
}

func (l *boundedListener) Close() error {
	l.close.Do(func() { close(l.done) })
	return l.Listener.Close()
}

// countedConn counts itself out when it is closed, once.
type countedConn struct {
	net.Conn
	open  *atomic.Int64
	close sync.Once
}

func (c *countedConn) Close() error {
	c.close.Do(func() { c.open.Add(-1) })
	return c.Conn.Close()
}
