package mesh

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/crmesh/crmesh/pkg/crsql/changeset"
	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
)

const (
	// verifyLooks is how often rows that differ are looked at again, before they are reported as unsettled.
	verifyLooks = 8
	// verifySettle is how long the pause between two such looks is at most, in VerifyPauses, while the link is not in sync.
	verifySettle = 10
	// verifyQuestions bounds the questions of one comparison. A database answers far fewer; who never ends to differ is none.
	verifyQuestions = 1000
	// resendBytes is about how much of the rows of one resend is sent.
	resendBytes = 1 << 20
)

var (
	errVerifyBusy = errors.New("it still works on a question of a verification that was given up: try again later")
	errVerifyMany = errors.New("its answers fit no database: there is no end to questions")
	errVerifyTime = errors.New("it did not answer in time")
)

// memberVerification compares our database with that of one member.
type memberVerification struct {
	*verification
	link   verifyLink
	report *MemberReport

	weWrite, theyWrite bool
	readers            []syncproto.SiteID
	cmp                *syncproto.Comparison
	nextID             int64
}

// run fills the report.
func (m *memberVerification) run(ctx context.Context, s MemberStatus) {
	m.weWrite, m.theyWrite = m.node.cfg.Keys.CanWrite(), s.Role == "writer"
	if !m.weWrite {
		m.readers = append(m.readers, *m.node.site.Load())
	}
	if !m.theyWrite {
		m.readers = append(m.readers, m.link.conn.site)
	}
	err := m.verify(ctx)
	switch {
	case err == nil:
		m.conclude()
	case ctx.Err() != nil:
		m.report.Outcome, m.report.Error = VerifyNoAnswer, errVerifyTime.Error()
	default:
		m.report.Outcome, m.report.Error = VerifyNoAnswer, err.Error()
	}
	m.say(VerifyDone)
}

func (m *memberVerification) say(phase VerifyPhase) {
	open := 0
	if m.cmp != nil {
		open = len(m.cmp.Rows())
	}
	m.progress(VerifyProgress{Peer: m.report.Peer, Name: m.report.Name, Phase: phase, Asked: m.report.Questions, Open: open})
}

// rowKey names a row, and what both sides said of it.
type rowKey struct {
	table string
	place changeset.Place
}

type rowState struct{ ours, theirs changeset.Digest }

func stateOf(r *syncproto.RowComparison) (s rowState) {
	if r.Ours != nil {
		s.ours = r.Ours.Digest
	}
	if r.Theirs != nil {
		s.theirs = r.Theirs.Digest
	}
	return s
}

// verify compares, and with Repair sends again what differs, until nothing does or what does is past mending.
func (m *memberVerification) verify(ctx context.Context) error {
	sent := map[rowKey]rowState{}
	for passes := 1; ; passes++ {
		if err := m.compare(ctx); err != nil {
			return err
		}
		var mend []*syncproto.RowComparison
		differ := map[rowKey]bool{}
		for _, r := range m.cmp.Rows() {
			key := rowKey{r.Table, r.Place()}
			differ[key] = true
			if before, ok := sent[key]; m.o.Repair && r.Settled && (!ok || before != stateOf(r)) {
				mend = append(mend, r)
				sent[key] = stateOf(r)
			}
		}
		if m.cmp.More() && len(differ) == 0 && passes < verifyLooks {
			continue // much was under way; it has arrived, and what was not looked at is still to be compared
		}
		if len(mend) == 0 {
			m.report.Repaired = len(sent)
			for key := range sent {
				if differ[key] {
					m.report.Repaired--
				}
			}
			return nil
		}
		if err := m.repair(ctx, mend); err != nil {
			return err
		}
	}
}

// compare makes a comparison, and looks again at what differs until all of it is settled, or was looked at often enough.
func (m *memberVerification) compare(ctx context.Context) error {
	m.cmp = syncproto.NewComparison(m.o.Table, m.readers...)
	most := m.report.Questions + verifyQuestions
	for look := 0; ; look++ {
		phase := VerifyComparing
		if look > 0 {
			phase = VerifySettling
		}
		for {
			m.say(phase)
			q, ok := m.cmp.Question()
			if !ok {
				break
			}
			if m.report.Questions == most {
				return errVerifyMany
			}
			theirs, err := m.ask(ctx, q)
			if err != nil {
				return err
			}
			ours, err := m.ours(ctx, q)
			if err != nil {
				return err
			}
			if err := m.cmp.Answer(ours, theirs); err != nil {
				return err
			}
		}
		if m.cmp.Open() == 0 || look == verifyLooks {
			return nil
		}
		if err := m.settle(ctx); err != nil {
			return err
		}
		m.cmp.Again()
	}
}

