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

func startOracle(t testing.TB) *oracle {
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
	if err := cmd.Start(); err != nil {
		t.Fatalf("node, version 20 or later, is needed: %v", err)
	}
	t.Cleanup(func() {
		if err := errors.Join(in.Close(), cmd.Wait()); err != nil {
			t.Errorf("the reference engine: %v", err)
		}
	})
	return &oracle{t: t, in: in, out: bufio.NewReader(out)}
}

// ask runs the statements on the named database.
func (o *oracle) ask(db string, closing bool, steps ...oracleStep) []answer {
	line, err := json.Marshal(map[string]any{"db": db, "run": steps, "close": closing})
	if err != nil {
		o.t.Fatal(err)
	}
	if _, err := o.in.Write(append(line, '\n')); err != nil {
		o.t.Fatal(err)
	}
	if line, err = o.out.ReadBytes('\n'); err != nil {
		o.t.Fatalf("the reference engine has ended: %v", err)
	}
	var response struct {
		Results []struct {
			Rows  [][]json.RawMessage
			Error string
		}
	}
	if err := json.Unmarshal(line, &response); err != nil {
		o.t.Fatal(err)
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
					o.t.Fatal(err)
				}
			}
			answers[i].rows = append(answers[i].rows, values)
		}
	}
	return answers
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
