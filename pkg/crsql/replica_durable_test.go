package crsql

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// children are the parts that another process plays, see TestMain.
var children = map[string]func(args []string) error{
	"burst":  burst,
	"insert": insertElsewhere,
}

// child starts a process that plays a part.
func child(t testing.TB, part string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), childVar+"="+part)
	return cmd
}

// burst writes and applies until it is killed, and prints each local version once it is durable.
func burst(args []string) error {
	ctx := context.Background()
	db, err := Open(ctx, args[0], Options{})
	if err != nil {
		return err
	}
	r, err := OpenReplica(ctx, db)
	if err != nil {
		return err
	}
	for i := int64(1); ; i++ {
		if _, err := db.Exec(ctx, "INSERT INTO note (id, title) VALUES (?, 'own')", values(2*i)...); err != nil {
			return err
		}
		heads, err := r.Heads(ctx)
		if err != nil {
			return err
		}
		fmt.Println(heads.Newest)
		result, err := r.Apply(ctx, ApplyRequest{
			Groups: []Group{{Origin: siteX, Version: i, Changes: []changeset.Change{title(2*i+1, "theirs", 1)}}},
			Claims: map[changeset.SiteID]int64{siteX: i},
		})
		if err != nil {
			return err
		}
		fmt.Println(result.Ls[0])
	}
}

