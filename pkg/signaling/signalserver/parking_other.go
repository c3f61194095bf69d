//go:build !linux

package signalserver

// parking is for Linux alone. Elsewhere connections wait in goroutines.
type parking struct{}

func openParking(func(*conn)) *parking { return nil }

func (*parking) close() {}

func (*parking) watch(*conn) bool { return false }

func (*parking) remove(*conn) {}
