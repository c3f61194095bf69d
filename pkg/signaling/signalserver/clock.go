package signalserver

import (
	"container/heap"
	"sync"
	"time"

	"github.com/crmesh/crmesh/pkg/signaling"
)

// epoch is before all that happens. Times of connections are kept as what has
// passed since then: that is a third of a time.Time.
var epoch = time.Now().Add(-time.Second)

func sinceEpoch() time.Duration { return time.Since(epoch) }

// alarms calls for connections when something is due: a timer for each would
// be a quarter of its memory.
type alarms struct {
	sooner chan struct{} // what is first has changed

	mu    sync.Mutex // guards the following, and due and place of each conn; conn.mu may be held
	queue alarmQueue
}

// alarmQueue is a heap of those for which something is due, the next one first.
type alarmQueue []*conn

func (q alarmQueue) Len() int           { return len(q) }
func (q alarmQueue) Less(i, j int) bool { return q[i].due < q[j].due }
func (q alarmQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = int32(i+1), int32(j+1)
}

// Push implements heap.Interface.
func (q *alarmQueue) Push(c any) {
	*q = append(*q, c.(*conn))
	c.(*conn).place = int32(len(*q))
}

// Pop implements heap.Interface.
func (q *alarmQueue) Pop() any {
	n := len(*q) - 1
	c := (*q)[n]
	(*q)[n] = nil
	*q, c.place = (*q)[:n], 0
	return c
}

// set sets the alarm of c, instead of one that was set.
func (a *alarms) set(c *conn, due time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c.due = due; c.place == 0 {
		heap.Push(&a.queue, c)
	} else {
		heap.Fix(&a.queue, int(c.place)-1)
	}
	if a.queue[0] == c {
		select {
		case a.sooner <- struct{}{}:
		default:
		}
	}
}

// remove takes the alarm of c away, if there is one.
func (a *alarms) remove(c *conn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c.place != 0 {
		heap.Remove(&a.queue, int(c.place)-1)
	}
}

// next takes a connection for which something is due, or tells how long there
// will be none.
func (a *alarms) next() (*conn, time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.queue) == 0 {
		return nil, time.Hour
	}
	if wait := a.queue[0].due - sinceEpoch(); wait > 0 {
		return nil, wait
	}
	return heap.Pop(&a.queue).(*conn), 0
}

// run calls ring for each connection when it is due, until closed. ring must
// not wait for a connection.
func (a *alarms) run(closed <-chan struct{}, ring func(*conn)) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-closed:
			return
		case <-timer.C:
		case <-a.sooner:
		}
		c, wait := a.next()
		for ; c != nil; c, wait = a.next() {
			ring(c)
		}
		timer.Reset(wait)
	}
}

// ring does what is due for c.
func (s *Server) ring(c *conn) {
	c.mu.Lock()
	if c.ended {
		c.mu.Unlock()
		return
	}
	now := sinceEpoch()
	if c.joinBy != 0 && now >= c.joinBy {
		c.mu.Unlock()
		s.unjoined(c)
		return
	}
	ping := now >= c.nextPing
	if ping && c.asked {
		c.mu.Unlock()
		s.mu.Lock()
		s.end(c, signaling.Error{Code: signaling.CodeIdle, Message: "No answer to pings came in time; reconnect."})
		s.mu.Unlock()
		return
	}
	if ping {
		c.asked, c.nextPing = true, now+c.server.cfg.Load().IdleTimeout*2/3
		c.own.Add(1)
	}
	c.setAlarm()
	c.mu.Unlock()
	if ping {
		c.ping()
	}
}

// setAlarm sets the alarm for whatever is due next. c.mu is held.
func (c *conn) setAlarm() {
	due := c.nextPing
	if c.joinBy != 0 {
		due = min(due, c.joinBy)
	}
	c.server.alarms.set(c, due)
}

// joined stops the clock of the join. s.mu is held.
func (c *conn) joined() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.joinBy = 0; !c.ended {
		c.setAlarm()
	}
}

// unjoined ends a connection that did not join in time.
func (s *Server) unjoined(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !c.hasJoined {
		s.end(c, signaling.Error{Code: signaling.CodeIdle, Message: "No join came in time; reconnect and join."})
	}
}

// pingFrame has no payload.
var pingFrame = []byte{0x89, 0}

// ping asks whether the peer is there. It does not wait: if the socket takes
// nothing, or there is TLS, another goroutine does.
func (c *conn) ping() {
	n, err := c.wire.begin(pingFrame)
	switch rest := pingFrame[n:]; {
	case err != nil || len(rest) == 0: // if it cannot be written, no answer comes
	case n > 0:
		c.own.Go(func() { _ = c.wire.finish(rest, time.Now().Add(writeTimeout)) })
	default:
		c.own.Go(func() { _ = c.wire.writeUntil(rest, time.Now().Add(writeTimeout)) })
	}
	c.own.Done()
}

// answered follows a pong.
func (c *conn) answered() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard()
}

// heard is answered for the holder of c.mu.
func (c *conn) heard() {
	if c.asked && !c.ended {
		c.asked, c.nextPing = false, sinceEpoch()+c.server.cfg.Load().IdleTimeout/3
		c.setAlarm()
	}
}
