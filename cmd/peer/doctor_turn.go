package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/pion/logging"
	"github.com/pion/stun/v4"
	"github.com/pion/transport/v5"
	"github.com/pion/turn/v5"

	"github.com/crmesh/crmesh/pkg/signaling"
)

// turn asks each TURN server for a relay, as a link does, and gives it back. d.servers begins with the servers named here, so many.
func (d *doctor) turn(ctx context.Context, n transport.Net, named int) {
	asked := 0
	for i, s := range d.servers {
		for _, address := range s.URLs {
			if !strings.HasPrefix(address, "turn") || ctx.Err() != nil || asked == maxRelays {
				continue
			}
			asked++
			d.doing("asking the TURN server " + address)
			relay, err := d.relay(ctx, n, address, s)
			if err == nil {
				d.good("turn", "%s gives the relay %s", address, relay)
				continue
			}
			d.bad("turn", turnAdvice(err, i < named), "%s gives no relay: %v", address, err)
		}
	}
	if asked == 0 && d.relayOnly {
		d.bad("turn", "name a TURN server with --ice-server, or ask the operator of the signaling server for one",
			"there is no TURN server, and links are to be made over relays only")
	}
}

// turnAdvice is what a person can do where a TURN server gives no relay; named: with an address and a password of theirs.
func turnAdvice(err error, named bool) string {
	var refused *stun.TurnError
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.As(err, &certificate):
		return "tell the operator of the TURN server: its certificate has to be for the name that its address has, and signed by an authority that this " +
			"machine trusts; a root of one's own is named in SSL_CERT_FILE"
	case !errors.As(err, &refused):
		return "see whether the TURN server runs there, and open its port in the firewalls on the way"
	case refused.ErrorCodeAttr.Code == stun.CodeUnauthorized && named:
		return "look for a mistake in user and password of --ice-server"
	case refused.ErrorCodeAttr.Code == stun.CodeUnauthorized:
		return "tell the operator of the signaling server: its --turn-secret has to be the secret of the TURN server (coturn: static-auth-secret), " +
			"and both machines have to have the right time"
	default:
		return "tell the operator of the TURN server; its log says more"
	}
}

// relay returns the address of a relay that the server gave.
func (d *doctor) relay(ctx context.Context, n transport.Net, address string, s signaling.ICEServer) (net.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, d.stunTimeout)
	defer cancel()
	u, err := stun.ParseURI(address)
	if err != nil {
		return nil, err
	}
	conn, server, err := d.dialTURN(ctx, n, u)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	client, err := turn.NewClient(&turn.ClientConfig{
		Conn: conn, TURNServerAddr: server, Username: s.Username, Password: s.Credential, Net: n,
		LoggerFactory: &logging.DefaultLoggerFactory{DefaultLogLevel: logging.LogLevelDisabled},
	})
	if err != nil {
		return nil, err
	}
	defer client.Close()
	if err := client.Listen(); err != nil {
		return nil, err
	}
	relay, err := client.AllocateWithContext(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("no answer within %s", d.stunTimeout)
		}
		return nil, err
	}
	return relay.LocalAddr(), relay.Close()
}

// dialTURN opens the way to a TURN server over what its address says: UDP, TCP, or TLS over TCP.
func (d *doctor) dialTURN(ctx context.Context, n transport.Net, u *stun.URI) (conn net.PacketConn, server string, err error) {
	address := net.JoinHostPort(u.Host, strconv.Itoa(u.Port))
	if u.Proto == stun.ProtoTypeUDP {
		if u.Scheme == stun.SchemeTypeTURNS {
			return nil, "", errors.New("TLS over UDP is not examined; use transport=tcp")
		}
		to, err := n.ResolveUDPAddr("udp", address)
		if err != nil {
			return nil, "", err
		}
		network, local := "udp4", "0.0.0.0:0"
		if to.IP.To4() == nil {
			network, local = "udp6", "[::]:0"
		}
		conn, err := n.ListenPacket(network, local)
		return conn, to.String(), err
	}
	tcp, err := n.CreateDialer(&net.Dialer{Timeout: d.stunTimeout}).Dial("tcp", address)
	if err != nil {
		return nil, "", err
	}
	if u.Scheme == stun.SchemeTypeTURN {
		return turn.NewSTUNConn(tcp), tcp.RemoteAddr().String(), nil
	}
	secure := tls.Client(tcp, &tls.Config{ServerName: u.Host})
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, "", errors.Join(err, tcp.Close())
	}
	return turn.NewSTUNConn(secure), tcp.RemoteAddr().String(), nil
}
