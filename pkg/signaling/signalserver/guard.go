package signalserver

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coder/websocket"

	"github.com/crmesh/crmesh/pkg/signaling"
)

const (
	// framesPerMessage is how many WebSocket frames a connection may send for
	// each message that it may send: browsers divide large messages, proxies any.
	framesPerMessage = 8
	// lingerBytes and lingerFrames are how much is still read from a connection
	// that has to end, so that what is on its way does not destroy the goodbye.
	lingerBytes  = 2 << 20
	lingerFrames = 128
)

var (
	errFlood  = errors.New("the connection sends too many frames")
	errLinger = errors.New("the connection sends on after its end")
	errEnded  = errors.New("the connection has ended")
)

// guard counts frames where the WebSocket library counts messages: pings, each
// of which costs an answer, and the parts of a message that never ends are
// none. It belongs to whoever reads from the wire.
type guard struct {
	server  *Server
	scanner frameScanner
	bucket  bucket
	over    error       // why nothing is read any more
	ending  atomic.Bool // the connection is to end

	lateBytes, lateFrames int // what came after that
}

// look counts what came; an error: there is too much of it.
func (g *guard) look(p []byte) error {
	frames := g.scanner.scan(p)
	switch {
	case g.over != nil:
	case g.ending.Load():
		g.lateBytes += len(p)
		g.lateFrames += frames
		if g.lateBytes > lingerBytes || g.lateFrames > lingerFrames {
			g.over = errLinger
		}
	case frames > 0:
		cfg := g.server.cfg.Load()
		if _, ok := g.bucket.take(time.Now(), framesPerMessage*cfg.MessageRate, framesPerMessage*cfg.MessageBurst, frames); !ok {
			g.over = errFlood
		}
	}
	return g.over
}

// unreadable ends c for an error of reading that is the client's fault, and returns it: too many frames, or none at all.
func (s *Server) unreadable(c *conn, err error) error {
	e := signaling.Error{Code: signaling.CodeRate, Message: "Too many WebSocket frames; reconnect later.", RetryAfter: 1}
	switch {
	case errors.Is(err, errFlood):
	case isBroken(err):
		e = signaling.Error{Code: signaling.CodeBadMessage, Message: "What came is no WebSocket frame of a client."}
	default:
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end(c, e)
	return err
}

// isBroken tells whether the WebSocket library has given up over what came (RFC 6455). Its errors for that have no name:
// they are those that are not the end of a connection, by either side or by the network.
func isBroken(err error) bool {
	var network *net.OpError
	var system syscall.Errno
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed), errors.Is(err, os.ErrDeadlineExceeded),
		errors.As(err, &network), errors.As(err, &system), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return false
	case errors.Is(err, errRest), errors.Is(err, errFlood), errors.Is(err, errLinger), errors.Is(err, errEnded):
		return false
	}
	return websocket.CloseStatus(err) == -1
}

// frameScanner finds the headers of WebSocket frames (RFC 6455, 5.2) in a stream.
type frameScanner struct {
	header [10]byte // without the mask
	have   int
	skip   uint64 // bytes of mask and payload that are left
	closed bool   // a close frame has come, after which nothing does
}

// scan returns how many frames begin, or go on beginning, in p; a ping counts
// as framesPerMessage, for it has to be answered.
func (f *frameScanner) scan(p []byte) (frames int) {
	const closing, ping = 8, 9
	for len(p) > 0 {
		if f.skip > 0 {
			n := min(f.skip, uint64(len(p)))
			p, f.skip = p[n:], f.skip-n
			continue
		}
		f.header[f.have] = p[0]
		f.have++
		p = p[1:]
		if f.have < 2 {
			continue
		}
		length := uint64(f.header[1] & 0x7f)
		switch length {
		case 126:
			if f.have < 4 {
				continue
			}
			length = uint64(binary.BigEndian.Uint16(f.header[2:4]))
		case 127:
			if f.have < 10 {
				continue
			}
			length = binary.BigEndian.Uint64(f.header[2:10]) &^ (1 << 63) // with that bit the library refuses it
		}
		if f.header[1]&0x80 != 0 {
			length += 4 // the mask
		}
		switch f.header[0] & 0x0f {
		case closing:
			f.closed = true
		case ping:
			frames += framesPerMessage - 1
		}
		frames++
		f.have, f.skip = 0, length
	}
	return frames
}

// messageUnit is the size above which a message counts as more than one: once
// more for each unit, since the work that it makes grows with it.
const messageUnit = 4 << 10

// largeMessage is the size above which few messages are parsed at a time. One
// takes many times what others do, and meanwhile a processor does nothing else.
const largeMessage = 8 << 10

// maxMarks bounds what divides a large message, fields and elements known or not: thousands of them would fit into a frame, and
// take many times the work and memory of anything else of that size. Messages that mean something have about ten.
const maxMarks = 256

var errMarks = fmt.Errorf("%w: it has more than %d fields, elements and the like", signaling.ErrBadMessage, maxMarks)

func marks(frame []byte) (n int) {
	for _, mark := range []byte(":,[{\\") {
		n += bytes.Count(frame, []byte{mark})
	}
	return n
}

func (s *Server) parse(frame []byte) (signaling.Message, error) {
	if len(frame) > largeMessage {
		if marks(frame) > maxMarks {
			return nil, errMarks
		}
		s.large <- struct{}{}
		defer func() { <-s.large }()
	}
	return signaling.ParseClientMessage(frame)
}
