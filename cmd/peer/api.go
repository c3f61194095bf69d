package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/crmesh/crmesh/pkg/crsql"
	"github.com/crmesh/crmesh/pkg/crsql/changeset"
	"github.com/crmesh/crmesh/pkg/mesh"
)

// Bounds of the API.
const (
	maxRequest = 64 << 20 // bytes of a request's body
	maxAnswer  = 64 << 20 // bytes of a query's answer, about
	maxWait    = 10 * time.Minute
)

// api answers local programs. docs/API.md is its specification.
type api struct {
	db       *crsql.DB
	node     *mesh.Node
	missing  *missing
	writer   bool // whether the room lets us write
	loopback bool // it listens on loopback only
	log      *slog.Logger
}

type statement struct {
	SQL  string      `json:"sql"`
	Args []jsonValue `json:"args"`
}

func (s statement) values() []changeset.Value {
	out := make([]changeset.Value, len(s.Args))
	for i, a := range s.Args {
		out[i] = a.Value
	}
	return out
}

type execAnswer struct {
	RowsAffected int64     `json:"rowsAffected"`
	LastInsertID jsonValue `json:"lastInsertId"`
}

// apiError is an error with its HTTP status; the body is {"error": sentence}.
type apiError struct {
	status int
	err    error
}

func (e *apiError) Error() string { return e.err.Error() }
func (e *apiError) Unwrap() error { return e.err }

func (a *api) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/exec", a.answer(a.exec))
	mux.HandleFunc("POST /v1/query", a.answer(a.query))
	mux.HandleFunc("GET /v1/status", a.answer(a.status))
	mux.HandleFunc("GET /v1/wait", a.answer(a.wait))
	mux.HandleFunc("POST /v1/verify", a.verify)
	return a.guard(mux)
}

// guard refuses requests that a web page of somebody else may have made: with a foreign origin, or, by way of a name that
// suddenly leads to this machine (DNS rebinding), for a foreign host.
func (a *api) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !a.ownHost(r.Host):
			a.fail(w, &apiError{http.StatusForbidden, errors.New("the API answers requests for its own address only; use http://127.0.0.1:PORT")})
		case r.Header.Get("Origin") != "" && r.Header.Get("Origin") != "http://"+r.Host:
			a.fail(w, &apiError{http.StatusForbidden, errors.New("the API does not answer pages of other origins")})
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// ownHost accepts localhost and loopback addresses; where the API listens beyond loopback, any address, but no name.
func (a *api) ownHost(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(trimBrackets(host))
	return err == nil && (ip.IsLoopback() || !a.loopback)
}

func trimBrackets(host string) string {
	if len(host) > 2 && host[0] == '[' && host[len(host)-1] == ']' {
		return host[1 : len(host)-1]
	}
	return host
}

// answer turns what f returns into JSON.
func (a *api) answer(f func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxRequest)
		out, err := f(r)
		if err != nil {
			a.fail(w, err)
			return
		}
		a.write(w, http.StatusOK, out)
	}
}

func (a *api) fail(w http.ResponseWriter, err error) {
	status := http.StatusBadRequest
	var with *apiError
	switch {
	case errors.As(err, &with):
		status = with.status
	case errors.Is(err, mesh.ErrClosed), errors.Is(err, crsql.ErrClosed), errors.Is(err, crsql.ErrWriteLocked):
		status = http.StatusServiceUnavailable
	case errors.Is(err, crsql.ErrFull):
		status = http.StatusInsufficientStorage
	case errors.Is(err, crsql.ErrTooLarge):
		status = http.StatusRequestEntityTooLarge
	}
	a.write(w, status, map[string]string{"error": err.Error()})
}

func (a *api) write(w http.ResponseWriter, status int, out any) {
	var body bytes.Buffer
	encoder := json.NewEncoder(&body)
	encoder.SetEscapeHTML(false)
	if raw, ok := out.(rawAnswer); ok {
		body.Write(raw)
	} else if err := encoder.Encode(out); err != nil {
		a.log.Error("an answer of the API cannot be encoded", "err", err)
		status = http.StatusInternalServerError
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes()) // a client that has gone is not our concern
}

// rawAnswer is JSON already.
type rawAnswer []byte

// parseBody reads the body of a POST into out; like shows what it looks like.
func parseBody(r *http.Request, out any, like string) error {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return &apiError{http.StatusUnsupportedMediaType, errors.New("send JSON, with Content-Type: application/json")}
	}
	decoder := json.NewDecoder(r.Body)
	decoder.DisallowUnknownFields()
	err := decoder.Decode(out)
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return &apiError{http.StatusRequestEntityTooLarge, fmt.Errorf("a request has at most %d bytes", maxRequest)}
	case err != nil:
		return fmt.Errorf("the body is not %s: %w", like, err)
	}
	return nil
}

