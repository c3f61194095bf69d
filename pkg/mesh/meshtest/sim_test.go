package meshtest

import (
	"flag"
	"runtime"
	"sync"
	"testing"
)

var (
	seeds    = flag.Int("seeds", 3000, "random runs of TestSimulation")
	seedFrom = flag.Uint64("seed-from", 1, "seed of the first run; with -seeds 1 it is the only one")
)

// failures runs seeds and returns the errors by seed.
func failures(from uint64, n int, variant Variant) map[uint64]error {
	var mu sync.Mutex
	var wg sync.WaitGroup
	failed := map[uint64]error{}
	workers := uint64(runtime.GOMAXPROCS(0))
	for w := range workers {
		wg.Go(func() {
			for seed := from + w; seed < from+uint64(n); seed += workers {
				if err := Simulate(seed, variant); err != nil {
					mu.Lock()
					failed[seed] = err
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return failed
}

func TestSimulation(t *testing.T) {
	t.Logf("seeds %d to %d", *seedFrom, *seedFrom+uint64(*seeds)-1)
	shown := 0
	failed := failures(*seedFrom, *seeds, Correct)
	for seed, err := range failed {
		if shown++; shown <= 10 {
			t.Errorf("seed %d: %v (again: go test ./pkg/mesh/meshtest -run TestSimulation -seed-from %d -seeds 1)", seed, err, seed)
		}
	}
	if shown > 10 {
		t.Errorf("%d of %d seeds fail", len(failed), *seeds)
	}
}

// brokenSeeds is how many runs each broken variant gets. The numbers that have to fail are about a third of those that do.
const brokenSeeds = 1000

func TestBrokenVariantsFail(t *testing.T) {
	for _, v := range []struct {
		variant Variant
		atLeast int
	}{
		{NoDeps, 50}, {DepsFromVector, 15}, {ResumePastHeld, 2}, {ClaimsAtSending, 50}, {ClaimsInTheMidst, 100},
	} {
		t.Run(string(v.variant), func(t *testing.T) {
			failed := failures(1, brokenSeeds, v.variant)
			t.Logf("%d of %d seeds fail", len(failed), brokenSeeds)
			if len(failed) < v.atLeast {
				t.Errorf("%d of %d seeds fail, not %d or more: the simulation has become too weak", len(failed), brokenSeeds, v.atLeast)
			}
		})
	}
}