// TestKill: what was durable is there after the process was killed in the middle of a burst, and a claim is there with
// what it claims.
func TestKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "killed")
	n := openNode(t, path)
	n.script(noteSQL)
	if err := n.db.Close(); err != nil {
		t.Fatal(err)
	}
	last := int64(0)
	for round := range 3 {
		cmd := child(t, "burst", path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for seen := 0; seen < 20+7*round && lines.Scan(); seen++ {
			if last, err = strconv.ParseInt(lines.Text(), 10, 64); err != nil {
				t.Fatal(err)
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() { // what it had said before it died
			if l, err := strconv.ParseInt(lines.Text(), 10, 64); err == nil {
				last = l
			}
		}
		_ = cmd.Wait() // it was killed
		if last < 20 {
			t.Fatalf("round %d: it got to %d only", round, last)
		}
		n := openNode(t, path)
		state := n.state()
		if state.Heads.Newest < last {
			t.Errorf("round %d: version %d was durable, and %d is the newest", round, last, state.Heads.Newest)
		}
		theirs := n.query("SELECT max(id) FROM note WHERE title = 'theirs'")
		if want := fmt.Sprint(2*state.Vector[siteX]+1) + " "; theirs[0] != want {
			t.Errorf("round %d: the vector claims up to row %s, and %s is there", round, want, theirs[0])
		}
		n.exec("DELETE FROM note")
		last = n.state().Heads.Newest
		n.exec("DELETE FROM crmesh_vector")
		if err := n.db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestHighWater: a version that was reported does not come back, though the table that had it is gone.
func TestHighWater(t *testing.T) {
	path := filepath.Join(t.TempDir(), "n")
	n := openNode(t, path)
	n.script(noteSQL + ";" + tagSQL)
	n.exec("INSERT INTO tag VALUES ('x')")
	n.exec("INSERT INTO note (id) VALUES (1)")
	n.apply(Group{Origin: siteX, Version: 1, Changes: []changeset.Change{title(3, "a", 1)}})
	n.exec("INSERT INTO note (id) VALUES (2)")
	if heads := n.state().Heads; heads != (Heads{Own: 4, Newest: 4}) {
		t.Fatalf("heads %+v", heads)
	}
	drop := "DROP TABLE note; DROP TABLE note__crsql_clock; DROP TABLE note__crsql_pks"
	for _, reopen := range []bool{false, true} {
		t.Run(fmt.Sprint("reopen ", reopen), func(t *testing.T) {
			n, want := n, int64(5)
			if reopen {
				// Another program drops it, while no replica is there to notice.
				n.script(noteSQL + "; INSERT INTO note (id) VALUES (1)")
				want = n.state().Heads.Newest + 1
				if err := n.db.Close(); err != nil {
					t.Fatal(err)
				}
				other, err := sql.Open("sqlite3", path)
				if err != nil {
					t.Fatal(err)
				}
				for range 2 { // closing the pool waits for nothing else
					if _, err := other.Exec("DROP TABLE IF EXISTS note; DROP TABLE IF EXISTS note__crsql_clock; DROP TABLE IF EXISTS note__crsql_pks"); err != nil {
						t.Fatal(err)
					}
				}
				if err := other.Close(); err != nil {
					t.Fatal(err)
				}
				n = openNode(t, path)
			} else {
				n.script(drop)
			}
			if heads := n.state().Heads; heads.Own != want-1 || heads.Newest >= want-1 {
				t.Errorf("after the drop: heads %+v", heads)
			}
			n.exec("INSERT INTO tag VALUES (?)", fmt.Sprint("y", reopen))
			if heads := n.state().Heads; heads != (Heads{Own: want, Newest: want}) {
				t.Errorf("the next commit: heads %+v, want %d", heads, want)
			}
		})
	}
}

// TestNothingChanged: an update that changes nothing raises the stock engine's db_version in memory. It is no version.
func TestNothingChanged(t *testing.T) {
	n := newNode(t, "n")
	n.script(noteSQL)
	n.exec("INSERT INTO note (id, n) VALUES (1, 1)")
	n.exec("UPDATE note SET n = 1")
	if heads := n.state().Heads; heads != (Heads{Own: 1, Newest: 1}) {
		t.Errorf("heads %+v", heads)
	}
}

// insertElsewhere writes a note through database/sql, as another program does.
func insertElsewhere(args []string) error {
	db, err := sql.Open(DriverName, args[0])
	if err != nil {
		return err
	}
	if _, err := db.Exec("INSERT INTO note (id, title) VALUES (?, 'elsewhere')", args[1]); err != nil {
		return err
	}
	return db.Close()
}

func TestCommits(t *testing.T) {
	n := newNode(t, "n")
	n.script(noteSQL)
	commit := func(what string) {
		t.Helper()
		select {
		case <-n.Commits():
		case <-time.After(time.Minute):
			t.Fatalf("%s was not noticed", what)
		}
	}
	commit("the schema")
	n.exec("INSERT INTO note (id) VALUES (1)")
	commit("our own commit")
	if out, err := child(t, "insert", n.path, "2").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	commit("another process' commit")
	if heads := n.state().Heads; heads != (Heads{Own: 2, Newest: 2}) {
		t.Errorf("heads %+v", heads)
	}
	// It is found as an entry of this database, also by a read that comes before anybody asks for the state.
	if out, err := child(t, "insert", n.path, "3").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	got := n.read(all(Position{L: 2, Seq: EntryEnd}))
	if len(got.Entries) != 1 || got.Entries[0].Origin != n.state().Site || got.Heads != (Heads{Own: 3, Newest: 3}) {
		t.Errorf("got %+v", got)
	}
	commit("another process' second commit")
	n.apply(Group{Origin: siteX, Version: 1, Changes: []changeset.Change{title(9, "x", 1)}})
	time.Sleep(3 * PollInterval) // nothing to wait for: the poll must stay silent
	select {
	case <-n.Commits():
		t.Error("Apply was announced as a commit")
	default:
	}
}

// TestApplyAfterOthers: what another program committed just before an Apply is an entry of this database, and announced.
func TestApplyAfterOthers(t *testing.T) {
	n := newNode(t, "n")
	n.script(noteSQL)
	other, err := sql.Open(DriverName, n.path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	<-n.Commits() // the schema
	if _, err := other.Exec("INSERT INTO note (id) VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	got := n.apply(Group{Origin: siteX, Version: 1, Changes: []changeset.Change{title(9, "x", 1)}})
	if got.Ls[0] != 2 || got.Heads != (Heads{Own: 1, Newest: 2}) {
		t.Errorf("got %+v", got)
	}
	select {
	case <-n.Commits():
	case <-time.After(time.Minute):
		t.Error("the commit was not announced")
	}
}
