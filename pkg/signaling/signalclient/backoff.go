package signalclient

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/crmesh/crmesh/pkg/signaling"
)

// maxRetryAfter bounds what a server may ask for.
const maxRetryAfter = 5 * time.Minute

// backoff returns how long to wait before the next attempt, the first being
// number 0: random, so that the members of a room do not come back all at
// once, and not before the server wants us.
func (c *Client) backoff(attempt int, err error) time.Duration {
	return max(upTo(ceiling(c.cfg.BackoffMin, c.cfg.BackoffMax, attempt)), retryAfter(err))
}

// ceiling is the longest wait of attempt n: from least, doubling up to most.
func ceiling(least, most time.Duration, attempt int) time.Duration {
	c := least << min(attempt, 20)
	if c > most || c <= 0 {
		return most
	}
	return c
}

// upTo returns a random wait.
func upTo(most time.Duration) time.Duration { return time.Duration(rand.Int64N(int64(most) + 1)) }

// maxMoveDelay bounds what a server that stops may ask for.
const maxMoveDelay = time.Minute

// moveDelay returns how long to wait before the move that a server has asked
// for: random, so that its successor does not get all clients at once.
func moveDelay(seconds int) time.Duration {
	return upTo(min(time.Duration(min(seconds, 3600))*time.Second, maxMoveDelay))
}

// retryAfter returns what the server asked for in its error, at most
// maxRetryAfter.
func retryAfter(err error) time.Duration {
	var refused *httpError
	if errors.As(err, &refused) {
		return min(refused.retryAfter, maxRetryAfter)
	}
	var e signaling.Error
	if errors.As(err, &e) {
		return min(time.Duration(e.RetryAfter)*time.Second, maxRetryAfter)
	}
	return 0
}
