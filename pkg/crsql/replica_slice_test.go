package crsql

import (
	"context"
	"fmt"
	"testing"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// A large Apply is cut so that local writers go between, and its parts hold what the whole would.
func TestApplyLetsWritersBetween(t *testing.T) {
	const rows = 8 * sliceChanges
	n := newNode(t, "n")
	n.script(noteSQL)
	n.db.slice = 1 // nanosecond: after each look at the clock

	group := Group{Origin: siteX, Version: 7}
	for id := range int64(rows) {
		pk := noteKey(id)
		group.Changes = append(group.Changes,
			changeset.Change{Table: "note", PK: pk, CID: "title", Val: changeset.TextString("a"), ColVersion: 1, Site: siteX, CL: 1, Seq: 3 * id},
			changeset.Change{Table: "note", PK: pk, CID: "body", Val: changeset.Integer(id), ColVersion: 1, Site: siteX, CL: 1, Seq: 3*id + 1},
			changeset.Change{Table: "nowhere", PK: pk, CID: "x", ColVersion: 1, Site: siteX, CL: 1, Seq: 3*id + 2})
	}
	applied := make(chan ApplyResult, 1)
	go func() {
		applied <- n.apply(group, Group{Origin: siteY, Version: 8, Changes: []changeset.Change{title(1, "b", 2)}})
	}()
	var got ApplyResult
	written := 0
	for done := false; !done; {
		select {
		case got = <-applied:
			done = true
		default:
			n.exec("INSERT INTO note VALUES (?, 'local', 0, NULL)", -1-written)
			written++
		}
	}
	if got.Changed[0] != 2*rows || got.Parked[0] != rows || got.Changed[1] != 1 {
		t.Errorf("changed %v, parked %v", got.Changed, got.Parked)
	}

	parts, between, changes := 0, 0, 0
	perRow := map[string]int64{} // the local version that a row of the group has
	for _, e := range n.readAll(1 << 20) {
		switch e.Origin {
		case siteX:
			if e.Version != 7 {
				t.Fatalf("a part of version %d", e.Version)
			}
			parts++
			for _, c := range e.Changes {
				changes++
				if l, ok := perRow[c.Table+string(c.PK)]; ok && l != e.L {
					t.Fatalf("the row %x of %s is in two parts", c.PK, c.Table)
				}
				perRow[c.Table+string(c.PK)] = e.L
			}
		case siteY:
		default:
			if parts > 0 && changes < 3*rows-1 {
				between++
			}
		}
	}
	if changes != 3*rows-1 { // siteY's change has taken one over
		t.Errorf("%d changes in %d parts", changes, parts)
	}
	if parts < 4 || between == 0 {
		t.Errorf("%d parts, %d of %d local commits between them", parts, between, written)
	}
	if got := n.query("SELECT count(*) FROM note"); fmt.Sprint(got) != fmt.Sprintf("[%d ]", rows+written) {
		t.Error(got)
	}
}

// What an Apply claims is stored with its last part only.
func TestApplyCutShortClaimsNothing(t *testing.T) {
	n := newNode(t, "n")
	n.script(noteSQL)
	n.db.slice = 1
	var group Group
	for id := range int64(4 * sliceChanges) {
		group.Changes = append(group.Changes, title(id, "a", 1))
	}
	group.Origin, group.Version = siteX, 7
	request := ApplyRequest{
		Groups: []Group{group}, Claims: map[changeset.SiteID]int64{siteX: 7}, Resume: map[changeset.SiteID]int64{siteY: 5},
	}
	// The context ends when the second part is about to be stored.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	seal := n.db.seal
	slices := 0
	n.db.seal = func(s *session) error {
		if slices++; slices == 2 {
			cancel()
		}
		return seal(s)
	}
	if _, err := n.Apply(ctx, request); err == nil {
		t.Fatal("no error")
	}
	n.db.seal = seal
	if state := n.state(); len(state.Vector) != 0 || len(state.Resume) != 0 {
		t.Errorf("claims %v, resume %v", state.Vector, state.Resume)
	}
	if n.query("SELECT 1 FROM note LIMIT 1") == nil {
		t.Error("the first part is not there")
	}
	if _, err := n.Apply(context.Background(), request); err != nil {
		t.Fatal(err)
	}
	if state := n.state(); state.Vector[siteX] != 7 || state.Resume[siteY] != 5 {
		t.Errorf("claims %v, resume %v", state.Vector, state.Resume)
	}
}
