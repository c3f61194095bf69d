package signalserver

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// line is the socket below a WebSocket. While nothing happens on that, it
// sleeps: then it is a descriptor, and nothing of the net package is left,
// which has more memory for a socket than all else that a connection needs.
// What can be read and written at once it reads and writes asleep; it wakes
// when something has to be waited for.
type line struct {
	mu      sync.Mutex // guards the following
	conn    stream     // nil: asleep or closed
	raw     syscall.RawConn
	until   time.Time // when the write that runs is to be over; zero: writeTimeout
	fd      int32     // the descriptor, while asleep or watched
	asleep  bool
	watched bool // parking knows fd
	closed  bool
	taken   bool // by a WebSocket

	dry bool // Read does not wait, but returns errRest; its caller's
}

// stream is what a line needs of a socket that is awake: those of the net
// package are streams, and files.
type stream interface {
	io.ReadWriteCloser
	syscall.Conn
	SetDeadline(time.Time) error
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// take makes the line that of a WebSocket; false: it cannot read without
// waiting.
func (l *line) take() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !canRest || l.conn == nil {
		return false
	}
	raw, err := l.conn.SyscallConn()
	l.raw, l.taken = raw, err == nil
	return l.taken
}

// awake returns what one waits with.
func (l *line) awake() (stream, syscall.RawConn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.asleep {
		f := os.NewFile(uintptr(l.fd), "socket") // into the runtime's poller, as it does not block
		raw, err := f.SyscallConn()
		if err != nil {
			return nil, nil, err
		}
		l.conn, l.raw, l.asleep = f, raw, false
	}
	if l.conn == nil {
		return nil, nil, net.ErrClosed
	}
	return l.conn, l.raw, nil
}

// sleeps tells whether l is asleep.
func (l *line) sleeps() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.asleep
}

// readNow reads what is there; errRest: nothing is.
func (l *line) readNow(p []byte) (n int, err error) {
	err = l.now(func(fd uintptr) (err error) {
		n, err = readSocket(fd, p)
		return err
	})
	return n, err
}

// writeNow writes what the socket takes.
func (l *line) writeNow(p []byte) (n int, err error) {
	err = l.now(func(fd uintptr) (err error) {
		n, err = writeSocket(fd, p)
		return err
	})
	return n, err
}

// now calls f with the descriptor, which is open meanwhile.
func (l *line) now(f func(fd uintptr) error) error {
	l.mu.Lock()
	if l.asleep {
		defer l.mu.Unlock()
		return f(uintptr(l.fd))
	}
	raw := l.raw
	l.mu.Unlock()
	if raw == nil {
		return net.ErrClosed
	}
	var err error
	if closed := raw.Control(func(fd uintptr) { err = f(fd) }); closed != nil {
		return closed
	}
	return err
}

// Read implements net.Conn.
func (l *line) Read(p []byte) (int, error) {
	if l.dry {
		return l.readNow(p)
	}
	s, _, err := l.awake()
	if err != nil {
		return 0, err
	}
	return s.Read(p)
}

// Write implements net.Conn. What is written to a WebSocket has a time in
// which it must be done.
func (l *line) Write(p []byte) (n int, err error) {
	l.mu.Lock()
	taken, until := l.taken, l.until
	l.mu.Unlock()
	if taken {
		if n, err = l.writeNow(p); err != nil || n == len(p) {
			return n, err
		}
	}
	s, _, err := l.awake()
	if err != nil {
		return n, err
	}
	if taken {
		if until.IsZero() {
			until = time.Now().Add(writeTimeout)
		}
		_ = s.SetWriteDeadline(until) // it fails when the socket is closed, and so does the write
		defer func() { _ = s.SetWriteDeadline(time.Time{}) }()
	}
	m, err := s.Write(p[n:])
	return n + m, err
}

// setUntil says when writes have to be over.
func (l *line) setUntil(t time.Time) {
	l.mu.Lock()
	l.until = t
	l.mu.Unlock()
}

// Close implements net.Conn.
func (l *line) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return net.ErrClosed
	}
	l.closed = true
	s, asleep := l.conn, l.asleep
	l.conn, l.raw, l.asleep = nil, nil, false
	if asleep {
		defer l.mu.Unlock()
		return closeSocket(int(l.fd))
	}
	l.mu.Unlock()
	if s == nil {
		return nil
	}
	return s.Close()
}

// SetDeadline implements net.Conn.
func (l *line) SetDeadline(t time.Time) error {
	s, _, err := l.awake()
	if err != nil {
		return err
	}
	return s.SetDeadline(t)
}

// SetReadDeadline implements net.Conn.
func (l *line) SetReadDeadline(t time.Time) error {
	s, _, err := l.awake()
	if err != nil {
		return err
	}
	return s.SetReadDeadline(t)
}

// SetWriteDeadline implements net.Conn.
func (l *line) SetWriteDeadline(t time.Time) error {
	s, _, err := l.awake()
	if err != nil {
		return err
	}
	return s.SetWriteDeadline(t)
}

// LocalAddr implements net.Conn. Asleep, a line knows no address, and nobody
// asks.
func (l *line) LocalAddr() net.Addr {
	if s, _, err := l.awake(); err == nil {
		if c, ok := s.(net.Conn); ok {
			return c.LocalAddr()
		}
	}
	return &net.TCPAddr{}
}

// RemoteAddr implements net.Conn, likewise.
func (l *line) RemoteAddr() net.Addr {
	if s, _, err := l.awake(); err == nil {
		if c, ok := s.(net.Conn); ok {
			return c.RemoteAddr()
		}
	}
	return &net.TCPAddr{}
}
