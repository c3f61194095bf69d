package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crmesh/crmesh/pkg/signaling"
	"github.com/crmesh/crmesh/pkg/signaling/signalclient"
)

// The command serves page and WebSocket, says where, and stops cleanly.
func TestServe(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	out, in := io.Pipe()
	var log bytes.Buffer // read after the end of run only
	done := make(chan error, 1)
	go func() {
		err := run(ctx, []string{"--listen", "127.0.0.1:0", "--stun", "127.0.0.1:0", "--log-format", "json"}, in, &log)
		_ = in.Close()
		done <- err
	}()
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		t.Fatalf("it said nothing: %v", <-done)
	}
	url, ok := strings.CutPrefix(lines.Text(), "signal serves ")
	if !ok {
		t.Fatalf("it said %q", lines.Text())
	}
	httpClient := &http.Client{Transport: &http.Transport{}}
	defer httpClient.CloseIdleConnections()
	for _, path := range []string{"", "healthz", "readyz"} {
		response, err := httpClient.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != http.StatusOK {
			t.Errorf("/%s: %s", path, response.Status)
		}
	}
	keys, err := signaling.NewRoom(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	client, err := signalclient.New(signalclient.Config{URLs: []string{url}, Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	select {
	case e := <-client.Events():
		joined, ok := e.(signalclient.Joined)
		if !ok || len(joined.ICEServers) != 1 || !strings.HasPrefix(joined.ICEServers[0].URLs[0], "stun:127.0.0.1:") {
			t.Fatalf("first event %+v", e)
		}
	case <-time.After(patience):
		t.Fatal("no join")
	}
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(patience):
		t.Fatal("it does not stop")
	}
	for line := range strings.Lines(log.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("not JSON: %s", line)
		}
	}
}

// Whatever is wrong is one sentence, and nothing is left running.
func TestFailures(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = busy.Close() }()
	busyUDP, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = busyUDP.Close() }()
	t.Setenv("CRMESH_MAX_ROOMS", "-5")
	for _, c := range []struct {
		args string
		want string
	}{
		{"--max-rooms 1 --stun off --listen " + busy.Addr().String(), "choose another address with --listen"},
		{"--max-rooms 1 --listen 127.0.0.1:0 --stun " + busyUDP.LocalAddr().String(), "the STUN port cannot be opened"},
		{"--listen 127.0.0.1:0 --stun off", "the limit of rooms must be above zero"}, // from the environment
		{"--no-such-flag", "unknown flag --no-such-flag; see signal serve --help"},   // those of the program itself name no flag
		{"serve --no-such-flag", "; see signal serve --help"},
		{"check --no-such-flag", "; see signal check --help"},
		{"no-such-command --listen 127.0.0.1:0", "unexpected argument no-such-command; see signal --help"},
		{"--log-format xml", "log-format"},
		{"--max-rooms 1 --stun off --trusted-proxies nonsense", "is neither an address nor a network"},
		{"serve too", "unexpected argument too"},
		{"--max-rooms 1 --stun off --listen nonsense", "cannot listen on nonsense"},
		{"--max-rooms 1 --stun off --listen systemd", "start the server by its .socket unit"},
		{"--max-rooms 1 --stun systemd --listen 127.0.0.1:0", "ListenDatagram="},
		{"--max-rooms 1 --stun off --listen unix:/nowhere/signal", "cannot listen on unix:/nowhere/signal"},
		{"--max-rooms 1 --stun off --listen unix:/tmp/x --socket-mode 8", "is not a mode like 0660"},
		{"--max-rooms 1 --stun off --listen unix:", "names no file"},
		{"--max-rooms 1 --stun off --listen 127.0.0.1:0 --public-url sync.example.org", "is not like https://"},
		{"--max-rooms 1 --stun off --listen 127.0.0.1:0 --public-url https://m\u00fcller.example", "is not like https://"},
		{"--max-rooms 1 --stun off --listen 127.0.0.1:0 --drain 2m", "the time to drain is between"},
		{"--max-rooms 1 --stun off --listen :", "--listen \":\" names no port"}, // nor any port on all interfaces
		{"--max-rooms 1 --stun off --listen=", "--listen \"\" names no port"},
		{"--max-rooms 1 --listen 127.0.0.1:0 --stun=", "--stun \"\" names no port"},
		{"--max-rooms 1 --stun off --listen 127.0.0.1:0 --private :", "--private \":\" names no port"},
		{"--max-rooms 1 --stun off --listen 127.0.0.1:0 --public-url https://sync.example.org:99999/", "is not like https://"},
		{"--max-rooms 1 --stun off --listen 127.0.0.1:0 --cluster nats://127.0.0.1:99999", "is not like nats://host:4222"},
		{"--max-rooms 1 --acme-cache /tmp/x --domain localhost", "is not a host name like"}, // for which no authority has certificates
		{"--max-rooms 1 --acme-cache /tmp/x --domain a..example", "is not a host name like"},
		{"--tls-cert a.pem", "TLS needs both"},
		{"--tls-cert /nowhere/a.pem --tls-key /nowhere/b.pem", "the certificate cannot be used"},
		{"--tls-cert a.pem --tls-key b.pem --domain example.org", "choose between"},
		{"--domain example.org", "--acme-cache"},
		{"--acme-cache /tmp/x", "go with --domain"},
		{"--max-rooms 1 --acme-cache /tmp/x --domain https://example.org", "is not a host name like"},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		var stdout bytes.Buffer
		err := run(ctx, strings.Fields(c.args), &stdout, io.Discard)
		cancel()
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") || stdout.Len() != 0 {
			t.Errorf("%s: %v, and said %q; want %q", c.args, err, stdout.String(), c.want)
		}
	}
}

