package mesh

import (
	"errors"
	"time"

	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
	"github.com/crmesh/crmesh/pkg/signaling"
)

// maxRepeated bounds what is remembered of an attempt so that it can be sent again.
const maxRepeated = 64

// send passes a description on to the member, and remembers it as long as its attempt may need it again.
func (m *member) send(d signaling.Description) error {
	if a := m.att; a != nil && d.Session == a.session {
		switch {
		case d.Kind == signaling.KindOffer || d.Kind == signaling.KindAnswer:
			a.sent = append(a.sent[:0], d)
		case d.Kind == signaling.KindCandidate && len(a.sent) < maxRepeated:
			a.sent = append(a.sent, d)
		}
	}
	return m.pass(d)
}

// pass hands a description to the signaling server; where that is away, or does not know the member, to other members.
func (m *member) pass(d signaling.Description) error {
	known := m.served()
	err := errNotThere
	if known {
		if err = m.node.signaler.Send(m.id, d); err == nil {
			return nil
		}
	}
	relayErr := m.node.relay(m.id, d)
	if relayErr == nil {
		return nil
	}
	if !known && errors.Is(relayErr, errNoNeighbour) { // then it may know better by now
		err = m.node.signaler.Send(m.id, d)
	}
	if err == nil {
		return nil
	}
	return &signalError{d.Kind, err}
}

// served reports whether the signaling server knows the member, as far as it has told.
func (m *member) served() bool { return time.Now().UnixNano() >= m.unknownUntil.Load() }

// reachable reports whether there is a way for a description to the member.
func (m *member) reachable() bool { return m.node.introduced.Load() || m.node.relayable(m.id) }

// unknown notes that the signaling server could not pass something on to the member. It does not block.
func (m *member) unknown() {
	now := time.Now()
	if before := m.unknownUntil.Swap(now.Add(m.node.timing.unknown).UnixNano()); before < now.UnixNano() {
		m.tryAgain()
	}
}

// known notes that the signaling server knows the member. It does not block.
func (m *member) known() { m.unknownUntil.Store(0) }

// tryAgain says that there is a new way to the member, and that what was sent before may be lost. It does not block.
func (m *member) tryAgain() {
	m.again.Store(true)
	m.poke()
}

// repeat sends again what may have been lost, and begins what could not be begun for want of a way.
func (m *member) repeat() {
	a := m.att
	if a == nil {
		var unsent *signalError
		m.mu.Lock()
		err := m.err
		m.mu.Unlock()
		if errors.As(err, &unsent) || !m.offers() && !onPurpose(err) {
			m.next = time.Now()
		}
		return
	}
	m.sendAgain(a)
}

// sendAgain repeats all that was said of an attempt that is not through.
func (m *member) sendAgain(a *attempt) {
	if a.conn != nil && !a.unanswered && a.restartUntil.IsZero() {
		return
	}
	for _, d := range a.sent {
		if err := m.pass(d); err != nil {
			m.log.Debug("a description was not sent again", "err", err)
			return
		}
	}
}

// mourn decides how long a member that the room no longer lists is tried after its link was lost: it may be cut off from the
// signaling server alone. One that took its leave is not.
func (m *member) mourn(err error) {
	m.mournUntil = time.Time{}
	if !onPurpose(err) {
		m.mournUntil = time.Now().Add(m.node.timing.mourn)
	}
}

// succeeded says that another peer has come as a site. A member that was that site is what is left of a page or program, and
// is not mourned. It does not block.
func (m *member) succeeded(site syncproto.SiteID) {
	if s := m.site.Load(); s != nil && *s == site {
		m.ghost.Store(true)
		m.poke()
	}
}

// onPurpose reports whether err says that one of the two sides wanted the link to end.
func onPurpose(err error) bool {
	var refused *syncproto.Error
	return errors.As(err, &refused) || errors.Is(err, errBye) || errors.Is(err, errByeSignal) || errors.Is(err, errSurplus) ||
		errors.Is(err, errRenewing)
}

// over reports whether there is nothing left to look after: no link is wanted, by us, by the other side, or in mourning.
func (m *member) over() bool {
	switch {
	case m.listed.Load(), m.att != nil && m.att.conn != nil:
		return false
	case m.asked.Load() && (m.att != nil || len(m.signals) > 0 || !m.addressed): // what it asks for may be on its way
		return false
	default:
		return !m.left.Load() || m.ghost.Load() || !time.Now().Before(m.mournUntil) || !m.node.relayable(m.id)
	}
}
