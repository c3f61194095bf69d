package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/crmesh/crmesh/pkg/mesh"
)

// lan is a network of the kernel: a machine behind a router that masquerades, or a machine in the open.
type lan struct {
	t    *testing.T
	name string // of the machine's namespace
	dir  string
}

const (
	// netnsServer and netnsOpen are the addresses of the signaling server and of the replica in the open.
	netnsServer = "203.0.113.1"
	netnsOpen   = "203.0.113.2"

	masqueradeCone      = "masquerade"              // keeps the port, for all destinations
	masqueradeSymmetric = "masquerade fully-random" // another port for each destination
)

// command runs a tool that must succeed.
func command(t *testing.T, line string) string {
	t.Helper()
	out, err := exec.Command("sh", "-ec", line).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}

// openNamespace makes a namespace with a port at the bridge of the open network.
func openNamespace(t *testing.T, name, address string) {
	t.Helper()
	addNamespace(t, name)
	t.Cleanup(func() { command(t, "ip link delete port-"+name) }) // the kernel would do it some time later
	command(t, fmt.Sprintf(`ip link add port-%[1]s type veth peer name outer netns %[1]s
		ip link set port-%[1]s master open up
		ip -n %[1]s address add %[2]s/24 dev outer
		ip -n %[1]s link set outer up`, name, address))
}

func addNamespace(t *testing.T, name string) {
	t.Helper()
	command(t, "ip netns add "+name)
	t.Cleanup(func() { command(t, "ip netns delete "+name) })
	command(t, "ip -n "+name+" link set lo up")
}

// behindRouter makes a machine behind a router, which drops what nobody behind it asked for.
func behindRouter(t *testing.T, name, outer, inner, masquerade string) *lan {
	t.Helper()
	router := "router-" + name
	openNamespace(t, router, outer)
	addNamespace(t, name)
	command(t, fmt.Sprintf(`ip link add inner netns %[2]s type veth peer name inner netns %[1]s
		ip -n %[2]s address add %[3]s.1/24 dev inner
		ip -n %[2]s link set inner up
		ip -n %[1]s address add %[3]s.2/24 dev inner
		ip -n %[1]s link set inner up
		ip -n %[1]s route add default via %[3]s.1
		ip netns exec %[2]s sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'
		ip netns exec %[2]s nft -f - <<-RULES
			table ip nat {
				chain out { type nat hook postrouting priority srcnat; oifname "outer" %[4]s; }
				chain in { type filter hook input priority filter; iifname "outer" ct state new drop; }
				chain through { type filter hook forward priority filter; iifname "outer" ct state new drop; }
			}
		RULES`, name, router, inner, masquerade))
	return &lan{t, name, t.TempDir()}
}

// in starts a program in the machine.
func (l *lan) in(name string, args ...string) *process {
	l.t.Helper()
	return launchCommand(l.t, name, exec.Command("ip", append([]string{"netns", "exec", l.name, filepath.Join(bin, name)}, args...)...))
}

// ask runs a command of peer in the machine.
func (l *lan) ask(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", l.name, filepath.Join(bin, "peer")}, args...)...).CombinedOutput()
	return string(out), err
}

func (l *lan) must(args ...string) string {
	l.t.Helper()
	out, err := l.ask(args...)
	if err != nil {
		l.t.Fatalf("peer %s in %s: %v\n%s", strings.Join(args, " "), l.name, err, out)
	}
	return out
}

// row returns the line of the status that is about a member.
func (l *lan) row(member string) string {
	for line := range strings.Lines(l.must("status")) {
		if strings.Contains(line, " "+member+" ") {
			return line
		}
	}
	return ""
}

// openNetwork makes the open network with a signaling server in it, or skips the test: `make netns` runs it, in namespaces of its
// own that end with it.
func openNetwork(t *testing.T) {
	t.Helper()
	if os.Getenv("CRMESH_NETNS") == "" {
		t.Skip("make netns runs this")
	}
	if os.Getpid() != 1 {
		t.Fatal("this test changes the machine's network: run it with make netns")
	}
	for _, tool := range []string{"ip", "nft", "mount"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%v: install iproute2, nftables and mount", err)
		}
	}
	command(t, "mount -t tmpfs tmpfs /run") // names of namespaces are ours alone
	t.Cleanup(func() { command(t, "umount -l /run") })
	command(t, "ip link set lo up; ip link add open type bridge; ip link set open up; ip address add "+netnsServer+"/24 dev open")
	t.Cleanup(func() { command(t, "ip link delete open") })
	launch(t, "signal", "--listen", netnsServer+":8787", "--stun", netnsServer+":3478")
}

// TestNetns: real programs behind real routers.
func TestNetns(t *testing.T) {
	openNetwork(t)
	for _, c := range []struct{ name, masquerade, nat string }{
		{"cone and cone", masqueradeCone, "cone NAT"},
		{"symmetric and symmetric", masqueradeSymmetric, "symmetric NAT"},
	} {
		t.Run(c.name, func(t *testing.T) {
			direct := c.masquerade == masqueradeCone
			l := newLabAt(t, "http://"+netnsServer+":8787/")
			a := behindRouter(t, "a", "203.0.113.11", "192.168.1", c.masquerade)
			b := behindRouter(t, "b", "203.0.113.12", "192.168.2", c.masquerade)
			openNamespace(t, "open", netnsOpen)
			open := &lan{t, "open", t.TempDir()}
			open.in("signal", "--listen", netnsOpen+":8788", "--stun", netnsOpen+":3478") // a second STUN server, for the doctor
			schema := l.file("notes.sql", notes)
			for _, p := range []*lan{a, b, open} {
				if p == open && direct {
					continue
				}
				p.in("peer", "run", "--db", filepath.Join(p.dir, "x.db"), "--room", l.write, "--schema", schema, "--name", p.name)
				p.must("wait", "--timeout", patience.String())
			}
			begun := time.Now()
			a.must("wait", "--links", "1", "--timeout", patience.String())
			b.must("wait", "--links", "1", "--timeout", patience.String())
			t.Logf("the first links took %v", time.Since(begun).Round(10*time.Millisecond))
			a.must("exec", "INSERT INTO note VALUES (1, 'from a', 1)")
			b.must("exec", "INSERT INTO note VALUES (2, 'from b', 2)")
			begun = time.Now()
			for _, p := range []*lan{a, b} {
				eventually(t, "both rows are in "+p.name, func() bool { return strings.Contains(p.must("query", "SELECT count(*) FROM note"), "2") })
			}
			t.Logf("both rows were in both after %v", time.Since(begun).Round(10*time.Millisecond))
			if direct {
				if row := a.row("b"); !strings.Contains(row, " "+string(mesh.LinkOpen)+" ") {
					t.Errorf("a has no link to b: %s", row)
				}
			} else {
				for _, pair := range [][2]*lan{{a, b}, {b, a}} {
					eventually(t, "the attempt at a direct link has failed", func() bool {
						return strings.Contains(pair[0].row(pair[1].name), "no path to the peer") && strings.Contains(pair[0].row("open"), string(mesh.LinkOpen))
					})
				}
				t.Log(strings.TrimSpace(a.row("b")))
			}
			found, _ := a.ask("doctor", l.read, "--ice-server", "stun:"+netnsOpen+":3478")
			if !strings.Contains(found, c.nat) {
				t.Errorf("the doctor does not see a %s:\n%s", c.nat, found)
			}
		})
	}
}
