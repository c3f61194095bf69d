package mesh

import (
	"errors"
	"time"

	"github.com/pion/datachannel"
	"github.com/pion/webrtc/v4"

	"github.com/crmesh/crmesh/pkg/signaling"
)

var (
	errNoPath = errors.New("no path to the peer was found (ICE): both sides may be behind networks that let nothing in, " +
		"which takes a TURN server")
	// ErrNoRelay is why no link comes about with Config.RelayOnly where no TURN server gives a relay.
	ErrNoRelay = errors.New("links are made over TURN relays only, and no TURN server gave one: its address, user or password may be " +
		"wrong, or nobody has named one")
	errNoChannel = errors.New("the encrypted connection stands, but its data channel did not open in time (SCTP)")
	errBye       = errors.New("the peer left")
	errSurplus   = errors.New("the link was not needed any more")
)

// signalError says that a description was not sent.
type signalError struct {
	kind signaling.Kind
	err  error
}

func (e *signalError) Error() string {
	return "the " + string(e.kind) + " for the peer could not be sent: " + e.err.Error()
}

func (e *signalError) Unwrap() error { return e.err }

// order is how far along a state is.
var order = map[LinkState]int{LinkSignaling: 1, LinkChecking: 2, LinkSecuring: 3, LinkOpening: 4, LinkOpen: 5}

// reach notes that the current attempt has got as far as state.
func (m *member) reach(state LinkState) {
	m.mu.Lock()
	if order[state] > order[m.reached] {
		m.reached = state
	}
	m.mu.Unlock()
}

// ended notes how far the attempt had got that err ends, and says more about an attempt that came to nothing in time.
func (m *member) ended(err error) error {
	a := m.att
	switch {
	case errors.Is(err, errDTLS):
		m.reach(LinkSecuring)
	case errors.Is(err, errNoAnswer) && a != nil && a.dtls.State() == webrtc.DTLSTransportStateConnected:
		m.reach(LinkOpening)
		return errNoChannel
	case errors.Is(err, errNoAnswer) && m.linkState() == LinkChecking:
		return errNoPath
	case errors.Is(err, errNoAnswer) && m.linkState() == LinkSecuring:
		return errDTLS
	}
	return err
}

// dtlsFailed reports whether a connection that failed has a path: then it was encryption that failed. ICE failing is not the
// end, since a restart may help.
func dtlsFailed(whole webrtc.PeerConnectionState, ice webrtc.ICEConnectionState) bool {
	return whole == webrtc.PeerConnectionStateFailed && ice != webrtc.ICEConnectionStateFailed
}

// show makes the state of the link visible to Status.
func (m *member) show() {
	state := m.linkState()
	m.reach(state)
	m.mu.Lock()
	m.state, m.fails = state, m.failures
	m.mu.Unlock()
}

// coming reports whether the first attempt at a link, or the first after one that was open, has got an answer and goes on.
func (m *member) coming() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.fails == 0 && (m.state == LinkChecking || m.state == LinkSecuring || m.state == LinkOpening)
}

func (m *member) linkState() LinkState {
	a := m.att
	switch {
	case a == nil:
		return LinkWaiting
	case a.conn == nil && !a.described:
		return LinkSignaling
	case a.conn == nil && a.dtls.State() == webrtc.DTLSTransportStateConnected:
		return LinkOpening
	case a.conn == nil:
		switch a.pc.ICEConnectionState() {
		case webrtc.ICEConnectionStateConnected, webrtc.ICEConnectionStateCompleted:
			return LinkSecuring
		default:
			return LinkChecking
		}
	case !a.restartUntil.IsZero():
		return LinkRestarting
	case a.conn.silence() >= m.node.timing.suspect:
		return LinkSuspect
	default:
		return LinkOpen
	}
}

func (c *conn) silence() time.Duration { return c.now() - time.Duration(c.heard.Load()) }

// heardSince reports whether a frame came after t.
func (c *conn) heardSince(t time.Time) bool {
	return c.epoch.Add(time.Duration(c.heard.Load())).After(t)
}

// dataChannel is a detached channel of pion.
type dataChannel struct {
	datachannel.ReadWriteCloser
	dc *webrtc.DataChannel
}

func (d *dataChannel) BufferedAmount() uint64 { return d.dc.BufferedAmount() }

func (d *dataChannel) OnLow(threshold uint64, f func()) {
	d.dc.SetBufferedAmountLowThreshold(threshold)
	d.dc.OnBufferedAmountLow(f)
}
