package meshtest

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write the traces anew with the output that comes out")

func TestTraces(t *testing.T) {
	files, err := filepath.Glob("../syncproto/testdata/traces/*.txt")
	if err != nil || len(files) < 12 {
		t.Fatalf("%d traces, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got, err := RunTrace(string(b))
			if err != nil {
				t.Fatal(err)
			}
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want := strings.Split(string(b), "\n")
			for i, line := range strings.Split(got, "\n") {
				if !*rewrite && (i >= len(want) || want[i] != line) {
					t.Fatalf("line %d is\n%s\nnot\n%s\n(go test ./pkg/mesh/meshtest -run TestTraces -rewrite, then read the diff)",
						i+1, line, strings.Join(want[min(i, len(want)):min(i+1, len(want))], ""))
				}
			}
			if !*rewrite && len(got) != len(b) {
				t.Fatalf("the trace goes on after %q", got[max(0, len(got)-80):])
			}
		})
	}
}
