//go:build unix

package main

import (
	"crypto/rand"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"github.com/crmesh/crmesh/pkg/signaling"
	"github.com/crmesh/crmesh/pkg/signaling/signalclient"
	"github.com/crmesh/crmesh/pkg/signaling/signaltest"
)

// first returns the first event of a client that comes with a join token.
func first(t *testing.T, url, token string) (*signalclient.Client, signalclient.Event) {
	t.Helper()
	keys, err := signaling.NewRoom(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return (&running{url: url}).client(t, keys, token)
}

// admits tells whether such a client is let in.
func admits(t *testing.T, url, token string) bool {
	t.Helper()
	c, e := first(t, url, token)
	defer c.Close()
	switch e := e.(type) {
	case signalclient.Joined:
		return true
	case signalclient.Disconnected:
		if e.Err != nil && strings.HasPrefix(e.Err.Error(), "not-admitted: ") {
			return false
		}
	}
	t.Fatalf("the first event is %+v", e)
	return false
}

// SIGHUP changes what can change while the server runs, names what cannot, and leaves all as it is when the file is bad; who is
// connected stays so, and the log has the names of what has changed, never the values.
func TestReloadConfig(t *testing.T) {
	const one, two, three = "the-first-join-token", "the-second-join-token", "the-third-join-token"
	path := configFileOf(t, "listen: 127.0.0.1:0\nstun: off\njoin-token: "+one+"\nmax-rooms: 100\n")
	p := startProcess(t, nil, "--config", path, "--max-members", "7")
	seen := 0 // of the log
	hup := func(text, want string) string {
		t.Helper()
		writeConfig(t, path, text)
		p.signal(syscall.SIGHUP)
		poll(t, want, func() bool { return strings.Contains(p.log.String()[seen:], want) })
		said := p.log.String()[seen:]
		seen += len(said)
		return said
	}
	held, e := first(t, p.url, one)
	if _, ok := e.(signalclient.Joined); !ok {
		t.Fatalf("the first event is %+v", e)
	}

	const second = "listen: 127.0.0.1:0\nstun: off\njoin-token: " + two + "\nmax-rooms: 1\n"
	hup(second, `msg="the configuration was read again" file=`+path+` changed="join-token, max-rooms"`)
	if admits(t, p.url, one) {
		t.Error("the old token still admits")
	}
	_, e = first(t, p.url, two) // the room of held is the one that there may be
	if lost, ok := e.(signalclient.Disconnected); !ok || !strings.HasPrefix(lost.Err.Error(), "server-full: ") {
		t.Errorf("with the new token, above the new limit of rooms: %+v", e)
	}

	for bad, want := range map[string]string{
		"join-token: " + three + "\nmax-rooms: 0\n":           path + ":2: max-rooms: the limit of rooms must be above zero",
		"join-token: " + three + "\nmax-roms: 5\n":            path + `:2: there is no setting \"max-roms\"`,
		"join-token: " + three + "\ndrain: 5m\n":              path + ":2: drain: the time to drain is between",
		"join-token: " + three + "\nturn-url: ['" + three:     "this is not YAML",
		"join-token: " + three + "\njoin-hmac-key: *" + three: "a value that begins with * must be in quotes",
	} {
		said := hup(bad, want)
		if !strings.Contains(said, `level=ERROR msg="the configuration stays the old one" error=`) {
			t.Errorf("%q: the log says %s", bad, said)
		}
	}
	if admits(t, p.url, three) {
		t.Error("a bad file was taken")
	}
	hup(second, "changed=nothing")

	// What cannot change is named, all else of the same file holds. The flag goes before the file, as at the start.
	said := hup("listen: 127.0.0.1:1\nstun: :3478\nprivate: :9090\njoin-token: "+three+"\nmax-members: 9\nlog-level: debug\ndrain: 1s\n",
		`msg="some changes need a restart; until then these settings stay" settings="listen, stun, private"`)
	if want := `changed="join-token, max-rooms, drain, log-level"`; !strings.Contains(said, want) {
		t.Errorf("it does not say %s: %s", want, said)
	}
	if !admits(t, p.url, three) || admits(t, p.url, two) {
		t.Error("beside a change that needs a restart, the tokens did not change")
	}
	poll(t, "lines of the new level", func() bool { return strings.Contains(p.log.String()[seen:], "level=DEBUG") })
	// It is said again as long as it is so, and not after it has been put back.
	hup("join-token: "+three+"\nlisten: 127.0.0.1:1\nstun: off\n", `settings=listen`)
	if said := hup(second, "was read again"); strings.Contains(said, "restart") {
		t.Errorf("it wants a restart for nothing: %s", said)
	}

	select {
	case e := <-held.Events():
		t.Errorf("who was connected before got %+v", e)
	default:
	}
	hup(second+"drain: 2s\n", "changed=drain")
	p.stop()
	if !strings.Contains(p.log.String(), "msg=draining connections=1 within=2s") {
		t.Error("it did not drain as the file said last")
	}
	for _, never := range []string{one, two, three} {
		if strings.Contains(p.log.String(), never) {
			t.Errorf("the log has the token %s:\n%s", never, p.log)
		}
	}
}

// Without --config there is nothing to read, and SIGHUP ends nobody.
func TestReloadWithoutFile(t *testing.T) {
	p := startProcess(t, nil, "--listen", "127.0.0.1:0", "--stun", "off")
	p.signal(syscall.SIGHUP)
	poll(t, "a word", func() bool { return strings.Contains(p.log.String(), "there is no file to read again") })
	p.stop()
}

// Each flag either needs a restart, and then changes nothing that is given to the running server, or does change it.
func TestEachFlagReloads(t *testing.T) {
	values := map[string]string{
		"public-url": "https://a.example/", "public-host": "a.example", "allow-origin": "a.example", "trusted-proxies": "10.0.0.0/8",
		"turn-url": "turn:b.example", "turn-secret": "another secret", "turn-ttl": "2h", "join-token": "token", "join-hmac-key": "0123456789abcdef",
		"message-rate": "7", "send-queue-bytes": "2000000", "max-queued-bytes": "300000000", "join-timeout": "7s", "idle-timeout": "7s", "grace": "7s", "log-addresses": "true",
		"join-rate": "7", "drain": "7s", "request-timeout": "7s", "log-level": "debug",
		"config": "x", "listen": "x", "socket-mode": "1", "stun": "x", "reuse-port": "true", "tls-cert": "x", "tls-key": "x", "domain": "x",
		"acme-cache": "x", "acme-email": "x", "acme-directory": "x", "private": "x", "cluster": "nats://a.example", "cluster-creds": "x", "log-format": "json",
	}
	config := func(extra ...string) (*serve, any) {
		f := parsed(t, append([]string{"--turn-url", "turn:a.example", "--turn-secret", "a secret"}, extra...)...)
		cfg, err := f.config(slog.New(slog.DiscardHandler), 0)
		if err != nil {
			t.Fatalf("%q: %v", extra, err)
		}
		cfg.Logger, cfg.Page = nil, nil
		return f, cfg
	}
	operating, err := os.ReadFile("../../docs/OPERATING.md")
	if err != nil {
		t.Fatal(err)
	}
	_, sighup, _ := strings.Cut(string(operating), "**What needs a restart**")
	sighup, _, _ = strings.Cut(sighup, "\n\n")
	was, base := config()
	for _, flag := range was.flags {
		if flag.Name == "help" {
			continue
		}
		value, ok := values[flag.Name]
		if !ok {
			value = "77" // a limit
		}
		arg := "--" + flag.Name + "=" + value
		if flag.Name == "config" {
			arg = "--config=" + configFileOf(t, "")
		}
		is, cfg := config(arg)
		live, restart := differences(was.flags, is.flags)
		if names := append(live, restart...); !reflect.DeepEqual(names, []string{flag.Name}) {
			t.Errorf("%s: the differences are %q", arg, names)
		}
		if named := strings.Contains(sighup, "`"+flag.Name+"`"); named != (len(restart) > 0) {
			t.Errorf("%s needs a restart: %v; docs/OPERATING.md says so: %v", flag.Name, len(restart) > 0, named)
		}
		ofRun := flag.Name == "drain" || flag.Name == "log-level" // which serve.Run itself goes by
		if changes := !reflect.DeepEqual(base, cfg); changes != (len(live) > 0 && !ofRun) {
			t.Errorf("%s: changes the server: %v, marked as one that needs a restart: %v", arg, changes, len(restart) > 0)
		}
	}
}

// A signal that comes while the server is still about to start is taken when it has started, and does not end it. A file
// that opens the server to everybody, be it because it was cut short, is warned of.
func TestReloadWhileStarting(t *testing.T) {
	nats, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = nats.Close() }()
	path := configFileOf(t, "join-token: 0123456789abcdef\n")
	log := &signaltest.Log{}
	cmd := exec.Command(os.Args[0], "--config", path, "--listen", "127.0.0.1:0", "--stun", "off", "--cluster", "nats://"+nats.Addr().String())
	cmd.Env = append(os.Environ(), asProgram+"=1")
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	waits, err := nats.Accept() // it waits for NATS to say something now
	if err != nil {
		t.Fatal(err)
	}
	writeConfig(t, path, "")
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	_ = waits.Close()
	poll(t, "the file is read again", func() bool {
		return strings.Contains(log.String(), "everybody may join now") && strings.Contains(log.String(), "changed=join-token")
	})
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v:\n%s", err, log)
	}
}
