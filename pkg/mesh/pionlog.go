package mesh

import (
	"fmt"
	"log/slog"

	"github.com/pion/logging"
)

// pionLogs passes what pion has to say on to log, at debug level whatever pion calls it: what matters to a person comes
// back as an error or a state. What pion itself calls debug is dropped unformatted: there is a line for each packet.
type pionLogs struct{ log *slog.Logger }

func (p pionLogs) NewLogger(scope string) logging.LeveledLogger {
	return pionLogger{p.log.With("pion", scope)}
}

type pionLogger struct{ log *slog.Logger }

func (p pionLogger) Trace(string)          {}
func (p pionLogger) Tracef(string, ...any) {}
func (p pionLogger) Debug(string)          {}
func (p pionLogger) Debugf(string, ...any) {}
func (p pionLogger) Info(string)           {}
func (p pionLogger) Infof(string, ...any)  {}

func (p pionLogger) Warn(msg string)                  { p.log.Debug(msg) }
func (p pionLogger) Warnf(format string, args ...any) { p.log.Debug(fmt.Sprintf(format, args...)) }

func (p pionLogger) Error(msg string)                  { p.log.Debug(msg) }
func (p pionLogger) Errorf(format string, args ...any) { p.log.Debug(fmt.Sprintf(format, args...)) }
