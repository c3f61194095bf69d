//go:build linux

package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"

	"github.com/crmesh/crmesh/pkg/signaling"
)

// ending sends bytes on a WebSocket and checks how the server ends it: with a code of the protocol, or, where that is "",
// with a close frame of that status (0: without one).
func (v *victim) ending(name string, b []byte, code signaling.Code, status int) error {
	c, err := v.webSocket(0)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Write(b); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if code != "" {
		status = code.Close()
	}
	if gotCode, gotStatus := c.end(); gotCode != code || gotStatus != status {
		return fmt.Errorf("%s ends with %q and %d, want %q and %d", name, gotCode, gotStatus, code, status)
	}
	return nil
}

// notText sends what is no text, no JSON, or no message.
func notText(v *victim) error {
	join := func(meta string) string {
		return `{"type":"join","room":"AAAAAAAAAAAAAAAAAAAAAA","peer":"AQAAAAAAAAAAAAAAAAAAAA","meta":` + meta + `}`
	}
	const badText, badMessage = signaling.CodeBadUTF8, signaling.CodeBadMessage
	var errs []error
	for name, c := range map[string]struct {
		text string
		code signaling.Code
	}{
		"a lone byte":          {"\xff", badText},
		"half a character":     {join(`{"name":"` + "\xe2\x82" + `"}`), badText},
		"a surrogate":          {join(`{"name":"` + "\xed\xa0\x80" + `"}`), badText},
		"nothing":              {"", badMessage},
		"nul bytes":            {strings.Repeat("\x00", 100), badMessage},
		"no object":            {"[]", badMessage},
		"deep arrays":          {`{"type":"ping","x":` + strings.Repeat("[", 60_000), badMessage},
		"deep objects":         {strings.Repeat(`{"x":`, 12_000), badMessage},
		"thousands of fields":  {`{"type":"ping"` + strings.Repeat(`,"":1`, 12_000) + `}`, badMessage},
		"a long number":        {`{"type":` + strings.Repeat("1", 60_000) + `}`, badMessage},
		"control characters":   {join(`{"name":"\u0000"}`), badMessage},
		"a room of 15 bytes":   {`{"type":"join","room":"AAAAAAAAAAAAAAAAAAAA","peer":"AQAAAAAAAAAAAAAAAAAAAA"}`, badMessage},
		"a signal and no join": {`{"type":"signal","to":"AQAAAAAAAAAAAAAAAAAAAA","sealed":"AQID"}`, badMessage},
	} {
		errs = append(errs, v.ending(name, wireFrame(fin|opText, []byte(c.text)), c.code, 0))
	}
	errs = append(errs, v.ending("binary", wireFrame(fin|opBinary, []byte(`{"type":"ping"}`)), signaling.CodeBinary, 0))
	return errors.Join(errs...)
}

