package mesh

import (
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/pion/datachannel"
	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/transport/v5"
	"github.com/pion/transport/v5/stdnet"
	"github.com/pion/webrtc/v4"

	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
	"github.com/crmesh/crmesh/pkg/signaling"
)

const (
	channelLabel    = "crmesh"
	channelProtocol = "crmesh.sync.1"

	// socketBuffer is asked of the kernel for each UDP socket, in bytes. The default makes SCTP see losses on a fast
	// path; far more would let a bulk transfer delay everything behind it.
	socketBuffer = 1 << 20
	// receiveBuffer bounds what SCTP holds for us before we read it, in bytes.
	receiveBuffer = 1 << 20
	// retransmit bounds the pause before SCTP sends again what got no answer. pion doubles it up to a minute: a path that
	// comes back would stay unused for about as long as it was away.
	retransmit = 2 * time.Second

	// acceptance waits: how long ICE hopes for a better pair of candidates. Host pairs are taken at once.
	reflexiveWait = 200 * time.Millisecond
	relayWait     = time.Second
)

// networkTypes are those of candidates. pion's own default leaves TCP out: the port of a member that takes links over TCP is then
// never dialed, and a TURN server behind TCP never asked.
var networkTypes = []webrtc.NetworkType{
	webrtc.NetworkTypeUDP4, webrtc.NetworkTypeUDP6, webrtc.NetworkTypeTCP4, webrtc.NetworkTypeTCP6,
}

// attempt is one PeerConnection: one session with one member. Its fields belong to the goroutine of the member.
type attempt struct {
	session uint64
	started time.Time
	pc      *webrtc.PeerConnection
	dtls    *webrtc.DTLSTransport // of pc, like ice: asking for them there waits for SCTP to end, which may be never
	ice     *webrtc.ICETransport
	offered bool // the first offer was ours

	local, remote signaling.End
	ownSite       syncproto.SiteID // as we named it; empty: not yet
	remoteSite    syncproto.SiteID
	described     bool // remote and remoteSite are set: the first remote description is in

	unanswered   bool      // an offer of ours is in flight
	restartUntil time.Time // zero: no ICE restart goes on
	restarted    time.Time // when it began
	early        []webrtc.ICECandidateInit
	sent         []signaling.Description // the last one of ours, and its candidates, at most maxRepeated

	servers *[]webrtc.ICEServer // of the node, when candidates were last gathered
	settled bool                // all candidates are gathered: pion may be given other servers
	relays  int                 // candidates of ours that are relays
	conn    *conn               // nil until the channel is open
	done    chan struct{}       // closed when the attempt ends, so that no callback of pion waits for the member, nor ICE for the network
}

// pionEvent is what a callback of pion tells the member. One of the fields after att is set.
type pionEvent struct {
	att       *attempt
	candidate *webrtc.ICECandidate     // with gathered
	gathered  bool                     // a candidate, or the end of them (nil)
	pair      *webrtc.ICECandidatePair // the path that is used from now on
	ice       webrtc.ICEConnectionState
	opened    datachannel.ReadWriteCloser
	channel   *webrtc.DataChannel // with opened
	failed    error
}

// newAttempt makes a PeerConnection with its channel. It opens no socket yet.
func (m *member) newAttempt(session uint64) (*attempt, error) {
	done := make(chan struct{})
	api, err := newAPI(&m.node.cfg, m.node.ports, m.node.timing, m.log, done)
	if err != nil {
		return nil, err
	}
	servers := m.node.servers.Load()
	config := m.node.configuration()
	config.Certificates = []webrtc.Certificate{m.node.certificate}
	pc, err := api.NewPeerConnection(config)
	if err != nil && len(config.ICEServers) > 0 {
		m.log.Warn("the signaling server named ICE servers that cannot be used; going on without", "err", err)
		config.ICEServers = iceServersOf(m.node.ownServers(nil))
		pc, err = api.NewPeerConnection(config)
	}
	if err != nil {
		return nil, fmt.Errorf("no connection could be made: %w", err)
	}
	m.node.connections.Add(1)
	m.mu.Lock()
	m.reached = LinkSignaling
	m.mu.Unlock()
	dtls := pc.SCTP().Transport()
	a := &attempt{session: session, started: time.Now(), pc: pc, dtls: dtls, ice: dtls.ICETransport(), servers: servers, done: done}
	a.local.Nonce = m.node.nonce()
	if err := m.watch(a); err != nil {
		m.closeAttempt(a)
		return nil, err
	}
	return a, nil
}

// configuration is what candidates are gathered with from now on.
func (n *Node) configuration() webrtc.Configuration {
	c := webrtc.Configuration{ICEServers: n.iceServers()}
	if n.cfg.RelayOnly {
		c.ICETransportPolicy = webrtc.ICETransportPolicyRelay
	}
	return c
}

// watch makes the channel and turns pion's callbacks into events of the member.
func (m *member) watch(a *attempt) error {
	negotiated, ordered, id, protocol := true, true, uint16(0), channelProtocol
	dc, err := a.pc.CreateDataChannel(channelLabel, &webrtc.DataChannelInit{
		Negotiated: &negotiated, Ordered: &ordered, ID: &id, Protocol: &protocol,
	})
	if err != nil {
		return fmt.Errorf("no data channel could be made: %w", err)
	}
	post := func(e pionEvent) {
		e.att = a
		select {
		case m.pion <- e:
		case <-a.done:
		}
	}
	dc.OnOpen(func() {
		raw, err := dc.Detach()
		post(pionEvent{opened: raw, channel: dc, failed: err})
	})
	a.pc.OnICECandidate(func(c *webrtc.ICECandidate) { post(pionEvent{gathered: true, candidate: c}) })
	a.pc.OnICEConnectionStateChange(func(s webrtc.ICEConnectionState) { post(pionEvent{ice: s}) })
	a.ice.OnSelectedCandidatePairChange(func(p *webrtc.ICECandidatePair) { post(pionEvent{pair: p}) })
	a.pc.OnConnectionStateChange(func(s webrtc.PeerConnectionState) {
		switch {
		case dtlsFailed(s, a.pc.ICEConnectionState()):
			post(pionEvent{failed: errDTLS})
		case s == webrtc.PeerConnectionStateConnected:
			post(pionEvent{}) // for those who look at how far the link is
		}
	})
	return nil
}

