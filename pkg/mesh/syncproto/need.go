package syncproto

const flagNeeded = 1 // need

// Need says whether the sender needs the link for itself; until one comes it counts as needed. A link that neither side needs is
// closed. It is no matter of the core: the driver takes it before Step.
type Need struct{ Needed bool }

// Type implements Message.
func (*Need) Type() byte { return TypeNeed }

// AppendMarshal implements Message.
func (m *Need) AppendMarshal(dst []byte) []byte {
	return append(dst, TypeNeed, bit(m.Needed, flagNeeded))
}

func (p *parser) need() *Need { return &Need{Needed: p.flags(flagNeeded) != 0} }
