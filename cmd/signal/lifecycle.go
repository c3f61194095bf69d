package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/crmesh/crmesh/cmd/internal/program"
	"github.com/crmesh/crmesh/pkg/signaling/signalcluster/natsbus"
	"github.com/crmesh/crmesh/pkg/signaling/signalserver"
)

const (
	// shutdownTimeout bounds the goodbye to connections that did not move.
	shutdownTimeout = 10 * time.Second
	// answerTimeout is how long of that a connection has for its request, if it was accepted and has sent none yet.
	answerTimeout = 5 * time.Second
)

// Run serves until ctx is done, then drains.
func (f *serve) Run(ctx context.Context, out program.Output, again program.Reparse, k *kong.Context) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP) // before anything that takes time: it would end the process
	defer signal.Stop(hup)
	level := &slog.LevelVar{}
	level.Set(f.Level())
	log := f.LoggerAt(out, level)
	if unknown := unknownVariables(k, os.Environ()); len(unknown) > 0 {
		log.Warn("these variables are no settings and have no effect; signal serve --help names all", "variables", strings.Join(unknown, ", "))
	}
	certs, err := f.certificates(log)
	if err != nil {
		return err
	}
	sockets, err := f.open()
	if err != nil {
		return err
	}
	defer sockets.close()
	stunPort := 0
	if sockets.stun != nil {
		stun := signalserver.ServeSTUN(sockets.stun, log)
		defer func() { _ = stun.Close() }()
		stunPort = stun.Port()
	}
	cfg, err := f.config(log, stunPort)
	if err != nil {
		return err
	}
	if bus, ok, err := f.bus(log); err != nil {
		return err
	} else if ok {
		connection, err := natsbus.Connect(bus)
		if err != nil {
			return err
		}
		defer connection.Close()
		cfg.Cluster = connection
	}
	server, err := signalserver.New(cfg)
	if err != nil {
		return err
	}
	stopPrivate, err := f.startPrivate(server, certs, log)
	if err != nil {
		_ = server.Shutdown(ctx)
		return err
	}
	defer stopPrivate()
	listener := server.Listener(sockets.main)
	if certs != nil {
		listener = tls.NewListener(listener, certs.config)
	}
	now := &live{flags: f, again: again, started: f.flags, now: f.flags, server: server, stunPort: stunPort, certs: certs,
		log: log, level: level, addresses: &atomic.Bool{}}
	now.addresses.Store(f.LogAddresses)
	httpServer := newHTTPServer(server, f.RequestTimeout, httpLog(log, now.addresses))
	busy := &busyConns{conns: map[net.Conn]struct{}{}}
	httpServer.ConnState, httpServer.ConnContext = busy.changed, server.ConnContext
	fmt.Fprintf(out.Stdout, "signal serves %s\n", f.address(listener.Addr(), certs != nil))
	log.Info("started", "listen", listener.Addr().String(), "stun", stunPort)

	memory, stopMemory := context.WithCancel(context.Background())
	defer stopMemory()
	go giveBack(memory) // until Run returns
	served := make(chan error, 1)
	go func() { served <- httpServer.Serve(listener) }() // waited for below
	notify(log, daemon.SdNotifyReady)
	for stopped := false; !stopped; {
		select {
		case err = <-served:
			err, stopped = fmt.Errorf("the HTTP server stopped: %w", err), true
		case <-hup:
			now.reload()
		case <-ctx.Done():
			stopped = true
		}
	}
	notify(log, daemon.SdNotifyStopping)
	// The sockets first, so that whoever comes back comes to the successor.
	sockets.close()
	if err == nil {
		<-served // and so all that were accepted are known
	}
	now.flags.goodbye(ctx, server, httpServer, busy, log)
	if err == nil {
		log.Info("stopped")
	}
	return err
}

