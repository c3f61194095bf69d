package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

// TestSimulate: with every kind of fault at once, all databases become equal, and the report says what happened.
// It is not parallel: what other tests hold would count as memory.
func TestSimulate(t *testing.T) {
	var out, progress bytes.Buffer
	args := []string{"simulate", "--peers", "5", "--duration", "5s", "--writes", "10", "--loss", "1", "--delay", "2ms",
		"--partition", "700ms", "--restart-signal", "--churn", "--every", "600ms", "--json"}
	if err := run(t.Context(), args, &out, &progress); err != nil {
		t.Fatalf("%v\n%s%s", err, progress.String(), out.String())
	}
	t.Logf("%s", out.String())
	var r simulationReport
	d := json.NewDecoder(&out)
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		t.Fatal(err)
	}
	for what, ok := range map[string]bool{
		"equal":               r.Equal && r.LostRows == 0 && r.Peers == 5 && r.Seed > 0,
		"written":             r.Commits > 30 && r.Rows > 10 && r.WriteSeconds >= 5,
		"visible":             r.Visible.Count > 30 && r.Visible.P50Millis > 0,
		"percentiles":         r.Visible.P99Millis >= r.Visible.P50Millis && r.Visible.MaxMillis >= r.Visible.P99Millis,
		"copies":              r.CopiesPerRow >= 1 && r.RowsNeeded > r.Commits && r.Changes > r.RowsNeeded,
		"bytes":               r.BytesPerChange > 0 && r.Bytes > r.Changes,
		"memory":              r.HeapPerPeer > 0 && r.Goroutines > 1,
		"links":               r.Links.Max >= 1 && r.Links.Mean >= float64(r.Links.Min) && float64(r.Links.Max) >= r.Links.Mean,
		"packets lost":        r.Faults.LostPackets > 0,
		"partitions":          r.Faults.Partitions > 0 && r.Faults.CutPackets > 0,
		"server restarts":     r.Faults.SignalRestarts > 0,
		"kills":               r.Faults.NewDatabases > 0 && r.Faults.NewDatabases <= r.Faults.Kills,
		"progress is told":    strings.Count(progress.String(), "writing") >= 3,
		"the seed is told":    strings.Contains(progress.String(), "seed"),
		"settling is bounded": r.SettleSeconds < 120,
	} {
		if !ok {
			t.Errorf("%s: not so", what)
		}
	}
}

// newTestSimulation starts two peers and waits until they are linked.
func newTestSimulation(t *testing.T) *simulation {
	t.Helper()
	c := simulateCommand{Peers: 2, Duration: time.Second, Writes: 1, Settle: patience}
	if err := c.check(); err != nil {
		t.Fatal(err)
	}
	s, err := newSimulation(t.Context(), c, t.TempDir(), discard, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	for _, p := range s.peers {
		if err := s.start(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.together(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSimulateKill: a peer that is killed says no goodbye, to its links and to the signaling server, and comes back with a new
// database where it has lost the old one.
func TestSimulateKill(t *testing.T) {
	t.Parallel()
	s := newTestSimulation(t)
	first, second := s.peers[0], s.peers[1]
	if err := s.writeOnce(t.Context(), first.now().db, first.db, s.random(streamWriters)); err != nil {
		t.Fatal(err)
	}
	old := second.db.path
	if err := s.kill(second, true); err != nil {
		t.Fatal(err)
	}
	if status, err := first.now().node.Status(t.Context()); err != nil || liveLinks(status) != 1 {
		t.Errorf("the other one knows already that the peer was killed: %+v, %v", status.Members, err)
	}
	if members := s.server.server.Stats().Members; members != 2 {
		t.Errorf("the server has %d members in the room", members)
	}
	if err := s.start(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	if _, equal, err := s.settle(t.Context()); err != nil || !equal {
		t.Errorf("equal %t, %v", equal, err)
	}
	if _, err := os.Stat(old); second.db.path == old || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old database is still there: %v", err)
	}
}

// TestSimulateSeesDifferences: databases that differ are not called equal, and a row that is nowhere is called lost.
func TestSimulateSeesDifferences(t *testing.T) {
	t.Parallel()
	s := newTestSimulation(t)
	s.network.partition(s.random(streamPartition))
	first := s.peers[0]
	if err := s.writeOnce(t.Context(), first.now().db, first.db, s.random(streamWriters)); err != nil {
		t.Fatal(err)
	}
	s.Settle = time.Second
	if _, equal, err := s.settle(t.Context()); err != nil || equal {
		t.Errorf("a row that cannot get through: equal %t, %v", equal, err)
	}
	s.Settle = time.Nanosecond
	if err := s.together(t.Context()); !errors.Is(err, errNotReady) || !strings.Contains(err.Error(), "longer with --settle") {
		t.Errorf("peers without the time to come together: %v", err)
	}
	s.network.heal()
	s.Settle = patience
	if _, equal, err := s.settle(t.Context()); err != nil || !equal {
		t.Errorf("a network that is whole again: equal %t, %v", equal, err)
	}
	if r, err := s.report(t.Context(), footprint{}); err != nil || r.LostRows != 0 || r.Rows != 1 || r.Visible.Count != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	s.journal.done(s.journal.begin(), true, first.db) // of a row that nobody wrote
	if r, err := s.report(t.Context(), footprint{}); err != nil || r.LostRows != 1 {
		t.Errorf("one row is lost: %+v, %v", r, err)
	}
}

func TestSimulateFlags(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"--peers 1":                  "from 2 to 128",
		"--peers 129":                "from 2 to 128",
		"--duration 1ms":             "--duration",
		"--writes 0":                 "--writes",
		"--writes -1":                "--writes",
		"--writes NaN":               "--writes",
		"--writes 1001":              "--writes",
		"--writes 1000 --peers 100":  "at most 250000",
		"--loss 51":                  "--loss",
		"--loss=-1":                  "--loss",
		"--delay 1s":                 "--delay",
		"--partition=-1s":            "--partition",
		"--every 1ms":                "--every",
		"--settle 1ms":               "--settle",
		"--log /no/such/dir/log.txt": "the log cannot be written",
		"--seed x":                   "--seed",
		"--restart-signal=sometimes": "--restart-signal",
	} {
		err := run(t.Context(), append([]string{"simulate"}, strings.Fields(args)...), io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", args, err)
		}
	}
}

// TestSimulateSeed: a seed chooses the faults, another one others.
func TestSimulateSeed(t *testing.T) {
	t.Parallel()
	choices := func(seed uint64) string {
		s := &simulation{simulateCommand: simulateCommand{Peers: 20, Seed: seed}}
		network, err := newSimNetwork(s.Peers, 0.5, 0, s.random(streamNetwork))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = network.close() }()
		random := s.random(streamPartition)
		wait := about(random, time.Second)
		if wait < time.Second/2 || wait > 3*time.Second/2 {
			t.Errorf("a fault comes after %v, where one second is the mean", wait)
		}
		first := network.partition(random)
		return fmt.Sprint(wait, first, network.side, simText(s.random(streamWriters)))
	}
	first, again, other := choices(1), choices(1), choices(2)
	if first != again {
		t.Error("one seed made two choices")
	}
	if first == other {
		t.Error("two seeds made one choice")
	}
}
