// Package signalclient keeps one peer a member of one room at a signaling
// server: it joins, comes back after every loss, seals what is sent and opens
// what arrives. docs/SIGNALING.md is the specification.
package signalclient

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/crmesh/crmesh/pkg/signaling"
)

// Config says which room to join, where and as whom. Durations that are 0
// take the default in brackets.
type Config struct {
	// URLs are the addresses of signaling servers, at least one, at most
	// MaxURLs; see signaling.WebSocketURL. They are tried in this order, from
	// the first one again after each loss.
	URLs []string
	// Keys are the keys of the room.
	Keys signaling.Keys
	// Peer is the id of this process; zero: a random one.
	Peer signaling.PeerID
	// Meta is what the others see. Reader follows from Keys, whatever it says.
	Meta signaling.Meta
	// JoinToken is shown to servers that ask for one; "" for none. A server
	// refuses with not-admitted; then the client asks again after the time that
	// the server names, for its operator may change his mind.
	JoinToken string

	// DialTimeout bounds connecting and joining [10 s].
	DialTimeout time.Duration
	// PingInterval is the time between pings, PongTimeout how long the server
	// may then stay silent before the connection counts as dead [15 s, 10 s].
	PingInterval, PongTimeout time.Duration
	// CheckTimeout is how long the server may stay silent after Check [1 s].
	CheckTimeout time.Duration
	// BackoffMin and BackoffMax bound the random wait before the first and the
	// later attempts to reconnect [500 ms, 15 s].
	BackoffMin, BackoffMax time.Duration
	// AbsentGrace is how long a member that a server no longer knows after a
	// reconnect stays in the list, for it may be reconnecting, too [30 s].
	AbsentGrace time.Duration

	// HTTPClient dials; nil: a client of its own with the environment's proxy.
	// Close closes its idle connections.
	HTTPClient *http.Client
	// Logger may be nil: nothing is logged.
	Logger *slog.Logger
}

const (
	// MaxURLs bounds Config.URLs.
	MaxURLs = 16
	// MaxMembers bounds the member list; a server that names more is not
	// believed.
	MaxMembers = 4096
)

// check fills in defaults and returns all that is wrong.
func (c *Config) check() error {
	var errs []error
	if len(c.URLs) == 0 || len(c.URLs) > MaxURLs {
		errs = append(errs, fmt.Errorf("name 1 to %d signaling servers, not %d", MaxURLs, len(c.URLs)))
	}
	urls := make([]string, 0, len(c.URLs))
	for _, u := range c.URLs {
		ws, err := signaling.WebSocketURL(u)
		if err != nil {
			errs = append(errs, err)
		}
		urls = append(urls, ws)
	}
	c.URLs = urls
	if c.Keys.Room == (signaling.RoomID{}) {
		errs = append(errs, errors.New("the signaling client needs the keys of a room"))
	}
	c.Meta.Reader = !c.Keys.CanWrite()
	if err := c.Meta.Check(); err != nil {
		errs = append(errs, err)
	}
	if c.JoinToken != "" {
		if err := signaling.CheckJoinToken(c.JoinToken); err != nil {
			errs = append(errs, err)
		}
	}
	for _, d := range []struct {
		value *time.Duration
		def   time.Duration
	}{
		{&c.DialTimeout, 10 * time.Second},
		{&c.PingInterval, 15 * time.Second},
		{&c.PongTimeout, 10 * time.Second},
		{&c.CheckTimeout, time.Second},
		{&c.BackoffMin, 500 * time.Millisecond},
		{&c.BackoffMax, 15 * time.Second},
		{&c.AbsentGrace, 30 * time.Second},
	} {
		if *d.value == 0 {
			*d.value = d.def
		}
		if *d.value < 0 {
			errs = append(errs, errors.New("the times of the signaling client must not be negative"))
		}
	}
	if c.Peer == (signaling.PeerID{}) {
		peer, err := signaling.NewPeerID(rand.Reader)
		if err != nil {
			errs = append(errs, err)
		}
		c.Peer = peer
	}
	if c.HTTPClient == nil {
		c.HTTPClient = &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment}}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return errors.Join(errs...)
}