// bombs are frames that are more than they seem.
func bombs(v *victim) error {
	const protocolError = 1002
	start := func(length uint64) []byte {
		return append(wireHeader(fin|opText, length), bytes.Repeat([]byte(" "), signaling.MaxClientFrame+1)...)
	}
	fragment := func(first byte) []byte { return wireFrame(first, bytes.Repeat([]byte(" "), 16<<10)) }
	var errs []error
	for _, c := range []struct {
		name   string
		b      []byte
		code   signaling.Code
		status int
	}{
		{"a compressed frame", wireFrame(fin|rsv1|opText, []byte("\xaa\x56\x2a")), "", protocolError},
		{"64 KiB and a byte", start(signaling.MaxClientFrame + 1), signaling.CodeTooLarge, 0},
		{"2^63-1 bytes", start(math.MaxInt64), signaling.CodeTooLarge, 0},
		{"2^63 bytes", start(1 << 63), signaling.CodeBadMessage, 0},
		{"fragments of 80 KiB", slices.Concat(fragment(opText), bytes.Repeat(fragment(opContinuation), 4)), signaling.CodeTooLarge, 0},
		{"no mask", []byte{fin | opText, 2, '{', '}'}, signaling.CodeBadMessage, 0},
		{"an opcode of nobody", wireFrame(fin|3, nil), "", protocolError},
		{"a fragmented ping", wireFrame(opPing, nil), "", protocolError},
		{"a long ping", wireFrame(fin|opPing, make([]byte, 126)), "", protocolError},
		{"a continuation of nothing", wireFrame(fin|opContinuation, nil), "", protocolError},
	} {
		errs = append(errs, v.ending(c.name, c.b, c.code, c.status))
	}
	// Those that never end are cut off.
	for name, c := range map[string]struct{ once, again []byte }{
		"a frame of 2^63-1 bytes":  {wireHeader(fin|opText, math.MaxInt64), bytes.Repeat([]byte(" "), 64<<10)},
		"a message without an end": {fragment(opText), fragment(opContinuation)},
	} {
		flooder, err := v.webSocket(0)
		if err != nil {
			return err
		}
		if _, err = flooder.Write(c.once); err == nil {
			err = flooder.floodedOut(c.again, signaling.CodeTooLarge)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	// Compression, if asked for, is not agreed on.
	c, err := v.dial()
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	response, err := c.ask(strings.Replace(upgradeRequest, "\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n", 1))
	if err == nil && (response.StatusCode != http.StatusSwitchingProtocols || response.Header.Get("Sec-WebSocket-Extensions") != "") {
		err = fmt.Errorf("compression: HTTP %d %v", response.StatusCode, response.Header)
	}
	return errors.Join(append(errs, err)...)
}

// answers sends a request on a connection of its own and checks the status of the answer; 0: any below 500, or none.
func (v *victim) answers(name, request string, want int) error {
	c, err := v.dial()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer func() { _ = c.Close() }()
	response, err := c.ask(request)
	if err != nil {
		if want == 0 {
			return nil
		}
		return fmt.Errorf("%s: %w", name, err)
	}
	if want == 0 && response.StatusCode >= 500 || want != 0 && response.StatusCode != want {
		return fmt.Errorf("%s: HTTP %d, want %d", name, response.StatusCode, want)
	}
	return nil
}

// headers are large, many, or strange.
func headers(v *victim) error {
	const tooLarge = http.StatusRequestHeaderFieldsTooLarge
	get := func(headers string) string { return "GET / HTTP/1.1\r\nHost: h\r\n" + headers + "\r\n" }
	return errors.Join(
		v.answers("a header of 64 KiB", get("X: "+strings.Repeat("x", 64<<10)+"\r\n"), tooLarge),
		v.answers("a megabyte without an end", get("X: "+strings.Repeat("x", 1<<20)), 0),
		v.answers("3,000 headers", get(strings.Repeat("X: y\r\n", 5000)), tooLarge),
		v.answers("a path of 64 KiB", "GET /"+strings.Repeat("x", 64<<10)+" HTTP/1.1\r\nHost: h\r\n\r\n", tooLarge),
		v.answers("no host", "GET / HTTP/1.1\r\n\r\n", 400),
		v.answers("two hosts", get("Host: i\r\n"), 400),
		v.answers("a header without a name", get(": x\r\n"), 400),
		v.answers("a NUL in a header", get("X: \x00\r\n"), 400),
		v.answers("two lengths", get("Content-Length: 1\r\nContent-Length: 2\r\n"), 400),
		v.answers("a negative length", get("Content-Length: -1\r\n"), 400),
		v.answers("an upgrade with 15 KiB of protocols", strings.Replace(upgradeRequest, "\r\n\r\n",
			"\r\nSec-WebSocket-Protocol: "+strings.Repeat("x,", 7<<10)+"\r\n\r\n", 1), 101),
	)
}

// noUpgrade asks for a WebSocket without what belongs to it.
func noUpgrade(v *victim) error {
	without := func(line string) string { return strings.Replace(upgradeRequest, line+"\r\n", "", 1) }
	foreign := strings.Replace(upgradeRequest, "\r\n\r\n", "\r\nOrigin: https://elsewhere.example\r\n\r\n", 1)
	errs := []error{
		v.answers("no headers", "GET /v1/signal HTTP/1.1\r\nHost: h\r\n\r\n", 426),
		v.answers("HTTP/1.0", strings.Replace(upgradeRequest, "HTTP/1.1", "HTTP/1.0", 1), 426),
		v.answers("no upgrade", without("Upgrade: websocket"), 426),
		v.answers("no connection", without("Connection: Upgrade"), 426),
		v.answers("no version", without("Sec-WebSocket-Version: 13"), 400),
		v.answers("no key", without("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="), 400),
		v.answers("a foreign page", foreign, 403),
		v.answers("POST", "POST"+strings.TrimPrefix(upgradeRequest, "GET"), 405),
	}
	c, err := v.dial()
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if _, err := c.ask(without("Sec-WebSocket-Protocol: " + signaling.Subprotocol)); err != nil {
		return err
	}
	if code, status := c.end(); code != signaling.CodeSubprotocol || status != code.Close() {
		errs = append(errs, fmt.Errorf("no subprotocol: %q, %d", code, status))
	}
	return errors.Join(errs...)
}

// oddRequests are requests that a page does not make.
func oddRequests(v *victim) error {
	var errs []error
	for _, method := range []string{"HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "PRI", "X"} {
		for _, path := range []string{"/", "/healthz", "/readyz", "/v1/signal", "/index.html", "/metrics", "/debug/pprof/", "*"} {
			want := http.StatusMethodNotAllowed
			if method == "HEAD" || path == "*" || method == "PRI" {
				want = 0
			}
			errs = append(errs, v.answers(method+" "+path, method+" "+path+" HTTP/1.1\r\nHost: h\r\n\r\n", want))
		}
	}
	for _, path := range []string{"/../../../../etc/passwd", "/assets/../../../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/..%2f..%2fetc%2fpasswd",
		"/..\\..\\etc\\passwd", "//etc/passwd", "/assets/", "/assets", "/%00", "/index.html%00.js", "/.git/config", "/web/dist/index.html", "/index.html.br", "/CON"} {
		errs = append(errs, v.page(path))
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = z.Write(make([]byte, 64<<20))
	_ = z.Close()
	post := func(path, headers, body string) string {
		return "POST " + path + " HTTP/1.1\r\nHost: h\r\n" + headers + "\r\n" + body
	}
	for _, path := range []string{"/", "/v1/signal", "/healthz"} {
		errs = append(errs,
			v.answers("a body that is gzip", post(path, fmt.Sprintf("Content-Encoding: gzip\r\nContent-Length: %d\r\n", zipped.Len()), zipped.String()), 405),
			v.answers("a body of a terabyte", post(path, "Content-Length: 1000000000000\r\n", strings.Repeat("x", 64<<10)), 405),
			v.answers("a body that does not come", post(path, "Content-Length: 10\r\nExpect: 100-continue\r\n", ""), 405),
			v.answers("chunks of a bad size", post(path, "Transfer-Encoding: chunked\r\n", "ffffffffffffffffff\r\n"), 0),
			v.answers("a transfer of nobody", post(path, "Transfer-Encoding: gzip\r\n", ""), 501),
		)
	}
	errs = append(errs,
		v.answers("chunks with GET", "GET /healthz HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 200),
		v.answers("chunks with an upgrade", strings.Replace(upgradeRequest, "\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 1), 0),
		v.answers("HTTP/1.0", "GET /healthz HTTP/1.0\r\n\r\n", 200),
		v.answers("HTTP/0.9", "GET /healthz\r\n\r\n", 400),
		v.answers("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0),
		v.answers("HTTP/9.9", "GET / HTTP/9.9\r\nHost: h\r\n\r\n", 505),
		v.answers("an absolute address", "GET http://elsewhere.example/healthz HTTP/1.1\r\nHost: h\r\n\r\n", 200),
		v.answers("CONNECT", "CONNECT elsewhere.example:443 HTTP/1.1\r\nHost: elsewhere.example:443\r\n\r\n", 405),
		v.answers("TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 0),
		v.answers("lines without CR", "GET /healthz HTTP/1.1\nHost: h\n\n", 200),
		v.pipelined(),
	)
	return errors.Join(errs...)
}

// page asks for a path as it is, and follows one redirect: there must be nothing of the machine behind it.
func (v *victim) page(path string) error {
	for range 2 {
		c, err := v.dial()
		if err != nil {
			return err
		}
		response, err := c.ask("GET " + path + " HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
		if err != nil {
			_ = c.Close()
			return fmt.Errorf("%q: %w", path, err)
		}
		body, _ := io.ReadAll(io.LimitReader(response.Body, 64<<10))
		_ = c.Close()
		switch location := response.Header.Get("Location"); {
		case strings.Contains(string(body), "root:") || strings.Contains(string(body), "<pre>"):
			return fmt.Errorf("%q shows %q", path, body)
		case location != "":
			if !strings.HasPrefix(location, "/") || strings.HasPrefix(location, "//") {
				return fmt.Errorf("%q leads to %q", path, location)
			}
			path = location
		case response.StatusCode != http.StatusNotFound && response.StatusCode != http.StatusBadRequest:
			return fmt.Errorf("%q: HTTP %d", path, response.StatusCode)
		default:
			return nil
		}
	}
	return nil
}

// pipelined sends requests at once: they are answered in their order, and a WebSocket ends them.
func (v *victim) pipelined() error {
	c, err := v.dial()
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	paths := []string{"/healthz", "/nowhere", "/readyz", "/healthz"}
	var all strings.Builder
	for _, p := range paths {
		all.WriteString("GET " + p + " HTTP/1.1\r\nHost: h\r\n\r\n")
	}
	if _, err := io.WriteString(c, all.String()+upgradeRequest+"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"); err != nil {
		return err
	}
	for i, want := range []int{200, 404, 200, 200, 101} {
		response, err := http.ReadResponse(c.r, nil)
		if err != nil || response.StatusCode != want {
			return fmt.Errorf("request %d of a pipeline: %v, %w", i, response, err)
		}
		if want != 101 {
			_, _ = io.Copy(io.Discard, response.Body)
		}
	}
	if c.r.Buffered() > 0 && bytes.HasPrefix(peek(c.r), []byte("HTTP/")) {
		return errors.New("a request behind an upgrade is answered as HTTP")
	}
	return nil
}

func peek(r *bufio.Reader) []byte {
	b, _ := r.Peek(r.Buffered())
	return b
}
