package mesh

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pion/webrtc/v4"

	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
	"github.com/crmesh/crmesh/pkg/signaling"
)

// maxEarlyCandidates bounds the candidates kept until their description comes.
const maxEarlyCandidates = 128

var (
	errClosed     = errors.New("closed here")
	errDTLS       = errors.New("the encrypted connection could not be made (DTLS)")
	errNoAnswer   = errors.New("no connection came about in time")
	errNewer      = errors.New("the other side began a newer connection")
	errLost       = errors.New("the path was lost and an ICE restart did not bring it back")
	errByeSignal  = errors.New("the other side closed the link")
	errWantsAnew  = errors.New("the other side has lost the connection")
	errBothLite   = errors.New("both ends are ICE-lite, so that neither looks for a path: start one of them without --ice-lite")
	errRestarting = errors.New("the description of an ICE restart is not of the same connection")
)

// offer starts a new session and offers it.
func (m *member) offer() error {
	m.session = max(m.session+1, uint64(time.Now().UnixMilli()))
	a, err := m.newAttempt(m.session)
	if err != nil {
		return err
	}
	a.offered = true
	m.att = a
	return m.sendOffer(a, nil)
}

// sendOffer describes a to the other side, at first or as an ICE restart.
func (m *member) sendOffer(a *attempt, options *webrtc.OfferOptions) error {
	sd, err := a.pc.CreateOffer(options)
	if err != nil {
		return fmt.Errorf("no offer could be made: %w", err)
	}
	if err := m.describe(a, sd); err != nil {
		return err
	}
	a.unanswered = true
	return m.sendDescription(a, signaling.KindOffer, sd.SDP)
}

// describe sets a local description. Candidates are gathered from here on.
func (m *member) describe(a *attempt, sd webrtc.SessionDescription) error {
	fingerprint, err := signaling.Fingerprint(sd.SDP)
	if err != nil {
		return err
	}
	a.local.Fingerprint, a.settled = fingerprint, false
	if err := a.pc.SetLocalDescription(sd); err != nil {
		return fmt.Errorf("our own description was refused: %w", err)
	}
	return nil
}

func (m *member) sendDescription(a *attempt, kind signaling.Kind, sdp string) error {
	d := signaling.Description{Kind: kind, Session: a.session, SDP: sdp, Nonce: a.local.Nonce}
	if a.ownSite == "" { // a restart names the same one
		a.ownSite = *m.node.site.Load()
	}
	copy(d.Site[:], a.ownSite)
	return m.send(d)
}

// handle takes a description from the other side. What it returns ended the current attempt, if there is one.
func (m *member) handle(d signaling.Description) error {
	switch d.Kind {
	case signaling.KindOffer:
		return m.takeOffer(d)
	case signaling.KindAnswer:
		return m.takeAnswer(d)
	case signaling.KindCandidate:
		m.takeCandidate(d)
	case signaling.KindWant:
		m.takeWant(d)
	case signaling.KindBye:
		if m.att != nil && m.att.session == d.Session {
			m.drop(errByeSignal)
		}
	}
	return nil
}

func (m *member) takeOffer(d signaling.Description) error {
	if a := m.att; a != nil && a.described && a.session == d.Session && a.remote.Nonce == d.Nonce {
		if a.pc.RemoteDescription().SDP == d.SDP {
			m.sendAgain(a) // what answered it may be lost, too
			return nil
		}
		return m.takeRestart(a, d)
	}
	if d.Session == m.endedSession {
		// It restarts what is over here: the other side does not know, or would not have to. Once, for what we do then may
		// make it repeat the offer.
		if m.hurriedAfter != d.Session {
			m.hurriedAfter = d.Session
			m.hurry()
		}
		return nil
	}
	if d.Session <= m.offeredSession {
		m.log.Debug("dropped an offer that is over", "session", d.Session)
		return nil
	}
	if m.att != nil && m.att.offered && !m.att.described && m.offers() {
		m.log.Debug("ignored an offer that crossed ours", "session", d.Session)
		m.sendAgain(m.att) // which may be lost
		return nil
	}
	// The old connection goes first: two between the same sockets would take each other's packets.
	m.drop(errNewer)
	m.session, m.offeredSession = max(m.session, d.Session), d.Session
	a, err := m.newAttempt(d.Session)
	if err != nil {
		return err
	}
	m.att = a
	a.early, m.early = m.earlyFor(d.Session), nil
	if err := m.meet(a, d); err != nil {
		if errors.Is(err, errBothLite) { // our description tells the other side
			if err := m.answer(a, d); err != nil {
				m.log.Debug("the other side was not told that both are ICE-lite", "err", err)
			}
		}
		return err
	}
	return m.answer(a, d)
}

