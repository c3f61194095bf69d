package main

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/crmesh/crmesh/pkg/signaling/signaltest"
)

// asProgram makes the test binary the program itself, for tests of processes. Its name is not like one of a setting, which the
// program would complain of.
const asProgram = "TEST_AS_CRMESH_SIGNAL"

// manyClients is how many clients TestClusterRollingRestart has. It is none of a server's either.
const manyClients = "CRMESH_CLIENTS"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		os.Exit(0)
	}
	if kind := os.Getenv(asLoad); kind != "" {
		os.Exit(runLoad(kind, os.Stdin, os.Stdout))
	}
	goleak.VerifyTestMain(m)
}

const patience = time.Minute

// process is a signal process of its own.
type process struct {
	t    testing.TB
	cmd  *exec.Cmd
	url  string // what it says that it serves
	log  *signaltest.Log
	done chan error // its end
}

// startProcess starts signal with args, and waits until it serves. change may
// alter the command before that.
func startProcess(t testing.TB, change func(*exec.Cmd), args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(os.Args[0], args...), log: &signaltest.Log{}, done: make(chan error, 1)}
	p.cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, manyClients+"=") }), asProgram+"=1")
	p.cmd.Stderr = p.log
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdout = in
	if change != nil {
		change(p.cmd)
	}
	err = p.cmd.Start()
	_ = in.Close()
	if err != nil {
		t.Fatal(err)
	}
	go func() { p.done <- p.cmd.Wait() }() // ends with the process, at the latest by Cleanup
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		_ = out.Close()
		p.wait()
		if t.Failed() {
			t.Logf("signal %v:\n%s", args, p.log)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	url, ok := strings.CutPrefix(strings.TrimSpace(line), "signal serves ")
	if err != nil || !ok {
		t.Fatalf("signal %v says %q (%v)", args, line, err)
	}
	p.url = url
	return p
}

// private is where its metrics are, if it was told to have any.
func (p *process) private() (url string) {
	p.t.Helper()
	poll(p.t, "the private address", func() bool {
		private := privatePattern.FindStringSubmatch(p.log.String())
		if private != nil {
			url = "http://" + private[1]
		}
		return private != nil
	})
	return url
}

func (p *process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// wait waits for the end of the process.
func (p *process) wait() error {
	p.t.Helper()
	select {
	case err := <-p.done:
		p.done <- err
		return err
	case <-time.After(patience):
		p.t.Error("signal does not end")
		return nil
	}
}

// stop ends the process with SIGTERM, which must be clean.
func (p *process) stop() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	if err := p.wait(); err != nil {
		p.t.Errorf("signal ended with %v", err)
	}
}

func poll(t testing.TB, what string, done func() bool) {
	t.Helper()
	signaltest.Until(t, patience, what, done)
}

// freePort returns a TCP and UDP port of loopback that nobody has.
func freePort(t *testing.T) string {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		address := l.Addr().String()
		udp, err := net.ListenPacket("udp", address)
		_ = l.Close()
		if err == nil {
			_ = udp.Close()
			return address
		}
	}
	t.Fatal("there is no free port")
	return ""
}

// overUnix is a client that reaches any host at a Unix socket.
func overUnix(t *testing.T, path string) *http.Client {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}
