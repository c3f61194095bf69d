package main

import (
	"log/slog"
	"reflect"
	"strings"
	"sync/atomic"

	"github.com/alecthomas/kong"

	"github.com/crmesh/crmesh/cmd/internal/program"
	"github.com/crmesh/crmesh/pkg/signaling/signalserver"
)

// live is a server and the flags that it goes by, for SIGHUP to change. It belongs to serve.Run.
type live struct {
	flags    *serve
	again    program.Reparse
	started  []*kong.Flag // as at the start
	now      []*kong.Flag // as they are in force; those that need a restart aside
	server   *signalserver.Server
	stunPort int
	certs    *certificates // nil: no TLS

	log       *slog.Logger
	level     *slog.LevelVar // of log
	addresses *atomic.Bool   // whether the HTTP server logs them
}

// reload reads the files of --config and of the certificate again. A bad one changes nothing, and the log says so.
func (r *live) reload() {
	if r.certs != nil {
		r.certs.reload()
	}
	if r.flags.Config == "" {
		if r.certs == nil {
			r.log.Info("SIGHUP: there is no file to read again, neither of --config nor of --tls-cert")
		}
		return
	}
	var cli commands
	_, err := r.again(&cli)
	fresh := &cli.Serve
	if err == nil {
		var cfg signalserver.Config
		if cfg, err = fresh.config(r.log, r.stunPort); err == nil {
			err = r.server.Reload(cfg)
		}
	}
	if err != nil {
		r.log.Error("the configuration stays the old one", "error", strings.ReplaceAll(err.Error(), "\n", "; "))
		return
	}
	r.level.Set(fresh.Level())
	r.addresses.Store(fresh.LogAddresses)
	opened := r.flags.asks() && !fresh.asks()
	changed, _ := differences(r.now, fresh.flags)
	_, waiting := differences(r.started, fresh.flags)
	r.flags, r.now = fresh, fresh.flags
	r.log.Info("the configuration was read again", "file", fresh.Config, "changed", list(changed))
	if opened {
		r.log.Warn("there is no join token and no key any more: everybody may join now")
	}
	if len(waiting) > 0 {
		r.log.Warn("some changes need a restart; until then these settings stay", "settings", list(waiting))
	}
}

// asks tells whether a membership begins only with a join token.
func (f *serve) asks() bool { return len(f.JoinTokens)+len(f.JoinKeys) > 0 }

// differences names the flags that have another value in b: those that may change while the server runs, and the others.
func differences(a, b []*kong.Flag) (live, restart []string) {
	for i, flag := range a { // both are of one command
		x, y := flag.Target, b[i].Target
		if x.Kind() == reflect.Slice && x.Len()+y.Len() == 0 || reflect.DeepEqual(x.Interface(), y.Interface()) {
			continue
		}
		if flag.Tag.Has("restart") {
			restart = append(restart, flag.Name)
		} else {
			live = append(live, flag.Name)
		}
	}
	return live, restart
}

func list(names []string) string {
	if len(names) == 0 {
		return "nothing"
	}
	return strings.Join(names, ", ")
}
