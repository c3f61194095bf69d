package signalserver

import (
	"context"
	"net/netip"
	"sync/atomic"
	"testing"

	"github.com/crmesh/crmesh/pkg/signaling"
)

// The send queue is bounded in messages and, by itself, in bytes; and so are
// all together.
func TestSendQueueBounds(t *testing.T) {
	for name, c := range map[string]struct {
		messages, bytes, all, size, fit int
	}{
		"messages": {messages: 3, bytes: 1000, all: 1000, size: 1, fit: 3},
		"bytes":    {messages: 100, bytes: 1000, all: 1000, size: 300, fit: 3},
		"all":      {messages: 100, bytes: 1000, all: 1000, size: 200, fit: 4}, // beside another with 100
	} {
		cfg := &Config{SendQueue: c.messages, SendQueueBytes: c.bytes, MaxQueuedBytes: c.all}
		var total atomic.Int64
		q, other := queue{total: &total}, queue{total: &total}
		if name == "all" && !other.push(outgoing{frame: make([]byte, 100)}, cfg) {
			t.Fatal("an empty queue is full")
		}
		before := total.Load()
		fit := 0
		for fit < 100 && q.push(outgoing{frame: make([]byte, c.size)}, cfg) {
			fit++
		}
		if fit != c.fit {
			t.Errorf("%s: %d frames fit, want %d", name, fit, c.fit)
		}
		f, _ := q.pop()
		if q.push(outgoing{frame: make([]byte, c.bytes)}, cfg) {
			t.Errorf("%s: a frame that is being written does not count", name)
		}
		q.sent(f)
		if n := q.drop(); n != fit-1 || total.Load() != before || q.bytes != 0 || q.frames != nil {
			t.Errorf("%s: %d dropped; %d bytes are left, %d of them here", name, n, total.Load(), q.bytes)
		}
	}
}

// When all queues together are full, the connections with most waiting make place, and no other.
func TestLargestQueuesMakePlace(t *testing.T) {
	cfg := DefaultConfig()
	cfg.SendQueueBytes, cfg.MaxQueuedBytes = signaling.MaxServerFrame, signaling.MaxServerFrame
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Shutdown(context.Background()) }()
	add := func(size int) *conn {
		c := s.newConn(netip.Prefix{}, "")
		c.writing = true // and stuck in a write
		if ok, _ := c.enqueue(outgoing{frame: make([]byte, size)}, false); !ok {
			t.Fatalf("%d bytes do not fit", size)
		}
		s.nextConn++
		c.id = s.nextConn
		s.conns[c.id] = c
		return c
	}
	small, large, middle := add(cfg.MaxQueuedBytes/10), add(cfg.MaxQueuedBytes/2), add(cfg.MaxQueuedBytes/4)
	s.mu.Lock()
	defer func() { // Shutdown waits for none of them
		s.conns = map[signaling.ConnID]*conn{}
		s.mu.Unlock()
	}()
	s.enqueue(small, outgoing{frame: make([]byte, cfg.MaxQueuedBytes/5)})
	for name, c := range map[string]struct {
		*conn
		ended bool
	}{"small": {small, false}, "large": {large, true}, "middle": {middle, false}} {
		if c.hasEnded() != c.ended || c.ended && c.verdict.Code != signaling.CodeSlow {
			t.Errorf("%s: ended is %v, why: %s", name, c.hasEnded(), c.why())
		}
	}
	if want := int64(cfg.MaxQueuedBytes/10 + cfg.MaxQueuedBytes/4 + cfg.MaxQueuedBytes/5); s.queued.Load() != want {
		t.Errorf("%d bytes are queued, want %d", s.queued.Load(), want)
	}
}
