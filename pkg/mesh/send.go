package mesh

import "github.com/crmesh/crmesh/pkg/mesh/syncproto"

// sendLoop cuts messages into frames and writes them as the transport takes them. Pings and pongs go first.
func (c *conn) sendLoop() {
	defer c.wg.Done()
	var message, frame []byte // buffers that are used again
	for {
		m, ending := c.next()
		if m == nil {
			if ending {
				c.flush()
				return
			}
			select {
			case <-c.wake:
			case f := <-c.control:
				if !c.writeControl(f) {
					return
				}
			case <-c.done:
				return
			}
			continue
		}
		message = m.AppendMarshal(message[:0])
		for rest := message; rest != nil; {
			if !c.room() {
				return
			}
			frame, rest = syncproto.AppendFrame(frame[:0], rest)
			if !c.write(frame) {
				return
			}
		}
		if cap(message) > keepBuffer {
			message = nil
		}
	}
}

// keepBuffer bounds what a conn keeps for the next message, in bytes.
const keepBuffer = 1 << 20

// next takes the first message of the queue; nil if there is none.
func (c *conn) next() (m syncproto.Message, ending bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queue) == 0 {
		return nil, c.ending
	}
	m, c.queue[0] = c.queue[0], nil
	c.queue = c.queue[1:]
	return m, false
}

// room waits until the transport takes another frame, answering pings meanwhile. It is false once the conn is done.
func (c *conn) room() bool {
	for {
		select {
		case f := <-c.control:
			if !c.writeControl(f) {
				return false
			}
			continue
		case <-c.done:
			return false
		default:
		}
		if c.ch.BufferedAmount() < highWater {
			return true
		}
		select {
		case <-c.wake: // lowWater was reached, or something was queued
		case f := <-c.control:
			if !c.writeControl(f) {
				return false
			}
		case <-c.done:
			return false
		}
	}
}

// writeControl writes a ping or a pong. One for a peer that takes nothing, and may ask for them without end, is dropped.
func (c *conn) writeControl(frame []byte) bool {
	if c.ch.BufferedAmount() >= maxControlBuffered {
		return true
	}
	return c.write(frame)
}

func (c *conn) write(frame []byte) bool {
	n, err := c.ch.Write(frame)
	if err != nil {
		c.close(err)
		return false
	}
	c.bytesOut.Add(uint64(n))
	return true
}

// sendControl queues a ping or a pong; it goes before messages.
func (c *conn) sendControl(frame []byte) {
	select {
	case c.control <- frame:
	default:
	}
}

// flush waits until the other side has all, or finish gives up, and ends the conn.
func (c *conn) flush() {
	c.ch.OnLow(0, c.poke)
	for c.ch.BufferedAmount() > 0 {
		select {
		case <-c.wake:
		case <-c.control: // too late for it
		case <-c.done:
			return
		}
	}
	c.close(nil)
}
