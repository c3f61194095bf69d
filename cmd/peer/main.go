// Command peer keeps a SQLite database in sync with everybody else who has the link of its room, directly from peer to
// peer, and gives local programs a way to write and read it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "peer: "+err.Error())
		os.Exit(1)
	}
}

const description = `A replica of a room's database: it syncs with everybody who has the room's link, directly, and serves local programs.

Example, a whole deployment in one command:

    peer run --db app.db --schema app.sql --room "$(peer room new | head -n 1 | cut -f 2)" --serve 127.0.0.1:8787
    peer exec "INSERT INTO note (id, body) VALUES (?, ?)" 1 "hello"
    peer query "SELECT * FROM note"`

type commands struct {
	Room   roomCommand   `cmd:"" help:"Make rooms."`
	Run    runCommand    `cmd:"" help:"Keep a database in sync until SIGINT or SIGTERM."`
	Exec   execCommand   `cmd:"" help:"Write through the running peer: one statement."`
	Query  queryCommand  `cmd:"" help:"Read through the running peer: one statement."`
	Status statusCommand `cmd:"" help:"Show the running peer, its members and links."`
	Wait   waitCommand   `cmd:"" help:"Wait until the running peer has links, or is in sync with them."`
}

// run parses args and does what they say until ctx is done.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var cli commands
	helped := false
	parser, err := kong.New(&cli,
		kong.Name("peer"),
		kong.Description(description),
		kong.Writers(stdout, stderr),
		kong.Exit(func(int) { helped = true }),
		kong.DefaultEnvars("CRMESH"),
		kong.Vars{"args_help": argumentHelp},
	)
	if err != nil {
		return err
	}
	parsed, err := parser.Parse(args)
	if helped {
		return nil
	}
	if err != nil {
		return errors.New(err.Error() + "; see peer --help")
	}
	parsed.BindTo(ctx, (*context.Context)(nil))
	return parsed.Run(output{stdout, stderr})
}

// output is where a command writes: results to stdout, the log to stderr.
type output struct{ stdout, stderr io.Writer }

// logFlags are the flags of a command that logs.
type logFlags struct {
	LogFormat string `enum:"text,json" default:"text" help:"text or json."`
	LogLevel  string `enum:"debug,info,warn,error" default:"info" help:"debug, info, warn or error."`
}

func (f logFlags) logger(out output) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.LogLevel)); err != nil {
		level = slog.LevelInfo // kong has checked the enum
	}
	options := &slog.HandlerOptions{Level: level}
	if f.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(out.stderr, options))
	}
	return slog.New(slog.NewTextHandler(out.stderr, options))
}
