package crsql

import (
	"database/sql/driver"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// How many transactions each engine commits in TestAtTheSameTime unless CRMESH_COMMITS says otherwise.
const defaultCommits = 200

const sharedSQL = `CREATE TABLE mark (id TEXT PRIMARY KEY NOT NULL, n INTEGER)
CREATE TABLE note (id INTEGER PRIMARY KEY NOT NULL, a, b)
CREATE TABLE merged (id TEXT PRIMARY KEY NOT NULL, site TEXT)`

// A sharer writes to a file that others write to at the same time.
type sharer struct {
	*engineDB
	place    int // in the pace
	rng      *rand.Rand
	versions map[string]int64 // of each transaction that was acknowledged, by its mark
}

// A pace keeps two runners side by side: neither gets more than a few steps ahead. Without it one of them is through
// before the other has begun.
type pace struct {
	mu    sync.Mutex
	moved sync.Cond
	steps [2]int
}

const maxAhead = 2

// step waits until runner i may go on, and counts its step.
func (p *pace) step(i int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.steps[i] >= p.steps[1-i]+maxAhead {
		p.moved.Wait()
	}
	p.steps[i]++
	p.moved.Broadcast()
}

// finish lets the other runner go on alone.
func (p *pace) finish(i int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.steps[i] = math.MaxInt / 2
	p.moved.Broadcast()
}

// TestAtTheSameTime: two processes, one with each engine, write to one file at the same time. Nothing that was
// acknowledged is lost, no two transactions get one version, and neither works with what the other has made obsolete:
// the version, the schema, the numbers of sites.
func TestAtTheSameTime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	theirs := openTheirs(t, path)
	share(t, path, openOurs(t, fast(path)), theirs)
}

// share lets two connections write to the file at path, which are open on it, while a third one reads.
func share(t *testing.T, path string, a, b *engineDB) {
	commits := envInt(t, "CRMESH_COMMITS", defaultCommits)
	if testing.Short() {
		commits /= 10
	}
	for _, sql := range strings.Split(sharedSQL, "\n") {
		a.run(sql)
		a.run("SELECT crsql_as_crr(?)", strings.Fields(sql)[2])
	}
	reader, done := openOurs(t, fast(path)), make(chan struct{})
	for _, d := range []*engineDB{a, b, reader} {
		d.run("PRAGMA busy_timeout=0") // SQLite's waiting is long: the other would have finished before the second turn
	}
	var sharers []*sharer
	var writing sync.WaitGroup
	errs := make(chan error, 3)
	p := &pace{}
	p.moved.L = &p.mu
	for i, d := range []*engineDB{a, b} {
		s := &sharer{engineDB: d, place: i, rng: rand.New(rand.NewPCG(uint64(i), 7)), versions: make(map[string]int64)}
		sharers = append(sharers, s)
		writing.Go(func() { errs <- s.commits(p, commits) })
	}
	var reading sync.WaitGroup
	reading.Go(func() { errs <- follow(reader, done) })
	writing.Wait()
	close(done)
	reading.Wait()
	for range 3 {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}

	tables := []string{"mark", "note", "merged", "late_" + a.name, "late_" + b.name}
	states := []string{"SELECT * FROM crsql_changes", "SELECT * FROM crsql_site_id", "SELECT crsql_db_version()", masterSQL}
	for _, table := range tables {
		states = append(states, "SELECT * FROM "+table)
	}
	for _, sql := range states {
		if a, b := a.text(sql), b.text(sql); a != b {
			t.Errorf("%s\none reads\n%s\nthe other\n%s", sql, a, b)
		}
	}
	for _, d := range []*engineDB{a, b, reader} {
		d.check(tables...)
	}
	takenBy := map[int64]string{}
	for _, s := range sharers {
		stored := map[string]int64{}
		for _, row := range a.run("SELECT m.id, c.db_version FROM mark AS m JOIN mark__crsql_pks AS k ON k.id = m.id JOIN mark__crsql_clock AS c ON c.key = k.__crsql_key") {
			stored[string(row[0].Bytes())] = row[1].Int64()
		}
		if len(s.versions) != commits {
			t.Errorf("%s: %d commits", s.name, len(s.versions))
		}
		for mark, version := range s.versions {
			if stored[mark] != version {
				t.Errorf("%s was committed with version %d, and is stored with %d", mark, version, stored[mark])
			}
			if other := takenBy[version]; other != "" {
				t.Errorf("%s and %s have version %d", mark, other, version)
			}
			takenBy[version] = mark
		}
	}
	for _, row := range a.run("SELECT k.id, c.db_version FROM merged__crsql_pks AS k JOIN merged__crsql_clock AS c ON c.key = k.__crsql_key WHERE k.id LIKE 'alone %'") {
		mark, version := string(row[0].Bytes()), row[1].Int64()
		if other := takenBy[version]; other != "" {
			t.Errorf("%s and %s have version %d", mark, other, version)
		}
		takenBy[version] = mark
	}
	if len(takenBy) != 4*commits {
		t.Errorf("%d versions", len(takenBy))
	}
	for _, row := range a.run("SELECT DISTINCT db_version FROM crsql_changes") {
		if takenBy[row[0].Int64()] == "" {
			t.Errorf("nobody's transaction has version %d", row[0].Int64())
		}
	}
	if got := a.text(`SELECT val, hex(site_id) FROM crsql_changes WHERE "table" = 'merged' AND val IS NOT hex(site_id)`); got != "" {
		t.Errorf("changes of another site than they had:\n%s", got)
	}
	if n := a.int(`SELECT count(*) FROM crsql_changes WHERE "table" = 'merged'`); n < int64(commits)/4 {
		t.Errorf("%d changes were merged only", n)
	}
	turns := 0
	for version := int64(2); takenBy[version] != ""; version++ {
		if strings.Contains(takenBy[version], a.name) != strings.Contains(takenBy[version-1], a.name) {
			turns++
		}
	}
	t.Logf("%d transactions, %d times after one of the other's", len(takenBy), turns)
	if turns < commits/20 {
		t.Errorf("the two did not write at the same time: %d turns", turns)
	}
}

