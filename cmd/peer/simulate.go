package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"time"

	"github.com/crmesh/crmesh/cmd/internal/program"
)

// Bounds of a simulation.
const (
	minSimPeers    = 2
	maxSimPeers    = 128
	maxSimLoss     = 50.0 // percent
	maxSimDelay    = 500 * time.Millisecond
	maxSimRate     = 1000.0  // writes a second of one peer
	maxSimWrites   = 250_000 // of all peers in the whole run; all databases are compared at the end
	minSimDuration = time.Second
	maxSimDuration = 24 * time.Hour
	minSimEvery    = 100 * time.Millisecond
	// faultsPerRun is how often each kind of fault happens in a run, about, unless --every says otherwise.
	faultsPerRun = 6
)

type simulateCommand struct {
	Peers         int           `default:"8" placeholder:"N" help:"Peers, each with a database of its own (${default}; 2 to 128)."`
	Duration      time.Duration `default:"30s" help:"How long they write (${default})."`
	Writes        float64       `default:"5" placeholder:"RATE" help:"Writes per second of each peer, on average (${default})."`
	Loss          float64       `placeholder:"PERCENT" help:"Packets that are lost, of each direction (0 to 50)."`
	Delay         time.Duration `help:"How long each packet takes, of each direction (at most 500ms)."`
	Partition     time.Duration `help:"Split the peers at random into two groups that cannot reach each other for so long, again and again."`
	RestartSignal bool          `help:"Stop the signaling server and start it again, again and again."`
	Churn         bool          `help:"Kill peers without a goodbye; they come back, two of three with their database, one with a new one."`
	Every         time.Duration `help:"Time between two faults of one kind, on average; by default a sixth of the duration."`
	Settle        time.Duration `default:"2m" help:"How long all databases may take to become equal, once the writes and the faults are over (${default})."`
	Seed          uint64        `placeholder:"N" help:"Choose the random instants as the run did that printed this number."`
	JSON          bool          `name:"json" help:"Print the report as JSON."`
	Log           string        `placeholder:"FILE" help:"Write down there what all peers log."`
}

// check fills in defaults and refuses what cannot be run.
func (c *simulateCommand) check() error {
	if c.Every == 0 {
		c.Every = max(c.Duration/faultsPerRun, minSimEvery)
	}
	if c.Seed == 0 {
		c.Seed = 1 + uint64(rand.Uint32())
	}
	switch writes := float64(c.Peers) * c.Writes * c.Duration.Seconds(); {
	case c.Peers < minSimPeers || c.Peers > maxSimPeers:
		return fmt.Errorf("--peers %d: name a number from %d to %d", c.Peers, minSimPeers, maxSimPeers)
	case c.Duration < minSimDuration || c.Duration > maxSimDuration:
		return fmt.Errorf("--duration %v: name a time from %v to %v", c.Duration, minSimDuration, maxSimDuration)
	case !(c.Writes > 0) || c.Writes > maxSimRate:
		return fmt.Errorf("--writes %v: name a number above 0, at most %v", c.Writes, maxSimRate)
	case writes > maxSimWrites:
		return fmt.Errorf("that makes %.0f writes, at most %d can be compared: lower --peers, --writes or --duration", writes, maxSimWrites)
	case !(c.Loss >= 0) || c.Loss > maxSimLoss:
		return fmt.Errorf("--loss %v: name a percentage from 0 to %v", c.Loss, maxSimLoss)
	case c.Delay < 0 || c.Delay > maxSimDelay:
		return fmt.Errorf("--delay %v: name a time of at most %v", c.Delay, maxSimDelay)
	case c.Partition < 0 || c.Partition > maxSimDuration:
		return fmt.Errorf("--partition %v: name how long one lasts, such as 10s", c.Partition)
	case c.Every < minSimEvery || c.Every > maxSimDuration:
		return fmt.Errorf("--every %v: name a time from %v to %v", c.Every, minSimEvery, maxSimDuration)
	case c.Settle < minSimDuration || c.Settle > maxSimDuration:
		return fmt.Errorf("--settle %v: name a time from %v to %v", c.Settle, minSimDuration, maxSimDuration)
	}
	return nil
}

