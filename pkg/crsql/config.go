package crsql

import (
	"database/sql/driver"
	"fmt"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
)

// Settings are rows of crsql_master, for the whole database. Every connection follows what another one sets, from its next
// statement on; the stock engine reads them when it opens the database.
const (
	settingEqualValues = "merge-equal-values"
	settingPrefix      = "config."
)

// settings are the database's, as of the last refresh.
type settings struct {
	known       bool
	equalValues int64 // 1: of two writes of the same value under the same version the larger site wins
}

// mergeEqualValues reports whether a merge compares sites where versions and values are equal.
func (e *engine) mergeEqualValues() bool { return e.settings.equalValues == 1 }

// configSet is crsql_config_set(name, value): it stores a setting, and returns its value.
func (e *engine) configSet(name, value any) (any, error) {
	if err := checkSetting(name); err != nil {
		return nil, err
	}
	n, ok := value.(int64)
	if !ok {
		// The stock engine stores anything, and then cannot open the database any more.
		return nil, fmt.Errorf("the value of %q is an integer: give 1 for on or 0 for off", settingEqualValues)
	}
	if err := e.exec("INSERT OR REPLACE INTO main.crsql_master VALUES (?, ?)", settingPrefix+settingEqualValues, n); err != nil {
		return nil, err
	}
	e.settings.equalValues = int64(int32(n))
	return n, nil
}

// configGet is crsql_config_get(name).
func (e *engine) configGet(name any) (any, error) {
	if err := checkSetting(name); err != nil {
		return nil, err
	}
	if err := e.refresh(); err != nil {
		return nil, err
	}
	return e.settings.equalValues, nil
}

func checkSetting(name any) error {
	if toText(name) != settingEqualValues {
		return fmt.Errorf("there is no setting %q: the only one is %q", toText(name), settingEqualValues)
	}
	return nil
}

// readSettings reads the settings unless they are known. What is no integer counts as 0.
func (e *engine) readSettings() error {
	if e.settings.known {
		return nil
	}
	st, err := e.stmts.get(statementKey{kind: stmtSetting}, func() string { return "SELECT value FROM main.crsql_master WHERE key = ?" })
	if err != nil {
		return err
	}
	n, _, err := st.int64(driver.Value(settingPrefix + settingEqualValues))
	if err != nil {
		return err
	}
	e.settings = settings{known: true, equalValues: int64(int32(n))} // as wide as the stock engine's
	return nil
}

// cellSite returns the site that wrote the cell with the short key. One that crsql_site_id lacks, in a damaged database, is
// as low as none: the first change that ties with the cell puts it right.
func (e *engine) cellSite(t *table, key int64, cid string) (changeset.SiteID, error) {
	st, err := e.statement(stmtCellSite, t, "")
	if err != nil {
		return "", err
	}
	row, found, err := st.first(key, cid)
	if err != nil || !found {
		return "", err
	}
	return changeset.SiteID(toBytes(row[0])), nil
}
