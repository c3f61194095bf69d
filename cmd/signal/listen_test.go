//go:build unix

package main

import (
	"context"
	"crypto/rand"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crmesh/crmesh/pkg/signaling"
	"github.com/crmesh/crmesh/pkg/signaling/signalclient"
	"github.com/crmesh/crmesh/pkg/signaling/signaltest"
)

// joined returns the first Joined of a client of its own room.
func joined(t *testing.T, cfg signalclient.Config) signalclient.Joined {
	t.Helper()
	keys, err := signaling.NewRoom(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Keys = keys
	client, err := signalclient.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	e := <-client.Events()
	j, ok := e.(signalclient.Joined)
	if !ok {
		t.Fatalf("first event %+v", e)
	}
	return j
}

// A Unix socket has its mode, takes the place of a dead one, is refused while
// a live server has it, and is gone afterwards.
func TestListenUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "signal.sock")
	stale, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = stale.Close()
	args := []string{"--listen", "unix:" + path, "--stun", "off", "--public-url", "https://sync.example.org/x", "--socket-mode", "0600"}
	p := startProcess(t, nil, args...)
	if p.url != "https://sync.example.org/x/" {
		t.Errorf("it serves %s", p.url)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	web := overUnix(t, path)
	if status, _ := signaltest.Get(t, web, "http://any/readyz"); status != http.StatusOK {
		t.Errorf("/readyz: %d", status)
	}
	joined(t, signalclient.Config{URLs: []string{"http://any/"}, HTTPClient: web})

	if err := run(t.Context(), args, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), "by another server") {
		t.Errorf("a second server: %v", err)
	}
	next := startProcess(t, nil, append(args, "--reuse-port")...)
	p.stop()
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("the first server took its successor's socket away: %v", err)
	}
	web.CloseIdleConnections()
	if status, _ := signaltest.Get(t, web, "http://any/readyz"); status != http.StatusOK {
		t.Errorf("/readyz of the successor: %d", status)
	}
	next.stop()
	if files, err := os.ReadDir(filepath.Dir(path)); err != nil || len(files) != 0 {
		t.Errorf("left behind: %v, %v", files, err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), args, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), "is no socket") {
		t.Errorf("over a file: %v", err)
	}
}

// Sockets that systemd hands over are served, and outlive the process.
func TestListenSystemd(t *testing.T) {
	stream, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stream.Close() }()
	datagram, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = datagram.Close() }()
	one, err := stream.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = one.Close() }()
	two, err := datagram.(*net.UDPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = two.Close() }()

	// A shell between sets the process id, which systemd does between fork and exec.
	activate := func(cmd *exec.Cmd) {
		cmd.Args = append([]string{"sh", "-c", `LISTEN_FDS=2 LISTEN_PID=$$ exec "$0" "$@"`, cmd.Path}, cmd.Args[1:]...)
		cmd.Path = "/bin/sh"
		cmd.ExtraFiles = []*os.File{one, two}
	}
	want := "http://" + stream.Addr().String() + "/"
	var previous *process
	for range 2 {
		p := startProcess(t, activate, "--listen", "systemd", "--stun", "systemd")
		if p.url != want {
			t.Errorf("it serves %s, not %s", p.url, want)
		}
		if previous != nil {
			previous.stop()
		}
		j := joined(t, signalclient.Config{URLs: []string{want}})
		if len(j.ICEServers) != 1 || j.ICEServers[0].URLs[0] != "stun:"+datagram.LocalAddr().String() {
			t.Errorf("ICE servers: %v", j.ICEServers)
		}
		previous = p
	}
	previous.stop()

	// Who connects to a socket that nobody serves would wait for ever.
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, args := range [][]string{
		{"--listen", "127.0.0.1:0", "--stun", "off"}, {"--listen", "systemd", "--stun", "off"}, {"--listen", "127.0.0.1:0", "--stun", "systemd"},
	} {
		cmd := exec.CommandContext(ctx, os.Args[0], args...)
		cmd.Env = append(os.Environ(), asProgram+"=1")
		activate(cmd)
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "which nobody asked for") {
			t.Errorf("%q: %v, %s", args, err, out)
		}
	}
}
