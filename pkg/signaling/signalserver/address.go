package signalserver

import (
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// clientAddress returns the address that limits count by: the remote end, or
// behind trusted proxies the last address in X-Forwarded-For that is not one
// of them. IPv6 addresses count by their /64, which is what one customer gets.
func clientAddress(r *http.Request, trusted []netip.Prefix) netip.Prefix {
	remote, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Prefix{} // a listener without addresses: all count as one
	}
	addr := remote.Addr().Unmap()
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0 && isTrusted(addr, trusted); i-- {
		hop, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		addr = hop.Unmap()
	}
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
	for _, p := range trusted {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// maxJoinAddresses bounds the memory of the join limit. Addresses whose
// bucket is full again are forgotten first; if all are busy, joins of new
// addresses are refused.
const maxJoinAddresses = 100_000

// joinLimit counts joins by address. It belongs to the holder of Server.mu.
type joinLimit struct {
	rate    float64
	burst   int
	buckets map[netip.Prefix]*bucket
	pruned  time.Time
}

func (l *joinLimit) take(now time.Time, addr netip.Prefix) (time.Duration, bool) {
	b, ok := l.buckets[addr]
	if !ok {
		if len(l.buckets) >= maxJoinAddresses && !l.prune(now) {
			return time.Second, false
		}
		b = &bucket{}
		l.buckets[addr] = b
	}
	return b.take(now, l.rate, l.burst)
}

// prune forgets full buckets, at most once a second, for it looks at all of
// them. It tells whether there is room for another.
func (l *joinLimit) prune(now time.Time) bool {
	if now.Sub(l.pruned) >= time.Second {
		l.pruned = now
		for addr, b := range l.buckets {
			if b.fill(now, l.rate, l.burst); b.tokens >= float64(l.burst) {
				delete(l.buckets, addr)
			}
		}
	}
	return len(l.buckets) < maxJoinAddresses
}
