package signalclient

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/crmesh/crmesh/pkg/signaling"
)

// Two who take the place from each other wait longer each time, up to a bound, and neither forgets between two turns.
func TestTakeoversBackOff(t *testing.T) {
	const least = 500 * time.Millisecond
	cause := signaling.Error{Code: signaling.CodeReplaced, Message: "A newer connection of this peer took over."}
	var two [2]takeovers
	now := time.Unix(1_700_000_000, 0)
	for turn := range 40 {
		wait, err := two[turn%2].again(now, least, cause)
		n := turn/2 + 1
		if want := min(least<<(n-1), maxTakeoverWait); wait != want {
			t.Fatalf("takeover %d: waits up to %v, not %v", n, wait, want)
		}
		if told := strings.Contains(err.Error(), "start this one again"); told != (n >= takeoversOfACopy) {
			t.Fatalf("takeover %d: %v", n, err)
		}
		if !errors.Is(err, cause) {
			t.Fatalf("takeover %d: the cause is lost: %v", n, err)
		}
		now = now.Add(wait) // the one that waited takes the place from the other
	}
	if wait, err := two[0].again(now.Add(takeoverMemory+time.Second), least, cause); wait != least || !errors.Is(err, cause) {
		t.Fatalf("long after the others: waits up to %v, %v", wait, err)
	}
}
