package main

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/crmesh/crmesh/pkg/crsql"
	"github.com/crmesh/crmesh/pkg/crsql/changeset"
	"github.com/crmesh/crmesh/pkg/mesh/meshtest"
	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
)

// simBackup is what the disk of a simDatabase's machine held: by the end of a file's name, what was in it; nothing: it was not there.
type simBackup struct {
	of    *simDatabase
	last  int64
	files map[string][]byte
}

// Backup implements meshtest.Machine. Nobody writes meanwhile.
func (d *simDatabase) Backup() meshtest.Backup {
	b := simBackup{of: d, last: d.version(), files: map[string][]byte{}}
	for _, suffix := range []string{"", "-wal", crsql.LockSuffix} {
		data, err := os.ReadFile(d.path + suffix)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		must(err)
		b.files[suffix] = data
	}
	return b
}

func (b simBackup) Last() int64 { return b.last }

// Restore implements meshtest.Backup. The files stay the same ones, as on a disk that is put back whole.
func (b simBackup) Restore() meshtest.Database {
	b.of.close()
	b.write(b.of.path)
	must(b.of.open())
	return b.of
}

func (b simBackup) write(path string) {
	for _, suffix := range []string{"-wal", "-shm"} {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			must(err)
		}
	}
	for suffix, data := range b.files {
		must(os.WriteFile(path+suffix, data, 0o600))
	}
}

// Start implements meshtest.Backup. On a machine of its own the file would have the same place; here it has another one, and so
// forgets where it was.
func (b simBackup) Start(name string) meshtest.Machine {
	twin := &simDatabase{path: simPath(filepath.Dir(b.of.path), name), slice: b.of.slice, started: b.of.started}
	b.write(twin.path)
	twin.raw("DELETE FROM crmesh_meta WHERE key = 'home'")
	must(twin.open())
	twin.started(twin)
	return twin
}

// setSite gives the database a site id that is no random one, so that a seed's run is always the same. The engine has no such thing.
func (d *simDatabase) setSite(site syncproto.SiteID) {
	old := d.State().Site
	d.close()
	d.raw("UPDATE crsql_site_id SET site_id = ? WHERE ordinal = 0", []byte(site))
	beside, err := os.ReadFile(d.path + crsql.LockSuffix)
	must(err)
	text := strings.Replace(string(beside), hex.EncodeToString([]byte(old)), hex.EncodeToString([]byte(site)), 1)
	must(os.WriteFile(d.path+crsql.LockSuffix, []byte(text), 0o600))
	must(d.open())
	if got := d.State().Site; got != site {
		must(fmt.Errorf("its site is %x, not %x", string(got), string(site)))
	}
}

// Renew implements meshtest.Machine.
func (d *simDatabase) Renew(site syncproto.SiteID, again bool) []meshtest.Commit {
	relog := func() {}
	if !again {
		relog = d.hideFromRenewal()
	}
	must(d.store().Renew(context.Background(), "it was put back, or runs twice"))
	relog()
	d.setSite(site)
	var versions []int64
	d.query("SELECT DISTINCT db_version FROM crsql_changes WHERE db_version NOT IN (SELECT local_version FROM crmesh_log)", nil,
		func(row []changeset.Value) { versions = append(versions, row[0].Int64()) })
	slices.Sort(versions)
	var commits []meshtest.Commit
	for _, version := range versions {
		commits = append(commits, meshtest.Commit{Version: version, Cells: d.cells(" AND db_version = ?", changeset.Integer(version))})
	}
	return commits
}

// hideFromRenewal keeps a renewal from writing anything anew, and returns what has to be done behind it: then own entries have
// another origin and nothing else, as if the engine did not know better.
func (d *simDatabase) hideFromRenewal() func() {
	const hidden = "hidden"
	old := d.State().Site
	d.raw("INSERT INTO crmesh_log SELECT DISTINCT db_version, ?, db_version FROM t__crsql_clock "+
		"WHERE db_version NOT IN (SELECT local_version FROM crmesh_log)", hidden)
	return func() {
		d.raw("UPDATE crmesh_log SET site = ?2 WHERE site = ?1 AND local_version <= (SELECT version FROM crmesh_vector WHERE site = ?2)",
			hidden, []byte(old))
		d.raw("UPDATE crmesh_meta SET value = (SELECT coalesce(max(local_version), 0) FROM crmesh_log WHERE site = ?) "+
			"WHERE key = 'own_high_water'", hidden)
		d.raw("DELETE FROM crmesh_log WHERE site = ?", hidden)
	}
}

// ForgetReached implements meshtest.Machine.
func (d *simDatabase) ForgetReached(site syncproto.SiteID) {
	d.raw("DELETE FROM crmesh_resume WHERE site = ?", []byte(site))
}

// raw changes what no program but ours should.
func (d *simDatabase) raw(statement string, args ...any) {
	db, err := sql.Open("sqlite3", d.path)
	must(err)
	_, err = db.Exec(statement, args...)
	must(err)
	must(db.Close())
}
