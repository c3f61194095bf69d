package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"

	"github.com/crmesh/crmesh/pkg/signaling/signalserver"
)

// tlsFlags say which certificate the server shows. Without any it speaks
// plainly, as behind a proxy.
type tlsFlags struct {
	TLSCert string `restart:"" name:"tls-cert" placeholder:"FILE" help:"Certificate chain for TLS, PEM. It is read again when it changes, and on SIGHUP."`
	TLSKey  string `restart:"" name:"tls-key" placeholder:"FILE" help:"Its private key, PEM."`

	Domain        []string `restart:"" placeholder:"NAME" help:"Get certificates for this host name by ACME (Let's Encrypt). The server must be reachable at its port 443."`
	ACMECache     string   `restart:"" name:"acme-cache" placeholder:"DIR" help:"Where certificates and the account key are kept, with --domain."`
	ACMEEmail     string   `restart:"" name:"acme-email" placeholder:"ADDRESS" help:"Where the authority may write to about problems."`
	ACMEDirectory string   `restart:"" name:"acme-directory" default:"${acme_directory}" placeholder:"URL" help:"The authority (${default})."`
}

// certificates are where the server's certificates come from.
type certificates struct {
	config *tls.Config
	reload func()             // reads files again at once, on SIGHUP; it does not fail, but logs
	leaves func() []namedCert // as far as there are any yet
}

// namedCert is a certificate and the name that it is for; of several names the first.
type namedCert struct {
	name string
	*x509.Certificate
}

// certificates returns nil when there is to be no TLS.
func (f *tlsFlags) certificates(log *slog.Logger) (*certificates, error) {
	files := f.TLSCert != "" || f.TLSKey != ""
	switch {
	case files && len(f.Domain) > 0:
		return nil, errors.New("choose between --tls-cert with --tls-key, and --domain")
	case files && (f.TLSCert == "" || f.TLSKey == ""):
		return nil, errors.New("TLS needs both --tls-cert and --tls-key")
	case files:
		c := &certFiles{cert: f.TLSCert, key: f.TLSKey, every: certCheckInterval, log: log}
		if err := c.load(); err != nil {
			return nil, err
		}
		config := tlsConfig()
		config.GetCertificate = c.get
		return &certificates{config: config, reload: c.reload, leaves: c.leaves}, nil
	case len(f.Domain) == 0:
		if f.ACMECache != "" || f.ACMEEmail != "" || f.ACMEDirectory != acme.LetsEncryptURL {
			return nil, errors.New("--acme-cache, --acme-email and --acme-directory go with --domain")
		}
		return nil, nil
	case f.ACMECache == "":
		return nil, errors.New("--domain needs a directory that outlives the server, --acme-cache: authorities give out few certificates a week")
	}
	if err := f.checkACME(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(f.ACMECache, 0o700); err != nil {
		return nil, fmt.Errorf("the directory of --acme-cache cannot be used: %w", err)
	}
	probe, err := os.CreateTemp(f.ACMECache, ".probe-*") // or the authority would be asked in vain at each handshake
	if err != nil {
		return nil, fmt.Errorf("the directory of --acme-cache cannot be written to: %w", err)
	}
	if err := errors.Join(probe.Close(), os.Remove(probe.Name())); err != nil {
		return nil, fmt.Errorf("the directory of --acme-cache cannot be written to: %w", err)
	}
	manager := &autocert.Manager{
		Prompt:     autocert.AcceptTOS,
		Cache:      autocert.DirCache(f.ACMECache),
		HostPolicy: autocert.HostWhitelist(f.Domain...),
		Email:      f.ACMEEmail,
		Client: &acme.Client{
			DirectoryURL: f.ACMEDirectory,
			UserAgent:    "crmesh-signal",
			HTTPClient:   &http.Client{Timeout: acmeTimeout},
		},
	}
	config := tlsConfig()
	config.NextProtos = append(config.NextProtos, acme.ALPNProto) // by which the authority asks
	config.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		cert, err := manager.GetCertificate(hello)
		ours := func(name string) bool { return strings.EqualFold(name, hello.ServerName) }
		if err != nil && slices.ContainsFunc(f.Domain, ours) { // not for names that scanners try
			log.Warn("no certificate", "name", hello.ServerName, "error", err)
		}
		return cert, err
	}
	return &certificates{config: config, reload: func() {}, leaves: func() []namedCert {
		leaves, err := f.cached(context.Background())
		if err != nil {
			log.Warn("the directory of --acme-cache cannot be read", "error", err)
		}
		return leaves
	}}, nil
}

