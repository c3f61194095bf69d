package signalserver_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/crmesh/crmesh/pkg/signaling"
	"github.com/crmesh/crmesh/pkg/signaling/signalserver"
)

// A server that is drained serves whom it has, takes nobody else, and does not
// tell the others of those who move.
func TestDrain(t *testing.T) {
	h := start(t, func(c *signalserver.Config) { c.Grace = 20 * time.Millisecond })
	a, b := h.pair(t, room)
	late := h.connect(t) // has not joined
	poll(t, "three connections", func() bool { return h.Stats().Connections == 3 })

	drained := make(chan struct{})
	go func() {
		defer close(drained)
		h.Drain(context.Background(), signalserver.MaxDrain)
	}()
	for _, p := range []*peer{a, b} {
		if m := expect[signaling.Moving](p); m.Within != 60 {
			t.Errorf("moving within %d s", m.Within)
		}
	}
	if status, _ := get(t, h, "/readyz"); status != http.StatusServiceUnavailable {
		t.Errorf("/readyz: %d", status)
	}
	if status, _ := get(t, h, "/healthz"); status != http.StatusOK {
		t.Errorf("/healthz: %d", status)
	}
	_, response, err := h.dial(t, nil)
	if err == nil || response == nil || response.StatusCode != http.StatusServiceUnavailable || response.Header.Get("Retry-After") != "0" || !response.Close {
		t.Fatalf("a newcomer: %v, %+v", err, response)
	}
	talk(a, b)
	late.join(room, "")
	expect[signaling.Moving](late)
	expect[signaling.MemberJoined](a)
	expect[signaling.MemberJoined](b)

	// b moves; its grace time is over at once, and a hears nothing of it.
	_ = b.ws.CloseNow()
	poll(t, "two connections", func() bool { return h.Stats().Connections == 2 })
	a.send(signaling.SignalTo{To: b.id, Sealed: "AQID"})
	if e := expect[signaling.Error](a); e.Code != signaling.CodeUnreachable {
		t.Fatalf("got %+v", e)
	}
	for range 10 {
		time.Sleep(5 * time.Millisecond) // many times the tick of the grace time: there is no state to wait for
		a.expectQuiet()
	}
	select {
	case <-drained:
		t.Fatal("it ended with two connections left")
	default:
	}
	// Who leaves is gone, moving or not.
	late.send(signaling.Leave{})
	if m := expect[signaling.MemberLeft](a); m.Peer != late.id {
		t.Fatalf("left: %v", m.Peer)
	}
	_ = a.ws.CloseNow()
	select {
	case <-drained: // long before the minute is over
	case <-time.After(patience):
		t.Fatal("it does not see that all have gone")
	}
}

// Who does not move is closed by Shutdown, which does not wait for Drain.
func TestDrainEnds(t *testing.T) {
	h := start(t, nil)
	a, _ := h.join(t, room)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	h.Drain(ctx, time.Second)
	expect[signaling.Moving](a)
	closed := make(chan error, 1)
	go func() {
		_, err := a.receive()
		if err == nil {
			_, err = a.receive()
		}
		closed <- err
	}()
	if err := h.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	var end websocket.CloseError
	if err := <-closed; !errors.As(err, &end) || end.Reason != string(signaling.CodeShutdown) {
		t.Fatalf("closed with %v", err)
	}
	idle := start(t, nil)
	idle.Drain(context.Background(), signalserver.MaxDrain) // nobody there: returns at once
}