// follow reads until done is closed. What it sees never falls, and is of one moment.
func follow(d *engineDB, done chan struct{}) error {
	last := int64(0)
	for {
		select {
		case <-done:
			return nil
		default:
		}
		rows, err := patiently(d, "SELECT crsql_db_version(), max(db_version) FROM crsql_changes")
		if err != nil {
			return fmt.Errorf("while others write: %w", err)
		}
		version, newest := rows[0][0].Int64(), rows[0][1].Int64()
		if version != newest || version < last {
			return fmt.Errorf("the db_version is %d, of the changes %d, and was %d", version, newest, last)
		}
		last = version
	}
}

// patiently runs a statement until nobody else is in the way.
func patiently(d *engineDB, sql string, args ...any) ([][]changeset.Value, error) {
	deadline := time.Now().Add(time.Minute)
	for {
		rows, err := d.try(sql, args...)
		if err == nil || !strings.Contains(err.Error(), "is locked") || time.Now().After(deadline) {
			return rows, err
		}
	}
}

func (s *sharer) commits(p *pace, n int) error {
	defer p.finish(s.place)
	for i := range n {
		p.step(s.place)
		mark := fmt.Sprintf("%s-%d", s.name, i)
		if i == n/3 { // in a transaction of its own: the original knows of no CRR that is made after a write to another
			if err := s.transaction(s.create); err != nil {
				return fmt.Errorf("a table of %s: %w", s.name, err)
			}
		}
		version := int64(0)
		err := s.transaction(func() error {
			if err := s.write(mark, i); err != nil {
				return err
			}
			rows, err := s.try("SELECT crsql_next_db_version()")
			if err == nil {
				version = rows[0][0].Int64()
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("%s: %w", mark, err)
		}
		s.versions[mark] = version
		if _, err := patiently(s.engineDB, mergeSiteSQL, s.site(i, "alone "+mark)...); err != nil { // as a statement of its own
			return fmt.Errorf("%s: %w", mark, err)
		}
	}
	return nil
}

const mergeSiteSQL = "INSERT INTO crsql_changes VALUES ('merged', crsql_pack_columns(?), 'site', ?, 1, 0, ?, 1, 0)"

// site returns the arguments of mergeSiteSQL, for one of some sites, of which there are more as i rises.
func (s *sharer) site(i int, key string) []any {
	site := []byte(fmt.Sprintf("site %011d", s.rng.IntN(1+i/4)))
	return []any{key, strings.ToUpper(hex.EncodeToString(site)), site}
}

func (s *sharer) transaction(f func() error) error {
	if _, err := patiently(s.engineDB, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	if err := f(); err != nil {
		return err
	}
	_, err := patiently(s.engineDB, "COMMIT")
	return err
}

func (s *sharer) create() error {
	if _, err := s.try("CREATE TABLE late_" + s.name + " (id TEXT PRIMARY KEY NOT NULL, v)"); err != nil {
		return err
	}
	_, err := s.try("SELECT crsql_as_crr('late_" + s.name + "')")
	return err
}

// write runs the statements of a transaction.
func (s *sharer) write(mark string, i int) (err error) {
	run := func(sql string, args ...any) {
		if err == nil {
			_, err = s.try(sql, args...)
			if err != nil {
				err = errors.Join(errors.New(sql), err)
			}
		}
	}
	run("INSERT INTO mark VALUES (?, ?)", mark, i)
	late, lookErr := s.try("SELECT name FROM sqlite_master WHERE type = 'table' AND name IN ('late_ours', 'late_theirs')")
	if lookErr != nil {
		return lookErr
	}
	for _, row := range late {
		run("INSERT INTO "+string(row[0].Bytes())+" VALUES (?, ?)", mark, i)
	}
	key, other := s.rng.IntN(20), s.rng.IntN(20)
	for range 1 + s.rng.IntN(3) {
		switch s.rng.IntN(6) {
		case 0:
			run("INSERT OR REPLACE INTO note VALUES (?, ?, ?)", key, mark, i)
		case 1:
			run("UPDATE note SET b = ? WHERE id >= ?", i, key)
		case 2:
			run("DELETE FROM note WHERE id = ?", key)
		case 3:
			run("UPDATE OR REPLACE note SET id = ? WHERE id = ?", key, other)
		default:
			run(mergeSiteSQL, s.site(i, fmt.Sprint(mark, " ", s.rng.IntN(1000)))...)
		}
	}
	return err
}

// TestReadWhileTablesAppear: what is read outside a transaction has the changes of every table that there is at that
// moment, also of one that another connection makes in the middle. A reader that notes the highest version would never
// ask for them again.
func TestReadWhileTablesAppear(t *testing.T) {
	path := fast(filepath.Join(t.TempDir(), "x")) + "&_journal_mode=WAL"
	writer, reader := openOurs(t, path), openTest(t, path)
	made := 0
	create := func() {
		made++
		for _, sql := range []string{
			"BEGIN", "CREATE TABLE t# (id INTEGER PRIMARY KEY NOT NULL, v)", "SELECT crsql_as_crr('t#')", "INSERT INTO t# VALUES (1, 1)", "COMMIT",
		} {
			writer.run(strings.ReplaceAll(sql, "#", fmt.Sprint(made)))
		}
	}
	const query = "SELECT db_version FROM crsql_changes"
	expect := func(rows driver.Rows, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		create() // too late: the moment is that of the first row
		want, row := int64(made)-1, make([]driver.Value, 1)
		for version := int64(1); version <= want; version++ {
			if err := rows.Next(row); err != nil || row[0] != version {
				t.Errorf("of %d versions, row %d is %v: %v", want, version, row[0], err)
			}
		}
		if err := rows.Next(row); err != io.EOF {
			t.Errorf("one more row, %v: %v", row[0], err)
		}
		if err := rows.Close(); err != nil {
			t.Error(err)
		}
	}
	create()
	err := reader.conn.Raw(func(c any) error {
		conn := c.(*conn)
		prepared, err := conn.Prepare(query)
		if err != nil {
			return err
		}
		for range 3 {
			expect(conn.query(t.Context(), textOf(t, query), nil, func() (driver.Rows, error) {
				if made%2 == 1 {
					create()
				}
				return conn.sqlite.QueryContext(t.Context(), query, nil)
			}))
			expect(prepared.(*stmt).QueryContext(t.Context(), nil))
		}
		if _, err := conn.query(t.Context(), textOf(t, query), nil, func() (driver.Rows, error) {
			create()
			return conn.sqlite.QueryContext(t.Context(), query, nil)
		}); err == nil || !strings.Contains(err.Error(), "without pause") {
			t.Errorf("a table with every attempt: %v", err)
		}
		runs := 0 // of what writes: once
		rows, err := conn.query(t.Context(), textOf(t, "INSERT INTO crsql_changes DEFAULT VALUES RETURNING 1"), nil, func() (driver.Rows, error) {
			runs++
			create()
			return conn.sqlite.QueryContext(t.Context(), query, nil)
		})
		if err != nil || runs != 1 {
			t.Errorf("an INSERT ran %d times: %v", runs, err)
		}
		if err := rows.Close(); err != nil {
			t.Error(err)
		}
		return prepared.Close()
	})
	if err != nil {
		t.Fatal(err)
	}
}

func textOf(t *testing.T, query string) text {
	t.Helper()
	read, err := readText(query)
	if err != nil {
		t.Fatal(err)
	}
	return read
}
