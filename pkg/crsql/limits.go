package crsql

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"math"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// SQLite's own limits, which are those of the driver too. They are checked before mattn, which counts in 32 bits.
const (
	maxSQL   = 1_000_000_000 // bytes of the text that one call runs
	maxBound = 1_000_000_000 // bytes of a text or blob
)

// Bounds of what a database replicates.
const (
	MaxName = 1024    // bytes of the name of a CRR, and of each of its columns
	MaxKey  = 1 << 20 // bytes of a packed primary key
)

// Bounds of what a DB and its Replica take. What is beyond them is refused whole.
const (
	MaxValue     = 64 << 20 // bytes of the key and the value of one change in an ApplyRequest
	MaxStatement = 16 << 20 // bytes of the text of one SQL statement; a script has any number of them
	MaxSites     = 16384    // sites in the claims, or in the resume, of one ApplyRequest
	MaxTables    = 1024     // tables of one CreateTables
	MaxTableSQL  = 64 << 10 // bytes of a CREATE TABLE statement from a peer
)

// Bounds of what peers may make a database keep or do by means of its schema.
const (
	MaxParked        = 1_000_000 // changes that are parked at a time: see ParkedError
	MaxParkedBytes   = 256 << 20 // bytes of these
	MaxSchemaChanges = 10_000    // changes that a schema from a peer may make the database emit
	MaxGeneration    = 1<<32 - 1 // generations of a schema
)

// What one ReadRequest gets at most, if it asks for more: bytes and changes.
const (
	MaxReadBytes   = 64 << 20
	MaxReadChanges = 1 << 20
)

// ErrLimit is wrapped by the error of a call that was given more than one of the bounds above.
var ErrLimit = errors.New("it is beyond a limit")

func overLimit(what string, n, limit int) error {
	return fmt.Errorf("%s has %d bytes, at most %d are supported: %w", what, n, limit, ErrLimit)
}

// checkArgs refuses arguments whose length mattn would not pass on as it is.
func checkArgs(args []driver.NamedValue) error {
	for i := range args {
		if n := sizeOf(args[i].Value); n > maxBound {
			return overLimit(fmt.Sprintf("argument %d", args[i].Ordinal), n, maxBound)
		}
	}
	return nil
}

func sizeOf(v any) int {
	switch v := v.(type) {
	case string:
		return len(v)
	case []byte:
		return len(v)
	}
	return 0
}

// checkKey refuses the primary key of a new row that other databases would refuse.
func checkKey(pk []driver.Value) error {
	if err := checkNotNull(pk); err != nil {
		return err
	}
	total := 1
	for _, v := range pk {
		total += sizeOf(v) + 9 // at most, packed
	}
	if total > MaxKey {
		return overLimit("the primary key", total, MaxKey)
	}
	return nil
}

// checkNotNull refuses a primary key that no row of a CRR has: somebody called a trigger's function by hand.
func checkNotNull(pk []driver.Value) error {
	for _, v := range pk {
		if b, ok := v.([]byte); v == nil || ok && b == nil {
			return errors.New("the primary key holds a NULL")
		}
	}
	return nil
}

// check refuses what could be neither applied nor parked, nor passed on.
func (q *ApplyRequest) check() error {
	for i := range q.Groups {
		g := &q.Groups[i]
		if err := checkOrigin(g.Origin, g.Version); err != nil {
			return fmt.Errorf("group %d: %w", i, err)
		}
		for j := range g.Changes {
			if err := checkChange(&g.Changes[j]); err != nil {
				return fmt.Errorf("change %d of group %d, to table %s, key %s, column %s: %w",
					j, i, nameText(g.Changes[j].Table), keyText(g.Changes[j].PK), nameText(g.Changes[j].CID), err)
			}
		}
	}
	for what, list := range map[string]map[changeset.SiteID]int64{"claims": q.Claims, "resume": q.Resume} {
		if len(list) > MaxSites {
			return fmt.Errorf("%s of %d sites, at most %d are supported: %w", what, len(list), MaxSites, ErrLimit)
		}
		for site, version := range list {
			if err := checkOrigin(site, version); err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
		}
	}
	return nil
}

func checkOrigin(site changeset.SiteID, version int64) error {
	switch {
	case len(site) == 0 || len(site) > changeset.SiteIDLen:
		return fmt.Errorf("a site id has 1 to %d bytes, not %d: %w", changeset.SiteIDLen, len(site), ErrLimit)
	case version < 0 || version > changeset.MaxVersion:
		return fmt.Errorf("a version lies between 0 and %d, %d does not: %w", changeset.MaxVersion, version, ErrLimit)
	}
	return nil
}

func checkChange(c *changeset.Change) error {
	switch {
	case len(c.Table) > MaxName:
		return overLimit("the name of its table", len(c.Table), MaxName)
	case len(c.CID) > MaxName:
		return overLimit("the name of its column", len(c.CID), MaxName)
	case len(c.PK)+c.Val.Size() > MaxValue:
		return overLimit("its key and value", len(c.PK)+c.Val.Size(), MaxValue)
	case len(c.Site) > changeset.SiteIDLen:
		return overLimit("its site id", len(c.Site), changeset.SiteIDLen)
	}
	return nil
}

// bounded brings a request's numbers into range.
func (q ReadRequest) bounded() (ReadRequest, error) {
	if q.Decide == nil {
		return q, errors.New("a ReadRequest needs a Decide")
	}
	q.MaxBytes = min(q.MaxBytes, MaxReadBytes)
	q.MaxChanges = min(q.MaxChanges, MaxReadChanges)
	q.After.L = max(q.After.L, math.MinInt64+1) // one is subtracted
	return q, nil
}
