// Package program is what the commands of this module have in common: reading arguments, the log, and how an address is
// shown to a person.
package program

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"

	"github.com/alecthomas/kong"
)

// Output is where a command writes: results to Stdout, the log to Stderr.
type Output struct{ Stdout, Stderr io.Writer }

// LogFlags are the flags of a command that logs.
type LogFlags struct {
	LogFormat string `restart:"" enum:"text,json" default:"text" help:"text or json."`
	LogLevel  string `enum:"debug,info,warn,error" default:"info" help:"debug, info, warn or error."`
}

// Level returns the level that the flags ask for.
func (f LogFlags) Level() slog.Level {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.LogLevel)); err != nil {
		level = slog.LevelInfo // kong has checked the enum
	}
	return level
}

// Logger returns the log that the flags ask for, on Stderr.
func (f LogFlags) Logger(out Output) *slog.Logger { return f.LoggerAt(out, f.Level()) }

// LoggerAt is Logger with a level that may change.
func (f LogFlags) LoggerAt(out Output, level slog.Leveler) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if f.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(out.Stderr, options))
	}
	return slog.New(slog.NewTextHandler(out.Stderr, options))
}

// Reparse parses the arguments of the program once more, into another cli: a file that they name may have changed. A Run may
// take it.
type Reparse func(cli any) (*kong.Context, error)

// Run parses args into cli, a pointer to a struct of kong's, and runs the command that they name until it returns; its Run
// may take a context.Context, which is ctx, and an Output. Each flag is an environment variable CRMESH_FLAG, too. Asking
// for help is no error.
func Run(ctx context.Context, cli any, name, description string, vars kong.Vars, args []string, out Output) error {
	parse := func(cli any) (*kong.Context, error) { return parse(cli, name, description, vars, args, out) }
	parsed, err := parse(cli)
	if err != nil || parsed == nil {
		return err
	}
	parsed.BindTo(ctx, (*context.Context)(nil))
	parsed.Bind(Reparse(parse))
	return parsed.Run(out)
}

// parse returns nil when it was asked for help, and has given it.
func parse(cli any, name, description string, vars kong.Vars, args []string, out Output) (*kong.Context, error) {
	helped := false
	parser, err := kong.New(cli,
		kong.Name(name),
		kong.Description(description),
		kong.Writers(out.Stdout, out.Stderr),
		kong.Exit(func(int) { helped = true }),
		kong.DefaultEnvars("CRMESH"),
		vars,
	)
	if err != nil {
		return nil, err
	}
	parsed, err := parser.Parse(args)
	if helped {
		return nil, nil
	}
	if err != nil {
		return nil, errors.New(err.Error() + "; see " + described(parser, err, args) + " --help")
	}
	return parsed, nil
}

// described is the command whose help has what err, of args, is about: the program's own help names commands, and no flag of theirs.
func described(parser *kong.Kong, err error, args []string) string {
	root := parser.Model.Node
	node := root
	if wrong := (*kong.ParseError)(nil); errors.As(err, &wrong) && wrong.Context != nil {
		node = cmp.Or(wrong.Context.Selected(), root)
	}
	if flags := len(args) == 0 || strings.HasPrefix(args[0], "-"); node == root && flags && root.DefaultCmd != nil {
		node = root.DefaultCmd
	} else if node == root.DefaultCmd && !flags && args[0] != node.Name {
		node = root // the word stands where a command does, and is none
	}
	return node.FullPath()
}

// PageURL is the address of a listener, for a browser; host stands for one that is on all interfaces.
func PageURL(addr net.Addr, host string) string {
	h, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return "http://" + addr.String() + "/"
	}
	if ip, err := netip.ParseAddr(h); err != nil || !ip.IsUnspecified() {
		host = h
	}
	return "http://" + net.JoinHostPort(host, port) + "/"
}
