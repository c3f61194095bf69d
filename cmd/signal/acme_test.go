//go:build unix

package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/acme"

	"github.com/crmesh/crmesh/pkg/signaling/signaltest"
)

// fakeACME is an authority of RFC 8555 that gives out one certificate after a
// challenge by TLS-ALPN (RFC 8737). It believes signatures.
type fakeACME struct {
	*signaltest.Authority
	web    *httptest.Server
	target string // where the server under test listens, whatever its name

	mu     sync.Mutex // guards the following
	valid  bool       // the challenge was met
	chain  []byte     // PEM, once there is one
	orders int
}

const acmeToken = "token-of-the-challenge"

func newFakeACME(t *testing.T, target string) *fakeACME {
	f := &fakeACME{Authority: signaltest.NewAuthority(t), target: target}
	mux := http.NewServeMux()
	f.web = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Replay-Nonce", "nonce")
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(f.web.Close)
	url := f.web.URL
	mux.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]any{"newNonce": url + "/nonce", "newAccount": url + "/account", "newOrder": url + "/order"})
	})
	mux.HandleFunc("HEAD /nonce", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("POST /account", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", url+"/account/1")
		answer(w, http.StatusCreated, map[string]any{"status": "valid"})
	})
	mux.HandleFunc("POST /order", func(w http.ResponseWriter, _ *http.Request) {
		f.mu.Lock()
		f.orders++
		f.mu.Unlock()
		w.Header().Set("Location", url+"/order/1")
		f.order(w, http.StatusCreated)
	})
	mux.HandleFunc("POST /order/1", func(w http.ResponseWriter, _ *http.Request) { f.order(w, http.StatusOK) })
	mux.HandleFunc("POST /authz/1", func(w http.ResponseWriter, _ *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		status := map[bool]string{false: "pending", true: "valid"}[f.valid]
		answer(w, http.StatusOK, map[string]any{"status": status, "identifier": map[string]string{"type": "dns", "value": "sync.example.org"},
			"challenges": []any{map[string]string{"type": "tls-alpn-01", "url": url + "/challenge/1", "token": acmeToken, "status": status}}})
	})
	mux.HandleFunc("POST /challenge/1", func(w http.ResponseWriter, _ *http.Request) {
		if err := f.challenge(); err != nil {
			answer(w, http.StatusForbidden, map[string]any{"type": "urn:ietf:params:acme:error:unauthorized", "detail": err.Error()})
			return
		}
		f.mu.Lock()
		f.valid = true
		f.mu.Unlock()
		answer(w, http.StatusOK, map[string]any{"type": "tls-alpn-01", "url": url + "/challenge/1", "token": acmeToken, "status": "valid"})
	})
	mux.HandleFunc("POST /finalize/1", func(w http.ResponseWriter, r *http.Request) {
		var body struct{ CSR string }
		payload(t, r, &body)
		der, err := base64.RawURLEncoding.DecodeString(body.CSR)
		if err != nil {
			t.Error(err)
		}
		csr, err := x509.ParseCertificateRequest(der)
		if err != nil {
			t.Error(err)
			return
		}
		leaf := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.Sign(77, csr.PublicKey, csr.DNSNames...)})
		f.mu.Lock()
		f.chain = append(leaf, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.Cert.Raw})...)
		f.mu.Unlock()
		w.Header().Set("Location", url+"/order/1")
		f.order(w, http.StatusOK)
	})
	mux.HandleFunc("POST /cert/1", func(w http.ResponseWriter, _ *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		w.Header().Set("Content-Type", "application/pem-certificate-chain")
		_, _ = w.Write(f.chain)
	})
	return f
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

// payload reads what a JWS carries.
func payload(t *testing.T, r *http.Request, v any) {
	var jws struct{ Payload string }
	if err := json.NewDecoder(r.Body).Decode(&jws); err != nil {
		t.Error(err)
	}
	body, err := base64.RawURLEncoding.DecodeString(jws.Payload)
	if err == nil {
		err = json.Unmarshal(body, v)
	}
	if err != nil {
		t.Error(err)
	}
}

func (f *fakeACME) order(w http.ResponseWriter, status int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	url := f.web.URL
	order := map[string]any{"status": "pending", "authorizations": []string{url + "/authz/1"}, "finalize": url + "/finalize/1",
		"identifiers": []any{map[string]string{"type": "dns", "value": "sync.example.org"}}}
	if f.valid {
		order["status"] = "ready"
	}
	if f.chain != nil {
		order["status"], order["certificate"] = "valid", url+"/cert/1"
	}
	answer(w, status, order)
}

// challenge asks the server for the certificate that proves its control of
// the name.
func (f *fakeACME) challenge() error {
	c, err := tls.Dial("tcp", f.target, &tls.Config{ServerName: "sync.example.org", NextProtos: []string{acme.ALPNProto}, InsecureSkipVerify: true})
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	state := c.ConnectionState()
	if state.NegotiatedProtocol != acme.ALPNProto {
		return fmt.Errorf("the protocol is %q", state.NegotiatedProtocol)
	}
	identifier := asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 31}
	for _, e := range state.PeerCertificates[0].Extensions {
		if e.Id.Equal(identifier) && e.Critical {
			return nil
		}
	}
	return fmt.Errorf("the certificate bears no acmeIdentifier")
}

// With --domain the first handshake gets a certificate from the authority,
// which is kept for the next process.
func TestACME(t *testing.T) {
	address := freePort(t)
	fake := newFakeACME(t, address)
	cache := filepath.Join(t.TempDir(), "acme")
	args := []string{"--listen", address, "--stun", "off", "--domain", "sync.example.org", "--acme-cache", cache, "--acme-directory", fake.web.URL, "--private", "127.0.0.1:0"}
	web := &http.Client{Transport: &http.Transport{}}
	defer web.CloseIdleConnections()
	const expiry = `crmesh_signal_certificate_expiry_timestamp_seconds{name="sync.example.org"}`
	for round := range 2 {
		p := startProcess(t, nil, args...)
		private := p.private()
		_, metrics := signaltest.Get(t, web, private+"/metrics")
		if got, want := sample(metrics, expiry), []string{"", seconds(fake.Until)}[round]; got != want {
			t.Errorf("before the first handshake the certificate expires at %q, want %q", got, want)
		}
		if want := "https://sync.example.org" + address[strings.LastIndexByte(address, ':'):] + "/"; p.url != want {
			t.Errorf("it serves %s, not %s", p.url, want)
		}
		if serial, protocol := served(t, fake.Authority, address, "sync.example.org", "h2", "http/1.1"); serial != 77 || protocol != "http/1.1" {
			t.Errorf("certificate %d, protocol %s", serial, protocol)
		}
		if _, metrics = signaltest.Get(t, web, private+"/metrics"); sample(metrics, expiry) != seconds(fake.Until) {
			t.Errorf("it expires at %v, and the metrics have\n%s", fake.Until, metrics)
		}
		if c, err := tls.Dial("tcp", address, &tls.Config{ServerName: "other.example.org", InsecureSkipVerify: true}); err == nil {
			_ = c.Close()
			t.Error("a handshake for another name was answered")
		}
		p.stop()
	}
	fake.mu.Lock()
	defer fake.mu.Unlock()
	if fake.orders != 1 {
		t.Errorf("%d certificates were ordered", fake.orders)
	}
	info, err := os.Stat(cache)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the cache: %v, %v", info, err)
	}
}
