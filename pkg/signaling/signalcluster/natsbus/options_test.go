package natsbus

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
)

// A NATS that refuses this server is tried every second; the log says once what a person has to do.
func TestRefusalsAreLoggedOnce(t *testing.T) {
	var log bytes.Buffer
	b := &Bus{log: slog.New(slog.NewTextHandler(&log, nil))}
	var options nats.Options
	for _, option := range b.options(Config{}) {
		if err := option(&options); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		options.AsyncErrorCB(nil, nil, nats.ErrAuthorization)
		options.ReconnectErrCB(nil, errors.New("nats: Authorization Violation"))
	}
	if lines := strings.Count(log.String(), "\n"); lines != 1 || !strings.Contains(log.String(), "refuses the user and password") {
		t.Errorf("%d lines:\n%s", lines, log.String())
	}
	options.ReconnectErrCB(nil, errors.New("connection refused"))
	options.AsyncErrorCB(nil, nil, nats.ErrAuthExpired)
	if lines := strings.Count(log.String(), "\n"); lines != 3 || !strings.Contains(log.String(), "cannot be reached") {
		t.Errorf("%d lines:\n%s", lines, log.String())
	}
}
