package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	moveRuns   = 3                     // of each move, unless CRMESH_RUNS says otherwise
	moveWrites = 20 * time.Millisecond // between the rows that a peer writes
	moveLook   = 5 * time.Millisecond  // between the looks at what the other one has
	moveRow    = 4096                  // bytes of a row
)

// dial opens a connection from within the machine: a socket belongs to the namespace of the thread that makes it.
func (l *lan) dial(ctx context.Context, network, address string) (net.Conn, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	defer func() { _ = home.Close() }()
	there, err := os.Open("/run/netns/" + l.name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = there.Close() }()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, err
	}
	c, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		panic(back) // the thread would go on in the wrong network
	}
	return c, err
}

// talker talks to the API of the machine's peer over one connection, which does not notice what happens to its network.
type talker struct {
	t      *testing.T
	client *http.Client
}

func (l *lan) talker() *talker {
	transport := &http.Transport{DialContext: l.dial}
	l.t.Cleanup(transport.CloseIdleConnections)
	return &talker{l.t, &http.Client{Transport: transport}}
}

func (k *talker) ask(what, sql string, args ...any) (answer struct{ Rows [][]int64 }, err error) {
	body, err := json.Marshal(map[string]any{"sql": sql, "args": append([]any{}, args...)})
	if err != nil {
		return answer, err
	}
	response, err := k.client.Post("http://127.0.0.1:7070/v1/"+what, "application/json", bytes.NewReader(body))
	if err != nil {
		return answer, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return answer, fmt.Errorf("%s: %s", sql, response.Status)
	}
	return answer, json.NewDecoder(response.Body).Decode(&answer)
}

// rowsOf returns how many rows are here that the peer n has written.
func (k *talker) rowsOf(n int) int64 {
	k.t.Helper()
	answer, err := k.ask("query", "SELECT count(*) FROM note WHERE n = "+fmt.Sprint(n))
	if err != nil {
		k.t.Fatal(err)
	}
	return answer.Rows[0][0]
}

// write writes rows until the test ends it.
func (k *talker) write(ctx context.Context, n int) {
	tick := time.NewTicker(moveWrites)
	defer tick.Stop()
	body := strings.Repeat("x", moveRow)
	for id := n; ; id += 2 {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if _, err := k.ask("exec", "INSERT INTO note VALUES (?, ?, ?)", id, body, n); err != nil && ctx.Err() == nil {
			k.t.Error(err)
			return
		}
	}
}

// TestNetnsMoves measures how long rows stand still after a change of the network: from the moment at which the new network is there until
// rows come through in both directions, while both sides write.
func TestNetnsMoves(t *testing.T) {
	openNetwork(t)
	runs := moveRuns
	if s := os.Getenv("CRMESH_RUNS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			t.Fatalf("CRMESH_RUNS=%s is no number of runs", s)
		}
		runs = n
	}
	address := 0
	down := func(d time.Duration) func(t *testing.T) time.Time {
		return func(t *testing.T) time.Time {
			command(t, "ip -n a link set outer down")
			time.Sleep(d) // it is what is measured
			command(t, "ip -n a link set outer up")
			return time.Now()
		}
	}
	for _, c := range []struct {
		name string
		move func(t *testing.T) time.Time
	}{
		{"a new address", func(t *testing.T) time.Time {
			address++
			command(t, fmt.Sprintf("ip -n a address flush dev outer; ip -n a address add 203.0.113.%d/24 dev outer", 20+address%2))
			return time.Now()
		}},
		{"the interface down for 1 s", down(time.Second)},
		{"the interface down for 3.2 s", down(3200 * time.Millisecond)},
		{"the interface down for 5 s", down(5 * time.Second)},
		{"the interface down for 8 s", down(8 * time.Second)},
		{"the interface down for 12 s", down(12 * time.Second)},
		{"the interface down for 30 s", down(30 * time.Second)},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLabAt(t, "http://"+netnsServer+":8787/")
			openNamespace(t, "a", "203.0.113.11")
			openNamespace(t, "b", "203.0.113.12")
			a, b := &lan{t, "a", t.TempDir()}, &lan{t, "b", t.TempDir()}
			schema := l.file("notes.sql", notes)
			for _, p := range []*lan{a, b} {
				p.in("peer", "run", "--db", filepath.Join(p.dir, "x.db"), "--room", l.write, "--schema", schema, "--name", p.name)
				p.must("wait", "--timeout", patience.String())
			}
			a.must("wait", "--links", "1", "--timeout", patience.String())
			ka, kb := a.talker(), b.talker()
			ctx, stop := context.WithCancel(t.Context())
			writers := make(chan struct{}, 2)
			for n, k := range []*talker{a.talker(), b.talker()} {
				go func() { k.write(ctx, n+1); writers <- struct{}{} }()
			}
			defer func() { stop(); <-writers; <-writers }()
			var took []time.Duration
			for range runs {
				flow := func(what string) {
					fromB, fromA := ka.rowsOf(2), kb.rowsOf(1)
					for deadline := time.Now().Add(2 * patience); ka.rowsOf(2) == fromB || kb.rowsOf(1) == fromA; time.Sleep(moveLook) {
						if time.Now().After(deadline) {
							t.Fatalf("%s, rows did not come through:\n%s", what, a.must("status"))
						}
					}
				}
				flow("before the move")
				there := c.move(t)
				flow("after the move")
				took = append(took, time.Since(there))
				flow("later")
				time.Sleep(2 * time.Second) // each run begins with links that are at rest
			}
			slices.Sort(took)
			t.Logf("rows came through after %v; median %v", rounded(took), rounded(took)[len(took)/2])
		})
	}
}

func rounded(all []time.Duration) (out []time.Duration) {
	for _, d := range all {
		out = append(out, d.Round(10*time.Millisecond))
	}
	return out
}
