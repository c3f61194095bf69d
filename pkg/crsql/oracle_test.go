package crsql

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// An oracle is the real cr-sqlite in a Node process, see testdata/oracle/oracle.mjs.
type oracle struct {
	t   testing.TB
	in  io.WriteCloser
	out *bufio.Reader
}

type oracleStep struct {
	SQL  string `json:"sql"`
	Args []any  `json:"args,omitempty"`
}

// An answer is what a statement gave.
type answer struct {
	rows [][]changeset.Value
	err  error
}

// nodeModules returns where the reference engine is. Without it the test is skipped, or fails where CI is set.
func nodeModules(t testing.TB) string {
	t.Helper()
	modules, err := filepath.Abs("../../web/node_modules")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(modules, "@vlcn.io/crsqlite-wasm")); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("the reference engine is missing: run npm ci in web/ (%v)", err)
		}
		t.Skip("the reference engine is missing: run npm ci in web/")
	}
	return modules
}

// startOracle starts an oracle of the test's own.
func startOracle(t testing.TB) *oracle {
	t.Helper()
	o, end := launchOracle(t)
	t.Cleanup(func() {
		if err := end(); err != nil {
			t.Errorf("the reference engine: %v", err)
		}
	})
	return o
}

// The oracle that tests share, which takes a while to start; see sharedOracle.
var shared struct {
	oracle *oracle
	end    func() error
}

// sharedOracle returns the oracle that all tests share, one after the other, for databases that they close.
func sharedOracle(t testing.TB) *oracle {
	t.Helper()
	if shared.oracle == nil {
		shared.oracle, shared.end = launchOracle(t)
	}
	o := *shared.oracle
	o.t = t
	return &o
}

// launchOracle starts an oracle. The caller ends it.
func launchOracle(t testing.TB) (o *oracle, end func() error) {
	t.Helper()
	modules := nodeModules(t)
	cmd := exec.Command("node", filepath.Join("testdata", "oracle", "oracle.mjs"), modules)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	locks := startFileLocks(t, cmd)
	err = cmd.Start()
	for _, f := range cmd.ExtraFiles {
		_ = f.Close() // it is the child's now
	}
	if err != nil {
		t.Fatalf("node, version 20 or later, is needed: %v", err)
	}
	return &oracle{t: t, in: in, out: bufio.NewReader(out)}, func() error {
		return errors.Join(in.Close(), cmd.Wait(), locks.Wait())
	}
}

// open opens the file at path as the named database.
func (o *oracle) open(db, path string) error {
	o.t.Helper()
	_, err := o.request(map[string]any{"db": db, "file": path})
	return err
}

// ask runs the statements on the named database.
func (o *oracle) ask(db string, closing bool, steps ...oracleStep) []answer {
	answers, err := o.request(map[string]any{"db": db, "run": steps, "close": closing})
	if err != nil {
		o.t.Fatal(err)
	}
	return answers
}

func (o *oracle) request(request map[string]any) ([]answer, error) {
	line, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	if _, err := o.in.Write(append(line, '\n')); err != nil {
		return nil, fmt.Errorf("the reference engine has ended: %w", err)
	}
	if line, err = o.out.ReadBytes('\n'); err != nil {
		return nil, fmt.Errorf("the reference engine has ended: %w", err)
	}
	var response struct {
		Results []struct {
			Rows  [][]json.RawMessage
			Error string
		}
		Error string
	}
	if err := json.Unmarshal(line, &response); err != nil {
		return nil, err
	}
	if response.Error != "" {
		return nil, errors.New(response.Error)
	}
	answers := make([]answer, len(response.Results))
	for i, result := range response.Results {
		if result.Error != "" {
			answers[i].err = errors.New(result.Error)
			continue
		}
		for _, row := range result.Rows {
			values := make([]changeset.Value, len(row))
			for j, cell := range row {
				if values[j], err = decodeTyped(cell); err != nil {
					return nil, err
				}
			}
			answers[i].rows = append(answers[i].rows, values)
		}
	}
	return answers, nil
}

// encodeTyped and decodeTyped convert a value to and from the JSON that testdata and the oracle use.
func encodeTyped(v changeset.Value) any {
	switch v.Kind() {
	case changeset.KindInteger:
		return []string{"integer", strconv.FormatInt(v.Int64(), 10)}
	case changeset.KindReal:
		return []string{"real", fmt.Sprintf("%016x", math.Float64bits(v.Float64()))}
	case changeset.KindText:
		return []string{"text", hex.EncodeToString(v.Bytes())}
	case changeset.KindBlob:
		return []string{"blob", hex.EncodeToString(v.Bytes())}
	}
	return nil
}

func decodeTyped(raw json.RawMessage) (changeset.Value, error) {
	var pair []string
	if err := json.Unmarshal(raw, &pair); err != nil || pair == nil {
		return changeset.Null(), err
	}
	switch kind, data := pair[0], pair[1]; kind {
	case "integer":
		n, err := strconv.ParseInt(data, 10, 64)
		return changeset.Integer(n), err
	case "real":
		n, err := strconv.ParseUint(data, 16, 64)
		return changeset.Real(math.Float64frombits(n)), err
	case "text", "blob":
		b, err := hex.DecodeString(data)
		if kind == "text" {
			return changeset.Text(b), err
		}
		return changeset.Blob(b), err
	default:
		return changeset.Null(), fmt.Errorf("unknown kind %q", kind)
	}
}
