package signalserver

import (
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// clientAddress returns the address that limits count by: the remote end, or
// behind trusted proxies the last address in X-Forwarded-For that is not one
// of them. Whoever may open a Unix socket of the server, where there are no
// addresses, is trusted like a proxy. IPv6 addresses count by their /64, which
// is what one customer gets.
func clientAddress(r *http.Request, trusted []netip.Prefix) netip.Prefix {
	var addr netip.Addr
	if remote, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		addr = remote.Addr().Unmap()
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0 && (!addr.IsValid() || isTrusted(addr, trusted)); i-- {
		hop, ok := hopAddress(strings.TrimSpace(hops[i]))
		if !ok {
			break
		}
		addr = hop.Unmap()
	}
	if !addr.IsValid() {
		return netip.Prefix{} // nobody has named one: all count as one
	}
	return prefixOf(addr)
}

// hopAddress reads one address of X-Forwarded-For, to which some proxies add the port.
func hopAddress(text string) (netip.Addr, bool) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return addr, true
	}
	if port, err := netip.ParseAddrPort(text); err == nil {
		return port.Addr(), true
	}
	if inner, ok := strings.CutPrefix(text, "["); ok {
		if inner, ok = strings.CutSuffix(inner, "]"); ok {
			addr, err := netip.ParseAddr(inner)
			return addr, err == nil && addr.Is6()
		}
	}
	return netip.Addr{}, false
}

// prefixOf returns what an address counts as.
func prefixOf(addr netip.Addr) netip.Prefix {
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	prefix, err := addr.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return prefix
}

func isTrusted(addr netip.Addr, trusted []netip.Prefix) bool {
	addr = addr.WithZone("") // a proxy on the same link has one, by which no prefix would match
	for _, p := range trusted {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// maxBusyAddresses bounds the memory of an addressLimit. Addresses whose
// bucket is full again are forgotten first; if all are busy, new addresses
// are refused.
const maxBusyAddresses = 100_000

// addressLimit is a token bucket for each address. It belongs to the holder of
// the lock of its owner.
type addressLimit struct {
	rate    float64
	burst   int
	buckets map[netip.Prefix]*bucket
	pruned  time.Time
}

func (l *addressLimit) take(now time.Time, addr netip.Prefix) (time.Duration, bool) {
	b, ok := l.buckets[addr]
	if !ok {
		if len(l.buckets) >= maxBusyAddresses && !l.prune(now) {
			return time.Second, false
		}
		b = &bucket{}
		l.buckets[addr] = b
	}
	return b.take(now, l.rate, l.burst, 1)
}

// prune forgets full buckets, at most once a second, for it looks at all of
// them. It tells whether there is room for another.
func (l *addressLimit) prune(now time.Time) bool {
	if now.Sub(l.pruned) >= time.Second {
		l.pruned = now
		for addr, b := range l.buckets {
			if b.fill(now, l.rate, l.burst); b.tokens >= float64(l.burst) {
				delete(l.buckets, addr)
			}
		}
	}
	return len(l.buckets) < maxBusyAddresses
}
