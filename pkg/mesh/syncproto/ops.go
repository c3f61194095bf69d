package syncproto

import "github.com/crmesh/crmesh/pkg/crsql/changeset"

// LinkID names one open channel. The driver chooses it, and never uses a number again while its core lives.
type LinkID uint64

// TickMillis is how often the driver calls Tick, in milliseconds.
const TickMillis = 50

// Times, in ticks of TickMillis.
const (
	HoldTicks        = 6   // how long an entry that should come from a better place is held back
	PruneTicks       = 8   // an entry of a pruned site is held for this long, and up to as long again, by the two sites
	ClaimTicks       = 6   // how long claims without entries wait for a have that makes them unnecessary
	HaveTicks        = 5   // a have waits 1 to HaveTicks ticks for more to say
	BusyTicks        = 60  // a walk that has been silent for so long no longer makes its receiver busy
	FeedTimeoutTicks = 200 // a link that is to feed us and is silent for so long loses the task
)

// Bounds of what is in flight or remembered.
const (
	WindowMessages = 16      // changes messages that were sent and not yet reported as applied
	WindowBytes    = 1 << 20 // bytes of such messages, by estimate; one message may always be in flight
	ApplyChanges   = 4096    // changes after which an Apply takes no further message
	MaxHeld        = 65536   // held entries of a link; a walk stops where there would be more
	MaxDecisions   = 16384   // entries that one Read may decide on
	MaxClaimsQueue = 64      // claims of a link that wait for their deps; the two oldest become one when there are more
	MaxUnits       = 1024    // spans that are remembered with their groups, to pass them on as they came
	MaxUnitBytes   = 1 << 20 // bytes of them, by estimate
	MaxLinks       = 1024    // open links
	ReservedSites  = 1024    // places in the vector that only sites with a link to us take
)

// Config is what a core starts from. Site, Own, Newest and Vector are the store's State.
type Config struct {
	Site       SiteID   // 16 bytes
	Writer     bool     // this peer has the writer role: it serves its entries. A reader only receives
	Own        int64    // highest own version that has rows or was ever announced; 0 if there is none
	Newest     int64    // highest local version of any entry; 0 if there is none
	Vector     Vector   // foreign claims as stored; the core takes it over
	SchemaHash [32]byte // zero: no CRR
	Seed       uint64   // of the jitter. Same Config, same calls: same results
	MaxMessage int      // largest message accepted, in bytes, MinMaxMessage to MaxMessage; 0 is MaxMessage
}

// OpenInfo is what the driver knows of a channel that has just opened.
type OpenInfo struct {
	Remote SiteID // the site that the other side named during signaling
	Proof  []byte // our role proof for this connection, ProofLen bytes; none for a reader
	Resume int64  // the reached that the store holds for Remote, or 0
}

// Ready is what the driver has to do. Its slices are valid until the next call into the core; what they
// point to stays valid.
type Ready struct {
	Sends   []Send          // in this order, at least per link
	Reads   []ReadRequest   // at most one is outstanding for each link
	Apply   *ApplyRequest   // at most one is outstanding; nil: none to start
	Schemas []SchemaRequest // at most one is outstanding for each link
	Look    *LookRequest    // at most one is outstanding; nil: none to start
	Answers []LinkAnswer    // to what Ask sent
	Closes  []Close         // after the Sends
	Events  []Event         // for logs and figures
}

// Empty reports whether there is nothing to do.
func (r *Ready) Empty() bool {
	return len(r.Sends) == 0 && len(r.Reads) == 0 && r.Apply == nil && len(r.Schemas) == 0 &&
		r.Look == nil && len(r.Answers) == 0 && len(r.Closes) == 0 && len(r.Events) == 0
}

// Send is a message for the other side of a link.
type Send struct {
	Link    LinkID
	Message Message
}

// Close asks the driver to close a link once its Sends are flushed, and to call Core.Close then.
type Close struct {
	Link LinkID
	Err  *Error // why; nil after a bye
}

// SchemaRequest asks the driver to take of another's schema what its owner lets it take, and then to call SchemaChanged if
// hash, generation or tables changed, and SchemaApplied in any case. Where Hash is our own, only the generation counts.
type SchemaRequest struct {
	Link       LinkID
	Hash       [32]byte
	Generation int64
	Tables     []TableSchema
}

// Decision is what becomes of an entry that a Read comes to.
type Decision uint8

// The decisions.
const (
	DecideSkip Decision = iota // go on behind it
	DecideHold                 // return its header with Held set, go on behind it
	DecideSend                 // return it with its changes
	DecideStop                 // end the Read before it, with End false
)

// ReadRequest asks for entries, all from one snapshot.
type ReadRequest struct {
	ID    uint64
	Link  LinkID
	After Position // only what lies behind it
	Only  []int64  // nil: all entries; else only these local versions, ascending
	// Soft limits: the Read stops before it exceeds them, but returns at least one run of changes with one (L, Seq).
	// Such a run is never split.
	MaxBytes, MaxChanges int
	Count                bool // also count the changes behind After
	// Decide is called for each entry in order, once, before its changes are read; for one that After lies within, too.
	// It may be called from any goroutine, by one at a time, until ReadDone.
	Decide func(origin SiteID, version int64) Decision
}

// Entry is what one local version holds, or a part of it.
type Entry struct {
	L       int64
	Origin  SiteID
	Version int64
	Changes []changeset.Change // none if Held
	Held    bool               // Decide said Hold
}

// ReadResult answers a ReadRequest.
type ReadResult struct {
	ID          uint64
	Link        LinkID
	Entries     []Entry  // ascending; without those that were skipped
	Next        Position // all up to here was walked; After where there was nothing. Its L has, or had, an entry
	End         bool     // nothing lies behind Next in the snapshot (nothing of Only, where that was given)
	Own, Newest int64    // of the snapshot; durable
	Remaining   int64    // if Count: the changes behind After, those returned included
}

// ApplyGroup is a Group and the link that it came from.
type ApplyGroup struct {
	Link LinkID
	Group
}

// ApplyRequest asks to merge Groups, and to store Claims and Resume in the transaction that holds the last of them.
type ApplyRequest struct {
	ID     uint64
	Groups []ApplyGroup     // each under a local version of its own if it has an effect; may be empty
	Claims Vector           // foreign entries of the vector to store; may be empty
	Resume map[SiteID]int64 // reached for a site, to store as it is
}

// ApplyResult answers an ApplyRequest once it is durable.
type ApplyResult struct {
	ID          uint64
	Ls          []int64 // for each group the local version that it got; 0: it had no effect
	Changed     []int64 // for each group the number of rows that it changed
	Parked      []int   // for each group the number of changes that could not be applied and were put aside; nil: none
	Own, Newest int64   // afterwards
	// Refused says that nothing more may be put aside, and so no claim was stored; what was of the groups may be. The core
	// ends the link that the group came from, and asks again for the rest. nil: all was applied.
	Refused *Refusal
}

// Refusal is the group that an Apply could not take, and why, a sentence for its sender.
type Refusal struct {
	Group  int // its index
	Reason string
}
