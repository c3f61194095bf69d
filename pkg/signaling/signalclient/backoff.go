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
	ceiling := c.cfg.BackoffMin << min(attempt, 20)
	if ceiling > c.cfg.BackoffMax || ceiling <= 0 {
		ceiling = c.cfg.BackoffMax
	}
	wait := time.Duration(rand.Int64N(int64(ceiling) + 1))
	return max(wait, retryAfter(err))
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
