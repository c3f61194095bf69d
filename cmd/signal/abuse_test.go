//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/procfs"

	"github.com/crmesh/crmesh/pkg/signaling"
	"github.com/crmesh/crmesh/pkg/signaling/signalclient"
	"github.com/crmesh/crmesh/pkg/signaling/signaltest"
)

var abuseScale = flag.Int("abuse", 1, "how many times as much abuse as a test has time for; 34 makes 100,000 rooms")

// arena is a server process, the pair, and the way for attackers.
type arena struct {
	t       testing.TB
	process *process
	private string
	http    *http.Client
	bound   uint64 // bytes of memory that the process may have
	*behaved
	*victim
}

// buildSignal builds the program as it is shipped: without the race detector, which would change its memory.
func buildSignal(t testing.TB) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "signal")
	if out, err := exec.Command("go", "build", "-o", file, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return file
}

// newArena starts a server with limits that are small enough to be reached.
func newArena(t testing.TB, program string, more ...string) *arena {
	t.Helper()
	flags := append([]string{
		"--max-connections=" + strconv.Itoa(abuseConnections+8), "--max-connections-per-address=" + strconv.Itoa(abuseConnections),
		"--max-sockets=" + strconv.Itoa(abuseSockets+16), "--max-sockets-per-address=" + strconv.Itoa(abuseSockets),
		"--join-burst=" + strconv.Itoa(abuseSockets), "--max-rooms=" + strconv.Itoa(abuseRooms), "--send-queue-bytes=262144", "--max-queued-bytes=4194304",
		"--request-timeout=" + abuseTimeout.String(), "--join-timeout=" + abuseTimeout.String(), "--grace=" + abuseGrace.String(),
	}, more...)
	a := &arena{t: t, http: &http.Client{Transport: &http.Transport{}}}
	t.Cleanup(a.http.CloseIdleConnections)
	a.process = startProcess(t, func(c *exec.Cmd) { c.Path = program },
		append([]string{"--listen", "127.0.0.1:0", "--stun", "off", "--private", "127.0.0.1:0", "--drain", "0s"}, flags...)...)
	a.private = a.process.private()
	a.bound = boundOf(t, flags)
	a.victim = &victim{address: strings.Trim(strings.TrimPrefix(a.process.url, "http://"), "/"), scale: *abuseScale}
	a.behaved = newBehaved(t, a.process.url)
	return a
}

// boundOf is the bound of memory with these flags, as the operator is told.
func boundOf(t testing.TB, flags []string) uint64 {
	t.Helper()
	var out bytes.Buffer
	if err := run(context.Background(), append([]string{"check", "--stun", "off"}, flags...), &out, &out); err != nil {
		t.Fatal(err)
	}
	said := regexp.MustCompile(`memory: at most (\d+) MiB`).FindStringSubmatch(out.String())
	if said == nil {
		t.Fatalf("signal check names no bound:\n%s", out.String())
	}
	n, err := strconv.ParseUint(said[1], 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return n << 20
}

// metrics are all samples that the server has, as they are written.
func (a *arena) metrics() map[string]float64 {
	a.t.Helper()
	status, body := signaltest.Get(a.t, a.http, a.private+"/metrics")
	if status != http.StatusOK {
		a.t.Fatalf("metrics: HTTP %d", status)
	}
	values := map[string]float64{}
	lines := bufio.NewScanner(strings.NewReader(body))
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), " ")
		if n, err := strconv.ParseFloat(value, 64); ok && err == nil {
			values[name] = n
		}
	}
	return values
}

// state is what an attack must leave as it was, after garbage collection.
func (a *arena) state() map[string]float64 {
	a.t.Helper()
	signaltest.Get(a.t, a.http, a.private+"/debug/pprof/heap?gc=1")
	m := a.metrics()
	return map[string]float64{
		"connections": m["crmesh_signal_connections"], "rooms": m["crmesh_signal_rooms"], "members": m["crmesh_signal_members"],
		"goroutines": m["go_goroutines"], "files": m["process_open_fds"], "heap": m["go_memstats_heap_alloc_bytes"],
	}
}

