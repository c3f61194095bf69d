// Package signalserver is the signaling server: an http.Handler that pairs
// members of a room over WebSockets and forwards their sealed envelopes, the
// handler of the page, and a small STUN responder. docs/SIGNALING.md is the
// specification.
//
// The server keeps what its live connections need and nothing else; no
// envelope is ever logged, stored or looked into.
package signalserver

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"path"
	"strings"
	"time"

	"github.com/crmesh/crmesh/pkg/signaling"
)

// Config is everything an operator can choose. Take DefaultConfig and change
// what you need; New checks it once.
type Config struct {
	// MaxConnections bounds open WebSockets in all. More get HTTP 503.
	MaxConnections int
	// MaxConnectionsPerAddress bounds open WebSockets of one address (IPv6: of
	// one /64). More get HTTP 429.
	MaxConnectionsPerAddress int
	// MaxRooms bounds rooms that have members. More get server-full.
	MaxRooms int
	// MaxMembers bounds members of a room. More get room-full.
	MaxMembers int
	// MessageRate and MessageBurst are the token bucket of a connection, in
	// messages per second and messages. Above it: rate.
	MessageRate  float64
	MessageBurst int
	// JoinRate and JoinBurst are the token bucket of an address, in joins per
	// second and joins. Above it: join-rate.
	JoinRate  float64
	JoinBurst int
	// SendQueue and SendQueueBytes bound what waits to be sent on one
	// connection, in messages and bytes. A connection whose queue is full is
	// closed with slow. SendQueueBytes is at least signaling.MaxServerFrame.
	SendQueue      int
	SendQueueBytes int
	// JoinTimeout is how long a connection may stay without a join.
	JoinTimeout time.Duration
	// IdleTimeout is how long a connection may stay silent. A ping goes out
	// every third of it.
	IdleTimeout time.Duration
	// Grace is how long a member whose connection broke stays a member.
	Grace time.Duration

	// AllowOrigin lists origins of pages, besides the server's own host, that
	// may connect: hosts or scheme://host, with * as in path.Match; a lone "*"
	// allows any.
	AllowOrigin []string
	// TrustedProxies may name the client's address in X-Forwarded-For.
	TrustedProxies []netip.Prefix

	// PublicHost is the host name in the STUN address that joined hands out;
	// "" takes it from the Host header of the request.
	PublicHost string
	// STUNPort is the UDP port of the server's own STUN responder, 0 for none.
	STUNPort int
	// TURNURLs are TURN servers of the operator, "turn:host:port?transport=udp"
	// or "turns:...". TURNSecret is the secret shared with them, TURNTTL the
	// life of the credentials.
	TURNURLs   []string
	TURNSecret string
	TURNTTL    time.Duration

	// Page is served on every other path; nil for no page.
	Page fs.FS
	// Logger may be nil: nothing is logged.
	Logger *slog.Logger
}

// DefaultConfig returns the defaults that docs/SIGNALING.md names.
func DefaultConfig() Config {
	return Config{
		MaxConnections:           10_000,
		MaxConnectionsPerAddress: 256,
		MaxRooms:                 10_000,
		MaxMembers:               512,
		MessageRate:              50,
		MessageBurst:             500,
		JoinRate:                 5,
		JoinBurst:                100,
		SendQueue:                256,
		SendQueueBytes:           1 << 20,
		JoinTimeout:              10 * time.Second,
		IdleTimeout:              45 * time.Second,
		Grace:                    15 * time.Second,
		TURNTTL:                  time.Hour,
	}
}

// check returns all that is wrong with the configuration, a sentence each.
func (c *Config) check() error {
	var errs []error
	bad := func(wrong bool, format string, args ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	for _, l := range []struct {
		name  string
		value float64
	}{
		{"the limit of connections", float64(c.MaxConnections)},
		{"the limit of connections per address", float64(c.MaxConnectionsPerAddress)},
		{"the limit of rooms", float64(c.MaxRooms)},
		{"the message rate", c.MessageRate},
		{"the message burst", float64(c.MessageBurst)},
		{"the join rate", c.JoinRate},
		{"the join burst", float64(c.JoinBurst)},
		{"the send queue", float64(c.SendQueue)},
		{"the join timeout", float64(c.JoinTimeout)},
		{"the idle timeout", float64(c.IdleTimeout)},
		{"the grace time", float64(c.Grace)},
	} {
		bad(!(l.value > 0), "%s must be above zero", l.name)
	}
	// Above this, joined would not fit into a frame.
	const most = 1024
	bad(c.MaxMembers < 2 || c.MaxMembers > most, "the limit of members per room must be between 2 and %d", most)
	bad(c.SendQueueBytes < signaling.MaxServerFrame, "the send queue must hold at least %d bytes", signaling.MaxServerFrame)
	bad(c.STUNPort < 0 || c.STUNPort > 65535, "the STUN port %d is not between 0 and 65535", c.STUNPort)
	bad((len(c.TURNURLs) > 0) != (c.TURNSecret != ""), "TURN needs both the addresses of the servers and the secret shared with them")
	bad(len(c.TURNURLs) > 0 && c.TURNTTL < time.Second, "TURN credentials must live a second or more")
	for _, u := range c.TURNURLs {
		bad(!strings.HasPrefix(u, "turn:") && !strings.HasPrefix(u, "turns:"), "the TURN address %q must start with turn: or turns:", u)
	}
	for _, o := range c.AllowOrigin {
		_, err := path.Match(o, "")
		bad(o == "" || err != nil, "the allowed origin %q must be a host, scheme://host or *", o)
	}
	return errors.Join(errs...)
}
