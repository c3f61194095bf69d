package mesh

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

// An UnavailableError is returned by a Store that cannot do now what it is asked for, and may be able to later: its disk is
// full, or another program keeps it locked. A part may have been done. The Node keeps its links and asks again, with pauses,
// for as long as it runs; what others send waits with them, since nothing of it is acknowledged.
type UnavailableError struct{ Err error }

func (e *UnavailableError) Error() string { return e.Err.Error() }
func (e *UnavailableError) Unwrap() error { return e.Err }

// patiently asks the store until it answers, or says that it never will.
func (n *Node) patiently(ctx context.Context, ask func() error) error {
	waits := false
	defer func() {
		if waits {
			n.hindrance.end(n.log, ctx.Err() == nil)
		}
	}()
	for pause := n.timing.minStorePause; ; pause = min(2*pause, n.timing.maxStorePause) {
		err := ask()
		var unavailable *UnavailableError
		if !errors.As(err, &unavailable) || ctx.Err() != nil {
			return err
		}
		n.hindrance.begin(n.log, unavailable.Err, !waits, n.timing.storeNews)
		waits = true
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// hindrance is why jobs wait for the store. Its zero value is that none does.
type hindrance struct {
	mu    sync.Mutex // guards the following
	jobs  int        // that wait
	err   error      // of the latest attempt
	since time.Time  // when the first of them began to wait
	told  time.Time  // when the log had a line last
}

// begin takes note of an attempt that failed, the first of its job or not. The log has a line at once, and then now and then.
func (h *hindrance) begin(log *slog.Logger, err error, first bool, news time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if h.jobs == 0 {
		h.since, h.told = now, time.Time{}
	}
	if first {
		h.jobs++
	}
	h.err = err
	if now.Sub(h.told) >= news {
		h.told = now
		log.Warn("the database cannot be used for now; the links stay, and changes of other peers wait until it can", "err", err,
			"waiting", now.Sub(h.since).Round(time.Second))
	}
}

// end takes note that a job waits no more, for it was answered or gave up.
func (h *hindrance) end(log *slog.Logger, answered bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.jobs--; h.jobs > 0 {
		return
	}
	h.err = nil
	if answered {
		log.Info("the database can be used again", "after", time.Since(h.since).Round(time.Second))
	}
}

func (h *hindrance) status() DatabaseStatus {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err == nil {
		return DatabaseStatus{}
	}
	return DatabaseStatus{Error: h.err.Error(), WaitMillis: time.Since(h.since).Milliseconds()}
}
