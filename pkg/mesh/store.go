package mesh

import (
	"context"

	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
)

// Store is the database that a Node keeps in sync. Every method but Commits blocks on disk, may be called from any
// goroutine, and returns soon after its context ends. Slices that it returns belong to the caller, and slices that it
// is given may be kept but not changed. Any error it returns is final: the Node reports it and stops, because a database
// that cannot be read or written has nothing to say to others.
type Store interface {
	// State returns everything that the Node must know at its start.
	State(ctx context.Context) (State, error)
	// Heads returns what may have changed through a commit. It must be cheap: it is called after each.
	Heads(ctx context.Context) (Heads, error)
	// Read reads entries in one snapshot. ReadResult.Err is not used.
	Read(ctx context.Context, r syncproto.ReadRequest) (syncproto.ReadResult, error)
	// Apply applies groups and returns once all is durable. It may take several transactions, the last of which stores
	// claims and resume. Only one runs at a time. A change that cannot be applied is the store's to put aside, and no error.
	Apply(ctx context.Context, r syncproto.ApplyRequest) (syncproto.ApplyResult, error)
	// Schema returns the tables that are synced.
	Schema(ctx context.Context) ([]syncproto.TableSchema, error)
	// CreateTables creates those of the tables that do not exist. A statement that is not acceptable is reported as a
	// *RefusedError: then the fault is the sender's, and the Node goes on.
	CreateTables(ctx context.Context, tables []syncproto.TableSchema) error
	// Replay applies changes that were put aside and now can be applied. It is called after the schema changed.
	Replay(ctx context.Context) error
	// Commits returns a channel that carries one value after one or more durable commits that did not come through
	// Apply. It does not block, belongs to the store, and is the same at every call.
	Commits() <-chan struct{}
}

// State is what Store.State returns.
type State struct {
	Site   syncproto.SiteID
	Heads  Heads
	Vector syncproto.Vector           // foreign claims
	Resume map[syncproto.SiteID]int64 // what was reached in the walks of others
	Tables []syncproto.TableSchema
}

// Heads is how far a database is.
type Heads struct {
	Own        int64    // highest version of its own that has rows, or was ever announced
	Newest     int64    // highest local version of any entry
	SchemaHash [32]byte // see docs/PROTOCOL.md
}

// RefusedError is returned by Store.CreateTables for a schema that it does not run.
type RefusedError struct {
	Table  string
	Reason string // a sentence without its full stop
}

func (e *RefusedError) Error() string {
	return "the table " + e.Table + " sent by a peer was not created: " + e.Reason
}
