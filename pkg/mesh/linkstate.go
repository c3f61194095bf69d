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
	errBye = errors.New("the peer left")
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

// show makes the state of the link visible to Status.
func (m *member) show() {
	state := m.linkState()
	m.mu.Lock()
	m.state = state
	m.mu.Unlock()
}

func (m *member) linkState() LinkState {
	a := m.att
	switch {
	case a == nil:
		return LinkWaiting
	case a.conn == nil && !a.described:
		return LinkSignaling
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
