package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/crmesh/crmesh/pkg/mesh"
)

// table is rows of text with aligned columns.
type table struct {
	rows   [][]string
	widths []int
}

func newTable(head ...string) *table {
	t := &table{}
	t.add(head...)
	return t
}

func (t *table) add(cells ...string) {
	for i, c := range cells {
		if i == len(t.widths) {
			t.widths = append(t.widths, 0)
		}
		t.widths[i] = max(t.widths[i], utf8.RuneCountInString(c))
	}
	t.rows = append(t.rows, cells)
}

// maxCell bounds what a column is padded to, so that one long text does not push all others off the screen.
const maxCell = 60

func (t *table) print(w io.Writer) error {
	b := bufio.NewWriter(w)
	for _, row := range t.rows {
		var line strings.Builder
		for i, c := range row {
			line.WriteString(c)
			if i < len(row)-1 {
				line.WriteString(strings.Repeat(" ", max(min(t.widths[i], maxCell)-utf8.RuneCountInString(c), 0)+2))
			}
		}
		fmt.Fprintln(b, line.String())
	}
	return b.Flush()
}

func printStatus(w io.Writer, s peerStatus) error {
	role := "reader"
	if s.Writer {
		role = "writer"
	}
	server := "joined"
	if !s.Server.Joined {
		server = "not reached"
		if s.Server.Error != "" {
			server += ": " + s.Server.Error
		}
	}
	fmt.Fprintf(w, "site     %s (%s), version %d\npeer     %s\nserver   %s\nsynced   %t\napplied  %d changes, %d rows; %d known already, %d put aside now\n",
		s.Site, role, s.Version, s.Peer, printable(server), s.Synced, s.Applied.Changes, s.Applied.Rows, s.Applied.Redundant, s.Parked.Changes)
	for _, p := range s.Parked.Tables {
		fmt.Fprintf(w, "aside    %d changes to %s: %s\n", p.Changes, printable(p.Table), printable(p.Reason))
	}
	if s.Parked.More > 0 {
		fmt.Fprintf(w, "aside    and for %d more tables and reasons\n", s.Parked.More)
	}
	fmt.Fprint(w, s.text())
	if s.Database.Error != "" {
		waits := time.Duration(s.Database.WaitMillis) * time.Millisecond
		fmt.Fprintf(w, "database cannot be used for %s by now, and what others send waits: %s\n", waits.Round(time.Second), printable(s.Database.Error))
	}
	if ports := portsText(s.Ports); ports != "" {
		fmt.Fprintf(w, "ports    %s\n", ports)
	}
	fmt.Fprintln(w, "vector")
	for _, site := range sortedKeys(s.Vector) {
		fmt.Fprintf(w, "         %s %d\n", site, s.Vector[site])
	}
	if len(s.Members) == 0 {
		_, err := fmt.Fprintln(w, "members  none yet")
		return err
	}
	fmt.Fprintln(w, "members")
	t := newTable("peer", "name", "link", "path", "role", "rtt", "in", "out", "to come", "to send", "lag", "")
	linked, unlinked := linkedMembers(s.Members)
	for _, m := range linked {
		t.add(m.Peer, printable(m.Name), string(m.State), pathText(m.Path), m.Role, fmt.Sprintf("%.1f ms", m.RTT),
			fmt.Sprintf("%s %s/s", bytesText(float64(m.BytesIn)), bytesText(m.RateIn)),
			fmt.Sprintf("%s %s/s", bytesText(float64(m.BytesOut)), bytesText(m.RateOut)),
			fmt.Sprint(m.Remaining), fmt.Sprint(m.Unsent), fmt.Sprintf("%d ms", m.LagMillis), printable(m.Error))
	}
	if err := t.print(w); err != nil {
		return err
	}
	if unlinked > 0 {
		if _, err := fmt.Fprintf(w, "and %d more, which are linked over others\n", unlinked); err != nil {
			return err
		}
	}
	return printDifferences(w, s.Members)
}

// pathText is our end of a link and the other one, by the kinds of ICE.
func pathText(p *mesh.PathStatus) string {
	if p == nil {
		return ""
	}
	return p.Local + "/" + p.Remote
}

// printDifferences says how the tables of members differ from ours.
func printDifferences(w io.Writer, members []mesh.MemberStatus) error {
	for _, m := range members {
		if len(m.SchemaDifference) == 0 {
			continue
		}
		if _, err := fmt.Fprintf(w, "schema differs from that of %s %s\n", m.Peer, printable(m.Name)); err != nil {
			return err
		}
		for _, d := range m.SchemaDifference {
			if _, err := fmt.Fprintf(w, "         %s\n", printable(d)); err != nil {
				return err
			}
		}
	}
	return nil
}

// linkedMembers returns the members that there is a link to, or should be one, those with a link first, and how many others
// there are.
func linkedMembers(members []mesh.MemberStatus) (linked []mesh.MemberStatus, unlinked int) {
	for _, m := range members {
		if m.State != mesh.LinkUnlinked {
			linked = append(linked, m)
		}
	}
	slices.SortStableFunc(linked, func(a, b mesh.MemberStatus) int {
		switch {
		case a.Live == b.Live:
			return 0
		case a.Live:
			return -1
		default:
			return 1
		}
	})
	return linked, len(members) - len(linked)
}

// portsText names the ports that all links share; "" where there are none.
func portsText(p mesh.PortStatus) string {
	var out []string
	for _, a := range p.UDP {
		out = append(out, "udp "+a)
	}
	for _, a := range p.TCP {
		out = append(out, "tcp "+a)
	}
	return strings.Join(out, ", ")
}

func bytesText(n float64) string {
	for _, unit := range []string{"B", "kB", "MB"} {
		if n < 1000 {
			return fmt.Sprintf("%.3g %s", n, unit)
		}
		n /= 1000
	}
	return fmt.Sprintf("%.3g GB", n)
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
