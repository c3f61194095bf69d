package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const notes = `CREATE TABLE note (id INTEGER PRIMARY KEY NOT NULL, body TEXT, n INTEGER);
SELECT crsql_as_crr('note');
`

func TestSyncBothWays(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.signal()
	a := l.peer("a", l.write, "--schema", l.file("notes.sql", notes))
	b := l.peer("b", l.write) // its tables come from a
	b.synced(1)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	edit(t, seed, 200, []*replica{a, b}, "note", "n", 40)
	a.synced(1)
	b.synced(1)
	if got := equal(t, "SELECT * FROM note ORDER BY id", a, b); strings.Count(got, "\n") < 5 {
		t.Errorf("only this is left: %s", got)
	}
	a.stop()
	eventually(t, "b knows that a left", func() bool {
		return !strings.Contains(l.ok("status", "--api", b.api), " open ")
	})
	b.stop()
	sameContent(t, a, b, "SELECT * FROM note ORDER BY id")
}

// edit makes so many edits at each peer at the same time: updates, deletes and inserts, of the first rows of a table whose key
// is id, so that both often touch the same.
func edit(t *testing.T, seed uint64, count int, peers []*replica, table, column string, rows int) {
	t.Helper()
	var wg sync.WaitGroup
	for i, p := range peers {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(i)))
			for n := range count {
				id := strconv.Itoa(1 + random.IntN(rows))
				var err error
				switch random.IntN(10) {
				case 0, 1:
					err = p.tryExec("DELETE FROM "+table+" WHERE id = ?", id)
				case 2, 3, 4:
					err = p.tryExec("INSERT INTO "+table+" (id, "+column+") VALUES (?, ?) ON CONFLICT DO NOTHING", id, strconv.Itoa(n))
				default:
					err = p.tryExec("UPDATE "+table+" SET "+column+" = ? WHERE id = ?", strconv.Itoa(n*10+i), id)
				}
				if err != nil {
					t.Errorf("peer %d, edit %d: %v", i, n, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// TestFullCities moves the sample database from one peer to another, and then lets both edit it at the same time.
func TestFullCities(t *testing.T) {
	world := filepath.Join("..", "..", ".cache", "sample", "world.sql")
	if _, err := os.Stat(world); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("the sample database is missing: make sample")
		}
		t.Skip("the sample database is missing: make sample")
	}
	l := newLab(t)
	l.signal()
	a := l.peer("a", l.write, "--schema", world)
	begun := time.Now()
	b := l.peer("b", l.write)
	b.synced(1)
	const counts = "SELECT (SELECT count(*) FROM cities), (SELECT count(*) FROM countries)"
	got := equal(t, counts, a, b)
	t.Logf("%s cities and countries in %v", got, time.Since(begun).Round(time.Millisecond))
	if cities, _ := strconv.Atoi(strings.Fields(got)[0]); cities < 100_000 {
		t.Fatalf("only %d cities", cities)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	edit(t, seed, 500, []*replica{a, b}, "cities", "population", 100)
	a.synced(1)
	b.synced(1)
	a.stop()
	b.stop()
	sameContent(t, a, b, "SELECT * FROM cities ORDER BY id", "SELECT * FROM countries ORDER BY code")
}

// TestSignalKilled: writes still flow when the signaling server is gone, and a new peer joins when it is back.
func TestSignalKilled(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	server := l.signal()
	a := l.peer("a", l.write, "--schema", l.file("notes.sql", notes))
	b := l.peer("b", l.write)
	b.synced(1)
	server.kill()
	a.exec("INSERT INTO note VALUES (1, 'without a server', 1)")
	b.exec("INSERT INTO note VALUES (2, 'nor from here', 2)")
	if got := equal(t, "SELECT count(*) FROM note", a, b); got != "2" {
		eventually(t, "both rows are everywhere", func() bool {
			return a.query("SELECT count(*) FROM note") == "2" && b.query("SELECT count(*) FROM note") == "2"
		})
	}
	l.signal()
	c := l.peer("c", l.write)
	c.synced(2)
	if got := equal(t, "SELECT id, body FROM note ORDER BY id", a, b, c); got != "1 \"without a server\"\n2 \"nor from here\"" {
		t.Errorf("got %s", got)
	}
}

// TestPeerKilledInBurst: what was acknowledged before SIGKILL is there afterwards, here and at the others.
func TestPeerKilledInBurst(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.signal()
	b := l.peer("b", l.write, "--schema", l.file("notes.sql", notes))
	next := 0
	for round := range 2 {
		a := l.peer("a", l.write)
		a.synced(1)
		var acknowledged []int
		killed := make(chan struct{})
		for len(acknowledged) < 300 {
			if len(acknowledged) == 150 {
				go func() { a.kill(); close(killed) }()
			}
			next++
			if err := a.tryExec("INSERT INTO note VALUES (?, 'burst', 0)", strconv.Itoa(next)); err != nil {
				break
			}
			acknowledged = append(acknowledged, next)
		}
		<-killed
		if len(acknowledged) < 150 {
			t.Fatalf("round %d: only %d writes", round, len(acknowledged))
		}
		a = l.peer("a", l.write)
		a.synced(1)
		b.synced(1)
		equal(t, "SELECT id FROM note ORDER BY id", a, b)
		have := "\n" + b.query("SELECT id FROM note ORDER BY id") + "\n"
		for _, id := range acknowledged {
			if !strings.Contains(have, fmt.Sprintf("\n%d\n", id)) {
				t.Errorf("round %d: the acknowledged row %d is lost", round, id)
			}
		}
		a.stop()
	}
}

// TestTypedValues passes every kind of value through a peer into another database and out of its API.
func TestTypedValues(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.signal()
	a := l.peer("a", l.write, "--schema", l.file("odd.sql", `
CREATE TABLE "größe 表" ("クラス" TEXT NOT NULL, "n" INTEGER NOT NULL, "значение", PRIMARY KEY ("クラス", "n"));
SELECT crsql_as_crr('größe 表');
`))
	b := l.peer("b", l.write)
	b.synced(1)
	insert := `INSERT INTO "größe 表" VALUES ('k', ?, `
	for i, v := range []string{"9223372036854775807", "-9223372036854775808", "9007199254740993", "0", "-1", "2.0", "1e300", "0.1", "null",
		"text:", "blob:", "text:5", "text:null", "blob:00ff00", "Ærøskøbing 表"} {
		a.exec(insert+"?)", strconv.Itoa(i), v)
	}
	a.exec(insert+"'a' || char(0) || 'b')", "100")
	a.exec(insert+"9e999)", "101")
	a.exec(insert+"CAST(x'ff41' AS TEXT))", "102")
	a.exec(insert+"zeroblob(10000000))", "103")
	a.synced(1)
	b.synced(1)
	want := `0 {"integer":"9223372036854775807"} "integer"
1 {"integer":"-9223372036854775808"} "integer"
2 {"integer":"9007199254740993"} "integer"
3 0 "integer"
4 -1 "integer"
5 2.0 "real"
6 1e+300 "real"
7 0.1 "real"
8 null "null"
9 "" "text"
10 {"blob":""} "blob"
11 "5" "text"
12 "null" "text"
13 {"blob":"AP8A"} "blob"
14 "Ærøskøbing 表" "text"
100 "a\u0000b" "text"
101 {"real":"Infinity"} "real"
102 {"text":"/0E="} "text"`
	got := b.query(`SELECT n, "значение", typeof("значение") FROM "größe 表" WHERE n < 103 ORDER BY n`)
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := b.query(`SELECT length("значение"), typeof("значение") FROM "größe 表" WHERE n = 103`); got != `10000000 "blob"` {
		t.Errorf("the large blob: %s", got)
	}
	if got := b.query(`SELECT "значение" FROM "größe 表" WHERE n = 103`); len(got) < 13_000_000 {
		t.Errorf("the large blob came back as %d bytes of JSON", len(got))
	}
	equal(t, `SELECT "クラス", n, hex("значение") FROM "größe 表" WHERE n < 103 ORDER BY n`, a, b)
}

// TestReader: a peer with the read link gets everything and writes nothing.
func TestReader(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.signal()
	a := l.peer("a", l.write, "--schema", l.file("notes.sql", notes))
	r := l.peer("r", l.read)
	a.exec("INSERT INTO note VALUES (1, 'x', 1)")
	a.synced(1)
	r.synced(1)
	if got := r.query("SELECT * FROM note"); got != `1 "x" 1` {
		t.Errorf("the reader has %q", got)
	}
	if err := r.tryExec("INSERT INTO note VALUES (2, 'y', 2)"); err == nil || !strings.Contains(err.Error(), "read link") {
		t.Errorf("the reader's write: %v", err)
	}
	if s := l.ok("status", "--api", a.api); !strings.Contains(s, "reader") {
		t.Errorf("the status does not say that it is a reader:\n%s", s)
	}
}

// TestServe: one process is signaling server, page and replica.
func TestServe(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	a := l.peer("a", l.write, "--schema", l.file("notes.sql", notes), "--serve", fmt.Sprintf("127.0.0.1:%d", l.port), "--stun", "off")
	eventually(t, "the invite link is printed", func() bool { return strings.Contains(a.out.String(), l.write) })
	b := l.peer("b", l.write)
	b.synced(1)
	b.exec("INSERT INTO note VALUES (1, 'x', 1)")
	b.synced(1)
	if got := equal(t, "SELECT count(*) FROM note", a, b); got != "1" {
		t.Errorf("got %s", got)
	}
	a.stop()
	b.stop()
}
