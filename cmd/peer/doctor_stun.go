package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/pion/stun/v4"
	"github.com/pion/transport/v5"
)

// mapped is how one STUN server saw a socket of ours.
type mapped struct {
	server netip.AddrPort
	self   netip.AddrPort // our socket, from outside
}

var errNoSTUN = errors.New("no answer")

// stun asks all STUN servers from one socket for each family, and compares what they saw.
func (d *doctor) stun(ctx context.Context, n transport.Net) {
	addrs, unknown := d.stunAddresses(n)
	for _, u := range unknown {
		d.bad("stun", "look for a mistake in the name, or name another server with --ice-server", "the STUN server %s has no address", u)
	}
	if len(addrs) == 0 {
		switch {
		case len(unknown) > 0:
		case d.unjoined:
			d.bad("nat", "see the findings about the server above, or name a STUN server with --ice-server",
				"the NAT type is unknown: the signaling server, which would name a STUN server, could not be asked")
		default:
			d.bad("nat", "switch the signaling server's STUN on, or name one with --ice-server",
				"the NAT type is unknown: there is no STUN server to ask")
		}
		return
	}
	for _, network := range []string{"udp4", "udp6"} {
		family := slices.DeleteFunc(slices.Clone(addrs), func(a netip.AddrPort) bool { return a.Addr().Is4() != (network == "udp4") })
		if len(family) > 0 {
			d.stunFamily(ctx, n, network, family)
		}
	}
}

func (d *doctor) stunFamily(ctx context.Context, n transport.Net, network string, servers []netip.AddrPort) {
	socket, err := n.ListenUDP(network, &net.UDPAddr{})
	if err != nil {
		d.bad("stun", "see whether this machine may use UDP", "no UDP socket: %v", err)
		return
	}
	defer func() { _ = socket.Close() }()
	var seen []mapped
	for _, server := range servers {
		if ctx.Err() != nil {
			return
		}
		d.doing("asking the STUN server " + server.String())
		self, err := askSTUN(socket, server, d.stunTimeout)
		if err != nil {
			d.bad("stun", "open UDP to this address in the firewalls on the way, or name another server with --ice-server",
				"the STUN server %s gives no answer: %v", server, err)
			continue
		}
		d.good("stun", "%s sees this machine as %s", server, self)
		seen = append(seen, mapped{server, self})
	}
	if len(seen) > 0 {
		d.add(natFinding(n, seen))
	}
}

// natFinding tells how the router between us and the servers chooses outer ports.
func natFinding(n transport.Net, seen []mapped) finding {
	f := finding{Check: "nat", OK: true}
	own := isOwn(n, seen[0].self.Addr())
	for _, m := range seen[1:] {
		if m.self != seen[0].self {
			f.OK = false
			f.Found = "the router takes another outer port for each destination (symmetric NAT): links to members behind such routers fail"
			f.Advice = "set up a TURN server, or let one replica be reachable in the open, over which the others sync"
			return f
		}
	}
	switch {
	case own:
		f.Found = "there is no NAT between this machine and the STUN server"
	case len(seen) == 1:
		f.Found = "there is a NAT; its type is unknown, as only one STUN server answered"
	default:
		f.Found = "the router keeps one outer port for all destinations (cone NAT): direct links work with most others"
	}
	return f
}

// isOwn reports whether an interface of this machine has the address.
func isOwn(n transport.Net, a netip.Addr) bool {
	interfaces, err := n.Interfaces()
	if err != nil {
		return false
	}
	for _, i := range interfaces {
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, x := range addrs {
			if p, err := netip.ParsePrefix(x.String()); err == nil && p.Addr().Unmap() == a {
				return true
			}
		}
	}
	return false
}

// askSTUN sends binding requests until one is answered.
func askSTUN(socket transport.UDPConn, server netip.AddrPort, timeout time.Duration) (netip.AddrPort, error) {
	request, err := stun.Build(stun.TransactionID, stun.BindingRequest)
	if err != nil {
		return netip.AddrPort{}, err
	}
	buf := make([]byte, 1500)
	for end := time.Now().Add(timeout); time.Now().Before(end); {
		if _, err := socket.WriteTo(request.Raw, net.UDPAddrFromAddrPort(server)); err != nil {
			return netip.AddrPort{}, err
		}
		next := time.Now().Add(min(stunRepeat, time.Until(end)))
		for {
			if err := socket.SetReadDeadline(next); err != nil {
				return netip.AddrPort{}, err
			}
			n, _, err := socket.ReadFrom(buf)
			var late net.Error
			if errors.As(err, &late) && late.Timeout() {
				break
			}
			if err != nil {
				return netip.AddrPort{}, err
			}
			answer := &stun.Message{Raw: slices.Clone(buf[:n])}
			var self stun.XORMappedAddress
			if answer.Decode() != nil || answer.TransactionID != request.TransactionID || self.GetFrom(answer) != nil {
				continue // not for us
			}
			ip, ok := netip.AddrFromSlice(self.IP)
			if !ok {
				continue
			}
			return netip.AddrPortFrom(ip.Unmap(), uint16(self.Port)), nil
		}
	}
	return netip.AddrPort{}, fmt.Errorf("%w within %s", errNoSTUN, timeout)
}

// stunAddresses lists the addresses of the STUN servers, at most maxMapped, and the servers without one.
func (d *doctor) stunAddresses(n transport.Net) (addrs []netip.AddrPort, unknown []string) {
	for _, s := range d.servers {
		for _, address := range s.URLs {
			u, err := stun.ParseURI(address)
			if err != nil || u.Scheme != stun.SchemeTypeSTUN || u.Proto != stun.ProtoTypeUDP {
				continue
			}
			found := false
			for _, network := range []string{"udp4", "udp6"} {
				a, err := n.ResolveUDPAddr(network, net.JoinHostPort(u.Host, fmt.Sprint(u.Port)))
				if err != nil {
					continue
				}
				found = true
				ap := netip.AddrPortFrom(a.AddrPort().Addr().Unmap(), a.AddrPort().Port())
				if !slices.Contains(addrs, ap) && len(addrs) < maxMapped {
					addrs = append(addrs, ap)
				}
			}
			if !found {
				unknown = append(unknown, u.Host)
			}
		}
	}
	return addrs, unknown
}
