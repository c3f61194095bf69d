package main

import (
	"log"
	"log/slog"
	"regexp"
	"strings"
	"sync/atomic"
)

// addressPattern finds IP addresses, with their ports, as net and net/http write them into errors.
var addressPattern = regexp.MustCompile(`\[[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(%[^\]]*)?\](:\d+)?|\b\d{1,3}(\.\d{1,3}){3}(:\d+)?\b`)

// httpLog is the log of an http.Server, which names addresses in its errors; unless they are wanted, they are taken out.
// nil: they never are.
func httpLog(to *slog.Logger, addresses *atomic.Bool) *log.Logger {
	return log.New(httpErrors{to, addresses}, "", 0)
}

type httpErrors struct {
	log       *slog.Logger
	addresses *atomic.Bool
}

// Write logs one message of the http.Server.
func (w httpErrors) Write(line []byte) (int, error) {
	text := strings.TrimSuffix(string(line), "\n")
	if w.addresses == nil || !w.addresses.Load() {
		text = addressPattern.ReplaceAllString(text, "(address)")
	}
	w.log.Debug(text)
	return len(line), nil
}
