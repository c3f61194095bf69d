//go:build unix

package main

import (
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/crmesh/crmesh/pkg/signaling/signalcluster/natsbus/natstest"
	"github.com/crmesh/crmesh/pkg/signaling/signaltest"
)

// balancer is a load balancer for TCP: each connection goes to a random server that takes it.
type balancer struct {
	listener net.Listener
	servers  []string
	tasks    sync.WaitGroup

	mu   sync.Mutex
	open map[net.Conn]struct{}
}

func newBalancer(t *testing.T, servers ...string) *balancer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &balancer{listener: listener, servers: servers, open: map[net.Conn]struct{}{}}
	b.tasks.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			b.tasks.Go(func() { b.serve(client) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		b.mu.Lock()
		for conn := range b.open {
			_ = conn.Close()
		}
		b.mu.Unlock()
		b.tasks.Wait()
	})
	return b
}

func (b *balancer) url() string { return "http://" + b.listener.Addr().String() + "/" }

func (b *balancer) serve(client net.Conn) {
	defer func() { _ = client.Close() }()
	var server net.Conn
	for _, i := range rand.Perm(len(b.servers)) {
		var err error
		if server, err = net.Dial("tcp", b.servers[i]); err == nil {
			break
		}
	}
	if server == nil {
		return
	}
	defer func() { _ = server.Close() }()
	b.mu.Lock()
	b.open[client], b.open[server] = struct{}{}, struct{}{}
	b.mu.Unlock()
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(client, server)
		_ = client.Close()
	})
	_, _ = io.Copy(server, client)
	_ = server.Close()
	back.Wait()
	b.mu.Lock()
	delete(b.open, client)
	delete(b.open, server)
	b.mu.Unlock()
}

// clusterMember is one signal process of a cluster, which can be started again.
type clusterMember struct {
	*process
	private string
	args    []string
}

func (m *clusterMember) start(t *testing.T) {
	t.Helper()
	m.process = startProcess(t, nil, m.args...)
}

