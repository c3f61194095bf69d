package mesh

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/crmesh/crmesh/pkg/signaling"
	"github.com/crmesh/crmesh/pkg/signaling/signalclient"
	"github.com/crmesh/crmesh/pkg/signaling/signalserver"
)

const (
	fewPairs  = 25              // each is two nodes, with all of ICE, DTLS and SCTP
	pairLimit = 2 * time.Minute // without any of them getting further, on a machine that does more than this
	maxCuts   = 4               // of a signaling connection
)

// TestPairs: pairs join a real signaling server, all at the same instant. In each pair both sides offer, and neither offer is
// let through before the other is made; when they are linked, both restart ICE in the same way; and meanwhile the signaling
// connections break, at random. In the end each pair has one link, and nothing is left of another.
//
// CRMESH_PAIRS is how many pairs there are; each takes some ten open files, and with more of them each has less of the machine
// and more time. CRMESH_SEED repeats the choices of a run; of the schedule it knows nothing.
func TestPairs(t *testing.T) {
	count := number(t, "CRMESH_PAIRS", fewPairs)
	seed := number(t, "CRMESH_SEED", int(rand.Uint32()))
	t.Logf("%d pairs, CRMESH_SEED=%d", count, seed)
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	t.Run("at once", func(t *testing.T) { pairs(t, count, uint64(seed)) })
	until(t, "all goroutines and sockets are gone", 20*time.Second, func() bool {
		return runtime.NumGoroutine() <= goroutines && openFiles(t) <= files
	})
}

// number is a number from the environment.
func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s: %q is no number above 0", name, text)
	}
	return n
}

