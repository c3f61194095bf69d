package mesh

import (
	"strings"
	"testing"
)

// TestStoreUnavailable: a store that cannot be used for a while costs no link and no change, is told of, and nothing is
// acknowledged meanwhile.
func TestStoreUnavailable(t *testing.T) {
	r := newRoom(t)
	a, b := r.add("a", 1), r.add("b", 2)
	linked(t, a, b)
	a.await(t, Condition{Links: 1, Synced: true})
	links := b.openConns(t)
	b.store.breakWith(&UnavailableError{errDiskFull})
	a.store.writeText("x", "k")
	b.store.writeText("y", "l")
	until(t, "the store has been away for as long as a link that is silent would live", patience, func() bool {
		s := b.await(t, Condition{})
		return strings.Contains(s.Database.Error, errDiskFull.Error()) && s.Database.WaitMillis > r.timing.dead.Milliseconds()
	})
	if a.await(t, Condition{}).Synced || b.await(t, Condition{}).Synced {
		t.Error("they call themselves in sync")
	}
	b.store.breakWith(nil)
	r.equal(a, b)
	for _, n := range []*testNode{a, b} {
		if s := n.await(t, Condition{Links: 1, Synced: true}); s.Database.Error != "" {
			t.Errorf("it says still: %s", s.Database.Error)
		}
	}
	if now := b.openConns(t); len(now) != 1 || now[0] != links[0] {
		t.Error("the link was given up")
	}
}

// TestCloseWhileUnavailable: Close does not wait for the store.
func TestCloseWhileUnavailable(t *testing.T) {
	r := newRoom(t)
	a, b := r.add("a", 1), r.add("b", 2)
	linked(t, a, b)
	b.store.breakWith(&UnavailableError{errDiskFull})
	a.store.writeText("x", "k")
	until(t, "the status tells", patience, func() bool { return b.await(t, Condition{}).Database.Error != "" })
	if err := b.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// TestRenewalUnavailable: a store that cannot be given a new site id for now gets one later.
func TestRenewalUnavailable(t *testing.T) {
	r := newRoom(t)
	a := r.add("a", 1)
	a.store.noNew = &UnavailableError{errDiskFull}
	liar(r, a, true)
	until(t, "the status tells", patience, func() bool { return a.await(t, Condition{}).Database.Error != "" })
	a.store.mu.Lock()
	a.store.noNew = nil
	a.store.mu.Unlock()
	until(t, "the site is renewed", patience, func() bool { return a.await(t, Condition{}).Renewals == 1 })
}
