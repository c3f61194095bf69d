package main

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"golang.org/x/crypto/acme"

	"github.com/crmesh/crmesh/cmd/internal/program"
	"github.com/crmesh/crmesh/pkg/signaling/signalcluster/natsbus"
	"github.com/crmesh/crmesh/pkg/signaling/signalserver"
	"github.com/crmesh/crmesh/web"
)

// serve holds the flags of the server. Each is an environment variable, too, and a setting of the file of --config. SIGHUP
// changes those without the tag restart.
type serve struct {
	configFlag
	listenFlags
	tlsFlags
	PublicURL      string   `name:"public-url" placeholder:"URL" help:"Address of the page for people, if a name or a proxy stands before the server: it is printed, pages from there may connect, and its host is the one of STUN."`
	PublicHost     string   `placeholder:"HOST" help:"Host name under which members reach STUN; by default that of --public-url, or the one they use for the page."`
	AllowOrigin    []string `placeholder:"ORIGIN" help:"Origins of other pages that may connect: a host, scheme://host, or * for any."`
	TrustedProxies []string `placeholder:"CIDR" help:"Proxies whose X-Forwarded-For is believed, such as 10.0.0.0/8."`

	TURNURLs   []string      `name:"turn-url" placeholder:"URL" help:"TURN servers to hand out, such as turn:turn.example.org:3478."`
	TURNSecret string        `name:"turn-secret" secret:"" placeholder:"SECRET" help:"Secret shared with the TURN servers (coturn: static-auth-secret). Better in the environment."`
	TURNTTL    time.Duration `name:"turn-ttl" default:"${turn_ttl}" help:"Life of TURN credentials."`

	JoinTokens []string `name:"join-token" secret:"" placeholder:"TOKEN" help:"Let in only those who show this token; repeat the flag for more. Better in the environment."`
	JoinKeys   []string `name:"join-hmac-key" secret:"" placeholder:"KEY" help:"Let in only those who show a token of 'signal token' signed with this key of 16 bytes or more; repeat the flag for more. Better in the environment."`

	Cluster      []string `restart:"" address:"" placeholder:"NATS-URL" help:"NATS servers over which this server and others act as one, such as nats://user:password@10.0.0.1:4222 or tls://...; with a password better in the environment."`
	ClusterCreds string   `restart:"" placeholder:"FILE" help:"File with the user's JWT and key for NATS, as nsc makes it."`

	Private string `restart:"" placeholder:"HOST:PORT" help:"TCP address of metrics (/metrics) and profiles (/debug/pprof/), for the operator alone; without it there are none."`

	MaxConnections           int           `default:"${max_connections}" help:"Connections in all."`
	MaxConnectionsPerAddress int           `default:"${max_connections_per_address}" help:"Connections of one address, or IPv6 /64."`
	MaxSockets               int           `default:"${max_sockets}" help:"TCP connections that are no WebSockets, or not yet."`
	MaxSocketsPerAddress     int           `default:"${max_sockets_per_address}" help:"The same of one address; trusted proxies and Unix sockets have no limit of their own."`
	RequestRate              float64       `default:"${request_rate}" help:"HTTP requests and new TCP connections per second of an address."`
	RequestBurst             int           `default:"${request_burst}" help:"The same at once."`
	RequestTimeout           time.Duration `restart:"" default:"10s" help:"Time that a TCP connection has for its TLS handshake and the headers of a request."`
	MaxRooms                 int           `default:"${max_rooms}" help:"Rooms."`
	MaxMembers               int           `default:"${max_members}" help:"Members of a room."`
	MessageRate              float64       `default:"${message_rate}" help:"Messages per second of a connection."`
	MessageBurst             int           `default:"${message_burst}" help:"Messages of a connection at once."`
	JoinRate                 float64       `default:"${join_rate}" help:"Attempts to join per second of an address, failed ones included."`
	JoinBurst                int           `default:"${join_burst}" help:"Attempts of an address at once."`
	SendQueue                int           `default:"${send_queue}" help:"Messages that may wait for a slow connection before it is closed."`
	SendQueueBytes           int           `default:"${send_queue_bytes}" help:"The same in bytes."`
	MaxQueuedBytes           int           `default:"${max_queued_bytes}" help:"Bytes that may wait on all connections together; beyond it those with most waiting are closed."`
	JoinTimeout              time.Duration `default:"${join_timeout}" help:"Time from connect to join."`
	IdleTimeout              time.Duration `default:"${idle_timeout}" help:"Silence after which a connection is closed."`
	Grace                    time.Duration `default:"${grace}" help:"How long a member whose connection broke stays a member."`

	LogAddresses bool `help:"Name addresses and rooms in the log; without it the log names neither."`

	Drain time.Duration `default:"5s" help:"Time over which clients are sent away before the server stops, so that they do not come to its successor all at once; at most a minute, 0s to close them at once."`

	program.LogFlags
}

