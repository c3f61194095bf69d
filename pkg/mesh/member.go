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
	LinkUnlinked   LinkState = "unlinked"   // none is needed: in a large room, members are linked over others
	LinkWaiting    LinkState = "waiting"    // for our next attempt, or for the other side's
	LinkSignaling  LinkState = "signaling"  // a description was sent, none has come back
	LinkChecking   LinkState = "checking"   // ICE looks for a path
	LinkSecuring   LinkState = "securing"   // there is a path; DTLS is being set up
	LinkOpening    LinkState = "opening"    // it is encrypted; the data channel (SCTP) is being set up
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
	poked   chan struct{}                    // look at listed and at the signaling server again
	renamed chan struct{}                    // we have a new site id
	listed  atomic.Bool                      // a link is wanted: the member is listed, and a neighbour of ours
	asked   atomic.Bool                      // it is not, but the other side wants one
	left    atomic.Bool                      // the room no longer lists it
	moved   atomic.Bool                      // with poked: the network changed
	again   atomic.Bool                      // with poked: what was sent may be lost, and there is another way
	site    atomic.Pointer[syncproto.SiteID] // of its last link; nil: there was none
	ghost   atomic.Bool                      // another peer has come as that site: what is left is nobody
	hurried bool                             // it is asked for an offer at once; not changed once run has begun
	// unknownUntil is how long the signaling server counts as not knowing the member, Unix nanoseconds.
	unknownUntil atomic.Int64

	// owned by run
	att            *attempt
	session        uint64 // highest session of ours
	offeredSession uint64 // highest session that the other side offered
	endedSession   uint64 // the latest session that is over
	hurriedAfter   uint64 // the latest session that was over and offered again
	early          *earlyCandidates
	next           time.Time // when to try again
	failures       int       // attempts in a row without an open channel
	addressed      bool      // a description has come
	probed         time.Time // when the open link was last probed; zero: never
	probeDue       time.Time // when it should have answered; zero: it did, or not
	mournUntil     time.Time // until when a link is tried though the room does not list the member
	anew           bool      // we have a new site id, and the link under the old one is ending

	mu      sync.Mutex // guards the following
	meta    signaling.Meta
	state   LinkState
	fails   int         // failures, as of state
	reached LinkState   // how far the latest attempt has got
	err     error       // why the last attempt or link ended
	path    *PathStatus // of the current attempt, once ICE has found one; what it points to never changes
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

// list says whether a link is wanted. One that is not wanted lives on as long as it can, but is not made again. It does not
// block.
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

// run looks after the connection until ctx ends, or no link is wanted and there is none.
func (m *member) run(ctx context.Context) {
	defer func() { m.drop(errClosed) }()
	m.next = time.Now()
	if !m.offers() && !m.hurried && !m.node.timing.bothOffer {
		m.next = m.next.Add(m.node.timing.want)
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(time.Until(m.wakeTime()))
		var err error
		select {
		case d := <-m.signals:
			m.addressed = true
			err = m.handle(d)
			if err == nil && m.att == nil && m.asked.Load() && m.offers() && d.Kind == signaling.KindWant {
				err = m.offer() // only asked for: now or never
			}
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
		case <-m.renamed:
			m.begin()
		case <-ctx.Done():
			return
		}
		if err != nil {
			err = m.ended(err)
			m.log.Info("no link", "err", err)
			m.failed(err)
		}
		if m.over() {
			if m.att != nil { // the other side need not wait for its end
				_ = m.send(signaling.Description{Kind: signaling.KindBye, Session: m.att.session})
			}
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
	case !m.probeDue.IsZero():
		return m.probeDue
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
	case m.att == nil && (m.offers() || m.node.timing.bothOffer):
		return m.offer()
	case m.att == nil:
		return m.want()
	case m.att.conn == nil:
		return errNoAnswer
	case !m.probeDue.IsZero():
		return m.probeOver(m.att)
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

// transport takes an event of pion about the current attempt.
func (m *member) transport(e pionEvent) error {
	a := m.att
	switch {
	case e.failed != nil:
		return e.failed
	case e.opened != nil:
		m.open(a, e.opened, e.channel)
	case e.gathered:
		return m.gathered(a, e.candidate)
	case e.pair != nil:
		m.mu.Lock()
		m.path = &PathStatus{e.pair.Local.Typ.String(), e.pair.Remote.Typ.String()}
		m.mu.Unlock()
	case e.ice == webrtc.ICEConnectionStateFailed && a.conn == nil:
		return errNoPath
	case e.ice == webrtc.ICEConnectionStateFailed, e.ice == webrtc.ICEConnectionStateDisconnected:
		return m.restart(a)
	}
	return nil
}

// gathered sends a candidate of ours. One that is not sent may cost a path, but need not.
func (m *member) gathered(a *attempt, c *webrtc.ICECandidate) error {
	a.settled = c == nil
	switch {
	case c != nil && c.Typ == webrtc.ICECandidateTypeRelay:
		a.relays++
		if m.node.cfg.RelayOnly { // it would name the address that the relay was asked from
			c.RelatedAddress, c.RelatedPort = "0.0.0.0", 0
		}
	case c == nil && m.node.cfg.RelayOnly && a.relays == 0:
		return ErrNoRelay
	}
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
	return nil
}

// open makes a conn of the channel and hands it to the loop.
func (m *member) open(a *attempt, raw datachannel.ReadWriteCloser, dc *webrtc.DataChannel) {
	c := &conn{
		peer: m.id, site: a.remoteSite, ownSite: a.ownSite, session: a.session, own: a.local, remote: a.remote,
		ch: &dataChannel{raw, dc}, log: m.log, timing: m.node.timing, relays: m.node.relays,
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
	m.site.Store(&c.site)
	m.ghost.Store(false)
	m.failures = 0
	m.probed, m.probeDue = time.Time{}, time.Time{}
	m.node.linkUp(c) // before its first message
	c.start()
}

// reconsider restarts ICE for a link that was suspect while there was nobody to pass on the offer, and repeats what may be lost.
func (m *member) reconsider() error {
	if m.moved.Swap(false) {
		if err := m.look(); err != nil {
			return err
		}
	}
	if m.again.Swap(false) {
		m.repeat()
	}
	if a := m.att; a != nil && a.conn != nil && (a.conn.silence() >= m.node.timing.suspect || m.unheard(a)) {
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
	anew := m.anew
	m.drop(err)
	wait := m.node.timing.backoff(m.failures)
	if onPurpose(err) {
		wait = m.node.timing.refused
	}
	if anew || !m.offers() && errors.Is(err, errDead) {
		wait = 0 // in the latter case the other side may not have noticed
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

// hurry begins at once what waits for its time, unless the link was ended on purpose.
func (m *member) hurry() {
	m.mu.Lock()
	err := m.err
	m.mu.Unlock()
	if m.att == nil && !onPurpose(err) {
		m.next = time.Now()
	}
}

// drop closes the current attempt, if there is one.
func (m *member) drop(err error) {
	a := m.att
	if a == nil {
		return
	}
	m.att, m.anew = nil, false
	m.endedSession = a.session
	if a.conn != nil {
		a.conn.close(err)
	}
	m.closeAttempt(a)
	if a.conn != nil {
		m.mourn(err)
		m.node.linkDown(a.conn)
	}
	m.mu.Lock()
	m.err, m.path = err, nil
	m.mu.Unlock()
}
