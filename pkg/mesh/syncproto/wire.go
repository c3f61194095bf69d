package syncproto

import (
	"encoding/binary"
	"unicode/utf8"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// The primitives of docs/PROTOCOL.md. What is appended parses; what parses appends to the same bytes.

const siteLen = changeset.SiteIDLen

func appendBytes(dst, b []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

func appendString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

func appendVector(dst []byte, v Vector) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(v)))
	for _, site := range v.Sites() {
		dst = append(dst, site...)
		dst = binary.AppendUvarint(dst, uint64(v[site]))
	}
	return dst
}

func appendSites(dst []byte, sites []SiteID) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(sites)))
	for _, site := range sites {
		dst = append(dst, site...)
	}
	return dst
}

// refs numbers the strings of one kind as a message names them: the first time in full, then by number.
type refs map[string]uint64

func (r refs) append(dst []byte, s string) []byte {
	if k, ok := r[s]; ok {
		return binary.AppendUvarint(dst, k)
	}
	r[s] = uint64(len(r) + 1)
	return appendString(append(dst, 0), s)
}

// parser reads a message from its start. The first fault sticks in err, and everything read after it is zero.
type parser struct {
	b   []byte
	err *Error

	sites, names         []string
	seenSites, seenNames map[string]bool
}

func (p *parser) fail(format string, args ...any) {
	if p.err == nil {
		p.err = malformed(format, args...)
		p.b = nil
	}
}

// take returns the next n bytes, which share the message's memory.
func (p *parser) take(n uint64) []byte {
	if n > uint64(len(p.b)) {
		p.fail("the message ends early")
		return nil
	}
	out := p.b[:n:n]
	p.b = p.b[n:]
	return out
}

func (p *parser) byte() byte {
	b := p.take(1)
	if b == nil {
		return 0
	}
	return b[0]
}

func (p *parser) uvarint() uint64 {
	v, n := binary.Uvarint(p.b)
	if n <= 0 || n > 1 && p.b[n-1] == 0 {
		p.fail("a number is cut off, too large or not in its shortest form")
		return 0
	}
	p.b = p.b[n:]
	return v
}

// number reads a uvarint of low to MaxVersion.
func (p *parser) number(what string, low uint64) int64 {
	v := p.uvarint()
	if v < low || v > MaxVersion {
		p.fail("%s is not in the range from %d to 2^53-1", what, low)
		return 0
	}
	return int64(v)
}

// count reads how many things of at least size bytes follow, and refuses more than most of them and more than can follow:
// so memory may be taken for them.
func (p *parser) count(what string, most, size int) int {
	n := p.uvarint()
	if n > uint64(most) {
		p.fail("a message has more than %d %s", most, what)
		return 0
	}
	if n*uint64(size) > uint64(len(p.b)) {
		p.fail("the message ends early")
		return 0
	}
	return int(n)
}

func (p *parser) bytes() []byte { return p.take(p.uvarint()) }

// text reads UTF-8 of least to most bytes.
func (p *parser) text(what string, least, most int) string {
	n := p.uvarint()
	if p.err == nil && (n < uint64(least) || n > uint64(most)) {
		p.fail("%s is not %d to %d bytes long", what, least, most)
	}
	b := p.take(n)
	if !utf8.Valid(b) {
		p.fail("%s is not UTF-8", what)
		return ""
	}
	return string(b)
}

func (p *parser) site() SiteID { return SiteID(p.take(siteLen)) }

func (p *parser) vector() Vector {
	n := p.count("sites in a vector", MaxVectorSites, siteLen+1)
	v := make(Vector, n)
	var last SiteID
	for i := 0; i < n && p.err == nil; i++ {
		site, version := p.site(), p.number("a version", 1)
		if i > 0 && site <= last {
			p.fail("the sites of a vector are not in ascending order")
		}
		v[site], last = version, site
	}
	return v
}

// siteList reads sites in ascending order; what says which.
func (p *parser) siteList(what string, most int) []SiteID {
	n := p.count(what, most, siteLen)
	var sites []SiteID
	for i := 0; i < n && p.err == nil; i++ {
		site := p.site()
		if i > 0 && site <= sites[i-1] {
			p.fail("the %s are not in ascending order", what)
		}
		sites = append(sites, site)
	}
	return sites
}

func (p *parser) siteRef() SiteID {
	k := p.uvarint()
	if k > 0 {
		return SiteID(p.named(p.sites, k))
	}
	b := p.bytes()
	if len(b) > siteLen {
		p.fail("a site id is longer than 16 bytes")
	}
	return SiteID(p.first(&p.sites, &p.seenSites, string(b)))
}

func (p *parser) nameRef() string {
	k := p.uvarint()
	if k > 0 {
		return p.named(p.names, k)
	}
	return p.first(&p.names, &p.seenNames, p.text("a name", 1, MaxName))
}

func (p *parser) named(list []string, k uint64) string {
	if k > uint64(len(list)) {
		p.fail("a name or site is referred to before it is given")
		return ""
	}
	return list[k-1]
}

func (p *parser) first(list *[]string, seen *map[string]bool, s string) string {
	if p.err != nil {
		return ""
	}
	if (*seen)[s] {
		p.fail("a name or site is given in full a second time")
		return ""
	}
	if *seen == nil {
		*seen = map[string]bool{}
	}
	(*seen)[s] = true
	*list = append(*list, s)
	return s
}

func (p *parser) value() changeset.Value {
	if p.err != nil {
		return changeset.Value{}
	}
	v, rest, err := changeset.ParseValue(p.b)
	if err != nil {
		p.fail("a value is not in its packed form")
		return changeset.Value{}
	}
	p.b = rest
	return v
}
