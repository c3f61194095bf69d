package signalserver

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"

	"github.com/pion/stun/v4"
)

// STUN answers binding requests (RFC 8489) on a UDP socket: it tells a client
// from which address its packets come. It does nothing else, keeps nothing,
// and sends at most one answer to a request, of MaxSTUNAnswer bytes.
type STUN struct {
	socket *net.UDPConn
	log    *slog.Logger
	done   sync.WaitGroup
}

// MaxSTUNAnswer is the length of an answer over IPv6; over IPv4 it is 40. A
// request has 20 bytes at least: whoever forges its sender gains little.
const MaxSTUNAnswer = 52

// maxSTUNRequest bounds a request in bytes; more is cut and so refused.
const maxSTUNRequest = 1500

// ListenSTUN starts a responder on a UDP address, "host:port" or ":port". log
// may be nil. It must be closed.
func ListenSTUN(address string, log *slog.Logger) (*STUN, error) {
	addr, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		return nil, fmt.Errorf("the STUN address %q is not host:port: %w", address, err)
	}
	socket, err := net.ListenUDP("udp", addr)
	if err != nil {
		return nil, fmt.Errorf("the STUN port cannot be opened, choose another one or switch STUN off: %w", err)
	}
	return ServeSTUN(socket, log), nil
}

// ServeSTUN starts a responder on an open socket, which is the responder's
// from now on. log may be nil. It must be closed.
func ServeSTUN(socket *net.UDPConn, log *slog.Logger) *STUN {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &STUN{socket: socket, log: log}
	s.done.Go(s.run)
	return s
}

// Port returns the UDP port.
func (s *STUN) Port() int { return s.socket.LocalAddr().(*net.UDPAddr).Port }

// Close closes the socket and waits for the responder.
func (s *STUN) Close() error {
	err := s.socket.Close()
	s.done.Wait()
	return err
}

func (s *STUN) run() {
	buf := make([]byte, maxSTUNRequest)
	for {
		n, from, err := s.socket.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.log.Debug("STUN cannot read a packet") // the error would name an address
			continue
		}
		answer, ok := answerBinding(buf[:n], net.UDPAddrFromAddrPort(from))
		if !ok {
			continue
		}
		if _, err := s.socket.WriteToUDPAddrPort(answer, from); err != nil {
			s.log.Debug("STUN cannot send an answer") // likewise
		}
	}
}

// answerBinding returns the answer to a binding request; ok is false for
// anything else, which gets no answer.
func answerBinding(packet []byte, from *net.UDPAddr) (answer []byte, ok bool) {
	if !stun.IsMessage(packet) {
		return nil, false
	}
	request := &stun.Message{Raw: append([]byte(nil), packet...)}
	if request.Decode() != nil || request.Type != stun.BindingRequest {
		return nil, false
	}
	ip := from.IP
	if v4 := ip.To4(); v4 != nil {
		ip = v4
	}
	response, err := stun.Build(request, stun.BindingSuccess,
		&stun.XORMappedAddress{IP: ip, Port: from.Port}, stun.Fingerprint)
	if err != nil {
		return nil, false
	}
	return response.Raw, true
}
