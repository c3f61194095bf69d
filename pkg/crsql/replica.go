package crsql

import (
	"context"
	"database/sql/driver"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// replicaFormat is the format of the tables below, recorded in crmesh_meta.
const replicaFormat = 1

// What a replica keeps beside the CRRs, in tables that are none themselves.
//
// crmesh_log says where entries come from that are not this database's own; crmesh_vector and crmesh_resume are what
// peers have told; crmesh_meta holds the format and the high waters; crmesh_parked holds changes that could not be
// applied, under the local version that they would have got.
var replicaSQL = []string{
	`CREATE TABLE IF NOT EXISTS crmesh_log (local_version INTEGER PRIMARY KEY, site BLOB NOT NULL, origin_version INTEGER NOT NULL)`,
	`CREATE TABLE IF NOT EXISTS crmesh_vector (site BLOB PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID`,
	`CREATE TABLE IF NOT EXISTS crmesh_resume (site BLOB PRIMARY KEY, reached INTEGER NOT NULL) WITHOUT ROWID`,
	`CREATE TABLE IF NOT EXISTS crmesh_meta (key TEXT PRIMARY KEY, value ANY) WITHOUT ROWID`,
	`CREATE TABLE IF NOT EXISTS crmesh_parked (id INTEGER PRIMARY KEY, local_version INTEGER NOT NULL, tbl TEXT NOT NULL, pk BLOB NOT NULL,
		cid TEXT NOT NULL, val, col_version INTEGER NOT NULL, site BLOB NOT NULL, cl INTEGER NOT NULL, seq INTEGER NOT NULL, reason TEXT NOT NULL)`,
	`CREATE INDEX IF NOT EXISTS crmesh_parked_version ON crmesh_parked (local_version)`,
	`CREATE INDEX IF NOT EXISTS crmesh_parked_cell ON crmesh_parked (tbl, pk, cid)`,
	// What is parked is counted as it comes and goes: to count it anew for each Apply would take time in proportion to it.
	`CREATE TABLE IF NOT EXISTS crmesh_parked_count (tbl TEXT NOT NULL, reason TEXT NOT NULL, changes INTEGER NOT NULL, bytes INTEGER NOT NULL,
		PRIMARY KEY (tbl, reason)) WITHOUT ROWID`,
	`INSERT INTO crmesh_parked_count SELECT tbl, reason, count(*), sum(` + parkedBytes("") + `) FROM crmesh_parked
		WHERE NOT EXISTS (SELECT 1 FROM crmesh_parked_count) GROUP BY tbl, reason`,
	`CREATE TRIGGER IF NOT EXISTS crmesh_parked_in AFTER INSERT ON crmesh_parked BEGIN
		INSERT INTO crmesh_parked_count VALUES (NEW.tbl, NEW.reason, 1, ` + parkedBytes("NEW.") + `)
			ON CONFLICT DO UPDATE SET changes = changes + 1, bytes = bytes + excluded.bytes; END`,
	`CREATE TRIGGER IF NOT EXISTS crmesh_parked_out AFTER DELETE ON crmesh_parked BEGIN
		UPDATE crmesh_parked_count SET changes = changes - 1, bytes = bytes - ` + parkedBytes("OLD.") + `
			WHERE tbl = OLD.tbl AND reason = OLD.reason;
		DELETE FROM crmesh_parked_count WHERE tbl = OLD.tbl AND reason = OLD.reason AND changes <= 0; END`,
}

// parkedBytes is what a row of crmesh_parked takes, in SQL. It counts for MaxParkedBytes.
func parkedBytes(row string) string {
	return fmt.Sprintf("%d + length(%[2]spk) + length(CAST(coalesce(%[2]sval, '') AS BLOB)) + length(CAST(%[2]stbl || %[2]scid || %[2]sreason AS BLOB))",
		parkedRowBytes, row)
}

// Keys of crmesh_meta.
const (
	metaFormat   = "format"
	metaHigh     = "high_water"     // highest local version that was ever reported
	metaOwnHigh  = "own_high_water" // highest own version among those
	metaVersions = "'" + metaHigh + "', '" + metaOwnHigh + "', '" + metaUnmet + "'"
	metaHome     = "home"        // where the file is: see home
	metaCertain  = "certain_own" // own versions above it may be in use in another file; none: no such doubt
	metaUnmet    = "unmet_own"   // the own version at the first open since a peer was met

	metaGeneration = "schema_generation" // of the schema: see Replica.Migrate
	metaSeen       = "schema_seen"       // the highest generation that a peer offered, or that was made here
	metaAsked      = "schema_asked"      // the schema that Replica.Migrate was given last
	metaTried      = "schema_tried"      // the schema_version at which all that is parked was tried last
	metaWhole      = "schema_whole"      // the schema_version at which no table lacked rows: see Replica.Missing
	metaDropped    = "schema_dropped "   // and a table or column: the generation at which it was dropped here on purpose
)

// Prepared statements of the replica, beside those of the engine in statementkind.go.
const (
	stmtScan        statementKind = 128 + iota // local versions and keys above a local version
	stmtScanRest                               // the same of a local version, behind a key
	stmtRows                                   // rows above a local version
	stmtRowsRest                               // rows of a local version, behind a key
	stmtRow                                    // the row of a local version and a key
	stmtOlder                                  // clocks of a row below a local version
	stmtCount                                  // how many clocks are above a local version
	stmtCountRest                              // how many of a local version, behind a key
	stmtSite                                   // the site of an ordinal
	stmtNewest                                 // the highest local version of the parked changes
	stmtHighWaters                             // both high waters
	stmtSetMeta                                // one entry of crmesh_meta
	stmtOrigin                                 // where a local version comes from
	stmtLog                                    // record where a local version comes from
	stmtClaim                                  // raise an entry of the vector
	stmtReached                                // store what was reached
	stmtParkedScan                             // parked changes above a local version
	stmtParkedRest                             // parked changes of a local version, behind an id
	stmtParkedCell                             // parked changes of one cell
	stmtParkedDrop                             // remove a parked change
	stmtParkedAdd                              // add a parked change
	stmtParkedAll                              // parked changes behind a local version and id, some
	stmtParkedCount                            // how many are above a local version
	stmtParkedLeft                             // how many of a local version, behind an id
	stmtParkedSum                              // how many there are in all, and their bytes
	stmtMeta                                   // a number of crmesh_meta
)

// A Replica reads and applies the changes of a database for its peers. Its methods may be called from any goroutine.
//
// Every change of the database is part of one entry: what one local version holds. Entries come from a local commit,
// or from Apply, which records where each comes from. A local version that was reported by any method never comes back
// with other content, whatever happens to tables and processes in between.
type Replica struct {
	db *DB

	mu     sync.Mutex            // guards the following
	places map[string]int64      // of the tables in the walk through an entry, from firstPlace; they only grow
	schema Schema                // as of schemaVersion
	known  int64                 // PRAGMA schema_version of schema; unknown: none was read
	trees  map[string]*tableTree // what Digest has left, by table

	side       sideRecord // as it was written last
	sideFailed bool       // it could not be, and that was logged

	quota  quota // of parked changes
	opened int64 // own versions above it may be in use elsewhere, if the whole machine was put back: see Renew

	met atomic.Bool // somebody reads the replica's entries, or others' are applied
}

// OpenReplica prepares a database for replication. It creates the replica's own tables, which begin with crmesh_, and
// makes sure that no local version is given out twice. There is one Replica for a DB, and it is made before the DB is
// written to.
//
// Where the file is a copy of another, or was put back from an older copy, the database gets a new site id, and one line
// in the log says so; all that it holds stays, under the origin that it had. That takes one transaction, in proportion to
// what the database holds. See Clone for copies on purpose.
func OpenReplica(ctx context.Context, db *DB) (*Replica, error) {
	r := &Replica{db: db, places: make(map[string]int64), known: unknown, quota: quota{MaxParked, MaxParkedBytes}}
	now, err := homeOf(db.path)
	if err != nil {
		return nil, err
	}
	r.side = readSide(db.lock)
	var settled settledHome
	err = db.transact(ctx, func(s *session) error {
		for _, sql := range replicaSQL {
			if err := s.run(ctx, sql); err != nil {
				return fmt.Errorf("prepare the database for replication: %w", err)
			}
		}
		if err := s.current(); err != nil {
			return err
		}
		if err := s.engine.checkFormat(); err != nil {
			return err
		}
		settled, err = s.settleHome(now, r.side)
		return err
	})
	if err != nil {
		return nil, err
	}
	if settled.renewed != nil {
		db.logRenewal(settled.renewed)
	}
	r.opened = settled.own
	db.seal = r.seal
	// Seals what was committed while no replica was there.
	if err := db.transact(ctx, func(*session) error { return nil }); err != nil {
		return nil, err
	}
	_, err = r.Heads(ctx) // leaves the record beside the database
	return r, err
}

func (e *engine) checkFormat() error {
	rows, err := e.query("SELECT value FROM main.crmesh_meta WHERE key = ?", metaFormat)
	if err != nil {
		return err
	}
	if len(rows) == 0 {
		return e.exec("INSERT INTO main.crmesh_meta VALUES (?, ?)", metaFormat, int64(replicaFormat))
	}
	if format := rows[0][0]; format != int64(replicaFormat) {
		return fmt.Errorf("the database was written by another version of crmesh (format %v, not %d): use that version", format, replicaFormat)
	}
	return nil
}

// number runs a statement that returns one number; 0 stands for none.
func (e *engine) number(kind statementKind, sql string, args ...driver.Value) (int64, error) {
	st, err := e.stmts.get(statementKey{kind: kind}, func() string { return sql })
	if err != nil {
		return 0, err
	}
	n, _, err := st.int64(args...)
	return n, err
}

// tableNumber is number for a statement about a table's clocks.
func (e *engine) clockNumber(kind statementKind, clock, sql string, args ...driver.Value) (int64, error) {
	st, err := e.stmts.get(statementKey{kind: kind, cols: clock}, func() string { return fmt.Sprintf(sql, "main."+ident(clock)) })
	if err != nil {
		return 0, err
	}
	n, _, err := st.int64(args...)
	return n, err
}

// write runs a prepared statement for its effect.
func (e *engine) write(kind statementKind, sql string, args ...driver.Value) error {
	st, err := e.stmts.get(statementKey{kind: kind}, func() string { return sql })
	if err != nil {
		return err
	}
	return st.exec(args...)
}

// siteBytes returns a site id as it is stored. An empty one stays a blob.
func siteBytes(site changeset.SiteID) []byte { return append(make([]byte, 0, len(site)), site...) }
