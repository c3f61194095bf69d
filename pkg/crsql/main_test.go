package crsql

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// childVar names the part that a copy of the test binary plays, in a test that needs another process.
const childVar = "CRSQL_TEST_CHILD"

func TestMain(m *testing.M) {
	if part := os.Getenv(childVar); part != "" {
		if err := children[part](os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if shared.end != nil {
			if err := shared.end(); err != nil {
				fmt.Fprintln(os.Stderr, "the reference engine:", err)
				code = 1
			}
		}
		os.Exit(code)
	}))
}
