package signalclient

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/crmesh/crmesh/pkg/signaling"
)

var (
	errMoved  = errors.New("the signaling server does not answer since the network changed")
	errRenew  = errors.New("the ICE credentials expire soon")
	errMoving = errors.New("the signaling server asks for another connection, it stops soon")
	errSilent = errors.New("the signaling server does not answer; it may be down or the network may have changed")
)

// httpError is an answer to the WebSocket handshake other than yes.
type httpError struct {
	status     int
	retryAfter time.Duration
}

func (e *httpError) Error() string {
	switch e.status {
	case http.StatusNotFound:
		return "there is no signaling server at this address (HTTP 404); check the address"
	case http.StatusForbidden:
		return "the signaling server does not take connections from this origin (HTTP 403)"
	}
	return fmt.Sprintf("the signaling server refused the connection (HTTP %d)", e.status)
}

// leaveTimeout bounds the goodbye of Close.
const leaveTimeout = time.Second

// session is one connection to a server.
type session struct {
	c          *Client
	url        string
	ws         *websocket.Conn
	local      net.Addr      // of ours, that it goes from; nil: unknown
	heard      chan struct{} // signals that a frame came
	moving     chan int      // holds the seconds of a moving
	delivering atomic.Bool   // the reader waits for the user, not for the server
}

// session connects, joins and serves the connection until it is lost. joined
// tells whether the server took us in.
func (c *Client) session(url string) (joined bool, err error) {
	ws, local, err := c.dial(url)
	if err != nil {
		return false, err
	}
	defer func() { _ = ws.CloseNow() }()
	ws.SetReadLimit(signaling.MaxServerFrame)
	s := &session{c: c, url: url, ws: ws, local: local, heard: make(chan struct{}, 1), moving: make(chan int, 1)}

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	answer, err := s.join()
	if err != nil {
		return false, err
	}
	expires := c.joinedAs(answer)
	c.drainOut()
	c.connected.Store(true)
	defer c.connected.Store(false)
	c.cfg.Logger.Info("joined", "url", url, "members", len(answer.Members), "resumed", answer.Resumed)
	told := c.emit(Joined{URL: url, Members: answer.Members, ICEServers: answer.ICEServers, Expires: expires, Resumed: answer.Resumed})
	lost := make(chan error, 1)
	go func() { lost <- s.read(ctx) }() // waited for below
	if err = c.ctx.Err(); told {
		err = s.write(lost, answer.TTL)
	}
	c.connected.Store(false)
	if c.ctx.Err() != nil {
		s.leave(lost)
	}
	cancel()
	if err == nil { // the reader was first and has given the reason
		return true, <-lost
	}
	<-lost
	return true, err
}

func (c *Client) dial(url string) (ws *websocket.Conn, local net.Addr, err error) {
	ctx, cancel := context.WithTimeout(c.ctx, c.cfg.DialTimeout)
	defer cancel()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { local = i.Conn.LocalAddr() }})
	c.setRedial(cancel)
	defer c.setRedial(nil)
	ws, response, err := websocket.Dial(ctx, url, &websocket.DialOptions{
		HTTPClient:      c.cfg.HTTPClient,
		Subprotocols:    []string{signaling.Subprotocol},
		CompressionMode: websocket.CompressionDisabled,
	})
	if err != nil {
		if response != nil && response.StatusCode != http.StatusSwitchingProtocols {
			after, _ := strconv.Atoi(response.Header.Get("Retry-After")) // absent or a date: 0
			return nil, nil, &httpError{status: response.StatusCode, retryAfter: time.Duration(max(after, 0)) * time.Second}
		}
		return nil, nil, fmt.Errorf("the signaling server cannot be reached: %w", err)
	}
	if ws.Subprotocol() != signaling.Subprotocol {
		_ = ws.CloseNow()
		return nil, nil, errors.New("this address answers WebSockets, but not " + signaling.Subprotocol + "; it is not a crmesh server, or of another version")
	}
	return ws, local, nil
}

func (c *Client) setRedial(f context.CancelFunc) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.redial = f
}

// join sends the join and waits for its answer.
func (s *session) join() (signaling.Joined, error) {
	ctx, cancel := context.WithTimeout(context.Background(), s.c.cfg.DialTimeout)
	defer cancel()
	// The server may have us on its list already: Close waits a moment for its answer, so as to take leave.
	defer context.AfterFunc(s.c.ctx, func() { time.AfterFunc(leaveTimeout, cancel) })()
	s.c.setRedial(cancel)
	defer s.c.setRedial(nil)
	cfg := &s.c.cfg
	s.c.mu.Lock()
	join := signaling.Join{Room: cfg.Keys.Room, Peer: cfg.Peer, Token: s.c.token, Admission: cfg.JoinToken, Meta: cfg.Meta}
	s.c.mu.Unlock()
	if err := s.send(join); err != nil {
		return signaling.Joined{}, err
	}
	for {
		m, err := s.receive(ctx)
		if err != nil {
			return signaling.Joined{}, err
		}
		if joined, ok := m.(signaling.Joined); ok {
			if joined.Peer != cfg.Peer {
				return signaling.Joined{}, errors.New("the signaling server answered for another peer")
			}
			return joined, nil
		}
	}
}

// read delivers messages until the connection is lost or ctx is done.
func (s *session) read(ctx context.Context) error {
	for {
		m, err := s.receive(ctx)
		if err != nil {
			return err
		}
		select {
		case s.heard <- struct{}{}:
		default:
		}
		if moving, ok := m.(signaling.Moving); ok {
			select {
			case s.moving <- moving.Within:
			default: // the first is not yet seen
			}
			continue
		}
		event := s.c.take(m)
		if event == nil {
			continue
		}
		s.delivering.Store(true)
		ok := s.deliver(ctx, event)
		s.delivering.Store(false)
		if !ok {
			return ctx.Err()
		}
	}
}

