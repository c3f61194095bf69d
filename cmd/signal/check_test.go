package main

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"github.com/crmesh/crmesh/cmd/internal/program"
)

func output(w io.Writer) program.Output { return program.Output{Stdout: w, Stderr: w} }

// Each thing that is wrong or unsafe is said, as what it is; a sane configuration gets no word.
func TestCheckJudges(t *testing.T) {
	const sane = "--listen 127.0.0.1:0 --trusted-proxies 127.0.0.1 "
	ample := machine{memory: 64 << 30, files: 1 << 20}
	for _, c := range []struct {
		args    string
		machine machine
		err     bool
		want    string // "": nothing is wrong
	}{
		{sane, ample, false, ""},
		{sane, machine{}, false, ""}, // nothing is known about the machine
		{"--listen 127.0.0.1:0", ample, false, "only this machine can connect"},
		{"--listen 0.0.0.0:80", ample, false, "neither TLS nor a --trusted-proxies"},
		{"--listen 0.0.0.0:80 --trusted-proxies 10.0.0.0/8", ample, false, ""},
		{"--listen unix:/run/signal.sock", ample, false, ""},
		{"--listen unix:/run/signal.sock --socket-mode 0666", ample, false, "every user of this machine can connect"},
		{"--listen unix:/run/signal.sock --socket-mode 99", ample, true, "is not a mode like 0660"},
		{"--listen unix:", ample, true, "names no file"},
		{"--listen unix:check.go", ample, true, "is there and is no socket"},
		{"--listen :", ample, true, "--listen \":\" names no port"},
		{sane + "--private :", ample, true, "--private \":\" names no port"},
		{sane + "--stun=", ample, true, "--stun \"\" names no port"},
		{"--listen 0.0.0.0:443 --domain a.example --acme-cache check.go", ample, true, "--acme-cache check.go is no directory"},
		{"--listen systemd --stun systemd", ample, false, ""},
		{"--listen 0.0.0.0:443 --domain a.example --acme-cache /nowhere", ample, false, ""},
		{"--listen 0.0.0.0:443 --domain a.example", ample, true, "--acme-cache"},
		{"--listen 0.0.0.0:8443 --domain a.example --acme-cache /nowhere", ample, false, "at port 443 of the name"},
		{"--listen 0.0.0.0:443 --domain a.example --tls-cert /nowhere/cert.pem", ample, true, "choose between"},
		{"--listen 0.0.0.0:443 --acme-cache /nowhere --domain https://a.example", ample, true, "is not a host name like"},
		{"--listen 0.0.0.0:443 --acme-cache /nowhere --domain *.a.example", ample, true, "is not a host name like"},
		{"--listen 0.0.0.0:443 --acme-cache /nowhere --domain a.example,192.0.2.1", ample, true, "is not a host name like"},
		{"--listen 0.0.0.0:443 --acme-cache /nowhere --domain a.example:443", ample, true, "is not a host name like"},
		{"--listen 0.0.0.0:443 --acme-cache /nowhere --domain a.example --acme-directory nonsense", ample, true, "--acme-directory \"nonsense\" is not like https://"},
		{sane + "--acme-directory https://ca.example/", ample, true, "go with --domain"},
		{sane + "--public-url http://sync.example.org/", ample, false, "is not https"},
		{sane + "--public-url http://localhost:8787/", ample, false, ""},
		{sane + "--public-url http://[::1]:8787/", ample, false, ""},
		{sane + "--public-url https://sync.example.org/", ample, false, ""},
		{sane + "--log-addresses", ample, false, "whoever reads the log"},
		{sane + "--tls-cert /nowhere/cert.pem", ample, true, "TLS needs both"},
		{sane + "--tls-cert /nowhere/cert.pem --tls-key /nowhere/key.pem", ample, true, "the certificate cannot be used"},
		{sane + "--drain 2m", ample, true, "the time to drain is between"},
		{"--listen nonsense", ample, true, "--listen nonsense is not host:port"},
		{sane + "--stun nonsense", ample, true, "--stun nonsense is neither off nor"},
		{sane + "--private nonsense", ample, true, "--private nonsense is not"},
		{sane + "--private 127.0.0.1:9090", ample, false, ""},
		{sane + "--private 0.0.0.0:9090", ample, false, "has no password"},
		{sane + "--trusted-proxies 0.0.0.0/0", ample, false, "trusts everybody"},
		{sane + "--trusted-proxies ::ffff:0.0.0.0/96", ample, false, "trusts everybody"},
		{sane + "--trusted-proxies nonsense", ample, true, "neither an address nor a network"},
		{sane + "--allow-origin *", ample, false, "every page on the web"},
		{sane + "--allow-origin https://a.example", ample, false, ""},
		{sane + "--stun off", ample, false, "neither STUN nor TURN"},
		{sane + "--stun off --turn-url turn:h --turn-secret 0123456789abcdef", ample, false, ""},
		{sane + "--turn-url turn:h", ample, true, "TURN needs both"},
		{sane + "--turn-url turn:h --turn-secret short", ample, false, "can be guessed from one credential"},
		{sane + "--turn-url turn:h --turn-secret 0123456789abcdef --turn-ttl 240h", ample, false, "take"},
		{sane + "--turn-url turn:h --turn-secret 0123456789abcdef --turn-ttl 10s", ample, false, "join again"},
		{sane + "--join-token short", ample, false, "can be guessed"},
		{sane + "--join-token 0123456789abcdef", ample, false, ""},
		{sane + "--join-hmac-key short", ample, true, "fewer than 16 bytes"},
		{sane + "--join-token=", ample, true, "would let everybody in"},
		{sane + "--join-hmac-key=", ample, true, "would let everybody in"},
		{sane + "--cluster nats://user:password@127.0.0.1:4222,tls://user:password@nats.example", ample, false, ""},
		{sane + "--cluster nats://user:password@203.0.113.1:4222", ample, false, "in no private network"},
		{sane + "--cluster nats://10.0.0.1:4222", ample, false, "has no user"},
		{sane + "--cluster nats.example:4222", ample, true, "is not like nats://host:4222"},
		{sane + "--cluster nats://u:p@h --cluster-creds /nowhere", ample, true, "credentials for NATS cannot be read"},
		{sane + "--cluster-creds /nowhere", ample, true, "of no use without --cluster"},
		{sane + "--idle-timeout 5s", ample, false, "--idle-timeout 5s: a client on a slow network"},
		{sane + "--grace 1s", ample, false, "--grace 1s: a client"},
		{sane + "--join-timeout 100ms", ample, false, "--join-timeout 100ms: a client"},
		{sane + "--request-timeout 1s", ample, false, "--request-timeout 1s: a client"},
		{sane + "--idle-timeout 10s --grace 3s --join-timeout 2s --request-timeout 2s", ample, false, ""},
		{sane + "--max-rooms 0", ample, true, "the limit of rooms must be above zero"},
		{sane, machine{memory: 64 << 30, files: 1024}, false, "needs as many open files, and the limit of this process is 1024"},
		{sane, machine{memory: 256 << 20, files: 1 << 20}, false, "--max-queued-bytes 268435456, --max-sockets"},
		{sane + "--max-sockets 9000000000000000000", machine{memory: 64 << 30}, false, "take 823974609375004.4 GiB"}, // more than 64 bits count
		{sane + "--max-rooms 9000000000000000000", machine{memory: 64 << 30}, false, "lower one of them"},
		{sane + "--max-connections 1000000", machine{memory: 1 << 30, files: 1 << 30}, true, "takes about"},
	} {
		var cli commands
		parser, err := kong.New(&cli, defaults())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parser.Parse(append([]string{"check"}, strings.Fields(c.args)...)); err != nil {
			t.Fatal(err)
		}
		found := cli.Check.judge(c.machine)
		said, silent := found.warnings, found.errors
		if c.err {
			said, silent = silent, said
		}
		switch {
		case c.want == "" && len(said)+len(silent) > 0:
			t.Errorf("%s: %q, %q; want nothing", c.args, said, silent)
		case c.want != "" && (len(said) != 1 || len(silent) > 0 || !strings.Contains(said[0], c.want)):
			t.Errorf("%s: warnings %q, errors %q; want %s", c.args, found.warnings, found.errors, c.want)
		}
	}
}

