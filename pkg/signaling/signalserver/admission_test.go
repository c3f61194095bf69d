package signalserver_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/crmesh/crmesh/pkg/signaling"
	"github.com/crmesh/crmesh/pkg/signaling/signalserver"
)

const (
	joinKey   = "0123456789abcdef"
	joinToken = "a-static-join-token"
)

func signed(t *testing.T, key string, expires time.Time, room signaling.RoomID) string {
	t.Helper()
	token, err := signaling.Admission{Expires: expires, Room: room}.Sign([]byte(key))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestAdmission(t *testing.T) {
	h := start(t, func(c *signalserver.Config) {
		c.JoinTokens = []string{"the-first-static-token", joinToken, "the-last-static-token"}
		c.JoinKeys = []string{"a key that is no longer used", joinKey}
	})
	soon, past := time.Now().Add(time.Hour), time.Now().Add(-time.Second)
	for name, token := range map[string]string{
		"static":        joinToken,
		"the first":     "the-first-static-token",
		"the last":      "the-last-static-token",
		"signed":        signed(t, joinKey, soon, signaling.RoomID{}),
		"for this room": signed(t, joinKey, soon, room),
		"the other key": signed(t, "a key that is no longer used", soon, room),
	} {
		p := h.connect(t)
		p.send(signaling.Join{Room: room, Peer: p.id, Admission: token})
		if m, err := p.receive(); err != nil || m.(signaling.Joined).Peer != p.id {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
		p.send(signaling.Leave{})
		p.expectClose(1000, "leave")
	}
	for name, c := range map[string]struct{ token, says string }{
		"none":         {"", "asks for a join token"},
		"wrong":        {joinToken[1:], "does not know"},
		"half":         {joinToken + "x", "does not know"},
		"expired":      {signed(t, joinKey, past, room), "has expired"},
		"another room": {signed(t, joinKey, soon, signaling.RoomID{9}), "for another room"},
		"another key":  {signed(t, joinKey+"x", soon, room), "does not know"},
	} {
		p := h.connect(t)
		p.send(signaling.Join{Room: room, Peer: p.id, Admission: c.token})
		if e := p.expectEnd(signaling.CodeNotAdmitted); !strings.Contains(e.Message, c.says) || e.RetryAfter != 60 {
			t.Errorf("%s: %+v", name, e)
		}
	}
	if st := h.Stats(); st.Members != 0 || st.Rooms != 0 {
		t.Errorf("left over: %+v", st)
	}
	// A server that asks nobody takes whatever comes.
	p := start(t, nil).connect(t)
	p.send(signaling.Join{Room: room, Peer: p.id, Admission: "whatever"})
	expect[signaling.Joined](p)
}

// A membership goes on without the join token that it began with, which may have expired meanwhile; with a wrong resume
// token it does not.
func TestAdmissionOfAMember(t *testing.T) {
	h := start(t, func(c *signalserver.Config) { c.JoinTokens = []string{joinToken} })
	a := h.connect(t)
	a.send(signaling.Join{Room: room, Peer: a.id, Admission: joinToken})
	joined := expect[signaling.Joined](a)
	again := h.connect(t)
	again.send(signaling.Join{Room: room, Peer: a.id, Token: joined.Token})
	if j := expect[signaling.Joined](again); !j.Resumed {
		t.Errorf("not resumed: %+v", j)
	}
	thief := h.connect(t)
	thief.send(signaling.Join{Room: room, Peer: a.id, Token: "x"})
	thief.expectEnd(signaling.CodeNotAdmitted)
	again.expectQuiet()
}

// Each request for a WebSocket is an attempt to join: failed upgrades, wrong tokens and connections that never join count.
func TestAttemptsCount(t *testing.T) {
	h := start(t, func(c *signalserver.Config) {
		c.JoinRate, c.JoinBurst = 0.01, 3
		c.JoinTokens = []string{joinToken}
	})
	h.refused(t, http.StatusForbidden, func(d *websocket.DialOptions) {
		d.HTTPHeader = http.Header{"Origin": {"https://elsewhere.example"}}
	})
	if status, _ := get(t, h, "/v1/signal"); status != http.StatusUpgradeRequired {
		t.Fatalf("HTTP %d for a request that is no WebSocket's", status)
	}
	p := h.connect(t)
	p.send(signaling.Join{Room: room, Peer: p.id, Admission: "wrong"})
	p.expectEnd(signaling.CodeNotAdmitted)
	if e := h.connect(t).expectEnd(signaling.CodeJoinRate); e.RetryAfter < 50 {
		t.Errorf("retry after %d s", e.RetryAfter)
	}
}

func TestAdmissionConfig(t *testing.T) {
	for name, change := range map[string]func(*signalserver.Config){
		"an empty token": func(c *signalserver.Config) { c.JoinTokens = []string{""} },
		"no token text":  func(c *signalserver.Config) { c.JoinTokens = []string{"secret token"} },
		"a short key":    func(c *signalserver.Config) { c.JoinKeys = []string{"secret"} },
	} {
		cfg := signalserver.DefaultConfig()
		change(&cfg)
		s, err := signalserver.New(cfg)
		if err == nil {
			_ = s.Shutdown(context.Background())
			t.Errorf("%s: accepted", name)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error quotes it: %v", name, err)
		}
	}
}