// slack is how much more of something there may be after an attack: the heap has what the runtime and the standard
// library keep, such as buffers of connections that may come again.
var slack = map[string]float64{"heap": 2 << 20, "goroutines": 2, "files": 2}

// calm waits until nothing is left of an attack.
func (a *arena) calm(before map[string]float64) {
	a.t.Helper()
	var now map[string]float64
	defer func() {
		if a.t.Failed() {
			a.t.Logf("before: %v\nnow: %v", before, now)
		}
	}()
	poll(a.t, "the state of before", func() bool {
		now = a.state()
		for name, n := range now {
			if n > before[name]+slack[name] {
				return false
			}
		}
		return true
	})
}

// peak is the most memory that the process has had, in bytes.
func (a *arena) peak() uint64 {
	a.t.Helper()
	proc, err := procfs.NewProc(a.process.cmd.Process.Pid)
	if err != nil {
		a.t.Fatal(err)
	}
	status, err := proc.NewStatus()
	if err != nil {
		a.t.Fatal(err)
	}
	return status.VmHWM
}

// newcomer proves that somebody else is let in.
func (a *arena) newcomer() {
	a.t.Helper()
	keys, err := signaling.NewRoom(rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c, err := signalclient.New(signalclient.Config{URLs: []string{a.process.url}, Keys: keys})
	if err != nil {
		a.t.Fatal(err)
	}
	defer c.Close()
	select {
	case e := <-c.Events():
		if _, ok := e.(signalclient.Joined); !ok {
			a.t.Errorf("a newcomer gets %+v", e)
		}
	case <-time.After(patience):
		a.t.Error("a newcomer does not get in")
	}
}

// Under each attack the server stays up within its memory, refuses what is too much and says so in its metrics, and a pair
// in another room loses neither its connections nor an envelope. Afterwards all is as before. How long the pair's envelopes
// take meanwhile, BenchmarkAbuse measures.
func TestAbuse(t *testing.T) {
	program := buildSignal(t)
	for _, attack := range attacks {
		t.Run(attack.name, func(t *testing.T) {
			t.Parallel()
			a := newArena(t, program, attack.flags...)
			a.newcomer()
			a.arrived()
			before, metrics := a.state(), a.metrics()
			if err := attack.run(a.victim); err != nil {
				t.Error(err)
			}
			now := a.metrics()
			for cause, least := range attack.refused {
				// What ends a connection is counted when it has ended.
				poll(t, fmt.Sprintf("%v refusals as %s", least, cause), func() bool {
					now = a.metrics()
					n := 0.0
					for c := range strings.SplitSeq(cause, "|") {
						name := fmt.Sprintf(`crmesh_signal_refusals_total{cause=%q}`, c)
						n += now[name] - metrics[name]
					}
					return n >= least
				})
			}
			a.behaved.unhurt()
			a.calm(before)
			poll(t, "an answer for the attacker's address, too", func() bool {
				return a.answers("afterwards", "GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", http.StatusOK) == nil
			})
			if attack.flags == nil {
				a.newcomer()
			}
			a.behaved.unhurt()
			peak := a.peak()
			if peak > a.bound {
				t.Errorf("the server had %d KiB, and its bound is %d", peak>>10, a.bound>>10)
			}
			var refused []string
			for name, n := range now {
				if cause, ok := strings.CutPrefix(name, "crmesh_signal_refusals_total"); ok && n > metrics[name] {
					refused = append(refused, fmt.Sprintf("%s %v", strings.Trim(cause, `{}`), n-metrics[name]))
				}
			}
			slices.Sort(refused)
			t.Logf("at most %d of %d KiB; %s", peak>>10, a.bound>>10, strings.Join(refused, ", "))
			a.process.stop()
		})
	}
}
