package main

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/crmesh/crmesh/pkg/mesh"
	"github.com/crmesh/crmesh/pkg/signaling"
	"github.com/crmesh/crmesh/pkg/signaling/signaltest"
)

const turnSecret = "the secret of the TURN server"

// coturn is a real TURN server on loopback.
type coturn struct {
	*process
	port int
}

// startCoturn runs Debian's coturn with the configuration that the documentation gives to operators, as far as loopback allows.
// more changes it further: what stands there, and what is to.
func startCoturn(t *testing.T, port int, more ...[2]string) *coturn {
	t.Helper()
	path, err := exec.LookPath("turnserver")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%v: install coturn", err)
		}
		t.Skipf("%v: install coturn to run this test", err)
	}
	example, err := os.ReadFile("../../examples/coturn/turnserver.conf")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := string(example)
	for _, change := range append(more,
		[2]string{"listening-port=3478", fmt.Sprint("listening-port=", port)},
		[2]string{"static-auth-secret=CHANGE-ME", "static-auth-secret=" + turnSecret},
		[2]string{"denied-peer-ip=127.0.0.0-127.255.255.255\n", ""},
	) {
		if !strings.Contains(config, change[0]) {
			t.Fatalf("the example lacks %q", change[0])
		}
		config = strings.Replace(config, change[0], change[1], 1)
	}
	config += "listening-ip=127.0.0.1\nrelay-ip=127.0.0.1\nallow-loopback-peers\nverbose\nlog-file=stdout\nsimple-log\n" +
		"pidfile=" + filepath.Join(dir, "pid") + "\nuserdb=" + filepath.Join(dir, "db") + "\n"
	file := filepath.Join(dir, "turnserver.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	c := &coturn{launchCommand(t, "turnserver", exec.Command(path, "-c", file)), port}
	eventually(t, "the TURN server answers", func() bool {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		return err == nil && conn.Close() == nil
	})
	if out := c.out.String(); strings.Contains(out, "Bad configuration") || strings.Contains(out, "Unknown") {
		t.Fatalf("coturn does not understand the example:\n%s", out)
	}
	return c
}

var (
	allocated = regexp.MustCompile(`user <(\d+):([^>]+)>: incoming packet ALLOCATE processed, success`)
	usage     = regexp.MustCompile(`usage: realm=<[^>]*>, username=<([^>]*)>, rp=\d+, rb=(\d+), sp=\d+, sb=(\d+)`)
)

// expiries lists when the credentials end that a member got relays with, in order.
func (c *coturn) expiries(peer string) (out []time.Time) {
	for _, m := range allocated.FindAllStringSubmatch(c.out.String(), -1) {
		if seconds, err := strconv.ParseInt(m[1], 10, 64); err == nil && m[2] == peer {
			out = append(out, time.Unix(seconds, 0))
		}
	}
	return out
}

// relayed returns how many bytes came from members, and went to them, in relays that it has counted.
func (c *coturn) relayed() (in, out int) {
	for _, m := range usage.FindAllStringSubmatch(c.out.String(), -1) {
		i, _ := strconv.Atoi(m[2])
		o, _ := strconv.Atoi(m[3])
		in, out = in+i, out+o
	}
	return in, out
}

// turnLab is a room whose signaling server hands out credentials for the TURN server at a port.
func turnLab(t *testing.T, port int, secret string, args ...string) *lab {
	l := newLab(t)
	l.signal(append([]string{"--turn-url", fmt.Sprintf("turn:127.0.0.1:%d", port), "--turn-secret", secret}, args...)...)
	return l
}

// path is what the link to the only other member goes over.
func (r *replica) path() mesh.PathStatus {
	r.t.Helper()
	s := r.status()
	if len(s.Members) != 1 || s.Members[0].Path == nil {
		r.t.Fatalf("there is no one path: %+v", s.Members)
	}
	return *s.Members[0].Path
}