// The command shows where each value is from and no secret, and fails when the server would.
func TestCheckCommand(t *testing.T) {
	t.Setenv("CRMESH_MAX_ROOMS", "77")
	t.Setenv("CRMESH_TURN_SECRET", "the secret of the TURN server")
	var out bytes.Buffer
	args := strings.Fields("check --trusted-proxies 127.0.0.1 --turn-url turn:h --join-token the-secret-token-of-joins --cluster nats://user:the-secret-of-nats@10.0.0.1:4222")
	if err := run(context.Background(), args, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	for _, want := range []string{"max-rooms 77 (environment)", "turn-secret (secret) (environment)", "join-token (1 secret) (command line)",
		"grace 15s (default)", "cluster nats://10.0.0.1:4222 (command line)",
		"warning: --cluster stands on the command line, where other users of the machine can read it: set CRMESH_CLUSTER instead", "warning: --join-token stands on the command line, where other users of the machine can read it: set CRMESH_JOIN_TOKEN instead"} {
		found := false
		for _, line := range lines {
			found = found || strings.Join(strings.Fields(line), " ") == want
		}
		if !found {
			t.Errorf("it does not say %q:\n%s", want, out.String())
		}
	}
	for _, never := range []string{"the secret of", "the-secret"} {
		if strings.Contains(out.String(), never) {
			t.Errorf("it shows a secret:\n%s", out.String())
		}
	}
	t.Setenv("CRMESH_MAX_ROOMS", "-1")
	out.Reset()
	err := run(context.Background(), args, &out, io.Discard)
	if err == nil || !strings.Contains(out.String(), "error: the limit of rooms must be above zero") {
		t.Errorf("%v:\n%s", err, out.String())
	}
}

// A variable for who may come that is there and empty keeps the server from starting.
func TestEmptyVariable(t *testing.T) {
	for _, name := range []string{"CRMESH_JOIN_TOKEN", "CRMESH_JOIN_HMAC_KEY"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, "")
			for _, args := range []string{"serve --listen 127.0.0.1:0 --stun off", "check --listen 127.0.0.1:0"} {
				ctx, cancel := context.WithCancel(t.Context())
				cancel() // a server that starts ends at once
				var out bytes.Buffer
				err := run(ctx, strings.Fields(args), &out, io.Discard)
				if err == nil || !strings.Contains(err.Error()+out.String(), name+" or --") {
					t.Errorf("%s: %v, and said %q", args, err, out.String())
				}
			}
		})
	}
}

