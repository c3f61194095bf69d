package syncproto

import (
	"bytes"
	"encoding/binary"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// Flag bits. All others are zero.
const (
	flagWriter = 1 // hello
	flagFeed   = 2
	flagBusy   = 4

	flagClaims = 1 // changes
	flagSpans  = 2

	flagHaveFeed       = 1 // have
	flagHaveBusy       = 2
	flagHaveNeighbours = 4

	flagNotNull = 1 // column of a schema
	flagDefault = 2
)

// The fewest bytes of what a message counts.
const (
	minGroup  = 4 // origin, version, rows, and a row
	minRow    = 3
	minCell   = 6
	minTable  = 5
	minColumn = 5
	minSpan   = 4
)

// Parse returns the message that b holds, which marshals to b again. Keys and values share b's memory, and b belongs
// to the message from then on. Errors are an *Error.
func Parse(b []byte) (Message, error) {
	if len(b) > MaxMessage {
		return nil, &Error{CodeTooLarge, "a message is longer than 64 MiB"}
	}
	p := parser{b: b}
	var m Message
	switch t := p.byte(); {
	case p.err != nil:
	case t == TypeHello:
		m = p.hello()
	case t == TypeChanges:
		m = p.changes()
	case t == TypeHave:
		m = p.have()
	case t == TypeError:
		m = p.error()
	case t == TypeBye:
		m = &Bye{Sentence: p.text("the sentence", 0, MaxSentence)}
	case t == TypeSchema:
		m = p.schema()
	case t == TypePrune:
		m = p.prune()
	case t == TypeRelay:
		m = p.relay()
	case t == TypeDigestRequest:
		m = p.digestRequest()
	case t == TypeDigestAnswer:
		m = p.digestAnswer()
	case t == TypeResend:
		m = p.resend()
	case t == TypeNeed:
		m = p.need()
	default:
		p.fail("a message has the unknown type %d", t)
	}
	if len(p.b) > 0 {
		p.fail("bytes follow the message")
	}
	if p.err != nil {
		return nil, p.err
	}
	return m, nil
}

// flags reads a byte with no bit set but those of all.
func (p *parser) flags(all byte) byte {
	f := p.byte()
	if f&^all != 0 {
		p.fail("an unknown flag is set")
	}
	return f
}

func bit(set bool, mask byte) byte {
	if set {
		return mask
	}
	return 0
}

// AppendMarshal implements Message.
func (m *Hello) AppendMarshal(dst []byte) []byte {
	dst = append(dst, TypeHello, Protocol)
	dst = append(dst, m.Site...)
	dst = append(dst, bit(m.Writer, flagWriter)|bit(m.Feed, flagFeed)|bit(m.Busy, flagBusy))
	dst = appendBytes(dst, m.Proof)
	dst = append(dst, m.SchemaHash[:]...)
	dst = binary.AppendUvarint(dst, uint64(m.MaxMessage))
	dst = binary.AppendUvarint(dst, uint64(m.Resume))
	dst = appendSites(dst, m.Neighbours)
	return appendVector(dst, m.Vector)
}

// claimsWriter reports whether a message is a hello with the writer flag, if it is a message at all.
func claimsWriter(b []byte) bool {
	const flags = 2 + siteLen
	return len(b) > flags && b[0] == TypeHello && b[1] == Protocol && b[flags]&flagWriter != 0
}

func (p *parser) hello() *Hello {
	if v := p.uvarint(); p.err == nil && v != Protocol {
		// What follows may look different in another version.
		p.fail("the other side speaks protocol version %d, this one speaks %d: update the older of the two", v, Protocol)
		p.err.Code = CodeVersion
		return nil
	}
	m := &Hello{Site: p.site()}
	f := p.flags(flagWriter | flagFeed | flagBusy)
	m.Writer, m.Feed, m.Busy = f&flagWriter != 0, f&flagFeed != 0, f&flagBusy != 0
	m.Proof = p.bytes()
	if m.Writer && len(m.Proof) != ProofLen || !m.Writer && len(m.Proof) != 0 {
		p.fail("a writer's proof has 64 bytes, a reader has none")
	}
	copy(m.SchemaHash[:], p.take(32))
	m.MaxMessage = int(p.number("the largest message", MinMaxMessage))
	m.Resume = p.number("resume", 0)
	m.Neighbours = p.siteList("neighbours", MaxNeighbours)
	m.Vector = p.vector()
	return m
}

// AppendMarshal implements Message. Neighbouring changes of one table and key become one row.
func (m *Changes) AppendMarshal(dst []byte) []byte {
	dst = append(dst, TypeChanges, bit(m.Claims != nil, flagClaims)|bit(len(m.Spans) > 0, flagSpans))
	dst = binary.AppendUvarint(dst, uint64(m.Reached))
	dst = binary.AppendUvarint(dst, uint64(m.Remaining))
	dst = binary.AppendUvarint(dst, uint64(len(m.Groups)))
	sites, names := refs{}, refs{}
	for i := range m.Groups {
		dst = appendGroup(dst, &m.Groups[i], sites, names)
	}
	if m.Claims != nil {
		dst = appendVector(dst, m.Claims)
		dst = appendVector(dst, m.Deps)
	}
	if len(m.Spans) > 0 {
		dst = binary.AppendUvarint(dst, uint64(len(m.Spans)))
		for i := range m.Spans {
			s := &m.Spans[i]
			dst = sites.append(dst, string(s.Origin))
			dst = binary.AppendUvarint(dst, uint64(s.After))
			dst = binary.AppendUvarint(dst, uint64(s.Version-s.After))
			dst = appendVector(dst, s.Deps)
		}
	}
	return dst
}

func appendGroup(dst []byte, g *Group, sites, names refs) []byte {
	dst = sites.append(dst, string(g.Origin))
	dst = binary.AppendUvarint(dst, uint64(g.Version))
	rows := 0
	for i := range g.Changes {
		if i == 0 || !sameRow(&g.Changes[i-1], &g.Changes[i]) {
			rows++
		}
	}
	dst = binary.AppendUvarint(dst, uint64(rows))
	for cells := g.Changes; len(cells) > 0; {
		n := 1
		for n < len(cells) && sameRow(&cells[0], &cells[n]) {
			n++
		}
		dst = names.append(dst, cells[0].Table)
		dst = appendBytes(dst, cells[0].PK)
		dst = binary.AppendUvarint(dst, uint64(n))
		for i := range cells[:n] {
			cell := &cells[i]
			dst = names.append(dst, cell.CID)
			dst = changeset.AppendValue(dst, cell.Val)
			dst = binary.AppendUvarint(dst, uint64(cell.ColVersion))
			dst = binary.AppendUvarint(dst, uint64(cell.CL))
			dst = binary.AppendUvarint(dst, uint64(cell.Seq))
			dst = sites.append(dst, string(cell.Site))
		}
		cells = cells[n:]
	}
	return dst
}

func sameRow(a, b *changeset.Change) bool { return a.Table == b.Table && bytes.Equal(a.PK, b.PK) }

func (p *parser) changes() *Changes {
	m := &Changes{}
	f := p.flags(flagClaims | flagSpans)
	m.Reached = p.number("reached", 0)
	m.Remaining = p.number("remaining", 0)
	total := 0
	for n := p.count("groups", MaxGroups, minGroup); n > 0 && p.err == nil; n-- {
		m.Groups = append(m.Groups, p.group(&total))
	}
	if f&flagClaims != 0 {
		m.Claims = p.vector()
		m.Deps = p.vector()
	}
	if f&flagSpans != 0 {
		m.Spans = p.spans()
	}
	return m
}

func (p *parser) spans() []Span {
	n := p.count("spans", MaxSpans, minSpan)
	if n == 0 {
		p.fail("the list of spans is empty")
	}
	var spans []Span
	for i := 0; i < n && p.err == nil; i++ {
		s := Span{Origin: p.siteRef(), After: p.number("a version", 0)}
		switch {
		case p.err == nil && len(s.Origin) != siteLen:
			p.fail("the site of a span does not have 16 bytes")
		case p.err == nil && i > 0 && s.Origin <= spans[i-1].Origin:
			p.fail("the spans are not in ascending order of their sites")
		}
		s.Version = s.After + p.number("the length of a span", 1)
		if s.Version > MaxVersion {
			p.fail("a version is not in the range from 1 to 2^53-1")
		}
		if s.Deps = p.vector(); len(s.Deps) > MaxSpanDeps {
			p.fail("a span depends on more than %d sites", MaxSpanDeps)
		}
		spans = append(spans, s)
	}
	return spans
}

// group reads a group; total counts the changes of the message.
func (p *parser) group(total *int) Group {
	g := Group{Origin: p.siteRef(), Version: p.number("a version", 1)}
	if len(g.Origin) != siteLen {
		p.fail("the site of a group does not have 16 bytes")
	}
	rows := p.count("rows in a group", MaxChanges, minRow)
	if rows == 0 {
		p.fail("a group has no row")
	}
	for i := 0; i < rows && p.err == nil; i++ {
		table, pk := p.nameRef(), p.bytes()
		if last := len(g.Changes) - 1; last >= 0 && g.Changes[last].Table == table && bytes.Equal(g.Changes[last].PK, pk) {
			p.fail("two neighbouring rows of a group have one key")
		}
		cells := p.count("changes", MaxChanges-*total, minCell)
		if cells == 0 {
			p.fail("a row has no cell")
		}
		*total += cells
		for ; cells > 0 && p.err == nil; cells-- {
			g.Changes = append(g.Changes, changeset.Change{
				Table: table, PK: pk, CID: p.nameRef(), Val: p.value(),
				ColVersion: int64(p.uvarint()), CL: int64(p.uvarint()), Seq: int64(p.uvarint()),
				Site: p.siteRef(),
			})
		}
	}
	return g
}

// AppendMarshal implements Message.
func (m *Have) AppendMarshal(dst []byte) []byte {
	dst = append(dst, TypeHave,
		bit(m.Feed, flagHaveFeed)|bit(m.Busy, flagHaveBusy)|bit(m.HasNeighbours, flagHaveNeighbours))
	dst = binary.AppendUvarint(dst, uint64(m.Applied))
	dst = appendVector(dst, m.Delta)
	if m.HasNeighbours {
		dst = appendSites(dst, m.Neighbours)
	}
	return dst
}

func (p *parser) have() *Have {
	f := p.flags(flagHaveFeed | flagHaveBusy | flagHaveNeighbours)
	m := &Have{Feed: f&flagHaveFeed != 0, Busy: f&flagHaveBusy != 0, HasNeighbours: f&flagHaveNeighbours != 0}
	m.Applied = p.number("applied", 0)
	m.Delta = p.vector()
	if m.HasNeighbours {
		m.Neighbours = p.siteList("neighbours", MaxNeighbours)
	}
	return m
}

// AppendMarshal implements Message.
func (e *Error) AppendMarshal(dst []byte) []byte {
	dst = binary.AppendUvarint(append(dst, TypeError), uint64(e.Code))
	return appendString(dst, truncate(e.Sentence, MaxSentence))
}

func (p *parser) error() *Error {
	code := p.uvarint()
	if code < 1 || code > 65535 {
		p.fail("an error code is not in the range from 1 to 65535")
	}
	return &Error{Code: Code(code), Sentence: p.text("the sentence", 0, MaxSentence)}
}

// AppendMarshal implements Message.
func (m *Bye) AppendMarshal(dst []byte) []byte {
	return appendString(append(dst, TypeBye), truncate(m.Sentence, MaxSentence))
}

// AppendMarshal implements Message.
func (m *Schema) AppendMarshal(dst []byte) []byte {
	dst = append(append(dst, TypeSchema), m.Hash[:]...)
	dst = binary.AppendUvarint(dst, uint64(m.Generation))
	dst = binary.AppendUvarint(dst, uint64(len(m.Tables)))
	for i := range m.Tables {
		dst = appendTable(dst, &m.Tables[i])
	}
	return dst
}

func (p *parser) schema() *Schema {
	m := &Schema{}
	if len(p.b) >= MaxSchemaBytes {
		p.fail("a schema has more than 4 MiB")
		p.err.Code = CodeTooLarge
		return m
	}
	copy(m.Hash[:], p.take(32))
	if m.Generation = p.number("a generation", 0); m.Generation > MaxGeneration {
		p.fail("a generation is 2^32 or more")
	}
	for n := p.count("tables", MaxSchemaTables, minTable); n > 0 && p.err == nil; n-- {
		t := TableSchema{
			Name: p.text("a name", 1, MaxName),
			SQL:  p.text("a CREATE TABLE statement", 1, MaxSchemaSQL),
		}
		for columns := p.count("columns", MaxColumns, minColumn); columns > 0 && p.err == nil; columns-- {
			t.Columns = append(t.Columns, p.column())
		}
		if last := len(m.Tables) - 1; last >= 0 && t.Name <= m.Tables[last].Name {
			p.fail("the tables are not in ascending order")
		}
		m.Tables = append(m.Tables, t)
	}
	return m
}

// AppendMarshal implements Message.
func (m *Prune) AppendMarshal(dst []byte) []byte {
	return appendSites(appendSites(append(dst, TypePrune), m.Prune), m.Graft)
}

func (p *parser) prune() *Prune {
	m := &Prune{Prune: p.siteList("pruned sites", MaxPrunes), Graft: p.siteList("grafted sites", MaxPrunes)}
	for _, site := range m.Graft {
		if isIn(m.Prune, site) {
			p.fail("a site is pruned and grafted at the same time")
		}
	}
	return m
}
