package main

import (
	"fmt"
	"net/netip"

	"github.com/crmesh/crmesh/pkg/mesh"
	"github.com/crmesh/crmesh/pkg/signaling"
)

// portFlags say how a replica is reached by the others. docs/FIREWALLS.md explains them.
type portFlags struct {
	UDPPort    int      `name:"udp-port" placeholder:"N" help:"One UDP port for all links, to be opened in a firewall. By default each link has ports of its own."`
	TCPPort    int      `name:"tcp-port" placeholder:"N" help:"A TCP port for links to members whose UDP packets do not get through."`
	NAT1To1    []string `name:"nat-1to1" placeholder:"IP" sep:"," help:"Addresses from which a router passes the ports on to this machine unchanged; announced beside its own."`
	ICEServers []string `name:"ice-server" placeholder:"URL" sep:" " help:"A STUN or TURN server, besides those of the signaling server: stun:HOST:PORT or turn:USER:PASSWORD@HOST:PORT. Repeat the flag for more; in the environment, where other users do not see the password, separate them with blanks."`
	RelayOnly  bool     `name:"relay-only" help:"Make links over TURN relays only, so that members learn no address of this machine. It takes a TURN server, from the signaling server or --ice-server."`
	ICELite    bool     `name:"ice-lite" help:"Answer checks and send none, on a machine that everybody can reach. Two such peers cannot be linked with each other."`
}

// network is what portFlags.parse has read.
type network struct {
	outer   []netip.Addr
	servers []signaling.ICEServer
}

// parse checks the flags, so that a wrong one ends the program before the database is touched.
func (f *portFlags) parse() (network, error) {
	var n network
	for _, port := range []struct {
		flag string
		port int
	}{{"--udp-port", f.UDPPort}, {"--tcp-port", f.TCPPort}} {
		if port.port < 0 || port.port > 65535 {
			return n, fmt.Errorf("%s %d is no port: name one from 1 to 65535", port.flag, port.port)
		}
	}
	for _, s := range f.NAT1To1 {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return n, fmt.Errorf("--nat-1to1: %q is no IP address, like 203.0.113.7", s)
		}
		n.outer = append(n.outer, a)
	}
	for _, s := range f.ICEServers {
		server, err := mesh.ParseICEServer(s)
		if err != nil {
			return n, fmt.Errorf("--ice-server: %w", err)
		}
		n.servers = append(n.servers, server)
	}
	return n, nil
}