// closeTimeout bounds how long the end of a connection is waited for. It takes milliseconds, and some 100 of them where the
// other side is gone. But SCTP can wait for itself for good: when a write fails because the other side has closed, while it
// still reads a repeated COOKIE-ECHO, the association counts as closed and waits for somebody to take its handshake (seen with
// pion/sctp 1.12 where 2,000 connections share two cores). Then the connection is left behind, with its memory but without
// its sockets, rather than the member.
const closeTimeout = 5 * time.Second

// closeAttempt ends the channel and the PeerConnection and waits until nothing of them runs, or timing.close is over.
func (m *member) closeAttempt(a *attempt) {
	close(a.done)
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		if a.conn != nil {
			a.conn.close(errClosed)
		}
		if err := a.pc.GracefulClose(); err != nil {
			m.log.Debug("closing a connection", "err", err)
		}
		if a.conn != nil {
			a.conn.wait()
		}
	}()
	timeout := time.NewTimer(m.node.timing.close)
	defer timeout.Stop()
	select {
	case <-closed:
	case <-timeout.C:
		m.log.Error("a connection does not end, and is left behind; please report this", "after", m.node.timing.close)
		go func() { _ = a.ice.Stop() }() // the next one may need its place at a shared port
	}
	m.node.connections.Add(-1)
}

// newAPI prepares pion for one connection, which ends when done is closed.
func newAPI(cfg *Config, p *ports, t timing, log *slog.Logger, done <-chan struct{}) (*webrtc.API, error) {
	n := cfg.Net
	s := webrtc.SettingEngine{LoggerFactory: pionLogs{log}}
	if n == nil {
		std, err := stdnet.NewNet()
		if err != nil {
			return nil, fmt.Errorf("the network interfaces cannot be listed: %w", err)
		}
		n = machineNet{std}
	}
	s.SetIncludeLoopbackCandidate(onlyLoopback(n))
	s.SetNet(attemptNet{n, done})
	s.DetachDataChannels()
	s.SetSCTPMaxMessageSize(syncproto.MaxFrameAccepted)
	s.SetSCTPMaxReceiveBufferSize(receiveBuffer)
	s.SetSCTPRTOMax(retransmit)
	// Names ending in .local are not looked up: a query of the local network can take for ever, and the checks that come
	// from the other side tell its address anyway.
	s.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	s.SetHostAcceptanceMinWait(0)
	s.SetSrflxAcceptanceMinWait(reflexiveWait)
	s.SetPrflxAcceptanceMinWait(reflexiveWait)
	if cfg.RelayOnly {
		s.SetRelayAcceptanceMinWait(0) // there will be nothing better
	} else {
		s.SetRelayAcceptanceMinWait(relayWait)
	}
	s.SetICETimeouts(t.path, DeadAfter, PingAfter)
	s.SetNetworkTypes(networkTypes)
	s.SetLite(cfg.ICELite)
	if mux := p.udpMux(); mux != nil {
		s.SetICEUDPMux(mux)
	}
	if mux := p.tcpMux(); mux != nil {
		s.SetICETCPMux(mux)
	}
	if len(cfg.NAT1To1) > 0 {
		rule := webrtc.ICEAddressRewriteRule{AsCandidateType: webrtc.ICECandidateTypeHost, Mode: webrtc.ICEAddressRewriteAppend}
		for _, a := range cfg.NAT1To1 {
			rule.External = append(rule.External, a.Unmap().String())
		}
		if err := s.SetICEAddressRewriteRules(rule); err != nil {
			return nil, fmt.Errorf("the outer addresses cannot be used: %w", err)
		}
	}
	// No media: without these, pion starts a goroutine for its reports with each connection.
	return webrtc.NewAPI(webrtc.WithSettingEngine(s), webrtc.WithMediaEngine(&webrtc.MediaEngine{}),
		webrtc.WithInterceptorRegistry(&interceptor.Registry{})), nil
}

// onlyLoopback reports whether the machine has no other interface to reach anybody by. Then peers on the same machine
// are the only ones there can be, and they need its candidates.
func onlyLoopback(n transport.Net) bool {
	interfaces, err := n.Interfaces()
	if err != nil {
		return true
	}
	for _, i := range interfaces {
		if i.Flags&net.FlagLoopback != 0 || i.Flags&net.FlagUp == 0 {
			continue
		}
		if addrs, err := i.Addrs(); err == nil && len(addrs) > 0 {
			return false
		}
	}
	return true
}

// machineNet is the network of the machine with larger socket buffers, and with the interfaces that it has when it is asked.
type machineNet struct{ transport.Net }

func (b machineNet) Interfaces() ([]*transport.Interface, error) {
	now, err := stdnet.NewNet()
	if err != nil {
		return nil, err
	}
	return now.Interfaces()
}

func (b machineNet) ListenUDP(network string, local *net.UDPAddr) (transport.UDPConn, error) {
	c, err := b.Net.ListenUDP(network, local)
	if err != nil {
		return nil, err
	}
	// The kernel gives what it allows; less than asked is no error.
	_ = c.SetReadBuffer(socketBuffer)
	_ = c.SetWriteBuffer(socketBuffer)
	return c, nil
}
