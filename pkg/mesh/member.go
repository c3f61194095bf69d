package mesh

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/datachannel"
	"github.com/pion/webrtc/v4"

	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
	"github.com/crmesh/crmesh/pkg/signaling"
)

// Bounds of what waits for the goroutine of a member. It works on one description for some milliseconds.
const (
	maxSignals = 256 // descriptions from the member; more are dropped, and the attempt with them repeated
	maxPion    = 64  // callbacks of pion, which wait
)

// LinkState is how far the link to a member is.
type LinkState string

// The states of a link, in their usual order.
const (
	LinkWaiting    LinkState = "waiting"    // for our next attempt, or for the other side's
	LinkSignaling  LinkState = "signaling"  // a description was sent, none has come back
	LinkChecking   LinkState = "checking"   // ICE looks for a path
	LinkSecuring   LinkState = "securing"   // there is a path; DTLS and SCTP are being set up
	LinkOpen       LinkState = "open"       // the channel is open
	LinkSuspect    LinkState = "suspect"    // the channel is open, but silent
	LinkRestarting LinkState = "restarting" // likewise, and ICE looks for another path
)

// member is a member of the room and the connection to it, which run owns.
type member struct {
	node *Node
	id   signaling.PeerID
	log  *slog.Logger

	signals chan signaling.Description
	pion    chan pionEvent
	doubts  chan doubt
	poked   chan struct{} // look at listed and at the signaling server again
	listed  atomic.Bool   // the room lists the member

	// owned by run
	att            *attempt
	session        uint64 // highest session of ours
	offeredSession uint64 // highest session that the other side offered
	early          *earlyCandidates
	next           time.Time // when to try again
	failures       int       // attempts in a row without an open channel

	mu      sync.Mutex // guards the following
	meta    signaling.Meta
	state   LinkState
	reached LinkState // how far the latest attempt has got
	err     error     // why the last attempt or link ended
}

// doubt says that an open channel is suspect, or no longer.
type doubt struct {
	conn    *conn
	suspect bool
}

// offers reports whether we are the side that offers, and the impolite one.
func (m *member) offers() bool { return m.node.peer.Compare(m.id) > 0 }

// signal hands a description to the member. It does not block.
func (m *member) signal(d signaling.Description) {
	select {
	case m.signals <- d:
	default:
		m.log.Warn("the member sends descriptions faster than they can be taken; one was dropped")
	}
}

// list says whether the room lists the member. The link of one that is not listed lives on as long as it can, but is not
// made again. It does not block.
func (m *member) list(listed bool) {
	m.listed.Store(listed)
	m.poke()
}

func (m *member) poke() {
	select {
	case m.poked <- struct{}{}:
	default:
	}
}

// run looks after the connection until ctx ends, or the room no longer lists the member and its link has ended.
func (m *member) run(ctx context.Context) {
	defer func() { m.drop(errClosed) }()
	m.next = time.Now()
	if !m.offers() {
		m.next = m.next.Add(m.node.timing.want)
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(time.Until(m.wakeTime()))
		var err error
		select {
		case d := <-m.signals:
			err = m.handle(d)
		case e := <-m.pion:
			if e.att == m.att {
				err = m.transport(e)
			} else if e.opened != nil {
				_ = e.opened.Close() // of an attempt that is over
			}
		case d := <-m.doubts:
			err = m.doubted(d)
		case <-m.lost():
			m.linkEnded()
		case <-timer.C:
			err = m.due()
		case <-m.poked:
			err = m.reconsider()
		case <-ctx.Done():
			return
		}
		if err != nil {
			err = m.ended(err)
			m.log.Info("no link", "err", err)
			m.failed(err)
		}
		if !m.listed.Load() && (m.att == nil || m.att.conn == nil) {
			return
		}
		m.show()
	}
}

// lost is closed when the channel ended; nil while there is none.
func (m *member) lost() <-chan struct{} {
	if m.att == nil || m.att.conn == nil {
		return nil
	}
	return m.att.conn.done
}

// wakeTime is when due has something to do.
func (m *member) wakeTime() time.Time {
	switch {
	case m.att == nil:
		return m.next
	case m.att.conn == nil:
		return m.att.started.Add(m.node.timing.attempt)
	case !m.att.restartUntil.IsZero():
		return m.att.restartUntil
	default:
		return time.Now().Add(time.Hour)
	}
}

// due does what it is time for.
func (m *member) due() error {
	switch now := time.Now(); {
	case now.Before(m.wakeTime()):
		return nil
	case m.att == nil && m.offers():
		return m.offer()
	case m.att == nil:
		return m.want()
	case m.att.conn == nil:
		return errNoAnswer
	default:
		// The restart is over. Something was heard since it began: then the link is well again.
		a := m.att
		if a.conn.heardSince(a.restarted) {
			a.restartUntil = time.Time{}
			return nil
		}
		return errLost
	}
}

