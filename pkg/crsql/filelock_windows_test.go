package crsql

import (
	"os"
	"testing"
)

// startFileLocks starts nothing: the reference engine opens no files here.
func startFileLocks(testing.TB) []*os.File { return nil }
