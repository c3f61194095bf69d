package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crmesh/crmesh/pkg/crsql"
	"github.com/crmesh/crmesh/pkg/mesh"
)

// damage runs a statement on a database that is in use, past cr-sqlite's triggers.
func damage(t testing.TB, path, statement string) {
	t.Helper()
	db, err := sql.Open(crsql.DriverName, path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if _, err := db.Exec("SELECT crsql_internal_sync_bit(1); " + statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// TestVerify damages one database by hand in every way there is. Each row is named, and --repair mends what can be.
func TestVerify(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.signal()
	a := l.peer("a", l.write, "--schema", l.file("notes.sql", notes+`CREATE TABLE pair (x TEXT NOT NULL, y BLOB NOT NULL, v, PRIMARY KEY (x, y));
		SELECT crsql_as_crr('pair');`))
	if out, err := l.try("verify", "--api", a.api); err == nil || !strings.Contains(out, "no other member") {
		t.Errorf("alone: %v, %s", err, out)
	}
	b, c := l.peer("b", l.write), l.peer("c", l.read)
	a.exec("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) INSERT INTO note SELECT i, 'note ' || i, i FROM n")
	a.exec("INSERT INTO pair VALUES ('ä', x'00ff', 1.5), ('b', x'01', NULL)")
	b.exec("DELETE FROM note WHERE id % 10 = 0")
	for _, r := range []*replica{a, b, c} {
		r.synced(2)
	}
	if out := l.ok("verify", "--api", a.api); out != "identical on 2 of 2 members\n" {
		t.Fatalf("got %s", out)
	}

	damage(t, b.db, "UPDATE note SET body = 'rotten' WHERE id = 7")        // greater than what it was
	damage(t, b.db, "UPDATE pair SET v = 0.5 WHERE x = 'ä'")               // less
	damage(t, b.db, "DELETE FROM note WHERE id = 499")                     // gone, though its clocks are there
	damage(t, b.db, "DELETE FROM note__crsql_clock WHERE key IN (11, 20)") // forgotten, and a tombstone
	damage(t, b.db, "DELETE FROM note WHERE id = 11")                      // wholly
	damage(t, b.db, "UPDATE note__crsql_clock SET col_version = 3 WHERE key = 33 AND col_name = 'n'")
	out, err := l.try("verify", "--api", a.api)
	for _, want := range []string{
		"identical on 1 of 2 members\n", "note: 5 rows differ (500 rows here, 498 there)\n", "pair: 1 rows differ (2 rows here, 2 there)\n",
		"(7) other values", "('ä', x'00ff') other values", "(499) other values", "(11) only here", "(20) only here", "(33) newer there",
		"peer: not identical on 1 of 2 members",
	} {
		if want = strings.ReplaceAll(want, "'ä'", "ä"); !strings.Contains(out, want) {
			t.Errorf("%q is missing", want)
		}
	}
	if err == nil || t.Failed() {
		t.Fatalf("got %v, %s", err, out)
	}
	// A reader finds the same, and what one asks for one table only.
	if out, err := l.try("verify", "--api", c.api, "--table", "pair", "--rows", "0"); err == nil || !strings.Contains(out, "identical on 1 of 2") ||
		!strings.Contains(out, "... 1 more") || strings.Contains(out, "note:") {
		t.Errorf("got %v, %s", err, out)
	}

	if out, err = l.try("verify", "--api", a.api, "--repair"); err != nil || !strings.Contains(out, "identical on 2 of 2 members\n") ||
		!strings.Contains(out, ": identical; 6 rows repaired\n") {
		t.Fatalf("got %v, %s", err, out)
	}
	// What b had made of row 7 and 33 is the greater value, the higher version: a has it now, and c from one of them.
	if got := equal(t, "SELECT body, n FROM note WHERE id IN (7, 11, 33, 499) ORDER BY id", a, b); got != `"rotten" 7`+"\n"+`"note 11" 11`+"\n"+
		`"note 33" 33`+"\n"+`"note 499" 499` {
		t.Errorf("got %s", got)
	}
	if out, err := l.try("verify", "--api", a.api, "--repair"); err != nil {
		t.Errorf("got %v, %s", err, out)
	}
	for _, r := range []*replica{a, b, c} {
		if out := l.ok("verify", "--api", r.api, "--all"); out != "identical on 2 of 2 members\n" {
			t.Errorf("got %s", out)
		}
	}
}

// TestVerifyUnasked: where some could not be asked, nothing looks like a proof: not the exit code, and no line.
func TestVerifyUnasked(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.signal()
	a := l.peer("a", l.write, "--schema", l.file("notes.sql", notes))
	b, c := l.peer("b", l.read), l.peer("c", l.read)
	for _, r := range []*replica{b, c} {
		r.synced(1) // two readers are never linked
	}
	a.synced(2)
	const why = "both sides are readers, and two readers are never linked; ask at a writer"
	out, err := l.try("verify", "--api", b.api, "--all")
	lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	if code := exitCode(err); code != exitUnproved || len(lines) != 3 || lines[0] != "identical on 1 of 2 members; 1 not asked" ||
		!strings.HasSuffix(lines[1], " c: not linked, not asked: "+why) || lines[2] != "peer: identical on 1 of 2 members; 1 not asked: "+why {
		t.Errorf("exit code %d, %s", code, out)
	}
	if out := l.ok("verify", "--api", a.api, "--all"); out != "identical on 2 of 2 members\n" {
		t.Errorf("got %s", out)
	}
	damage(t, a.db, "INSERT INTO note VALUES (1, 'past', 1)") // what differs weighs more than what is not known
	if out, err := l.try("verify", "--api", b.api); exitCode(err) != 1 || !strings.Contains(out, "peer: not identical on 1 of 2 members\n") {
		t.Errorf("%v, %s", err, out)
	}
}

// TestVerdict: what is said of members that were not asked, or did not answer.
func TestVerdict(t *testing.T) {
	member := func(outcome mesh.VerifyOutcome, why string) verifyMember {
		return verifyMember{MemberReport: mesh.MemberReport{Outcome: outcome, Error: why}}
	}
	same := member(mesh.VerifyIdentical, "")
	for _, c := range []struct {
		members []verifyMember
		all     bool
		want    string
		proved  bool // nothing is unknown
	}{
		{[]verifyMember{same, same}, false, "", true},
		{nil, true, "the room has no other member: there is nothing to compare with", true},
		{[]verifyMember{same, member(mesh.VerifyNotLinked, "far"), member(mesh.VerifyNotLinked, "far")}, false,
			"identical on 1 of 3 members; 2 not asked: far; --all makes links for it", false},
		{[]verifyMember{same, member(mesh.VerifyNotLinked, "far"), member(mesh.VerifyNoAnswer, "slow")}, true,
			"identical on 1 of 3 members; 1 not asked: far; 1 without an answer: slow", false},
		{[]verifyMember{member(mesh.VerifyNotLinked, "1"), member(mesh.VerifyNotLinked, "2"), member(mesh.VerifyNotLinked, "3"), member(mesh.VerifyNotLinked, "4")},
			true, "identical on 0 of 4 members; 4 not asked: 1, 2, 3, and more", false},
		{[]verifyMember{member(mesh.VerifyUnsettled, ""), member(mesh.VerifyNotLinked, "far")}, true, "not identical on 1 of 2 members", true},
	} {
		r := &verifyReport{Total: len(c.members), Members: c.members}
		for _, m := range c.members {
			switch m.Outcome {
			case mesh.VerifyIdentical:
				r.Identical++
			case mesh.VerifyNotLinked:
				r.NotAsked++
			}
		}
		err := verdict(r, c.all)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if unproved := (*unprovedError)(nil); got != c.want || errors.As(err, &unproved) == c.proved {
			t.Errorf("got %q (%T), want %q", got, err, c.want)
		}
	}
}

// TestVerifyManyRows: of 100,000 rows 3 differ. They are found with few questions and few bytes.
func TestVerifyManyRows(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.signal()
	a := l.peer("a", l.write, "--schema", l.file("notes.sql", notes))
	b := l.peer("b", l.write)
	a.exec("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) INSERT INTO note SELECT i, 'note ' || i, i FROM n")
	a.synced(1)
	b.synced(1)
	damage(t, b.db, "UPDATE note SET body = 'rotten' WHERE id IN (3, 50000, 99999)")
	traffic := func() uint64 {
		var s mesh.Status
		if err := a.flags().call(context.Background(), "/v1/status", nil, &s); err != nil {
			t.Fatal(err)
		}
		return s.Members[0].BytesIn + s.Members[0].BytesOut
	}
	before := traffic()
	out, _ := exec.Command(filepath.Join(bin, "peer"), "verify", "--api", a.api, "--json").Output()
	bytes := traffic() - before
	var report verifyReport
	if err := json.Unmarshal(out, &report); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	m := report.Members[0]
	if m.Outcome != mesh.VerifyDifferent || m.Tables[0].Different != 3 || m.Tables[0].Ours != 100_000 || len(m.Tables[0].Rows) != 3 {
		t.Errorf("got %s", out)
	}
	t.Logf("%d questions, %d bytes", m.Questions, bytes)
	if m.Questions > 10 || bytes > 30_000 {
		t.Errorf("that took %d questions and %d bytes", m.Questions, bytes)
	}
}

// TestVerifyAPI: lines of JSON, the last of which is the report.
func TestVerifyAPI(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.signal()
	a := l.peer("a", l.write, "--schema", l.file("notes.sql", notes))
	b := l.peer("b", l.write)
	a.synced(1)
	b.synced(1)
	post := func(body string) (int, string) {
		t.Helper()
		request, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "http://"+a.api+"/v1/verify", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/json")
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = response.Body.Close() }()
		var out bytes.Buffer
		if _, err := out.ReadFrom(response.Body); err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, out.String()
	}
	damage(t, b.db, "INSERT INTO note VALUES (1, 'past', 1)")
	status, body := post("{}")
	lines := strings.Split(strings.TrimSpace(body), "\n")
	var last struct{ Report json.RawMessage }
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || status != 200 || len(lines) < 3 ||
		!strings.Contains(lines[0], `{"progress":{"peer":"`) ||
		!strings.Contains(string(last.Report), `"strayOurs":0,"strayTheirs":1,"different":0,"unsettled":0,"more":false,"rows":[]`) {
		t.Errorf("got %d, %v, %s", status, err, body)
	}
	for _, c := range []struct {
		body string
		want int
	}{
		{`{"table": "none"}`, 400}, {`{"rows": -1}`, 400}, {`{"rows": 100000}`, 400}, {`{"timeout": "1h"}`, 400}, {`{"tables": "x"}`, 400},
	} {
		if status, body := post(c.body); status != c.want || !strings.Contains(body, `{"error":"`) {
			t.Errorf("%s: got %d, %s", c.body, status, body)
		}
	}
}
