package crsql

import (
	"crypto/rand"
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/mattn/go-sqlite3"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

const (
	formatVersion    = 160300 // recorded in crsql_master by 0.16.3, whose format this is
	minFormatVersion = 150000 // older ones kept their keys elsewhere
)

// What every database with CRRs holds. The texts are cr-sqlite's: sqlite_master keeps them, and tools compare it.
var bootstrapSQL = []string{
	`CREATE TABLE IF NOT EXISTS crsql_tracked_peers ("site_id" BLOB NOT NULL, "version" INTEGER NOT NULL, "seq" INTEGER DEFAULT 0, "tag" INTEGER, "event" INTEGER, PRIMARY KEY ("site_id", "tag", "event")) STRICT`,
	`CREATE TABLE IF NOT EXISTS "crsql_master" ("key" TEXT PRIMARY KEY, "value" ANY)`,
	`CREATE TABLE IF NOT EXISTS "crsql_site_id" (site_id BLOB NOT NULL, ordinal INTEGER PRIMARY KEY)`,
	`CREATE UNIQUE INDEX IF NOT EXISTS crsql_site_id_site_id ON "crsql_site_id" (site_id)`,
}

// bootstrap creates cr-sqlite's tables and the site id where they are missing.
func (e *engine) bootstrap() error {
	version, err := e.recordedVersion()
	if err != nil || version >= formatVersion {
		return err
	}
	// IMMEDIATE: of two processes that open a new file at once, one waits instead of failing.
	if _, err := e.sqlite.Exec("BEGIN IMMEDIATE", nil); err != nil {
		return fmt.Errorf("prepare the database for CRRs: %w", err)
	}
	if err := e.createTables(); err != nil {
		_, rollback := e.sqlite.Exec("ROLLBACK", nil)
		var code sqlite3.Error
		if version > 0 && errors.As(err, &code) && code.Code == sqlite3.ErrReadonly {
			return rollback // it records an earlier 0.16, whose format is the same
		}
		return errors.Join(fmt.Errorf("prepare the database for CRRs: %w", err), rollback)
	}
	_, err = e.sqlite.Exec("COMMIT", nil)
	return err
}

// recordedVersion returns the version that the database records, 0 if anything of cr-sqlite's tables is missing. It
// refuses a format that is too old.
func (e *engine) recordedVersion() (int64, error) {
	objects, err := e.query("SELECT count(*) FROM main.sqlite_master WHERE name IN ('crsql_tracked_peers', 'crsql_master', 'crsql_site_id', 'crsql_site_id_site_id')")
	if err != nil || objects[0][0] != int64(len(bootstrapSQL)) {
		return 0, err
	}
	rows, err := e.query("SELECT (SELECT value FROM main.crsql_master WHERE key = 'crsqlite_version'), (SELECT site_id FROM main.crsql_site_id WHERE ordinal = 0)")
	if err != nil {
		return 0, err
	}
	version, ok := rows[0][0].(int64)
	if ok && version < minFormatVersion {
		return 0, fmt.Errorf("the database was made by cr-sqlite version %d, before 0.15: move its rows to a new database", version)
	}
	if rows[0][1] == nil {
		return 0, nil
	}
	return version, nil
}

func (e *engine) createTables() error {
	for _, sql := range bootstrapSQL {
		if _, err := e.sqlite.Exec(sql, nil); err != nil {
			return err
		}
	}
	id, err := randomSite()
	if err != nil {
		return err
	}
	if _, err := e.sqlite.Exec("INSERT OR IGNORE INTO main.crsql_site_id (site_id, ordinal) VALUES (?, 0)", []driver.Value{id}); err != nil {
		return err
	}
	_, err = e.sqlite.Exec(`INSERT INTO main.crsql_master VALUES ('crsqlite_version', ?) ON CONFLICT DO UPDATE SET value = excluded.value WHERE value < excluded.value`,
		[]driver.Value{int64(formatVersion)})
	return err
}

// randomSite returns the id of a new site: a UUID, version 4.
func randomSite() ([]byte, error) {
	id := make([]byte, changeset.SiteIDLen)
	if _, err := rand.Read(id); err != nil {
		return nil, err
	}
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return id, nil
}

func (e *engine) readSiteID() error {
	rows, err := e.query("SELECT site_id FROM main.crsql_site_id WHERE ordinal = 0")
	if err != nil {
		return err
	}
	if len(rows) == 0 {
		return errors.New("the database has lost its site id: crsql_site_id has no row with ordinal 0")
	}
	id := toBytes(rows[0][0])
	if len(id) == 0 || len(id) > changeset.SiteIDLen {
		return fmt.Errorf("the database's site id has %d bytes, not 1 to %d", len(id), changeset.SiteIDLen)
	}
	e.siteID = changeset.SiteID(id)
	return nil
}

// query runs sql once and returns all rows. It is for small results that are asked for rarely.
func (e *engine) query(sql string, args ...driver.Value) ([][]driver.Value, error) {
	return queryOn(e.sqlite, sql, args...)
}

func queryOn(c *sqlite3.SQLiteConn, sql string, args ...driver.Value) ([][]driver.Value, error) {
	st, err := prepare(c, sql)
	if err != nil {
		return nil, err
	}
	defer st.close()
	var rows [][]driver.Value
	err = st.each(args, func(row []driver.Value) error {
		rows = append(rows, append([]driver.Value(nil), row...))
		return nil
	})
	return rows, err
}

// exec runs sql once. It is for statements that are run rarely.
func (e *engine) exec(sql string, args ...driver.Value) error {
	_, err := e.query(sql, args...)
	return err
}
