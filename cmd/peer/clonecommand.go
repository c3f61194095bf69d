package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/crmesh/crmesh/cmd/internal/program"
	"github.com/crmesh/crmesh/pkg/crsql"
)

// cloneReport is how often a person hears how far a clone is.
const cloneReport = 2 * time.Second

type cloneCommand struct {
	Source      string `arg:"" name:"source" help:"The database to copy; a running peer may have it open."`
	Destination string `arg:"" name:"destination" help:"A new file for the copy."`
	program.LogFlags
}

// Run copies the database, and says on stderr how far it is when that takes long.
func (c *cloneCommand) Run(ctx context.Context, out program.Output) error {
	report := cloneReporter{out: out.Stderr, last: time.Now()}
	err := crsql.Clone(ctx, c.Source, c.Destination, report.progress, crsql.Options{Logger: c.Logger(out)})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out.Stdout, "%s is a copy of %s with a site id of its own: peer run --db %s\n", c.Destination, c.Source, c.Destination)
	return err
}

type cloneReporter struct {
	out  io.Writer
	last time.Time
}

func (r *cloneReporter) progress(p crsql.CloneProgress) {
	if time.Since(r.last) < cloneReport || p.Total == 0 {
		return
	}
	r.last = time.Now()
	fmt.Fprintf(r.out, "copied %d of %d MiB\n", p.Done>>20, p.Total>>20)
}
