package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/crmesh/crmesh/cmd/internal/program"
	"github.com/crmesh/crmesh/pkg/signaling"
)

// check prints the configuration of serve and judges it.
type check struct{ serve }

// findings are what is wrong with a configuration: errors keep the server from starting, warnings do not.
type findings struct{ errors, warnings []string }

func (f *findings) bad(format string, args ...any) {
	f.errors = append(f.errors, fmt.Sprintf(format, args...))
}
func (f *findings) warn(format string, args ...any) {
	f.warnings = append(f.warnings, fmt.Sprintf(format, args...))
}

// Run prints each flag with its value and where that is from, and then what there is to say about them.
func (c *check) Run(out program.Output, k *kong.Context) error {
	given := onCommandLine(k)
	for _, flag := range k.Selected().Flags {
		if flag.Name == "help" {
			continue
		}
		from := "default"
		place := c.origin(flag.Name)
		switch {
		case place != "":
			from = place
		case given[flag.Name]:
			from = "command line"
		case fromEnvironment(flag):
			from = "environment"
		}
		fmt.Fprintf(out.Stdout, "%-30s %-24s (%s)\n", flag.Name, shown(flag), from)
	}
	fmt.Fprintf(out.Stdout, "\nmemory: at most %s, see docs/OPERATING.md, Sizing\n", size(c.memoryBound()))
	found := c.judge(thisMachine())
	for _, flag := range k.Selected().Flags {
		if given[flag.Name] && (isSecret(flag) || isAddress(flag) && hasUser(flag)) {
			found.warn("--%s stands on the command line, where other users of the machine can read it: set %s instead", flag.Name, flag.Envs[0])
		}
	}
	c.judgeFile(found)
	for _, name := range unknownVariables(k, os.Environ()) {
		found.warn("there is no setting %s: the variable has no effect; signal serve --help names all", name)
	}
	fmt.Fprintln(out.Stdout)
	for _, s := range found.warnings {
		fmt.Fprintln(out.Stdout, "warning: "+s)
	}
	for _, s := range found.errors {
		fmt.Fprintln(out.Stdout, "error: "+s)
	}
	if n := len(found.errors); n > 0 {
		return fmt.Errorf("the server would not start, or not work, with this configuration: %s, see above", counted(n, "error"))
	}
	fmt.Fprintf(out.Stdout, "no errors, %s\n", counted(len(found.warnings), "warning"))
	return nil
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// judge says what is wrong with the flags on a machine.
func (c *check) judge(m machine) *findings {
	found := &findings{}
	_, err := c.config(slog.New(slog.DiscardHandler), 0)
	if err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			found.bad("%s", line)
		}
	}
	c.judgeAddresses(found)
	c.judgeTLS(found)
	c.judgeCluster(found)
	c.judgeSecrets(found)
	c.judgeTimes(found)
	c.judgeLimits(found, m)
	return found
}

func (c *check) judgeCluster(found *findings) {
	if _, _, err := c.bus(nil); err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			found.bad("%s", line)
		}
		return
	}
	for i, text := range c.Cluster {
		u, err := url.Parse(text)
		if err != nil {
			continue // it is an error already
		}
		if host, err := netip.ParseAddr(u.Hostname()); u.Scheme != "tls" && err == nil && !host.IsLoopback() && !host.IsPrivate() {
			found.warn("--cluster: address number %d is in no private network and not tls://: whoever reads along learns rooms, names and "+
				"addresses of servers, and the password", i+1)
		}
		if u.User == nil && c.ClusterCreds == "" {
			found.warn("--cluster: address number %d has no user, and there are no --cluster-creds: whoever reaches that NATS can "+
				"keep members apart and end their connections; only servers of the cluster may", i+1)
		}
	}
}

