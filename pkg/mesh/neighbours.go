package mesh

import (
	"maps"
	"time"

	"github.com/crmesh/crmesh/pkg/signaling"
)

// neighbours chooses the members that we are to be linked with: those of the graph that all members compute alike from the
// list of the room, and others in the place of those that cannot be linked. It belongs to the loop and starts nothing.
type neighbours struct {
	self   signaling.Member
	timing timing
	listed map[signaling.PeerID]signaling.Meta // the loop's; without self
	graph  map[signaling.PeerID]struct{}       // our neighbours in the graph of all
	wanted map[signaling.PeerID]struct{}       // these, and those that take the place of some
	notes  map[signaling.PeerID]*note          // only of listed members

	// What does not answer may only be slow, and more attempts would not make it faster. So the pace slows down where those that were
	// given up answer after all, or few answer; pause says what it stands for.
	pace     int
	notUntil time.Time // until when none of those in the place of others is given up
}

const (
	// hasty is the part of RepairAfter in which those in the place of others have to answer while most do.
	hasty = 4
	// fewPace is the least pace where few answer, and maxPace bounds it: pauses of 1, 2 and 4 times RepairAfter.
	fewPace = 2
	maxPace = 4
	// maxForget bounds how long it is remembered who failed in the place of others: 16 times ForgetAfter.
	maxForget = 4
)

// pause is how long nobody is given up in the place of another after the pace has slowed down, and how long they have to answer
// while most do: a quarter of RepairAfter, and twice as long at each pace.
func (n *neighbours) pause() time.Duration { return n.timing.repair / hasty << n.pace }

// note is what is remembered of a member.
type note struct {
	missing time.Time // since when it is wanted and does not answer over a link; zero: it does, or is not
	failed  time.Time // since when others take its place; zero: it is as good as any
	doubted bool      // it failed after a short time, in the place of another, and is tried on until the usual time is over
	times   int       // how often it failed in the place of another, since it answered
	reads   bool      // it is listed as a writer, and its hello has shown a reader: it passes nothing on
	surplus time.Time // since when it is linked and not wanted; zero: it is not
	// Of the last goroutine that looked after it, so that an old offer stays an old one.
	session, offeredSession uint64
}

// linkNow is how the link to a member is.
type linkNow struct {
	open         bool
	coming       bool      // the other side has answered, and the first attempt goes on
	heard        time.Time // when something came last
	live, writer bool      // both sides have said hello, and its proved the role
}

func newNeighbours(self signaling.Member, t timing, listed map[signaling.PeerID]signaling.Meta) *neighbours {
	return &neighbours{
		self: self, timing: t, listed: listed,
		graph: map[signaling.PeerID]struct{}{}, wanted: map[signaling.PeerID]struct{}{}, notes: map[signaling.PeerID]*note{},
	}
}

func (n *neighbours) wants(id signaling.PeerID) bool { _, ok := n.wanted[id]; return ok }

func (n *neighbours) note(id signaling.PeerID) *note {
	if n.notes[id] == nil {
		n.notes[id] = &note{}
	}
	return n.notes[id]
}

// mayLink reports whether a link that the other side asks for makes sense: two readers have nothing for each other.
func (n *neighbours) mayLink(m signaling.Meta) bool { return !n.self.Meta.Reader || !m.Reader }

// choose computes wanted from listed and the notes.
func (n *neighbours) choose() {
	maps.DeleteFunc(n.notes, func(id signaling.PeerID, _ *note) bool { _, ok := n.listed[id]; return !ok })
	n.graph = n.compute(func(signaling.PeerID) bool { return true })
	n.wanted = maps.Clone(n.graph)
	for id := range n.graph {
		if n.out(id) {
			// The others see the same graph as before, and ours without those that are out: they take links that we ask for.
			maps.Copy(n.wanted, n.compute(func(id signaling.PeerID) bool { return !n.out(id) }))
			break
		}
	}
	for id, note := range n.notes {
		if note.doubted {
			n.wanted[id] = struct{}{}
		}
		if !n.wants(id) {
			note.missing = time.Time{}
		} else {
			note.surplus = time.Time{}
		}
	}
}

// out reports whether others are to take the place of a member.
func (n *neighbours) out(id signaling.PeerID) bool {
	note := n.notes[id]
	return note != nil && (note.reads || !note.failed.IsZero())
}

