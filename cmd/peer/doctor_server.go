package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/crmesh/crmesh/pkg/mesh"
	"github.com/crmesh/crmesh/pkg/signaling"
	"github.com/crmesh/crmesh/pkg/signaling/signalclient"
)

// reach goes the way to a signaling server step by step: name, TCP, TLS, HTTP. The first step that fails is the finding.
func (d *doctor) reach(ctx context.Context, address string) {
	d.doing("looking for the signaling server")
	ws, err := signaling.WebSocketURL(address)
	if err != nil {
		d.bad("server", "write it like https://sync.example.org/", "%v", err)
		return
	}
	u, err := url.Parse(strings.Replace(ws, "ws", "http", 1))
	if err != nil {
		d.bad("server", "write it like https://sync.example.org/", "the address is none: %v", err)
		return
	}
	u.Path = strings.TrimSuffix(u.Path, signaling.Path) + "healthz"
	proxied := false
	if p, err := http.ProxyFromEnvironment(&http.Request{URL: u}); err == nil && p != nil {
		proxied = true // then the way leads elsewhere
	}
	if !proxied && !d.dial(ctx, u) {
		return
	}
	step, cancel := context.WithTimeout(ctx, d.serverTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(step, http.MethodGet, u.String(), nil)
	if err != nil {
		d.bad("server", "write it like https://sync.example.org/", "the address is none: %v", err)
		return
	}
	client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment}}
	defer client.CloseIdleConnections()
	response, err := client.Do(request)
	if err != nil {
		d.bad("server", "see whether the server's program runs there, and whether a proxy or firewall is in between",
			"%s takes connections and does not answer over HTTP: %v", u.Host, err)
		return
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusOK {
		d.bad("server", "compare the address with the one that the server's operator gave you, the path included",
			"%s answers %s: this is no signaling server of crmesh, or its path is another one", u.Redacted(), response.Status)
		return
	}
	d.good("server", "%s is there and answers over HTTP", u.Host)
}

// dial looks the name up and connects.
func (d *doctor) dial(ctx context.Context, u *url.URL) bool {
	step, cancel := context.WithTimeout(ctx, d.serverTimeout)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupHost(step, u.Hostname())
	if err != nil {
		d.bad("server", "look for a mistake in the name, and see whether this machine can look names up",
			"the name %s leads to no address: %v", u.Hostname(), err)
		return false
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	c, err := (&net.Dialer{}).DialContext(step, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		d.bad("server", "start the server, or open its port in the firewalls in between",
			"no TCP connection to %s (%s), port %s: %v", u.Hostname(), strings.Join(addrs, ", "), port, err)
		return false
	}
	defer func() { _ = c.Close() }()
	if u.Scheme == "https" {
		if err := tls.Client(c, &tls.Config{ServerName: u.Hostname()}).HandshakeContext(step); err != nil {
			d.bad("server", "give the server a certificate for this name that this machine trusts, or write http:// if it has none",
				"no TLS connection to %s: %v", u.Host, err)
			return false
		}
	}
	return true
}

// room is a membership for the time of the examination.
type probeRoom struct {
	id      signaling.PeerID
	client  *signalclient.Client
	members []signaling.Member
	servers []signaling.ICEServer
}

func (r *probeRoom) close() { r.client.Close() }

// join enters the room, or one that nobody knows when no link was named. Its id is greater than any other, so that members
// wait for an offer and do not make one.
func (d *doctor) join(ctx context.Context) *probeRoom {
	if len(d.urls) == 0 {
		return nil
	}
	d.doing("joining a room at the signaling server")
	r := &probeRoom{}
	_, _ = rand.Read(r.id[:]) // never fails
	for i := range 4 {
		r.id[i] = 0xff
	}
	keys, named := d.keys, d.keys.Room != signaling.RoomID{}
	if !named {
		var err error
		if keys, err = signaling.NewRoom(rand.Reader); err != nil {
			d.bad("join", "report this as a fault of the program", "%v", err)
			return nil
		}
	}
	keys.WriterPrivate = nil // the doctor only ever reads
	client, err := signalclient.New(signalclient.Config{
		URLs: d.urls, Keys: keys, Peer: r.id, Meta: signaling.Meta{Name: "peer doctor"}, JoinToken: d.token,
		DialTimeout: d.serverTimeout,
	})
	if err != nil {
		d.bad("join", "name at most 16 servers", "%v", err)
		return nil
	}
	r.client = client
	d.keys = keys
	limit := time.After(time.Duration(len(d.urls)) * (d.serverTimeout + time.Second))
	failed, advice := "the server did not answer in time", "see whether a proxy in between lets WebSockets through, and whether the server "+
		"asks for more than you have"
	for tries := 0; tries < len(d.urls); {
		select {
		case e, open := <-client.Events():
			switch e := e.(type) {
			case signalclient.Joined:
				r.members, r.servers = e.Members, e.ICEServers
				if !named {
					d.good("join", "the server takes members in")
					d.good("link", "no trial link was made: that takes the link of a room")
					r.close()
					return &probeRoom{servers: e.ICEServers, client: client}
				}
				others := "1 other member"
				if len(e.Members) != 1 {
					others = fmt.Sprintf("%d other members", len(e.Members))
				}
				d.good("join", "the room has %s", others)
				return r
			case signalclient.Disconnected:
				failed = fmt.Sprint(e.Err)
				var refusal signaling.Error
				if errors.As(e.Err, &refusal) && refusal.Code == signaling.CodeNotAdmitted {
					advice = "ask the operator of the server for a join token, and name it with --join-token or use a link that has it"
					if !named {
						advice += "; a token for one room takes the link of that room"
					}
				}
				tries++
			}
			if !open {
				tries = len(d.urls)
			}
			continue
		case <-limit:
		case <-ctx.Done():
		}
		break
	}
	r.close()
	d.bad("join", advice, "the room could not be joined: %s", failed)
	return nil
}

// signaler returns the membership as the mesh wants it, with one member only: to link with all would disturb the room.
func (r *probeRoom) signaler(target signaling.Member) *oneMember {
	ctx, stop := context.WithCancel(context.Background())
	s := &oneMember{room: r, target: target, events: make(chan mesh.SignalEvent, 1), stop: stop}
	s.events <- mesh.Joined{Members: []signaling.Member{target}}
	s.wg.Go(func() { s.translate(ctx) })
	return s
}
