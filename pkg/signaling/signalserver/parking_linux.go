package signalserver

import (
	"errors"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// parking watches the sockets of connections on which nothing happens, so
// that none needs a goroutine, whose stack would be a third of its memory.
type parking struct {
	epoll   *os.File // in the runtime's own poller: no thread waits for it
	raw     syscall.RawConn
	resume  func(*conn)
	stopped chan struct{}

	mu    sync.Mutex
	conns []*conn // by file descriptor
}

// openParking returns nil if the system does not let it: then connections wait in goroutines.
func openParking(resume func(*conn)) *parking {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil
	}
	p := &parking{epoll: os.NewFile(uintptr(fd), "epoll"), resume: resume, stopped: make(chan struct{})}
	if p.raw, err = p.epoll.SyscallConn(); err != nil {
		_ = p.epoll.Close()
		return nil
	}
	go p.run() // until close
	return p
}

// close ends the watching. No connection may be left.
func (p *parking) close() {
	if p != nil {
		_ = p.epoll.Close()
		<-p.stopped
	}
}

// watch puts the socket of c to sleep, and makes parking call resume with c
// once, as soon as something has come or the connection has ended. It does not
// block. false: c cannot be watched. Nothing may be read from c, nor written
// in a way that waits.
func (p *parking) watch(c *conn) bool {
	if p == nil || c.wire.low == nil {
		return false
	}
	l := c.wire.low
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || !l.asleep && !p.sleep(l) {
		return false
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT, Fd: l.fd}
	op := unix.EPOLL_CTL_MOD
	if !l.watched {
		op = unix.EPOLL_CTL_ADD
		p.set(l.fd, nil, c)
	}
	if err := p.control(op, &event); err != nil {
		p.set(l.fd, c, nil)
		l.watched = false
		return false
	}
	l.watched = true
	return true
}

// sleep exchanges what the runtime has for the socket of l for a second
// descriptor of it. l.mu is held.
func (p *parking) sleep(l *line) bool {
	if l.raw == nil {
		return false
	}
	fresh := -1
	err := l.raw.Control(func(fd uintptr) {
		n, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return // there are no more; all stays as it is
		}
		if fresh = n; l.watched { // closing fd alone would not end that, since the socket stays open
			_ = p.control(unix.EPOLL_CTL_DEL, &unix.EpollEvent{Fd: l.fd})
		}
	})
	if err != nil || fresh < 0 {
		return false
	}
	if l.watched {
		p.mu.Lock()
		p.conns[l.fd] = nil
		p.mu.Unlock()
	}
	_ = l.conn.Close()
	l.conn, l.raw, l.fd, l.asleep, l.watched = nil, nil, int32(fresh), true, false
	return true
}

func (p *parking) control(op int, event *unix.EpollEvent) (err error) {
	closed := p.raw.Control(func(epoll uintptr) { err = unix.EpollCtl(int(epoll), op, int(event.Fd), event) })
	return errors.Join(closed, err)
}

// set puts now into the place of a descriptor, if before is there.
func (p *parking) set(fd int32, before, now *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := int(fd) + 1 - len(p.conns); n > 0 {
		p.conns = append(p.conns, make([]*conn, n)...)
	}
	if now != nil || p.conns[fd] == before {
		p.conns[fd] = now
	}
}

// remove forgets c, whose socket is closed.
func (p *parking) remove(c *conn) {
	if p == nil || c.wire.low == nil {
		return
	}
	l := c.wire.low
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.watched {
		l.watched = false
		p.set(l.fd, c, nil) // or the number is another's by now
	}
}

func (p *parking) run() {
	defer close(p.stopped)
	events := make([]unix.EpollEvent, 256)
	for {
		n := 0
		var failed error
		err := p.raw.Read(func(fd uintptr) bool {
			for {
				n, failed = unix.EpollWait(int(fd), events, 0)
				if !errors.Is(failed, unix.EINTR) {
					return n != 0
				}
			}
		})
		if err != nil || failed != nil {
			return // closed
		}
		for _, e := range events[:n] {
			p.mu.Lock()
			c := p.conns[e.Fd]
			p.mu.Unlock()
			if c != nil {
				p.resume(c) // if c has its number from one that is gone, it finds nothing to read
			}
		}
	}
}
