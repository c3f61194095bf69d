package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/crmesh/crmesh/pkg/mesh"
	"github.com/crmesh/crmesh/pkg/signaling"
)

// TestStatusOfLargeRoom: members with a link come first, and those that need none are counted.
func TestStatusOfLargeRoom(t *testing.T) {
	s := mesh.Status{Members: []mesh.MemberStatus{
		{Peer: "tried", State: mesh.LinkChecking}, {Peer: "linked", State: mesh.LinkOpen, Live: true},
	}}
	for range 500 {
		s.Members = append(s.Members, mesh.MemberStatus{Peer: "far", State: mesh.LinkUnlinked})
	}
	var out bytes.Buffer
	if err := printStatus(&out, peerStatus{Status: s}); err != nil {
		t.Fatal(err)
	}
	_, members, _ := strings.Cut(out.String(), "\nmembers\n")
	lines := strings.Split(strings.TrimSpace(members), "\n")
	if len(lines) != 4 || !strings.HasPrefix(lines[1], "linked ") || !strings.HasPrefix(lines[2], "tried ") ||
		lines[3] != "and 500 more, which are linked over others" {
		t.Errorf("the status is\n%s", out.String())
	}
}

// TestTrialTarget: the doctor makes its trial link to a writer, and to one that is always on where there is one.
func TestTrialTarget(t *testing.T) {
	member := func(name string, replica, reader bool) signaling.Member {
		return signaling.Member{Meta: signaling.Meta{Name: name, Replica: replica, Reader: reader}}
	}
	readers := []signaling.Member{member("reader", false, true), member("replica that reads", true, true)}
	if _, ok := trialTarget(readers); ok {
		t.Error("two readers are never linked")
	}
	writers := append(readers, member("page", false, false), member("replica", true, false), member("second", true, false))
	if m, ok := trialTarget(writers); !ok || m.Meta.Name != "replica" {
		t.Errorf("the trial is with %q", m.Meta.Name)
	}
}
