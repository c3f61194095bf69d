package signaltest

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestLog(t *testing.T) {
	var log Log
	var writers sync.WaitGroup
	for i := range 4 {
		writers.Go(func() { fmt.Fprintf(&log, "line %d\n", i) })
	}
	_ = log.String()
	writers.Wait()
	for i := range 4 {
		if !strings.Contains(log.String(), fmt.Sprintf("line %d\n", i)) {
			t.Errorf("line %d is missing in %q", i, log.String())
		}
	}
}

// recorder is a test that may fail.
type recorder struct {
	testing.TB
	failure string
}

func (*recorder) Helper() {}

func (r *recorder) Fatalf(format string, args ...any) {
	r.failure = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// Until sees what comes later, and names what does not come.
func TestUntil(t *testing.T) {
	looks := 0
	Until(t, time.Minute, "the third look", func() bool { looks++; return looks == 3 })
	r := &recorder{TB: t}
	var wg sync.WaitGroup
	wg.Go(func() { Until(r, time.Millisecond, "the impossible", func() bool { return false }) })
	wg.Wait()
	if r.failure != "after 1ms still not so: the impossible" {
		t.Errorf("got %q", r.failure)
	}
}
