package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/crmesh/crmesh/cmd/internal/program"
	"github.com/crmesh/crmesh/pkg/mesh"
)

type verifyCommand struct {
	apiFlags
	JSON     bool          `name:"json" env:"CRMESH_JSON" help:"Print the report as JSON."`
	Repair   bool          `help:"Send rows that differ again, in both directions."`
	All      bool          `help:"Also ask members that have no link with this one: links are made for it. In a room of more than 12 most have none."`
	Table    string        `placeholder:"NAME" help:"Compare this table only."`
	Rows     int           `default:"20" help:"How many rows that differ are listed for each table of a member (${default})."`
	Timeout  time.Duration `default:"60s" help:"How long to wait for the members' answers (${default})."`
	Progress bool          `help:"Say on standard error what is being done."`
}

// Help is what --help says about the exit code.
func (*verifyCommand) Help() string {
	return `The exit code is 0 if all members were asked and all copies are identical, 1 if one is not, or nothing could be compared, and 2 if all
that answered are identical, but some were not asked or did not answer: that proves nothing about those.`
}

// exitUnproved is the exit code where nothing differs and not all have answered.
const exitUnproved = 2

// unprovedError says of whom it is not known whether their copies are identical.
type unprovedError struct{ text string }

func (e *unprovedError) Error() string { return e.text }

// Run prints what the members' copies are like, and returns an error unless all are identical.
func (c *verifyCommand) Run(ctx context.Context, out program.Output) error {
	var report *verifyReport
	var raw json.RawMessage
	var refused error
	request := verifyRequest{Table: c.Table, Repair: c.Repair, All: c.All, Timeout: c.Timeout.String(), Rows: &c.Rows}
	err := c.stream(ctx, "/v1/verify", request, func(d *json.Decoder) error {
		for {
			var line struct {
				verifyLine
				Report json.RawMessage `json:"report"`
			}
			if err := d.Decode(&line); err != nil {
				return err
			}
			switch {
			case line.Progress != nil && c.Progress:
				p := line.Progress
				fmt.Fprintf(out.Stderr, "%s %s: %s, %d questions, %d rows differ\n", p.Peer, printable(p.Name), p.Phase, p.Asked, p.Open)
			case line.Error != "":
				refused = errors.New(line.Error)
				return nil
			case line.Report != nil:
				raw = line.Report
				return json.Unmarshal(raw, &report)
			}
		}
	})
	if err = errors.Join(err, refused); err != nil {
		return err
	}
	if c.JSON {
		_, err = fmt.Fprintf(out.Stdout, "%s\n", raw)
	} else {
		err = printVerify(out.Stdout, report)
	}
	if err != nil {
		return err
	}
	return verdict(report, c.All)
}

// verdict returns an error where the copies were not found to be identical, all of them. all: links were to be made for it.
func verdict(r *verifyReport, all bool) error {
	differ := 0
	for _, m := range r.Members {
		if m.Outcome == mesh.VerifyDifferent || m.Outcome == mesh.VerifyUnsettled {
			differ++
		}
	}
	switch {
	case r.Total == 0:
		return errors.New("the room has no other member: there is nothing to compare with")
	case differ > 0:
		return fmt.Errorf("not identical on %d of %d members", differ, r.Total)
	case r.Identical < r.Total:
		text := summary(r, true)
		if r.NotAsked > 0 && !all {
			text += "; --all makes links for it"
		}
		return &unprovedError{text}
	}
	return nil
}

// summary is the result in one line, on request with why nothing is known of some.
func summary(r *verifyReport, withReasons bool) string {
	text := fmt.Sprintf("identical on %d of %d members", r.Identical, r.Total)
	for _, unknown := range []struct {
		outcome mesh.VerifyOutcome
		what    string
	}{{mesh.VerifyNotLinked, "not asked"}, {mesh.VerifyNoAnswer, "without an answer"}} {
		count, reasons := unknownOf(r, unknown.outcome)
		if count == 0 {
			continue
		}
		text += fmt.Sprintf("; %d %s", count, unknown.what)
		if withReasons {
			text += ": " + reasons
		}
	}
	return text
}

// maxReasons is how many different reasons one line repeats.
const maxReasons = 3

// unknownOf counts the members that have an outcome, and lists their reasons.
func unknownOf(r *verifyReport, outcome mesh.VerifyOutcome) (count int, reasons string) {
	var list []string
	for _, m := range r.Members {
		if m.Outcome != outcome {
			continue
		}
		count++
		if why := printable(m.Error); !slices.Contains(list, why) {
			list = append(list, why)
		}
	}
	if len(list) > maxReasons {
		list = append(list[:maxReasons], "and more")
	}
	return count, strings.Join(list, ", ")
}

func printVerify(w io.Writer, r *verifyReport) error {
	b := bufio.NewWriter(w)
	fmt.Fprintln(b, summary(r, false))
	for _, m := range r.Members {
		if m.Outcome == mesh.VerifyIdentical && m.Repaired == 0 {
			continue
		}
		fmt.Fprintf(b, "%s %s: %s\n", m.Peer, printable(m.Name), outcomeText(m.MemberReport))
		for _, t := range m.Tables {
			printVerifyTable(b, t)
		}
	}
	return b.Flush()
}

func outcomeText(m mesh.MemberReport) string {
	text := string(m.Outcome)
	if m.Outcome == mesh.VerifyNotLinked {
		text += ", not asked"
	}
	if m.Error != "" {
		text += ": " + printable(m.Error)
	}
	if m.Repaired > 0 {
		text += fmt.Sprintf("; %d rows repaired", m.Repaired)
	}
	return text
}

func printVerifyTable(w io.Writer, t verifyTable) {
	name := printable(t.Table)
	switch t.State {
	case mesh.TableOurs:
		fmt.Fprintf(w, "  %s: not there\n", name)
		return
	case mesh.TableTheirs:
		fmt.Fprintf(w, "  %s: only there\n", name)
		return
	case mesh.TableColumns:
		fmt.Fprintf(w, "  %s: other columns, so rows cannot be compared\n", name)
		return
	}
	more := ""
	if t.More {
		more = ", and more"
	}
	fmt.Fprintf(w, "  %s: %d rows differ%s (%d rows here, %d there)\n", name, t.Different+t.Unsettled, more, t.Ours, t.Theirs)
	if t.StrayOurs > 0 {
		fmt.Fprintf(w, "    %d rows here are not synced: they were written past cr-sqlite\n", t.StrayOurs)
	}
	if t.StrayTheirs > 0 {
		fmt.Fprintf(w, "    %d rows there are not synced: they were written past cr-sqlite\n", t.StrayTheirs)
	}
	for _, r := range t.Rows {
		fmt.Fprintf(w, "    %s %s\n", keyText(r), betterText(r))
	}
	if left := t.Different + t.Unsettled - len(t.Rows); left > 0 {
		fmt.Fprintf(w, "    ... %d more (--rows)\n", left)
	}
}

func keyText(r verifyRow) string {
	if r.Key == nil {
		return "(a long key, at " + r.Place + ")"
	}
	parts := make([]string, len(r.Key))
	for i, v := range r.Key {
		parts[i] = display(v.Value)
	}
	return "(" + strings.Join(parts, ", ") + ")"
}

func betterText(r verifyRow) string {
	text := map[mesh.RowBetter]string{
		mesh.OnlyOurs: "only here", mesh.OnlyTheirs: "only there", mesh.BetterOurs: "newer here",
		mesh.BetterTheirs: "newer there", mesh.BetterNone: "other values under the same versions",
	}[r.Better]
	if !r.Settled {
		text += ", still under way"
	}
	return text
}
