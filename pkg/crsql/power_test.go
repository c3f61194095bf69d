package crsql

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// How often TestPower kills a process that writes unless CRMESH_KILLS says otherwise.
const defaultKills = 10

const powerSQL = `CREATE TABLE mark (id TEXT PRIMARY KEY NOT NULL, version INTEGER)
CREATE TABLE note (id INTEGER PRIMARY KEY NOT NULL, title TEXT, body)
CREATE TABLE tag (name TEXT NOT NULL, note INTEGER NOT NULL, PRIMARY KEY (name, note)) WITHOUT ROWID`

func init() {
	children["power mesh"] = powerMesh
	children["power sql"] = powerSQLOnly
}

// TestPower: a process that writes is killed at any instant, again and again. What it had acknowledged is there, and the
// clocks fit the rows.
func TestPower(t *testing.T) {
	kills := envInt(t, "CRMESH_KILLS", defaultKills)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for i, part := range []string{"power mesh", "power sql"} {
		t.Run(part, func(t *testing.T) {
			p := &power{t: t, part: part, path: filepath.Join(t.TempDir(), "x"), rng: rand.New(rand.NewPCG(seed, uint64(i)))}
			for kill := range (kills + 1) / 2 {
				p.kill(kill)
				p.check(kill)
			}
			t.Logf("%d kills, %d acknowledged commits, %d of them applied", (kills+1)/2, len(p.marks)+len(p.applied), len(p.applied))
			if len(p.marks) < (kills+1)/2 {
				t.Errorf("only %d commits were acknowledged", len(p.marks))
			}
		})
	}
}

// power is a file and what was acknowledged of it.
type power struct {
	t       *testing.T
	part    string
	path    string
	rng     *rand.Rand
	marks   map[string]bool // of local transactions
	applied map[int64]int64 // the local version of each version of siteX
	version int64           // the highest that was acknowledged
}

// kill lets a process write, and kills it.
func (p *power) kill(round int) {
	cmd := child(p.t, p.part, p.path, fmt.Sprint(round))
	out, err := cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	kill := func(within time.Duration) *time.Timer {
		return time.AfterFunc(time.Duration(p.rng.Int64N(int64(within))), func() { _ = cmd.Process.Kill() })
	}
	var timer *time.Timer
	left := p.rng.IntN(40) // to be acknowledged before it may die: as many on a slow machine
	if round%5 == 4 {
		timer, left = kill(100*time.Millisecond), 0 // while it opens the file, perhaps
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		p.acknowledged(lines.Text())
		if left--; left < 0 && timer == nil {
			timer = kill(20 * time.Millisecond)
		}
	}
	if timer != nil {
		timer.Stop()
	}
	_ = cmd.Process.Kill() // it has ended its output, and so should have ended
	if err := cmd.Wait(); err == nil || cmd.ProcessState.Exited() {
		p.t.Fatalf("it ended by itself: %v", err)
	}
}

func (p *power) acknowledged(line string) {
	var mark string
	var version, local int64
	switch {
	case line == "ready":
		return
	case scan(line, "own %s %d", &mark, &version):
		if p.marks == nil {
			p.marks = make(map[string]bool)
		}
		p.marks[mark], p.version = true, max(p.version, version)
	case scan(line, "applied %d %d", &version, &local):
		if p.applied == nil {
			p.applied = make(map[int64]int64)
		}
		p.applied[version], p.version = local, max(p.version, local)
	default:
		p.t.Fatalf("it said %q", line)
	}
}

func scan(line, format string, into ...any) bool {
	n, err := fmt.Sscanf(line, format, into...)
	return err == nil && n == len(into)
}

// check opens the file as a program would after the lights are on again.
func (p *power) check(round int) {
	p.t.Helper()
	d := openOurs(p.t, p.path)
	defer d.close()
	var tables []string
	for _, row := range d.run("SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE '%\\_\\_crsql\\_clock' ESCAPE '\\'") {
		name := strings.TrimSuffix(string(row[0].Bytes()), clockSuffix)
		tables = append(tables, name)
		if n := d.int("SELECT count(*) FROM sqlite_master WHERE name IN (?, ?, ?, ?)", name+pksSuffix, name+"__crsql_itrig", name+"__crsql_utrig", name+"__crsql_dtrig"); n != 4 {
			p.t.Errorf("round %d: %s is half a CRR", round, name)
		}
	}
	d.check(tables...)
	if len(p.marks) == 0 && len(tables) == 0 {
		return // it was killed before it could make them
	}
	there := map[string]bool{}
	for _, row := range d.run("SELECT id FROM mark") {
		there[string(row[0].Bytes())] = true
	}
	for mark := range p.marks {
		if !there[mark] {
			p.t.Errorf("round %d: %s was acknowledged, and is lost", round, mark)
		}
	}
	if n := d.int("SELECT crsql_db_version()"); n < p.version {
		p.t.Errorf("round %d: the db_version %d is below %d, which was acknowledged", round, n, p.version)
	}
	// A transaction's rows are there with it.
	if got := d.text("SELECT id FROM mark WHERE version NOT IN (SELECT db_version FROM crsql_changes)"); got != "" {
		p.t.Errorf("round %d: transactions without rows: %s", round, got)
	}
	if p.part == "power mesh" {
		p.checkLog(d, round)
	}
}

