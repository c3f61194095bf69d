// Command peer keeps a SQLite database in sync with everybody else who has the link of its room, directly from peer to
// peer, and gives local programs a way to write and read it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/crmesh/crmesh/cmd/internal/program"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "peer: "+err.Error())
		code := 1
		if unproved := (*unprovedError)(nil); errors.As(err, &unproved) {
			code = exitUnproved
		}
		os.Exit(code)
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
	Clone  cloneCommand  `cmd:"" help:"Copy a database, for another peer; it may be in use."`
	Exec   execCommand   `cmd:"" help:"Write through the running peer: one statement."`
	Query  queryCommand  `cmd:"" help:"Read through the running peer: one statement."`
	Status statusCommand `cmd:"" help:"Show the running peer, its members and links."`
	Doctor doctorCommand `cmd:"" help:"Examine the network: signaling server, STUN, NAT, candidates, and a trial link to a member."`
	Verify verifyCommand `cmd:"" help:"Prove that the members' copies are equal to the running peer's, or name the rows that differ."`
	Wait   waitCommand   `cmd:"" help:"Wait until the running peer has links, or is in sync with them."`

	Simulate simulateCommand `cmd:"" help:"Let peers in this process write while packets are lost, the network splits and peers die; all must become equal."`
}

// run parses args and does what they say until ctx is done.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var cli commands
	vars := kong.Vars{"args_help": argumentHelp}
	return program.Run(ctx, &cli, "peer", description, vars, args, program.Output{Stdout: stdout, Stderr: stderr})
}