func (c *check) judgeAddresses(found *findings) {
	public, local := false, false // of systemd's sockets neither is known, on a Unix socket neither matters
	if path, ok := strings.CutPrefix(c.Listen, "unix:"); ok {
		if mode, err := c.unixMode(path); err != nil {
			found.bad("%v", err)
		} else if mode&0o002 != 0 {
			found.warn("--socket-mode %s: every user of this machine can connect, and is believed about the address of a client", c.SocketMode)
		}
		if info, err := os.Lstat(path); err == nil && info.Mode().Type() != os.ModeSocket {
			found.bad("--listen %s: %s is there and is no socket", c.Listen, path)
		}
	} else if c.Listen != "systemd" {
		if err := namesPort("listen", c.Listen); err != nil {
			found.bad("%v", err)
			return
		}
		addr, err := net.ResolveTCPAddr("tcp", c.Listen)
		if err != nil {
			found.bad("--listen %s is not host:port: %v", c.Listen, err)
			return
		}
		public, local = !addr.IP.IsLoopback(), addr.IP.IsLoopback()
		if len(c.Domain) > 0 && addr.Port != 443 && addr.Port != 0 {
			found.warn("--domain: the authority asks at port 443 of the name, and the server listens on %d: whatever stands before it "+
				"must pass TLS on from there as it is", addr.Port)
		}
	}
	secure := c.TLSCert != "" || len(c.Domain) > 0
	switch {
	case public && !secure && len(c.TrustedProxies) == 0:
		found.warn("--listen %s is reachable from elsewhere, and there is neither TLS nor a --trusted-proxies that has it: "+
			"browsers open the page over https only, and the limits per address count the proxy as one address", c.Listen)
	case local && len(c.TrustedProxies) == 0:
		found.warn("only this machine can connect to --listen %s; behind a proxy, name the proxy with --trusted-proxies, "+
			"or all its clients count as one address", c.Listen)
	}
	if c.Private != "" {
		if err := namesPort("private", c.Private); err != nil {
			found.bad("%v", err)
		} else if addr, err := net.ResolveTCPAddr("tcp", c.Private); err != nil {
			found.bad("--private %s is not host:port: %v", c.Private, err)
		} else if !addr.IP.IsLoopback() && !addr.IP.IsPrivate() {
			found.warn("--private %s has no password: whoever reaches it reads metrics and the memory profile", c.Private)
		}
	}
	for _, p := range c.TrustedProxies {
		if prefix, err := trustedProxy(p); err == nil && prefix.Bits() == 0 {
			found.warn("--trusted-proxies %s trusts everybody: any client can claim any address", p)
		}
	}
	if public, err := c.public(); err == nil && public != nil && public.Scheme == "http" && !isLocal(public.Hostname()) {
		found.warn("--public-url %s is not https: browsers give its page neither WebRTC nor storage", c.PublicURL)
	}
	if slices.Contains(c.AllowOrigin, "*") {
		found.warn("--allow-origin * lets every page on the web use this server through its visitors")
	}
	if c.STUN == "systemd" {
		return
	}
	if c.STUN == "off" {
		if len(c.TURNURLs) == 0 {
			found.warn("there is neither STUN nor TURN: members behind routers find no way to each other")
		}
	} else if err := namesPort("stun", c.STUN); err != nil {
		found.bad("%v", err)
	} else if _, err := net.ResolveUDPAddr("udp", c.STUN); err != nil {
		found.bad("--stun %s is neither off nor host:port: %v", c.STUN, err)
	}
}

// isLocal tells whether browsers take a page of the host for secure without TLS.
func isLocal(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || err == nil && addr.IsLoopback()
}

// judgeTLS looks at the certificate that browsers would be shown, and who else can show it.
func (c *check) judgeTLS(found *findings) {
	if len(c.Domain) > 0 && c.TLSCert == "" && c.TLSKey == "" { // then the directory of --acme-cache would be made
		if c.ACMECache == "" {
			found.bad("--domain needs a directory that outlives the server: --acme-cache")
		}
		if err := c.checkACME(); err != nil {
			found.bad("%v", err)
		} else if c.ACMECache != "" {
			c.judgeCache(found)
		}
		return
	}
	certs, err := c.certificates(slog.New(slog.DiscardHandler))
	if err != nil {
		found.bad("%v", err)
	}
	if err != nil || certs == nil {
		return
	}
	for _, leaf := range certs.leaves() {
		switch now := time.Now(); {
		case now.After(leaf.NotAfter):
			found.bad("the certificate of --tls-cert %s has expired on %s: browsers refuse it", c.TLSCert, leaf.NotAfter.Format(time.DateOnly))
		case now.Before(leaf.NotBefore):
			found.bad("the certificate of --tls-cert %s is good from %s on only: browsers refuse it until then; or the clock of this machine is wrong",
				c.TLSCert, leaf.NotBefore.Format(time.DateTime))
		case endsSoon(leaf, now):
			found.warn("the certificate of --tls-cert %s expires on %s: renew it; the server takes it from the files by itself",
				c.TLSCert, leaf.NotAfter.Format(time.DateOnly))
		}
	}
	if info, err := os.Stat(c.TLSKey); err == nil && info.Mode().Perm()&0o004 != 0 {
		found.warn("every user of this machine can read --tls-key %s, and so pretend to be this server: chmod 640, with a group for the server", c.TLSKey)
	}
}

// judgeCache looks at the certificates that the authority gave out before.
func (c *check) judgeCache(found *findings) {
	if info, err := os.Stat(c.ACMECache); err == nil && !info.IsDir() {
		found.bad("--acme-cache %s is no directory", c.ACMECache)
		return
	}
	leaves, err := c.cached(context.Background())
	if err != nil {
		found.warn("--acme-cache %s cannot be read, so that nothing is known about its certificates: run this as the user of the server (%v)", c.ACMECache, err)
	}
	for _, leaf := range leaves {
		if endsSoon(leaf, time.Now()) {
			found.warn("--domain: the certificate of %s expires on %s and should have been renewed by now: see 'no certificate' in the log of the server, "+
				"which must run, and be reachable at port 443 of the name", leaf.name, leaf.NotAfter.Format(time.DateOnly))
		}
	}
}