// checkLog checks what the replica keeps.
func (p *power) checkLog(d *engineDB, round int) {
	p.t.Helper()
	if d.int("SELECT count(*) FROM sqlite_master WHERE name = 'crmesh_meta'") == 0 {
		return
	}
	logged := map[int64]int64{}
	newest := int64(0)
	for _, row := range d.run("SELECT origin_version, local_version FROM crmesh_log WHERE site = ?", []byte(siteX)) {
		logged[row[0].Int64()] = row[1].Int64()
		newest = max(newest, row[0].Int64())
	}
	for version, local := range p.applied {
		if logged[version] != local {
			p.t.Errorf("round %d: %d was applied as %d, and is logged as %d", round, version, local, logged[version])
		}
	}
	if got, want := d.text("SELECT coalesce(max(version), 0) FROM crmesh_vector WHERE site = ?", []byte(siteX)), fmt.Sprint(newest); got != want {
		p.t.Errorf("round %d: the vector claims %s, and %s is applied", round, got, want)
	}
	for what, sql := range map[string]string{
		"a version above the high water": "SELECT db_version FROM crsql_changes WHERE db_version > (SELECT value FROM crmesh_meta WHERE key = 'high_water')",
		"a change of another under a version that is not logged": `SELECT * FROM crsql_changes WHERE site_id = CAST('xxxxxxxxxxxxxxxx' AS BLOB)
			AND db_version NOT IN (SELECT local_version FROM crmesh_log) AND cid IS NOT '-1'`,
		"a mark under a version of another": "SELECT * FROM mark WHERE version IN (SELECT local_version FROM crmesh_log)",
	} {
		if got := d.text(sql); got != "" {
			p.t.Errorf("round %d: there is %s:\n%s", round, what, got)
		}
	}
}

