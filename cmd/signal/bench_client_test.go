package main

import (
	"bufio"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"

	"github.com/crmesh/crmesh/pkg/signaling"
)

// benchClient is a WebSocket client for measuring: 10,000 of them cost little themselves, and the same for each server.
type benchClient struct {
	id   signaling.PeerID
	room string

	conn net.Conn
	mu   sync.Mutex // one frame at a time
	done chan struct{}
	err  error // once done is closed
}

const (
	opText  = 1
	opClose = 8
	opPing  = 9
	opPong  = 10
)

func randomID() (id [16]byte) {
	_, _ = rand.Read(id[:]) // never fails
	return id
}

// dialBench connects, over TLS if secure is set. onFrame gets each text frame, one at a time; the frame is good until it returns.
func dialBench(address string, secure bool, path, protocol string, onFrame func([]byte)) (*benchClient, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	if secure {
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true}) // who it is does not matter here
	}
	key := randomID()
	if protocol != "" {
		protocol = "Sec-WebSocket-Protocol: " + protocol + "\r\n"
	}
	if _, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n%s\r\n",
		path, address, base64.StdEncoding.EncodeToString(key[:]), protocol); err != nil {
		_ = conn.Close()
		return nil, err
	}
	r := bufio.NewReaderSize(conn, 2048)
	answer, err := http.ReadResponse(r, nil)
	if err == nil && answer.StatusCode != http.StatusSwitchingProtocols {
		err = errors.New(answer.Status)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	c := &benchClient{conn: conn, done: make(chan struct{})}
	go func() { // until the connection is closed
		defer close(c.done)
		c.err = c.read(r, onFrame)
		_ = conn.Close()
	}()
	return c, nil
}

func (c *benchClient) close() {
	_ = c.conn.Close()
	<-c.done
}

func (c *benchClient) read(r *bufio.Reader, onFrame func([]byte)) error {
	var head [8]byte
	for {
		if _, err := io.ReadFull(r, head[:2]); err != nil {
			return err
		}
		op, n := head[0]&0x0f, uint64(head[1]&0x7f)
		switch n {
		case 126:
			if _, err := io.ReadFull(r, head[:2]); err != nil {
				return err
			}
			n = uint64(binary.BigEndian.Uint16(head[:]))
		case 127:
			if _, err := io.ReadFull(r, head[:8]); err != nil {
				return err
			}
			n = binary.BigEndian.Uint64(head[:])
		}
		if n > signaling.MaxServerFrame {
			return fmt.Errorf("a frame of %d bytes", n)
		}
		frame := make([]byte, n)
		if _, err := io.ReadFull(r, frame); err != nil {
			return err
		}
		switch op {
		case opPing:
			if err := c.write(opPong, frame); err != nil {
				return err
			}
		case opClose:
			return fmt.Errorf("closed: %q", frame)
		case opText:
			onFrame(frame)
		}
	}
}

// write sends a frame in one piece, masked with zeros: that is allowed, and costs the client nothing.
func (c *benchClient) write(op byte, payload []byte) error {
	b := make([]byte, 0, len(payload)+14)
	b = append(b, 0x80|op)
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	b = append(append(b, 0, 0, 0, 0), payload...)
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err := c.conn.Write(b)
	return err
}
