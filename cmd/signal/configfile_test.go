package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// configFileOf writes a file of settings.
func configFileOf(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "signal.yaml")
	writeConfig(t, path, text)
	return path
}

func writeConfig(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// parsed is serve with args.
func parsed(t *testing.T, args ...string) *serve {
	t.Helper()
	var cli commands
	parser, err := kong.New(&cli, defaults(), kong.DefaultEnvars("CRMESH"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse(args); err != nil {
		t.Fatal(err)
	}
	return &cli.Serve
}

// A flag goes before the environment, that before the file, and that before the default; lists are replaced as a whole.
func TestPrecedence(t *testing.T) {
	path := configFileOf(t, "max-rooms: 3\nmax-members: 30\ngrace: 3s\njoin-token: [file-one, file-two]\nallow-origin: file.example\n")
	t.Setenv("CRMESH_MAX_MEMBERS", "20")
	t.Setenv("CRMESH_MAX_ROOMS", "2")
	t.Setenv("CRMESH_ALLOW_ORIGIN", "environment.example")
	for name, args := range map[string][]string{
		"flag":        {"--config", path, "--max-rooms", "1", "--allow-origin", "flag.example"},
		"environment": {"serve", "--max-rooms", "1", "--allow-origin", "flag.example"},
	} {
		if name == "environment" {
			t.Setenv("CRMESH_CONFIG", path)
		}
		f := parsed(t, args...)
		got := []any{f.MaxRooms, f.MaxMembers, f.Grace.String(), f.MaxConnections, f.JoinTokens, f.AllowOrigin}
		want := []any{1, 20, "3s", 10_000, []string{"file-one", "file-two"}, []string{"flag.example"}}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("--config by %s: %v, want %v", name, got, want)
		}
	}
	// The commands without --config take no notice of its variable.
	t.Setenv("CRMESH_CONFIG", "/nowhere/signal.yaml")
	t.Setenv("CRMESH_JOIN_HMAC_KEY", "0123456789abcdef")
	if err := run(context.Background(), []string{"token"}, io.Discard, io.Discard); err != nil {
		t.Error(err)
	}
}

// Values are what the flags would take them for.
func TestConfigFileValues(t *testing.T) {
	for text, want := range map[string]any{
		"":                                       "127.0.0.1:8787",
		"# nothing\n":                            "127.0.0.1:8787",
		"--- ~\n":                                "127.0.0.1:8787",
		"listen: :443":                           ":443",
		"listen: 'unix:/run/a b.sock' # comment": "unix:/run/a b.sock",
		"socket-mode: 0600":                      "0600",
		"message-rate: 0.5":                      0.5,
		"max-rooms: 7":                           7,
		"log-addresses: yes":                     true,
		"join-token: one":                        []string{"one"},
		"join-token: one,two":                    []string{"one", "two"}, // as in the environment
		"join-token: []":                         []string{},
		"join-token: ['a,b', 12, 0x10]":          []string{"a,b", "12", "0x10"},
		"join-token:\n- one\n- two\n":            []string{"one", "two"},
		"turn-secret: ''":                        "",
		"turn-secret: 007":                       "007",
		"turn-secret: '*x#'":                     "*x#",
		"turn-secret: 2026-01-01":                "2026-01-01",
		"turn-secret: >-\n  a\n  b\n":            "a b",
	} {
		f := parsed(t, "--config", configFileOf(t, text))
		got := any(f.Listen)
		switch name, _, _ := strings.Cut(text, ":"); name {
		case "socket-mode":
			got = f.SocketMode
		case "message-rate":
			got = f.MessageRate
		case "max-rooms":
			got = f.MaxRooms
		case "log-addresses":
			got = f.LogAddresses
		case "join-token":
			got = f.JoinTokens
		case "turn-secret":
			got = f.TURNSecret
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %#v, want %#v", text, got, want)
		}
	}
}

// An error names file, line and setting, says what to do, and quotes no secret.
func TestConfigFileErrors(t *testing.T) {
	for text, want := range map[string]string{
		"a\n":                                    ":1: the file must be lines like 'max-rooms: 500'",
		"- a\n":                                  ":1: the file must be lines",
		"\nmax-roms: 1\n":                        `:2: there is no setting "max-roms"; 'signal serve --help' names all, here without the dashes`,
		"max_rooms: 1\n":                         `:1: there is no setting "max_rooms"; write max-rooms`,
		"--max-rooms: 1\n":                       `:1: there is no setting "--max-rooms"; write max-rooms`,
		"MaxRooms: 1\n":                          `:1: there is no setting "MaxRooms"`,
		"config: a\n":                            `:1: there is no setting "config"`,
		"help: true\n":                           `:1: there is no setting "help"`,
		"max-rooms: 1\ngrace: 1s\nmax-rooms: 2":  ":3: max-rooms is set a second time, after line 1",
		"max-rooms: many\n":                      `:1: max-rooms: expected a valid 64 bit int but got "many"`,
		"max-rooms: 0\n":                         ":1: max-rooms: the limit of rooms must be above zero",
		"max-rooms: [1]\n":                       ":1: max-rooms: it takes one value, no list",
		"max-rooms:\n":                           ":1: max-rooms: it has no value; delete the line",
		"max-rooms:\n  a: 1\n":                   "max-rooms: it must be a value",
		"grace: 15\n":                            `:1: grace: expected duration but got "15"`,
		"log-addresses: perhaps\n":               ":1: log-addresses: bool value must be",
		"log-level: loud\n":                      ":1: log-level: it must be one of debug, info, warn, error",
		"drain: 2m\n":                            ":1: drain: the time to drain is between",
		"public-url: sync.example.org\n":         ":1: public-url: the public address",
		"trusted-proxies: [10.0.0.0/8, host]\n":  ":1: trusted-proxies: the trusted proxy \"host\" is neither",
		"join-token:\n  - {a: b}\n":              ":2: join-token: it must be a value",
		"join-token: [fine-join-token, secret!]": ":1: join-token: join token number 2 cannot be one",
		"join-hmac-key: secret\n":                ":1: join-hmac-key: key number 1 for join tokens has fewer than 16 bytes",
		"turn-secret: *secret\n":                 "a value that begins with * must be in quotes",
		"turn-secret: &secret\n":                 ":1: turn-secret: a value that begins with *, & or ! must be in quotes",
		"turn-secret: !secret\n":                 ":1: turn-secret: a value that begins with *, & or ! must be in quotes",
		"turn-secret: '%secret\n":                "this is not YAML: found unexpected end of stream",
		"turn-secret: secret\n":                  "TURN needs both",
		"max-rooms: 1\n\tgrace: 1s\n":            ":2: this is not YAML",
		"max-rooms: 1\n---\ngrace: 1s\n":         ":2: a second document begins",
	} {
		path := configFileOf(t, text)
		var stdout bytes.Buffer
		args := []string{"--config", path, "--listen", "127.0.0.1:0", "--stun", "off"}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		err := run(ctx, args, &stdout, io.Discard)
		cancel()
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret!") ||
			strings.Contains(strings.ReplaceAll(err.Error(), "secret shared", ""), " secret") || stdout.Len() > 0 {
			t.Errorf("%q: %v; want %s", text, err, want)
		} else if strings.HasPrefix(want, ":") && !strings.Contains(err.Error(), path+want) {
			t.Errorf("%q: the error does not name the file: %v", text, err)
		}
	}
	err := run(context.Background(), []string{"--config", "/nowhere/signal.yaml"}, io.Discard, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "the file of --config cannot be read") || !strings.Contains(err.Error(), "/nowhere/signal.yaml") {
		t.Errorf("no file: %v", err)
	}
}

// The example is good, and all of it has an effect.
func TestExampleConfigFile(t *testing.T) {
	const path = "../../examples/systemd/signal.yaml"
	f := parsed(t, "--config", path)
	if len(f.file.settings) < 10 {
		t.Errorf("it has %d settings", len(f.file.settings))
	}
	for name := range f.file.settings {
		if f.origin(name) == "" {
			t.Errorf("%s has no effect", name)
		}
	}
	if _, err := f.config(slog.New(slog.DiscardHandler), 0); err != nil {
		t.Error(err)
	}
}

// What the service of systemd may use is enough for what the server may take, with the file beside it and without.
func TestExampleService(t *testing.T) {
	unit, err := os.ReadFile("../../examples/systemd/crmesh-signal.service")
	if err != nil {
		t.Fatal(err)
	}
	limit := func(pattern string) uint64 {
		t.Helper()
		found := regexp.MustCompile(pattern).FindSubmatch(unit)
		if found == nil {
			t.Fatalf("the service has no %s", pattern)
		}
		n, err := strconv.ParseUint(string(found[1]), 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	may := machine{memory: limit(`(?m)^MemoryMax=(\d+)G$`) << 30, files: limit(`(?m)^LimitNOFILE=(\d+)$`)}
	for _, args := range [][]string{{}, {"--config", "../../examples/systemd/signal.yaml"}} {
		c := &check{*parsed(t, args...)}
		found := &findings{}
		if c.judgeLimits(found, may); len(found.errors)+len(found.warnings) > 0 {
			t.Errorf("%q: %q %q", args, found.errors, found.warnings)
		}
	}
}

// check shows from which line a value is, and what goes before the file.
func TestCheckConfigFile(t *testing.T) {
	t.Setenv("CRMESH_MAX_MEMBERS", "20")
	path := configFileOf(t, "max-rooms: 3\nmax-members: 30\n\njoin-token: the-secret-token-of-joins\ngrace: 3s\n")
	args := []string{"check", "--config", path, "--trusted-proxies", "127.0.0.1", "--grace", "4s"}
	var out bytes.Buffer
	if err := run(context.Background(), args, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	for i := range lines {
		lines[i] = strings.Join(strings.Fields(lines[i]), " ")
	}
	said := "\n" + strings.Join(lines, "\n")
	for _, want := range []string{"max-rooms 3 (" + path + ":1)", "max-members 20 (environment)", "join-token (1 secret) (" + path + ":4)",
		"grace 4s (command line)", "max-connections 10000 (default)", "config " + path + " (command line)"} {
		if !strings.Contains(said, "\n"+want+"\n") {
			t.Errorf("it does not say %q:\n%s", want, out.String())
		}
	}
	if strings.Contains(said, "the-secret") || strings.Contains(said, "can read it") {
		t.Errorf("it shows a secret, or complains about where it is:\n%s", out.String())
	}
	writeConfig(t, path, "max-rooms: 0\ndrain: 2m\n")
	out.Reset()
	err := run(context.Background(), args, &out, io.Discard)
	for _, want := range []string{"error: " + path + ":1: max-rooms: the limit", "error: " + path + ":2: drain: the time"} {
		if err == nil || !strings.Contains(out.String(), want) {
			t.Errorf("%v, and it does not say %q:\n%s", err, want, out.String())
		}
	}
	writeConfig(t, path, "join-token: the-secret-token-of-joins\n")
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	out.Reset()
	if err := run(context.Background(), args, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	if want := "warning: " + path + " holds join-token, and every user of this machine can read it"; !strings.Contains(out.String(), want) {
		t.Errorf("it does not say %q:\n%s", want, out.String())
	}
}
