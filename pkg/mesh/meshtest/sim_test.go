package meshtest

import (
	"flag"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

var (
	seeds    = flag.Int("seeds", 1000, "random runs of TestSimulation")
	seedFrom = flag.Uint64("seed-from", 1, "seed of the first run; with -seeds 1 it is the only one")
)

// raceDetector: see race_test.go.
var raceDetector bool

func skipUnderRace(t *testing.T) {
	t.Helper()
	if raceDetector {
		t.Skip("without the race detector only")
	}
}

// failures runs seeds, until enough of them have failed, and returns the errors by seed.
func failures(from uint64, n, enough int, variant Variant) (map[uint64]error, Tally) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	failed := map[uint64]error{}
	var count atomic.Int64
	var tally Tally
	workers := uint64(runtime.GOMAXPROCS(0))
	for w := range workers {
		wg.Go(func() {
			for seed := from + w; seed < from+uint64(n) && count.Load() < int64(enough); seed += workers {
				did, err := Simulate(seed, variant, nil)
				mu.Lock()
				tally.Add(did)
				if err != nil {
					count.Add(1)
					failed[seed] = err
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return failed, tally
}

// enoughSeeds is after how many runs all that a simulation means to try has to have happened.
const enoughSeeds = 500

func TestSimulation(t *testing.T) {
	t.Logf("seeds %d to %d", *seedFrom, *seedFrom+uint64(*seeds)-1)
	shown := 0
	failed, tally := failures(*seedFrom, *seeds, *seeds, Correct)
	t.Log(tally)
	if missing := tally.Missing(); *seeds >= enoughSeeds && len(missing) > 0 {
		t.Errorf("what never happened in %d runs: %v", *seeds, missing)
	}
	for seed, err := range failed {
		if shown++; shown <= 10 {
			t.Errorf("seed %d: %v (again: go test ./pkg/mesh/meshtest -run TestSimulation -seed-from %d -seeds 1)", seed, err, seed)
		}
	}
	if shown > 10 {
		t.Errorf("%d of %d seeds fail", len(failed), *seeds)
	}
}

// Every variant but the right one is noticed, in about a third as many runs as it is now, or more.
func TestBrokenVariantsFail(t *testing.T) {
	skipUnderRace(t)
	seen := map[Variant]bool{}
	for _, v := range []struct {
		variant       Variant
		runs, atLeast int
	}{
		{NoDeps, 300, 12},
		{DepsFromVector, 600, 7},
		{ResumePastHeld, 1000, 1},
		{ClaimsAtSending, 300, 12},
		{ClaimsInTheMidst, 60, 10},
		{RenewalRelogs, 300, 14},
		{SpansAlone, 1000, 1},
		{SpansOfTheRest, 300, 14},
		{Renumbers, 60, 10},
		{VectorOfRows, 60, 8},
		{TornApply, 600, 6},
		{LosesCommit, 300, 14},
	} {
		seen[v.variant] = true
		t.Run(string(v.variant), func(t *testing.T) {
			failed, tally := failures(1, v.runs, v.atLeast, v.variant)
			if len(failed) < v.atLeast {
				t.Errorf("%d of %d runs fail, not %d or more: the simulation has become too weak", len(failed), v.runs, v.atLeast)
			}
			t.Logf("%d of %d runs", len(failed), tally.Runs)
		})
	}
	for _, v := range Variants {
		if !seen[v] {
			t.Errorf("nothing asks whether this is noticed: %s", v)
		}
	}
}
