// Package edges holds the test of what may import what; ARCHITECTURE.md explains the rules.
package edges

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/crmesh/crmesh/"

// A rule says what the packages at and below one path may import directly, outside of their tests.
type rule struct {
	path    string   // below the module; the longest match is the one that counts
	ours    []string // packages of this module, by path below it; one ending in "/..." allows what is below too
	modules []string // prefixes of packages that are neither ours nor the standard library's
	banned  []string // packages of the standard library, and with a "/..." ending those below them
}

// pure is banned where the same input must give the same output: no I/O, no clock, no chance.
var pure = []string{"net/...", "os/...", "time", "sync/...", "context", "math/rand/...", "crypto/rand"}

var rules = []rule{
	{path: "pkg/crsql/changeset", banned: []string{"net/...", "os/...", "time"}},
	{path: "pkg/mesh/syncproto", ours: []string{"pkg/crsql/changeset"}, banned: pure},
	{path: "pkg/mesh/meshtest", ours: []string{"pkg/crsql/changeset", "pkg/mesh/syncproto"}},
	{path: "pkg/mesh", ours: []string{"pkg/crsql/changeset", "pkg/mesh/...", "pkg/signaling"},
		modules: []string{"github.com/pion/", "golang.org/x/time/rate"}},
	{path: "pkg/crsql", ours: []string{"pkg/crsql/..."}, modules: []string{"github.com/mattn/go-sqlite3"}},
	{path: "pkg/signaling", modules: []string{"golang.org/x/crypto/", "github.com/go-json-experiment/json/jsontext"}, banned: []string{"net", "net/http/...", "os/..."}},
	{path: "pkg/signaling/signalcluster", ours: []string{"pkg/signaling"}, banned: []string{"net/...", "os/...", "sync/..."}},
	{path: "pkg/signaling/signalcluster/natsbus", ours: []string{"pkg/signaling/signalcluster"},
		modules: []string{"github.com/nats-io/nats.go", "github.com/nats-io/nkeys"}},
	{path: "pkg/signaling/signalcluster/natsbus/natstest", modules: []string{"github.com/nats-io/nats-server/v2/server"}}, // of tests
	{path: "pkg/signaling/signalserver", ours: []string{"pkg/signaling", "pkg/signaling/signalcluster"}, modules: []string{"github.com/coder/websocket", "github.com/pion/stun/", "github.com/prometheus/client_golang/", "golang.org/x/sys/unix"}},
	{path: "pkg/signaling/signalclient", ours: []string{"pkg/signaling"}, modules: []string{"github.com/coder/websocket"}},
	{path: "cmd/internal", modules: []string{"github.com/alecthomas/kong"}},
	{path: "cmd/signal", ours: []string{"cmd/internal/...", "pkg/signaling/...", "web"}, modules: []string{"github.com/alecthomas/kong",
		"github.com/coreos/go-systemd/v22/", "golang.org/x/crypto/acme", "github.com/prometheus/", "golang.org/x/sys/unix", "go.yaml.in/yaml/"}},
	{path: "cmd/peer", ours: []string{"cmd/internal/...", "pkg/...", "web"}, modules: []string{"github.com/alecthomas/kong", "github.com/pion/"}},
	{path: "pkg/internal", ours: []string{"pkg/internal/..."}},
	{path: "pkg/signaling/signaltest"}, // of tests
	{path: "web"},
	{path: "examples", ours: []string{"pkg/..."}},
}

// testHelpers is for tests: no program links it.
const testHelpers = module + "pkg/signaling/signaltest"

// notLinked names what must not be reached from a package by any path.
var notLinked = map[string][]string{
	"cmd/peer":   {"github.com/nats-io/...", testHelpers},
	"cmd/signal": {"github.com/nats-io/nats-server/...", "github.com/mattn/go-sqlite3", "github.com/pion/webrtc/...", module + "pkg/mesh/...", module + "pkg/crsql/...", testHelpers},
	"pkg/mesh":   {module + "pkg/crsql", "github.com/mattn/go-sqlite3", testHelpers},
	"pkg/crsql":  {module + "pkg/mesh/...", "github.com/pion/..."},
}

type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string
	Standard   bool
}

func (p pkg) path() string { return strings.TrimPrefix(p.ImportPath, module) }

