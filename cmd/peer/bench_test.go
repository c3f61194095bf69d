package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/pion/datachannel"
	"github.com/pion/webrtc/v4"

	"github.com/crmesh/crmesh/pkg/crsql"
	"github.com/crmesh/crmesh/pkg/crsql/changeset"
	"github.com/crmesh/crmesh/pkg/mesh"
	"github.com/crmesh/crmesh/pkg/signaling"
	"github.com/crmesh/crmesh/pkg/signaling/signalclient"
)

// The benchmarks measure once, whatever b.N says: `make bench` runs them with -benchtime 1x.

const (
	bareBytes  = 64 << 20 // that the bare channel moves
	bareFrame  = 16 << 10
	roundTrips = 2000
	commits    = 1000
)

// bareChannel joins two connections of pion in this process by one ordered channel.
func bareChannel(b *testing.B) (left, right datachannel.ReadWriteCloser, buffered func() uint64) {
	b.Helper()
	var settings webrtc.SettingEngine
	settings.DetachDataChannels()
	settings.SetIncludeLoopbackCandidate(true)
	api := webrtc.NewAPI(webrtc.WithSettingEngine(settings))
	negotiated, id := true, uint16(0)
	var pcs [2]*webrtc.PeerConnection
	var channels [2]*webrtc.DataChannel
	var open [2]chan datachannel.ReadWriteCloser
	for i := range pcs {
		pc, err := api.NewPeerConnection(webrtc.Configuration{})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = pc.GracefulClose() })
		dc, err := pc.CreateDataChannel("bare", &webrtc.DataChannelInit{Negotiated: &negotiated, ID: &id})
		if err != nil {
			b.Fatal(err)
		}
		ready := make(chan datachannel.ReadWriteCloser, 1)
		dc.OnOpen(func() {
			if raw, err := dc.Detach(); err == nil {
				ready <- raw
			}
		})
		pcs[i], channels[i], open[i] = pc, dc, ready
	}
	describe := func(from, to *webrtc.PeerConnection, sd webrtc.SessionDescription, err error) {
		if err != nil {
			b.Fatal(err)
		}
		gathered := webrtc.GatheringCompletePromise(from)
		if err := from.SetLocalDescription(sd); err != nil {
			b.Fatal(err)
		}
		<-gathered
		if err := to.SetRemoteDescription(*from.LocalDescription()); err != nil {
			b.Fatal(err)
		}
	}
	offer, err := pcs[0].CreateOffer(nil)
	describe(pcs[0], pcs[1], offer, err)
	answer, err := pcs[1].CreateAnswer(nil)
	describe(pcs[1], pcs[0], answer, err)
	return <-open[0], <-open[1], channels[0].BufferedAmount
}

// bareRate returns how fast a bare channel moves bytes, in bytes per second: pion as it comes, both ends in this process.
func bareRate(b *testing.B) float64 {
	b.Helper()
	left, right, buffered := bareChannel(b)
	done := make(chan error, 1)
	go func() {
		_, err := io.CopyN(io.Discard, bufio.NewReaderSize(right, 4*bareFrame), bareBytes) // a Read takes whole messages only
		done <- err
	}()
	frame := make([]byte, bareFrame)
	begun := time.Now()
	for sent := 0; sent < bareBytes; sent += len(frame) {
		for buffered() > 1<<20 {
			time.Sleep(100 * time.Microsecond)
		}
		if _, err := left.Write(frame); err != nil {
			b.Fatal(err)
		}
	}
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	return bareBytes / time.Since(begun).Seconds()
}

// bareRoundTrips returns the times that 100 bytes take to and fro on a bare channel, ascending.
func bareRoundTrips(b *testing.B) []time.Duration {
	b.Helper()
	left, right, _ := bareChannel(b)
	go func() {
		buf := make([]byte, 1<<16)
		for range roundTrips {
			n, err := right.Read(buf)
			if err != nil {
				return
			}
			_, _ = right.Write(buf[:n])
		}
	}()
	buf, message := make([]byte, 1<<16), make([]byte, 100)
	times := make([]time.Duration, roundTrips)
	for i := range times {
		begun := time.Now()
		if _, err := left.Write(message); err != nil {
			b.Fatal(err)
		}
		if _, err := left.Read(buf); err != nil {
			b.Fatal(err)
		}
		times[i] = time.Since(begun)
	}
	slices.Sort(times)
	return times
}

// percentile returns a percentile of ascending times, in ms.
func percentile(times []time.Duration, percent int) float64 {
	return float64(times[len(times)*percent/100].Microseconds()) / 1000
}

