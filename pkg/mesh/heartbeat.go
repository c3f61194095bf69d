package mesh

import (
	"time"

	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
)

// rttEvery is how many times less often than a silent link a busy one is pinged, to know its round trip.
const rttEvery = 5

// heartbeat pings a silent link, calls it suspect, and ends it when it is dead. It pings at once, too, so that the round
// trip is known from the beginning.
func (c *conn) heartbeat() {
	defer c.wg.Done()
	tick := time.NewTicker(max(c.timing.ping/4, time.Millisecond))
	defer tick.Stop()
	pinged := time.Duration(-1)
	suspect := false
	for {
		now := c.now()
		silence := now - time.Duration(c.heard.Load())
		due := pinged < 0 || now-pinged >= rttEvery*c.timing.ping ||
			(silence >= c.timing.ping && now-pinged >= c.timing.ping)
		if due {
			pinged = now
			c.sendControl(syncproto.AppendPing(nil, c.pingToken()))
		}
		if s := silence >= c.timing.suspect; s != suspect {
			suspect = s
			c.doubt(c, s)
		}
		if silence >= c.timing.dead {
			c.close(errDead)
			return
		}
		select {
		case <-tick.C:
		case <-c.done:
			return
		}
	}
}