func parseStatement(r *http.Request) (statement, error) {
	var s statement
	err := parseBody(r, &s, `{"sql": ..., "args": [...]}`)
	if err == nil && s.SQL == "" {
		err = errors.New(`"sql" is missing`)
	}
	return s, err
}

func (a *api) exec(r *http.Request) (any, error) {
	s, err := parseStatement(r)
	if err != nil {
		return nil, err
	}
	if !a.writer {
		return nil, &apiError{http.StatusForbidden, errors.New("this peer was started with a read link: it cannot write; start it with the write link of the room")}
	}
	result, err := execute(r.Context(), a.db, s)
	if err != nil {
		return nil, err
	}
	return execAnswer{result.RowsAffected, jsonValue{changeset.Integer(result.LastInsertID)}}, nil
}

// query answers {"columns":[...],"rows":[[...],...]}. It is built before the status goes out, so that an error is one.
func (a *api) query(r *http.Request) (any, error) {
	s, err := parseStatement(r)
	if err != nil {
		return nil, err
	}
	rows := []byte{}
	columns, err := a.db.Query(r.Context(), s.SQL, s.values(), func(row []changeset.Value) error {
		if len(rows) > 0 {
			rows = append(rows, ',')
		}
		for i, v := range row {
			rows = append(rows, "[,"[min(i, 1)])
			rows = appendJSON(rows, v)
		}
		rows = append(rows, ']')
		if len(rows) > maxAnswer {
			return fmt.Errorf("%w for one answer, which has at most %d MB: add a LIMIT", crsql.ErrTooLarge, maxAnswer>>20)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if columns == nil {
		columns = []string{}
	}
	out := []byte(`{"columns":`)
	names, err := json.Marshal(columns)
	if err != nil {
		return nil, err
	}
	out = append(append(out, names...), `,"rows":[`...)
	return rawAnswer(append(append(out, rows...), "]}\n"...)), nil
}

func (a *api) status(r *http.Request) (any, error) {
	s, err := a.node.Status(r.Context())
	if err != nil {
		return nil, err
	}
	return peerStatus{s, a.missing.list(r.Context())}, nil
}

// wait answers the status once the condition holds, and 504 with an error if it does not in time.
func (a *api) wait(r *http.Request) (any, error) {
	var c mesh.Condition
	var err error
	q := r.URL.Query()
	if s := q.Get("links"); s != "" {
		if c.Links, err = strconv.Atoi(s); err != nil || c.Links < 0 {
			return nil, errors.New("links is not a number")
		}
	}
	if s := q.Get("synced"); s != "" {
		if c.Synced, err = strconv.ParseBool(s); err != nil {
			return nil, errors.New("synced is not true or false")
		}
	}
	timeout, err := parseTimeout(q.Get("timeout"), 30*time.Second)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	status, err := a.node.Wait(ctx, c)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, &apiError{http.StatusGatewayTimeout, a.notYet(r.Context(), timeout, c)}
	}
	return status, err
}

// parseTimeout reads a duration of at most maxWait; "" stands for the default.
func parseTimeout(s string, standard time.Duration) (time.Duration, error) {
	if s == "" {
		return standard, nil
	}
	timeout, err := time.ParseDuration(s)
	if err != nil || timeout <= 0 || timeout > maxWait {
		return 0, fmt.Errorf("timeout is not a duration like 30s, of at most %s", maxWait)
	}
	return timeout, nil
}

// notYet says what a wait lacked.
func (a *api) notYet(ctx context.Context, timeout time.Duration, c mesh.Condition) error {
	s, err := a.node.Status(ctx)
	if err != nil {
		return err
	}
	if s.Database.Error != "" {
		return fmt.Errorf("after %s the database cannot be used: %s", forPerson(timeout), s.Database.Error)
	}
	live := 0
	for _, m := range s.Members {
		if m.Live {
			live++
		}
	}
	if live < c.Links {
		return fmt.Errorf("after %s there are %d links, not %d", forPerson(timeout), live, c.Links)
	}
	return fmt.Errorf("after %s the peer is not in sync with its %d links", forPerson(timeout), live)
}

// forPerson is a duration as a person reads it: a client that waits for the peer first asks for what is left of its time.
func forPerson(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(time.Millisecond)
	}
	return d.Round(time.Second / 10)
}
