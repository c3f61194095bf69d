//go:build race

package meshtest

// Each run of the simulation has one goroutine, and is six times as slow with the race detector: `make race` runs it in
// full without.
func init() {
	raceDetector = true
	*seeds = 100
}
