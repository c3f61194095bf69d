package meshtest

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
)

// What a trace says of what cores want done. Peers and sites are letters; every list has one order: the lines are
// the same in any language.

func (n *Network) log(format string, args ...any) {
	if n.Log != nil {
		n.Log(fmt.Sprintf(format, args...))
	}
}

func letter(site syncproto.SiteID) string { return string(site[:1]) }

func letters(sites []syncproto.SiteID) string {
	var out []string
	for _, site := range sites {
		out = append(out, letter(site))
	}
	return "[" + strings.Join(out, " ") + "]"
}

// vectorText is like {a:3 b:1}.
func vectorText[V ~map[syncproto.SiteID]int64](v V) string {
	var out []string
	for _, site := range slices.Sorted(maps.Keys(v)) {
		out = append(out, fmt.Sprintf("%s:%d", letter(site), v[site]))
	}
	return "{" + strings.Join(out, " ") + "}"
}

// groupText is like a:3(k=1 l=2): origin, version, and the keys with their values.
func groupText(g syncproto.Group) string {
	var out []string
	for _, ch := range g.Changes {
		key, c := KeyOf(ch)
		if len(key) > 20 {
			key = fmt.Sprintf("%s..%d", key[:4], len(key))
		}
		out = append(out, fmt.Sprintf("%s=%d", key, c.Value))
	}
	return fmt.Sprintf("%s:%d(%s)", letter(g.Origin), g.Version, strings.Join(out, " "))
}

func flags(words ...string) string {
	var out string
	for _, w := range words {
		if w != "" {
			out += " " + w
		}
	}
	return out
}

func when(set bool, word string) string {
	if set {
		return word
	}
	return ""
}

// messageText is a message in one line.
func messageText(m syncproto.Message) string {
	switch m := m.(type) {
	case *syncproto.Hello:
		return fmt.Sprintf("hello%s resume=%d neighbours=%s vector=%s",
			flags(when(m.Writer, "writer"), when(m.Feed, "feed"), when(m.Busy, "busy")),
			m.Resume, letters(m.Neighbours), vectorText(m.Vector))
	case *syncproto.Changes:
		text := fmt.Sprintf("changes reached=%d", m.Reached)
		if m.Remaining > 0 {
			text += fmt.Sprintf(" remaining=%d", m.Remaining)
		}
		for _, g := range m.Groups {
			text += " " + groupText(g)
		}
		if m.Claims != nil {
			text += fmt.Sprintf(" claims=%s deps=%s", vectorText(m.Claims), vectorText(m.Deps))
		}
		for _, s := range m.Spans {
			text += fmt.Sprintf(" span=%s:%d-%d", letter(s.Origin), s.After+1, s.Version)
			if len(s.Deps) > 0 {
				text += " needs=" + vectorText(s.Deps)
			}
		}
		return text
	case *syncproto.Have:
		text := fmt.Sprintf("have%s applied=%d delta=%s",
			flags(when(m.Feed, "feed"), when(m.Busy, "busy")), m.Applied, vectorText(m.Delta))
		if m.HasNeighbours {
			text += " neighbours=" + letters(m.Neighbours)
		}
		return text
	case *syncproto.Error:
		return "error " + m.Code.String()
	case *syncproto.Prune:
		return fmt.Sprintf("prune %s graft %s", letters(m.Prune), letters(m.Graft))
	case *syncproto.Bye:
		return "bye " + m.Sentence
	case *syncproto.Schema:
		var names []string
		for _, t := range m.Tables {
			names = append(names, t.Name)
		}
		text := "schema [" + strings.Join(names, " ") + "]"
		if len(names) == 0 {
			text = "schema hash"
		}
		if m.Generation > 0 {
			text += fmt.Sprintf(" generation=%d", m.Generation)
		}
		return text
	}
	return ""
}

func (n *Network) logSend(p, to *Peer, m syncproto.Message) {
	if n.Log != nil {
		n.log("%s->%s %s", p.Name, to.Name, messageText(m))
	}
}

func (n *Network) logRead(p *Peer, r syncproto.ReadRequest) {
	c, i := n.end(p, r.Link)
	if c == nil || n.Log == nil {
		return
	}
	text := fmt.Sprintf("%s reads for %s behind %s", p.Name, c.Ends[1-i].Name, positionText(r.After))
	if r.Only != nil {
		text += " only " + strings.Trim(fmt.Sprint(r.Only), "[]")
	}
	n.log("%s%s", text, flags(when(r.Count, "counting")))
}

// positionText is like 3 for all of an entry and 3/0 for a part.
func positionText(p syncproto.Position) string {
	if p.Seq == syncproto.EntryEnd {
		return fmt.Sprint(p.L)
	}
	return fmt.Sprintf("%d/%d", p.L, p.Seq)
}

func (n *Network) logApply(p *Peer, r syncproto.ApplyRequest) {
	text := p.Name + " applies"
	for _, g := range r.Groups {
		text += " " + groupText(g.Group)
	}
	n.log("%s claims=%s resume=%s", text, vectorText(r.Claims), vectorText(r.Resume))
}

func (n *Network) logSchema(p *Peer, r syncproto.SchemaRequest) {
	var names []string
	for _, t := range r.Tables {
		names = append(names, t.Name)
	}
	if len(names) == 0 {
		n.log("%s is of generation %d", p.Name, r.Generation)
		return
	}
	n.log("%s creates [%s]", p.Name, strings.Join(names, " "))
}

var eventNames = map[syncproto.EventKind]string{
	syncproto.EventLive: "live", syncproto.EventCaughtUp: "caught up", syncproto.EventServed: "served",
	syncproto.EventSchemaDiffers: "schema differs", syncproto.EventTooLarge: "too large",
	syncproto.EventStaleCopy: "stale copy", syncproto.EventVectorFull: "vector full", syncproto.EventParked: "parked",
	syncproto.EventRemoteError: "remote error", syncproto.EventSameSite: "same site",
}

func (n *Network) logEvent(p *Peer, e syncproto.Event) {
	n.log("%s event: %s with %s", p.Name, eventNames[e.Kind], letter(e.Remote))
}

func (n *Network) logClose(p, other *Peer, r syncproto.Close) {
	if r.Err == nil {
		n.log("%s closes %s", p.Name, other.Name)
		return
	}
	n.log("%s closes %s: %s", p.Name, other.Name, r.Err.Code)
}
