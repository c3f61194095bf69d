package signalserver

import (
	"math"
	"strconv"
	"time"
)

// bucket is a token bucket. The zero value is full at its first use.
type bucket struct {
	tokens float64
	last   time.Duration // since epoch; 0: never
}

// longestWait is the longest time that anybody is told to wait.
const longestWait = 24 * time.Hour

// take removes n tokens, at most as many as the bucket holds when it is full.
// When there are fewer it returns false and the time until there are enough.
func (b *bucket) take(now time.Time, rate float64, burst, n int) (time.Duration, bool) {
	b.fill(now, rate, burst)
	need := float64(min(n, burst))
	if b.tokens < need {
		return time.Duration(min((need-b.tokens)/rate, longestWait.Seconds()) * float64(time.Second)), false
	}
	b.tokens -= need
	return 0, true
}

func (b *bucket) fill(now time.Time, rate float64, burst int) {
	at := now.Sub(epoch)
	if b.last == 0 {
		b.tokens = float64(burst)
	} else if passed := (at - b.last).Seconds(); passed > 0 {
		b.tokens = math.Min(float64(burst), b.tokens+passed*rate)
	}
	b.last = at
}

// seconds rounds a wait up to what the wire carries.
func seconds(d time.Duration) int {
	return int(math.Ceil(d.Seconds()))
}

// retrySeconds is the same for an HTTP header.
func retrySeconds(d time.Duration) string { return strconv.Itoa(seconds(d)) }
