package signalserver

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// wire is what a connection reads from and writes to: its line, perhaps with
// TLS around it, and what has come and is not read yet. It borrows a buffer
// from the first byte of that to the last.
type wire struct {
	other net.Conn // instead of own: TLS, or what is none of ours; or nil
	low   *line    // own, or the one below TLS; nil: there is no waiting without the library
	own   line

	writes sync.Mutex // held while something is written, so that frames do not mix

	mu       sync.Mutex // guards what follows. The library reads in the goroutine that closes, too
	in       []byte
	lent     *[inSize]byte
	boundary bool // the next byte to be read is the first of a frame
	guard    guard
}

// take makes c the wire's connection, and in what has been read of it. A
// socket does not count as one from now on.
func (w *wire) take(c net.Conn, in []byte) {
	w.in = in
	switch t := c.(type) {
	case *tls.Conn:
		w.other = t
		if k := socketOf(t); k != nil {
			k.upgraded()
			w.low = &k.line
		}
	case *socket:
		k := t.upgraded() // what counted can go
		w.other, w.own.conn = t, k
	case stream:
		w.other, w.own.conn = c, t
	default:
		w.other = c
	}
	if w.low == nil && w.own.conn != nil {
		w.low = &w.own
	}
	switch {
	case w.low == nil:
	case !w.low.take():
		w.low = nil
	case w.low == &w.own:
		w.other = nil
	}
}

// inSize is the size of a buffer for what comes.
const inSize = 4096

var inPool = sync.Pool{New: func() any { return new([inSize]byte) }}

// errRest is what Read returns instead of waiting for the first byte of a
// frame, if restNext was called before. It is a net.Error that passes, so that
// TLS goes on after it.
var errRest net.Error = restError{}

type restError struct{}

func (restError) Error() string   { return "nothing has come yet" }
func (restError) Timeout() bool   { return true }
func (restError) Temporary() bool { return true }

// Read implements io.Reader.
func (w *wire) Read(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	boundary := w.boundary
	w.boundary = false
	if w.guard.ending.Load() {
		return 0, w.linger()
	}
	if len(w.in) == 0 {
		if w.low == nil {
			n, err := w.other.Read(p)
			if over := w.guard.look(p[:n]); over != nil {
				return 0, over
			}
			return n, err
		}
		if err := w.fill(!boundary, 0); err != nil {
			return 0, err
		}
	}
	n := copy(p, w.in)
	w.in = w.in[n:]
	if len(w.in) == 0 {
		w.giveBack()
	}
	return n, nil
}

func (w *wire) giveBack() {
	w.in = nil
	if w.lent != nil {
		inPool.Put(w.lent)
		w.lent = nil
	}
}

// fill takes what has come. If that is nothing, it waits for it, for some time
// if within is not 0, or returns errRest. It borrows no buffer while it waits.
// w.mu is held, and there is a line.
func (w *wire) fill(wait bool, within time.Duration) error {
	err := error(errRest)
	if !wait || w.low.sleeps() {
		if err = w.attempt(); !wait || !errors.Is(err, errRest) {
			return err
		}
	}
	_, raw, failed := w.low.awake()
	if failed != nil {
		return failed
	}
	if within > 0 {
		if err := w.low.SetReadDeadline(time.Now().Add(within)); err != nil {
			return err
		}
		defer func() { _ = w.low.SetReadDeadline(time.Time{}) }() // it fails when the socket is closed, and so does the next read
	}
	failed = raw.Read(func(uintptr) bool {
		err = w.attempt()
		return !errors.Is(err, errRest)
	})
	if failed != nil && errors.Is(err, errRest) && !errors.Is(failed, os.ErrDeadlineExceeded) {
		return failed
	}
	return err
}

// attempt takes what has come; errRest: nothing has.
func (w *wire) attempt() error {
	w.lent = inPool.Get().(*[inSize]byte)
	n, err := w.now(w.lent[:])
	if n > 0 {
		if err = w.guard.look(w.lent[:n]); err == nil {
			w.in = w.lent[:n]
			return nil
		}
	}
	w.giveBack()
	return err
}

