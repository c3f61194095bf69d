//go:build unix

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/crmesh/crmesh/pkg/signaling/signalclient"
)

// authority signs certificates in tests.
type authority struct {
	t     testing.TB
	cert  *x509.Certificate
	key   *ecdsa.PrivateKey
	until time.Time // the end of what it signs
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true,
		BasicConstraintsValid: true, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{t: t, cert: cert, key: key, until: time.Now().Add(80 * 24 * time.Hour)}
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// sign returns a certificate, DER, for a public key.
func (a *authority) sign(serial int64, public any, names ...string) []byte {
	a.t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), DNSNames: names, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: a.until}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, public, a.key)
	if err != nil {
		a.t.Error(err)
	}
	return der
}

// write puts a new certificate and its key into two files.
func (a *authority) write(serial int64, certFile, keyFile string) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	for _, f := range []struct{ path, typ, bytes string }{
		{keyFile, "PRIVATE KEY", string(der)}, {certFile, "CERTIFICATE", string(a.sign(serial, &key.PublicKey, "localhost"))},
	} {
		if f.path == "" {
			continue
		}
		if err := os.WriteFile(f.path, pem.EncodeToMemory(&pem.Block{Type: f.typ, Bytes: []byte(f.bytes)}), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
}

// served returns the serial number of the certificate at address, and the
// protocol that was agreed on.
func (a *authority) served(address, name string, protocols ...string) (int64, string) {
	a.t.Helper()
	c, err := tls.Dial("tcp", address, &tls.Config{RootCAs: a.pool(), ServerName: name, NextProtos: protocols})
	if err != nil {
		a.t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	state := c.ConnectionState()
	return state.PeerCertificates[0].SerialNumber.Int64(), state.NegotiatedProtocol
}

// A new certificate is shown as soon as it is in its place, a bad one never,
// and connections stay.
func TestTLSFiles(t *testing.T) {
	a := newAuthority(t)
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	a.write(1, cert, key)
	p := startProcess(t, nil, "--listen", "127.0.0.1:0", "--stun", "off", "--tls-cert", cert, "--tls-key", key)
	address, ok := strings.CutPrefix(strings.TrimSuffix(p.url, "/"), "https://")
	if !ok {
		t.Fatalf("it serves %s", p.url)
	}
	if serial, protocol := a.served(address, "localhost", "h2", "http/1.1"); serial != 1 || protocol != "http/1.1" {
		t.Fatalf("certificate %d, protocol %s", serial, protocol)
	}
	held, err := tls.Dial("tcp", address, &tls.Config{RootCAs: a.pool()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = held.Close() }()

	a.write(2, cert, key)
	poll(t, "the second certificate", func() bool { serial, _ := a.served(address, "localhost"); return serial == 2 })
	a.write(3, cert, "") // the key of another one
	p.signal(syscall.SIGHUP)
	poll(t, "a complaint", func() bool { return strings.Contains(p.log.String(), "the certificate stays the old one") })
	if serial, _ := a.served(address, "localhost"); serial != 2 {
		t.Fatalf("certificate %d after a bad one", serial)
	}
	a.write(4, cert, key)
	p.signal(syscall.SIGHUP)
	poll(t, "the fourth certificate", func() bool { serial, _ := a.served(address, "localhost"); return serial == 4 })

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
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: a.pool()}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	joined(t, signalclient.Config{URLs: []string{p.url}, HTTPClient: &http.Client{Transport: transport}})
	_ = held.Close()
	p.stop()
}

// signal check looks at the certificate as browsers would, and at who can read its key.
func TestCheckCertificate(t *testing.T) {
	a := newAuthority(t)
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	judge := func() string {
		c := &check{*parsed(t, "--listen", ":443", "--tls-cert", cert, "--tls-key", key)}
		found := c.judge(machine{})
		return strings.Join(append(found.errors, found.warnings...), "; ")
	}
	a.write(1, cert, key)
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
	a.until = time.Now().Add(-time.Minute)
	a.write(2, cert, key)
	if said := judge(); !strings.Contains(said, "has expired") {
		t.Errorf("one that has expired: %q", said)
	}
}
