package signaltest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"testing"
	"time"
)

// Authority signs certificates.
type Authority struct {
	Cert        *x509.Certificate
	From, Until time.Time // what it signs is good in between

	t   testing.TB
	key *ecdsa.PrivateKey
}

// NewAuthority makes an authority whose certificates are good for some weeks.
func NewAuthority(t testing.TB) *Authority {
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
	return &Authority{t: t, Cert: cert, key: key, From: template.NotBefore, Until: time.Now().Add(80 * 24 * time.Hour)}
}

// Pool trusts the authority and nobody else.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.Cert)
	return pool
}

// Sign returns a certificate, DER, for a public key, names and loopback.
func (a *Authority) Sign(serial int64, public any, names ...string) []byte {
	a.t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), DNSNames: names, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: a.From, NotAfter: a.Until}
	der, err := x509.CreateCertificate(rand.Reader, template, a.Cert, public, a.key)
	if err != nil {
		a.t.Error(err)
	}
	return der
}

// WriteRoot puts the authority's own certificate into a file.
func (a *Authority) WriteRoot(file string) {
	a.t.Helper()
	a.writePEM(file, "CERTIFICATE", a.Cert.Raw)
}

// Write puts a new certificate for localhost and its key into two files; one with an empty name is left out.
func (a *Authority) Write(serial int64, certFile, keyFile string) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.writePEM(keyFile, "PRIVATE KEY", der)
	a.writePEM(certFile, "CERTIFICATE", a.Sign(serial, &key.PublicKey, "localhost"))
}

func (a *Authority) writePEM(file, typ string, bytes []byte) {
	a.t.Helper()
	if file == "" {
		return
	}
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: bytes}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}
