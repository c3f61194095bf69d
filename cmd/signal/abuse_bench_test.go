//go:build linux

package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// asAttacker makes the test binary an attacker: "ATTACK ADDRESS".
const asAttacker = "CRMESH_TEST_AS_ATTACKER"

func init() {
	if said := os.Getenv(asAttacker); said != "" {
		attackForever(said)
	}
}

// attackForever does one attack again and again until its standard input ends.
func attackForever(said string) {
	name, address, _ := strings.Cut(said, " ")
	a, ok := attackNamed(name)
	if !ok {
		fmt.Fprintln(os.Stderr, "there is no attack", name)
		os.Exit(1)
	}
	go func() {
		for v := (&victim{address: address, scale: 1}); ; {
			_ = a.run(v) // what the server must not do is TestAbuse's matter
		}
	}()
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

const (
	abuseQuiet = 3 * time.Second // before and after the attack
	abuseTime  = 6 * time.Second
)

// BenchmarkAbuse measures how long the envelopes of the pair take while the server is under attack, beside a quiet time
// before and after, in the same process. The attackers come from another process, which goes on without a pause; it has
// the lowest priority, for elsewhere they would have processors of their own.
func BenchmarkAbuse(b *testing.B) {
	program := buildSignal(b)
	for _, attack := range attacks {
		b.Run(attack.name, func(b *testing.B) {
			a := newArena(b, program, attack.flags...)
			a.during(abuseQuiet / 3) // until all is warm
			quiet := a.during(abuseQuiet)
			stop := a.attackers(attack.name)
			a.during(abuseTime / 6) // until it is in full swing
			before := a.refusals()
			under := a.during(abuseTime)
			refused := a.refusals() - before
			stop()
			a.during(abuseQuiet / 3) // until it is over
			quiet = append(quiet, a.during(abuseQuiet)...)
			a.behaved.unhurt()
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(refused/abuseTime.Seconds(), "refusals/s")
			b.ReportMetric(percentile(quiet, 99).Seconds()*1e3, "ms-quiet-p99")
			b.ReportMetric(percentile(under, 99).Seconds()*1e3, "ms-p99")
			b.ReportMetric(percentile(under, 50).Seconds()*1e3, "ms-p50")
			b.ReportMetric(percentile(under, 99).Seconds()/percentile(quiet, 99).Seconds(), "x-quiet-p99")
		})
	}
}

// attackers starts the process that does an attack.
func (a *arena) attackers(name string) (stop func()) {
	a.t.Helper()
	c := exec.Command("chrt", "--idle", "0", os.Args[0])
	c.Env = append(os.Environ(), asAttacker+"="+name+" "+a.address)
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	if err != nil {
		a.t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		a.t.Fatal(err)
	}
	stop = func() {
		_ = in.Close()
		_ = c.Wait()
	}
	a.t.Cleanup(stop)
	return stop
}

// refusals is how much the server has refused so far, of any kind.
func (a *arena) refusals() (n float64) {
	for name, value := range a.metrics() {
		if strings.HasPrefix(name, "crmesh_signal_refusals_total") {
			n += value
		}
	}
	return n
}

// during returns how long the envelopes take that arrive during that time.
func (a *arena) during(d time.Duration) []time.Duration {
	a.behaved.mu.Lock()
	a.took = nil
	a.behaved.mu.Unlock()
	time.Sleep(d)
	a.behaved.mu.Lock()
	defer a.behaved.mu.Unlock()
	return slices.Clone(a.took)
}

func percentile(of []time.Duration, percent int) time.Duration {
	if len(of) == 0 {
		return 0
	}
	slices.Sort(of)
	return of[(len(of)-1)*percent/100]
}