// BenchmarkCities moves the full sample database from one process to another. times-bare is the time that it takes over the
// time that a bare channel takes for as many bytes.
func BenchmarkCities(b *testing.B) {
	world := filepath.Join("..", "..", ".cache", "sample", "world.sql")
	if _, err := os.Stat(world); err != nil {
		b.Skip("the sample database is missing: make sample")
	}
	bare := bareRate(b)
	l := newLab(b)
	l.signal()
	a := l.peer("a", l.write, "--schema", world)
	begun := time.Now()
	p := l.peer("b", l.write)
	p.synced(1)
	took := time.Since(begun)
	var s mesh.Status
	if err := p.flags().call(context.Background(), "/v1/status", nil, &s); err != nil {
		b.Fatal(err)
	}
	bytes, changes := float64(s.Members[0].BytesIn), float64(s.Applied.Changes)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(took.Seconds(), "s")
	b.ReportMetric(changes/took.Seconds(), "changes/s")
	b.ReportMetric(bytes/changes, "bytes/change")
	b.ReportMetric(bytes/1e6, "MB")
	b.ReportMetric(bare/1e6, "bare-MB/s")
	b.ReportMetric(took.Seconds()/(bytes/bare), "times-bare")
	a.stop()
	p.stop()
	db, err := crsql.Open(b.Context(), a.db, crsql.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	engine := engineRate(b, db)
	b.ReportMetric(engine, "engine-changes/s")
	b.ReportMetric(changes/took.Seconds()/min(engine, bare/(bytes/changes)), "of-the-slower")
}

// localPeer is a database and its node in this process.
type localPeer struct {
	db   *crsql.DB
	node *mesh.Node
}

func startLocal(b *testing.B, url, schema string, keys signaling.Keys) localPeer {
	b.Helper()
	ctx, log := b.Context(), slog.New(slog.DiscardHandler)
	db, err := crsql.Open(ctx, filepath.Join(b.TempDir(), "x.db"), crsql.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = db.Close() })
	r, err := crsql.OpenReplica(ctx, db)
	if err != nil {
		b.Fatal(err)
	}
	if err := db.ExecScript(ctx, schema); err != nil {
		b.Fatal(err)
	}
	id, err := signaling.NewPeerID(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	introducer := newSignaler()
	if err := introducer.join(signalclient.Config{URLs: []string{url}, Keys: keys, Peer: id}); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(introducer.close)
	node, err := mesh.Start(ctx, mesh.Config{Store: store{r, log, crsql.AcceptAdditive, nil}, Signaler: introducer, Peer: id, Keys: keys})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = node.Close() })
	return localPeer{db, node}
}

// BenchmarkCommitToVisible is the time from a durable commit in one database until a query of another sees it, beside the
// round trip of a bare channel.
func BenchmarkCommitToVisible(b *testing.B) {
	server, err := startSignalServer("127.0.0.1:0", "off", slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { server.close(slog.New(slog.DiscardHandler)) })
	keys, err := signaling.NewRoom(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	from, to := startLocal(b, server.url, notes, keys), startLocal(b, server.url, notes, keys)
	if _, err := to.node.Wait(b.Context(), mesh.Condition{Links: 1, Synced: true}); err != nil {
		b.Fatal(err)
	}
	bare := bareRoundTrips(b)
	times := make([]time.Duration, commits)
	for i := range times {
		id := changeset.Integer(int64(i + 1))
		if _, err := from.db.Exec(b.Context(), "INSERT INTO note VALUES (?, 'hello', "+strconv.Itoa(i)+")", id); err != nil {
			b.Fatal(err)
		}
		begun := time.Now()
		for seen := false; !seen; {
			_, err := to.db.Query(b.Context(), "SELECT 1 FROM note WHERE id = ?", []changeset.Value{id},
				func([]changeset.Value) error { seen = true; return nil })
			if err != nil {
				b.Fatal(err)
			}
		}
		times[i] = time.Since(begun)
	}
	slices.Sort(times)
	b.ReportMetric(0, "ns/op") // the whole run says nothing
	b.ReportMetric(percentile(times, 50), "p50-ms")
	b.ReportMetric(percentile(times, 99), "p99-ms")
	b.ReportMetric(percentile(bare, 50), "bare-p50-ms")
	b.ReportMetric(percentile(bare, 99), "bare-p99-ms")
	b.ReportMetric(percentile(times, 50)/percentile(bare, 50), "times-bare-p50")
}
