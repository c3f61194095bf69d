package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/crmesh/crmesh/cmd/internal/program"
	"github.com/crmesh/crmesh/pkg/signaling/signalserver"
	"github.com/crmesh/crmesh/web"
)

// goodbyeTimeout bounds how long a server waits for its connections when it stops.
const goodbyeTimeout = 5 * time.Second

// webServer is an http.Server on a listener, and who waits for it.
type webServer struct {
	http   *http.Server
	served chan error
}

func newWebServer(handler http.Handler, listener net.Listener, log *slog.Logger) *webServer {
	s := &webServer{
		http: &http.Server{
			Handler:           handler,
			ReadHeaderTimeout: 10 * time.Second,
			IdleTimeout:       2 * time.Minute,
			MaxHeaderBytes:    16 << 10,
			ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		},
		served: make(chan error, 1),
	}
	go func() { s.served <- s.http.Serve(listener) }() // close waits for it
	return s
}

// close ends all connections and returns once nothing runs.
func (s *webServer) close() {
	ctx, cancel := context.WithTimeout(context.Background(), goodbyeTimeout)
	defer cancel()
	if s.http.Shutdown(ctx) != nil {
		_ = s.http.Close()
	}
	<-s.served
}

// signalServer is the signaling server and the page in this process.
type signalServer struct {
	url    string // for people and links
	local  string // to reach it from here
	server *signalserver.Server
	web    *webServer
	stun   *signalserver.STUN // nil: off
}

func startSignalServer(listen, stun string, log *slog.Logger) (_ *signalServer, err error) {
	s := &signalServer{}
	defer func() {
		if err != nil && s.stun != nil {
			_ = s.stun.Close()
		}
	}()
	cfg := signalserver.DefaultConfig()
	cfg.Page, cfg.Logger = web.Page(), log
	if stun != "off" {
		if s.stun, err = signalserver.ListenSTUN(stun, log); err != nil {
			return nil, fmt.Errorf("%w (--stun, or --stun off)", err)
		}
		cfg.STUNPort = s.stun.Port()
	}
	if s.server, err = signalserver.New(cfg); err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		_ = s.server.Shutdown(context.Background())
		return nil, fmt.Errorf("cannot listen on %s, choose another address with --serve: %w", listen, err)
	}
	s.url = program.PageURL(listener.Addr(), "localhost")
	s.local = program.PageURL(listener.Addr(), "127.0.0.1")
	s.web = newWebServer(s.server, listener, log)
	return s, nil
}

func (s *signalServer) close(log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), goodbyeTimeout)
	defer cancel()
	var err error
	if s.stun != nil {
		err = s.stun.Close()
	}
	if err := errors.Join(err, s.server.Shutdown(ctx)); err != nil {
		log.Warn("the signaling server did not end in time", "err", err)
	}
	s.web.close()
}
