package syncproto

import "github.com/crmesh/crmesh/pkg/crsql/changeset"

// Protocol is the protocol version that a hello names.
const Protocol = 1

// Hard limits of messages. Parse refuses what exceeds them before it takes memory for it.
const (
	MaxMessage      = 64 << 20             // bytes of a message, whatever the receiver's hello says
	MinMaxMessage   = 1 << 20              // bytes: a hello may not announce a smaller maximum than this
	MaxVersion      = changeset.MaxVersion // versions, local versions and counts: JavaScript numbers hold them exactly
	MaxVectorSites  = 16384                // sites of a vector
	MaxNeighbours   = 1024                 // sites listed as neighbours
	MaxGroups       = 8192                 // groups of a changes message
	MaxChanges      = 65536                // changes (cells) of a changes message
	MaxSpans        = 1024                 // spans of a changes message
	MaxSpanDeps     = 64                   // sites in the deps of a span
	MaxPrunes       = 1024                 // sites in each list of a prune message
	MaxName         = 1024                 // bytes of a table or column name
	MaxSchemaTables = 1024                 // tables of a schema message
	MaxSchemaSQL    = 64 << 10             // bytes of a CREATE TABLE statement
	MaxSchemaBytes  = 4 << 20              // bytes of a schema message
	MaxColumns      = 2000                 // columns of a table in a schema message, as many as SQLite allows
	MaxTypeName     = 1024                 // bytes of a column's declared type
	MaxGeneration   = 1<<32 - 1            // generations of a schema
	MaxSentence     = 1024                 // bytes of the sentence of an error or bye
	ProofLen        = 64                   // bytes of a role proof
)

// Soft limits: what a sender aims at.
const (
	SoftBytes   = 64 << 10 // bytes of a changes message
	SoftChanges = 4096     // changes of a changes message
)

// Message types, the first byte of a message.
const (
	TypeHello   = 1
	TypeChanges = 2
	TypeHave    = 3
	TypeError   = 4
	TypeBye     = 5
	TypeSchema  = 6
	TypePrune   = 7
	TypeRelay   = 8

	TypeDigestRequest = 9
	TypeDigestAnswer  = 10
	TypeResend        = 11
	TypeNeed          = 12
)

// Message is one of *Hello, *Changes, *Have, *Error, *Bye, *Schema, *Prune, *Relay, *DigestRequest, *DigestAnswer,
// *Resend and *Need.
type Message interface {
	// Type returns the message's type byte.
	Type() byte
	// AppendMarshal appends the message's bytes to dst and returns the extended slice. The message must be within the
	// limits above; those that the core makes are.
	AppendMarshal(dst []byte) []byte
}

// Hello is the first message on a link, from each side.
type Hello struct {
	Site       SiteID
	Writer     bool     // the sender claims the writer role; Parse lets it stand only beside a proof
	Feed       bool     // the receiver of the hello may send entries of sites that are not the sender's neighbours
	Busy       bool     // the sender is in the middle of somebody's walk
	Proof      []byte   // ProofLen bytes of a writer, none of a reader
	SchemaHash [32]byte // zero: no CRR
	MaxMessage int      // largest message the sender accepts, in bytes
	Resume     int64    // the reached that the sender stored for the receiver's site, or 0
	Neighbours []SiteID // sites that the sender has links to, ascending
	Vector     Vector   // the sender's own entry included
}

// Group is the changes of one entry, or of a part of one.
type Group struct {
	Origin  SiteID
	Version int64
	Changes []changeset.Change // at least one; DBVersion is not carried and is 0
}

// Changes carries entries, and says what the receiver covers once it has them.
type Changes struct {
	Reached   int64 // the sender has no entry unsent at or below this local version of its own
	Remaining int64 // about how many more changes the walk has; 0 on its last message
	Groups    []Group
	// Claims is what of the sender's vector the receiver was not told on this link and is not known to cover; nil where the
	// walk goes on. Deps is what the receiver's vector has to cover before it takes the claims, and those before.
	Claims, Deps Vector
	// Spans say for which sites Groups are complete, in ascending order of the sites.
	Spans []Span
}

// Have tells a sender what has arrived.
type Have struct {
	Feed, Busy    bool
	Applied       int64    // changes messages of this link stored so far
	Delta         Vector   // entries of the vector that rose since the last hello or have
	HasNeighbours bool     // Neighbours is meant: it changed
	Neighbours    []SiteID // ascending
}

// Prune asks not to be sent, or to be sent again, the entries of some sites: the receiver holds those of a pruned site for
// a while before it sends them.
type Prune struct {
	Prune, Graft []SiteID // ascending, none in both
}

// Bye says that the sender leaves, and why. It closes the connection afterwards.
type Bye struct{ Sentence string }

// TableSchema is a CRR: its name, its CREATE TABLE statement and its columns.
type TableSchema = changeset.TableSchema

// Schema is the sender's CRRs, or only that their hash is another now.
type Schema struct {
	Hash       [32]byte
	Generation int64         // counts the migrations that were made on purpose; 0: none, or the sender is a reader
	Tables     []TableSchema // in ascending bytewise order of their names; none: the hash alone is told
}

// Type implements Message.
func (*Hello) Type() byte { return TypeHello }

// Type implements Message.
func (*Changes) Type() byte { return TypeChanges }

// Type implements Message.
func (*Have) Type() byte { return TypeHave }

// Type implements Message.
func (*Error) Type() byte { return TypeError }

// Type implements Message.
func (*Bye) Type() byte { return TypeBye }

// Type implements Message.
func (*Schema) Type() byte { return TypeSchema }

// Type implements Message.
func (*Prune) Type() byte { return TypePrune }