// powerMesh writes through a DB, and applies what another site wrote, both at once, until it is killed.
func powerMesh(args []string) error {
	ctx := context.Background()
	db, err := Open(ctx, args[0], Options{})
	if err != nil {
		return err
	}
	r, err := OpenReplica(ctx, db)
	if err != nil {
		return err
	}
	if err := db.Write(ctx, func(tx *Tx) error {
		for _, sql := range strings.Split(powerSQL, "\n") {
			if _, err := tx.Exec("CREATE TABLE IF NOT EXISTS" + strings.TrimPrefix(sql, "CREATE TABLE")); err != nil {
				return err
			}
			if _, err := tx.Exec("SELECT crsql_as_crr(?)", values(strings.Fields(sql)[2])...); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	state, err := r.State(ctx)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	errs := make(chan error, 2)
	var writing sync.WaitGroup
	writing.Go(func() {
		for i := 0; ; i++ {
			if err := writeOwn(ctx, db, fmt.Sprint(args[1], "-", i)); err != nil {
				errs <- err
				return
			}
		}
	})
	writing.Go(func() {
		for version := state.Vector[siteX] + 1; ; version++ {
			if err := applyTheirs(ctx, r, version); err != nil {
				errs <- err
				return
			}
		}
	})
	return <-errs // the process ends, and what else runs in it
}

func writeOwn(ctx context.Context, db *DB, mark string) error {
	var version int64
	err := db.Write(ctx, func(tx *Tx) error {
		_, err := tx.Query("SELECT crsql_next_db_version()", nil, func(row []changeset.Value) error {
			version = row[0].Int64()
			return nil
		})
		if err != nil {
			return err
		}
		if _, err := tx.Exec("INSERT INTO mark VALUES (?, ?)", values(mark, version)...); err != nil {
			return err
		}
		for range 1 + rand.IntN(4) {
			sql, args := randomWrite(mark)
			if _, err := tx.Exec(sql, args...); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		fmt.Println("own", mark, version)
	}
	return err
}

// randomWrite returns a statement that no constraint refuses. Some are large, so that checkpoints come often.
func randomWrite(mark string) (string, []changeset.Value) {
	id, other := rand.IntN(40), rand.IntN(40)
	switch rand.IntN(7) {
	case 0, 1:
		return "INSERT OR REPLACE INTO note VALUES (?, ?, zeroblob(?))", values(id, mark, rand.IntN(20_000))
	case 2:
		return "UPDATE note SET title = ? WHERE id >= ?", values(mark, id)
	case 3:
		return "DELETE FROM note WHERE id = ?", values(id)
	case 4:
		return "UPDATE OR REPLACE note SET id = ? WHERE id = ?", values(other, id)
	case 5:
		return "INSERT OR IGNORE INTO tag VALUES ('a', ?)", values(id)
	default:
		return "DELETE FROM tag WHERE note = ?", values(id)
	}
}

// applyTheirs applies a version of siteX, which never is without effect, and claims it.
func applyTheirs(ctx context.Context, r *Replica, version int64) error {
	var changes []changeset.Change
	for id := range int64(1 + rand.IntN(5)) {
		changes = append(changes, title(1000+10*version+id, "theirs", 1))
		if old := title(1000+10*(version-1)+id, "", 2); version > 1 && rand.IntN(2) == 0 {
			old.CID, old.Val, old.CL = changeset.SentinelCID, changeset.Null(), 2
			changes = append(changes, old)
		}
	}
	result, err := r.Apply(ctx, ApplyRequest{
		Groups: []Group{{Origin: siteX, Version: version, Changes: changes}}, Claims: map[changeset.SiteID]int64{siteX: version},
	})
	if err == nil {
		fmt.Println("applied", version, result.Ls[0])
	}
	return err
}

// powerSQLOnly writes through database/sql with a rollback journal, and merges, and makes tables CRRs and none again,
// until it is killed.
func powerSQLOnly(args []string) error {
	d, err := openPlain(args[0])
	if err != nil {
		return err
	}
	script := func(statements ...string) {
		for _, sql := range statements {
			if err == nil {
				_, err = d.ExecContext(context.Background(), sql)
			}
		}
	}
	script("BEGIN IMMEDIATE")
	for _, sql := range strings.Split(powerSQL, "\n") {
		script("CREATE TABLE IF NOT EXISTS"+strings.TrimPrefix(sql, "CREATE TABLE"), "SELECT crsql_as_crr('"+strings.Fields(sql)[2]+"')")
	}
	script("COMMIT")
	if err != nil {
		return err
	}
	fmt.Println("ready")
	for i := 0; ; i++ {
		mark := fmt.Sprint(args[1], "-", i)
		script("BEGIN IMMEDIATE")
		var version int64
		if err == nil {
			err = d.QueryRowContext(context.Background(), "SELECT crsql_next_db_version()").Scan(&version)
		}
		script(fmt.Sprintf("INSERT INTO mark VALUES ('%s', %d)", mark, version))
		for range 1 + rand.IntN(4) {
			sql, values := randomWrite(mark)
			args := make([]any, len(values))
			for i, v := range values {
				args[i] = toDriver(v)
			}
			if err == nil {
				_, err = d.ExecContext(context.Background(), sql, args...)
			}
		}
		script(fmt.Sprintf("INSERT INTO crsql_changes VALUES ('note', crsql_pack_columns(%d), 'title', '%s', %d, 0, CAST('yyyyyyyyyyyyyyyy' AS BLOB), %d, 0)",
			rand.IntN(40), mark, 1+rand.IntN(3), 1+2*rand.IntN(2)))
		switch i % 8 {
		case 3:
			script("CREATE TABLE IF NOT EXISTS some (id INTEGER PRIMARY KEY NOT NULL, x)", "INSERT OR IGNORE INTO some SELECT id, title FROM note", "SELECT crsql_as_crr('some')", "UPDATE some SET x = 1")
		case 7:
			script("SELECT crsql_as_table('some')", "DROP TABLE IF EXISTS some")
		}
		script("COMMIT")
		if err != nil {
			return fmt.Errorf("%s: %w", mark, err)
		}
		fmt.Println("own", mark, version)
	}
}

func openPlain(path string) (*sql.Conn, error) {
	db, err := sql.Open(DriverName, path)
	if err != nil {
		return nil, err
	}
	return db.Conn(context.Background())
}