// cached are the certificates in the cache, where each is before it is shown. The error is about one that cannot be read; that one is
// not there yet is none.
func (f *tlsFlags) cached(ctx context.Context) (leaves []namedCert, err error) {
	seen := map[string]bool{}
	for _, name := range f.Domain {
		if name = strings.ToLower(name); seen[name] {
			continue
		}
		seen[name] = true
		data, e := autocert.DirCache(f.ACMECache).Get(ctx, name)
		if e != nil {
			if !errors.Is(e, autocert.ErrCacheMiss) {
				err = e
			}
			continue
		}
		for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
			if block.Type != "CERTIFICATE" {
				continue // the key stands before it
			}
			if leaf, e := x509.ParseCertificate(block.Bytes); e == nil {
				leaves = append(leaves, namedCert{name, leaf})
			}
			break // the authority's own stand behind it
		}
	}
	return leaves, err
}

// endsSoon tells whether a certificate that is renewed in time, as with a third of its life left, would have been by now.
func endsSoon(leaf namedCert, now time.Time) bool {
	const days = 14 * 24 * time.Hour
	return leaf.NotAfter.Sub(now) < min(days, leaf.NotAfter.Sub(leaf.NotBefore)/4)
}

// checkACME returns what is wrong with names for which no certificate would ever come.
func (f *tlsFlags) checkACME() error {
	for _, name := range f.Domain {
		if _, err := netip.ParseAddr(name); err == nil || !signalserver.IsHost(name) || !strings.Contains(name, ".") ||
			strings.Contains("."+name+".", "..") {
			return fmt.Errorf("--domain %q is not a host name like sync.example.org: no address, no * and no port; other letters in the xn-- form", name)
		}
	}
	if u, err := url.Parse(f.ACMEDirectory); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return fmt.Errorf("--acme-directory %q is not like %s", f.ACMEDirectory, acme.LetsEncryptURL)
	}
	return nil
}

// acmeTimeout bounds one request to the authority.
const acmeTimeout = time.Minute

// tlsConfig has no HTTP/2: a WebSocket of HTTP/1.1 is a connection of its own,
// and one slow client holds up no other.
func tlsConfig() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
}

// certCheckInterval is how often, at most, a handshake looks whether the
// files have changed.
const certCheckInterval = time.Second

// certFiles is a certificate in files that change, as certbot's do.
type certFiles struct {
	cert, key string
	every     time.Duration
	log       *slog.Logger

	mu      sync.Mutex // guards the following
	current *tls.Certificate
	seen    [2]stamp  // of the files at the last load, a failed one included
	checked time.Time // when the files were last looked at
}

// stamp tells one state of a file from another.
type stamp struct {
	modified time.Time
	size     int64
}

func stampOf(path string) stamp {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{} // load says what is wrong
	}
	return stamp{info.ModTime(), info.Size()}
}

// get is a tls.Config's GetCertificate.
func (c *certFiles) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.checked) >= c.every {
		c.checked = now
		if [2]stamp{stampOf(c.cert), stampOf(c.key)} != c.seen {
			c.loadOrKeep()
		}
	}
	return c.current, nil
}

// leaves is the certificate that a handshake would get now.
func (c *certFiles) leaves() []namedCert {
	pair, err := c.get(nil)
	if err != nil {
		return nil
	}
	name := pair.Leaf.Subject.CommonName
	if len(pair.Leaf.DNSNames) > 0 {
		name = pair.Leaf.DNSNames[0]
	}
	return []namedCert{{strings.ToValidUTF8(name, "?"), pair.Leaf}}
}

// reload reads the files again, changed or not.
func (c *certFiles) reload() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.loadOrKeep()
}

// loadOrKeep keeps the old certificate if the new one is bad, as it is while
// only one of the two files is in its place. c.mu is held.
func (c *certFiles) loadOrKeep() {
	if err := c.load(); err != nil {
		c.log.Error("the certificate stays the old one", "error", err)
	}
}

// load reads the files. c.mu is held, or nobody else has c.
func (c *certFiles) load() error {
	c.seen = [2]stamp{stampOf(c.cert), stampOf(c.key)} // before, so that what changes meanwhile is seen
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return fmt.Errorf("the certificate cannot be used: %w (--tls-cert %s, --tls-key %s)", err, c.cert, c.key)
	}
	c.current = &pair
	c.log.Info("certificate", "file", c.cert, "names", pair.Leaf.DNSNames, "expires", pair.Leaf.NotAfter)
	if time.Now().After(pair.Leaf.NotAfter) {
		c.log.Error("the certificate has expired; clients will refuse it", "file", c.cert, "expired", pair.Leaf.NotAfter)
	}
	return nil
}
