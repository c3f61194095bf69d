//go:build linux

package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/crmesh/crmesh/pkg/signaling"
)

// victim is the server under attack, as its attackers see it. They come from
// an address of their own, as far as the server counts addresses.
type victim struct {
	address string
	scale   int // how much of it; 1: as much as a test has time for
}

const attackerAddress = "127.0.0.66"

// rawConn is a connection of an attacker, who keeps to no protocol.
type rawConn struct {
	net.Conn
	r *bufio.Reader
}

func (v *victim) dial() (*rawConn, error) { return v.dialBuffered(0) }

// dialBuffered dials with so small a receive buffer that the server has to keep what is not read.
func (v *victim) dialBuffered(receive int) (*rawConn, error) {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(attackerAddress)}, Timeout: patience}
	c, err := dialer.Dial("tcp", v.address)
	if err != nil {
		return nil, err
	}
	t := c.(*net.TCPConn)
	_ = t.SetLinger(0) // leaves no TIME_WAIT: an attacker would run out of ports
	if receive > 0 {
		_ = t.SetReadBuffer(receive)
	}
	_ = t.SetDeadline(time.Now().Add(patience))
	return &rawConn{c, bufio.NewReaderSize(c, 4096)}, nil
}

const upgradeRequest = "GET /v1/signal HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: " + signaling.Subprotocol + "\r\n\r\n"

// errRefused is an answer other than the one that was asked for.
var errRefused = errors.New("refused")

// ask sends a request and reads the head of the answer.
func (c *rawConn) ask(request string) (*http.Response, error) {
	if _, err := io.WriteString(c, request); err != nil {
		return nil, err
	}
	method, _, _ := strings.Cut(request, " ")
	return http.ReadResponse(c.r, &http.Request{Method: method})
}

// webSocket dials and upgrades.
func (v *victim) webSocket(receive int) (*rawConn, error) {
	c, err := v.dialBuffered(receive)
	if err != nil {
		return nil, err
	}
	response, err := c.ask(upgradeRequest)
	if err == nil && response.StatusCode != http.StatusSwitchingProtocols {
		err = fmt.Errorf("%w: HTTP %d", errRefused, response.StatusCode)
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// member dials, upgrades and joins.
func (v *victim) member(room signaling.RoomID, peer signaling.PeerID, receive int) (*rawConn, error) {
	c, err := v.webSocket(receive)
	if err != nil {
		return nil, err
	}
	if err = c.message(signaling.Join{Room: room, Peer: peer}); err == nil {
		_, err = expectRaw[signaling.Joined](c)
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// First bytes of frames (RFC 6455, 5.2), beside those that benchClient knows.
const (
	opContinuation, opBinary = 0, 2
	fin, rsv1                = 0x80, 0x40
)

// wireFrame returns a frame of a client: first is its first byte. The mask is zero, so the payload is as it was.
func wireFrame(first byte, payload []byte) []byte {
	return append(wireHeader(first, uint64(len(payload))), payload...)
}

func wireHeader(first byte, length uint64) []byte {
	b := []byte{first}
	switch {
	case length < 126:
		b = append(b, 0x80|byte(length))
	case length < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(length))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), length)
	}
	return append(b, 0, 0, 0, 0)
}

// text sends one text frame.
func (c *rawConn) text(payload string) error {
	_, err := c.Write(wireFrame(fin|opText, []byte(payload)))
	return err
}

func (c *rawConn) message(m signaling.Message) error {
	frame, err := signaling.MarshalMessage(m)
	if err != nil {
		return err
	}
	return c.text(string(frame))
}

// next reads one frame of the server.
func (c *rawConn) next() (opcode byte, payload []byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		return 0, nil, err
	}
	length := uint64(head[1])
	more := map[uint64]int{126: 2, 127: 8}[length]
	if more > 0 {
		var b [8]byte
		if _, err := io.ReadFull(c.r, b[8-more:]); err != nil {
			return 0, nil, err
		}
		length = binary.BigEndian.Uint64(b[:])
	}
	if head[0]&0xf0 != fin || length > signaling.MaxServerFrame {
		return 0, nil, fmt.Errorf("the server sends a frame %x of %d bytes", head[0], length)
	}
	payload = make([]byte, length)
	_, err = io.ReadFull(c.r, payload)
	return head[0] & 0xf, payload, err
}

// expectRaw reads until the server has sent an M. An error message is an error.
func expectRaw[M signaling.Message](c *rawConn) (m M, err error) {
	for {
		opcode, payload, err := c.next()
		if err != nil {
			return m, err
		}
		if opcode == opClose {
			return m, fmt.Errorf("%w: closed", errRefused)
		}
		if opcode == opPing {
			_, _ = c.Write(wireFrame(fin|opPong, payload))
		}
		if opcode != opText {
			continue
		}
		got, err := signaling.ParseServerMessage(payload)
		if err != nil {
			return m, fmt.Errorf("the server sends %q: %w", payload, err)
		}
		switch got := got.(type) {
		case M:
			return got, nil
		case signaling.Error:
			if got.Code != signaling.CodeUnreachable {
				return m, fmt.Errorf("%w: %w", errRefused, got)
			}
		}
	}
}

// end reads to the end of the connection and returns the code that the server gave, and the status of its close frame; a
// reset may have taken both.
func (c *rawConn) end() (code signaling.Code, status int) {
	for {
		opcode, payload, err := c.next()
		switch {
		case err != nil:
			return code, status
		case opcode == opClose && len(payload) >= 2:
			status = int(binary.BigEndian.Uint16(payload))
			_, _ = c.Write(wireFrame(fin|opClose, payload)) // the server waits for it
		case opcode == opText:
			if m, err := signaling.ParseServerMessage(payload); err == nil {
				if e, ok := m.(signaling.Error); ok && e.Code != signaling.CodeUnreachable {
					code = e.Code
				}
			}
		}
	}
}

// flood writes the same bytes until the server takes no more, or so many times.
func (c *rawConn) flood(b []byte, times int) {
	for range times {
		if _, err := c.Write(b); err != nil {
			return
		}
	}
}

// each runs f for 0 to n-1, at most width at a time, and returns the errors.
func each(n, width int, f func(i int) error) error {
	var wg sync.WaitGroup
	places := make(chan struct{}, width)
	errs := make([]error, n)
	for i := range n {
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			errs[i] = f(i)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
