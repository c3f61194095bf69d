package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/coreos/go-systemd/v22/activation"
)

// listenFlags say where the server listens.
type listenFlags struct {
	Listen     string `restart:"" default:"127.0.0.1:8787" placeholder:"ADDRESS" help:"Where the WebSocket and the page are: HOST:PORT, unix:/PATH for a Unix socket, or systemd for the socket that systemd hands over (${default})."`
	SocketMode string `restart:"" default:"0660" placeholder:"MODE" help:"Permissions of the Unix socket, in octal (${default})."`
	STUN       string `restart:"" name:"stun" default:":3478" placeholder:"ADDRESS" help:"UDP address of the STUN responder: HOST:PORT, systemd, or off (${default})."`
	ReusePort  bool   `restart:"" help:"Let a second process listen on the same addresses, for an upgrade without a gap. Two that go on side by side divide the rooms."`
}

// sockets are what the server listens on.
type sockets struct {
	main net.Listener
	stun *net.UDPConn // nil: off
}

func (s *sockets) close() {
	if s.main != nil {
		_ = s.main.Close()
	}
	if s.stun != nil {
		_ = s.stun.Close()
	}
}

// open opens the sockets. Only one that is a Unix socket leaves something
// behind, which it removes when it is closed.
func (f *listenFlags) open() (*sockets, error) {
	s := &sockets{}
	if err := f.openAll(s); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (f *listenFlags) openAll(s *sockets) error {
	if err := f.takeOver(s); err != nil {
		return err
	}
	config := f.listenConfig()
	ctx := context.Background() // listening on an address blocks for a look-up of its host at most
	if f.STUN != "systemd" && f.STUN != "off" {
		if err := namesPort("stun", f.STUN); err != nil {
			return err
		}
		socket, err := config.ListenPacket(ctx, "udp", f.STUN)
		if err != nil {
			return fmt.Errorf("the STUN port cannot be opened, choose another one with --stun or switch it off with --stun off: %w", err)
		}
		s.stun = socket.(*net.UDPConn)
	}
	if f.Listen == "systemd" {
		return nil
	}
	var err error
	if path, ok := strings.CutPrefix(f.Listen, "unix:"); ok {
		mode, e := f.unixMode(path)
		if e != nil {
			return e
		}
		s.main, err = listenUnix(path, mode, f.ReusePort)
	} else if err = namesPort("listen", f.Listen); err != nil {
		return err
	} else {
		s.main, err = config.Listen(ctx, "tcp", f.Listen)
	}
	if err != nil {
		return fmt.Errorf("cannot listen on %s, choose another address with --listen: %w", f.Listen, err)
	}
	return nil
}

// namesPort returns what is wrong with an address that names no port: the system would take any, on all interfaces, as for a variable
// that is set to nothing. 0 says that on purpose. What else may be wrong, listening tells.
func namesPort(flag, address string) error {
	if _, port, err := net.SplitHostPort(address); address == "" || err == nil && port == "" {
		return fmt.Errorf("--%s %q names no port; write HOST:PORT", flag, address)
	}
	return nil
}

// unixMode returns the permissions of the Unix socket at path, or what is wrong with either.
func (f *listenFlags) unixMode(path string) (os.FileMode, error) {
	if path == "" {
		return 0, errors.New("--listen unix: names no file; write unix:/PATH")
	}
	mode, err := strconv.ParseUint(f.SocketMode, 8, 32)
	if err != nil || mode > 0o777 {
		return 0, fmt.Errorf("--socket-mode %s is not a mode like 0660", f.SocketMode)
	}
	return os.FileMode(mode), nil
}

// listenConfig is how a port is opened. TCP has no keep-alive of its own:
// requests have their timeouts, and WebSockets their pings.
func (f *listenFlags) listenConfig() *net.ListenConfig {
	config := &net.ListenConfig{KeepAlive: -1}
	if f.ReusePort {
		config.Control = reusePort
	}
	return config
}

// takeOver takes the sockets that systemd hands over: one that accepts
// connections for --listen systemd, one for datagrams for --stun systemd.
// Others are an error, for nobody would serve them: clients would wait there for ever.
func (f *listenFlags) takeOver(s *sockets) error {
	for _, file := range activation.Files(true) {
		name := file.Name()
		listener, err := net.FileListener(file) // a copy
		var packets net.PacketConn
		if err != nil {
			packets, err = net.FilePacketConn(file)
		}
		_ = file.Close()
		udp, _ := packets.(*net.UDPConn)
		switch {
		case err != nil:
			return fmt.Errorf("systemd handed over %s, which is no socket to listen on: %w", name, err)
		case listener != nil && f.Listen == "systemd" && s.main == nil:
			if u, ok := listener.(*net.UnixListener); ok {
				u.SetUnlinkOnClose(false) // it is systemd's
			}
			s.main = listener
		case udp != nil && f.STUN == "systemd" && s.stun == nil:
			s.stun = udp
		default:
			if listener != nil {
				_ = listener.Close()
			}
			if packets != nil {
				_ = packets.Close()
			}
			return fmt.Errorf("systemd handed over the socket %s, which nobody asked for: --listen systemd takes one ListenStream=, --stun systemd one ListenDatagram= of UDP", name)
		}
	}
	if f.Listen == "systemd" && s.main == nil {
		return errors.New("systemd handed over no socket for --listen systemd: start the server by its .socket unit, with a ListenStream=")
	}
	if f.STUN == "systemd" && s.stun == nil {
		return errors.New("systemd handed over no UDP socket for --stun systemd: add a ListenDatagram= to the .socket unit, or use --stun off")
	}
	return nil
}

// unixListener removes its file when it is closed, unless that has become
// somebody else's.
type unixListener struct {
	net.Listener
	path string
	own  os.FileInfo
}

// listenUnix listens on a Unix socket at path. The socket gets its mode before
// it gets its name, and takes the place of one that is left from a process
// which has ended, or, with takeOver, of a live one.
func listenUnix(path string, mode os.FileMode, takeOver bool) (net.Listener, error) {
	if info, err := os.Lstat(path); err == nil {
		if info.Mode().Type() != os.ModeSocket {
			return nil, fmt.Errorf("%s is there and is no socket", path)
		}
		if c, err := net.Dial("unix", path); err == nil {
			_ = c.Close()
			if !takeOver {
				return nil, fmt.Errorf("%s: %w by another server", path, syscall.EADDRINUSE)
			}
		}
	}
	fresh := path + "." + strconv.Itoa(os.Getpid())
	_ = os.Remove(fresh) // of an earlier process with this number
	listener, err := net.Listen("unix", fresh)
	if err != nil {
		return nil, err
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	l := &unixListener{Listener: listener, path: path}
	if err = os.Chmod(fresh, mode); err == nil {
		if l.own, err = os.Lstat(fresh); err == nil {
			err = os.Rename(fresh, path)
		}
	}
	if err != nil {
		_ = listener.Close()
		_ = os.Remove(fresh)
		return nil, err
	}
	return l, nil
}

// Addr is the name that clients use.
func (l *unixListener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

func (l *unixListener) Close() error {
	err := l.Listener.Close()
	if now, e := os.Lstat(l.path); e == nil && os.SameFile(now, l.own) {
		err = errors.Join(err, os.Remove(l.path))
	}
	if errors.Is(err, net.ErrClosed) {
		return nil // http.Server closes it, too
	}
	return err
}