// TestTURN: links that are forced over a real coturn.
func TestTURN(t *testing.T) {
	for _, transport := range []string{"udp", "tcp"} {
		t.Run("both sides relay, over "+transport, func(t *testing.T) {
			server := startCoturn(t, freePort(t))
			l := newLab(t)
			l.signal("--turn-url", fmt.Sprintf("turn:127.0.0.1:%d?transport=%s", server.port, transport), "--turn-secret", turnSecret)
			schema := l.file("notes.sql", notes)
			a := l.peer("a", l.write, "--relay-only", "--schema", schema)
			b := l.peer("b", l.write, "--relay-only")
			a.synced(1)
			b.synced(1)
			const size = 300_000
			a.exec("INSERT INTO note VALUES (1, ?, 1)", strings.Repeat("a", size))
			b.exec("INSERT INTO note VALUES (2, ?, 2)", strings.Repeat("b", size))
			if got, want := equal(t, "SELECT id, length(body) FROM note ORDER BY id", a, b), fmt.Sprintf("1 %d\n2 %d", size, size); got != want {
				t.Errorf("the peers have %q, want %q", got, want)
			}
			for _, r := range []*replica{a, b} {
				if p := r.path(); p.Local != "relay" {
					t.Errorf("the path is %+v", p)
				}
				if server.expiries(r.status().Peer) == nil {
					t.Error("coturn does not know of a relay")
				}
			}
			a.stop()
			b.stop()
			// Each side's relay takes what its member sends, and hands it what comes.
			eventually(t, "coturn has counted what both have sent", func() bool {
				in, out := server.relayed()
				return in > 2*size && out > 2*size
			})
		})
	}
	t.Run("one side relays", func(t *testing.T) {
		server := startCoturn(t, freePort(t))
		l := turnLab(t, server.port, turnSecret)
		a := l.peer("a", l.write, "--relay-only", "--schema", l.file("notes.sql", notes))
		b := l.peer("b", l.write)
		a.synced(1)
		b.exec("INSERT INTO note VALUES (1, 'from b', 1)")
		equal(t, "SELECT * FROM note", a, b)
		if p := a.path(); p.Local != "relay" {
			t.Errorf("the path is %+v", p)
		}
		found, err := l.try("doctor", l.read, "--relay-only")
		if !strings.Contains(found, fmt.Sprintf("turn:127.0.0.1:%d gives the relay 127.0.0.1:", server.port)) || !strings.Contains(found, `works; it is a writer`) {
			t.Errorf("the doctor says (%v):\n%s", err, found)
		}
	})
	t.Run("over TLS", overTLS)
	t.Run("another secret", func(t *testing.T) {
		server := startCoturn(t, freePort(t))
		l := turnLab(t, server.port, turnSecret+", but another one")
		a := l.peer("a", l.write, "--relay-only", "--schema", l.file("notes.sql", notes))
		b := l.peer("b", l.write, "--relay-only")
		for _, r := range []*replica{a, b} {
			eventually(t, "the status says it", func() bool {
				s := r.status()
				return len(s.Members) == 1 && s.Members[0].Error == mesh.ErrNoRelay.Error()
			})
		}
		found, err := l.try("doctor", l.read, "--relay-only")
		for _, want := range []string{"gives no relay", "401", "--turn-secret", "gather (TURN)"} {
			if err == nil || !strings.Contains(found, want) {
				t.Errorf("the doctor does not say %q (%v):\n%s", want, err, found)
			}
		}
	})
	t.Run("credentials that end", expiringCredentials)
}