// The origin of the public address is what browsers make of it.
func TestPublicOrigin(t *testing.T) {
	for text, want := range map[string]string{
		"https://sync.example.org":            "https://sync.example.org",
		"https://sync.example.org:443/page":   "https://sync.example.org",
		"http://sync.example.org:80/":         "http://sync.example.org",
		"https://sync.example.org:80/":        "https://sync.example.org:80",
		"https://[2001:db8::1]:443/":          "https://[2001:db8::1]",
		"https://sync.example.org:8443/page/": "https://sync.example.org:8443",
	} {
		cfg, err := parsed(t, "--public-url", text).config(slog.New(slog.DiscardHandler), 0)
		if err != nil || !slices.Equal(cfg.AllowOrigin, []string{want}) {
			t.Errorf("%s: %q, %v; want %s", text, cfg.AllowOrigin, err, want)
		}
	}
}

// A proxy is matched however its address is written.
func TestTrustedProxies(t *testing.T) {
	for text, want := range map[string]string{
		"10.1.2.3":                "10.1.2.3/32",
		"10.0.0.0/8":              "10.0.0.0/8",
		"::ffff:10.1.2.3":         "10.1.2.3/32",
		"::ffff:10.0.0.0/104":     "10.0.0.0/8",
		"::ffff:a00:0/104":        "10.0.0.0/8",
		"::ffff:0.0.0.0/96":       "0.0.0.0/0",
		"2001:db8::1":             "2001:db8::1/128",
		"fe80::/64":               "fe80::/64",
		"::ffff:10.0.0.0/95":      "takes in all of IPv4",
		"fe80::1%eth0":            "neither an address nor a network",
		"10.0.0.0/33":             "neither an address nor a network",
		"10.0.0.0-10.255.255.255": "neither an address nor a network",
		"proxy.example.org":       "neither an address nor a network",
	} {
		cfg, err := parsed(t, "--trusted-proxies", text).config(slog.New(slog.DiscardHandler), 0)
		if err != nil {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v; want %s", text, err, want)
			}
		} else if len(cfg.TrustedProxies) != 1 || cfg.TrustedProxies[0].String() != want {
			t.Errorf("%s: %v; want %s", text, cfg.TrustedProxies, want)
		}
	}
}

func TestHelp(t *testing.T) {
	var stdout bytes.Buffer
	if err := run(context.Background(), []string{"serve", "--help"}, &stdout, io.Discard); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"--listen", "$CRMESH_GRACE", "--max-members=512"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("the help does not name %s", want)
		}
	}
}
