package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/alecthomas/kong"

	"github.com/crmesh/crmesh/cmd/internal/program"
	"github.com/crmesh/crmesh/pkg/signaling/signalserver"
	"github.com/crmesh/crmesh/web"
)

// serve holds the flags of the server. Each is an environment variable, too.
type serve struct {
	Listen         string   `default:"127.0.0.1:8787" placeholder:"HOST:PORT" help:"TCP address of the WebSocket and the page (${default})."`
	STUN           string   `name:"stun" default:":3478" placeholder:"HOST:PORT" help:"UDP address of the STUN responder, or off (${default})."`
	PublicHost     string   `placeholder:"HOST" help:"Host name under which members reach STUN; by default the one they use for the page."`
	AllowOrigin    []string `placeholder:"ORIGIN" help:"Origins of other pages that may connect: a host, scheme://host, or * for any."`
	TrustedProxies []string `placeholder:"CIDR" help:"Proxies whose X-Forwarded-For is believed, such as 10.0.0.0/8."`

	TURNURLs   []string      `name:"turn-url" placeholder:"URL" help:"TURN servers to hand out, such as turn:turn.example.org:3478."`
	TURNSecret string        `name:"turn-secret" placeholder:"SECRET" help:"Secret shared with the TURN servers (coturn: static-auth-secret). Better in the environment."`
	TURNTTL    time.Duration `name:"turn-ttl" default:"${turn_ttl}" help:"Life of TURN credentials."`

	MaxConnections           int           `default:"${max_connections}" help:"Connections in all."`
	MaxConnectionsPerAddress int           `default:"${max_connections_per_address}" help:"Connections of one address, or IPv6 /64."`
	MaxRooms                 int           `default:"${max_rooms}" help:"Rooms."`
	MaxMembers               int           `default:"${max_members}" help:"Members of a room."`
	MessageRate              float64       `default:"${message_rate}" help:"Messages per second of a connection."`
	MessageBurst             int           `default:"${message_burst}" help:"Messages of a connection at once."`
	JoinRate                 float64       `default:"${join_rate}" help:"Joins per second of an address."`
	JoinBurst                int           `default:"${join_burst}" help:"Joins of an address at once."`
	SendQueue                int           `default:"${send_queue}" help:"Messages that may wait for a slow connection before it is closed."`
	SendQueueBytes           int           `default:"${send_queue_bytes}" help:"The same in bytes."`
	JoinTimeout              time.Duration `default:"${join_timeout}" help:"Time from connect to join."`
	IdleTimeout              time.Duration `default:"${idle_timeout}" help:"Silence after which a connection is closed."`
	Grace                    time.Duration `default:"${grace}" help:"How long a member whose connection broke stays a member."`

	program.LogFlags
}

// defaults gives the flags the defaults of signalserver.
func defaults() kong.Vars {
	d := signalserver.DefaultConfig()
	return kong.Vars{
		"turn_ttl":                    d.TURNTTL.String(),
		"max_connections":             strconv.Itoa(d.MaxConnections),
		"max_connections_per_address": strconv.Itoa(d.MaxConnectionsPerAddress),
		"max_rooms":                   strconv.Itoa(d.MaxRooms),
		"max_members":                 strconv.Itoa(d.MaxMembers),
		"message_rate":                strconv.FormatFloat(d.MessageRate, 'g', -1, 64),
		"message_burst":               strconv.Itoa(d.MessageBurst),
		"join_rate":                   strconv.FormatFloat(d.JoinRate, 'g', -1, 64),
		"join_burst":                  strconv.Itoa(d.JoinBurst),
		"send_queue":                  strconv.Itoa(d.SendQueue),
		"send_queue_bytes":            strconv.Itoa(d.SendQueueBytes),
		"join_timeout":                d.JoinTimeout.String(),
		"idle_timeout":                d.IdleTimeout.String(),
		"grace":                       d.Grace.String(),
	}
}

func (f *serve) config(log *slog.Logger, stunPort int) (signalserver.Config, error) {
	cfg := signalserver.Config{
		MaxConnections: f.MaxConnections, MaxConnectionsPerAddress: f.MaxConnectionsPerAddress,
		MaxRooms: f.MaxRooms, MaxMembers: f.MaxMembers,
		MessageRate: f.MessageRate, MessageBurst: f.MessageBurst,
		JoinRate: f.JoinRate, JoinBurst: f.JoinBurst,
		SendQueue: f.SendQueue, SendQueueBytes: f.SendQueueBytes,
		JoinTimeout: f.JoinTimeout, IdleTimeout: f.IdleTimeout, Grace: f.Grace,
		AllowOrigin: f.AllowOrigin,
		PublicHost:  f.PublicHost, STUNPort: stunPort,
		TURNURLs: f.TURNURLs, TURNSecret: f.TURNSecret, TURNTTL: f.TURNTTL,
		Page: web.Page(), Logger: log,
	}
	for _, text := range f.TrustedProxies {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			addr, err := netip.ParseAddr(text)
			if err != nil {
				return cfg, fmt.Errorf("the trusted proxy %q is neither an address nor a network like 10.0.0.0/8", text)
			}
			prefix = netip.PrefixFrom(addr, addr.BitLen())
		}
		cfg.TrustedProxies = append(cfg.TrustedProxies, prefix)
	}
	return cfg, nil
}

// shutdownTimeout bounds the goodbye to all connections.
const shutdownTimeout = 10 * time.Second

// Run serves until ctx is done.
func (f *serve) Run(ctx context.Context, out program.Output) error {
	log := f.Logger(out)
	stunPort := 0
	if f.STUN != "off" {
		stun, err := signalserver.ListenSTUN(f.STUN, log)
		if err != nil {
			return fmt.Errorf("%w (--stun)", err)
		}
		defer func() { _ = stun.Close() }()
		stunPort = stun.Port()
	}
	cfg, err := f.config(log, stunPort)
	if err != nil {
		return err
	}
	server, err := signalserver.New(cfg)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", f.Listen)
	if err != nil {
		_ = server.Shutdown(ctx)
		return fmt.Errorf("cannot listen on %s, choose another address with --listen: %w", f.Listen, err)
	}
	httpServer := &http.Server{
		Handler:           server,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      2 * time.Minute, // of the page; a WebSocket has its own
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	fmt.Fprintf(out.Stdout, "signal serves %s\n", program.PageURL(listener.Addr(), "localhost"))
	log.Info("started", "listen", listener.Addr().String(), "stun", stunPort)

	served := make(chan error, 1)
	go func() { served <- httpServer.Serve(listener) }() // waited for below
	select {
	case err = <-served:
		err = fmt.Errorf("the HTTP server stopped: %w", err)
	case <-ctx.Done():
	}
	goodbye, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if e := errors.Join(server.Shutdown(goodbye), httpServer.Shutdown(goodbye)); e != nil {
		log.Warn("some connections did not end in time", "error", e)
	}
	if err == nil {
		<-served
		log.Info("stopped")
	}
	return err
}
