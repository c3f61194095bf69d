package signalserver

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

// session is a WebSocket of the library over a wire. Its memory would be most
// of that of a connection on which nothing happens. Between two frames there
// is nothing in it that matters: so it is let go, and another one takes over
// when there is something to read, or the end has come. Frames of queues do
// without.
type session struct {
	*wire
	ws   *websocket.Conn
	br   *bufio.Reader
	left atomic.Bool // the wire is no longer ws's to close

	// of the library's writer, which is one at a time
	out     *bytes.Buffer // beginning of a frame
	missing int           // bytes until it is whole
}

const (
	// libraryBuffer is the size of the library's buffers: the longest frame header, 14 bytes, fits.
	libraryBuffer = 16
	// outKept is the largest buffer for a frame that is kept for the next.
	outKept = 64 << 10
)

var outPool = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// resume returns a session over a wire that had one before. It answers no
// handshake, for that is over.
func resume(w *wire, options *websocket.AcceptOptions) (*session, error) {
	h := &hijacker{wire: w, ResponseWriter: silent{http.Header{}}}
	return h.accept(handshake, options)
}

// handshake is the request that a resumed session answers.
var handshake = &http.Request{Method: http.MethodGet, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{
	"Connection": {"Upgrade"}, "Upgrade": {"websocket"},
	"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"AAAAAAAAAAAAAAAAAAAAAA=="},
}}

// silent drops the answer to handshake.
type silent struct{ header http.Header }

func (s silent) Header() http.Header       { return s.header }
func (silent) Write(p []byte) (int, error) { return len(p), nil }
func (silent) WriteHeader(int)             {}

// leave lets go of the library's WebSocket. It must be between two frames, in
// both directions, and in nobody's use.
func (s *session) leave() {
	s.left.Store(true)
	_ = s.ws.CloseNow() // of a socket that is not there for it
}

// Close implements net.Conn.
func (s *session) Close() error {
	if s.left.Load() {
		return nil
	}
	return s.wire.Close()
}

// The library does not ask for what follows.

// LocalAddr implements net.Conn.
func (*session) LocalAddr() net.Addr { return &net.TCPAddr{} }

// RemoteAddr implements net.Conn.
func (*session) RemoteAddr() net.Addr { return &net.TCPAddr{} }

// SetDeadline implements net.Conn.
func (*session) SetDeadline(time.Time) error { return errors.ErrUnsupported }

// SetReadDeadline implements net.Conn.
func (*session) SetReadDeadline(time.Time) error { return errors.ErrUnsupported }

// SetWriteDeadline implements net.Conn.
func (*session) SetWriteDeadline(time.Time) error { return errors.ErrUnsupported }

// Write implements net.Conn. The library writes a frame in pieces, cut by its
// small buffer; they go out in one.
func (s *session) Write(p []byte) (int, error) {
	if s.out == nil {
		size := frameSize(p)
		if size <= len(p) {
			return s.wire.Write(p)
		}
		s.out, s.missing = outPool.Get().(*bytes.Buffer), size
		s.out.Grow(size)
	}
	s.out.Write(p)
	if s.missing -= len(p); s.missing > 0 {
		return len(p), nil
	}
	_, err := s.wire.Write(s.out.Bytes())
	if s.out.Reset(); s.out.Cap() <= outKept {
		outPool.Put(s.out)
	}
	s.out = nil
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// frameSize returns the length of the WebSocket frame of a server that begins
// with p, or 0 if p does not tell.
func frameSize(p []byte) int {
	if len(p) < 2 {
		return 0
	}
	switch n := int(p[1] & 0x7f); {
	case n == 126 && len(p) >= 4:
		return 4 + int(binary.BigEndian.Uint16(p[2:]))
	case n == 127 && len(p) >= 10:
		return 10 + int(binary.BigEndian.Uint64(p[2:]))
	case n < 126:
		return 2 + n
	}
	return 0
}

// hijacker hands a session to the library, which thinks that it takes over the
// connection of a request.
type hijacker struct {
	http.ResponseWriter
	inner   http.Hijacker // of the request; nil: the wire is there already
	wire    *wire
	session *session
	status  int // of the answer, once there is one
}

// WriteHeader implements http.ResponseWriter.
func (h *hijacker) WriteHeader(status int) {
	h.status = status
	h.ResponseWriter.WriteHeader(status)
}

// newHijacker returns nil if the connection, which would become to's, cannot
// be taken over.
func newHijacker(w http.ResponseWriter, to *wire) *hijacker {
	for inner := w; ; {
		switch t := inner.(type) {
		case http.Hijacker:
			return &hijacker{ResponseWriter: w, inner: t, wire: to}
		case interface{ Unwrap() http.ResponseWriter }:
			inner = t.Unwrap()
		default:
			return nil
		}
	}
}

// accept answers r with a WebSocket, or says why not.
func (h *hijacker) accept(r *http.Request, options *websocket.AcceptOptions) (*session, error) {
	ws, err := websocket.Accept(h, r, options)
	if err != nil {
		return nil, err
	}
	ws.SetReadLimit(-1) // readFrame bounds frames itself, to send the reason first
	h.session.ws = ws
	return h.session, nil
}

// Hijack implements http.Hijacker.
func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if h.inner != nil {
		c, rw, err := h.inner.Hijack()
		if err != nil {
			return nil, nil, err
		}
		early, _ := rw.Reader.Peek(rw.Reader.Buffered()) // of a client that did not wait for the answer
		h.wire.take(c, bytes.Clone(early))
		h.wire.guard.scanner.scan(early) // less than 4 KiB, and so not many
	}
	s := &session{wire: h.wire}
	s.br = bufio.NewReaderSize(s, libraryBuffer)
	h.session = s
	return s, bufio.NewReadWriter(s.br, bufio.NewWriterSize(s, libraryBuffer)), nil
}
