package signalserver_test

import (
	"net"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/pion/stun/v4"

	"github.com/crmesh/crmesh/pkg/signaling/signalserver"
)

func TestSTUN(t *testing.T) {
	t.Run("IPv4", func(t *testing.T) { testSTUN(t, "127.0.0.1", 40) })
	t.Run("IPv6", func(t *testing.T) {
		if l, err := net.ListenPacket("udp", "[::1]:0"); err != nil {
			t.Skip("this machine has no IPv6:", err)
		} else {
			_ = l.Close()
		}
		testSTUN(t, "::1", signalserver.MaxSTUNAnswer)
	})
}

func testSTUN(t *testing.T, host string, length int) {
	server, err := signalserver.ListenSTUN(net.JoinHostPort(host, "0"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	}()
	client, err := net.Dial("udp", net.JoinHostPort(host, strconv.Itoa(server.Port())))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	if err := client.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	send := func(b []byte) {
		t.Helper()
		if _, err := client.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	// None of these may get an answer, or end the responder.
	indication := stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodBinding, stun.ClassIndication))
	allocate := stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodAllocate, stun.ClassRequest))
	success := stun.MustBuild(stun.TransactionID, stun.BindingSuccess)
	lying := stun.MustBuild(stun.TransactionID, stun.BindingRequest, stun.NewSoftware("x"))
	lying.Raw[3] = 200 // longer than the packet
	for _, b := range [][]byte{{}, {0}, []byte("GET / HTTP/1.1\r\n\r\n aaaaaaaaaaaaa"), indication.Raw, allocate.Raw, success.Raw, lying.Raw, make([]byte, 4000)} {
		send(b)
	}
	request := stun.MustBuild(stun.TransactionID, stun.BindingRequest, stun.Fingerprint)
	send(request.Raw)
	buf := make([]byte, 1500)
	n, err := client.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	answer := &stun.Message{Raw: buf[:n]}
	if err := answer.Decode(); err != nil || answer.TransactionID != request.TransactionID || answer.Type != stun.BindingSuccess {
		t.Fatalf("the first answer is %v, %v", answer, err)
	}
	if err := stun.Fingerprint.Check(answer); err != nil {
		t.Error(err)
	}
	var mapped stun.XORMappedAddress
	if err := mapped.GetFrom(answer); err != nil {
		t.Fatal(err)
	}
	got := netip.AddrPortFrom(netip.MustParseAddr(mapped.IP.String()), uint16(mapped.Port))
	if got.String() != client.LocalAddr().String() {
		t.Errorf("mapped address %v, want %v", got, client.LocalAddr())
	}
	if n != length {
		t.Errorf("an answer of %d bytes, want %d", n, length)
	}

	if second, err := signalserver.ListenSTUN(net.JoinHostPort(host, strconv.Itoa(server.Port())), nil); err == nil {
		_ = second.Close()
		t.Error("two responders on one port")
	}
	for _, bad := range []string{"nonsense", "127.0.0.1:99999"} {
		if s, err := signalserver.ListenSTUN(bad, nil); err == nil {
			_ = s.Close()
			t.Errorf("%q is taken for an address", bad)
		}
	}
}