// want asks the other side to offer.
func (m *member) want() error {
	m.next = time.Now().Add(m.node.timing.want)
	session := max(m.session+1, m.offeredSession+1, uint64(time.Now().UnixMilli()))
	if err := m.send(signaling.Description{Kind: signaling.KindWant, Session: session}); err != nil {
		m.log.Debug("could not ask for an offer", "err", err)
	}
	return nil
}

func (m *member) send(d signaling.Description) error {
	if err := m.node.signaler.Send(m.id, d); err != nil {
		return &signalError{d.Kind, err}
	}
	return nil
}

// transport takes an event of pion about the current attempt.
func (m *member) transport(e pionEvent) error {
	a := m.att
	switch {
	case e.failed != nil:
		return e.failed
	case e.opened != nil:
		m.open(a, e.opened, e.channel)
	case e.gathered:
		m.gathered(a, e.candidate)
	case e.ice == webrtc.ICEConnectionStateFailed && a.conn == nil:
		return errNoPath
	case e.ice == webrtc.ICEConnectionStateFailed, e.ice == webrtc.ICEConnectionStateDisconnected:
		return m.restart(a)
	}
	return nil
}

// gathered sends a candidate of ours. One that is not sent may cost a path, but need not.
func (m *member) gathered(a *attempt, c *webrtc.ICECandidate) {
	d := signaling.Description{Kind: signaling.KindCandidate, Session: a.session}
	if c != nil {
		init := c.ToJSON()
		d.Candidate = &signaling.Candidate{
			Candidate: init.Candidate, SDPMid: init.SDPMid,
			SDPMLineIndex: init.SDPMLineIndex, UsernameFragment: init.UsernameFragment,
		}
	}
	if err := m.send(d); err != nil {
		m.log.Debug("a candidate was not sent", "err", err)
	}
}

// open makes a conn of the channel and hands it to the loop.
func (m *member) open(a *attempt, raw datachannel.ReadWriteCloser, dc *webrtc.DataChannel) {
	c := &conn{
		peer: m.id, site: a.remoteSite, session: a.session, own: a.local, remote: a.remote,
		ch: &dataChannel{raw, dc}, log: m.log, timing: m.node.timing,
		deliver: m.node.deliver, refuse: m.node.refuse,
		doubt: func(c *conn, suspect bool) {
			select {
			case m.doubts <- doubt{c, suspect}:
			case <-c.done:
			}
		},
	}
	c.init()
	a.conn = c
	m.failures = 0
	m.node.linkUp(c) // before its first message
	c.start()
}

// reconsider restarts ICE for a link that was suspect while there was nobody to pass on the offer.
func (m *member) reconsider() error {
	if a := m.att; a != nil && a.conn != nil && a.conn.silence() >= m.node.timing.suspect {
		return m.restart(a)
	}
	return nil
}

// doubted restarts ICE when the channel is silent, and calls the restart done when it is not.
func (m *member) doubted(d doubt) error {
	a := m.att
	if a == nil || a.conn != d.conn {
		return nil
	}
	if d.suspect {
		return m.restart(a)
	}
	if !a.restartUntil.IsZero() && !a.unanswered {
		a.restartUntil = time.Time{}
	}
	return nil
}

// linkEnded closes what is left of a connection whose channel ended, and plans the next one.
func (m *member) linkEnded() {
	err := m.att.conn.reason()
	if err == nil {
		err = errEnded
	}
	m.drop(err)
	var refused *syncproto.Error
	wait := m.node.timing.backoff(m.failures)
	if errors.As(err, &refused) || errors.Is(err, errBye) {
		wait = m.node.timing.refused
	}
	if !m.offers() && errors.Is(err, errDead) {
		wait = 0 // the other side may not have noticed
	}
	m.next = time.Now().Add(wait)
}

// failed ends the current attempt and plans the next one.
func (m *member) failed(err error) {
	m.drop(err)
	wait := m.node.timing.backoff(m.failures)
	if errors.Is(err, errLost) {
		wait = 0
	} else {
		m.failures++
	}
	m.next = time.Now().Add(wait)
}

// drop closes the current attempt, if there is one.
func (m *member) drop(err error) {
	a := m.att
	if a == nil {
		return
	}
	m.att = nil
	if a.conn != nil {
		a.conn.close(err)
	}
	m.closeAttempt(a)
	if a.conn != nil {
		m.node.linkDown(a.conn)
	}
	m.mu.Lock()
	m.err = err
	m.mu.Unlock()
}
