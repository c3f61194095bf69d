package syncproto

import "slices"

// EventKind says what happened.
type EventKind uint8

// The kinds of events.
const (
	EventLive          EventKind = iota + 1 // both hellos are through
	EventCaughtUp                           // the first walk of the other side is complete, and taken
	EventServed                             // our first walk for the other side is complete, and reported as applied
	EventSchemaDiffers                      // the schema hashes differ
	EventTooLarge                           // a change is larger than the other side accepts and was left out: Table, CID, Size
	EventStaleCopy                          // the other side has seen Version of our site, which we do not have: Proved
	EventVectorFull                         // a claim for a new site was dropped: the vector has MaxVectorSites
	EventParked                             // Count changes could not be applied and were put aside
	EventRemoteError                        // the other side reported Err
	EventSameSite                           // the other side has our site id: Proved
)

// Event is something worth a log line. Fields beyond Kind, Link and Remote are set where the kind says so.
type Event struct {
	Kind    EventKind
	Link    LinkID
	Remote  SiteID
	Version int64
	Count   int64
	Size    int
	Table   string
	CID     string
	Err     *Error
	Proved  bool // the other side has proved the writer role: not everybody can say this
}

// Status is a picture of the core. The caller owns it, save the vectors, which it must not change.
type Status struct {
	Site    SiteID
	Writer  bool
	Own     int64 // highest own version
	Newest  int64 // highest local version
	Vector  Vector
	Synced  bool
	Feeder  LinkID       // the link that we catch up from; 0: none
	Links   []LinkStatus // by ascending id
	Applied Counters     // since the core was made
}

// Counters count what was applied.
type Counters struct {
	Messages  int64 // changes messages
	Groups    int64
	Changes   int64 // changes received
	Changed   int64 // rows changed by them
	Redundant int64 // changes of groups that had no effect
	Parked    int64 // changes put aside
	TooLarge  int64 // changes that were not sent for their size
}

// LinkStatus is a picture of one link.
type LinkStatus struct {
	Link   LinkID
	Remote SiteID
	Live   bool // both hellos are through
	Writer bool // the other side proved the writer role
	Schema bool // the schema hashes are equal
	// Differences between our tables and its, where it has told them: changeset.SchemaDifferences.
	Differences []string

	CatchingUp bool  // our first catch-up from it is not complete
	Received   int64 // changes received from it
	Remaining  int64 // about how many more are to come in its walk
	Queued     int   // its messages that wait to be applied
	Waiting    int   // its claims that wait for their deps

	Serving  bool  // we have entries for it that are not sent, or not reported as applied
	Sent     int64 // changes sent to it
	Unsent   int64 // about how many more our walk has
	Held     int   // entries held back from it
	InFlight int   // messages not reported as applied
	Behind   int   // sites of which it covers less than we do
	Ahead    int   // sites of which it covers more than we do
}

// Vector returns what this peer covers, its own entry included. The caller must not change it.
func (c *Core) Vector() Vector { return c.vector }

// Status returns a picture of the core.
func (c *Core) Status() Status {
	s := Status{
		Site: c.cfg.Site, Writer: c.cfg.Writer, Own: c.own, Newest: c.newest, Vector: c.vector, Synced: c.Synced(),
		Feeder: c.feeder, Applied: c.counters,
	}
	for _, id := range c.order {
		if l := c.links[id]; !l.closing {
			s.Links = append(s.Links, c.linkStatus(l))
		}
	}
	return s
}

func (c *Core) linkStatus(l *link) LinkStatus {
	return LinkStatus{
		Link: l.id, Remote: l.remote, Live: l.live, Writer: l.writer, Schema: l.live && l.remoteHash == c.schemaHash,
		Differences: slices.Clone(l.differences),
		CatchingUp:  !l.caughtUp, Received: l.receivedChanges, Remaining: l.remaining, Queued: len(l.inbox),
		Waiting: len(l.claims),
		Serving: c.isServing(l), Sent: l.sentChanges, Unsent: max(l.unsent, 0), Held: len(l.held), InFlight: len(l.inflight),
		Behind: len(c.vector.Without(l.remote).Since(l.known)), Ahead: len(l.known.Without(c.cfg.Site).Since(c.vector)),
	}
}

// isServing reports whether there is something to send to the link's other side, or unreported.
func (c *Core) isServing(l *link) bool {
	return c.cfg.Writer && l.live && (!l.ended || c.newest > l.walked || l.owed || l.reading != nil || len(l.held) > 0 ||
		len(l.outbox) > 0 || len(l.inflight) > 0)
}

// Synced reports whether all links are live, we cover all that the other sides cover, as far as they can send it to
// us, and they cover all that we do, as far as we can send it to them.
func (c *Core) Synced() bool {
	if c.applying != nil {
		return false
	}
	for _, id := range c.order {
		l := c.links[id]
		if l.closing {
			continue
		}
		if !l.live || len(l.inbox) > 0 || c.isServing(l) {
			return false
		}
		if l.writer && !c.vector.CoversAll(l.known) || c.cfg.Writer && !l.known.CoversAll(c.vector.Without(l.remote)) {
			return false
		}
	}
	return true
}
