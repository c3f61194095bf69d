package syncproto

import (
	"bytes"
	"encoding/binary"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// Bounds of the messages about digests.
const (
	MaxDigestTables = 1024     // tables of a digest answer
	MaxDigestParts  = 64       // prefixes of a digest request, and parts of an answer
	MaxResend       = 64       // rows of a resend
	SoftDigest      = 64 << 10 // bytes of parts after which an answer takes no further one
)

// DigestRequest asks what the other side holds. Each gets one answer; the next one may follow that.
type DigestRequest struct {
	ID       int64              // for the answer
	Table    string             // "": all tables; then there are no prefixes
	Prefixes []changeset.Prefix // none: the digest of the whole table
}

// DigestKind says what a DigestAnswer holds.
type DigestKind uint8

// The kinds of answers.
const (
	DigestTables  DigestKind = 0 // Tables
	DigestParts   DigestKind = 1 // Parts
	DigestNoTable DigestKind = 2 // nothing: there is no such table
)

// DigestAnswer is what one snapshot of a database holds.
type DigestAnswer struct {
	ID     int64
	Kind   DigestKind
	Vector Vector // of the snapshot, own entry included
	// Tables are in ascending bytewise order of their names. One that was asked for and does not exist is missing.
	Tables []changeset.TableDigest
	// Parts are those of the first prefixes, in their order: fewer than were asked for, where they would be too much.
	Parts []changeset.Part
}

// Resend asks for all that the other side has of some rows. There is no answer but changes, and from a reader none.
type Resend struct {
	Table  string
	Places []changeset.Place // 1 to MaxResend
}

// Type implements Message.
func (*DigestRequest) Type() byte { return TypeDigestRequest }

// Type implements Message.
func (*DigestAnswer) Type() byte { return TypeDigestAnswer }

// Type implements Message.
func (*Resend) Type() byte { return TypeResend }

const (
	minDigestTable = 2 + 16 + 1 + 16 + 1
	minDigestPart  = 2
	minRowSum      = 16 + 1 + 1 + 1 + 16

	partChildren = 0 // the kinds of parts
	partRows     = 1
)

// AppendMarshal implements Message.
func (m *DigestRequest) AppendMarshal(dst []byte) []byte {
	dst = binary.AppendUvarint(append(dst, TypeDigestRequest), uint64(m.ID))
	dst = appendString(dst, m.Table)
	dst = binary.AppendUvarint(dst, uint64(len(m.Prefixes)))
	for _, p := range m.Prefixes {
		dst = append(append(dst, p.Len), p.Place[:(p.Len+1)/2]...)
	}
	return dst
}

func (p *parser) digestRequest() *DigestRequest {
	m := &DigestRequest{ID: p.number("an id", 0), Table: p.text("a name", 0, MaxName)}
	for n := p.count("prefixes", MaxDigestParts, 1); n > 0 && p.err == nil; n-- {
		m.Prefixes = append(m.Prefixes, p.prefix())
	}
	if m.Table == "" && len(m.Prefixes) > 0 {
		p.fail("prefixes are given without a table")
	}
	return m
}

func (p *parser) prefix() changeset.Prefix {
	n := p.byte()
	if n > changeset.MaxPrefix {
		p.fail("a prefix has more than %d nibbles", changeset.MaxPrefix)
		return changeset.Prefix{}
	}
	var place changeset.Place
	copy(place[:], p.take(uint64(n+1)/2))
	out := changeset.PrefixOf(place, n)
	if out.Place != place {
		p.fail("a prefix has bits behind its end")
	}
	return out
}

// AppendMarshal implements Message.
func (m *DigestAnswer) AppendMarshal(dst []byte) []byte {
	dst = binary.AppendUvarint(append(dst, TypeDigestAnswer), uint64(m.ID))
	dst = append(dst, byte(m.Kind))
	dst = appendVector(dst, m.Vector)
	switch m.Kind {
	case DigestTables:
		dst = binary.AppendUvarint(dst, uint64(len(m.Tables)))
		for _, t := range m.Tables {
			dst = t.Columns.Append(appendString(dst, t.Table))
			dst = t.Sum.Digest.Append(binary.AppendUvarint(dst, uint64(t.Sum.Count)))
			dst = binary.AppendUvarint(dst, uint64(t.Stray))
		}
	case DigestParts:
		dst = binary.AppendUvarint(dst, uint64(len(m.Parts)))
		for i := range m.Parts {
			dst = appendPart(dst, &m.Parts[i])
		}
	}
	return dst
}

func appendPart(dst []byte, part *changeset.Part) []byte {
	if part.Children != nil {
		dst = append(dst, partChildren)
		for _, s := range part.Children {
			dst = binary.AppendUvarint(dst, uint64(s.Count))
			if s.Count > 0 {
				dst = s.Digest.Append(dst)
			}
		}
		return dst
	}
	dst = binary.AppendUvarint(append(dst, partRows), uint64(len(part.Rows)))
	for i := range part.Rows {
		r := &part.Rows[i]
		dst = appendBytes(append(dst, r.Place[:]...), r.Key)
		dst = binary.AppendUvarint(dst, uint64(r.CL))
		dst = binary.AppendUvarint(dst, uint64(r.Versions))
		dst = r.Digest.Append(dst)
	}
	return dst
}

func (p *parser) digestAnswer() *DigestAnswer {
	m := &DigestAnswer{ID: p.number("an id", 0), Kind: DigestKind(p.byte()), Vector: p.vector()}
	switch m.Kind {
	case DigestTables:
		for n := p.count("tables", MaxDigestTables, minDigestTable); n > 0 && p.err == nil; n-- {
			t := changeset.TableDigest{Table: p.text("a name", 1, MaxName), Columns: p.digest()}
			t.Sum = changeset.Sum{Count: p.number("a count", 0), Digest: p.digest()}
			t.Stray = p.number("a count", 0)
			if last := len(m.Tables) - 1; last >= 0 && t.Table <= m.Tables[last].Table {
				p.fail("the tables are not in ascending order")
			}
			m.Tables = append(m.Tables, t)
		}
	case DigestParts:
		for n := p.count("parts", MaxDigestParts, minDigestPart); n > 0 && p.err == nil; n-- {
			m.Parts = append(m.Parts, p.part())
		}
	case DigestNoTable:
	default:
		p.fail("a digest answer has the unknown kind %d", m.Kind)
	}
	return m
}

func (p *parser) digest() changeset.Digest {
	b := p.take(16)
	if b == nil {
		return changeset.Digest{}
	}
	return changeset.DigestOf(b)
}

func (p *parser) part() changeset.Part {
	var out changeset.Part
	switch kind := p.byte(); {
	case p.err != nil:
	case kind == partChildren:
		out.Children = make([]changeset.Sum, changeset.PartChildren)
		for i := range out.Children {
			if n := p.number("a count", 0); n > 0 {
				out.Children[i] = changeset.Sum{Count: n, Digest: p.digest()}
			}
		}
	case kind == partRows:
		for n := p.count("rows in a part", changeset.MaxPartRows, minRowSum); n > 0 && p.err == nil; n-- {
			r := changeset.RowSum{Place: p.place(), Key: p.bytes()}
			r.CL, r.Versions = int64(p.uvarint()), int64(p.uvarint())
			r.Digest = p.digest()
			if len(r.Key) > changeset.MaxKeyShown {
				p.fail("a key in a part has more than %d bytes", changeset.MaxKeyShown)
			}
			if last := len(out.Rows) - 1; last >= 0 && bytes.Compare(r.Place[:], out.Rows[last].Place[:]) <= 0 {
				p.fail("the rows of a part are not in ascending order")
			}
			out.Rows = append(out.Rows, r)
		}
	default:
		p.fail("a part has the unknown kind %d", kind)
	}
	return out
}

func (p *parser) place() changeset.Place {
	var place changeset.Place
	copy(place[:], p.take(uint64(len(place))))
	return place
}

// AppendMarshal implements Message.
func (m *Resend) AppendMarshal(dst []byte) []byte {
	dst = appendString(append(dst, TypeResend), m.Table)
	dst = binary.AppendUvarint(dst, uint64(len(m.Places)))
	for _, p := range m.Places {
		dst = append(dst, p[:]...)
	}
	return dst
}

func (p *parser) resend() *Resend {
	m := &Resend{Table: p.text("a name", 1, MaxName)}
	n := p.count("rows to resend", MaxResend, 16)
	if n == 0 {
		p.fail("a resend names no row")
	}
	for ; n > 0 && p.err == nil; n-- {
		m.Places = append(m.Places, p.place())
	}
	return m
}

// fits leaves those parts out that an answer has no room for; the first one always fits.
func (m *DigestAnswer) fits() {
	size := 0
	var buf []byte
	for i := range m.Parts {
		buf = appendPart(buf[:0], &m.Parts[i])
		if size += len(buf); i > 0 && size > SoftDigest {
			m.Parts = m.Parts[:i]
			return
		}
	}
}