const (
	shortSecret  = 16             // characters that can be guessed in time
	longTURN     = 24 * time.Hour // a credential that leaks is good for so long
	shortTURN    = 5 * time.Minute
	spareFiles   = 64       // descriptors beside those of WebSockets: listeners, the page, the log
	connMemory   = 16 << 10 // of a connection while it joins and signals, see docs/OPERATING.md
	connMost     = 48 << 10 // of a connection at the most, without its frame, whose buffer may be twice as large, and its queue
	socketMemory = 48 << 10 // of a connection that is no WebSocket
	roomMemory   = 1 << 10  // of a room with one member
	baseMemory   = 32 << 20 // of the program, and of messages that are being parsed
	collector    = 2        // garbage may be as much as what is in use
	memoryOfLoad = "%s of memory, and this machine gives the server %s"
)

func (c *check) judgeSecrets(found *findings) {
	if len(c.TURNURLs) > 0 {
		if c.TURNSecret != "" && len(c.TURNSecret) < shortSecret {
			found.warn("--turn-secret has fewer than %d characters and can be guessed from one credential", shortSecret)
		}
		if c.TURNTTL > longTURN {
			found.warn("--turn-ttl %v: whoever takes a credential along can relay through the TURN server for so long", c.TURNTTL)
		} else if c.TURNTTL < shortTURN {
			found.warn("--turn-ttl %v: all clients join again after three quarters of it", c.TURNTTL)
		}
	}
	if c.LogAddresses {
		found.warn("--log-addresses: whoever reads the log learns who was in which room, and when; leave it on for no longer than you need it")
	}
	for i, t := range c.JoinTokens {
		if len(t) < shortSecret {
			found.warn("join token number %d has fewer than %d characters and can be guessed", i+1, shortSecret)
		}
	}
}

// judgeFile looks who can read the secrets in the file of --config.
func (c *check) judgeFile(found *findings) {
	if c.file == nil {
		return
	}
	info, err := os.Stat(c.file.path)
	if err != nil || info.Mode().Perm()&0o004 == 0 {
		return
	}
	for _, flag := range c.flags {
		if _, ok := c.file.settings[flag.Name]; ok && isSecret(flag) {
			found.warn("%s holds %s, and every user of this machine can read it: chmod 640, with a group for the server", c.file.path, flag.Name)
		}
	}
}

// judgeTimes warns of times that clients far away, or on a phone, would not keep; values that do not work are errors already.
func (c *check) judgeTimes(found *findings) {
	for _, t := range []struct {
		flag         string
		value, least time.Duration
	}{
		{"idle-timeout", c.IdleTimeout, 10 * time.Second}, // a ping, its answer, and what is lost once or twice on the way
		{"grace", c.Grace, 3 * time.Second},
		{"join-timeout", c.JoinTimeout, 2 * time.Second},
		{"request-timeout", c.RequestTimeout, 2 * time.Second},
	} {
		if t.value > 0 && t.value < t.least {
			found.warn("--%s %v: a client on a slow network does not keep that, and would be cut off again and again; %v is the least that makes sense", t.flag, t.value, t.least)
		}
	}
}

func (c *check) judgeLimits(found *findings, m machine) {
	if files := uint64(max(c.MaxConnections, 0)) + uint64(max(c.MaxSockets, 0)) + spareFiles; m.files > 0 && m.files < files {
		found.warn("--max-connections %d with --max-sockets %d needs as many open files, and the limit of this process is %d: raise it (ulimit -n, "+
			"LimitNOFILE), or lower the flags", c.MaxConnections, c.MaxSockets, m.files)
	}
	if m.memory == 0 || c.MaxConnections <= 0 || c.MaxQueuedBytes <= 0 {
		return
	}
	idle, worst, have := float64(c.MaxConnections)*connMemory, c.memoryBound(), float64(m.memory)
	switch {
	case idle > have:
		found.bad("--max-connections %d takes about "+memoryOfLoad, c.MaxConnections, size(idle), size(have))
	case worst > have:
		found.warn("if clients do their worst, --max-connections %d, --max-queued-bytes %d, --max-sockets %d and --max-rooms %d take "+memoryOfLoad+
			": lower one of them", c.MaxConnections, c.MaxQueuedBytes, c.MaxSockets, c.MaxRooms, size(worst), size(have))
	}
}

// memoryBound is how much memory the server has at the most, in bytes, whatever clients do; docs/OPERATING.md explains it. It is no integer,
// since the product of flags may be larger than any.
func (f *serve) memoryBound() float64 {
	const connection = connMost + 2*signaling.MaxClientFrame
	queued := min(float64(f.MaxConnections)*float64(f.SendQueueBytes), float64(f.MaxQueuedBytes))
	return baseMemory + collector*(float64(f.MaxConnections)*connection+2*queued+
		float64(f.MaxSockets)*socketMemory+float64(f.MaxRooms)*roomMemory)
}

func size(bytes float64) string {
	if bytes >= 1<<30 {
		return fmt.Sprintf("%.1f GiB", bytes/(1<<30))
	}
	return fmt.Sprintf("%d MiB", int(bytes)>>20)
}
