package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/crmesh/crmesh/pkg/crsql"
	"github.com/crmesh/crmesh/pkg/mesh"
)

// missingPause is the least time between two looks whether rows that were missing have come back.
const missingPause = 5 * time.Second

// missing is what the tables lack because another program dropped one of them: see crsql.Replica.Missing.
type missing struct {
	replica *crsql.Replica
	log     *slog.Logger

	mu   sync.Mutex // guards the following
	rows []missingRows
	told map[missingRows]bool
	at   time.Time // of the last look
}

// missingRows is a line of the status.
type missingRows struct {
	Table string `json:"table"`
	Rows  int64  `json:"rows"`
	Gone  bool   `json:"gone"` // the table is not there
}

// advice says what a person can do.
func (m missingRows) advice() string {
	if m.Gone {
		return "another program dropped this table, which syncs, and its rows are still counted as here: start the peer again within reach of a member that has " +
			"the table, then run peer verify --repair; or, to drop it for good here, run SELECT crsql_as_table('NAME') in a program with cr-sqlite"
	}
	return "another program dropped this table and made it again, so that rows are missing which nobody sends by himself: run peer verify --repair " +
		"at this peer, linked with a member that has them"
}

// look looks for missing rows, and logs those that were not missing before. A database that cannot be read is the mesh's to report.
func (m *missing) look(ctx context.Context) {
	m.mu.Lock()
	defer m.mu.Unlock()
	found, err := m.replica.Missing(ctx)
	if err != nil {
		m.log.Debug("rows that tables lack were not looked for", "err", err)
		return
	}
	told := map[missingRows]bool{}
	m.rows, m.at = nil, time.Now()
	for _, f := range found {
		row := missingRows{f.Table, f.Rows, f.Gone}
		m.rows = append(m.rows, row)
		told[row] = true
		if !m.told[row] {
			m.log.Warn(row.advice(), "table", row.Table, "rows", row.Rows)
		}
	}
	if len(m.told) > 0 && len(told) == 0 {
		m.log.Info("no table lacks rows any more")
	}
	m.told = told
}

// list returns what is missing. What was is looked for again, now and then.
func (m *missing) list(ctx context.Context) []missingRows {
	m.mu.Lock()
	again := len(m.rows) > 0 && time.Since(m.at) >= missingPause
	m.mu.Unlock()
	if again {
		m.look(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rows
}

// again lets the next status look anew: rows may have come back.
func (m *missing) again() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.at = time.Time{}
}

// peerStatus is what GET /v1/status answers: the node's, and what the database alone knows.
type peerStatus struct {
	mesh.Status
	Missing []missingRows `json:"missing,omitempty"`
}

func (s *peerStatus) text() string {
	text := ""
	for _, m := range s.Missing {
		text += fmt.Sprintf("missing  %d rows of %s: %s\n", m.Rows, printable(m.Table), m.advice())
	}
	return text
}