// overTLS: the machine trusts the authority of the certificate, as Go has it from SSL_CERT_FILE, or does not.
func overTLS(t *testing.T) {
	ca := signaltest.NewAuthority(t)
	dir := t.TempDir()
	root, cert, key := filepath.Join(dir, "root.pem"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	ca.WriteRoot(root)
	ca.Write(2, cert, key)
	port := freePort(t)
	server := startCoturn(t, freePort(t), [2]string{"no-tls\n", fmt.Sprintf("tls-listening-port=%d\ncert=%s\npkey=%s\n", port, cert, key)})
	l := newLab(t)
	url := fmt.Sprintf("turns:localhost:%d", port)
	l.signal("--turn-url", url, "--turn-secret", turnSecret)
	t.Setenv("SSL_CERT_FILE", "")
	found, err := l.try("doctor", l.read, "--relay-only")
	for _, want := range []string{url + " gives no relay", "certificate signed by unknown authority", "an authority that this machine trusts"} {
		if err == nil || !strings.Contains(found, want) {
			t.Errorf("without trust the doctor does not say %q (%v):\n%s", want, err, found)
		}
	}
	t.Setenv("SSL_CERT_FILE", root)
	a := l.peer("a", l.write, "--relay-only", "--schema", l.file("notes.sql", notes))
	b := l.peer("b", l.write, "--relay-only")
	a.synced(1)
	const size = 300_000
	b.exec("INSERT INTO note VALUES (1, ?, 1)", strings.Repeat("b", size))
	equal(t, "SELECT * FROM note", a, b)
	if p := a.path(); p.Local != "relay" {
		t.Errorf("the path is %+v", p)
	}
	found, err = l.try("doctor", l.read, "--relay-only")
	if !strings.Contains(found, url+" gives the relay 127.0.0.1:") || !strings.Contains(found, `works; it is a writer`) {
		t.Errorf("the doctor says (%v):\n%s", err, found)
	}
	a.stop()
	b.stop()
	eventually(t, "coturn has counted what b sent", func() bool {
		in, _ := server.relayed()
		return in > size
	})
	if out := server.out.String(); strings.Count(out, "method=TLSv1") == 0 || strings.Contains(out, "method=TCP") || strings.Contains(out, "method=UDP") {
		t.Error("not all was over TLS")
	}
}

func expiringCredentials(t *testing.T) {
	server := startCoturn(t, freePort(t))
	l := turnLab(t, server.port, turnSecret, "--turn-ttl", "4s")
	a := l.peer("a", l.write, "--relay-only", "--schema", l.file("notes.sql", notes))
	b := l.peer("b", l.write, "--relay-only")
	a.synced(1)
	id := a.status().Peer
	first := server.expiries(id)[0]
	over := func() {
		t.Helper()
		eventually(t, "the first credentials are over", func() bool { return time.Now().After(first.Add(time.Second)) })
	}
	over()
	user := fmt.Sprintf("%d:%s", first.Unix(), id)
	mac := hmac.New(sha1.New, []byte(turnSecret))
	mac.Write([]byte(user))
	password := base64.StdEncoding.EncodeToString(mac.Sum(nil))
	found, _ := l.try("doctor", "--ice-server", fmt.Sprintf("turn:%s:%s@127.0.0.1:%d", strings.Replace(user, ":", "%3A", 1), password, server.port))
	if !strings.Contains(found, "401") {
		t.Fatalf("coturn takes credentials that are over, so that this test shows nothing:\n%s", found)
	}
	// The relays are gone, and the same link goes on over new ones.
	server.kill()
	server = startCoturn(t, server.port)
	a.exec("INSERT INTO note VALUES (1, 'from a', 1)")
	equal(t, "SELECT * FROM note", a, b)
	if log := a.out.String() + b.out.String(); strings.Contains(log, "no link") || !strings.Contains(log, "restarting ICE") {
		t.Error("it was not an ICE restart that brought the link back")
	}
	// A new link takes new ones, too.
	b.stop()
	b = l.peer("b", l.write, "--relay-only")
	b.exec("INSERT INTO note VALUES (2, 'from b', 2)")
	equal(t, "SELECT * FROM note", a, b)
	for _, e := range server.expiries(id) {
		if !e.After(first) {
			t.Error("coturn gave a relay for the first credentials")
		}
	}
	if len(server.expiries(id)) == 0 {
		t.Error("coturn gave no relay")
	}
}

// TestDoctorTURN: what a TURN server gives no relay for, where none answers as one. TestTURN has those that do.
func TestDoctorTURN(t *testing.T) {
	t.Parallel()
	c := newClinic(t)
	mute, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mute.Close() }()
	at := func(address string) func(*doctor) {
		return func(d *doctor) {
			d.servers = []signaling.ICEServer{{URLs: []string{address}, Username: "u", Credential: "p"}}
			d.gatherTimeout = 500 * time.Millisecond
		}
	}
	closed := fmt.Sprint("127.0.0.1:", freePort(t))
	short := func(d *doctor) { d.stunTimeout = 300 * time.Millisecond }
	c.fault(c.examine("turn", at("turn:"+mute.LocalAddr().String()), short), "no answer within")
	c.fault(c.examine("turn", at("turn:"+closed+"?transport=tcp")), "refused")
	c.fault(c.examine("turn", at("turns:"+strings.TrimPrefix(c.url, "http://"))), "tls:")
	c.fault(c.examine("turn", func(d *doctor) { d.relayOnly = true }), "there is no TURN server")
	if f := c.examine("turn"); f != (finding{}) {
		t.Errorf("without a TURN server nothing is to be said, got %+v", f)
	}
}
