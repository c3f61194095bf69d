package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/pion/transport/v5"
	"github.com/pion/transport/v5/stdnet"

	"github.com/crmesh/crmesh/cmd/internal/program"
	"github.com/crmesh/crmesh/pkg/mesh"
	"github.com/crmesh/crmesh/pkg/signaling"
)

// Bounds of the doctor's checks. All of them together take about a minute at worst.
const (
	serverTimeout = 10 * time.Second       // each step towards a signaling server
	stunTimeout   = 3 * time.Second        // each address of a STUN server, and each TURN server
	stunRepeat    = 500 * time.Millisecond // between the requests to one
	gatherTimeout = 10 * time.Second
	trialTimeout  = mesh.AttemptTimeout + 5*time.Second // the trial link; the mesh gives an attempt up a little earlier
	maxMapped     = 8                                   // addresses of STUN servers that are asked
	maxRelays     = 8                                   // addresses of TURN servers that are asked
)

type doctorCommand struct {
	Link       string   `arg:"" optional:"" name:"link" help:"The room's link, write or read: the doctor joins for some seconds and tries a link to a member. On a machine with other users, set CRMESH_ROOM instead."`
	Signal     []string `placeholder:"URL" sep:"," help:"Signaling servers; by default the one in the link."`
	JoinToken  string   `placeholder:"TOKEN" help:"Shown to a signaling server that asks for a join token; by default the one in the link."`
	ICEServers []string `name:"ice-server" placeholder:"URL" sep:" " help:"STUN and TURN servers to try besides those of the signaling server, as for peer run."`
	RelayOnly  bool     `name:"relay-only" help:"Try the link over TURN relays only, as peer run --relay-only makes it."`
	JSON       bool     `name:"json" help:"Print the findings as JSON, once all are there."`
}

// finding is the result of one check.
type finding struct {
	Check  string `json:"check"` // server, join, stun, nat, turn, candidates, link
	OK     bool   `json:"ok"`
	Found  string `json:"found"`            // one sentence
	Advice string `json:"advice,omitempty"` // one sentence: what a person can do
}

// doctor carries out the checks. It opens no database.
type doctor struct {
	urls      []string
	token     string         // for joining, or ""
	keys      signaling.Keys // zero: no room
	servers   []signaling.ICEServer
	relayOnly bool
	net       transport.Net // nil: that of the machine
	log       *slog.Logger
	show      func(finding)
	doing     func(string)

	serverTimeout, stunTimeout, gatherTimeout, trialTimeout time.Duration

	unjoined bool // there is a signaling server, and it did not take us in
	findings []finding
}

// Run makes all checks. It is an error if one of them found a fault.
func (c *doctorCommand) Run(ctx context.Context, out program.Output) error {
	d := &doctor{
		urls: c.Signal, token: c.JoinToken, relayOnly: c.RelayOnly, log: slog.New(slog.DiscardHandler),
		serverTimeout: serverTimeout, stunTimeout: stunTimeout, gatherTimeout: gatherTimeout, trialTimeout: trialTimeout,
		doing: func(what string) { fmt.Fprintf(out.Stderr, "... %s\n", what) },
		show: func(f finding) {
			if !c.JSON {
				printFinding(out.Stdout, f)
			}
		},
	}
	if c.Link == "" {
		c.Link = os.Getenv("CRMESH_ROOM")
	}
	if c.Link != "" {
		link, err := signaling.ParseLink(c.Link)
		if err != nil {
			return err
		}
		d.keys, d.token = link.Keys, cmp.Or(c.JoinToken, link.Token)
		if len(d.urls) == 0 && link.Base != "" {
			d.urls = []string{link.Base}
		}
	}
	for _, u := range d.urls {
		if _, err := signaling.WebSocketURL(u); err != nil {
			return err
		}
	}
	flags := portFlags{ICEServers: c.ICEServers}
	network, err := flags.parse()
	if err != nil {
		return err
	}
	d.servers = network.servers
	if len(d.urls) == 0 && len(d.servers) == 0 {
		return errors.New("there is nothing to examine: name the room's link, a signaling server with --signal, or a server with --ice-server")
	}
	if err := d.examine(ctx); err != nil {
		return err
	}
	faults := 0
	for _, f := range d.findings {
		if !f.OK {
			faults++
		}
	}
	if c.JSON {
		encoder := json.NewEncoder(out.Stdout)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(map[string]any{"ok": faults == 0, "findings": d.findings}); err != nil {
			return err
		}
	}
	if faults > 0 {
		return fmt.Errorf("%d of %d findings are faults", faults, len(d.findings))
	}
	return nil
}

// examine makes the checks in the order in which a link comes about. It returns an error only when ctx ends, or the machine
// does not let it look.
func (d *doctor) examine(ctx context.Context) error {
	n := d.net
	if n == nil {
		std, err := stdnet.NewNet()
		if err != nil {
			return fmt.Errorf("the network interfaces cannot be listed: %w", err)
		}
		n = std
	}
	for _, u := range d.urls {
		d.reach(ctx, u)
	}
	named := len(d.servers)
	room := d.join(ctx)
	if room != nil {
		defer room.close()
		d.servers = append(d.servers, room.servers...)
	}
	d.unjoined = len(d.urls) > 0 && room == nil
	d.stun(ctx, n)
	d.turn(ctx, n, named)
	d.candidates(ctx)
	if room != nil {
		d.trial(ctx, room)
	}
	return ctx.Err()
}

func (d *doctor) good(check, format string, args ...any) {
	d.add(finding{Check: check, OK: true, Found: fmt.Sprintf(format, args...)})
}

func (d *doctor) bad(check, advice, format string, args ...any) {
	d.add(finding{Check: check, Found: fmt.Sprintf(format, args...), Advice: advice})
}

func (d *doctor) add(f finding) {
	d.findings = append(d.findings, f)
	d.show(f)
}

func printFinding(w io.Writer, f finding) {
	mark := "ok   "
	if !f.OK {
		mark = "FAULT"
	}
	fmt.Fprintf(w, "%s  %-10s  %s\n", mark, f.Check, printable(f.Found))
	if f.Advice != "" {
		fmt.Fprintf(w, "                   -> %s\n", f.Advice)
	}
}
