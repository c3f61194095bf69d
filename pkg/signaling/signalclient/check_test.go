package signalclient_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/crmesh/crmesh/pkg/signaling/signalclient"
)

// A server that falls silent without a word, as when an address is gone, is left soon after a check, and joined again at once.
func TestCheckOfADeadServer(t *testing.T) {
	url := fakeServer(t, func(ctx context.Context, _ *websocket.Conn) { <-ctx.Done() })
	c := startClient(t, signalclient.Config{
		URLs: []string{url}, Keys: newKeys(t), PingInterval: time.Hour, PongTimeout: time.Hour, CheckTimeout: 20 * time.Millisecond,
		BackoffMin: time.Hour, BackoffMax: time.Hour,
	})
	await[signalclient.Joined](t, c, nil)
	c.Check()
	d := await[signalclient.Disconnected](t, c, nil)
	if !strings.Contains(d.Err.Error(), "since the network changed") || d.RetryIn != 0 {
		t.Fatalf("%v, again in %v", d.Err, d.RetryIn)
	}
	await[signalclient.Joined](t, c, nil)
}

// departed is a connection from an address that no machine has (RFC 5737).
type departed struct{ net.Conn }

func (departed) LocalAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1} }

// A server is left at once when the connection goes from an address that is no more.
func TestCheckOfAGoneAddress(t *testing.T) {
	url := fakeServer(t, func(ctx context.Context, _ *websocket.Conn) { <-ctx.Done() })
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, address)
		return departed{c}, err
	}
	c := startClient(t, signalclient.Config{
		URLs: []string{url}, Keys: newKeys(t), PingInterval: time.Hour, PongTimeout: time.Hour, CheckTimeout: time.Hour,
		BackoffMin: time.Hour, BackoffMax: time.Hour, HTTPClient: &http.Client{Transport: &http.Transport{DialContext: dial}},
	})
	for range 2 {
		await[signalclient.Joined](t, c, nil)
		c.Check()
		if d := await[signalclient.Disconnected](t, c, nil); d.RetryIn != 0 {
			t.Fatalf("%v, again in %v", d.Err, d.RetryIn)
		}
	}
}

// A server that answers stays.
func TestCheckOfALiveServer(t *testing.T) {
	url, pings := answeringServer(t)
	c := startClient(t, signalclient.Config{URLs: []string{url}, Keys: newKeys(t), PingInterval: 30 * time.Millisecond})
	await[signalclient.Joined](t, c, nil)
	c.Check()
	stays(t, c, pings)
}

// A check ends the wait for the next attempt, but not one that the server asked for.
func TestCheckEndsAWait(t *testing.T) {
	attempts := make(chan struct{}, 100)
	var retryAfter atomic.Bool
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		attempts <- struct{}{}
		if retryAfter.Load() {
			w.Header().Set("Retry-After", "60")
		}
		w.WriteHeader(http.StatusTooManyRequests)
	}))
	t.Cleanup(web.Close)
	cfg := signalclient.Config{URLs: []string{web.URL}, Keys: newKeys(t), BackoffMin: time.Hour, BackoffMax: time.Hour}
	c := startClient(t, cfg)
	for range 3 {
		<-attempts
		await[signalclient.Disconnected](t, c, nil)
		c.Check()
	}
	<-attempts
	c.Close()
	retryAfter.Store(true)
	c = startClient(t, cfg)
	<-attempts
	await[signalclient.Disconnected](t, c, nil)
	c.Check()
	c.Close() // waits for everything: had the check begun an attempt, it would have been seen
	select {
	case <-attempts:
		t.Error("the server's wish was not respected")
	default:
	}
}

// An attempt that hangs, since its packets go nowhere, is begun anew.
func TestCheckOfAHangingAttempt(t *testing.T) {
	requests := make(chan struct{}, 100)
	release := make(chan struct{})
	web := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		requests <- struct{}{}
		<-release // and say nothing
	}))
	t.Cleanup(func() { close(release); web.Close() })
	c := startClient(t, signalclient.Config{URLs: []string{web.URL}, Keys: newKeys(t), DialTimeout: time.Hour})
	for range 3 {
		select {
		case <-requests:
		case <-time.After(patience):
			t.Fatal("no attempt was made")
		}
		c.Check()
		await[signalclient.Disconnected](t, c, nil)
	}
}
