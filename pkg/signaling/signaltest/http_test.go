package signaltest

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"
)

// What the authority signs is trusted by its pool, for the time that was asked for; Get returns what a server says.
func TestAuthorityAndGet(t *testing.T) {
	a := NewAuthority(t)
	a.Until = time.Now().Add(time.Hour).Truncate(time.Second)
	cert, key := filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	a.Write(7, cert, key)
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	if !pair.Leaf.NotAfter.Equal(a.Until) || !pair.Leaf.NotBefore.Equal(a.From.Truncate(time.Second)) || pair.Leaf.SerialNumber.Int64() != 7 {
		t.Errorf("certificate %v from %v until %v", pair.Leaf.SerialNumber, pair.Leaf.NotBefore, pair.Leaf.NotAfter)
	}
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusTeapot)
		_, _ = fmt.Fprint(w, "path ", r.URL.Path)
	}))
	web.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	web.StartTLS()
	defer web.Close()
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: a.Pool(), ServerName: "localhost"}}
	defer transport.CloseIdleConnections()
	if status, body := Get(t, &http.Client{Transport: transport}, web.URL+"/x"); status != http.StatusTeapot || body != "path /x" {
		t.Errorf("got %d %q", status, body)
	}
}
