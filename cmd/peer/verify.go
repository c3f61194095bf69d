package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
	"github.com/crmesh/crmesh/pkg/mesh"
)

const (
	verifyRows    = 20               // rows that are listed, by default
	verifyTimeout = 60 * time.Second // by default
)

// verifyRequest is the body of POST /v1/verify.
type verifyRequest struct {
	Table   string `json:"table"`
	Repair  bool   `json:"repair"`
	All     bool   `json:"all"`
	Timeout string `json:"timeout"`
	Rows    *int   `json:"rows"`
}

// verifyLine is a line of its answer: one of the fields. The last line is a report or an error.
type verifyLine struct {
	Progress *mesh.VerifyProgress `json:"progress,omitempty"`
	Report   *verifyReport        `json:"report,omitempty"`
	Error    string               `json:"error,omitempty"`
}

// verifyReport is a mesh.VerifyReport whose keys are written as the API writes values.
type verifyReport struct {
	Identical int            `json:"identical"`
	NotAsked  int            `json:"notAsked"`
	Total     int            `json:"total"`
	Members   []verifyMember `json:"members"`
}

type verifyMember struct {
	mesh.MemberReport
	Tables []verifyTable `json:"tables"`
}

type verifyTable struct {
	mesh.TableReport
	Rows []verifyRow `json:"rows"`
}

type verifyRow struct {
	Key     []jsonValue    `json:"key"` // null: too long to be shown
	Place   string         `json:"place"`
	Better  mesh.RowBetter `json:"better"`
	Settled bool           `json:"settled"`
}

func toVerifyReport(r mesh.VerifyReport) *verifyReport {
	out := &verifyReport{Identical: r.Identical, NotAsked: r.NotAsked, Total: r.Total, Members: make([]verifyMember, len(r.Members))}
	for i, m := range r.Members {
		out.Members[i] = verifyMember{m, make([]verifyTable, len(m.Tables))}
		for j, t := range m.Tables {
			rows := make([]verifyRow, len(t.Rows))
			for k, row := range t.Rows {
				rows[k] = verifyRow{jsonValues(row.Key), row.Place, row.Better, row.Settled}
			}
			out.Members[i].Tables[j] = verifyTable{t, rows}
		}
	}
	return out
}

func jsonValues(values []changeset.Value) []jsonValue {
	if values == nil {
		return nil
	}
	out := make([]jsonValue, len(values))
	for i, v := range values {
		out[i] = jsonValue{v}
	}
	return out
}

// verify answers with lines of JSON, as they come: the status is 200 once the comparison has begun.
func (a *api) verify(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxRequest)
	q := verifyRequest{}
	if err := parseBody(r, &q, `{"table": ..., "repair": false, "all": false, "timeout": "60s", "rows": 20}`); err != nil {
		a.fail(w, err)
		return
	}
	timeout, err := parseTimeout(q.Timeout, verifyTimeout)
	if err != nil {
		a.fail(w, err)
		return
	}
	o := mesh.VerifyOptions{Table: q.Table, Repair: q.Repair, All: q.All, Rows: verifyRows}
	if q.Rows != nil {
		o.Rows = *q.Rows
	}
	if o.Rows < 0 || o.Rows > mesh.MaxVerifyRows {
		a.fail(w, fmt.Errorf("rows is 0 to %d", mesh.MaxVerifyRows))
		return
	}
	lines := verifyLines{w: w}
	o.Progress = func(p mesh.VerifyProgress) { lines.write(verifyLine{Progress: &p}) }
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	report, err := a.node.Verify(ctx, o)
	if o.Repair {
		a.missing.again()
	}
	switch {
	case err == nil:
		lines.write(verifyLine{Report: toVerifyReport(report)})
	case lines.begun:
		lines.write(verifyLine{Error: err.Error()})
	case errors.Is(err, mesh.ErrVerifying):
		a.fail(w, &apiError{http.StatusConflict, err})
	case errors.Is(err, context.DeadlineExceeded):
		a.fail(w, &apiError{http.StatusGatewayTimeout, err})
	default:
		a.fail(w, err)
	}
}

// verifyLines writes lines, and each of them at once. Verify calls it from one goroutine at a time.
type verifyLines struct {
	w     http.ResponseWriter
	begun bool
}

func (l *verifyLines) write(line verifyLine) {
	if !l.begun {
		l.begun = true
		l.w.Header().Set("Content-Type", "application/x-ndjson")
		l.w.Header().Set("X-Content-Type-Options", "nosniff")
		l.w.Header().Set("Cache-Control", "no-store")
	}
	encoder := json.NewEncoder(l.w)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(line) // a client that has gone is not our concern
	_ = http.NewResponseController(l.w).Flush()
}
