// Command signal is the crmesh signaling server: it introduces the members of
// a room to each other, answers STUN, and serves the page.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/crmesh/crmesh/cmd/internal/program"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "signal: "+err.Error())
		os.Exit(1)
	}
}

const description = `The crmesh signaling server: it introduces the members of a room to each other. It cannot read what they say and keeps nothing.

Example:

    signal --listen 0.0.0.0:8787 --public-host sync.example.org`

type commands struct {
	Check check `cmd:"" help:"Print the configuration that serve would have with the same flags and environment, and what is wrong or unsafe about it."`
	Token token `cmd:"" help:"Make a join token, signed with a key of --join-hmac-key."`
	Serve serve `cmd:"" default:"withargs" help:"Serve WebSockets, STUN and the page until SIGINT or SIGTERM (the default command)."`
}

// run parses args and does what they say until ctx is done.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var cli commands
	return program.Run(ctx, &cli, "signal", description, defaults(), args, program.Output{Stdout: stdout, Stderr: stderr})
}