// later reports whether err says that there was no way to the other side, for a description which is sent again when there is
// one: what has begun goes on until then.
func (m *member) later(err error) bool {
	var unsent *signalError
	if !errors.As(err, &unsent) {
		return false
	}
	m.log.Debug("a description waits for a way to the member", "err", err)
	return true
}

// takeRestart answers an offer that restarts ICE on the connection that there is.
func (m *member) takeRestart(a *attempt, d signaling.Description) error {
	if a.unanswered {
		if m.offers() {
			m.log.Debug("ignored a restart that crossed ours", "session", d.Session)
			m.sendAgain(a) // which may be lost: then neither would be answered
			return nil
		}
		if err := takeBack(a); err != nil {
			return err
		}
		a.unanswered = false
	}
	if err := sameEnd(a, d); err != nil {
		return err
	}
	m.beginRestart(a)
	return m.answer(a, d)
}

// takeBack undoes an offer of ours that restarts ICE. pion has no rollback; but the description that the other side gave
// before is an answer that changes nothing.
func takeBack(a *attempt) error {
	last := a.pc.CurrentRemoteDescription()
	if err := a.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: last.SDP}); err != nil {
		return fmt.Errorf("our restart could not be taken back: %w", err)
	}
	return nil
}

func (m *member) answer(a *attempt, d signaling.Description) error {
	if err := a.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: d.SDP}); err != nil {
		return fmt.Errorf("the offer was refused: %w", err)
	}
	sd, err := a.pc.CreateAnswer(nil)
	if err != nil {
		return fmt.Errorf("no answer could be made: %w", err)
	}
	if err := m.describe(a, sd); err != nil {
		return err
	}
	if err := m.sendDescription(a, signaling.KindAnswer, sd.SDP); err != nil && !m.later(err) {
		return err
	}
	m.addEarly(a)
	return nil
}

func (m *member) takeAnswer(d signaling.Description) error {
	a := m.att
	if a == nil || a.session != d.Session || !a.unanswered {
		m.log.Debug("dropped an answer that nobody waits for", "session", d.Session)
		return nil
	}
	if a.described {
		if err := sameEnd(a, d); err != nil {
			return err
		}
	} else if err := m.meet(a, d); err != nil {
		return err
	}
	if err := a.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: d.SDP}); err != nil {
		return fmt.Errorf("the answer was refused: %w", err)
	}
	a.unanswered = false
	m.addEarly(a)
	return nil
}

// meet notes who the other end is, from its first description.
func (m *member) meet(a *attempt, d signaling.Description) error {
	fingerprint, err := signaling.Fingerprint(d.SDP)
	if err != nil {
		return err
	}
	a.remote = signaling.End{Fingerprint: fingerprint, Nonce: d.Nonce}
	a.remoteSite = syncproto.SiteID(d.Site[:])
	a.described = true
	if m.node.cfg.ICELite && strings.Contains(d.SDP, "a=ice-lite\r\n") {
		return errBothLite
	}
	return nil
}

// sameEnd refuses a restart by anybody but who the connection was made with: the role proof stands for that one only.
func sameEnd(a *attempt, d signaling.Description) error {
	fingerprint, err := signaling.Fingerprint(d.SDP)
	if err != nil {
		return err
	}
	if fingerprint != a.remote.Fingerprint || d.Nonce != a.remote.Nonce || a.remoteSite != syncproto.SiteID(d.Site[:]) {
		return errRestarting
	}
	return nil
}

