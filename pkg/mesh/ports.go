package mesh

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"

	"github.com/pion/ice/v4"
	"github.com/pion/transport/v5"

	"github.com/crmesh/crmesh/pkg/signaling"
)

// Bounds of what is asked for in Config.
const (
	// MaxICEServers bounds Config.ICEServers.
	MaxICEServers = 16
	// MaxNAT1To1 bounds Config.NAT1To1.
	MaxNAT1To1 = 16
)

// checkPorts looks at the fields of c that say how the Node is reached.
func (c *Config) checkPorts() error {
	for _, p := range []struct {
		name string
		port int
	}{{"UDP", c.UDPPort}, {"TCP", c.TCPPort}} {
		if p.port < 0 || p.port > 65535 {
			return fmt.Errorf("the %s port %d is none: name one from 1 to 65535", p.name, p.port)
		}
	}
	if len(c.NAT1To1) > MaxNAT1To1 {
		return fmt.Errorf("%d outer addresses are too many: name at most %d", len(c.NAT1To1), MaxNAT1To1)
	}
	for _, a := range c.NAT1To1 {
		if !a.IsValid() || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() || a.IsLinkLocalUnicast() {
			return fmt.Errorf("the outer address %q is none that others can reach", a)
		}
	}
	if len(c.ICEServers) > MaxICEServers {
		return fmt.Errorf("%d ICE servers are too many: name at most %d", len(c.ICEServers), MaxICEServers)
	}
	for _, s := range c.ICEServers {
		if err := checkICEServer(s); err != nil {
			return err
		}
	}
	if c.ICELite && len(c.ICEServers) > 0 {
		return errors.New("an ICE-lite peer is reached at its own addresses and asks no ICE servers: leave one of the two out")
	}
	if c.RelayOnly && (c.ICELite || c.UDPPort != 0 || c.TCPPort != 0 || len(c.NAT1To1) > 0) {
		return errors.New("a peer that is linked over TURN relays only is not reached at ports or addresses of its own, " +
			"and cannot be ICE-lite: leave one of the two out")
	}
	return nil
}

// PortStatus says which ports are bound for all links together. Both lists are empty where each link has sockets of its own.
type PortStatus struct {
	UDP []string `json:"udp"` // host:port, one for each address of the machine
	TCP []string `json:"tcp"` // likewise; one entry without a host stands for all addresses
}

// ports are the sockets that all connections of a Node share. nil muxes: each connection has its own.
type ports struct {
	udp *udpPort
	tcp *tcpPort
}

// openPorts binds what the config asks for.
func openPorts(c *Config) (*ports, error) {
	p := &ports{}
	logger := pionLogs{c.Logger}.NewLogger("mux")
	if c.UDPPort != 0 {
		udp, err := openUDPPort(c.Net, c.UDPPort, logger)
		if err != nil {
			return nil, err
		}
		p.udp = udp
	}
	if c.TCPPort != 0 {
		tcp, err := openTCPPort(c.Net, c.TCPPort, logger)
		if err != nil {
			return nil, errors.Join(err, p.close())
		}
		p.tcp = tcp
	}
	return p, nil
}

// close closes the sockets. No connection uses them any more.
func (p *ports) close() error {
	var errs []error
	if p.udp != nil {
		errs = append(errs, p.udp.Close())
	}
	if p.tcp != nil {
		errs = append(errs, p.tcp.mux.Close())
	}
	return errors.Join(errs...)
}

// follow binds the UDP port at the addresses that the machine has now.
func (p *ports) follow(log *slog.Logger) {
	if p.udp == nil {
		return
	}
	if err := p.udp.refresh(); err != nil {
		log.Warn("the UDP port is not bound at every address", "port", p.udp.port, "err", err)
	}
}

func (p *ports) status() PortStatus {
	s := PortStatus{UDP: []string{}, TCP: []string{}}
	if p.udp != nil {
		for _, a := range p.udp.bound() {
			s.UDP = append(s.UDP, a.String())
		}
	}
	if p.tcp != nil {
		s.TCP = append(s.TCP, p.tcp.address())
	}
	return s
}

// udpMux returns the mux for pion: a nil interface where there is none.
func (p *ports) udpMux() ice.UDPMux {
	if p.udp == nil {
		return nil
	}
	return p.udp
}

func (p *ports) tcpMux() ice.TCPMux {
	if p.tcp == nil {
		return nil
	}
	return p.tcp.mux
}

// usable reports whether a machine can be reached at the address. Link-local ones are announced to nobody, and loopback
// ones only where there is nothing else.
func usable(ip net.IP, loopback bool) bool {
	return ip != nil && !ip.IsLinkLocalUnicast() && !ip.IsMulticast() && (loopback || !ip.IsLoopback())
}

// localIPs lists the addresses of the network that a port is bound at.
func localIPs(n transport.Net) ([]net.IP, error) {
	interfaces, err := n.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("the network interfaces cannot be listed: %w", err)
	}
	loopback := onlyLoopback(n)
	var out []net.IP
	for _, i := range interfaces {
		addrs, err := i.Addrs()
		if err != nil || i.Flags&net.FlagUp == 0 {
			continue
		}
		for _, a := range addrs {
			if ipnet, ok := a.(*net.IPNet); ok && usable(ipnet.IP, loopback) {
				out = append(out, ipnet.IP)
			}
		}
	}
	return out, nil
}

// ownServers returns the ICE servers that the Node uses when the signaling server names list: its own first.
func (n *Node) ownServers(list []signaling.ICEServer) []signaling.ICEServer {
	if n.cfg.ICELite {
		return nil
	}
	all := append(append([]signaling.ICEServer(nil), n.cfg.ICEServers...), list...)
	if n.cfg.UDPPort == 0 || len(n.cfg.NAT1To1) == 0 {
		return all
	}
	// What STUN would tell is known, and asking takes sockets beside the one port.
	var turn []signaling.ICEServer
	for _, s := range all {
		s.URLs = slices.DeleteFunc(slices.Clone(s.URLs), func(u string) bool { return strings.HasPrefix(u, "stun") })
		if len(s.URLs) > 0 {
			turn = append(turn, s)
		}
	}
	return turn
}
