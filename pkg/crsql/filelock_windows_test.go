package crsql

import (
	"os/exec"
	"testing"
)

// startFileLocks skips the test: the reference engine locks files as Unix does.
func startFileLocks(t testing.TB, _ *exec.Cmd) *exec.Cmd {
	t.Skip("the reference engine's locks are those of Unix")
	return nil
}
