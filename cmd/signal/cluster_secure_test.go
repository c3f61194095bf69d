//go:build unix

package main

import (
	"crypto/tls"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"github.com/crmesh/crmesh/pkg/signaling/signalcluster"
	"github.com/crmesh/crmesh/pkg/signaling/signalcluster/natsbus/natstest"
	"github.com/crmesh/crmesh/pkg/signaling/signaltest"
)

// must is for what fails only if the test is wrong.
func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// natsUser makes an operator, an account and a user that may use the subjects of a cluster and nothing else. It returns
// the text of the user's credentials.
func natsUser(t *testing.T, o *server.Options) string {
	t.Helper()
	key, public, seed := must[nkeys.KeyPair](t), must[string](t), must[[]byte](t)
	operator, account, user := key(nkeys.CreateOperator()), key(nkeys.CreateAccount()), key(nkeys.CreateUser())
	a := jwt.NewAccountClaims(public(account.PublicKey()))
	u := jwt.NewUserClaims(public(user.PublicKey()))
	u.Pub.Allow.Add(signalcluster.Prefix + ">")
	u.Sub.Allow.Add(signalcluster.Prefix + ">")
	resolver := &server.MemAccResolver{}
	if err := resolver.Store(a.Subject, public(a.Encode(operator))); err != nil {
		t.Fatal(err)
	}
	op := jwt.NewOperatorClaims(public(operator.PublicKey()))
	public(op.Encode(operator))
	o.TrustedOperators, o.AccountResolver = []*jwt.OperatorClaims{op}, resolver
	return string(must[[]byte](t)(jwt.FormatUserConfig(public(u.Encode(account)), seed(user.Seed()))))
}

// Over TLS, with a file of credentials that allow the subjects of the cluster only, servers find each other. One that does
// not trust the certificate serves alone. None of them logs a secret.
func TestClusterSecure(t *testing.T) {
	ca := signaltest.NewAuthority(t)
	dir := t.TempDir()
	root, cert, key, creds := filepath.Join(dir, "root"), filepath.Join(dir, "cert"), filepath.Join(dir, "key"), filepath.Join(dir, "creds")
	ca.Write(2, cert, key)
	var secret string
	nats := natstest.Start(t, func(o *server.Options) {
		o.TLSConfig = &tls.Config{Certificates: []tls.Certificate{must[tls.Certificate](t)(tls.LoadX509KeyPair(cert, key))}, MinVersion: tls.VersionTLS13}
		secret = natsUser(t, o)
	})
	ca.WriteRoot(root)
	if err := os.WriteFile(creds, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	start := func(trust bool) *clusterMember {
		private := freePort(t)
		m := &clusterMember{private: private}
		m.process = startProcess(t, func(cmd *exec.Cmd) {
			if cmd.Env = append(cmd.Env, "CRMESH_CLUSTER=tls://"+nats.Address()); trust {
				cmd.Env = append(cmd.Env, "SSL_CERT_FILE="+root)
			}
		}, "--listen", "127.0.0.1:0", "--stun", "off", "--private", private, "--cluster-creds", creds, "--log-level", "debug")
		return m
	}
	a, b, c := start(true), start(true), start(false)
	for _, m := range []*clusterMember{a, b} {
		poll(t, "they find each other", func() bool { return m.value(t, "cluster_servers") == 1 })
	}
	poll(t, "c says why not", func() bool { return strings.Contains(c.log.String(), "certificate signed by unknown authority") })
	if c.value(t, "cluster_connected") != 0 || c.value(t, "cluster_servers") != 0 {
		t.Error("c is connected")
	}
	for _, m := range []*clusterMember{a, b, c} {
		for line := range strings.SplitSeq(secret, "\n") {
			if len(line) > 30 && !strings.HasPrefix(line, "-") && strings.Contains(m.log.String(), line) {
				t.Errorf("a secret is in the log:\n%s", m.log)
			}
		}
		m.stop()
	}
}
