package syncproto

// Limits of a relay.
const (
	MaxRelayHops = 3           // how many times an envelope is passed on, on its way to a neighbour of its receiver
	MinRelayed   = 30          // bytes of an envelope: version, nonce, tag, and a description that is not empty
	MaxRelayed   = 32<<10 + 29 // bytes of an envelope: the largest description, and what sealing adds
)

// Relay carries an envelope of docs/SIGNALING.md over members that lie between two others. It is no matter of the core: the
// driver takes it before Step.
type Relay struct {
	Hops     byte     // how many more members that are no neighbours of To may pass it on, at most MaxRelayHops
	From, To [16]byte // peer ids
	Sealed   []byte   // the envelope, MinRelayed to MaxRelayed bytes
}

// Type implements Message.
func (*Relay) Type() byte { return TypeRelay }

// AppendMarshal implements Message.
func (m *Relay) AppendMarshal(dst []byte) []byte {
	dst = append(dst, TypeRelay, m.Hops)
	dst = append(append(dst, m.From[:]...), m.To[:]...)
	return appendBytes(dst, m.Sealed)
}

func (p *parser) relay() *Relay {
	m := &Relay{Hops: p.byte()}
	if m.Hops > MaxRelayHops {
		p.fail("a relay has more than %d hops to go", MaxRelayHops)
	}
	copy(m.From[:], p.take(siteLen))
	copy(m.To[:], p.take(siteLen))
	m.Sealed = p.bytes()
	if n := len(m.Sealed); n < MinRelayed || n > MaxRelayed {
		p.fail("the envelope of a relay is not %d to %d bytes long", MinRelayed, MaxRelayed)
	}
	return m
}
