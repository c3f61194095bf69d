package main

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/crmesh/crmesh/pkg/crsql"
	"github.com/crmesh/crmesh/pkg/mesh"
	"github.com/crmesh/crmesh/pkg/signaling/signaltest"
)

// patience is how long a test waits for what must come.
const patience = time.Minute

var bin string // where the programs under test are

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "crmesh-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	bin = dir
	for _, name := range []string{"peer", "signal"} {
		build := exec.Command("go", "build", "-o", filepath.Join(dir, name), "github.com/crmesh/crmesh/cmd/"+name)
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "building %s: %v\n%s", name, err, out)
			os.Exit(1)
		}
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// process is a running program under test.
type process struct {
	t   testing.TB
	cmd *exec.Cmd
	out *signaltest.Log
	end chan error

	quiet bool // what it said is of no use where the test fails
}

func launch(t testing.TB, name string, args ...string) *process {
	t.Helper()
	return launchCommand(t, name, exec.Command(filepath.Join(bin, name), args...))
}

func launchCommand(t testing.TB, name string, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd, out: &signaltest.Log{}, end: make(chan error, 1)}
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.end <- p.cmd.Wait() }()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.end
		if t.Failed() && !p.quiet {
			t.Logf("output of %s:\n%s", name, p.out)
		}
	})
	return p
}

// stop ends a program as Ctrl-C does, which must work.
func (p *process) stop() {
	p.t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGINT)
	select {
	case err := <-p.end:
		p.end <- err
		if err != nil {
			p.t.Errorf("%s did not stop cleanly: %v", p.cmd.Path, err)
		}
	case <-time.After(patience):
		p.t.Fatalf("%s did not stop", p.cmd.Path)
	}
}

// kill ends a program as a crash does.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	p.end <- <-p.end
}

// freePort returns a TCP port that is free at the moment.
func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

// lab is a room with real programs in it.
type lab struct {
	t           testing.TB
	dir         string
	port        int
	url         string // of the signaling server, as peers are told
	write, read string
}

func newLab(t testing.TB) *lab {
	port := freePort(t)
	l := newLabAt(t, fmt.Sprintf("http://127.0.0.1:%d/", port))
	l.port = port
	return l
}

// newLabAt makes a room at a signaling server that the test starts itself.
func newLabAt(t testing.TB, url string) *lab {
	l := &lab{t: t, dir: t.TempDir(), url: url}
	for line := range strings.Lines(l.ok("room", "new", "--signal", l.url)) {
		switch kind, link, _ := strings.Cut(strings.TrimSpace(line), "\t"); kind {
		case "write":
			l.write = link
		case "read":
			l.read = link
		}
	}
	if l.write == "" || l.read == "" {
		t.Fatal("peer room new printed no links")
	}
	return l
}

