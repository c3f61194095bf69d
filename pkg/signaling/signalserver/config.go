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
	"net"
	"net/netip"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/crmesh/crmesh/pkg/signaling"
	"github.com/crmesh/crmesh/pkg/signaling/signalcluster"
)

// Config is everything an operator can choose. Take DefaultConfig and change
// what you need; New checks it once.
type Config struct {
	// MaxConnections bounds open WebSockets in all. More get HTTP 503.
	MaxConnections int
	// MaxConnectionsPerAddress bounds open WebSockets of one address (IPv6: of
	// one /64). More get HTTP 429.
	MaxConnectionsPerAddress int
	// MaxSockets bounds TCP connections that are no WebSockets: those that ask for
	// the page, and those that have asked for nothing yet. MaxSocketsPerAddress
	// bounds those of one address. More are closed. They hold for what comes by
	// Server.Listener. JoinBurst sockets of an address are let in anyhow.
	MaxSockets           int
	MaxSocketsPerAddress int
	// RequestRate and RequestBurst are the token bucket of an address, in HTTP
	// requests per second and requests; a new TCP connection counts as one. Above
	// it, connections are closed, and requests get HTTP 429, a second late. There
	// are at least four for each of JoinRate and JoinBurst.
	RequestRate  float64
	RequestBurst int
	// MaxRooms bounds rooms that have members. More get server-full.
	MaxRooms int
	// MaxMembers bounds members of a room. More get room-full.
	MaxMembers int
	// MessageRate and MessageBurst are the token bucket of a connection, in
	// messages per second and messages. A message counts once more for each 4 KiB;
	// of WebSocket frames there may be 8 for each message, of which a ping counts
	// as 8. Above it: rate.
	MessageRate  float64
	MessageBurst int
	// JoinRate and JoinBurst are the token bucket of an address, in attempts to
	// join per second and attempts. Each request for a WebSocket is one, whatever
	// becomes of it. Above it: join-rate.
	JoinRate  float64
	JoinBurst int
	// SendQueue and SendQueueBytes bound what waits to be sent on one
	// connection, in messages and bytes. A connection whose queue is full is
	// closed with slow. SendQueueBytes is at least signaling.MaxServerFrame.
	SendQueue      int
	SendQueueBytes int
	// MaxQueuedBytes bounds what waits to be sent on all connections together,
	// in bytes; a frame for several members counts for each. Where one more
	// would not fit, the connections with most waiting are closed with slow. At
	// least SendQueueBytes.
	MaxQueuedBytes int
	// JoinTimeout is how long a connection may stay without a join.
	JoinTimeout time.Duration
	// IdleTimeout is how long a connection may stay silent. A ping goes out
	// every third of it.
	IdleTimeout time.Duration
	// Grace is how long a member whose connection broke stays a member.
	Grace time.Duration

	// JoinTokens and JoinKeys say who may begin a membership: whoever shows one
	// of the tokens, or one that was signed with one of the keys
	// (signaling.Admission), each of signaling.MinAdmissionKey bytes or more.
	// Without either all may. Others get not-admitted.
	JoinTokens []string
	JoinKeys   []string

	// AllowOrigin lists origins of pages, besides the server's own host, that
	// may connect: hosts or scheme://host, with * as in path.Match; a lone "*"
	// allows any.
	AllowOrigin []string
	// TrustedProxies may name the client's address in X-Forwarded-For, and so
	// may whoever connects by a Unix socket. IPv4 is not mapped into IPv6 here.
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

	// Cluster connects the server with others that it then acts as one with, of
	// which each has a Bus of its own; nil: it is alone. The server uses it until
	// Shutdown and does not close it.
	Cluster signalcluster.Bus

	// Page is served on every other path; nil for no page.
	Page fs.FS
	// Logger may be nil: nothing is logged.
	Logger *slog.Logger
	// LogAddresses names the client's address (IPv6: its /64) and the room in
	// what is logged about a connection. Without it the log holds neither.
	LogAddresses bool
}

// DefaultConfig returns the defaults that docs/SIGNALING.md names.
func DefaultConfig() Config {
	return Config{
		MaxConnections:           10_000,
		MaxConnectionsPerAddress: 256,
		MaxSockets:               4096,
		MaxSocketsPerAddress:     512,
		RequestRate:              100,
		RequestBurst:             2000,
		MaxRooms:                 10_000,
		MaxMembers:               512,
		MessageRate:              50,
		MessageBurst:             500,
		JoinRate:                 5,
		JoinBurst:                100,
		SendQueue:                256,
		SendQueueBytes:           1 << 20,
		MaxQueuedBytes:           256 << 20,
		JoinTimeout:              10 * time.Second,
		IdleTimeout:              45 * time.Second,
		Grace:                    15 * time.Second,
		TURNTTL:                  time.Hour,
	}
}

// FieldError is one thing that is wrong with a Config.
type FieldError struct {
	Field string // of Config
	Err   error
}

func (e *FieldError) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *FieldError) Unwrap() error { return e.Err }

