package signalserver

import (
	"errors"
	"sync"
	"time"
)

const (
	// lingerPiece is how much is read at a time of what still comes on a
	// connection that has to end, and lingerPause the time between two pieces, of
	// one connection or another: what they send on is nobody's, and must not take
	// the processors from those who are served.
	lingerPiece = 64 << 10
	lingerPause = time.Millisecond
	// lingerWaitMost bounds the time that a connection waits for its turn.
	lingerWaitMost = time.Second
)

// linger reads what still comes on a connection that has to end, until the
// other side says goodbye, too, and returns why it stopped. Nobody looks at
// that, so the library does not get it, which would read it byte by byte.
// w.mu is held.
func (w *wire) linger() error {
	for !w.guard.scanner.closed {
		w.giveBack()
		if err := w.lingerOn(); err != nil {
			return err
		}
		if w.guard.over != nil {
			return w.guard.over
		}
	}
	w.giveBack()
	return errEnded
}

// lingerOn waits for more, and then for the connection's turn to read a piece.
// Most have little to say any more, and take no turn.
func (w *wire) lingerOn() error {
	if err := w.lingerFirst(); err != nil || w.guard.scanner.closed || w.guard.lateBytes < inSize {
		return err
	}
	time.Sleep(w.guard.server.lingerWait())
	if w.low == nil {
		return nil // to read more might be to wait
	}
	piece := lingerPool.Get().(*[lingerPiece]byte)
	defer lingerPool.Put(piece)
	for rest := piece[:]; len(rest) > 0 && w.guard.over == nil; {
		n, err := w.now(rest)
		_ = w.guard.look(rest[:n]) // over tells
		if errors.Is(err, errRest) {
			return nil
		}
		if err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// lingerFirst waits for more, and reads the beginning of it.
func (w *wire) lingerFirst() error {
	if w.low != nil {
		return w.fill(true, 0)
	}
	w.lent = inPool.Get().(*[inSize]byte)
	n, err := w.other.Read(w.lent[:])
	_ = w.guard.look(w.lent[:n]) // over tells
	return err
}

// lingerWait gives out the next turn to read a piece, and returns the time until it comes.
func (s *Server) lingerWait() time.Duration {
	for {
		now, next := sinceEpoch(), s.nextLinger.Load()
		turn := min(max(now, time.Duration(next)), now+lingerWaitMost) // the flood of before is no debt of those who come now
		if s.nextLinger.CompareAndSwap(next, int64(turn+lingerPause)) {
			return turn - now
		}
	}
}

var lingerPool = sync.Pool{New: func() any { return new([lingerPiece]byte) }}