// ok runs a command of peer that must succeed.
func (l *lab) ok(args ...string) string {
	l.t.Helper()
	out, err := l.try(args...)
	if err != nil {
		l.t.Fatalf("peer %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// try runs a command of peer that may fail.
func (l *lab) try(args ...string) (string, error) {
	out, err := exec.Command(filepath.Join(bin, "peer"), args...).CombinedOutput()
	return string(out), err
}

// exitCode returns what a command ended with; -1: it did not run.
func exitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	return -1
}

func (l *lab) signal(args ...string) *process {
	l.t.Helper()
	p := launch(l.t, "signal", append([]string{"--listen", fmt.Sprintf("127.0.0.1:%d", l.port), "--stun", "off"}, args...)...)
	eventually(l.t, "the signaling server answers", func() bool {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", l.port))
		if err != nil {
			return false
		}
		return c.Close() == nil
	})
	return p
}

func (l *lab) file(name, content string) string {
	l.t.Helper()
	path := filepath.Join(l.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		l.t.Fatal(err)
	}
	return path
}

// replica is a running peer.
type replica struct {
	*process
	db  string
	api string
}

// begin starts one on the database NAME.db.
func (l *lab) begin(name, link string, args ...string) *replica {
	l.t.Helper()
	r := &replica{db: filepath.Join(l.dir, name+".db"), api: fmt.Sprintf("127.0.0.1:%d", freePort(l.t))}
	r.process = launch(l.t, "peer", append([]string{"run", "--db", r.db, "--room", link, "--api", r.api, "--name", name}, args...)...)
	return r
}

// peer starts one on the database NAME.db and waits until it answers.
func (l *lab) peer(name, link string, args ...string) *replica {
	l.t.Helper()
	r := l.begin(name, link, args...)
	l.ok("wait", "--api", r.api, "--timeout", patience.String())
	return r
}

func (r *replica) flags() apiFlags { return apiFlags{API: r.api} }

// tryExec returns an error where the write is not acknowledged.
func (r *replica) tryExec(sql string, args ...string) error {
	s, err := makeStatement(sql, args)
	if err != nil {
		return err
	}
	var answer execAnswer
	return r.flags().call(context.Background(), "/v1/exec", s, &answer)
}

func (r *replica) exec(sql string, args ...string) {
	r.t.Helper()
	if err := r.tryExec(sql, args...); err != nil {
		r.t.Fatalf("%s: %v", sql, err)
	}
}

// query returns rows, a line each, with cells in JSON separated by blanks.
func (r *replica) query(sql string, args ...string) string {
	r.t.Helper()
	s, err := makeStatement(sql, args)
	if err != nil {
		r.t.Fatal(err)
	}
	var answer struct {
		Rows [][]json.RawMessage `json:"rows"`
	}
	if err := r.flags().call(context.Background(), "/v1/query", s, &answer); err != nil {
		r.t.Fatalf("%s: %v", sql, err)
	}
	lines := make([]string, len(answer.Rows))
	for i, row := range answer.Rows {
		cells := make([]string, len(row))
		for j, c := range row {
			cells[j] = string(c)
		}
		lines[i] = strings.Join(cells, " ")
	}
	return strings.Join(lines, "\n")
}

// synced waits until r is in sync over so many links.
func (r *replica) synced(links int) {
	r.t.Helper()
	cmd := waitCommand{apiFlags: r.flags(), Links: links, Synced: true, Timeout: 3 * time.Minute}
	if err := cmd.Run(context.Background()); err != nil {
		var s mesh.Status
		_ = r.flags().call(context.Background(), "/v1/status", nil, &s)
		r.t.Fatalf("%v; status %+v", err, s)
	}
}

// equal waits until the peers answer a query alike, and returns what they say.
func equal(t testing.TB, sql string, peers ...*replica) string {
	t.Helper()
	var first string
	eventually(t, "the peers answer alike: "+sql, func() bool {
		first = peers[0].query(sql)
		for _, p := range peers[1:] {
			if p.query(sql) != first {
				return false
			}
		}
		return true
	})
	return first
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	signaltest.Until(t, patience, what, ok)
}

// sameContent checks that two peers that were stopped have the same in what the queries name.
func sameContent(t testing.TB, a, b *replica, tables ...string) {
	t.Helper()
	if x, y := content(t, a.db, tables...), content(t, b.db, tables...); x != y {
		t.Errorf("the databases differ: %s and %s", x, y)
	}
}

// content hashes the rows that queries give and all clocks of a database; the database is not in use.
func content(t testing.TB, path string, queries ...string) string {
	t.Helper()
	db, err := sql.Open(crsql.DriverName, path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	db.SetMaxOpenConns(1)
	h := sha256.New()
	var out strings.Builder
	for _, query := range append(queries, clockQueries(t, db)...) {
		rows, err := db.Query(query)
		if err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		columns, err := rows.Columns()
		if err != nil {
			t.Fatal(err)
		}
		cells, into := make([]any, len(columns)), make([]any, len(columns))
		for i := range cells {
			into[i] = &cells[i]
		}
		count := 0
		for rows.Next() {
			if err := rows.Scan(into...); err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(h, "%q\n", cells)
			count++
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "%d rows %x; ", count, h.Sum(nil)[:8])
	}
	return out.String()
}

// clockQueries give the clocks of each CRR as one text, which SQLite puts together: crsql_changes has a million rows for the
// sample database, each of which costs Go some 20 microseconds under the race detector. Without the site id: where two sites
// wrote one value, each may keep its own.
func clockQueries(t testing.TB, db *sql.DB) []string {
	t.Helper()
	rows, err := db.Query(`SELECT t.name, group_concat('quote(p."' || c.name || '")', ', ' ORDER BY c.cid)
		FROM sqlite_master t JOIN pragma_table_info(replace(t.name, '__crsql_clock', '__crsql_pks')) c
		WHERE t.type = 'table' AND t.name LIKE '%\_\_crsql\_clock' ESCAPE '\' AND c.name <> '__crsql_key' GROUP BY 1 ORDER BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	var queries []string
	for rows.Next() {
		var clock, key string
		if err := rows.Scan(&clock, &key); err != nil {
			t.Fatal(err)
		}
		queries = append(queries, fmt.Sprintf(`SELECT count(*), group_concat(concat_ws(' ', %s, c.col_name, c.col_version), char(10) ORDER BY %[1]s, c.col_name)
			FROM "%s" c JOIN "%s" p ON p.__crsql_key = c.key`, key, clock, strings.Replace(clock, "__crsql_clock", "__crsql_pks", 1)))
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	if len(queries) == 0 {
		t.Fatal("the database has no CRR")
	}
	return queries
}

// get fetches a path of the API with a changed request.
func (r *replica) get(path string, change func(*http.Request)) (int, string) {
	r.t.Helper()
	request, err := http.NewRequest(http.MethodGet, "http://"+r.api+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	change(request)
	response, body := signaltest.Fetch(r.t, http.DefaultClient, request)
	return response.StatusCode, body
}