// value is one of the metrics.
func (m *clusterMember) value(t *testing.T, name string) int {
	t.Helper()
	_, text := signaltest.Get(t, http.DefaultClient, "http://"+m.private+"/metrics")
	for line := range strings.SplitSeq(text, "\n") {
		if rest, ok := strings.CutPrefix(line, "crmesh_signal_"+name+" "); ok {
			v, err := strconv.ParseFloat(rest, 64)
			if err != nil {
				t.Fatal(err)
			}
			return int(v)
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

// startTwo starts a NATS server, and two processes behind a load balancer.
func startTwo(t *testing.T) (servers []*clusterMember, front *balancer) {
	t.Helper()
	nats := natstest.Start(t, nil)
	var addresses []string
	for range 2 {
		address, private := freePort(t), freePort(t)
		m := &clusterMember{private: private, args: []string{"--listen", address, "--stun", "off", "--private", private, "--cluster", nats.URL(),
			"--max-connections-per-address", "100000", "--join-burst", "100000"}}
		m.start(t)
		servers, addresses = append(servers, m), append(addresses, address)
	}
	for _, m := range servers {
		poll(t, "the servers know each other", func() bool { return m.value(t, "cluster_servers") == 1 })
	}
	return servers, newBalancer(t, addresses...)
}

// TestClusterKill: one of two processes is killed. Its clients go on at the other, and nobody is seen to leave.
func TestClusterKill(t *testing.T) {
	const clients = 20
	defer http.DefaultClient.CloseIdleConnections()
	servers, front := startTwo(t)
	c := newCrowd(t, clients, front.url(), 100*time.Millisecond)
	c.await("all join", func() bool { return c.all(1) })
	c.talk()
	for _, m := range servers {
		here := m.value(t, "members")
		poll(t, "each has the others", func() bool { return m.value(t, "cluster_members") == clients-here })
	}
	had := servers[0].value(t, "members")
	servers[0].signal(syscall.SIGKILL)
	c.await("all come back", func() bool { return c.joined() == clients+had && c.all(1) })
	poll(t, "the other has noticed", func() bool { return servers[1].value(t, "cluster_servers") == 0 })
	from := c.session.Load()
	c.await("each hears from others again", func() bool { return c.heard(from) > 5*clients })
	sent, got, lost := c.judge()
	t.Logf("%d envelopes sent, %d delivered; %d of %d clients were with the server that died", sent, got, lost, clients)
	if n := servers[1].value(t, "resumes_total"); n < had {
		t.Errorf("%d came back, and the server knew %d of them", had, n)
	}
}

// TestClusterRollingRestart: two processes behind a load balancer, in rooms of four; each is stopped and started again, one
// after the other. All clients come back; none is seen to leave; no envelope comes twice; a link between two nodes
// stays the same one. CRMESH_CLIENTS says how many clients; `make rolling` takes 2,000.
func TestClusterRollingRestart(t *testing.T) {
	const each = 4
	clients := 200
	if text := os.Getenv(manyClients); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < each {
			t.Fatalf("CRMESH_CLIENTS=%s is not a number of clients", text)
		}
		clients = n
	}
	defer http.DefaultClient.CloseIdleConnections()
	servers, front := startTwo(t)
	pair := newPair(t, front.url())

	start := time.Now()
	var crowds []*crowd
	for range clients / each {
		crowds = append(crowds, newCrowd(t, each, front.url(), time.Second))
	}
	all := func(test func(*crowd) bool) func() bool {
		done := 0 // those before are through
		return func() bool {
			for done < len(crowds) && test(crowds[done]) {
				done++
			}
			return done == len(crowds)
		}
	}
	await(t, "all join", all(func(c *crowd) bool { return c.all(1) }))
	t.Logf("%d clients in rooms of %d joined within %v; %d and %d of them at each server", len(crowds)*each, each,
		time.Since(start).Round(time.Millisecond), servers[0].value(t, "members"), servers[1].value(t, "members"))
	for _, c := range crowds {
		c.talk()
	}
	joined := func() int {
		n := pair.joined()
		for _, c := range crowds {
			n += c.joined()
		}
		return n
	}
	for i, m := range servers {
		pair.check()
		before, had := joined(), m.value(t, "members")
		start := time.Now()
		m.signal(syscall.SIGTERM)
		await(t, "all come back", func() bool { return joined() >= before+had })
		back := time.Since(start)
		if err := m.wait(); err != nil {
			t.Fatalf("server %d ended with %v", i, err)
		}
		ended, used := time.Since(start), m.cmd.ProcessState.UserTime()+m.cmd.ProcessState.SystemTime()
		if strings.Contains(m.log.String(), "level=WARN") {
			t.Logf("server %d complained:\n%s", i, m.log)
		}
		m.start(t)
		for _, m := range servers {
			poll(t, "the servers know each other", func() bool { return m.value(t, "cluster_servers") == 1 })
		}
		var from []uint64
		for _, c := range crowds {
			from = append(from, c.session.Load())
		}
		n := 0
		await(t, "members hear from each other again", func() bool {
			for n < len(crowds) && crowds[n].all(1) && crowds[n].heard(from[n]) >= 2*each {
				n++
			}
			return n == len(crowds)
		})
		t.Logf("server %d: its %d clients were back %v after SIGTERM, it had ended after %v, and used %v of CPU", i, had,
			back.Round(time.Millisecond), ended.Round(time.Millisecond), used.Round(time.Millisecond))
	}
	pair.check()
	sent, got, lost := 0, 0, 0
	for _, c := range crowds {
		s, g, l := c.judge()
		sent, got, lost = sent+s, got+g, lost+l
	}
	t.Logf("%d envelopes sent, %d delivered; %d clients did not move in time and were closed", sent, got, lost)
	for _, m := range servers {
		if strings.Contains(m.log.String(), "level=WARN") {
			t.Errorf("a server complains:\n%s", m.log)
		}
	}
}

// await is poll with time for thousands of clients on a machine that is busy.
func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	signaltest.Until(t, 2*time.Minute, what, done)
}