// defaults gives the flags the defaults of signalserver.
func defaults() kong.Vars {
	d := signalserver.DefaultConfig()
	return kong.Vars{
		"acme_directory":              acme.LetsEncryptURL,
		"turn_ttl":                    d.TURNTTL.String(),
		"max_connections":             strconv.Itoa(d.MaxConnections),
		"max_connections_per_address": strconv.Itoa(d.MaxConnectionsPerAddress),
		"max_sockets":                 strconv.Itoa(d.MaxSockets),
		"max_sockets_per_address":     strconv.Itoa(d.MaxSocketsPerAddress),
		"request_rate":                strconv.FormatFloat(d.RequestRate, 'g', -1, 64),
		"request_burst":               strconv.Itoa(d.RequestBurst),
		"max_rooms":                   strconv.Itoa(d.MaxRooms),
		"max_members":                 strconv.Itoa(d.MaxMembers),
		"message_rate":                strconv.FormatFloat(d.MessageRate, 'g', -1, 64),
		"message_burst":               strconv.Itoa(d.MessageBurst),
		"join_rate":                   strconv.FormatFloat(d.JoinRate, 'g', -1, 64),
		"join_burst":                  strconv.Itoa(d.JoinBurst),
		"send_queue":                  strconv.Itoa(d.SendQueue),
		"send_queue_bytes":            strconv.Itoa(d.SendQueueBytes),
		"max_queued_bytes":            strconv.Itoa(d.MaxQueuedBytes),
		"join_timeout":                d.JoinTimeout.String(),
		"idle_timeout":                d.IdleTimeout.String(),
		"grace":                       d.Grace.String(),
	}
}

// bus is the configuration of the connection to other servers; !ok: there is none.
func (f *serve) bus(log *slog.Logger) (cfg natsbus.Config, ok bool, err error) {
	if len(f.Cluster) == 0 {
		if f.ClusterCreds != "" {
			return cfg, false, errors.New("--cluster-creds is of no use without --cluster")
		}
		return cfg, false, nil
	}
	cfg = natsbus.Config{URLs: f.Cluster, Credentials: f.ClusterCreds, Name: "crmesh signal", Logger: log}
	if err := cfg.Check(); err != nil {
		return cfg, false, fmt.Errorf("--cluster: %w", err)
	}
	return cfg, true, nil
}

// config returns what the flags say about the server. The error has a line for each thing that is wrong.
func (f *serve) config(log *slog.Logger, stunPort int) (signalserver.Config, error) {
	cfg := signalserver.Config{
		MaxConnections: f.MaxConnections, MaxConnectionsPerAddress: f.MaxConnectionsPerAddress,
		MaxSockets: f.MaxSockets, MaxSocketsPerAddress: f.MaxSocketsPerAddress,
		RequestRate: f.RequestRate, RequestBurst: f.RequestBurst,
		MaxRooms: f.MaxRooms, MaxMembers: f.MaxMembers,
		MessageRate: f.MessageRate, MessageBurst: f.MessageBurst,
		JoinRate: f.JoinRate, JoinBurst: f.JoinBurst,
		SendQueue: f.SendQueue, SendQueueBytes: f.SendQueueBytes, MaxQueuedBytes: f.MaxQueuedBytes,
		JoinTimeout: f.JoinTimeout, IdleTimeout: f.IdleTimeout, Grace: f.Grace,
		AllowOrigin: f.AllowOrigin,
		PublicHost:  f.PublicHost, STUNPort: stunPort,
		TURNURLs: f.TURNURLs, TURNSecret: f.TURNSecret, TURNTTL: f.TURNTTL,
		JoinTokens: f.JoinTokens, JoinKeys: f.JoinKeys,
		Page: web.Page(), Logger: log, LogAddresses: f.LogAddresses,
	}
	var errs []error
	bad := func(flag, format string, args ...any) {
		errs = append(errs, &flagError{flag, fmt.Errorf(format, args...)})
	}
	if public, err := f.public(); err != nil {
		bad("public-url", "%w", err)
	} else if public != nil {
		cfg.PublicHost = cmp.Or(f.PublicHost, public.Hostname())
		cfg.AllowOrigin = append(slices.Clone(f.AllowOrigin), public.Scheme+"://"+public.Host)
	}
	for _, text := range f.TrustedProxies {
		prefix, err := trustedProxy(text)
		if err != nil {
			bad("trusted-proxies", "%w", err)
			continue
		}
		cfg.TrustedProxies = append(cfg.TrustedProxies, prefix)
	}
	for _, flag := range f.flags {
		// The one who set it wanted to ask for something: a variable that was forgotten must not open the server to everybody.
		if isSecret(flag) && flag.IsSlice() && flag.Set && flag.Target.Len() == 0 && f.origin(flag.Name) == "" {
			bad(flag.Name, "%s is set to nothing, which would let everybody in: give it a value, or do not set it", strings.Join(append(flag.Envs, "--"+flag.Name), " or "))
		}
	}
	if f.RequestTimeout <= 0 {
		bad("request-timeout", "the time for a request must be above zero")
	}
	if f.Drain < 0 || f.Drain > signalserver.MaxDrain {
		bad("drain", "the time to drain is between 0s and %v", signalserver.MaxDrain)
	}
	if err := errors.Join(append(errs, cfg.Check())...); err != nil {
		return cfg, f.explain(err)
	}
	return cfg, nil
}

// trustedProxy reads one of --trusted-proxies. IPv4 written as IPv6 (::ffff:10.0.0.0/104) is IPv4, as which the server has each address.
func trustedProxy(text string) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		addr, err := netip.ParseAddr(text)
		if err != nil || addr.Zone() != "" {
			return prefix, fmt.Errorf("the trusted proxy %q is neither an address nor a network like 10.0.0.0/8", text)
		}
		prefix = netip.PrefixFrom(addr, addr.BitLen())
	}
	const mapped = 96 // bits before the address of IPv4
	if addr := prefix.Addr(); addr.Is4In6() {
		if prefix.Bits() < mapped {
			return prefix, fmt.Errorf("the trusted proxy %q takes in all of IPv4 and more; write 0.0.0.0/0 if you mean that", text)
		}
		prefix = netip.PrefixFrom(addr.Unmap(), prefix.Bits()-mapped)
	}
	return prefix, nil
}
