package main

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"

	"github.com/crmesh/crmesh/pkg/signaling/signaltest"
)

// TestClientErrors: what a command says where the API's address has another program behind it, or a peer that ends meanwhile. Only
// the latter is worth another try.
func TestClientErrors(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
	reset := func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0) }
	say := func(text string) func(net.Conn) {
		return func(c net.Conn) {
			_, _ = http.ReadRequest(bufio.NewReader(c))
			_, _ = io.WriteString(c, text)
		}
	}
	const gone, foreign = "is `peer run` running?", "is not a peer"
	for name, c := range map[string]struct {
		serve func(net.Conn) // the connection is closed after it
		want  string
	}{
		"closed at once":        {func(net.Conn) {}, gone},
		"reset at once":         {reset, gone},
		"closed after reading":  {say(""), gone},
		"reset after reading":   {func(c net.Conn) { say("")(c); reset(c) }, gone},
		"no body":               {say(head + "Content-Length: 20\r\n\r\n"), gone},
		"half a body":           {say(head + "Content-Length: 20\r\n\r\n{\"members\":"), gone},
		"half a chunk":          {say(head + "Transfer-Encoding: chunked\r\n\r\n14\r\n{\"members\":"), gone},
		"no HTTP":               {say("SSH-2.0-OpenSSH_9.6\r\n"), foreign},
		"no HTTP, and first":    {func(c net.Conn) { _, _ = io.WriteString(c, "SSH-2.0-OpenSSH_9.6\r\n"); _, _ = io.Copy(io.Discard, c) }, foreign},
		"a head that is none":   {say("HTTP/1.1 200 OK\r\nwhat is this\r\n\r\n"), foreign},
		"chunks that are none":  {say(head + "Transfer-Encoding: chunked\r\n\r\nwhat is this\r\n"), foreign},
		"no JSON":               {say(head + "Content-Length: 5\r\n\r\n<html"), foreign},
		"a redirect to nothing": {say("HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"), foreign},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := apiFlags{API: serveConns(t, c.serve)}
			for _, body := range []any{nil, map[string]string{"sql": "SELECT 1"}} {
				var answer map[string]any
				err := f.call(t.Context(), "/v1/query", body, &answer)
				var unreachable *errUnreachable
				if err == nil || !strings.Contains(err.Error(), c.want) || errors.As(err, &unreachable) != (c.want == gone) {
					t.Errorf("with the body %v it said %v; want %q", body, err, c.want)
				}
			}
		})
	}
}

// TestClientClosedBeforeRequest: a peer that is killed between the connection and the request is not there, which net/http tells with
// an error of its own.
func TestClientClosedBeforeRequest(t *testing.T) {
	t.Parallel()
	f := apiFlags{API: serveConns(t, func(net.Conn) {})}
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		eventually(t, "net/http sees that the connection was closed", func() bool {
			_, err := info.Conn.Write(nil)
			return errors.Is(err, net.ErrClosed)
		})
	}})
	var answer execAnswer
	err := f.call(ctx, "/v1/exec", statement{SQL: "SELECT 1"}, &answer)
	var unreachable *errUnreachable
	if !errors.As(err, &unreachable) {
		t.Errorf("it said %v", err)
	}
}

// serveConns accepts connections and closes each when serve returns.
func serveConns(t *testing.T, serve func(net.Conn)) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	signaltest.Accept(t, l, func(c net.Conn) {
		serve(c)
		_ = c.Close()
	})
	return l.Addr().String()
}
