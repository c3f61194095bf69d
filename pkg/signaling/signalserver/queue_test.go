package signalserver

import (
	"net/netip"
	"testing"
)

// The send queue is bounded in messages and, by itself, in bytes.
func TestSendQueueBounds(t *testing.T) {
	for name, c := range map[string]struct {
		messages, bytes, size, fit int
	}{
		"messages": {messages: 3, bytes: 1000, size: 1, fit: 3},
		"bytes":    {messages: 100, bytes: 1000, size: 300, fit: 3},
	} {
		conn := newConn(nil, &Config{SendQueue: c.messages, SendQueueBytes: c.bytes}, netip.Prefix{}, "")
		fit := 0
		for fit < 100 && conn.enqueue(make([]byte, c.size)) {
			fit++
		}
		if fit != c.fit {
			t.Errorf("%s: %d frames fit, want %d", name, fit, c.fit)
		}
		conn.abort()
	}
}
