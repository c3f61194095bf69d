//go:build unix

package main

import (
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/crmesh/crmesh/pkg/signaling/signalclient"
	"github.com/crmesh/crmesh/pkg/signaling/signaltest"
)

// served returns the serial number of the certificate at address, and the
// protocol that was agreed on.
func served(t *testing.T, a *signaltest.Authority, address, name string, protocols ...string) (int64, string) {
	t.Helper()
	c, err := tls.Dial("tcp", address, &tls.Config{RootCAs: a.Pool(), ServerName: name, NextProtos: protocols})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	state := c.ConnectionState()
	return state.PeerCertificates[0].SerialNumber.Int64(), state.NegotiatedProtocol
}

// A new certificate is shown as soon as it is in its place, a bad one never,
// and connections stay.
func TestTLSFiles(t *testing.T) {
	a := signaltest.NewAuthority(t)
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	a.Write(1, cert, key)
	p := startProcess(t, nil, "--listen", "127.0.0.1:0", "--stun", "off", "--tls-cert", cert, "--tls-key", key)
	address, ok := strings.CutPrefix(strings.TrimSuffix(p.url, "/"), "https://")
	if !ok {
		t.Fatalf("it serves %s", p.url)
	}
	if serial, protocol := served(t, a, address, "localhost", "h2", "http/1.1"); serial != 1 || protocol != "http/1.1" {
		t.Fatalf("certificate %d, protocol %s", serial, protocol)
	}
	held, err := tls.Dial("tcp", address, &tls.Config{RootCAs: a.Pool()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = held.Close() }()

	a.Write(2, cert, key)
	poll(t, "the second certificate", func() bool { serial, _ := served(t, a, address, "localhost"); return serial == 2 })
	a.Write(3, cert, "") // the key of another one
	p.signal(syscall.SIGHUP)
	poll(t, "a complaint", func() bool { return strings.Contains(p.log.String(), "the certificate stays the old one") })
	if serial, _ := served(t, a, address, "localhost"); serial != 2 {
		t.Fatalf("certificate %d after a bad one", serial)
	}
	a.Write(4, cert, key)
	p.signal(syscall.SIGHUP)
	poll(t, "the fourth certificate", func() bool { serial, _ := served(t, a, address, "localhost"); return serial == 4 })

	// The connection from before all that is still good.
	request, err := http.NewRequest(http.MethodGet, p.url+"readyz", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, len("HTTP/1.1 200"))
	if err = request.Write(held); err == nil {
		_, err = io.ReadFull(held, answer)
	}
	if err != nil || string(answer) != "HTTP/1.1 200" {
		t.Errorf("the old connection answers %q, %v", answer, err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: a.Pool()}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	joined(t, signalclient.Config{URLs: []string{p.url}, HTTPClient: &http.Client{Transport: transport}})
	_ = held.Close()
	p.stop()
}

// The metric tells when the certificate that a handshake would get now expires; in TestACME it is the one in the cache.
func TestCertificateExpiry(t *testing.T) {
	a := signaltest.NewAuthority(t)
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	a.Write(1, cert, key)
	r := launch(t, "--tls-cert", cert, "--tls-key", key)
	expiry := func() string {
		_, body := r.get(t, r.private+"/metrics")
		return sample(body, `crmesh_signal_certificate_expiry_timestamp_seconds{name="localhost"}`)
	}
	if got, want := expiry(), seconds(a.Until); got != want {
		t.Errorf("it expires at %s, want %s", got, want)
	}
	a.Until = time.Now().Add(20 * 24 * time.Hour)
	a.Write(2, cert, key)
	want := seconds(a.Until) // without a handshake in between
	poll(t, "the expiry of the new certificate", func() bool { return expiry() == want })
}

// signal check looks at the certificate as browsers would, and at who can read its key.
func TestCheckCertificate(t *testing.T) {
	a := signaltest.NewAuthority(t)
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	judge := func() string {
		c := &check{*parsed(t, "--listen", ":443", "--tls-cert", cert, "--tls-key", key)}
		found := c.judge(machine{})
		return strings.Join(append(found.errors, found.warnings...), "; ")
	}
	a.Write(1, cert, key)
	if said := judge(); said != "" {
		t.Errorf("a good one: %s", said)
	}
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	if said := judge(); !strings.Contains(said, "every user of this machine can read --tls-key") {
		t.Errorf("a key for all: %q", said)
	}
	if err := os.Chmod(key, 0o640); err != nil {
		t.Fatal(err)
	}
	day := 24 * time.Hour
	for _, c := range []struct {
		from, until time.Duration // from now
		want        string        // "": nothing
	}{
		{-80 * day, 15 * day, ""},
		{-80 * day, 13 * day, "expires on"},
		{-2 * day, 1 * day, ""}, // an authority that gives out short ones, renewed with a third left
		{-9 * day, 2 * day, "expires on"},
		{-80 * day, -time.Minute, "has expired"},
		{time.Hour, 80 * day, "browsers refuse it until then"},
	} {
		a.From, a.Until = time.Now().Add(c.from), time.Now().Add(c.until)
		a.Write(2, cert, key)
		if said := judge(); !strings.Contains(said, c.want) || c.want == "" && said != "" {
			t.Errorf("from %v until %v: %q, want %q", c.from, c.until, said, c.want)
		}
	}
}

// A certificate by ACME that was not renewed is seen before browsers refuse it; a cache that cannot be used, before it is needed.
func TestCheckCache(t *testing.T) {
	a := signaltest.NewAuthority(t)
	cache := t.TempDir()
	judge := func() string {
		c := &check{*parsed(t, "--listen", ":443", "--domain", "A.example,b.example,a.example", "--acme-cache", cache)}
		found := c.judge(machine{})
		return strings.Join(append(found.errors, found.warnings...), "; ")
	}
	if said := judge(); said != "" {
		t.Errorf("an empty cache: %s", said)
	}
	put := func(name string) { // as autocert does
		t.Helper()
		files := [2]string{filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")}
		a.Write(3, files[0], files[1])
		var both []byte
		for _, file := range []string{files[1], files[0]} {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			both = append(both, text...)
		}
		if err := os.WriteFile(filepath.Join(cache, name), both, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("a.example")
	if said := judge(); said != "" {
		t.Errorf("a good one: %s", said)
	}
	a.From, a.Until = time.Now().Add(-80*24*time.Hour), time.Now().Add(10*24*time.Hour)
	put("b.example")
	if said := judge(); strings.Count(said, "should have been renewed") != 1 || !strings.Contains(said, "the certificate of b.example expires on") {
		t.Errorf("one that ends soon: %q", said)
	}
	if err := errors.Join(os.Remove(filepath.Join(cache, "b.example")), os.Mkdir(filepath.Join(cache, "b.example"), 0o700)); err != nil {
		t.Fatal(err)
	}
	if said := judge(); !strings.Contains(said, "cannot be read, so that nothing is known") {
		t.Errorf("a cache that cannot be read: %q", said)
	}
}

// Without a place for certificates the server does not start: the authority would be asked in vain again and again.
func TestCacheMustBeWritable(t *testing.T) {
	for _, dir := range []string{"/proc/self", filepath.Join(os.Args[0], "cache")} { // root may write everywhere else
		f := tlsFlags{Domain: []string{"a.example"}, ACMECache: dir, ACMEDirectory: "https://ca.example/"}
		if _, err := f.certificates(slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "the directory of --acme-cache cannot be") {
			t.Errorf("%s: %v", dir, err)
		}
	}
}
