package mesh

import (
	"context"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
)

// Store is the database that a Node keeps in sync. Every method but Commits blocks on disk, may be called from any
// goroutine, and returns soon after its context ends. Slices that it returns belong to the caller, and slices that it
// is given may be kept but not changed. After an *UnavailableError it is asked again. Any other error is final: the Node
// reports it and stops, because a database that cannot be read or written has nothing to say to others.
type Store interface {
	// State returns everything that the Node must know at its start.
	State(ctx context.Context) (State, error)
	// Heads returns what may have changed through a commit. It must be cheap: it is called after each.
	Heads(ctx context.Context) (Heads, error)
	// Read reads entries in one snapshot. ReadResult.Err is not used.
	Read(ctx context.Context, r syncproto.ReadRequest) (syncproto.ReadResult, error)
	// Apply applies groups and returns once all is durable. It may take several transactions, the last of which stores
	// claims and resume. Only one runs at a time, and one that failed may be asked for again, whatever of it was stored. A change that cannot be applied is the store's to put aside, and no error;
	// where it can put no more aside, ApplyResult.Refused says so.
	Apply(ctx context.Context, r syncproto.ApplyRequest) (syncproto.ApplyResult, error)
	// Digest answers what the database holds, in one snapshot. The answer's ID is not used. The digest of a whole table is
	// read anew each time.
	Digest(ctx context.Context, q syncproto.DigestRequest) (syncproto.DigestAnswer, error)
	// Rows returns all changes of some rows of a table, as entries in ascending order: about maxBytes, and one row at least.
	Rows(ctx context.Context, table string, places []changeset.Place, maxBytes int) ([]syncproto.Entry, error)
	// Schema returns the tables that are synced.
	Schema(ctx context.Context) ([]syncproto.TableSchema, error)
	// TakeSchema takes of another's schema what the owner of the database lets it take. What it does not take is the store's
	// to log, and no error. Where the hash is the database's own, its generation rises to the other's.
	TakeSchema(ctx context.Context, s syncproto.SchemaRequest) error
	// Replay applies changes that were put aside and now can be applied. It is called after the schema changed, and at the
	// start where State says so.
	Replay(ctx context.Context) error
	// Parked returns what is put aside.
	Parked(ctx context.Context) (ParkedStatus, error)
	// Renew gives the database a new site id, because of reason, a sentence without its full stop: own versions are in use elsewhere
	// with other content, or may be. All that the database holds stays, and what others may hold with other content is written anew
	// under the new id, so that each of them takes it. State tells the rest. A store that has no new id to give returns
	// a *NoRenewalError: then the Node goes on under the old one, without those peers that dispute it. Nothing else of the store is
	// asked meanwhile.
	Renew(ctx context.Context, reason string) error
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
	Parked ParkedStatus
	// Untried says that the schema has changed since what is put aside was tried: Replay is called at the start, too.
	Untried bool
}

// Heads is how far a database is.
type Heads struct {
	Own        int64    // highest version of its own that has rows, or was ever announced
	Newest     int64    // highest local version of any entry
	SchemaHash [32]byte // see docs/PROTOCOL.md
	Generation int64    // of the schema
	// Schema is another number whenever anything in the database's schema may have changed, also what the hash does not
	// heed: changes that were put aside may be applied then.
	Schema int64
}

// NoRenewalError is returned by Store.Renew where the database keeps its site id.
type NoRenewalError struct{ Err error }

func (e *NoRenewalError) Error() string { return e.Err.Error() }
func (e *NoRenewalError) Unwrap() error { return e.Err }
