package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"
)

// apiFlags are the flags of a command that talks to a running peer.
type apiFlags struct {
	API string `name:"api" default:"127.0.0.1:7070" placeholder:"HOST:PORT" help:"Address of the running peer's API (${default})."`
}

// errUnreachable says that nobody answers.
type errUnreachable struct {
	address string
	err     error
}

func (e *errUnreachable) Error() string {
	return fmt.Sprintf("no peer answers at %s; is `peer run` running?", e.address)
}

func (e *errUnreachable) Unwrap() error { return e.err }

// call sends a request to the API and decodes the answer into out. A nil body makes it a GET.
func (f apiFlags) call(ctx context.Context, path string, body, out any) error {
	return f.stream(ctx, path, body, func(d *json.Decoder) error { return d.Decode(out) })
}

// stream is call for an answer that read decodes. What read returns is taken for the decoder's.
func (f apiFlags) stream(ctx context.Context, path string, body any, read func(*json.Decoder) error) error {
	if _, _, err := net.SplitHostPort(f.API); err != nil {
		return fmt.Errorf("the address %q of the API is not like 127.0.0.1:7070", f.API)
	}
	var answered atomic.Bool
	transport := &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &answeredConn{conn, &answered}, nil
	}}
	defer transport.CloseIdleConnections()
	// A peer redirects nobody.
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	method, reader := http.MethodGet, io.Reader(nil)
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return err
		}
		method, reader = http.MethodPost, bytes.NewReader(encoded)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://"+f.API+path, reader)
	if err != nil {
		return fmt.Errorf("the address %q of the API is not like 127.0.0.1:7070", f.API)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return f.failed(ctx, err, answered.Load())
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		var refused struct {
			Error string `json:"error"`
		}
		if err := json.NewDecoder(io.LimitReader(response.Body, 1<<20)).Decode(&refused); err != nil || refused.Error == "" {
			return fmt.Errorf("what answers at %s is not a peer (%s)", f.API, response.Status)
		}
		return errors.New(refused.Error)
	}
	if err := read(json.NewDecoder(response.Body)); err != nil {
		return f.failed(ctx, err, true)
	}
	return nil
}

// failed says why a request has no answer that can be read; answered: something was read from the connection. Only in words of its
// own, which nobody can tell apart, does net/http say that a peer which was killed had closed the connection, or that what came is no
// HTTP: so it is the bytes that count.
func (f apiFlags) failed(ctx context.Context, err error, answered bool) error {
	var op *net.OpError
	switch {
	case ctx.Err() != nil:
		return errors.New("interrupted")
	case !answered, errors.As(err, &op), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return &errUnreachable{f.API, err}
	default:
		return fmt.Errorf("what answers at %s is not a peer", f.API)
	}
}

// answeredConn notes that something was read.
type answeredConn struct {
	net.Conn
	answered *atomic.Bool
}

func (c *answeredConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.answered.Store(true)
	}
	return n, err
}

// untilThere repeats a call while nobody answers at all, until deadline.
func untilThere(ctx context.Context, deadline time.Time, call func() error) error {
	const pause = 100 * time.Millisecond
	for {
		err := call()
		var gone *errUnreachable
		if !errors.As(err, &gone) || time.Now().Add(pause).After(deadline) {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		}
	}
}

func query(pairs ...string) string {
	v := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		v.Set(pairs[i], pairs[i+1])
	}
	return v.Encode()
}
