// Package signaltest is what the tests of the signaling packages, and of all that is built on them, share: a log that is read while
// somebody writes to it, patience, HTTP requests, and an authority that signs certificates.
package signaltest

import (
	"bytes"
	"net"
	"sync"
	"testing"
	"time"
)

// Log keeps what is written to it, by any goroutine.
type Log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// String returns what was written so far.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// interval is the time between two looks of Until.
const interval = 5 * time.Millisecond

// Until looks until ok, and fails the test after limit. what says what is waited for.
func Until(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	deadline := time.After(limit)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			if ok() { // the machine may have stood still since the last look
				return
			}
			t.Fatalf("after %v still not so: %s", limit, what)
		}
	}
}

// Accept hands each connection that l accepts to take, one after the other, until the test ends; then it closes l.
func Accept(t testing.TB, l net.Listener, take func(net.Conn)) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			take(c)
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
}