func (m *member) takeCandidate(d signaling.Description) {
	if d.Candidate == nil {
		return // pion needs no end of candidates
	}
	init := webrtc.ICECandidateInit{
		Candidate: d.Candidate.Candidate, SDPMid: d.Candidate.SDPMid,
		SDPMLineIndex: d.Candidate.SDPMLineIndex, UsernameFragment: d.Candidate.UsernameFragment,
	}
	a := m.att
	switch {
	case a != nil && a.session == d.Session && describes(a, init):
		m.addCandidate(a, init)
	case a != nil && a.session == d.Session:
		if len(a.early) < maxEarlyCandidates {
			a.early = append(a.early, init)
		}
	case d.Session > m.offeredSession:
		m.keepEarly(d.Session, init)
	}
}

// describes reports whether the description that the candidate goes with is there: any, or where the candidate names its
// user name fragment, the one with it, since a restart changes that.
func describes(a *attempt, init webrtc.ICECandidateInit) bool {
	d := a.pc.RemoteDescription()
	if d == nil || init.UsernameFragment == nil || *init.UsernameFragment == "" {
		return d != nil
	}
	return strings.Contains(d.SDP, "a=ice-ufrag:"+*init.UsernameFragment+"\r\n")
}

// keepEarly keeps a candidate of an offer that has not come yet. Only the newest session is kept.
func (m *member) keepEarly(session uint64, init webrtc.ICECandidateInit) {
	if m.early == nil || session > m.early.session {
		m.early = &earlyCandidates{session: session}
	}
	if session == m.early.session && len(m.early.list) < maxEarlyCandidates {
		m.early.list = append(m.early.list, init)
	}
}

type earlyCandidates struct {
	session uint64
	list    []webrtc.ICECandidateInit
}

func (m *member) earlyFor(session uint64) []webrtc.ICECandidateInit {
	if m.early == nil || m.early.session != session {
		return nil
	}
	return m.early.list
}

func (m *member) addEarly(a *attempt) {
	for _, init := range a.early {
		m.addCandidate(a, init)
	}
	a.early = nil
}

// addCandidate hands a candidate to ICE. One that is not understood costs nothing but itself.
func (m *member) addCandidate(a *attempt, init webrtc.ICECandidateInit) {
	if err := a.pc.AddICECandidate(init); err != nil {
		m.log.Debug("a candidate was not usable", "err", err)
	}
}

// takeWant offers when the other side asks for it and there is reason to.
func (m *member) takeWant(d signaling.Description) {
	if !m.offers() {
		return
	}
	a := m.att
	if a != nil {
		if !a.described {
			m.sendAgain(a) // it has none of ours: the offer may be lost, or come twice, which does no harm
			return
		}
		if d.Session <= a.session {
			return // it may have asked before it saw our offer
		}
		m.drop(errWantsAnew)
	}
	m.session = max(m.session, d.Session)
	m.next = time.Now()
}

// restart asks ICE for a new path on the connection that there is. It does nothing when that goes on already. Nor does it
// while nobody could pass the offer on: a restart gives up the old path at once, and that one may yet come back.
func (m *member) restart(a *attempt) error {
	if a.conn == nil || a.unanswered || !a.restartUntil.IsZero() || !m.reachable() {
		return nil
	}
	m.log.Info("the path to the peer is in doubt; restarting ICE")
	return m.startRestart(a)
}

func (m *member) startRestart(a *attempt) error {
	m.beginRestart(a)
	if err := m.sendOffer(a, &webrtc.OfferOptions{ICERestart: true}); err != nil && !m.later(err) {
		return err
	}
	return nil
}

// beginRestart has candidates gathered anew, at the servers that are known now: credentials of the old ones may be over.
func (m *member) beginRestart(a *attempt) {
	// pion reads its list while it gathers, without a lock.
	if s := m.node.servers.Load(); s != a.servers && a.settled && a.pc.ICEGatheringState() == webrtc.ICEGatheringStateComplete {
		a.servers = s
		if err := a.pc.SetConfiguration(m.node.configuration()); err != nil {
			m.log.Warn("the restart uses the ICE servers that the link began with", "err", err)
		}
	}
	a.restarted = time.Now()
	a.restartUntil = a.restarted.Add(m.node.timing.restart)
}
