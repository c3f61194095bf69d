package signalserver

import (
	"math"
	"time"
)

// bucket is a token bucket. The zero value is full at its first use.
type bucket struct {
	tokens float64
	last   time.Time
}

// take removes one token. When there is none it returns false and the time
// until there is one.
func (b *bucket) take(now time.Time, rate float64, burst int) (time.Duration, bool) {
	b.fill(now, rate, burst)
	if b.tokens < 1 {
		return time.Duration((1 - b.tokens) / rate * float64(time.Second)), false
	}
	b.tokens--
	return 0, true
}

func (b *bucket) fill(now time.Time, rate float64, burst int) {
	if b.last.IsZero() {
		b.tokens = float64(burst)
	} else if passed := now.Sub(b.last).Seconds(); passed > 0 {
		b.tokens = math.Min(float64(burst), b.tokens+passed*rate)
	}
	b.last = now
}

// seconds rounds a wait up to what the wire carries.
func seconds(d time.Duration) int {
	return int(math.Ceil(d.Seconds()))
}
