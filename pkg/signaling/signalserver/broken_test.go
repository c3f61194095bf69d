package signalserver_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/crmesh/crmesh/pkg/signaling"
	"github.com/crmesh/crmesh/pkg/signaling/signalserver"
)

// rawWebSocket is a connection after the handshake, for frames that no library sends.
func (h *harness) rawWebSocket(t *testing.T) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", h.web.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, "GET /v1/signal HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: "+signaling.Subprotocol+"\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if answer, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || answer.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("got %v, %v", answer, err)
	}
	return c.(*net.TCPConn)
}

// Bytes that are no frames of a WebSocket client end the connection and are counted; a connection that ends in whatever way is
// no fault of anybody.
func TestBrokenFramesAreCounted(t *testing.T) {
	h := start(t, nil)
	broken := []string{
		"\x81\x02{}",           // not masked
		"\xc1\x80abcd",         // a reserved bit
		"\x83\x80abcd",         // a reserved kind
		"\x89\xfe\x00\xc8abcd", // a ping of 200 bytes
		"\x09\x80abcd",         // a ping in parts
		"\x80\x80abcd",         // goes on with nothing
		"\x81\xff\xff\xff\xff\xff\xff\xff\xff\xffabcd",      // longer than there are numbers
		"\x01\x81\x00\x00\x00\x00{\x81\x80\x00\x00\x00\x00", // a message within another
	}
	for _, bytes := range broken {
		c := h.rawWebSocket(t)
		if _, err := io.WriteString(c, bytes); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, c); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%q: %v", bytes, err)
		}
	}
	h.expectSamples(t, map[string]float64{"refusals_total{bad-message}": float64(len(broken)), "connections": 0})
	for _, end := range []func(*net.TCPConn){
		func(c *net.TCPConn) { _ = c.Close() },
		func(c *net.TCPConn) { _ = c.CloseWrite() },
		func(c *net.TCPConn) { _ = c.SetLinger(0); _ = c.Close() },                     // RST
		func(c *net.TCPConn) { _, _ = c.Write([]byte("\x81\xfe\x01")); _ = c.Close() }, // in a header
		func(c *net.TCPConn) { _, _ = c.Write([]byte("\x81\x85abcd{")); _ = c.Close() },
		func(c *net.TCPConn) { _, _ = c.Write([]byte("\x88\x80abcd")); _ = c.Close() }, // a close frame without a code
		func(c *net.TCPConn) { _, _ = c.Write([]byte("\x88\x82\x00\x00\x00\x00\x03\xe9")); _ = c.Close() },
	} {
		end(h.rawWebSocket(t))
	}
	h.expectSamples(t, map[string]float64{"connections": 0, "refusals_total{bad-message}": float64(len(broken))})
}

// Those who are refused with much on its way hear why, and are read from in turn: not faster than a piece in each pause, however
// many they are. That leaves the processors to others.
func TestTheRefusedAreReadInTurn(t *testing.T) {
	h := start(t, nil)
	const refused, size = 8, 3 << 19
	all := make([]*net.TCPConn, refused)
	for i := range all {
		all[i] = h.rawWebSocket(t)
	}
	flood := append([]byte("\x82\xff\x00\x00\x00\x00\x00\x18\x00\x00abcd"), make([]byte, size)...)
	flood = append(flood, "\x88\x80abcd"...) // says goodbye, too
	began := time.Now()
	var wg sync.WaitGroup
	for _, c := range all {
		wg.Go(func() {
			if _, err := c.Write(flood); err != nil {
				t.Error(err)
			}
			if got, err := io.ReadAll(c); err != nil || !strings.Contains(string(got), `"code":"too-large"`) {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
	wg.Wait()
	least := time.Duration(refused*(size-signaling.MaxClientFrame-4<<10)/signalserver.LingerTurn) * signalserver.LingerPause
	if took := time.Since(began); took < least*9/10 {
		t.Errorf("%d bytes of each of %d are read in %v, and not in %v", size, refused, took, least)
	}
}
