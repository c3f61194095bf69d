package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/crmesh/crmesh/pkg/signaling"
	"github.com/crmesh/crmesh/pkg/signaling/signalclient"
	"github.com/crmesh/crmesh/pkg/signaling/signaltest"
)

// running is a server in this process.
type running struct {
	url, private string
	log          *signaltest.Log
	http         *http.Client
}

var (
	servesPattern  = regexp.MustCompile(`signal serves (\S+)`)
	privatePattern = regexp.MustCompile(`msg=private listen=(\S+)`)
)

// launch runs the command until the test ends, with the private address and the whole log.
func launch(t *testing.T, args ...string) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{log: &signaltest.Log{}, http: &http.Client{Transport: &http.Transport{}}}
	stdout := &signaltest.Log{}
	done := make(chan error, 1)
	args = append([]string{"--listen", "127.0.0.1:0", "--stun", "off", "--private", "127.0.0.1:0", "--log-level", "debug"}, args...)
	go func() { done <- run(ctx, args, stdout, r.log) }()
	t.Cleanup(func() {
		r.http.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	poll(t, "the addresses", func() bool {
		page, private := servesPattern.FindStringSubmatch(stdout.String()), privatePattern.FindStringSubmatch(r.log.String())
		if page == nil || private == nil {
			return false
		}
		r.url, r.private = page[1], "http://"+private[1]
		return true
	})
	return r
}

func (r *running) get(t *testing.T, url string) (int, string) { return signaltest.Get(t, r.http, url) }

func (r *running) client(t *testing.T, keys signaling.Keys, token string) (*signalclient.Client, signalclient.Event) {
	t.Helper()
	c, err := signalclient.New(signalclient.Config{URLs: []string{r.url}, Keys: keys, JoinToken: token})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	select {
	case e := <-c.Events():
		return c, e
	case <-time.After(patience):
		t.Fatal("nothing happened")
		return nil, nil
	}
}

// sample is the value of a metric as it is written; "": there is none.
func sample(metrics, name string) string {
	for line := range strings.Lines(metrics) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// seconds is a time as a metric has it.
func seconds(at time.Time) string { return strconv.FormatFloat(float64(at.Unix()), 'g', -1, 64) }

// Metrics and profiles are on the private address, and nowhere else.
func TestPrivate(t *testing.T) {
	r := launch(t)
	keys, err := signaling.NewRoom(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, e := r.client(t, keys, ""); e.(signalclient.Joined).URL == "" {
		t.Fatal("not joined")
	}
	status, body := r.get(t, r.private+"/metrics")
	for _, want := range []string{"crmesh_signal_members 1", "crmesh_signal_joins_total 1", "go_goroutines ", `refusals_total{cause="not-admitted"} 0`} {
		if status != 200 || !strings.Contains(body, "\n"+want) && !strings.Contains(body, want) {
			t.Errorf("HTTP %d; the metrics lack %s", status, want)
		}
	}
	if status, body := r.get(t, r.private+"/debug/pprof/goroutine?debug=1"); status != 200 || !strings.Contains(body, "signalserver") {
		t.Errorf("the profile: HTTP %d", status)
	}
	if status, body := r.get(t, r.private+"/debug/pprof/cmdline"); status != 403 || strings.Contains(body, os.Args[0]) {
		t.Errorf("the command line: HTTP %d %s", status, body)
	}
	for _, path := range []string{"metrics", "debug/pprof/", "debug/pprof/heap"} {
		if status, _ := r.get(t, r.url+path); status != http.StatusNotFound {
			t.Errorf("/%s in public: HTTP %d", path, status)
		}
	}
}

var (
	metricPattern = regexp.MustCompile(`\b(crmesh_signal|go|process)_[a-z_]+\b`)
	helpPattern   = regexp.MustCompile(`(?m)^# TYPE (\S+) (\S+)$`)
)

// Each metric that the dashboard and the documentation name exists, and both name each of ours.
func TestMetricsAreDocumented(t *testing.T) {
	cert, key := filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	signaltest.NewAuthority(t).Write(1, cert, key)
	r := launch(t, "--tls-cert", cert, "--tls-key", key) // of which there is one, too
	_, body := r.get(t, r.private+"/metrics")
	var have []string
	for _, m := range helpPattern.FindAllStringSubmatch(body, -1) {
		if m[2] == "histogram" || m[2] == "summary" {
			have = append(have, m[1]+"_bucket", m[1]+"_sum", m[1]+"_count")
		}
		have = append(have, m[1])
	}
	for _, file := range []string{"../../docs/grafana-dashboard.json", "../../docs/OPERATING.md"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		named := metricPattern.FindAllString(string(text), -1)
		for _, name := range named {
			if !slices.Contains(have, name) {
				t.Errorf("%s names %s, and there is no such metric", file, name)
			}
		}
		for _, m := range helpPattern.FindAllStringSubmatch(body, -1) {
			if strings.HasPrefix(m[1], "crmesh_signal_") && !slices.ContainsFunc(named, func(n string) bool { return strings.HasPrefix(n, m[1]) }) {
				t.Errorf("%s does not name %s", file, m[1])
			}
		}
	}
}

// A signed token lets the client of its room in, and the log of the whole run names nobody and no secret.
func TestTokens(t *testing.T) {
	const key = "the key of this test"
	keys, err := signaling.NewRoom(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("CRMESH_JOIN_HMAC_KEY", key)
	link, _ := keys.WriteLink("https://h/")
	var token, any bytes.Buffer
	if err := run(context.Background(), []string{"token", "--room", link, "--expires", "1h"}, &token, io.Discard); err != nil {
		t.Fatal(err)
	}
	if err := run(context.Background(), []string{"token"}, &any, io.Discard); err != nil {
		t.Fatal(err)
	}
	r := launch(t)
	other, err := signaling.NewRoom(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		keys  signaling.Keys
		token string
		in    bool
	}{
		{keys, strings.TrimSpace(token.String()), true},
		{other, strings.TrimSpace(token.String()), false},
		{other, strings.TrimSpace(any.String()), true},
		{keys, "", false},
	} {
		_, e := r.client(t, c.keys, c.token)
		lost, _ := e.(signalclient.Disconnected)
		if _, in := e.(signalclient.Joined); in != c.in || !in && !strings.HasPrefix(fmt.Sprint(lost.Err), "not-admitted: ") {
			t.Errorf("token %q: %+v", c.token, e)
		} else if !in && lost.RetryIn < time.Minute {
			t.Errorf("it comes again in %v", lost.RetryIn)
		}
	}
	raw, err := net.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(r.url, "http://"), "/"))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = raw.Write([]byte("GET / HTTP/9.9\r\n\r\n"))
	_, _ = io.Copy(io.Discard, raw)
	address := raw.LocalAddr().String()
	_ = raw.Close()
	poll(t, "the refusals in the log", func() bool { return strings.Count(r.log.String(), "why=not-admitted") == 2 })
	for _, never := range []string{address, keys.Room.String(), other.Room.String(), key, strings.TrimSpace(any.String())} {
		if strings.Contains(r.log.String(), never) {
			t.Errorf("the log holds %s:\n%s", never, r.log)
		}
	}
}

// What net and net/http say about connections is logged without their addresses.
func TestHTTPLog(t *testing.T) {
	for line, want := range map[string]string{
		"http: TLS handshake error from 192.0.2.1:5678: EOF":                            "(address): EOF",
		"http: TLS handshake error from [2001:db8::1]:5678: EOF":                        "from (address): EOF",
		"read tcp 10.0.0.1:80->[fe80::1%eth0]:99: connection reset by peer at 12:30:00": "tcp (address)->(address): connection reset by peer at 12:30:00",
		"http: superfluous response.WriteHeader call from a.b (file.go:12)":             "a.b (file.go:12)",
	} {
		var out bytes.Buffer
		flags := serve{}
		flags.LogLevel, flags.LogFormat = "debug", "text"
		wanted := &atomic.Bool{}
		to := httpLog(flags.Logger(output(&out)), wanted)
		to.Print(line)
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s becomes %s", line, out.String())
		}
		out.Reset()
		wanted.Store(true)
		to.Print(line)
		if !strings.Contains(out.String(), line) {
			t.Errorf("with addresses, %s becomes %s", line, out.String())
		}
	}
}