// compute returns our neighbours in the graph of those listed members that are in.
func (n *neighbours) compute(in func(signaling.PeerID) bool) map[signaling.PeerID]struct{} {
	members := make([]signaling.Member, 0, len(n.listed)+1)
	members = append(members, n.self)
	for id, meta := range n.listed {
		if in(id) {
			members = append(members, signaling.Member{Peer: id, Meta: meta})
		}
	}
	out := map[signaling.PeerID]struct{}{}
	for _, id := range signaling.Graph(members, n.self.Peer) {
		out[id] = struct{}{}
	}
	return out
}

// look notes which wanted members do not answer, and reports whether wanted has to be computed anew. Nobody is given up while
// alone is true: then nobody could take an offer of ours.
func (n *neighbours) look(now time.Time, alone bool, at func(signaling.PeerID) linkNow) (changed bool) {
	answering, silent, silentOthers := 0, 0, 0 // silentOthers are in the place of others
	for id := range n.wanted {
		note, k := n.note(id), at(id)
		if n.listen(now, note, k); note.missing.IsZero() {
			answering++
		} else if !k.coming && (note.failed.IsZero() || note.doubted) {
			silent++
			if _, always := n.graph[id]; !always {
				silentOthers++
			}
		}
		if reads := k.live && !k.writer && !n.listed[id].Reader; reads && !note.reads {
			note.reads, changed = true, true
		}
	}
	most := answering > 0 && answering >= silent
	// More are not asked to take a place while as many do not answer as do.
	places := max(answering, 1) - silentOthers
	complete, gaveUp, wrong := true, false, false
	for id := range n.wanted {
		note, k := n.note(id), at(id)
		answers := note.missing.IsZero()
		late := !answers && now.Sub(note.missing) >= n.timing.repair
		hurried := !answers && most && now.Sub(note.missing) >= n.pause()
		_, always := n.graph[id]
		switch {
		case !note.failed.IsZero() && (answers || note.doubted && k.coming):
			note.failed, note.doubted, note.times, changed, wrong = time.Time{}, false, 0, true, true
		case !note.failed.IsZero():
			if note.doubted && late && !alone {
				note.doubted, changed = false, true
			}
		case answers:
			note.times = 0
		case alone || k.coming:
			complete = false
		case always && late && places > 0:
			note.failed, changed = now, true
			places--
		case !always && !now.Before(n.notUntil) && (late || hurried && places > 0):
			note.failed, note.doubted, changed = now, !late, true
			note.times++
			if late {
				gaveUp = true
			} else {
				places--
			}
		default:
			complete = false
		}
	}
	pace := n.pace
	if wrong {
		pace = n.pace + 1
	}
	if gaveUp && !most {
		pace = max(n.pace+1, fewPace)
	}
	switch {
	case pace > n.pace:
		n.pace = min(pace, maxPace)
		n.notUntil = now.Add(n.pause())
	case complete && !changed:
		n.pace, n.notUntil = 0, time.Time{}
	}
	return n.forget(now, 2*answering >= len(n.graph), at) || changed
}

// listen notes since when a wanted member does not answer.
func (n *neighbours) listen(now time.Time, note *note, k linkNow) {
	since := now // when it was there last
	if !note.missing.IsZero() {
		since = note.missing
	}
	if k.open {
		since = k.heard
	}
	if note.missing = since; k.open && now.Sub(since) < n.timing.repair {
		note.missing = time.Time{}
	}
}

// forget makes those that were given up in the place of others as good as any again: those that are linked with us all the
// same, and all others after some time, which is longer for those that failed before, and where there are enough links without
// them.
func (n *neighbours) forget(now time.Time, enough bool, at func(signaling.PeerID) linkNow) (changed bool) {
	for id, note := range n.notes {
		if _, always := n.graph[id]; always || note.failed.IsZero() || note.doubted {
			continue
		}
		longer := min(max(note.times, 1)-1, maxForget)
		if enough {
			longer = maxForget
		}
		if k := at(id); k.live && now.Sub(k.heard) < n.timing.repair {
			note.failed, note.times, changed = time.Time{}, 0, true
		} else if now.Sub(note.failed) >= n.timing.forget<<longer {
			note.failed, changed = time.Time{}, true
		}
	}
	return changed
}

// surplus reports whether the link to a member is to be closed: it has not been wanted for long, and each wanted link is
// there or given up.
func (n *neighbours) surplus(now time.Time, id signaling.PeerID, complete bool) bool {
	note := n.note(id)
	if note.surplus.IsZero() {
		note.surplus = now
	}
	return complete && now.Sub(note.surplus) >= n.timing.surplus
}

// complete reports whether each wanted member answers over a link, or is out.
func (n *neighbours) complete(at func(signaling.PeerID) linkNow) bool {
	for id := range n.wanted {
		if !at(id).live && !n.out(id) {
			return false
		}
	}
	return true
}
