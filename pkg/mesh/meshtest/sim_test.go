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