// deliver hands an event to the user. While the client is being closed it only
// drops it, for then the reader waits for the end of the connection.
func (s *session) deliver(ctx context.Context, e Event) bool {
	select {
	case s.c.events <- e:
		return true
	case <-s.c.ctx.Done():
		return true
	case <-ctx.Done():
		return false
	}
}

// write sends what is queued, pings, and gives absent members up. It returns
// nil when the reader has lost the connection (lost then holds why).
func (s *session) write(lost chan error, ttl int) error {
	cfg := &s.c.cfg
	ping := time.NewTicker(cfg.PingInterval)
	defer ping.Stop()
	pong := time.NewTimer(cfg.PongTimeout) // runs while a ping waits for an answer
	pong.Stop()
	defer pong.Stop()
	waiting := false
	silent := errSilent // why the server is left when pong fires
	absent := time.NewTimer(cfg.AbsentGrace)
	defer absent.Stop()
	renew := newRenewal(ttl)
	defer renew.Stop()
	var move <-chan time.Time // fires when this client's turn to move has come
	for {
		var err error
		select {
		case <-s.c.ctx.Done():
			return s.c.ctx.Err()
		case err := <-lost:
			lost <- err
			return nil
		case frame := <-s.c.out:
			err = s.sendFrame(frame)
		case <-ping.C:
			if !waiting {
				waiting = true
				pong.Reset(cfg.PongTimeout)
			}
			err = s.send(signaling.Ping{})
		case <-s.c.check:
			if gone(s.local) {
				return errMoved // nothing can come any more
			}
			waiting, silent = true, errMoved
			pong.Reset(cfg.CheckTimeout)
			err = s.send(signaling.Ping{})
		case <-s.heard:
			waiting, silent = false, errSilent
			pong.Stop()
		case <-pong.C:
			if !s.delivering.Load() {
				return silent
			}
			waiting = false // the user keeps us from hearing; the next ping asks again
		case <-absent.C:
			for _, peer := range s.c.forgetAbsent() {
				if !s.c.emit(MemberLeft{Peer: peer}) {
					return s.c.ctx.Err()
				}
			}
		case <-renew.C:
			return errRenew
		case within := <-s.moving:
			if move == nil { // only the first counts, so that a server cannot put it off
				move = time.After(moveDelay(within))
			}
		case <-move:
			return errMoving
		}
		if err != nil {
			return err
		}
	}
}

// gone reports whether no interface of this machine has the address any more.
func gone(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	if !ok || tcp.IP.IsLoopback() {
		return false
	}
	all, err := net.InterfaceAddrs()
	return err == nil && !slices.ContainsFunc(all, func(x net.Addr) bool {
		own, ok := x.(*net.IPNet)
		return ok && own.IP.Equal(tcp.IP)
	})
}

// newRenewal fires when three quarters of the life of the credentials are
// over; never if they live for ever.
func newRenewal(ttl int) *time.Timer {
	const soonest = time.Second
	t := time.NewTimer(max(time.Duration(ttl)*time.Second*3/4, soonest))
	if ttl == 0 {
		t.Stop()
	}
	return t
}

// receive returns the next message that this version knows.
func (s *session) receive(ctx context.Context) (signaling.Message, error) {
	for {
		_, frame, err := s.ws.Read(ctx)
		if err != nil {
			return nil, fmt.Errorf("the connection to the signaling server is lost: %w", err)
		}
		m, err := signaling.ParseServerMessage(frame)
		switch {
		case errors.Is(err, signaling.ErrUnknownType):
			continue
		case err != nil:
			return nil, fmt.Errorf("the signaling server sent what is no message: %w", err)
		}
		if e, ok := m.(signaling.Error); ok && e.Code != signaling.CodeUnreachable {
			return nil, e
		}
		return m, nil
	}
}

func (s *session) send(m signaling.Message) error {
	frame, err := signaling.MarshalMessage(m)
	if err != nil {
		return err
	}
	return s.sendFrame(frame)
}

// sendFrame writes a frame; a server that takes none for PongTimeout is dead.
// Close shortens that to leaveTimeout, and does not cut a good write.
func (s *session) sendFrame(frame []byte) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	deadline := time.AfterFunc(s.c.cfg.PongTimeout, cancel)
	defer deadline.Stop()
	defer context.AfterFunc(s.c.ctx, func() { deadline.Reset(leaveTimeout) })()
	if err := s.ws.Write(ctx, websocket.MessageText, frame); err != nil {
		return fmt.Errorf("the connection to the signaling server is lost: %w", err)
	}
	return nil
}

// leave sends what is still queued and says goodbye, so that the others need
// not wait for the grace time, and waits for the server to close: to close
// first could overtake the goodbye.
func (s *session) leave(lost chan error) {
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	for queued := true; queued; {
		select {
		case frame := <-s.c.out:
			if s.ws.Write(ctx, websocket.MessageText, frame) != nil {
				return
			}
		default:
			queued = false
		}
	}
	frame, err := signaling.MarshalMessage(signaling.Leave{})
	if err != nil || s.ws.Write(ctx, websocket.MessageText, frame) != nil {
		return // the grace time does it, too
	}
	select {
	case err := <-lost:
		lost <- err
	case <-ctx.Done():
	}
}