// now reads what is there. Below TLS nothing is there only when TLS has asked
// for more than the line has: whatever it holds back itself is no frame yet.
func (w *wire) now(p []byte) (n int, err error) {
	if w.other == nil {
		return w.low.readNow(p)
	}
	w.low.dry = true
	defer func() { w.low.dry = false }()
	for n == 0 && err == nil { // a record may be empty
		n, err = w.other.Read(p)
	}
	return n, err
}

// unread tells whether something is in memory that has not been read.
func (w *wire) unread() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.in) > 0
}

// rest waits until something has come or the connection has ended; the next
// read finds out which. It must not be called inside a frame. false: nothing
// has come in that time; 0 is as long as it takes.
func (w *wire) rest(within time.Duration) bool {
	if w.low == nil {
		return true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.in) > 0 || !errors.Is(w.fill(true, within), errRest)
}

// restNext makes the next read return errRest if nothing has come yet. Only
// who reads may call it, at the end of a frame.
func (w *wire) restNext() {
	w.mu.Lock()
	w.boundary = w.low != nil && len(w.in) == 0
	w.mu.Unlock()
}

// quiet takes the answer to pingFrame, if that is all that has come, and tells
// whether it was. none: nothing has come at all.
func (w *wire) quiet() (pong, none bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.in) == 0 {
		if err := w.fill(false, 0); err != nil {
			return false, errors.Is(err, errRest)
		}
	}
	const header = 6 // of a frame without payload, with its mask
	if len(w.in) != header || w.in[0] != 0x8a || w.in[1] != 0x80 {
		return false, false
	}
	w.giveBack()
	return true, false
}

// Write implements io.Writer.
func (w *wire) Write(p []byte) (int, error) {
	w.writes.Lock()
	defer w.writes.Unlock()
	return w.write(p)
}

// write is Write for the holder of w.writes.
func (w *wire) write(p []byte) (int, error) {
	if w.other != nil {
		return w.other.Write(p)
	}
	return w.low.Write(p)
}

// writeUntil is Write that is over at that time.
func (w *wire) writeUntil(p []byte, until time.Time) error {
	w.writes.Lock()
	return w.finish(p, until)
}

// begin writes what the socket takes at once, and returns how much that was.
// If it is a part of p, the wire is kept for the rest, and finish has to
// follow. Through TLS it writes nothing, for that may wait.
func (w *wire) begin(p []byte) (int, error) {
	if w.other != nil || !w.writes.TryLock() {
		return 0, nil
	}
	n, err := w.low.writeNow(p)
	if err != nil || n == 0 || n == len(p) {
		w.writes.Unlock()
	}
	return n, err
}

// finish writes what begin has left, and lets the wire go.
func (w *wire) finish(p []byte, until time.Time) (err error) {
	defer w.writes.Unlock()
	if w.low != nil {
		w.low.setUntil(until)
		defer w.low.setUntil(time.Time{})
	} else {
		_ = w.other.SetWriteDeadline(until) // it fails when the connection is closed, and so does the write
		defer func() { _ = w.other.SetWriteDeadline(time.Time{}) }()
	}
	_, err = w.write(p)
	return err
}

// appendFrame appends a text frame of a server to b.
func appendFrame(b, text []byte) []byte {
	const fin = 0x81
	switch n := len(text); {
	case n < 126:
		b = append(b, fin, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, fin, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, fin, 127), uint64(n))
	}
	return append(b, text...)
}

// Close ends the connection; TLS says goodbye.
func (w *wire) Close() error {
	if w.other != nil {
		return w.other.Close()
	}
	return w.low.Close()
}

// sever ends all reads and writes at once, without a word to the peer.
func (w *wire) sever() {
	if t, ok := w.other.(*tls.Conn); ok {
		_ = t.NetConn().Close() // that of t itself would wait to say goodbye
		return
	}
	_ = w.Close()
}