// Run simulates, and reports. It is an error if the databases are not equal at the end, or lack what was acknowledged.
func (c *simulateCommand) Run(ctx context.Context, out program.Output) (err error) {
	if err := c.check(); err != nil {
		return err
	}
	if _, set := os.LookupEnv("GOGC"); !set {
		debug.SetGCPercent(gcPercent) // as peer run does
	}
	log := discard
	if c.Log != "" {
		f, err := os.Create(c.Log)
		if err != nil {
			return fmt.Errorf("the log cannot be written: %w", err)
		}
		defer func() { _ = f.Close() }()
		log = slog.New(slog.NewTextHandler(f, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	fmt.Fprintf(out.Stderr, "%d peers, seed %d\n", c.Peers, c.Seed)
	dir, err := os.MkdirTemp("", "crmesh-simulate-")
	if err != nil {
		return fmt.Errorf("there is no place for the databases: %w", err)
	}
	keep := false
	defer func() {
		if !keep {
			_ = os.RemoveAll(dir)
		}
	}()
	report, err := simulate(ctx, *c, dir, log, func(line string) { fmt.Fprintln(out.Stderr, line) })
	if err != nil {
		return err
	}
	if err := report.print(out.Stdout, c.JSON); err != nil {
		return err
	}
	keep = !report.Equal || report.LostRows > 0
	switch {
	case !report.Equal:
		return fmt.Errorf("the databases are not equal after %v; they are in %s; if they only need longer, --settle gives them more", c.Settle, dir)
	case report.LostRows > 0:
		return fmt.Errorf("%d rows that were acknowledged are lost; the databases are in %s", report.LostRows, dir)
	}
	return nil
}

// simulationReport is what a run has shown. docs/SIMULATE.md defines the figures.
type simulationReport struct {
	Seed            uint64           `json:"seed"`
	Peers           int              `json:"peers"`
	Equal           bool             `json:"equal"`
	LostRows        int              `json:"lostRows"`
	SettleSeconds   float64          `json:"settleSeconds"`
	WriteSeconds    float64          `json:"writeSeconds"`
	Commits         int64            `json:"commits"`
	Rows            int              `json:"rows"`
	Visible         visibleReport    `json:"visible"`
	RowsReceived    int64            `json:"rowsReceived"`
	RowsNeeded      int64            `json:"rowsNeeded"`
	CopiesPerRow    float64          `json:"copiesPerRow"`
	Changes         int64            `json:"changes"`
	Bytes           int64            `json:"bytes"`
	BytesPerChange  float64          `json:"bytesPerChange"`
	HeapPerPeer     int64            `json:"heapBytesPerPeer"`
	ResidentPerPeer int64            `json:"residentBytesPerPeer,omitempty"` // where the system tells it
	Goroutines      float64          `json:"goroutinesPerPeer"`
	Links           linksReport      `json:"linksPerPeer"`
	Faults          simulationFaults `json:"faults"`
}

// visibleReport is the time from a commit until another database has it.
type visibleReport struct {
	Count     int64   `json:"count"`
	P50Millis float64 `json:"p50Millis"`
	P99Millis float64 `json:"p99Millis"`
	MaxMillis float64 `json:"maxMillis"`
}

type linksReport struct {
	Min  int     `json:"min"`
	Mean float64 `json:"mean"`
	Max  int     `json:"max"`
}

type simulationFaults struct {
	LostPackets    int64 `json:"lostPackets"`
	Partitions     int   `json:"partitions"`
	CutPackets     int64 `json:"cutPackets"`
	SignalRestarts int   `json:"signalRestarts"`
	Kills          int   `json:"kills"`
	NewDatabases   int   `json:"newDatabases"`
}

func (r *simulationReport) print(w io.Writer, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(r)
	}
	state := "equal"
	if !r.Equal {
		state = "NOT equal"
	}
	t := newTable("result", fmt.Sprintf("%d databases are %s, %.2f s after the last write", r.Peers, state, r.SettleSeconds))
	t.add("commits", fmt.Sprintf("%d in %.1f s; %d rows at the end, %d lost", r.Commits, r.WriteSeconds, r.Rows, r.LostRows))
	t.add("visible", fmt.Sprintf("p50 %.1f ms, p99 %.1f ms, at most %.1f ms after the commit (%d times)",
		r.Visible.P50Millis, r.Visible.P99Millis, r.Visible.MaxMillis, r.Visible.Count))
	t.add("copies", fmt.Sprintf("%.3f per row: %d rows received, %d needed", r.CopiesPerRow, r.RowsReceived, r.RowsNeeded))
	t.add("network", fmt.Sprintf("%s, %.0f bytes per change", bytesText(float64(r.Bytes)), r.BytesPerChange))
	memory := fmt.Sprintf("%s of Go's heap per peer", bytesText(float64(r.HeapPerPeer)))
	if r.ResidentPerPeer > 0 {
		memory += fmt.Sprintf(", %s in all", bytesText(float64(r.ResidentPerPeer)))
	}
	t.add("memory", fmt.Sprintf("%s; %.0f goroutines", memory, r.Goroutines))
	t.add("links", fmt.Sprintf("%.1f per peer, from %d to %d", r.Links.Mean, r.Links.Min, r.Links.Max))
	f := r.Faults
	t.add("faults", fmt.Sprintf("%d packets lost; %d partitions cut %d packets; %d restarts of the signaling server; %d kills, %d with a new database",
		f.LostPackets, f.Partitions, f.CutPackets, f.SignalRestarts, f.Kills, f.NewDatabases))
	t.add("seed", fmt.Sprint(r.Seed))
	return t.print(w)
}

// errNotReady is why a simulation did not begin.
var errNotReady = errors.New("the peers did not come together")
