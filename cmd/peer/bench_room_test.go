package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/crmesh/crmesh/pkg/crsql"
	"github.com/crmesh/crmesh/pkg/crsql/changeset"
	"github.com/crmesh/crmesh/pkg/mesh"
	"github.com/crmesh/crmesh/pkg/signaling"
)

const (
	roomCommits  = 300             // whose way is timed, and while which repetitions are counted
	roomWarmUp   = 5               // commits of each peer before that, in the mean
	roomWrites   = 40              // commits a second of all peers together, at most
	roomApplies  = 500             // the same times the databases that take them over: two cores do all the work here
	roomBringUp  = 2 * time.Minute // until all are linked
	roomCatchUp  = 2 * time.Minute
	roomIdleTime = 3 * time.Second
)

// BenchmarkRoom is rooms of several sizes, all peers in this process, with real databases and links over loopback: the time from a
// durable commit until another peer's query sees it, how many changes come more than once while all write, and what an
// idle link takes.
func BenchmarkRoom(b *testing.B) {
	for _, n := range []int{2, 8, 64} {
		b.Run(fmt.Sprintf("peers=%d", n), func(b *testing.B) { benchmarkRoom(b, n) })
	}
}

func benchmarkRoom(b *testing.B, n int) {
	server, err := startSignalServer("127.0.0.1:0", "off", slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { server.close(slog.New(slog.DiscardHandler)) })
	keys, err := signaling.NewRoom(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	peers := make([]localPeer, n)
	for i := range peers {
		peers[i] = startLocal(b, server.url, notes, keys)
	}
	ctx, cancel := context.WithTimeout(b.Context(), roomBringUp)
	defer cancel()
	for _, p := range peers {
		if _, err := p.node.Wait(ctx, mesh.Condition{Links: min(n-1, 2), Synced: true}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(0, "ns/op") // the whole run says nothing
	memory(b, peers)
	writing(b, peers, roomWarmUp*n)
	before, redundantBefore := received(b, peers)
	writing(b, peers, roomCommits)
	roomEqual(b, peers)
	after, redundant := received(b, peers)
	b.ReportMetric(100*float64(redundant-redundantBefore)/float64(after-before), "%-twice")
	visible(b, peers)
}

// memory reports what the process holds for each end of a link, databases and all.
func memory(b *testing.B, peers []localPeer) {
	time.Sleep(roomIdleTime) // what setting up left behind goes
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	ends := 0
	for _, p := range peers {
		s, err := p.node.Status(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		ends += s.Connections
	}
	b.ReportMetric(float64(m.HeapInuse+m.StackInuse)/float64(ends)/1e3, "kB/link-end")
	b.ReportMetric(float64(runtime.NumGoroutine())/float64(ends), "goroutines/link-end")
	b.ReportMetric(float64(ends)/float64(len(peers)), "links/peer")
}

var noteID struct {
	sync.Mutex
	next int64
}

func insertNote(ctx context.Context, p localPeer) (changeset.Value, error) {
	noteID.Lock()
	noteID.next++
	id := changeset.Integer(noteID.next)
	noteID.Unlock()
	_, err := p.db.Exec(ctx, "INSERT INTO note VALUES (?, 'hello', 1)", id)
	return id, err
}

// writing lets peers, taken at random, commit at a steady pace.
func writing(b *testing.B, peers []localPeer, commits int) {
	tick := time.NewTicker(time.Second / time.Duration(min(roomWrites, roomApplies/(len(peers)-1))))
	defer tick.Stop()
	for ; commits > 0; commits-- {
		<-tick.C
		if _, err := insertNote(b.Context(), peers[mathrand.IntN(len(peers))]); err != nil {
			b.Fatal(err)
		}
	}
}

// roomEqual waits until all peers cover all that any of them wrote.
func roomEqual(b *testing.B, peers []localPeer) {
	want := map[string]int64{}
	for _, p := range peers {
		s, err := p.node.Status(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		if s.Version > 0 {
			want[s.Site] = s.Version
		}
	}
	for end := time.Now().Add(roomCatchUp); ; time.Sleep(10 * time.Millisecond) {
		behind := slices.ContainsFunc(peers, func(p localPeer) bool {
			s, err := p.node.Status(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			for site, version := range want {
				if s.Vector[site] < version {
					return true
				}
			}
			return false
		})
		if !behind {
			return
		}
		if time.Now().After(end) {
			b.Fatal("the peers do not become equal")
		}
	}
}

func received(b *testing.B, peers []localPeer) (changes, redundant int64) {
	for _, p := range peers {
		s, err := p.node.Status(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		changes += s.Applied.Changes
		redundant += s.Applied.Redundant
	}
	return changes, redundant
}

// visible times commits of one peer until another one sees them, both taken at random.
func visible(b *testing.B, peers []localPeer) {
	times := make([]time.Duration, roomCommits)
	for i := range times {
		from := mathrand.IntN(len(peers))
		to := (from + 1 + mathrand.IntN(len(peers)-1)) % len(peers)
		id, err := insertNote(b.Context(), peers[from])
		if err != nil {
			b.Fatal(err)
		}
		begun := time.Now()
		for seen := false; !seen; {
			_, err := peers[to].db.Query(b.Context(), "SELECT 1 FROM note WHERE id = ?", []changeset.Value{id},
				func([]changeset.Value) error { seen = true; return nil })
			if err != nil {
				b.Fatal(err)
			}
			runtime.Gosched()
		}
		times[i] = time.Since(begun)
	}
	slices.Sort(times)
	b.ReportMetric(percentile(times, 50), "p50-ms")
	b.ReportMetric(percentile(times, 99), "p99-ms")
}

// engineRate returns how fast a database takes over all changes of another in this process, as a peer does it but without a
// link: changes per second.
func engineRate(b *testing.B, from *crsql.DB) float64 {
	b.Helper()
	ctx := b.Context()
	source, err := crsql.OpenReplica(ctx, from)
	if err != nil {
		b.Fatal(err)
	}
	db, err := crsql.Open(ctx, filepath.Join(b.TempDir(), "engine.db"), crsql.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	target, err := crsql.OpenReplica(ctx, db)
	if err != nil {
		b.Fatal(err)
	}
	begun := time.Now()
	schema, err := source.Schema(ctx)
	if err == nil {
		_, err = target.CreateTables(ctx, schema.Tables)
	}
	if err != nil {
		b.Fatal(err)
	}
	changes := 0
	for at := (crsql.Position{}); ; {
		r, err := source.Read(ctx, crsql.ReadRequest{
			After: at, MaxBytes: 64 << 10, MaxChanges: 4096,
			Decide: func(changeset.SiteID, int64) crsql.Decision { return crsql.Send },
		})
		if err != nil {
			b.Fatal(err)
		}
		var groups []crsql.Group
		for _, e := range r.Entries {
			groups = append(groups, crsql.Group{Origin: e.Origin, Version: e.Version, Changes: e.Changes})
			changes += len(e.Changes)
		}
		if len(groups) > 0 {
			if _, err := target.Apply(ctx, crsql.ApplyRequest{Groups: groups}); err != nil {
				b.Fatal(err)
			}
		}
		if r.End {
			break
		}
		at = r.Next
	}
	return float64(changes) / time.Since(begun).Seconds()
}