// goodbye sends the clients away, and closes those that do not go. SIGINT or
// SIGTERM, which is the second one then, makes it short.
func (f *serve) goodbye(ctx context.Context, server *signalserver.Server, httpServer *http.Server, busy *busyConns, log *slog.Logger) {
	ctx, stop := signal.NotifyContext(context.WithoutCancel(ctx), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if n := server.Stats().Connections; f.Drain > 0 && n > 0 {
		log.Info("draining", "connections", n, "within", f.Drain)
		server.Drain(ctx, f.Drain)
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	err := server.Shutdown(end)
	// From its Shutdown on, http.Server closes a connection that sends its first request without an answer. Whoever was
	// accepted just before the socket was closed shall have one.
	until, _ := end.Deadline()
	if soon := time.Now().Add(answerTimeout); soon.Before(until) {
		until = soon
	}
	answered, stopWaiting := context.WithDeadline(ctx, until)
	defer stopWaiting()
	busy.wait(answered)
	if err = errors.Join(err, httpServer.Shutdown(end)); err != nil {
		log.Warn("some connections did not end in time", "error", err)
	}
}

// busyConns are the connections of an http.Server that are new, or have a request. They are few: a WebSocket is none.
type busyConns struct {
	mu    sync.Mutex // guards the following
	conns map[net.Conn]struct{}
	none  chan struct{} // not nil: somebody waits for it to be closed when there are none
}

// changed is the ConnState of the http.Server.
func (b *busyConns) changed(c net.Conn, state http.ConnState) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if state == http.StateNew || state == http.StateActive {
		b.conns[c] = struct{}{}
		return
	}
	delete(b.conns, c)
	if b.none != nil && len(b.conns) == 0 {
		close(b.none)
		b.none = nil
	}
}

// wait waits until none is left, or ctx is done. It is called once.
func (b *busyConns) wait(ctx context.Context) {
	b.mu.Lock()
	if len(b.conns) == 0 {
		b.mu.Unlock()
		return
	}
	none := make(chan struct{})
	b.none = none
	b.mu.Unlock()
	select {
	case <-none:
	case <-ctx.Done():
	}
}

func newHTTPServer(handler http.Handler, requestTimeout time.Duration, errorLog *log.Logger) *http.Server {
	protocols := &http.Protocols{} // no HTTP/2; see tlsConfig
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler:           handler,
		Protocols:         protocols,
		ReadHeaderTimeout: requestTimeout,
		ReadTimeout:       3 * requestTimeout,
		WriteTimeout:      2 * time.Minute, // of the page; a WebSocket has its own
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          errorLog,
	}
}

// notify tells systemd, if it has started us with Type=notify.
func notify(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("systemd cannot be told", "state", state, "error", err)
	}
}

// public is --public-url, or nil.
func (f *serve) public() (*url.URL, error) {
	if f.PublicURL == "" {
		return nil, nil
	}
	u, err := url.Parse(f.PublicURL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" || u.Fragment != "" ||
		!signalserver.IsHost(u.Hostname()) || !isPort(u.Port()) {
		return nil, fmt.Errorf("the public address %q is not like https://sync.example.org/", f.PublicURL)
	}
	// As browsers write it in Origin.
	if port := u.Port(); port == "443" && u.Scheme == "https" || port == "80" && u.Scheme == "http" {
		u.Host = strings.TrimSuffix(u.Host, ":"+port)
	}
	if !strings.HasSuffix(u.Path, "/") {
		u.Path += "/"
	}
	return u, nil
}

// isPort tells whether text is a port of TCP, or none, as a URL may name none.
func isPort(text string) bool {
	n, err := strconv.ParseUint(text, 10, 16)
	return text == "" || err == nil && n > 0
}

// address is what people open, as far as the server can know.
func (f *serve) address(listen net.Addr, secure bool) string {
	if u, err := f.public(); err == nil && u != nil {
		return u.String()
	}
	if listen.Network() == "unix" {
		return "unix:" + listen.String()
	}
	page := program.PageURL(listen, "localhost")
	if !secure {
		return page
	}
	u, err := url.Parse(page)
	if err != nil {
		return page
	}
	u.Scheme = "https"
	host, port := u.Hostname(), u.Port()
	if len(f.Domain) > 0 {
		host = f.Domain[0]
	}
	if u.Host = net.JoinHostPort(host, port); port == "443" {
		u.Host = strings.TrimSuffix(u.Host, ":443")
	}
	return u.String()
}
