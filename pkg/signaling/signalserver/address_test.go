package signalserver

import (
	"net/http"
	"net/netip"
	"testing"
)

func TestClientAddress(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fe80::/64")}
	for _, c := range []struct{ remote, forwarded, want string }{
		{"192.0.2.1:5", "", "192.0.2.1/32"},
		{"192.0.2.1:5", "198.51.100.7", "192.0.2.1/32"}, // a client that lies
		{"10.0.0.1:5", "198.51.100.7", "198.51.100.7/32"},
		{"10.0.0.1:5", "203.0.113.9, 198.51.100.7, 10.2.2.2", "198.51.100.7/32"},
		{"10.0.0.1:5", "nonsense", "10.0.0.1/32"},
		{"10.0.0.1:5", "203.0.113.9, 198.51.100.7:1234, 10.2.2.2:5", "198.51.100.7/32"}, // as some proxies write it
		{"10.0.0.1:5", "[2001:db8:1:2::3]:1234", "2001:db8:1:2::/64"},
		{"10.0.0.1:5", "[2001:db8:1:2::3]", "2001:db8:1:2::/64"},
		{"10.0.0.1:5", "[198.51.100.7]", "10.0.0.1/32"},
		{"10.0.0.1:5", "198.51.100.7:nonsense", "10.0.0.1/32"},
		{"[2001:db8:1:2:3::4]:5", "", "2001:db8:1:2::/64"},
		{"[::ffff:192.0.2.1]:5", "", "192.0.2.1/32"},
		{"[::ffff:10.0.0.1]:5", "198.51.100.7", "198.51.100.7/32"},
		{"10.0.0.1:5", "198.51.100.7, ::ffff:10.2.2.2", "198.51.100.7/32"},
		{"[fe80::1%eth0]:5", "198.51.100.7", "198.51.100.7/32"},
		{"@", "203.0.113.9, 198.51.100.7", "198.51.100.7/32"}, // a Unix socket
		{"", "198.51.100.7, 10.2.2.2", "198.51.100.7/32"},
		{"@", "nonsense", "invalid Prefix"},
		{"@", "", "invalid Prefix"},
	} {
		r := &http.Request{RemoteAddr: c.remote, Header: http.Header{}}
		if c.forwarded != "" {
			r.Header.Set("X-Forwarded-For", c.forwarded)
		}
		if got := clientAddress(r, trusted).String(); got != c.want {
			t.Errorf("%q for %q: %s, want %s", c.remote, c.forwarded, got, c.want)
		}
	}
}
