package mesh

import (
	"math/rand/v2"
	"time"
)

// The times of docs/PROTOCOL.md and docs/SIGNALING.md.
const (
	// PingAfter is the silence after which a peer pings.
	PingAfter = 2 * time.Second
	// SuspectAfter is the silence after which a link is suspect and its ICE is restarted.
	SuspectAfter = 5 * time.Second
	// DeadAfter is the silence after which a link is dead and closed.
	DeadAfter = 15 * time.Second
	// WantAfter is how long the peer with the lesser id waits for an offer before it asks for one, and between asking.
	WantAfter = 5 * time.Second
	// RestartTimeout is how long an ICE restart may take before the link is built anew.
	RestartTimeout = 8 * time.Second
	// AttemptTimeout is how long a new connection may take until its channel is open.
	AttemptTimeout = 20 * time.Second
	// MinBackoff and MaxBackoff bound the pause after attempts that failed.
	MinBackoff = time.Second
	MaxBackoff = 30 * time.Second
	// RepairAfter is how long a neighbour may not answer until another member takes its place, which has less time where most answer.
	RepairAfter = 10 * time.Second
	// SurplusAfter is how long a link stays that neither the graph nor the other side asks for any more.
	SurplusAfter = 30 * time.Second
	// ForgetAfter is how long it is remembered at least that a member in the place of another could not be linked either.
	ForgetAfter = 2 * time.Minute
	// RefusedBackoff is the pause after a link that one side closed on purpose.
	RefusedBackoff = 30 * time.Second
	// VerifyPause is the least time between two looks at rows that differ.
	VerifyPause = 200 * time.Millisecond
	// UnknownFor is how long envelopes to a member go over other members after the signaling server could not pass one on.
	UnknownFor = 10 * time.Second
	// MournFor is how long a member that the room no longer lists is tried over other members after its link was lost.
	MournFor = 30 * time.Second
	// MinStorePause and MaxStorePause bound the pauses after which a store is asked again that could not be used.
	MinStorePause = 500 * time.Millisecond
	MaxStorePause = 8 * time.Second
	// StoreNews is how often the log says that it still cannot.
	StoreNews = time.Minute
)

// timing holds the times above, so that tests need not wait for them, and what else only tests change.
type timing struct {
	ping, suspect, dead    time.Duration
	want                   time.Duration
	restart, attempt       time.Duration
	minBackoff, maxBackoff time.Duration
	refused, flush         time.Duration
	verify                 time.Duration
	renewal                time.Duration
	repair, surplus        time.Duration
	forget                 time.Duration
	unknown, mourn         time.Duration
	minStorePause          time.Duration
	maxStorePause          time.Duration
	storeNews              time.Duration
	path                   time.Duration // silence after which ICE calls a path disconnected
	watch, probe           time.Duration
	close                  time.Duration
	wall                   func() time.Time // the clock on the wall
	bothOffer              bool             // the side that should ask for an offer makes one, as a peer that errs may
}

func defaultTiming() timing {
	return timing{
		ping: PingAfter, suspect: SuspectAfter, dead: DeadAfter,
		want: WantAfter, restart: RestartTimeout, attempt: AttemptTimeout,
		minBackoff: MinBackoff, maxBackoff: MaxBackoff,
		refused: RefusedBackoff, flush: time.Second, verify: VerifyPause, renewal: RenewalPause,
		repair: RepairAfter, surplus: SurplusAfter, forget: ForgetAfter,
		unknown: UnknownFor, mourn: MournFor,
		minStorePause: MinStorePause, maxStorePause: MaxStorePause, storeNews: StoreNews,
		path: SuspectAfter, watch: WatchEvery, probe: ProbeTimeout, close: closeTimeout,
		wall: func() time.Time { return time.Now().Round(0) }, // without the monotonic clock, which may stop in sleep
	}
}

// backoff returns the pause before the n-th repetition (from 0): at least half of the doubled time, so that it is never
// near zero, and the other half at random, so that members that lost each other together do not return together.
func (t timing) backoff(n int) time.Duration {
	d := t.maxBackoff
	if n < 16 {
		d = min(t.minBackoff<<n, t.maxBackoff)
	}
	return d/2 + rand.N(d/2+1)
}
