package main

import (
	"fmt"
	"strings"
	"testing"
)

// TestPorts: two programs with a port each sync, and show which.
func TestPorts(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.signal()
	udpA, tcpA, udpB := freePort(t), freePort(t), freePort(t)
	a := l.peer("a", l.write, "--schema", l.file("notes.sql", notes), "--udp-port", fmt.Sprint(udpA), "--tcp-port", fmt.Sprint(tcpA),
		"--nat-1to1", "192.0.2.77")
	b := l.peer("b", l.write, "--udp-port", fmt.Sprint(udpB), "--ice-server", "turn:me:secret@127.0.0.1:9")
	b.synced(1)
	a.exec("INSERT INTO note VALUES (1, 'x', 1)")
	equal(t, "SELECT * FROM note", a, b)
	for _, c := range []struct {
		peer *replica
		want []string
	}{{a, []string{fmt.Sprint(":", udpA), fmt.Sprint("tcp :", tcpA)}}, {b, []string{fmt.Sprint(":", udpB)}}} {
		status := l.ok("status", "--api", c.peer.api)
		for _, want := range append(c.want, "ports ", "udp ") {
			if !strings.Contains(status, want) {
				t.Errorf("%q is missing in\n%s", want, status)
			}
		}
	}
	if strings.Contains(b.out.String(), "secret") {
		t.Error("the log shows the password of a TURN server")
	}
	b.stop()
	a.stop()
}
