// Package changeset holds what a cr-sqlite change is made of, without any I/O: site ids, typed values,
// the packed form of values and primary keys, the order of values, and the merge decision.
//
// It imports the standard library only, and nothing of net, os or time.
package changeset

import "encoding/hex"

// SentinelCID is the column name of a row's sentinel: a create (odd causal length) or a delete (even).
const SentinelCID = "-1"

// SiteIDLen is the length of a site id that a database gives itself (a UUIDv4), in bytes.
const SiteIDLen = 16

// SiteID names one database. It holds raw bytes, as crsql_site_id() returns them: 16 for a real site;
// a row merged by hand may carry fewer, never more. It compares bytewise and is a map key.
type SiteID string

// String returns the id in lower-case hex.
func (s SiteID) String() string { return hex.EncodeToString([]byte(s)) }

// Change is one row of crsql_changes: one cell, or the sentinel, of one row of one table.
// Slices are owned by the Change; whoever receives it must not modify them.
type Change struct {
	Table      string // the CRR's name
	PK         []byte // packed primary key, see AppendPacked
	CID        string // column name, or SentinelCID
	Val        Value  // the cell's value; Null for a sentinel
	ColVersion int64  // version of the cell; of a sentinel: equal to CL
	DBVersion  int64  // db_version in the database that it was read from; not carried on the wire
	Site       SiteID // originator, kept through any number of hops
	CL         int64  // causal length of the row: odd alive, even deleted
	Seq        int64  // order within its transaction at the origin, from 0
}
