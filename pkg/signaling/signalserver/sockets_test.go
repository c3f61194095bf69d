package signalserver_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/crmesh/crmesh/pkg/signaling"
	"github.com/crmesh/crmesh/pkg/signaling/signalserver"
	"github.com/crmesh/crmesh/pkg/signaling/signaltest"
)

// listen is a Listener of the server, and a way to connect to it and to know whether it lets one in.
func (h *harness) listen(t *testing.T) (dial func() (in bool, end func())) {
	t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := h.Listener(inner)
	accepted := make(chan net.Conn)
	signaltest.Accept(t, l, func(c net.Conn) { accepted <- c })
	return func() (bool, func()) {
		t.Helper()
		c, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		refused := make(chan error, 1)
		go func() { // ends with c
			_, err := c.Read(make([]byte, 1))
			refused <- err
		}()
		select {
		case s := <-accepted:
			t.Cleanup(func() { _ = s.Close() })
			return true, func() { _ = errors.Join(s.Close(), s.Close()) } // twice counts once
		case err := <-refused:
			if !errors.Is(err, io.EOF) && !errors.As(err, new(*net.OpError)) {
				t.Fatal(err)
			}
			return false, nil
		case <-time.After(patience):
			t.Fatal("a connection is neither let in nor closed")
			return false, nil
		}
	}
}

func TestSocketLimits(t *testing.T) {
	h := start(t, func(c *signalserver.Config) { c.MaxSocketsPerAddress, c.JoinBurst = 2, 1 })
	dial := h.listen(t)
	_, end := dial()
	for i, want := range []bool{true, false, false} {
		if in, _ := dial(); in != want {
			t.Errorf("socket %d: let in: %v", i+2, in)
		}
	}
	end()
	if in, _ := dial(); !in {
		t.Error("the place of a socket that was closed is not free")
	}
	h.expectSamples(t, map[string]float64{"refusals_total{http-address-sockets}": 2, "refusals_total{http-sockets}": 0})

	// A proxy speaks for many, and counts in all only.
	proxied := start(t, func(c *signalserver.Config) {
		c.MaxSockets, c.MaxSocketsPerAddress, c.JoinBurst = 3, 1, 1
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	dial = proxied.listen(t)
	for i, want := range []bool{true, true, true, false} {
		if in, _ := dial(); in != want {
			t.Errorf("socket %d of a proxy: let in: %v", i+1, in)
		}
	}
	proxied.expectSamples(t, map[string]float64{"refusals_total{http-address-sockets}": 0, "refusals_total{http-sockets}": 1})
}

func TestRequestRate(t *testing.T) {
	h := start(t, func(c *signalserver.Config) {
		c.RequestRate, c.RequestBurst, c.JoinRate, c.JoinBurst = 0.01, 6, 0.001, 1
	})
	a, _ := h.join(t, signaling.RoomID{4}) // one
	for range 5 {
		if status, _ := get(t, h, "/healthz"); status != http.StatusOK {
			t.Fatalf("HTTP %d", status)
		}
	}
	started := time.Now()
	response, err := h.web.Client().Get(h.web.URL + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusTooManyRequests || response.Header.Get("Retry-After") == "" || !response.Close {
		t.Errorf("one too many: HTTP %d %v", response.StatusCode, response.Header)
	}
	if took := time.Since(started); took < 900*time.Millisecond { // no limit above: what is late is late enough
		t.Errorf("it is answered after %v", took)
	}
	h.expectSamples(t, map[string]float64{"refusals_total{http-rate}": 1})
	a.expectQuiet() // who is in stays
}

// A socket on which no request comes in time is counted; one that has had its answer, or is closed by the other end, is not.
func TestRequestTimeoutIsCounted(t *testing.T) {
	h := start(t, nil)
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	web := &http.Server{Handler: h.Server, ConnContext: h.ConnContext, ReadHeaderTimeout: 50 * time.Millisecond, IdleTimeout: 50 * time.Millisecond}
	done := make(chan error, 1)
	go func() { done <- web.Serve(h.Listener(inner)) }() // ends with Close
	defer func() {
		_ = web.Close()
		<-done
	}()
	for _, sent := range []string{"", "GET / HTTP/1.1\r\nHo", "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"} {
		c, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		if _, err := io.WriteString(c, sent); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, c); err != nil { // until the server closes it
			t.Fatal(err)
		}
	}
	gone, err := net.Dial("tcp", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = gone.Close()
	h.expectSamples(t, map[string]float64{"refusals_total{http-timeout}": 2})
}
