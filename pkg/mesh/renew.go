package mesh

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
	"github.com/crmesh/crmesh/pkg/signaling"
)

// Bounds of what others can make a Node do: each new site id stays in everybody's vector for good.
const (
	// MaxRenewals is how many new site ids a Node asks its store for.
	MaxRenewals = 8
	// RenewalPause is the least time between two of them.
	RenewalPause = time.Minute
)

// errRenewing ends the links that a peer has under its old site id.
var errRenewing = errors.New("this peer takes a new site id")

// renewals is what the loop knows of new site ids.
type renewals struct {
	reason string // of the one that goes on; empty: none does
	asked  bool   // the store was asked
	count  int
	last   time.Time
	never  error              // why the store has no new site id to give
	before syncproto.Counters // of the cores before this one
}

// disputed takes the core's word that others hold writes of our site that we do not, or that another peer has our site id.
// Then our own versions may be in use elsewhere with other content, and we go on under a new site id.
//
// It cannot be ourselves whom we met: the room does not list us to us, a proof of the writer role holds for one direction
// of one connection, and the database's lock keeps a second process out. Nor is everybody believed: a claim without end would keep us renewing.
func (l *loop) disputed(e syncproto.Event, reason string) {
	r := &l.renewals
	switch {
	case r.reason != "":
	case !e.Proved && l.node.cfg.Keys.CanWrite():
		l.log.Warn("a peer that has not proved the writer role is not believed: "+reason, "site", e.Remote)
	case r.never != nil:
		l.log.Error(reason+"; the peer is not linked to", "site", e.Remote, "version", e.Version, "err", r.never)
	case r.count >= MaxRenewals:
		l.log.Error(reason+", after several new site ids; the peer is not linked to: whoever claims that may be at fault, make a new room without it, or start this peer again",
			"site", e.Remote, "version", e.Version, "renewals", r.count)
	case !r.last.IsZero() && time.Since(r.last) < l.node.timing.renewal:
		l.log.Warn(reason+", so soon after a new site id; the peer is not linked to for now", "site", e.Remote, "version", e.Version)
	default:
		l.log.Info("taking leave of all links, for a new site id: "+reason, "site", e.Remote, "version", e.Version)
		r.reason, r.asked = reason, false
		for _, k := range l.links {
			k.conn.send(&syncproto.Bye{Sentence: errRenewing.Error()})
			k.conn.finish(errRenewing)
			l.forget(k)
		}
	}
}

// renew asks the store once nothing of the old core runs. Until it has answered no link is opened, and the old core is left alone.
func (l *loop) renew() {
	r := &l.renewals
	if r.reason == "" || r.asked || l.jobs > 0 {
		return
	}
	r.asked = true
	reason := r.reason
	l.job(func(ctx context.Context) result {
		err := l.node.patiently(ctx, func() error { return l.store.Renew(ctx, reason) })
		var refused *NoRenewalError
		if err != nil && !errors.As(err, &refused) {
			return result{err: fmt.Errorf("the database got no new site id: %w", err)}
		}
		var state State
		err = l.node.patiently(ctx, func() (err error) {
			state, err = l.store.State(ctx)
			return err
		})
		if err != nil {
			return result{err: fmt.Errorf("the state of the database cannot be read: %w", err)}
		}
		return result{renewed: &renewed{refused: refused, state: state}}
	})
}

// renewed is what the store answered.
type renewed struct {
	refused *NoRenewalError
	state   State
}

// renewed goes on with a new core, also where the store refused: what the old one had asked for was not answered. All members
// are met anew.
func (l *loop) renewed(done renewed) error {
	r := &l.renewals
	r.reason = ""
	core, err := l.node.cfg.newCore(done.state)
	if err != nil {
		return err
	}
	r.before = plus(r.before, l.core.Status().Applied)
	l.adopt(core, done.state)
	if done.refused != nil {
		r.never = done.refused
		l.log.Error("the database keeps its site id, and peers that dispute it are not linked to", "err", done.refused)
	} else {
		r.count++
		r.last = time.Now()
	}
	for _, m := range l.members {
		m.reintroduce()
	}
	l.heads() // what was committed since
	return nil
}

func plus(a, b syncproto.Counters) syncproto.Counters {
	return syncproto.Counters{
		Messages: a.Messages + b.Messages, Groups: a.Groups + b.Groups, Changes: a.Changes + b.Changes, Changed: a.Changed + b.Changed,
		Redundant: a.Redundant + b.Redundant, Parked: a.Parked + b.Parked, TooLarge: a.TooLarge + b.TooLarge,
	}
}

// reintroduce lets the member be met anew, since its attempts so far name another site. It does not block.
func (m *member) reintroduce() {
	select {
	case m.renamed <- struct{}{}:
	default:
	}
}

// begin drops what there is of a connection and tries again at once; where leave is being taken, once the other side has what was said
// last. A twin that heard neither our hello nor our error would keep the site id, and the numbers that two files have used.
func (m *member) begin() {
	a := m.att
	if a != nil && a.conn != nil && a.conn.isEnding() {
		m.anew = true
		return
	}
	if a != nil && a.conn == nil {
		if err := m.send(signaling.Description{Kind: signaling.KindBye, Session: a.session}); err != nil {
			m.log.Debug("the other side was not told that an attempt is over", "err", err)
		}
	}
	m.drop(errRenewing)
	m.failures, m.next = 0, time.Now()
}
