package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/crmesh/crmesh/pkg/crsql"
	"github.com/crmesh/crmesh/pkg/crsql/changeset"
	"github.com/crmesh/crmesh/pkg/mesh"
	"github.com/crmesh/crmesh/pkg/signaling"
	"github.com/crmesh/crmesh/pkg/signaling/signalclient"
)

// The table that all peers write. The number is that of the write which gave the row its present content.
const (
	simTable  = "item"
	simNumber = "number"
	simSchema = `CREATE TABLE item (id INTEGER PRIMARY KEY NOT NULL, number INTEGER, body TEXT);
SELECT crsql_as_crr('item');
`
	simBody = 60 // bytes of body
)

// simContent are the queries whose answers make two databases equal. Not the site of a change: where two sites wrote one
// value, each may keep its own.
var simContent = []string{
	"SELECT id, number, body FROM item ORDER BY id",
	`SELECT "table", pk, cid, val, col_version, cl FROM crsql_changes ORDER BY "table", pk, cid`,
}

// simPeer is a peer with its place in the network. All but life is owned by whoever starts and kills it.
type simPeer struct {
	index     int
	databases int // it has had so many
	db        *simFile

	mu   sync.Mutex // guards the following
	life *life      // nil: it is down
}

// life is a peer from its start to its end.
type life struct {
	db         *crsql.DB
	replica    *crsql.Replica
	node       *mesh.Node
	introducer *signaler
	wire       *wire
	stop       context.CancelFunc // of the writer
	writer     sync.WaitGroup
}

func (p *simPeer) now() *life {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.life
}

func (p *simPeer) name() string { return fmt.Sprintf("peer-%d", p.index+1) }

// start brings a peer up, with the database that it has, or a new one.
func (s *simulation) start(ctx context.Context, p *simPeer) (err error) {
	if p.db == nil {
		p.databases++
		p.db = &simFile{path: filepath.Join(s.dir, fmt.Sprintf("%s-%d.db", p.name(), p.databases))}
	}
	log := s.log.With("peer", p.name())
	l := &life{wire: &wire{}}
	defer func() {
		if err != nil {
			l.end()
		}
	}()
	if l.db, err = crsql.Open(ctx, p.db.path, crsql.Options{Logger: log}); err != nil {
		return err
	}
	if l.replica, err = crsql.OpenReplica(ctx, l.db); err != nil {
		return err
	}
	if schema, err := l.replica.Schema(ctx); err != nil {
		return err
	} else if len(schema.Tables) == 0 {
		if err := l.db.ExecScript(ctx, simSchema); err != nil {
			return err
		}
	}
	id, err := signaling.NewPeerID(rand.Reader)
	if err != nil {
		return err
	}
	l.introducer = newSignaler()
	s.network.power(p.index, true)
	l.node, err = mesh.Start(ctx, mesh.Config{
		Store: measuredStore{store{l.replica, log, crsql.AcceptAdditive, nil}, s.journal, p.db, time.Since(s.journal.begun)},
		Net:   s.network.hosts[p.index], Signaler: l.introducer, Peer: id, Keys: s.keys, Replica: true, Logger: log,
	})
	if err != nil {
		return err
	}
	err = l.introducer.join(signalclient.Config{
		URLs: []string{s.server.url}, Keys: s.keys, Peer: id, Meta: signaling.Meta{Replica: true, Name: p.name()},
		HTTPClient: l.wire.client(), Logger: log,
	})
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.life = l
	p.mu.Unlock()
	return nil
}

// end closes what there is of a life.
func (l *life) end() {
	if l.stop != nil {
		l.stop()
		l.writer.Wait()
	}
	if l.node != nil {
		_ = l.node.Close() // its error is seen by watch
	}
	if l.introducer != nil {
		l.introducer.close()
	}
	if l.db != nil {
		_ = l.db.Close()
	}
}

// kill ends a peer so that the others hear nothing more from it. With its database it does not come back if forget is set.
func (s *simulation) kill(p *simPeer, forget bool) error {
	s.network.power(p.index, false)
	p.mu.Lock()
	l := p.life
	p.life = nil
	p.mu.Unlock()
	l.wire.cut()
	l.end()
	if !forget {
		return nil
	}
	old := p.db.path
	p.db = nil
	var errs []error
	for _, suffix := range []string{"", "-wal", "-shm", crsql.LockSuffix} {
		if err := os.Remove(old + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// write begins to write at random instants, perSecond times a second, until the life or ctx ends.
func (s *simulation) write(ctx context.Context, p *simPeer) {
	l, db := p.now(), p.db
	ctx, l.stop = context.WithCancel(ctx)
	s.writers++
	random := s.random(streamWriters + s.writers)
	l.writer.Go(func() {
		for {
			wait := time.Duration(random.ExpFloat64() / s.Writes * float64(time.Second))
			if !pause(ctx, wait) {
				return
			}
			if err := s.writeOnce(ctx, l.db, db, random); err != nil && ctx.Err() == nil {
				s.fail(fmt.Errorf("%s cannot write: %w", p.name(), err))
				return
			}
		}
	})
}

// writeOnce inserts a row, or changes or deletes one that somebody inserted; where that is not here, it inserts.
func (s *simulation) writeOnce(ctx context.Context, db *crsql.DB, owner *simFile, random *mathrand.Rand) error {
	kind := random.IntN(10)
	n, body := s.journal.begin(), changeset.TextString(simText(random))
	if id := s.journal.anyRow(random, kind == 0); kind < 5 && id > 0 {
		sql, args := "DELETE FROM item WHERE id = ?", []changeset.Value{changeset.Integer(id)}
		if kind > 0 {
			sql = "UPDATE item SET number = ?, body = ? WHERE id = ?"
			args = []changeset.Value{changeset.Integer(n), body, changeset.Integer(id)}
		}
		r, err := db.Exec(ctx, sql, args...)
		if err != nil || r.RowsAffected > 0 {
			if err == nil {
				s.journal.done(n, false, owner)
			}
			return err
		}
	}
	_, err := db.Exec(ctx, "INSERT INTO item VALUES (?, ?, ?)", changeset.Integer(n), changeset.Integer(n), body)
	if err == nil {
		s.journal.done(n, true, owner)
	}
	return err
}

func simText(random *mathrand.Rand) string {
	const letters = "abcdefghijklmnopqrstuvwxyz     "
	var b strings.Builder
	for range simBody {
		b.WriteByte(letters[random.IntN(len(letters))])
	}
	return b.String()
}

// digest hashes what must be equal in all databases.
func (l *life) digest(ctx context.Context) (sum [32]byte, err error) {
	h := sha256.New()
	var buf []byte
	for _, sql := range simContent {
		_, err := l.db.Query(ctx, sql, nil, func(row []changeset.Value) error {
			buf = buf[:0]
			for _, v := range row {
				buf = changeset.AppendValue(buf, v)
			}
			h.Write(buf)
			return nil
		})
		if err != nil {
			return sum, err
		}
	}
	return [32]byte(h.Sum(nil)), nil
}

// lost returns how many of the rows are not there, and how many there are in all.
func (l *life) lost(ctx context.Context, required []int64) (lost, rows int, err error) {
	have := map[int64]bool{}
	_, err = l.db.Query(ctx, "SELECT id FROM item", nil, func(row []changeset.Value) error {
		have[row[0].Int64()] = true
		return nil
	})
	for _, id := range required {
		if !have[id] {
			lost++
		}
	}
	return lost, len(have), err
}

// discard is the log of a simulation that nobody reads.
var discard = slog.New(slog.DiscardHandler)
