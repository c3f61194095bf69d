package main

import (
	"database/sql"
	"errors"
	"log/slog"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/crmesh/crmesh/pkg/crsql"
	"github.com/crmesh/crmesh/pkg/mesh"
	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
)

const noteSchema = "CREATE TABLE note (id INTEGER PRIMARY KEY NOT NULL, body);\nSELECT crsql_as_crr('note');\n"

// database is what a peer says of its database.
func (r *replica) database() mesh.DatabaseStatus {
	r.t.Helper()
	var s mesh.Status
	if err := r.flags().call(r.t.Context(), "/v1/status", nil, &s); err != nil {
		r.t.Fatal(err)
	}
	return s.Database
}

// TestFullDisk: a peer whose disk is full says so, stays, and goes on once there is room.
func TestFullDisk(t *testing.T) {
	disk := t.TempDir()
	mount := exec.Command("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk)
	if out, err := mount.CombinedOutput(); err != nil {
		t.Skipf("a small disk takes root: %v %s", err, out)
	}
	t.Cleanup(func() { command(t, "umount -l "+disk) })
	l := newLab(t)
	l.signal()
	a := l.peer("a", l.write, "--schema", l.file("schema.sql", noteSchema))
	there, err := filepath.Rel(l.dir, disk)
	if err != nil {
		t.Fatal(err)
	}
	b := l.peer(filepath.Join(there, "b"), l.write)
	a.synced(1)
	for range 30 {
		a.exec("INSERT INTO note (body) VALUES (zeroblob(100000))")
	}
	eventually(t, "the peer says that its disk is full", func() bool { return strings.Contains(b.database().Error, "free some space") })
	response, err := http.Post("http://"+b.api+"/v1/exec", "application/json", strings.NewReader(`{"sql": "INSERT INTO note (body) VALUES (zeroblob(900000))"}`))
	if err != nil {
		t.Fatal(err)
	}
	if _ = response.Body.Close(); response.StatusCode != http.StatusInsufficientStorage {
		t.Errorf("a local write is answered with %s", response.Status)
	}
	if out := l.ok("status", "--api", b.api); !strings.Contains(out, "free some space") {
		t.Errorf("the status does not tell:\n%s", out)
	}
	if out, err := l.try("wait", "--api", b.api, "--synced", "--timeout", "200ms"); err == nil || !strings.Contains(out, "free some space") {
		t.Errorf("peer wait says %v: %s", err, out)
	}
	command(t, "mount -o remount,size=64m "+disk)
	equal(t, "SELECT id, length(body) FROM note ORDER BY id", a, b)
	b.synced(1)
	if d := b.database(); d.Error != "" {
		t.Errorf("it says still: %s", d.Error)
	}
	a.stop()
	b.stop()
	sameContent(t, a, b)
}

// TestStoreLocked: another program that has written, and keeps the write lock, makes the mesh ask again, and ends no peer.
func TestStoreLocked(t *testing.T) {
	ctx := t.Context()
	db, err := crsql.Open(ctx, filepath.Join(t.TempDir(), "x.db"), crsql.Options{BusyTimeout: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	replica, err := crsql.OpenReplica(ctx, db)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.ExecScript(ctx, noteSchema); err != nil {
		t.Fatal(err)
	}
	other, err := sql.Open(crsql.DriverName, db.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	conn, err := other.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	for _, statement := range []string{"INSERT INTO note VALUES (1, 'theirs')", "BEGIN IMMEDIATE"} {
		if _, err := conn.ExecContext(ctx, statement); err != nil {
			t.Fatal(err)
		}
	}
	s := store{replica, slog.New(slog.DiscardHandler), crsql.AcceptAdditive, nil}
	for name, ask := range map[string]func() error{
		"State":  func() error { _, err := s.State(ctx); return err },
		"Heads":  func() error { _, err := s.Heads(ctx); return err },
		"Apply":  func() error { _, err := s.Apply(ctx, syncproto.ApplyRequest{}); return err },
		"Replay": func() error { return s.Replay(ctx) },
		"Renew":  func() error { return s.Renew(ctx, "a test asks for it") },
		"Read": func() error {
			_, err := s.Read(ctx, syncproto.ReadRequest{MaxBytes: 1, MaxChanges: 1, Decide: func(syncproto.SiteID, int64) syncproto.Decision { return syncproto.DecideSend }})
			return err
		},
		"Digest": func() error { _, err := s.Digest(ctx, syncproto.DigestRequest{}); return err },
		"Rows":   func() error { _, err := s.Rows(ctx, "note", nil, 1); return err },
	} {
		var unavailable *mesh.UnavailableError
		if err := ask(); err != nil && !errors.As(err, &unavailable) || err == nil && name != "Digest" && name != "Rows" {
			t.Errorf("%s: %v", name, err)
		}
	}
}
