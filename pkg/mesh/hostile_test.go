package mesh

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
	"github.com/crmesh/crmesh/pkg/signaling"
)

// TestReaderReceives: a node with the read keys gets everything, and is shown as a reader.
func TestReaderReceives(t *testing.T) {
	r := newRoom(t)
	a := r.add("a", 1)
	reader := r.add("r", 2, func(c *Config) { c.Keys = signaling.ReaderKeys(r.keys.Read, r.keys.WriterPublic) })
	a.store.writeText("x", "k")
	a.await(t, Condition{Links: 1, Synced: true})
	until(t, "the reader has it", patience, func() bool { return reader.store.get("k") == "x" })
	if s := a.await(t, Condition{}); s.Members[0].Role != "reader" {
		t.Errorf("the reader is shown as %q", s.Members[0].Role)
	}
}

// TestStoreFails: the node reports the error of its store and stops; the others go on.
func TestStoreFails(t *testing.T) {
	r := newRoom(t)
	a, b, c := r.add("a", 1), r.add("b", 2), r.add("c", 3)
	linked(t, a, b, c)
	b.store.breakWith(errDiskFull)
	a.store.writeText("x", "k")
	select {
	case <-b.Done():
	case <-time.After(patience):
		t.Fatal("the node goes on")
	}
	if err := b.Err(); !errors.Is(err, errDiskFull) || !strings.Contains(err.Error(), "database") {
		t.Errorf("the node ended with %v", err)
	}
	if _, err := b.Status(t.Context()); !errors.Is(err, errDiskFull) {
		t.Errorf("Status: %v", err)
	}
	r.equal(a, c)
}

// TestWaitEnds: Wait ends with its context, and with the node.
func TestWaitEnds(t *testing.T) {
	r := newRoom(t)
	a := r.add("a", 1)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := a.Wait(ctx, Condition{Links: 1}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Wait: %v", err)
	}
	waited := make(chan error, 1)
	go func() {
		_, err := a.Wait(context.Background(), Condition{Links: 1})
		waited <- err
	}()
	r.stop(a)
	if err := receive(t, waited); !errors.Is(err, ErrClosed) {
		t.Errorf("Wait: %v", err)
	}
}

// TestLargeValue: a value of 10 MB passes, and pings pass it by: the link goes on.
func TestLargeValue(t *testing.T) {
	r := newRoom(t)
	r.timing.suspect, r.timing.dead = SuspectAfter, DeadAfter // a slow machine is silent for longer than tests wait
	a, b := r.add("a", 1), r.add("b", 2)
	linked(t, a, b)
	before := b.openConns(t)[0]
	big := make([]byte, 10_000_000)
	_, _ = rand.Read(big)
	a.store.write(changeset.Blob(big), "big")
	whileMoving(t, "the value is there", before.bytesIn.Load, func() bool { return b.store.get("big") == string(big) })
	until(t, "a ping was answered", patience, func() bool { return before.rtt.Load() > 0 })
	if !slices.Contains(b.openConns(t), before) {
		t.Error("the link was replaced")
	}
}

// whileMoving waits for ok as long as figure moves on.
func whileMoving(t testing.TB, what string, figure func() uint64, ok func() bool) {
	t.Helper()
	last, moved := figure(), time.Now()
	for !ok() {
		if n := figure(); n != last {
			last, moved = n, time.Now()
		}
		if time.Since(moved) > patience {
			t.Fatalf("nothing moves at %d, and still not so: %s", last, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// TestManyCommits: a burst of commits arrives in order of time, whatever is combined on the way.
func TestManyCommits(t *testing.T) {
	r := newRoom(t)
	a, b := r.add("a", 1), r.add("b", 2)
	linked(t, a, b)
	for i := range 2000 {
		a.store.writeText(fmt.Sprint(i), fmt.Sprint("k", i%50))
	}
	a.await(t, Condition{Links: 1, Synced: true})
	r.equal(a, b)
}
