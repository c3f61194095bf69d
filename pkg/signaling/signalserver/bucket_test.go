package signalserver

import (
	"testing"
	"time"
)

// However slowly a bucket fills, nobody is told to wait for a time that does not fit on the wire.
func TestBucketWait(t *testing.T) {
	for rate, want := range map[float64]time.Duration{2: 500 * time.Millisecond, 1e-6: longestWait, 1e-300: longestWait} {
		var b bucket
		now := time.Now()
		if _, ok := b.take(now, rate, 1, 1); !ok {
			t.Errorf("rate %v: the first is refused", rate)
		}
		if wait, ok := b.take(now, rate, 1, 1); ok || wait != want {
			t.Errorf("rate %v: wait %v, %v; want %v", rate, wait, ok, want)
		}
	}
}
