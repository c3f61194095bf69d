// Package natstest runs a real NATS server inside a test. No program imports it.
package natstest

import (
	"fmt"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// patience bounds the start of a server.
const patience = 20 * time.Second

// Server is a NATS server on a port of loopback, which it keeps when it is stopped and started again.
type Server struct {
	t       testing.TB
	options *server.Options
	running *server.Server
}

// Start starts a server, which ends with the test. change may alter its options.
func Start(t testing.TB, change func(*server.Options)) *Server {
	t.Helper()
	s := &Server{t: t, options: &server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true}}
	if change != nil {
		change(s.options)
	}
	s.Start()
	s.options.Port = s.running.Addr().(*net.TCPAddr).Port
	t.Cleanup(s.Stop)
	return s
}

// URL returns the address for clients, without a password.
func (s *Server) URL() string { return fmt.Sprintf("nats://%s", s.Address()) }

// Address returns host:port.
func (s *Server) Address() string {
	return net.JoinHostPort(s.options.Host, strconv.Itoa(s.options.Port))
}

// Change alters the options of the next Start.
func (s *Server) Change(f func(*server.Options)) { f(s.options) }

// Start starts the server again after Stop.
func (s *Server) Start() {
	s.t.Helper()
	running, err := server.NewServer(s.options.Clone())
	if err != nil {
		s.t.Fatal(err)
	}
	go running.Start() // ends with Stop
	if !running.ReadyForConnections(patience) {
		s.t.Fatal("NATS does not start")
	}
	s.running = running
}

// Stop stops the server and waits for its end. It may be called more than once.
func (s *Server) Stop() {
	if s.running != nil {
		s.running.Shutdown()
		s.running.WaitForShutdown()
		s.running = nil
	}
}
