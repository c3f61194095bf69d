package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestBadInput: whatever is wrong from outside is one sentence on stderr, and exit code 1.
func TestBadInput(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = busy.Close() }) // after the subtests
	busyPort := busy.Addr().(*net.TCPAddr).Port
	db := filepath.Join(l.dir, "x.db")
	good := []string{"run", "--db", db, "--room", l.write, "--api", "127.0.0.1:0"}
	with := func(args ...string) []string { return append(append([]string{}, good...), args...) }
	swap := func(flag, value string) []string {
		args := append([]string{}, good...)
		for i := range args {
			if args[i] == flag {
				args[i+1] = value
			}
		}
		return args
	}
	half := l.write[:len(l.write)-5]
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"a link cut short":         {swap("--room", half), "copy the whole link"},
		"a link without its key":   {swap("--room", l.url), "nothing behind '#'"},
		"an empty link":            {swap("--room", " "), "the room link is empty"},
		"a link without a server":  {swap("--room", l.write[strings.Index(l.write, "#"):]), "--signal"},
		"a busy API port":          {swap("--api", busy.Addr().String()), "choose another address with --api"},
		"a busy page port":         {with("--serve", busy.Addr().String(), "--stun", "off"), "choose another address with --serve"},
		"not a database":           {swap("--db", l.file("text.db", strings.Repeat("this is no database\n", 100))), "text.db"},
		"a directory":              {swap("--db", l.dir), "director"},
		"no such directory":        {swap("--db", filepath.Join(l.dir, "none", "x.db")), "none"},
		"a missing schema file":    {with("--schema", filepath.Join(l.dir, "none.sql")), "none.sql"},
		"a broken schema file":     {with("--schema", l.file("broken.sql", "CREATE TABLE ok (id PRIMARY KEY NOT NULL);\n\nCREATE TABEL x (id);\nSELECT crsql_as_crr('x');\n")), "line 3"},
		"a schema without a CRR":   {with("--schema", l.file("plain.sql", "CREATE TABLE x (id);")), "crsql_as_crr"},
		"a signaling URL":          {with("--signal", "ftp://x"), "ftp://x"},
		"a UDP port":               {with("--udp-port", "70000"), "--udp-port 70000 is no port"},
		"a busy TCP port":          {with("--tcp-port", strconv.Itoa(busyPort)), "choose another one"},
		"an outer address":         {with("--nat-1to1", "203.0.113.7,home.example.org"), `"home.example.org" is no IP address`},
		"an ICE server":            {with("--ice-server", "https://stun.example.org"), "--ice-server"},
		"lite and an ICE server":   {with("--ice-lite", "--ice-server", "stun:192.0.2.1:3478"), "leave one of the two out"},
		"no peer":                  {[]string{"query", "--api", "127.0.0.1:1", "SELECT 1"}, "is `peer run` running?"},
		"no peer, exec":            {[]string{"exec", "--api", "127.0.0.1:1", "SELECT 1"}, "is `peer run` running?"},
		"no peer, status":          {[]string{"status", "--api", "127.0.0.1:1"}, "is `peer run` running?"},
		"no peer, wait":            {[]string{"wait", "--api", "127.0.0.1:1", "--timeout", "200ms"}, "is `peer run` running?"},
		"an address":               {[]string{"status", "--api", "nonsense"}, "is not like 127.0.0.1:7070"},
		"an unknown command":       {[]string{"fly"}, "see peer --help"},
		"a blob that is not hex":   {[]string{"exec", "--api", "127.0.0.1:1", "SELECT ?", "blob:xyz"}, "hex digits"},
		"a page address":           {[]string{"room", "new", "--signal", "sync.example.org"}, "is no address like"},
		"something else listening": {[]string{"status", "--api", otherServer(t)}, "is not a peer"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := slices.Clone(c.args)
			if i := slices.Index(args, db); i >= 0 { // one each: of two that have it open at once one would say only that
				args[i] = filepath.Join(t.TempDir(), "x.db")
			}
			var stdout, stderr bytes.Buffer
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			cmd := exec.CommandContext(ctx, filepath.Join(bin, "peer"), args...)
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			err := cmd.Run()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 1 {
				t.Errorf("it ended with %v, not with code 1", err)
			}
			said := strings.TrimSpace(stderr.String())
			if !strings.Contains(said, c.want) || strings.Contains(said, "\n") || !strings.HasPrefix(said, "peer: ") {
				t.Errorf("it said %q; want one line with %q", said, c.want)
			}
			if stdout.Len() > 0 {
				t.Errorf("stdout: %q", stdout.String())
			}
			if strings.Contains(said, strings.Split(l.write, ".")[len(strings.Split(l.write, "."))-1]) {
				t.Error("it shows the secret")
			}
		})
	}
}