// ask returns the member's answer to a question.
func (m *memberVerification) ask(ctx context.Context, q syncproto.DigestRequest) (*syncproto.DigestAnswer, error) {
	answer := make(chan *syncproto.DigestAnswer, 1)
	sent := false
	m.nextID++
	q.ID = m.nextID
	err := m.node.onLoop(ctx, func(l *loop) {
		if sent = l.core.Ask(m.link.id, &q); sent {
			l.answers[m.link.id] = answer
		}
	})
	switch {
	case err != nil:
		return nil, err
	case !sent:
		select {
		case <-m.link.conn.done:
			return nil, m.ended()
		default:
			return nil, errVerifyBusy
		}
	}
	m.report.Questions++
	select {
	case a := <-answer:
		return a, nil
	case <-m.link.conn.done:
		return nil, m.ended()
	case <-m.node.done:
		return nil, m.node.endErr()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// ended says why the link is gone.
func (m *memberVerification) ended() error {
	return fmt.Errorf("the link ended meanwhile: %w", cmp.Or(m.link.conn.reason(), errEnded))
}

// answered hands an answer to who waits for it. Who has given up finds room for it all the same.
func (l *loop) answered(a syncproto.LinkAnswer) {
	if answer := l.answers[a.Link]; answer != nil {
		delete(l.answers, a.Link)
		answer <- a.Answer
	}
}

// settle waits for VerifyPause, and on until nothing is under way on the link, as far as we know, or for verifySettle.
func (m *memberVerification) settle(ctx context.Context) error {
	pause := m.node.timing.verify
	end := time.Now().Add(verifySettle * pause)
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-m.link.conn.done:
			return m.ended()
		case <-ctx.Done():
			return ctx.Err()
		}
		quiet := false
		err := m.node.onLoop(ctx, func(l *loop) {
			for _, s := range l.core.Status().Links {
				if s.Link == m.link.id {
					quiet = !s.Serving && s.Queued == 0 && s.Waiting == 0
				}
			}
		})
		if err != nil || quiet || time.Now().After(end) {
			return err
		}
		timer.Reset(pause / 4)
	}
}

// repair sends what we have of the rows, and asks for what the member has of them. Merging makes both equal.
func (m *memberVerification) repair(ctx context.Context, rows []*syncproto.RowComparison) error {
	for len(rows) > 0 {
		m.say(VerifyRepairing)
		n := 1
		for n < len(rows) && n < syncproto.MaxResend && rows[n].Table == rows[0].Table {
			n++
		}
		if err := m.repairBatch(ctx, rows[:n]); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return m.settle(ctx)
}

func (m *memberVerification) repairBatch(ctx context.Context, rows []*syncproto.RowComparison) error {
	table := rows[0].Table
	var ours, theirs []changeset.Place
	for _, r := range rows {
		if r.Ours != nil && m.weWrite {
			ours = append(ours, r.Place())
		}
		if r.Theirs != nil && m.theyWrite {
			theirs = append(theirs, r.Place())
		}
	}
	if len(ours) > 0 {
		entries, err := m.store.Rows(ctx, table, ours, resendBytes)
		if err != nil {
			return m.note(ctx, err)
		}
		if err := m.node.onLoop(ctx, func(l *loop) { l.core.Resend(m.link.id, entries) }); err != nil {
			return err
		}
	}
	if len(theirs) > 0 {
		want := &syncproto.Resend{Table: table, Places: theirs}
		if err := m.node.onLoop(ctx, func(l *loop) { l.core.AskResend(m.link.id, want) }); err != nil {
			return err
		}
		// The answer to a question comes after what was asked for before it: then there is room for the next batch.
		one := syncproto.DigestRequest{
			Table: table, Prefixes: []changeset.Prefix{changeset.PrefixOf(theirs[0], changeset.MaxPrefix)},
		}
		if _, err := m.ask(ctx, one); err != nil {
			return err
		}
	}
	return nil
}

// conclude makes the report of what the comparison has found.
func (m *memberVerification) conclude() {
	m.report.Outcome = VerifyIdentical
	by := map[string]*TableReport{}
	for _, t := range m.cmp.Tables() {
		state := map[syncproto.TableState]TableState{
			syncproto.TableSame: TableRows, syncproto.TableOurs: TableOurs, syncproto.TableTheirs: TableTheirs,
			syncproto.TableColumns: TableColumns,
		}[t.State]
		by[t.Table] = &TableReport{
			Table: t.Table, State: state, Ours: t.Ours.Sum.Count, Theirs: t.Theirs.Sum.Count,
			StrayOurs: t.Ours.Stray, StrayTheirs: t.Theirs.Stray,
		}
	}
	for _, r := range m.cmp.Rows() {
		t := by[r.Table]
		if r.Settled {
			t.Different++
		} else {
			t.Unsettled++
		}
		if len(t.Rows) < m.o.Rows {
			t.Rows = append(t.Rows, rowReport(r))
		}
	}
	for _, k := range m.cmp.Tables() {
		t := by[k.Table]
		t.More = m.cmp.More() && k.State == syncproto.TableSame && k.Ours.Sum != k.Theirs.Sum
		switch {
		case t.State != TableRows || t.Different > 0 || t.StrayOurs > 0 || t.StrayTheirs > 0:
			m.report.Outcome = VerifyDifferent
		case t.Unsettled > 0 || t.More:
			if m.report.Outcome == VerifyIdentical {
				m.report.Outcome = VerifyUnsettled
			}
		default:
			continue
		}
		m.report.Tables = append(m.report.Tables, *t)
	}
}

func rowReport(r *syncproto.RowComparison) RowReport {
	place := r.Place()
	out := RowReport{Place: hex.EncodeToString(place[:]), Better: betterOf(r), Settled: r.Settled}
	if key, err := changeset.ParsePacked(r.Key()); err == nil {
		out.Key = key
	}
	return out
}

func betterOf(r *syncproto.RowComparison) RowBetter {
	switch {
	case r.Theirs == nil:
		return OnlyOurs
	case r.Ours == nil:
		return OnlyTheirs
	}
	switch cmp.Or(cmp.Compare(r.Ours.CL, r.Theirs.CL), cmp.Compare(r.Ours.Versions, r.Theirs.Versions)) {
	case 1:
		return BetterOurs
	case -1:
		return BetterTheirs
	}
	return BetterNone
}
