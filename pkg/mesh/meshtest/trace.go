package meshtest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/crmesh/crmesh/pkg/mesh/syncproto"
)

// RunTrace runs a trace and returns it with the output that came out. The format is in the README beside the traces.
func RunTrace(text string) (string, error) {
	t := trace{}
	t.net.Log = func(line string) { t.out = append(t.out, line) }
	var result strings.Builder
	expected := false
	for i, line := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		switch {
		case strings.HasPrefix(line, "> "):
			if err := t.command(strings.Fields(line[2:])); err != nil {
				return "", fmt.Errorf("line %d: %w", i+1, err)
			}
			result.WriteString(line + "\n")
			for _, out := range t.out {
				result.WriteString(out + "\n")
			}
			t.out, expected = nil, true
		case line == "" || strings.HasPrefix(line, "#"):
			expected = false
			result.WriteString(line + "\n")
		case !expected:
			return "", fmt.Errorf("line %d: a command begins with \"> \": %s", i+1, line)
		}
	}
	return result.String(), nil
}

type trace struct {
	net Network
	out []string
}

// commands by name, with how many arguments each takes at least.
var commands = map[string]struct {
	least int
	run   func(t *trace, args []string) error
}{
	"peer":      {1, (*trace).peer},
	"link":      {2, (*trace).link},
	"cut":       {2, (*trace).cut},
	"stall":     {2, (*trace).stall},
	"crash":     {1, (*trace).crash},
	"write":     {2, (*trace).write},
	"refuse":    {1, (*trace).refuse},
	"table":     {2, (*trace).table},
	"migrate":   {2, (*trace).migrate},
	"chunk":     {1, (*trace).chunk},
	"commit":    {1, (*trace).notify},
	"read":      {1, (*trace).read},
	"snapshot":  {1, (*trace).snapshot},
	"apply":     {1, (*trace).apply},
	"deliver":   {1, (*trace).deliver},
	"send":      {2, (*trace).inject},
	"settle":    {0, (*trace).settle},
	"tick":      {1, (*trace).tick},
	"stabilize": {0, (*trace).stabilize},
	"show":      {1, (*trace).show},
}

func (t *trace) command(args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("a command is missing")
	}
	c, ok := commands[args[0]]
	if !ok || len(args)-1 < c.least {
		return fmt.Errorf("no such command, or too few arguments: %s", strings.Join(args, " "))
	}
	return c.run(t, args[1:])
}

// find returns the peer of that name.
func (t *trace) find(name string) (*Peer, error) {
	for _, p := range t.net.Peers {
		if p.Name == name {
			return p, nil
		}
	}
	return nil, fmt.Errorf("no peer %s", name)
}

// conn returns the open connection of two peers.
func (t *trace) conn(a, b string) (*Conn, error) {
	for _, c := range t.net.Conns {
		if c.Ends[0].Name == a && c.Ends[1].Name == b || c.Ends[0].Name == b && c.Ends[1].Name == a {
			return c, nil
		}
	}
	return nil, fmt.Errorf("no link between %s and %s", a, b)
}

func (t *trace) peer(args []string) error {
	t.net.Add(args[0], !slices.Contains(args[1:], "reader"))
	return nil
}

func (t *trace) link(args []string) error {
	a, err := t.find(args[0])
	if err != nil {
		return err
	}
	b, err := t.find(args[1])
	if err != nil {
		return err
	}
	t.net.Connect(a, b)
	return nil
}

func (t *trace) cut(args []string) error {
	c, err := t.conn(args[0], args[1])
	if err == nil {
		t.net.Cut(c)
		for _, p := range c.Ends {
			t.net.Pump(p)
		}
	}
	return err
}

// stall makes settle pass a connection over, until the next stall.
func (t *trace) stall(args []string) error {
	c, err := t.conn(args[0], args[1])
	if err == nil {
		c.Stalled = !c.Stalled
	}
	return err
}

func (t *trace) crash(args []string) error {
	p, err := t.find(args[0])
	if err == nil {
		t.net.Crash(p)
	}
	return err
}

// write commits key=value...; key*n=value stands for keys key0 to key(n-1).
func (t *trace) write(args []string) error {
	p, err := t.find(args[0])
	if err != nil {
		return err
	}
	var writes []Write
	for _, arg := range args[1:] {
		key, value, _ := strings.Cut(arg, "=")
		v, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return fmt.Errorf("%s is not key=value", arg)
		}
		base, times, many := strings.Cut(key, "*")
		if !many {
			writes = append(writes, Write{key, v})
			continue
		}
		n, err := strconv.Atoi(times)
		if err != nil {
			return fmt.Errorf("%s is not key*n=value", arg)
		}
		for i := range n {
			writes = append(writes, Write{base + strconv.Itoa(i), v})
		}
	}
	p.Commit(writes...)
	return nil
}

func (t *trace) table(args []string) error {
	p, err := t.find(args[0])
	if err == nil {
		p.CreateTable(args[1], "CREATE TABLE "+strings.Join(args[1:], " "))
		t.net.Pump(p)
	}
	return err
}

