package crsql

import (
	"math"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// A Position is a place in a replica's walk through its entries, in ascending order of their local version: all entries
// below L lie behind it, and so does the part of entry L up to Seq. The zero Position is the start.
//
// Seq numbers the rows of an entry, not its changes. Its values mean something to the Replica that returned them only,
// while it lives; EntryStart and EntryEnd are the same for all.
type Position struct{ L, Seq int64 }

// The Seq of a Position before the first row of an entry, and behind the last.
const (
	EntryStart = 0
	EntryEnd   = math.MaxInt64
)

// Decision is what Read does with an entry.
type Decision uint8

// The decisions.
const (
	Skip Decision = iota // go on behind it
	Hold                 // return its header with Held set, go on behind it
	Send                 // return it with its changes
	Stop                 // end the Read before it, with End false
)

// ReadRequest asks for entries.
type ReadRequest struct {
	After Position // only what lies behind it
	Only  []int64  // nil: all entries; otherwise only these local versions, in ascending order
	// MaxBytes and MaxChanges are soft: Read stops before it exceeds one of them, but returns one row at least. The
	// changes of a row that have one local version are never split. Bytes are those of a message, about.
	MaxBytes, MaxChanges int
	Count                bool // also count what lies behind After
	// Decide is called for each entry in order, once, before its changes are read; also for one that After lies within.
	Decide func(origin changeset.SiteID, version int64) Decision
}

// Entry is what one local version holds, or a part of it.
type Entry struct {
	L       int64
	Origin  changeset.SiteID
	Version int64              // the origin's own
	Changes []changeset.Change // none if Held
	Held    bool
}

// ReadResult is what Read found, all of one moment.
type ReadResult struct {
	Entries   []Entry  // ascending, without those that were skipped
	Next      Position // up to here was walked; After, if nothing was
	End       bool     // nothing lies behind Next (nothing of Only, if that was given)
	Heads     Heads
	Remaining int64 // changes behind After, if Count: those that are returned, skipped and held included
}

// Group is changes to apply: one entry of another replica, or a part of it.
type Group struct {
	Origin  changeset.SiteID
	Version int64 // the origin's own
	Changes []changeset.Change
}

// ApplyRequest is what Apply writes.
type ApplyRequest struct {
	Groups []Group
	Claims map[changeset.SiteID]int64 // entries of the vector to raise; never this database's own
	Resume map[changeset.SiteID]int64 // what was reached in the walks of others, stored as it is
}

// ApplyResult says what Apply did.
type ApplyResult struct {
	Ls      []int64 // the local version of each group, of its last part if it was cut; 0: it had no effect and was not recorded
	Changed []int64 // how many rows each group changed
	Parked  []int   // how many changes of each group were parked
	Heads   Heads   // afterwards
}

// Heads is how far a database is.
type Heads struct {
	Own    int64 // the highest version of its own that has rows, or had when it was reported; 0: none
	Newest int64 // the highest local version of any entry; 0: none
}

// TableSchema is a CRR: its name, its CREATE TABLE statement and its columns.
type TableSchema = changeset.TableSchema

// Schema is the CRRs of a database.
type Schema struct {
	Hash       [32]byte      // see docs/PROTOCOL.md; zero: no CRR
	Generation int64         // see Replica.Migrate
	Version    int64         // of the whole schema, CRRs or not: another one whenever anything in it may have changed
	Tables     []TableSchema // in bytewise order of their names
}

// State is what a replica starts from.
type State struct {
	Site   changeset.SiteID
	Heads  Heads
	Vector map[changeset.SiteID]int64 // of other sites: everything that each wrote up to there is covered
	Resume map[changeset.SiteID]int64 // see ApplyRequest
	Schema Schema
	Parked int64 // changes that could not be applied so far
	// Untried says that some of these may fit the schema that is there now: it was changed while nobody looked, as by Migrate
	// before the start. ReplayParked tells.
	Untried bool
}
