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
	"syscall"
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
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
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
		return f.unreachable(ctx, err)
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
		if ctx.Err() != nil || !isSyntax(err) {
			return f.unreachable(ctx, err)
		}
		return fmt.Errorf("what answers at %s is not a peer", f.API)
	}
	return nil
}

func isSyntax(err error) bool {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	return errors.As(err, &syntax) || errors.As(err, &kind)
}

func (f apiFlags) unreachable(ctx context.Context, err error) error {
	var op *net.OpError
	switch {
	case ctx.Err() != nil:
		return errors.New("interrupted")
	case errors.Is(err, syscall.ECONNREFUSED), errors.As(err, &op), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return &errUnreachable{f.API, err}
	default:
		return fmt.Errorf("the peer at %s did not answer: %w", f.API, err)
	}
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
