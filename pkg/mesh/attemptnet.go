package mesh

import (
	"net"

	"github.com/pion/transport/v5"
)

// attemptNet is the network of one attempt. Pion looks up ICE servers, and dials TURN servers over TCP, with calls that nothing
// ends, and the end of a connection waits for them: half a minute for names where no name server answers, minutes for a
// server that drops packets. Here they end with the attempt. What the system makes of them then goes on, and is thrown away.
type attemptNet struct {
	transport.Net
	done <-chan struct{} // closed when the attempt ends
}

func (n attemptNet) ResolveUDPAddr(network, address string) (*net.UDPAddr, error) {
	return unless(n.done, func() (*net.UDPAddr, error) { return n.Net.ResolveUDPAddr(network, address) }, nil)
}

func (n attemptNet) ResolveTCPAddr(network, address string) (*net.TCPAddr, error) {
	return unless(n.done, func() (*net.TCPAddr, error) { return n.Net.ResolveTCPAddr(network, address) }, nil)
}

func (n attemptNet) DialTCP(network string, local, remote *net.TCPAddr) (transport.TCPConn, error) {
	return unless(n.done, func() (transport.TCPConn, error) { return n.Net.DialTCP(network, local, remote) },
		func(c transport.TCPConn) { _ = c.Close() })
}

// unless returns what f does, or net.ErrClosed once done is closed. What f brings after that goes to late, where there is one.
func unless[T any](done <-chan struct{}, f func() (T, error), late func(T)) (T, error) {
	type outcome struct {
		value T
		err   error
	}
	over := make(chan outcome)
	go func() {
		value, err := f()
		select {
		case over <- outcome{value, err}:
		case <-done:
			if err == nil && late != nil {
				late(value)
			}
		}
	}()
	select {
	case o := <-over:
		return o.value, o.err
	case <-done:
		var none T
		return none, net.ErrClosed
	}
}
