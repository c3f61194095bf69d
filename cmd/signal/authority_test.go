package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"testing"
	"time"
)

// authority signs certificates in tests.
type authority struct {
	t     testing.TB
	cert  *x509.Certificate
	key   *ecdsa.PrivateKey
	from  time.Time // the beginning of what it signs
	until time.Time // and its end
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
	return &authority{t: t, cert: cert, key: key, from: template.NotBefore, until: time.Now().Add(80 * 24 * time.Hour)}
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
		NotBefore: a.from, NotAfter: a.until}
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