// otherServer is a web server that is no peer.
func otherServer(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.NotFoundHandler()}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return l.Addr().String()
}

// TestSecondPeerOnOneDatabase: the second is told, the first goes on.
func TestSecondPeerOnOneDatabase(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.signal()
	a := l.peer("a", l.write, "--schema", l.file("notes.sql", notes))
	out, err := exec.Command(filepath.Join(bin, "peer"), "run", "--db", a.db, "--room", l.write, "--api", "127.0.0.1:0").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "in use") {
		t.Errorf("the second peer: %v, %s", err, out)
	}
	a.exec("INSERT INTO note VALUES (1, 'x', 1)")
	if got := a.query("SELECT count(*) FROM note"); got != "1" {
		t.Errorf("got %s", got)
	}
}

// TestAPIRefuses: what a foreign page may have sent is refused, and what is no request; the peer goes on.
func TestAPIRefuses(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.signal()
	a := l.peer("a", l.write, "--schema", l.file("notes.sql", notes))
	post := func(r *http.Request, kind, body string) {
		r.Method = http.MethodPost
		r.Body = http.NoBody
		if body != "" {
			r.Body = readCloser{strings.NewReader(body)}
		}
		if kind != "" {
			r.Header.Set("Content-Type", kind)
		}
	}
	statement := `{"sql":"INSERT INTO note VALUES (1,'x',1)"}`
	for name, c := range map[string]struct {
		path   string
		change func(*http.Request)
		status int
		want   string
	}{
		"fine":              {"/v1/status", func(*http.Request) {}, 200, `"members"`},
		"own origin":        {"/v1/status", func(r *http.Request) { r.Header.Set("Origin", "http://"+r.URL.Host) }, 200, `"members"`},
		"localhost":         {"/v1/status", func(r *http.Request) { r.Host = "localhost:1" }, 200, `"members"`},
		"foreign origin":    {"/v1/status", func(r *http.Request) { r.Header.Set("Origin", "https://example.org") }, 403, "origins"},
		"null origin":       {"/v1/status", func(r *http.Request) { r.Header.Set("Origin", "null") }, 403, "origins"},
		"rebound name":      {"/v1/status", func(r *http.Request) { r.Host = "evil.example:7070" }, 403, "own address"},
		"outside address":   {"/v1/status", func(r *http.Request) { r.Host = "192.0.2.1" }, 403, "own address"},
		"form":              {"/v1/exec", func(r *http.Request) { post(r, "text/plain", statement) }, 415, "Content-Type"},
		"not JSON":          {"/v1/exec", func(r *http.Request) { post(r, "application/json", "x") }, 400, "the body is not"},
		"no SQL":            {"/v1/exec", func(r *http.Request) { post(r, "application/json", "{}") }, 400, "missing"},
		"a wrong value":     {"/v1/exec", func(r *http.Request) { post(r, "application/json", `{"sql":"x","args":[true]}`) }, 400, "a value is"},
		"bad SQL":           {"/v1/exec", func(r *http.Request) { post(r, "application/json", `{"sql":"INSRT"}`) }, 400, "INSRT"},
		"a write in query":  {"/v1/query", func(r *http.Request) { post(r, "application/json", statement) }, 400, "error"},
		"a wait for nobody": {"/v1/wait?links=5&timeout=49.9999ms", func(*http.Request) {}, 504, "after 50ms there are 0 links, not 5"},
		"a wait too long":   {"/v1/wait?timeout=20h", func(*http.Request) {}, 400, "timeout"},
	} {
		status, body := a.get(c.path, c.change)
		if status != c.status || !strings.Contains(body, c.want) {
			t.Errorf("%s: %d %s; want %d and %q", name, status, body, c.status, c.want)
		}
	}
	if got := a.query("SELECT count(*) FROM note"); got != "0" {
		t.Errorf("something was written: %s", got)
	}
}

type readCloser struct{ *strings.Reader }

func (readCloser) Close() error { return nil }

// TestHelp: the help shows an example, the flags and their environment variables.
func TestHelp(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"--help", "peer run --db app.db"},
		{"run --help", "$CRMESH_ROOM"},
		{"run --help", "--udp-port=N"},
		{"run --help", "$CRMESH_ICE_SERVER"},
		{"wait --help", "--synced"},
		{"exec --help", "blob:HEX"},
	} {
		var out bytes.Buffer
		if err := run(context.Background(), strings.Fields(c.args), &out, os.Stderr); err != nil || !strings.Contains(out.String(), c.want) {
			t.Errorf("%s: %v; %q is missing in\n%s", c.args, err, c.want, out.String())
		}
	}
}