// Check returns all that is wrong with the configuration: a *FieldError each, joined by errors.Join. New does it, too.
func (c *Config) Check() error {
	errs := c.checkAdmission()
	bad := func(wrong bool, field, format string, args ...any) {
		if wrong {
			errs = append(errs, &FieldError{field, fmt.Errorf(format, args...)})
		}
	}
	for _, l := range []struct {
		field, name string
		value       float64
	}{
		{"MaxConnections", "the limit of connections", float64(c.MaxConnections)},
		{"MaxConnectionsPerAddress", "the limit of connections per address", float64(c.MaxConnectionsPerAddress)},
		{"MaxSockets", "the limit of sockets", float64(c.MaxSockets)},
		{"MaxSocketsPerAddress", "the limit of sockets per address", float64(c.MaxSocketsPerAddress)},
		{"RequestRate", "the request rate", c.RequestRate},
		{"RequestBurst", "the request burst", float64(c.RequestBurst)},
		{"MaxRooms", "the limit of rooms", float64(c.MaxRooms)},
		{"MessageRate", "the message rate", c.MessageRate},
		{"MessageBurst", "the message burst", float64(c.MessageBurst)},
		{"JoinRate", "the join rate", c.JoinRate},
		{"JoinBurst", "the join burst", float64(c.JoinBurst)},
		{"SendQueue", "the send queue", float64(c.SendQueue)},
		{"JoinTimeout", "the join timeout", float64(c.JoinTimeout)},
		{"IdleTimeout", "the idle timeout", float64(c.IdleTimeout)},
		{"Grace", "the grace time", float64(c.Grace)},
	} {
		bad(!(l.value > 0), l.field, "%s must be above zero", l.name)
	}
	// Above this, joined would not fit into a frame.
	const most = 1024
	bad(c.MaxMembers < 2 || c.MaxMembers > most, "MaxMembers", "the limit of members per room must be between 2 and %d", most)
	bad(c.SendQueueBytes < signaling.MaxServerFrame, "SendQueueBytes", "the send queue must hold at least %d bytes", signaling.MaxServerFrame)
	bad(c.MaxQueuedBytes < c.SendQueueBytes, "MaxQueuedBytes", "the bound of all send queues together must be at least that of one, %d bytes", c.SendQueueBytes)
	bad(c.STUNPort < 0 || c.STUNPort > 65535, "STUNPort", "the STUN port %d is not between 0 and 65535", c.STUNPort)
	bad((len(c.TURNURLs) > 0) != (c.TURNSecret != ""), "TURNURLs", "TURN needs both the addresses of the servers and the secret shared with them")
	bad(len(c.TURNURLs) > 0 && c.TURNTTL < time.Second, "TURNTTL", "TURN credentials must live a second or more")
	for _, u := range c.TURNURLs {
		bad(!isTURN(u), "TURNURLs", "the TURN address %q is not like turn:turn.example.org:3478, turns: for TLS, with ?transport=udp or tcp behind it or not", u)
	}
	bad(c.PublicHost != "" && !IsHost(strings.Trim(c.PublicHost, "[]")), "PublicHost",
		"the public host %q is no host name or IP address; it has no scheme, no port and no path", c.PublicHost)
	for _, p := range c.TrustedProxies {
		bad(!p.IsValid() || p.Addr().Is4In6(), "TrustedProxies", "the trusted proxy %v is no network, or IPv4 written as IPv6, which no address would match", p)
	}
	for _, o := range c.AllowOrigin {
		bad(!isOrigin(o), "AllowOrigin", "the allowed origin %q must be a host, scheme://host or *, with nothing behind the host but its port", o)
	}
	return errors.Join(errs...)
}

// isTURN tells whether a browser takes text as the address of a TURN server (RFC 7065). One that it does not take would keep
// it from making any connection.
func isTURN(text string) bool {
	rest, ok := strings.CutPrefix(text, "turn:")
	if !ok {
		if rest, ok = strings.CutPrefix(text, "turns:"); !ok {
			return false
		}
	}
	rest, query, _ := strings.Cut(rest, "?")
	if query != "" && query != "transport=udp" && query != "transport=tcp" || strings.HasSuffix(text, "?") {
		return false
	}
	host, port, err := net.SplitHostPort(rest)
	if err != nil {
		host, port = rest, "3478"
		if inner, ok := strings.CutPrefix(rest, "["); ok {
			host, ok = strings.CutSuffix(inner, "]")
			if !ok {
				return false
			}
		}
	}
	number, err := strconv.ParseUint(port, 10, 16)
	return err == nil && number > 0 && IsHost(host) && (!strings.Contains(host, ":") || strings.HasPrefix(rest, "["))
}

// IsHost tells whether text is an IP address, without brackets, or may be a host name.
func IsHost(text string) bool {
	if addr, err := netip.ParseAddr(text); err == nil {
		return addr.Zone() == ""
	}
	for _, r := range text {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._", r) {
			return false
		}
	}
	return text != ""
}

// isOrigin tells whether a pattern can match the origin of a page, which has no path and not even a slash at its end.
func isOrigin(pattern string) bool {
	_, err := path.Match(pattern, "")
	host := pattern
	if scheme, rest, ok := strings.Cut(pattern, "://"); ok {
		if scheme == "" {
			return false
		}
		host = rest
	}
	return err == nil && host != "" && !strings.ContainsAny(host, "/, \t#@")
}
