package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/procfs"

	"github.com/crmesh/crmesh/pkg/signaling/signaltest"
)

// What BenchmarkSignaling measures.
const (
	benchClients = 10_000
	benchRate    = 1000             // joins a second
	secureShare  = 5                // one of so many over TLS, at that part of the rate: the clients' own handshakes cost as much as the server's
	benchJoins   = 5                // turns in which they join
	benchSettle  = 40 * time.Second // each server has pinged all clients by then; y-webrtc's does so every 30 s
	benchRounds  = 10               // of relaying, in turns
	benchRelays  = 500              // envelopes of a round
	benchMembers = 100              // who join one room
)

// benchServer is a server under load: a process, and another one that has the clients.
type benchServer struct {
	name       string
	share      int // what part of the clients it has: 1 of so many
	pid        int
	in         io.Writer
	out        *bufio.Scanner
	zero, idle uint64 // bytes resident without clients, and with all of them
	peak       uint64
	cpu        float64 // seconds that the joins took
	join       []loadResult
	relay      []loadResult
	room       []loadResult // of ours alone
}

// BenchmarkSignaling holds the server, without TLS and with it, beside y-webrtc's and peerjs-server without. It wants CRMESH_BENCH_SIGNAL, the directory where
// both are installed, and bin/signal; `make bench-signal` sees to that. It measures once, whatever b.N says.
func BenchmarkSignaling(b *testing.B) {
	dir := os.Getenv("CRMESH_BENCH_SIGNAL")
	if dir == "" {
		b.Skip("CRMESH_BENCH_SIGNAL is not set; `make bench-signal` sets it")
	}
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil || files.Max < benchClients+500 {
		b.Fatalf("a process may have %d files open, and %d are needed: raise the hard limit (ulimit -Hn)", files.Max, benchClients+500)
	}
	n, fast := strconv.Itoa(benchClients+1000), strconv.Itoa(1_000_000)
	limits := []string{"--max-connections", n, "--max-connections-per-address", n, "--max-rooms", n,
		"--join-rate", fast, "--join-burst", fast, "--message-rate", fast, "--message-burst", fast}
	cert, key := filepath.Join(b.TempDir(), "cert.pem"), filepath.Join(b.TempDir(), "key.pem")
	signaltest.NewAuthority(b).Write(1, cert, key)
	servers := []*benchServer{
		startBenchSignal(b, "signal", limits...),
		startBenchSignal(b, "signal"+secureKind, append(slices.Clip(limits), "--tls-cert", cert, "--tls-key", key)...),
		startNode(b, "y-webrtc", filepath.Join(dir, "node_modules/y-webrtc/bin/server.js")),
		startNode(b, "peerjs", filepath.Join(dir, "node_modules/peer/dist/bin/peerjs.js"),
			"--concurrent_limit", n, "--alive_timeout", "3600000"), // its clients would have to say something each 90 s
	}
	for _, s := range servers {
		s.zero, _ = resident(b, s.pid)
	}
	for range benchJoins { // in turns, so that whatever else the machine does meets all alike
		for _, s := range servers {
			before := processorTime(b, s.pid)
			s.join = append(s.join, s.ask(b, fmt.Sprintf("join %d %d", benchClients/benchJoins/s.share, benchRate/s.share)))
			s.cpu += processorTime(b, s.pid) - before
		}
	}
	time.Sleep(benchSettle)
	for _, s := range servers {
		s.idle, s.peak = resident(b, s.pid)
	}
	for range benchRounds {
		for _, s := range servers {
			s.relay = append(s.relay, s.ask(b, fmt.Sprintf("relay %d", benchRelays)))
		}
		ours := servers[0]
		ours.room = append(ours.room, ours.ask(b, fmt.Sprintf("room %d", benchMembers)))
	}
	for _, s := range servers {
		s.ask(b, "check")
	}
	for _, s := range servers {
		b.Run(s.name, s.report)
	}
}

