package mesh

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/logging"
	"github.com/pion/transport/v5"
)

// sharedSocketBuffer is asked of the kernel for a UDP socket that all connections share, in bytes.
const sharedSocketBuffer = 4 << 20

// maxSockets bounds the addresses of the machine that one port is bound at.
const maxSockets = 64

var errNoSocket = errors.New("no socket of the shared UDP port has this address")

// udpPort is one UDP port for all connections: a socket with a mux of pion's at each address of the machine, since an answer
// must leave from the address that was asked. The addresses are looked at again whenever a connection gathers candidates, so
// that one which comes later is used, too.
//
// A mux tells packets apart by where they come from. Where the other end has one port for all, too, only one connection
// between the two works at a time: the old one has to be closed before a new one begins.
type udpPort struct {
	net  transport.Net // nil: that of the machine
	port int
	log  logging.LeveledLogger

	mu     sync.Mutex // guards the following
	muxes  map[netip.AddrPort]*udpSocket
	closed bool
}

// udpSocket is a socket of the port.
type udpSocket struct {
	*ice.UDPMuxDefault
	gone time.Time // since when the machine does not have its address; zero: it does
}

// keepGone is how long a socket stays open after its address has gone. To SCTP a socket that is closed is the end of its
// connection, one that does not get through is a loss: so it stays until the links that used it have found another path. And if
// the address comes back, it is used on.
const keepGone = DeadAfter

var _ ice.UDPMux = (*udpPort)(nil)

// openUDPPort binds the port at every address that the machine has now; all or none.
func openUDPPort(n transport.Net, port int, log logging.LeveledLogger) (*udpPort, error) {
	u := &udpPort{net: n, port: port, log: log, muxes: map[netip.AddrPort]*udpSocket{}}
	if err := u.refresh(); err != nil {
		return nil, errors.Join(fmt.Errorf("the UDP port %d cannot be opened, choose another one: %w", port, err), u.Close())
	}
	if len(u.muxes) == 0 {
		return nil, fmt.Errorf("the UDP port %d cannot be opened: the machine has no address to bind it at", port)
	}
	return u, nil
}

// refresh binds the port at new addresses and lets go of those that have been gone for keepGone. It returns what failed.
func (u *udpPort) refresh() error {
	n, err := currentNet(u.net)
	if err != nil {
		return err
	}
	ips, err := localIPs(n)
	if err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return net.ErrClosed
	}
	var errs []error
	current := map[netip.AddrPort]bool{}
	for _, ip := range ips[:min(len(ips), maxSockets)] {
		addr := (&net.UDPAddr{IP: ip, Port: u.port}).AddrPort()
		addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
		current[addr] = true
		if s := u.muxes[addr]; s != nil {
			s.gone = time.Time{}
			continue
		}
		mux, err := u.bind(n, addr)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		u.muxes[addr] = &udpSocket{UDPMuxDefault: mux}
	}
	now := time.Now()
	for addr, s := range u.muxes {
		switch {
		case current[addr]:
		case s.gone.IsZero():
			s.gone = now
		case now.Sub(s.gone) >= keepGone:
			errs = append(errs, s.Close())
			delete(u.muxes, addr)
		}
	}
	return errors.Join(errs...)
}

func (u *udpPort) bind(n transport.Net, addr netip.AddrPort) (*ice.UDPMuxDefault, error) {
	socket, err := n.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return nil, err
	}
	// The kernel gives what it allows; less than asked is no error.
	_ = socket.SetReadBuffer(sharedSocketBuffer)
	_ = socket.SetWriteBuffer(sharedSocketBuffer)
	return ice.NewUDPMuxDefault(ice.UDPMuxParams{Logger: u.log, UDPConn: socket, Net: n}), nil
}

// GetListenAddresses is called by pion when it gathers candidates.
func (u *udpPort) GetListenAddresses() []net.Addr {
	if err := u.refresh(); err != nil {
		u.log.Warnf("the UDP port %d is not bound at every address: %v", u.port, err)
	}
	var out []net.Addr
	for _, a := range u.bound() {
		out = append(out, net.UDPAddrFromAddrPort(a))
	}
	return out
}

// bound returns where the port is bound, in order, without addresses that the machine does not have.
func (u *udpPort) bound() []netip.AddrPort {
	u.mu.Lock()
	defer u.mu.Unlock()
	var out []netip.AddrPort
	for addr, s := range u.muxes {
		if s.gone.IsZero() {
			out = append(out, addr)
		}
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	return out
}

// GetConn is called by pion for each candidate.
func (u *udpPort) GetConn(ufrag string, addr net.Addr) (net.PacketConn, error) {
	udp, ok := addr.(*net.UDPAddr)
	if !ok {
		return nil, errNoSocket
	}
	key := udp.AddrPort()
	u.mu.Lock()
	mux := u.muxes[netip.AddrPortFrom(key.Addr().Unmap(), key.Port())]
	usable := mux != nil && mux.gone.IsZero()
	u.mu.Unlock()
	if !usable {
		return nil, errNoSocket
	}
	return mux.GetConn(ufrag, mux.LocalAddr())
}

// RemoveConnByUfrag is called by pion when a connection, or a generation of its candidates, is over.
func (u *udpPort) RemoveConnByUfrag(ufrag string) {
	u.mu.Lock()
	muxes := slices.Collect(maps.Values(u.muxes))
	u.mu.Unlock()
	for _, mux := range muxes {
		mux.RemoveConnByUfrag(ufrag)
	}
}

// Close closes all sockets.
func (u *udpPort) Close() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.closed = true
	var errs []error
	for _, mux := range u.muxes {
		errs = append(errs, mux.Close())
	}
	clear(u.muxes)
	return errors.Join(errs...)
}
