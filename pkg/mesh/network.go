package mesh

import (
	"errors"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/pion/transport/v5"
	"github.com/pion/transport/v5/stdnet"
	"github.com/pion/webrtc/v4"

	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
)

const (
	// WatchEvery is how often the Node looks at the addresses of the machine and at its clock.
	WatchEvery = 500 * time.Millisecond
	// watchShare bounds what that costs: at most one part in watchShare of the time of one core.
	watchShare = 100
	// ClockJump is how much later than expected the Node has to find the clock to take it that the machine was asleep.
	ClockJump = 3 * time.Second
	// ProbeTimeout is how long a link may stay silent after a change of the network until its ICE is restarted.
	ProbeTimeout = time.Second
)

var errMoved = errors.New("the network changed before the connection came about")

// watchNetwork tells the loop when the machine's addresses changed, or it was asleep. It ends with the Node.
func (n *Node) watchNetwork() {
	addresses := n.addresses()
	last := n.timing.wall()
	pause := n.timing.watch
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-n.ctx.Done():
			return
		}
		began := time.Now()
		now, wall := n.addresses(), n.timing.wall()
		slept := wall.Sub(last) > pause+ClockJump
		if slept || !slices.Equal(now, addresses) {
			n.log.Info("the network may have changed", "addresses", strings.Join(now, " "), "slept", slept)
			n.post(linkEvent{network: &network{now, began}}, nil)
			n.ports.follow(n.log)
		}
		addresses, last = now, wall
		pause = max(n.timing.watch, watchShare*time.Since(began))
		timer.Reset(pause)
	}
}

// network is what the machine's network is now.
type network struct {
	addresses []string
	noticed   time.Time
}

// addresses lists those of the machine by which other machines reach it, in order; none if that fails.
func (n *Node) addresses() []string {
	var out []string
	if own, err := currentNet(n.cfg.Net); err == nil {
		ips, _ := localIPs(own)
		for _, ip := range ips {
			if !ip.IsLoopback() { // it is all that is left when the last interface goes down
				out = append(out, ip.String())
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// currentNet returns the network that a Config names, or that of the machine as it is now: an existing one never looks again.
func currentNet(n transport.Net) (transport.Net, error) {
	if n != nil {
		return n, nil
	}
	return stdnet.NewNet()
}

// networkChanged has everything looked at that may have ended without a word.
func (l *loop) networkChanged(now *network) {
	if len(now.addresses) == 0 {
		return // nobody can be reached now; there will be another change
	}
	l.node.network.Store(now)
	l.node.signaler.Check()
	for _, m := range l.members {
		m.moved.Store(true)
		m.poke()
	}
}

// look finds out whether the link outlived a change of the network, and begins at once what waits for its time.
func (m *member) look() error {
	a := m.att
	switch {
	case a == nil:
		m.failures = 0
		m.hurry()
	case a.conn == nil && a.described && !a.unanswered:
		return m.startRestart(a) // what we announced may be gone, and what is new is not announced
	case a.conn == nil:
		m.drop(errMoved)
		m.next = time.Now()
	case m.restarting(a) && a.restarted.After(m.node.network.Load().noticed):
		// ICE was faster.
	case a.unanswered:
		return errLost // a restart that went into the old network, and has given up the old path
	case m.gone(a) && !m.restarting(a):
		m.probed = time.Now()
		return m.restart(a)
	default:
		m.probed = time.Now()
		m.probeDue = m.probed.Add(m.node.timing.probe)
		a.conn.probe()
	}
	return nil
}

func (m *member) restarting(a *attempt) bool { return a.unanswered || !a.restartUntil.IsZero() }

// gone reports whether the address of ours that the link uses is no more.
func (m *member) gone(a *attempt) bool {
	now := m.node.network.Load()
	pair, err := a.ice.GetSelectedCandidatePair()
	if err != nil || pair == nil {
		return false
	}
	address := pair.Local.Address
	if pair.Local.Typ != webrtc.ICECandidateTypeHost {
		address = pair.Local.RelatedAddress
	}
	ip := net.ParseIP(address)
	if ip == nil || ip.IsLoopback() {
		return false
	}
	for _, outer := range m.node.cfg.NAT1To1 {
		if outer.Unmap().String() == ip.String() {
			return false
		}
	}
	return !slices.Contains(now.addresses, ip.String())
}

// unheard reports whether nothing came since the link was probed, though there was time for it.
func (m *member) unheard(a *attempt) bool {
	return !m.probed.IsZero() && m.probeDue.IsZero() && !a.conn.heardSince(m.probed)
}

// probeOver restarts ICE for a link that did not answer. A restart that began before the network changed is of no use.
func (m *member) probeOver(a *attempt) error {
	m.probeDue = time.Time{}
	switch {
	case a.conn.heardSince(m.probed):
		return nil
	case m.restarting(a):
		if a.restarted.Before(m.node.network.Load().noticed) {
			return errLost
		}
		return nil
	}
	return m.restart(a)
}

// probe pings at once.
func (c *conn) probe() { c.sendControl(syncproto.AppendPing(nil, c.pingToken())) }
