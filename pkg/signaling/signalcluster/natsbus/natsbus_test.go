package natsbus_test

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"go.uber.org/goleak"

	"github.com/crmesh/crmesh/pkg/signaling/signalcluster"
	"github.com/crmesh/crmesh/pkg/signaling/signalcluster/natsbus"
	"github.com/crmesh/crmesh/pkg/signaling/signalcluster/natsbus/natstest"
	"github.com/crmesh/crmesh/pkg/signaling/signaltest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = time.Minute

func connect(t *testing.T, url string) (*natsbus.Bus, *signaltest.Log) {
	t.Helper()
	log := &signaltest.Log{}
	bus, err := natsbus.Connect(natsbus.Config{URLs: []string{url}, Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(bus.Close)
	return bus, log
}

func poll(t *testing.T, what string, done func() bool) {
	t.Helper()
	signaltest.Until(t, patience, what, done)
}

func next(t *testing.T, b *natsbus.Bus) signalcluster.BusMessage {
	t.Helper()
	select {
	case m := <-b.Messages():
		return m
	case <-time.After(patience):
		t.Fatal("nothing came in time")
		return signalcluster.BusMessage{}
	}
}

func publish(t *testing.T, b *natsbus.Bus, subject, reply, text string) {
	t.Helper()
	if err := b.Publish(subject, reply, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

// settled waits until all that b has asked for has reached NATS: its own question, that nobody else hears, comes back empty.
func settled(t *testing.T, b *natsbus.Bus, name string) {
	t.Helper()
	b.Subscribe("settled." + name)
	publish(t, b, "nobody."+name, "settled."+name, "?")
	if m := next(t, b); m.Subject != "settled."+name || len(m.Data) != 0 {
		t.Fatalf("got %s %q", m.Subject, m.Data)
	}
}

// Messages come in order to all who have subscribed but the sender; where nobody has, the sender is told.
func TestBus(t *testing.T) {
	nats := natstest.Start(t, nil)
	a, _ := connect(t, nats.URL())
	b, _ := connect(t, nats.URL())
	b.Subscribe("s")
	a.Subscribe("s")
	settled(t, b, "b")
	settled(t, a, "a")
	const many = 1000
	for i := range many {
		publish(t, a, "s", "", fmt.Sprint(i))
	}
	for i := range many {
		if m := next(t, b); m.Subject != "s" || string(m.Data) != fmt.Sprint(i) {
			t.Fatalf("got %s %q, want %d", m.Subject, m.Data, i)
		}
	}
	publish(t, b, "s", "", "back")
	if m := next(t, a); string(m.Data) != "back" { // and nothing of what a has sent itself
		t.Fatalf("got %q", m.Data)
	}
	b.Unsubscribe("s")
	settled(t, b, "b2")
	a.Subscribe("answer")
	publish(t, a, "s", "answer", "anybody?")
	if m := next(t, a); m.Subject != "answer" || len(m.Data) != 0 {
		t.Fatalf("got %s %q", m.Subject, m.Data)
	}
	if err := a.Publish("s", "", make([]byte, 32<<20)); !errors.Is(err, natsbus.ErrBusy) {
		t.Fatalf("more than the queue holds: %v", err)
	}
}

// Without NATS nothing is queued; afterwards subscriptions are what they should be.
func TestBusComesBack(t *testing.T) {
	nats := natstest.Start(t, nil)
	a, log := connect(t, nats.URL())
	b, _ := connect(t, nats.URL())
	b.Subscribe("before")
	settled(t, b, "b")
	<-a.Connects()
	nats.Stop()
	poll(t, "the loss is noticed", func() bool { return !a.Connected() && !b.Connected() })
	if err := a.Publish("before", "", []byte("lost")); !errors.Is(err, natsbus.ErrNotConnected) {
		t.Fatalf("published without NATS: %v", err)
	}
	b.Subscribe("meanwhile")
	nats.Start()
	select {
	case <-a.Connects():
	case <-time.After(patience):
		t.Fatal("it does not come back")
	}
	poll(t, "b is back", b.Connected)
	settled(t, b, "b2")
	for _, subject := range []string{"before", "meanwhile"} {
		publish(t, a, subject, "", "new")
		if m := next(t, b); m.Subject != subject || string(m.Data) != "new" {
			t.Fatalf("got %s %q", m.Subject, m.Data)
		}
	}
	if !strings.Contains(log.String(), "the connection to NATS is lost") {
		t.Errorf("the log does not say that NATS is lost:\n%s", log)
	}
}

// A password that is wrong is tried again for ever, as it may become right, and never shown.
func TestBusPassword(t *testing.T) {
	nats := natstest.Start(t, func(o *server.Options) { o.Username, o.Password = "user", "right-secret" })
	right, _ := connect(t, "nats://user:right-secret@"+nats.Address())
	poll(t, "the right password", right.Connected)
	wrong, log := connect(t, "nats://user:wrong-secret@"+nats.Address())
	poll(t, "it is said why", func() bool { return strings.Contains(log.String(), "Authorization Violation") })
	if wrong.Connected() {
		t.Fatal("the wrong password")
	}
	for range 2 { // NATS is told twice that it is wrong, and believes the third time
		nats.Stop()
		nats.Start()
		poll(t, "the right password again", right.Connected)
	}
	nats.Stop()
	nats.Change(func(o *server.Options) { o.Password = "wrong-secret" })
	nats.Start()
	poll(t, "the password that is right now", wrong.Connected)
	if strings.Contains(log.String(), "secret") {
		t.Errorf("the log has the password:\n%s", log)
	}
}

// A NATS that takes only small messages is told of.
func TestBusSmallPayload(t *testing.T) {
	nats := natstest.Start(t, func(o *server.Options) { o.MaxPayload = signalcluster.MaxMessage - 1 })
	_, log := connect(t, nats.URL())
	poll(t, "the warning", func() bool { return strings.Contains(log.String(), "raise its max_payload") })
}

func TestConfig(t *testing.T) {
	dir := t.TempDir()
	creds := filepath.Join(dir, "user.creds")
	if err := os.WriteFile(creds, []byte("no credentials"), 0o600); err != nil {
		t.Fatal(err)
	}
	good := []string{"nats://10.0.0.1:4222", "tls://user:secret@nats.example:4222", "nats://token@h"}
	for _, c := range []struct {
		cfg  natsbus.Config
		want string
	}{
		{natsbus.Config{URLs: good}, ""},
		{natsbus.Config{}, "needs the address"},
		{natsbus.Config{URLs: []string{"nats://h", "http://user:secret@h"}}, "number 2"},
		{natsbus.Config{URLs: []string{"nats://user:secret%zz@h"}}, "number 1"},
		{natsbus.Config{URLs: []string{"nats://h:99999"}}, "number 1"},
		{natsbus.Config{URLs: []string{"h:4222"}}, "number 1"},
		{natsbus.Config{URLs: []string{"nats://h/secret"}}, "number 1"},
		{natsbus.Config{URLs: good, Credentials: filepath.Join(dir, "none")}, "cannot be read"},
		{natsbus.Config{URLs: good, Credentials: creds}, "no user JWT"},
	} {
		err := c.cfg.Check()
		if c.want == "" {
			if err != nil {
				t.Error(err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%v, want %s", err, c.want)
		}
		if _, err := natsbus.Connect(c.cfg); err == nil {
			t.Error("Connect takes it")
		}
	}
	if text := (&natsbus.Config{URLs: good}).Redacted(); text != "nats://10.0.0.1:4222,tls://nats.example:4222,nats://h" {
		t.Error(text)
	}
}
