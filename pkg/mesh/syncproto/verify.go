package syncproto

// LookMillis is how much time looks for other sides may have taken lately for another one to begin. What they have taken is
// forgotten at half the speed of time: so they take at most half of one reader's time, whoever asks however often.
const LookMillis = TickMillis / 2

// questions is what the other side of a link has asked and was not told yet. It may ask one question at a time.
type questions struct {
	question *DigestRequest
	resend   *Resend
	asking   bool // our question is out
}

// looking is the outstanding look.
type looking struct {
	id   uint64
	link LinkID
}

// LookRequest asks what the store holds, for the other side of a link. One of Digest and Resend is set.
type LookRequest struct {
	ID     uint64
	Link   LinkID
	Digest *DigestRequest // to be answered from one snapshot
	Resend *Resend        // all changes of these rows, as entries in ascending order
}

// LookResult answers a LookRequest.
type LookResult struct {
	ID      uint64
	Answer  *DigestAnswer // its ID is not used
	Entries []Entry
	Millis  int64 // how long the look took
}

// LinkAnswer is the other side's answer to what Ask sent.
type LinkAnswer struct {
	Link   LinkID
	Answer *DigestAnswer
}

func (c *Core) stepDigestRequest(l *link, m *DigestRequest) {
	if l.question != nil {
		c.fail(l, &Error{CodeFlow, "a digest was asked for before the last question was answered"})
		return
	}
	l.question = m
}

func (c *Core) stepDigestAnswer(l *link, m *DigestAnswer) {
	if !l.asking {
		c.fail(l, malformed("a digest answer came that was not asked for"))
		return
	}
	l.asking = false
	c.ready.Answers = append(c.ready.Answers, LinkAnswer{l.id, m})
}

// stepResend notes which rows the other side wants. While one such message waits, others are dropped: who has not got the
// rows asks again. A reader has nothing to send.
func (c *Core) stepResend(l *link, m *Resend) {
	if c.cfg.Writer && l.resend == nil {
		l.resend = m
	}
}

// startLook begins the look of the next link in turn that waits for one. There is one at a time.
func (c *Core) startLook() {
	if c.looking != nil || c.lookCost >= LookMillis {
		return
	}
	var next *link
	for _, id := range c.order {
		l := c.links[id]
		if l.closing || l.question == nil && l.resend == nil {
			continue
		}
		if id > c.lookTurn {
			next = l
			break
		}
		if next == nil {
			next = l
		}
	}
	if next == nil {
		return
	}
	c.looks++
	c.lookTurn = next.id
	c.looking = &looking{c.looks, next.id}
	r := &LookRequest{ID: c.looks, Link: next.id}
	if next.resend != nil { // before a question about the same rows
		r.Resend = next.resend
	} else {
		r.Digest = next.question
	}
	c.ready.Look = r
}

// LookDone answers a LookRequest.
func (c *Core) LookDone(r LookResult) {
	k := c.looking
	if k == nil || k.id != r.ID {
		return
	}
	c.looking = nil
	c.lookCost += max(r.Millis, 1)
	l := c.open(k.link)
	switch {
	case l == nil:
	case r.Answer != nil && l.question != nil:
		answer := *r.Answer
		answer.ID = l.question.ID
		answer.fits()
		l.question = nil
		c.send(l, &answer)
	default:
		l.resend = nil
		c.Resend(k.link, r.Entries)
	}
}

// Ask sends a question on a live link. Its answer comes with a Ready; until then it is false for the link, as it is for one
// that is not live.
func (c *Core) Ask(id LinkID, m *DigestRequest) bool {
	l := c.open(id)
	if l == nil || !l.live || l.asking {
		return false
	}
	l.asking = true
	c.send(l, m)
	return true
}

// AskResend asks the other side of a live link for its changes of some rows.
func (c *Core) AskResend(id LinkID, m *Resend) {
	if l := c.open(id); l != nil && l.live {
		c.send(l, m)
	}
}

// Resend sends entries, or parts of them, though the other side may cover them: to mend what it lacks all the same. They go
// through the window like others, behind what waits for it. A reader sends nothing.
func (c *Core) Resend(id LinkID, entries []Entry) {
	l := c.open(id)
	if l == nil || !l.live || !c.cfg.Writer {
		return
	}
	parts, _ := c.compose(l, entries, 0)
	for i := range parts {
		parts[i].m.Reached = l.reached(EntryEnd)
	}
	if len(parts) > 0 {
		l.owed = true // the other side takes a message without claims for the midst of a walk
	}
	l.outbox = append(l.outbox, parts...)
}