// refuse makes a peer's store refuse changes of a key, or no longer any.
func (t *trace) refuse(args []string) error {
	p, err := t.find(args[0])
	if err != nil {
		return err
	}
	store, ok := p.Store.(*Store)
	if !ok {
		return fmt.Errorf("the store of %s refuses nothing", p.Name)
	}
	store.Refuse(strings.Join(args[1:], ""))
	return nil
}

// migrate gives a peer's schema a generation.
func (t *trace) migrate(args []string) error {
	p, err := t.find(args[0])
	if err != nil {
		return err
	}
	generation, err := strconv.ParseInt(args[1], 10, 64)
	if err == nil {
		p.Migrate(generation)
		t.net.Pump(p)
	}
	return err
}

func (t *trace) chunk(args []string) (err error) {
	t.net.Chunk, err = strconv.Atoi(args[0])
	return err
}

func (t *trace) notify(args []string) error {
	p, err := t.find(args[0])
	if err == nil {
		p.Notify()
		t.net.Pump(p)
	}
	return err
}

// read answers the reads that wait, or only that for one link.
func (t *trace) read(args []string) error {
	p, err := t.find(args[0])
	if err != nil {
		return err
	}
	for _, r := range slices.Clone(p.reads) {
		if c, end := t.net.end(p, r.request.Link); len(args) > 1 && (c == nil || c.Ends[1-end].Name != args[1]) {
			continue
		}
		p.Answer(slices.Index(p.reads, r))
		t.net.Pump(p)
	}
	return nil
}

func (t *trace) snapshot(args []string) error {
	p, err := t.find(args[0])
	if err != nil {
		return err
	}
	for i := range p.reads {
		p.CarryOut(i)
	}
	return nil
}

func (t *trace) apply(args []string) error {
	p, err := t.find(args[0])
	if err == nil && p.apply != nil {
		p.Answer(len(p.reads))
		t.net.Pump(p)
	}
	return err
}

// deliver delivers what is under way on a->b, or the first n messages of it.
func (t *trace) deliver(args []string) error {
	from, to, _ := strings.Cut(args[0], "->")
	c, err := t.conn(from, to)
	if err != nil {
		return err
	}
	end := 0
	if c.Ends[1].Name == from {
		end = 1
	}
	n := len(c.Queues[end])
	if len(args) > 1 {
		if n, err = strconv.Atoi(args[1]); err != nil {
			return err
		}
	}
	for ; n > 0; n-- {
		t.net.Deliver(c, end)
		t.net.Pump(c.Ends[1-end])
	}
	return nil
}

// inject puts a message under way on a->b that a's core did not make.
func (t *trace) inject(args []string) error {
	from, to, _ := strings.Cut(args[0], "->")
	c, err := t.conn(from, to)
	if err != nil {
		return err
	}
	var m syncproto.Message
	switch args[1] {
	case "changes":
		m = &syncproto.Changes{}
	case "have":
		m = &syncproto.Have{Applied: 1}
	case "hello":
		m = &syncproto.Hello{Site: SiteOf(from), MaxMessage: syncproto.MaxMessage}
	case "stale":
		m = &syncproto.Have{Delta: syncproto.Vector{SiteOf(to): 1000}}
	case "bye":
		m = &syncproto.Bye{Sentence: "leaving"}
	default:
		return fmt.Errorf("no message %s", args[1])
	}
	end := 0
	if c.Ends[1].Name == from {
		end = 1
	}
	c.Queues[end] = append(c.Queues[end], m.AppendMarshal(nil))
	return nil
}

func (t *trace) settle([]string) error {
	t.net.Settle()
	return nil
}

func (t *trace) tick(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	for range n {
		t.net.Tick()
		t.net.Settle()
	}
	return nil
}

func (t *trace) stabilize([]string) error {
	if !t.net.Run(quietTicks, settleTicks) {
		t.out = append(t.out, "does not settle")
	}
	return nil
}

// show prints a peer's state, and of each of its links what is not as it is at rest.
func (t *trace) show(args []string) error {
	p, err := t.find(args[0])
	if err != nil {
		return err
	}
	cells := p.Store.Cells()
	var keys []string
	for key := range cells {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	var values []string
	for i, key := range keys {
		if i == 8 {
			values = append(values, fmt.Sprintf("and %d more", len(keys)-i))
			break
		}
		values = append(values, fmt.Sprintf("%s=%d", key, cells[key].Value))
	}
	s := p.Core.Status()
	t.net.log("%s holds %s vector=%s newest=%d%s", p.Name, strings.Join(values, " "), vectorText(s.Vector), s.Newest,
		flags(when(s.Synced, "synced")))
	for _, l := range s.Links {
		t.net.log("%s to %s:%s sent=%d held=%d inflight=%d received=%d queued=%d waiting=%d behind=%d ahead=%d", p.Name, letter(l.Remote),
			flags(when(l.Live, "live"), when(l.Serving, "serving"), when(l.CatchingUp, "catching up"), when(l.Writer, "writer")),
			l.Sent, l.Held, l.InFlight, l.Received, l.Queued, l.Waiting, l.Behind, l.Ahead)
	}
	return nil
}
