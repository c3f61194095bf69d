package mesh

import (
	"errors"
	"io"
	"time"

	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
)

// receiveLoop puts frames together and hands messages up. While nobody takes a message nothing is read, so that the
// transport's window closes and the other side waits.
func (c *conn) receiveLoop() {
	defer c.wg.Done()
	defer c.close(errEnded)
	assembler := syncproto.NewAssembler(syncproto.MaxMessage)
	buf := make([]byte, syncproto.MaxFrameAccepted+1)
	for {
		n, err := c.ch.Read(buf)
		if err != nil && !errors.Is(err, io.ErrShortBuffer) {
			return
		}
		if errors.Is(err, io.ErrShortBuffer) {
			n = len(buf) // longer than a frame may be; the assembler says so
		}
		c.heard.Store(int64(c.now()))
		c.bytesIn.Add(uint64(n))
		frame, err := assembler.Frame(buf[:n])
		if err == nil {
			err = c.take(frame)
		}
		if err != nil {
			c.refuse(c, syncproto.AsError(err))
			c.drain(buf)
			return
		}
		c.heard.Store(int64(c.now())) // time spent waiting to be taken is no silence of the other side
		select {
		case <-c.done:
			return
		default:
		}
	}
}

func (c *conn) take(f syncproto.Frame) error {
	switch f.Kind {
	case syncproto.FramePing:
		c.sendControl(syncproto.AppendPong(nil, f.Token))
	case syncproto.FramePong:
		c.pong(f.Token)
	case syncproto.FrameLast:
		m, err := syncproto.Parse(f.Message)
		if err != nil {
			return err
		}
		if r, ok := m.(*syncproto.Relay); ok && !c.relays.take(c.limit, r) {
			return nil
		}
		c.deliver(c, m)
	}
	return nil
}

// drain throws away what still comes while the error message goes out, until the conn is done.
func (c *conn) drain(buf []byte) {
	for {
		_, err := c.ch.Read(buf)
		if errors.Is(err, io.ErrShortBuffer) { // it stays at the head of the queue
			<-c.done
			return
		}
		if err != nil {
			return
		}
	}
}

// A ping carries the time at which it was sent, so that its pong tells the round trip.
func (c *conn) pingToken() uint64 { return uint64(c.now()) }

func (c *conn) pong(token uint64) {
	if rtt := c.now() - time.Duration(token); token != 0 && rtt > 0 && rtt < time.Hour {
		c.rtt.Store(int64(rtt))
	}
}
