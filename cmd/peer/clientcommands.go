package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/crmesh/crmesh/cmd/internal/program"
	"github.com/crmesh/crmesh/pkg/mesh"
)

const argumentHelp = "Values of the statement's parameters: numbers as they are, null, text:..., blob:HEX; anything else is text."

type execCommand struct {
	apiFlags
	SQL  string   `arg:"" name:"sql" help:"One statement that writes. Write -- before it if a value begins with a minus."`
	Args []string `arg:"" optional:"" help:"${args_help}"`
}

type queryCommand struct {
	apiFlags
	JSON bool     `name:"json" env:"CRMESH_JSON" help:"Print JSON as the API answers it."`
	SQL  string   `arg:"" name:"sql" help:"One statement that reads."`
	Args []string `arg:"" optional:"" help:"${args_help}"`
}

type statusCommand struct {
	apiFlags
	JSON bool `name:"json" env:"CRMESH_JSON" help:"Print JSON as the API answers it."`
}

type waitCommand struct {
	apiFlags
	Links   int           `help:"Wait for at least so many live links."`
	Synced  bool          `help:"Wait until nothing is left to send or to receive."`
	Timeout time.Duration `default:"30s" help:"How long to wait, also for the peer to answer at all (${default})."`
}

func makeStatement(sql string, args []string) (statement, error) {
	s := statement{SQL: sql, Args: make([]jsonValue, len(args))}
	for i, a := range args {
		v, err := parseArgument(a)
		if err != nil {
			return s, err
		}
		s.Args[i] = jsonValue{v}
	}
	return s, nil
}

// Run prints how many rows the statement wrote.
func (c *execCommand) Run(ctx context.Context, out program.Output) error {
	s, err := makeStatement(c.SQL, c.Args)
	if err != nil {
		return err
	}
	var answer execAnswer
	if err := c.call(ctx, "/v1/exec", s, &answer); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out.Stdout, "%d rows\n", answer.RowsAffected)
	return err
}

// Run prints the rows, as a table or as JSON.
func (c *queryCommand) Run(ctx context.Context, out program.Output) error {
	s, err := makeStatement(c.SQL, c.Args)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(ctx, c.apiFlags, "/v1/query", s, out.Stdout)
	}
	var answer struct {
		Columns []string      `json:"columns"`
		Rows    [][]jsonValue `json:"rows"`
	}
	if err := c.call(ctx, "/v1/query", s, &answer); err != nil {
		return err
	}
	t := newTable(answer.Columns...)
	for _, row := range answer.Rows {
		cells := make([]string, len(row))
		for i, v := range row {
			cells[i] = display(v.Value)
		}
		t.add(cells...)
	}
	return t.print(out.Stdout)
}

// Run prints the status, for a person or as JSON.
func (c *statusCommand) Run(ctx context.Context, out program.Output) error {
	if c.JSON {
		return printJSON(ctx, c.apiFlags, "/v1/status", nil, out.Stdout)
	}
	var s peerStatus
	if err := c.call(ctx, "/v1/status", nil, &s); err != nil {
		return err
	}
	return printStatus(out.Stdout, s)
}

// Run returns once the condition holds.
func (c *waitCommand) Run(ctx context.Context) error {
	if c.Timeout <= 0 || c.Timeout > maxWait {
		return fmt.Errorf("--timeout is at most %s", maxWait)
	}
	deadline := time.Now().Add(c.Timeout)
	return untilThere(ctx, deadline, func() error {
		left := max(time.Until(deadline), 100*time.Millisecond)
		path := "/v1/wait?" + query("links", strconv.Itoa(c.Links), "synced", strconv.FormatBool(c.Synced), "timeout", left.String())
		var s mesh.Status
		return c.call(ctx, path, nil, &s)
	})
}

// printJSON passes an answer on as it is, byte for byte.
func printJSON(ctx context.Context, f apiFlags, path string, body any, w io.Writer) error {
	var raw json.RawMessage
	if err := f.call(ctx, path, body, &raw); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "%s\n", raw)
	return err
}