// A variable whose name is wrong would leave a server open that was meant to ask for a token.
func TestUnknownVariable(t *testing.T) {
	t.Setenv("CRMESH_JOIN_TOKENS", "0123456789abcdef")
	t.Setenv("CRMESH_EXPIRES", "1h") // of signal token
	t.Setenv("CRMESH_MAX_ROOMS", "7")
	for _, args := range []string{"check --listen 127.0.0.1:0", "serve --listen 127.0.0.1:0 --stun off"} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // a server that starts ends at once
		var said bytes.Buffer
		if err := run(ctx, strings.Fields(args), &said, &said); err != nil {
			t.Errorf("%s: %v", args, err)
		}
		text := said.String()
		if !strings.Contains(text, "CRMESH_JOIN_TOKENS") || !strings.Contains(text, "no effect") {
			t.Errorf("%s does not name it:\n%s", args, text)
		}
		for _, never := range []string{"CRMESH_EXPIRES", "CRMESH_MAX_ROOMS", "0123456789abcdef"} {
			if strings.Contains(text, never) {
				t.Errorf("%s names %s:\n%s", args, never, text)
			}
		}
	}
}

func TestTokenCommandFailures(t *testing.T) {
	for args, want := range map[string]string{
		"token":                                 "--key",
		"token --key short":                     "16 bytes or more",
		"token --key=":                          "the key is empty",
		"token --key 0123456789abcdef --room x": "neither a room id of 22 characters nor a link",
		"token --key 0123456789abcdef --room=":  "neither a room id of 22 characters nor a link",
		"token --key 0123456789abcdef --room AAAAAAAAAAAAAAAAAAAAAA": "the id of no room",
		"token --key 0123456789abcdef --expires 1ms":                 "a second or more",
		"token --key 0123456789abcdef --expires nonsense":            "expires",
	} {
		var out bytes.Buffer
		err := run(context.Background(), strings.Fields(args), &out, io.Discard)
		if err == nil || !strings.Contains(err.Error(), want) || out.Len() > 0 {
			t.Errorf("%s: %v, and said %q", args, err, out.String())
		}
	}
}
