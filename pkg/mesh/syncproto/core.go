package syncproto

import "fmt"

// Core is the sync protocol of one peer, for all its links. It does no I/O and is not safe for concurrent use: one
// goroutine owns it.
type Core struct {
	cfg   Config
	ready Ready
}

// New returns a core without links. Errors are about cfg.
func New(cfg Config) (*Core, error) {
	if len(cfg.Site) != 16 {
		return nil, fmt.Errorf("a site id has 16 bytes, not %d", len(cfg.Site))
	}
	return &Core{cfg: cfg}, nil
}

// Open tells the core that a link's channel is open. A hello is sent.
func (c *Core) Open(id LinkID, o OpenInfo) {}

// Close tells the core that a link is gone, for whatever reason, also after the core asked for it. What the link had
// queued is dropped.
func (c *Core) Close(id LinkID) {}

// Refuse sends err on the link and closes it: for what the driver found, such as bytes that Parse refuses or a proof that
// does not verify.
func (c *Core) Refuse(id LinkID, err *Error) {}

// Step takes a message that came in on the link. The core owns it from now on. The driver has verified a hello's proof,
// and calls Refuse in place of Step if it is bad.
func (c *Core) Step(id LinkID, m Message) {}

// Tick is called every TickMillis.
func (c *Core) Tick() {}

// Committed reports a durable local commit: the store's Own and Newest after it.
func (c *Core) Committed(own, newest int64) {}

// ReadDone answers a ReadRequest.
func (c *Core) ReadDone(r ReadResult) {}

// Applied answers the ApplyRequest.
func (c *Core) Applied(r ApplyResult) {}

// SchemaChanged gives the schema's hash and tables: after New, and whenever it changed, before the Committed that came
// with the change.
func (c *Core) SchemaChanged(hash [32]byte, tables []TableSchema) {}

// SchemaApplied answers a SchemaRequest.
func (c *Core) SchemaApplied(id LinkID) {}

// Ready returns what is to be done, and takes it as being done.
func (c *Core) Ready() Ready {
	r := c.ready
	c.ready = Ready{}
	return r
}

// Status returns a picture of the core.
func (c *Core) Status() Status { return Status{Site: c.cfg.Site} }

// Synced reports whether all links are live and nothing is left to send or to receive on any of them.
func (c *Core) Synced() bool { return false }