func pairs(t *testing.T, count int, seed uint64) {
	cfg := signalserver.DefaultConfig()
	cfg.MaxConnectionsPerAddress, cfg.JoinRate, cfg.JoinBurst = cfg.MaxConnections, 1e6, 1e6 // all come from loopback
	server, err := signalserver.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(server)
	t.Cleanup(func() {
		if err := server.Shutdown(t.Context()); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		web.Close()
	})
	times := max(1, count/fewPairs)
	slow := time.Duration(max(1, times/10))
	var all []*pair
	for i := range count {
		p := newPair(t, web.URL, i, rand.New(rand.NewPCG(seed, uint64(i))), slow)
		p.poll = 20 * time.Millisecond * time.Duration(times*min(times, 4)) // or they do little else than to be looked at
		all = append(all, p)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	began := time.Now()
	start := make(chan struct{})
	var steps atomic.Int64 // that pairs have taken
	var running sync.WaitGroup
	for _, p := range all {
		running.Go(func() { p.run(ctx, start, &steps) })
	}
	close(start)
	go func() { running.Wait(); cancel() }()
	for last, moved := int64(0), began; ctx.Err() == nil; {
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
		if n := steps.Load(); n != last {
			last, moved = n, time.Now()
		} else if time.Since(moved) > pairLimit*slow {
			cancel()
		}
	}
	running.Wait()
	whole := time.Since(began)
	var took []time.Duration
	cuts, again := 0, 0
	for _, p := range all {
		running.Go(p.end)
		took, cuts, again = append(took, p.took), cuts+p.sides[0].wire.cuts+p.sides[1].wire.cuts, again+p.again
	}
	running.Wait()
	if t.Failed() {
		return
	}
	slices.Sort(took)
	t.Logf("%d pairs: two glares each, %d signaling connections cut, %d links built anew; linked after %v in the middle, the last after %v; all through after %v",
		count, cuts, again, took[count/2].Round(time.Millisecond), took[count-1].Round(time.Millisecond), whole.Round(time.Millisecond))
	if st := server.Stats(); st.Members != 0 {
		t.Errorf("the server still has %d members, which have left", st.Members)
	}
}

// pair is two nodes in a room of their own.
type pair struct {
	t     *testing.T
	name  string
	url   string
	keys  signaling.Keys
	rng   *rand.Rand
	glare *glare
	sides [2]*side
	poll  time.Duration // how often it is looked at
	slow  time.Duration // how many times longer than usual each step may take
	took  time.Duration // from the join to the first link
	again int           // 1: the link was made anew
}

type side struct {
	*testNode
	signaler *pairSignaler
	wire     *wire
	rng      *rand.Rand // of the cuts
}

// newPair starts two nodes that do not know each other yet.
func newPair(t *testing.T, url string, i int, rng *rand.Rand, slow time.Duration) *pair {
	p := &pair{t: t, name: fmt.Sprint("pair ", i), url: url, keys: newKeys(t), rng: rng, glare: &glare{armed: true}, slow: slow}
	for at := range p.sides {
		s := &side{wire: &wire{}, rng: rand.New(rand.NewPCG(rng.Uint64(), 0))}
		s.signaler = &pairSignaler{events: make(chan SignalEvent), ended: make(chan struct{}), glare: p.glare, side: at}
		name, id := fmt.Sprint(p.name, " side ", at), peerID(byte(rng.Uint32()))
		timing := defaultTiming()
		timing.minBackoff, timing.maxBackoff, timing.want = 100*time.Millisecond*p.slow, time.Second*p.slow, time.Second*p.slow
		for _, d := range []*time.Duration{&timing.attempt, &timing.restart, &timing.suspect, &timing.dead, &timing.path, &timing.close} {
			*d *= p.slow
		}
		timing.bothOffer = true
		timing.watch = time.Hour // the network stays as it is
		store := newMemStore(name)
		node, err := start(t.Context(), Config{Store: store, Signaler: s.signaler, Peer: id, Keys: p.keys, Logger: (&room{}).logger(name)}, timing)
		if err != nil {
			t.Fatal(err)
		}
		s.testNode = &testNode{node, store, id}
		p.sides[at] = s
	}
	return p
}

// run is the life of the pair until it has its one link, and counts its steps. It may fail the test, and goes on.
func (p *pair) run(ctx context.Context, start <-chan struct{}, steps *atomic.Int64) {
	a, b := p.sides[0], p.sides[1]
	<-start
	began := time.Now()
	var cutting sync.WaitGroup
	for _, s := range p.sides {
		client, err := signalclient.New(signalclient.Config{URLs: []string{p.url}, Keys: p.keys, Peer: s.id,
			HTTPClient: s.wire.client(), BackoffMin: 50 * time.Millisecond * p.slow, BackoffMax: 500 * time.Millisecond * p.slow,
			DialTimeout: 10 * time.Second * p.slow, PongTimeout: 10 * time.Second * p.slow})
		if err != nil {
			p.t.Error(err)
			return
		}
		s.signaler.join(client)
		cutting.Go(func() { s.wire.cutAtRandom(ctx, s.rng, time.Second*p.slow) })
	}
	ok := p.linked(ctx, "linked", 1)
	p.took = time.Since(began)
	steps.Add(1)
	before := p.sides[0].openConns(p.t)

	// Both want another path at once, while the connections break on.
	p.glare.arm()
	tick := time.NewTicker(p.poll / 2)
	defer tick.Stop()
	for p.glare.crossed() < 2 && ctx.Err() == nil {
		for _, s := range p.sides { // again and again: who has no way to the other side does not restart
			for _, c := range s.openConns(p.t) {
				c.doubt(c, true)
			}
		}
		<-tick.C
	}
	crossed := time.Now()
	steps.Add(1)
	for _, s := range p.sides { // the doubt is over where something is heard, as a heartbeat would find
		for _, c := range s.openConns(p.t) {
			for !c.heardSince(crossed) && c.reason() == nil && ctx.Err() == nil {
				c.probe()
				<-tick.C
			}
			c.doubt(c, false)
		}
	}
	cutting.Wait()
	steps.Add(1)
	a.store.writeText("from a", p.name+" a")
	b.store.writeText("from b", p.name+" b")
	if ok {
		p.linked(ctx, "linked after the restarts", 2)
	}
	steps.Add(1)
	if !slices.Equal(before, p.sides[0].openConns(p.t)) {
		p.again++
	}
}

// linked waits until both sides see one open link and nothing else, and so many glares were.
func (p *pair) linked(ctx context.Context, what string, glares int) bool {
	for {
		found, twice := p.look(glares)
		if twice {
			p.t.Errorf("%s: %s: there are two links at once: %s", p.name, what, found)
			return false
		}
		if found == "" {
			return true
		}
		select {
		case <-time.After(p.poll):
		case <-ctx.Done():
			p.t.Errorf("%s: not %s: %s", p.name, what, found)
			return false
		}
	}
}

// look says what there is, if it is not one link between the two, over one PeerConnection, that has made their databases equal.
func (p *pair) look(glares int) (found string, twice bool) {
	var sessions [2][]uint64
	content := p.sides[0].store.content()
	good := p.glare.crossed() >= glares && content == p.sides[1].store.content()
	for at, s := range p.sides {
		status, err := s.Status(p.t.Context())
		if err != nil {
			return err.Error(), false
		}
		for _, c := range s.openConns(p.t) {
			sessions[at] = append(sessions[at], c.session)
			good = good && c.silence() < SuspectAfter*p.slow
		}
		twice = twice || len(sessions[at]) > 1
		good = good && status.Connections == 1 && len(status.Members) == 1 && status.Members[0].State == LinkOpen &&
			status.Members[0].Live
		found += fmt.Sprintf("side %d: sessions %v, %d PeerConnections, server %+v, members %+v; ", at, sessions[at], status.Connections, status.Server, status.Members)
	}
	if good && len(sessions[0]) == 1 && slices.Equal(sessions[0], sessions[1]) {
		return "", false
	}
	return found + fmt.Sprintf("%d glares; side 0 has %s", p.glare.crossed(), content), twice
}

// end takes the pair down. Nothing of it is left then.
func (p *pair) end() {
	for _, s := range p.sides {
		if err := cmp.Or(s.Close(), s.Err()); err != nil {
			p.t.Errorf("%s: %v", p.name, err)
		}
		if n := s.Connections(); n != 0 {
			p.t.Errorf("%s: %d PeerConnections are left", p.name, n)
		}
		s.signaler.close()
	}
}