// matches reports whether pattern, which may end in "/...", names the package.
func matches(pattern, path string) bool {
	base, below := strings.CutSuffix(pattern, "/...")
	return path == base || below && strings.HasPrefix(path, base+"/")
}

func anyMatches(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(p, path) })
}

func ruleFor(path string) (rule, bool) {
	var best rule
	found := false
	for _, r := range rules {
		if matches(r.path+"/...", path) && (!found || len(r.path) > len(best.path)) {
			best, found = r, true
		}
	}
	return best, found
}

// isStandard tells by the first element of an import path, which is a host for all others.
func isStandard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".")
}

// violations names, one sentence each, what pkgs import against the rules.
func violations(pkgs []pkg) []string {
	var out []string
	for _, p := range pkgs {
		r, ok := ruleFor(p.path())
		if !ok {
			out = append(out, fmt.Sprintf("%s has no rule: add one to edges_test.go", p.path()))
			continue
		}
		for _, imp := range p.Imports {
			ours, isOurs := strings.CutPrefix(imp, module)
			allowed := false
			switch {
			case imp == "C":
				allowed = strings.HasPrefix(p.path(), "pkg/crsql")
			case isOurs:
				allowed = anyMatches(r.ours, ours)
			case isStandard(imp):
				allowed = !anyMatches(r.banned, imp)
			default:
				allowed = slices.ContainsFunc(r.modules, func(m string) bool { return strings.HasPrefix(imp, m) })
			}
			if !allowed {
				out = append(out, fmt.Sprintf("%s must not import %s", p.path(), imp))
			}
		}
		for _, dep := range p.Deps {
			if anyMatches(notLinked[p.path()], dep) {
				out = append(out, fmt.Sprintf("%s must not link %s", p.path(), dep))
			}
		}
	}
	return out
}

// touchSources looks at each Go file, by which go test learns that this test's cached result depends on them: what
// the go command below reads, it does not see.
func touchSources(t *testing.T) {
	t.Helper()
	for _, dir := range []string{"cmd", "pkg", "internal", "examples"} {
		err := filepath.WalkDir(filepath.Join("..", "..", "..", dir), func(path string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			_, err = os.Stat(path)
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
}

func list(t *testing.T) []pkg {
	t.Helper()
	touchSources(t)
	// -e: a missing web/dist is the build's to complain about.
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Imports,Deps,Standard", module+"...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var pkgs []pkg
	dec := json.NewDecoder(bytes.NewReader(out))
	for {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		pkgs = append(pkgs, p)
	}
}

func TestEdges(t *testing.T) {
	pkgs := list(t)
	if len(pkgs) < 5 {
		t.Fatalf("go list found only %d packages", len(pkgs))
	}
	for _, v := range violations(pkgs) {
		t.Error(v)
	}
}

// A check that cannot fail is none: each kind of forbidden edge is reported.
func TestViolationsAreFound(t *testing.T) {
	at := func(path string, imports []string, deps ...string) pkg {
		return pkg{ImportPath: module + path, Imports: imports, Deps: deps}
	}
	for _, tc := range []struct {
		name string
		pkg  pkg
		want string
	}{
		{"clock in the core", at("pkg/mesh/syncproto", []string{"time"}), "pkg/mesh/syncproto must not import time"},
		{"below a banned package", at("pkg/crsql/changeset", []string{"net/http"}), "pkg/crsql/changeset must not import net/http"},
		{"mesh and engine", at("pkg/mesh", []string{module + "pkg/crsql"}), "pkg/mesh must not import " + module + "pkg/crsql"},
		{"foreign module", at("pkg/signaling", []string{"github.com/coder/websocket"}), "pkg/signaling must not import github.com/coder/websocket"},
		{"through others", at("cmd/signal", nil, "github.com/pion/webrtc/v4"), "cmd/signal must not link github.com/pion/webrtc/v4"},
		{"of tests", at("cmd/peer", nil, testHelpers), "cmd/peer must not link " + testHelpers},
		{"no rule", at("pkg/new", nil), "pkg/new has no rule: add one to edges_test.go"},
		{"allowed", at("pkg/mesh", []string{"time", "github.com/pion/webrtc/v4", module + "pkg/mesh/syncproto"}), ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := strings.Join(violations([]pkg{tc.pkg}), "; ")
			if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}
