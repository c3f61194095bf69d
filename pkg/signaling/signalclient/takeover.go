package signalclient

import (
	"errors"
	"fmt"
	"time"

	"github.com/crmesh/crmesh/pkg/signaling"
)

const (
	// maxTakeoverWait bounds the wait after our place was taken: it doubles with each time, and no joined begins it anew.
	maxTakeoverWait = 5 * time.Minute
	// takeoverMemory is how long nobody takes our place until the waits begin anew. It is more than two of the longest, so that of
	// two who take it from each other, neither forgets.
	takeoverMemory = 3 * maxTakeoverWait
	// takeoversOfACopy is how many of them no late join of ours explains.
	takeoversOfACopy = 3
)

// takeovers counts how often another connection with our id and token took our place. Once, it is a join of our own that we had
// given up and that reached the server late: nobody is behind it, so we take the place back. Again and again, it is a
// copy of this process, as in a cloned virtual machine. Neither is to be left out for good, for the other may end at any time;
// but they must not take the place from each other without pause.
type takeovers struct {
	count int
	last  time.Time
}

// again counts one and returns the longest wait before we take the place back, and the error with what to do about it.
func (t *takeovers) again(now time.Time, least time.Duration, err error) (time.Duration, error) {
	if now.Sub(t.last) > takeoverMemory {
		t.count = 0
	}
	t.count++
	t.last = now
	if t.count >= takeoversOfACopy {
		err = fmt.Errorf("%w Another copy of this process seems to have the same peer id (%d times by now), as in a cloned machine: "+
			"end one of the two, or start this one again, which gives it another id", err, t.count)
	}
	return ceiling(least, maxTakeoverWait, t.count-1), err
}

// takenOver tells whether the server ended a connection for another one of the same peer.
func takenOver(err error) bool {
	var e signaling.Error
	return errors.As(err, &e) && e.Code == signaling.CodeReplaced
}
