package natsbus

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/crmesh/crmesh/pkg/signaling/signalcluster"
	"github.com/crmesh/crmesh/pkg/signaling/signalcluster/natsbus/natstest"
)

func message(n, size int) signalcluster.BusMessage {
	return signalcluster.BusMessage{Subject: "s", Data: fmt.Appendf(nil, "%08d%s", n, strings.Repeat(".", size))}
}

// What waits is bounded in number and in bytes; what is taken comes in order, and leaves nothing behind.
func TestInboxBounds(t *testing.T) {
	for _, size := range []int{0, 64 << 10, 1 << 20, inboxBytes} {
		var box inbox
		fit := min(inboxLength, inboxBytes/sizeOf(message(0, size)))
		next := 0
		for box.add(message(next, size)) {
			next++
		}
		if next != fit || box.size > inboxBytes {
			t.Fatalf("%d messages of %d bytes fit, %d in all; want %d", next, size, box.size, fit)
		}
		taken := 0
		take := func() {
			t.Helper()
			if m, ok := box.first(); !ok || string(m.Data) != string(message(taken, size).Data) {
				t.Fatalf("got %.20q as message %d", m.Data, taken)
			}
			box.drop()
			taken++
		}
		for range 3 * fit {
			take()
			if !box.add(message(next, size)) || box.add(message(next, size)) {
				t.Fatal("one that went does not make room for one")
			}
			next++
		}
		for taken < next {
			take()
		}
		if _, ok := box.first(); ok || box.size != 0 || box.waiting != nil {
			t.Fatalf("%d bytes of %d messages are left", box.size, len(box.waiting))
		}
	}
}

// A server that does not take what comes has no more than the bound in memory. It counts what it lost, and gets what it kept.
func TestBusBoundsBytes(t *testing.T) {
	server := natstest.Start(t, nil)
	connect := func() *Bus {
		b, err := Connect(Config{URLs: []string{server.URL()}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(b.Close)
		return b
	}
	const size, many = 100 << 10, 250
	from, to := connect(), connect()
	to.Subscribe("s")
	to.Subscribe("ready")
	soon := time.After(time.Minute)
	publish := func(b *Bus, subject, reply string, data []byte) {
		t.Helper()
		for {
			err := b.Publish(subject, reply, data)
			if err == nil {
				return
			}
			if !errors.Is(err, ErrBusy) {
				t.Fatal(err)
			}
			select {
			case <-soon:
				t.Fatal(err)
			case <-time.After(time.Millisecond):
			}
		}
	}
	publish(to, "nobody", "ready", []byte("?")) // comes back once NATS has the subscriptions
	<-to.Messages()
	kept := 0
	for n := range many {
		m := message(n, size)
		if (kept+1)*sizeOf(m) <= inboxBytes {
			kept++
		}
		publish(from, m.Subject, "", m.Data)
	}
	for to.Missed() != uint64(many-kept) {
		select {
		case <-soon:
			t.Fatalf("%d messages of %d are missed, want %d", to.Missed(), many, many-kept)
		case <-time.After(time.Millisecond):
		}
	}
	for n := range kept {
		if m := <-to.Messages(); !strings.HasPrefix(string(m.Data), fmt.Sprintf("%08d.", n)) {
			t.Fatalf("got %.20q as message %d", m.Data, n)
		}
	}
	publish(from, "s", "", []byte("there is room again"))
	if m := <-to.Messages(); string(m.Data) != "there is room again" {
		t.Fatalf("got %.20q", m.Data)
	}
	to.Unsubscribe("s") // what was missed does not go with the subscription
	publish(to, "nobody", "ready", []byte("?"))
	<-to.Messages()
	if to.Missed() != uint64(many-kept) {
		t.Errorf("%d are missed", to.Missed())
	}
}

// What the NATS client could not hand over counts, too, and still does when the subscription is gone.
func TestBusCountsWhatTheClientLost(t *testing.T) {
	server := natstest.Start(t, nil)
	b, err := Connect(Config{URLs: []string{server.URL()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	other, err := nats.Connect(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	full := make(chan *nats.Msg) // nobody takes from it
	sub, err := b.nc.ChanSubscribe("s", full)
	if err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	b.applied["s"] = sub
	b.mu.Unlock()
	await := func() {
		t.Helper()
		b.Subscribe("ready")
		if err := b.Publish("nobody", "ready", []byte("?")); err != nil {
			t.Fatal(err)
		}
		<-b.Messages()
	}
	await()
	for range 3 {
		if err := other.Publish("s", []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if err := other.FlushTimeout(20 * time.Second); err != nil {
		t.Fatal(err)
	}
	await() // it comes behind them
	if n := b.Missed(); n != 3 {
		t.Errorf("%d are missed", n)
	}
	b.Unsubscribe("s")
	await()
	if n := b.Missed(); n != 3 {
		t.Errorf("%d are missed without the subscription", n)
	}
}