func (s *benchServer) report(b *testing.B) {
	clients := float64(benchClients / s.share)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(s.zero)/1e6, "MB-empty")
	b.ReportMetric(float64(s.idle-s.zero)/clients/1000, "kB/conn")
	b.ReportMetric(float64(s.peak-s.zero)/clients/1000, "kB-peak/conn")
	b.ReportMetric(median(s.join, func(r loadResult) float64 { return r.Rate }), "joins/s")
	b.ReportMetric(median(s.join, func(r loadResult) float64 { return r.P50 })*1e3, "join-p50-ms")
	b.ReportMetric(median(s.join, func(r loadResult) float64 { return r.P99 })*1e3, "join-p99-ms")
	b.ReportMetric(s.cpu/clients*1e6, "join-cpu-us")
	b.ReportMetric(median(s.relay, func(r loadResult) float64 { return r.P50 })*1e6, "relay-p50-us")
	b.ReportMetric(median(s.relay, func(r loadResult) float64 { return r.P99 })*1e6, "relay-p99-us")
	if len(s.room) > 0 {
		b.ReportMetric(median(s.room, func(r loadResult) float64 { return r.Seconds })*1e3, "room-ms")
	}
}

func median(results []loadResult, of func(loadResult) float64) float64 {
	var list []float64
	for _, r := range results {
		list = append(list, of(r))
	}
	slices.Sort(list)
	return list[len(list)/2]
}

func startBenchSignal(b *testing.B, name string, args ...string) *benchServer {
	b.Helper()
	program, err := filepath.Abs("../../bin/signal")
	if err == nil {
		_, err = os.Stat(program)
	}
	if err != nil {
		b.Fatalf("bin/signal is not built (make bin/signal): %v", err)
	}
	p := startProcess(b, func(c *exec.Cmd) { c.Path = program }, append(slices.Clip(args), "--listen", "127.0.0.1:0", "--stun", "off")...)
	u, err := url.Parse(p.url)
	if err != nil {
		b.Fatal(err)
	}
	s := startLoad(b, name, "127.0.0.1:"+u.Port(), p.cmd.Process.Pid)
	if strings.HasSuffix(name, secureKind) {
		s.share = secureShare
	}
	return s
}

// startNode starts a server of npm's on a free port, and waits until it listens.
func startNode(b *testing.B, name, script string, args ...string) *benchServer {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	_ = l.Close()
	if name == "peerjs" {
		args = append(args, "--port", port)
	}
	cmd := exec.Command("node", append([]string{script}, args...)...)
	cmd.Env = append(os.Environ(), "PORT="+port, "NODE_ENV=production")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	address := "127.0.0.1:" + port
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		if c, err := net.Dial("tcp", address); err == nil {
			_ = c.Close()
			break
		} else if time.Now().After(deadline) {
			b.Fatalf("%s does not listen: %v", name, err)
		}
	}
	return startLoad(b, name, address, cmd.Process.Pid)
}

// startLoad starts the process that has the clients of a server.
func startLoad(b *testing.B, name, address string, pid int) *benchServer {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), asLoad+"="+name+" "+address)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = in.Close() // it ends then
		_ = cmd.Wait()
	})
	return &benchServer{name: name, share: 1, pid: pid, in: in, out: bufio.NewScanner(out)}
}

// ask lets the clients do something, and waits for what they saw.
func (s *benchServer) ask(b *testing.B, what string) loadResult {
	b.Helper()
	if _, err := io.WriteString(s.in, what+"\n"); err != nil {
		b.Fatal(err)
	}
	if !s.out.Scan() {
		b.Fatalf("%s, %s: the clients are gone", s.name, what)
	}
	var r loadResult
	if err := json.Unmarshal(s.out.Bytes(), &r); err != nil || r.Error != "" {
		b.Fatalf("%s, %s: %s %v", s.name, what, r.Error, err)
	}
	b.Logf("%s, %s: %s", s.name, what, s.out.Text())
	return r
}

// resident returns the bytes of a process that are in memory, and how many there were at the most.
func resident(b *testing.B, pid int) (now, most uint64) {
	b.Helper()
	p, err := procfs.NewProc(pid)
	if err != nil {
		b.Fatal(err)
	}
	status, err := p.NewStatus()
	if err != nil {
		b.Fatal(err)
	}
	return status.VmRSS, status.VmHWM
}

// processorTime returns the seconds of CPU that a process has had.
func processorTime(b *testing.B, pid int) float64 {
	b.Helper()
	p, err := procfs.NewProc(pid)
	if err != nil {
		b.Fatal(err)
	}
	stat, err := p.Stat()
	if err != nil {
		b.Fatal(err)
	}
	return stat.CPUTime()
}
