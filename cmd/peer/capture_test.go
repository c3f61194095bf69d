package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// tap is a TCP proxy in front of the signaling server that keeps what passes it.
type tap struct {
	listener net.Listener
	wg       sync.WaitGroup

	mu    sync.Mutex // guards the following
	bytes bytes.Buffer
	conns []net.Conn
}

func newTap(t *testing.T, target string) *tap {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &tap{listener: l}
	p.wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", target)
			if err != nil {
				_ = in.Close()
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, in, out)
			p.mu.Unlock()
			p.wg.Go(func() { p.copy(out, in, true) })
			p.wg.Go(func() { p.copy(in, out, false) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		p.mu.Lock()
		for _, c := range p.conns {
			_ = c.Close()
		}
		p.mu.Unlock()
		p.wg.Wait()
	})
	return p
}

// copy keeps what it copies. What clients send is masked: that is undone, so that it can be read.
func (p *tap) copy(dst, src net.Conn, masked bool) {
	defer func() { _, _ = dst.Close(), src.Close() }()
	var raw bytes.Buffer
	buf := make([]byte, 64<<10)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			raw.Write(buf[:n])
			p.mu.Lock()
			p.bytes.Write(buf[:n])
			p.mu.Unlock()
			if _, err := dst.Write(buf[:n]); err != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	if masked {
		p.mu.Lock()
		p.bytes.Write(unmasked(raw.Bytes()))
		p.mu.Unlock()
	}
}

// unmasked returns the payloads of a client's WebSocket frames.
func unmasked(b []byte) []byte {
	_, b, _ = bytes.Cut(b, []byte("\r\n\r\n"))
	var out []byte
	for len(b) >= 6 {
		size, head := int(b[1]&0x7f), 2
		if size == 126 {
			size, head = int(b[2])<<8|int(b[3]), 4
		}
		if size == 127 || len(b) < head+4+size {
			break
		}
		mask, payload := b[head:head+4], b[head+4:head+4+size]
		for i, c := range payload {
			out = append(out, c^mask[i%4])
		}
		out = append(out, '\n')
		b = b[head+4+size:]
	}
	return out
}

// TestServerSeesNothing: all that passes the signaling server holds no byte of a row and no description that can be read.
func TestServerSeesNothing(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.signal()
	p := newTap(t, fmt.Sprintf("127.0.0.1:%d", l.port))
	through := "http://" + p.listener.Addr().String()
	a := l.peer("a", l.write, "--schema", l.file("notes.sql", notes), "--signal", through)
	b := l.peer("b", l.write, "--signal", through)
	b.synced(1)
	const marker = "MARKER-ROW-7c1f"
	a.exec("INSERT INTO note VALUES (1, '" + marker + "', 1)")
	b.exec("INSERT INTO note VALUES (2, '" + marker + "', 2)")
	a.synced(1)
	b.synced(1)
	if got := equal(t, "SELECT count(*) FROM note WHERE body = '"+marker+"'", a, b); got != "2" {
		t.Fatalf("%s rows have arrived", got)
	}
	a.stop()
	b.stop()
	p.wait()
	seen := p.bytes.String()
	envelopes := regexp.MustCompile(`"sealed":"([A-Za-z0-9_-]+)"`).FindAllStringSubmatch(seen, -1)
	if len(envelopes) < 8 { // an offer, an answer and a candidate or two, each sent and received
		t.Fatalf("only %d envelopes in %d bytes: the tap does not see what it should", len(envelopes), len(seen))
	}
	all := []string{seen}
	for _, e := range envelopes {
		plain, err := base64.RawURLEncoding.DecodeString(e[1])
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(plain))
	}
	secret := l.write[strings.LastIndex(l.write, ".")+1:]
	for _, text := range all {
		for _, bad := range []string{marker, "ice-ufrag", "candidate:", "fingerprint", "v=0\r\n", "webrtc-datachannel", secret} {
			if strings.Contains(text, bad) {
				t.Errorf("the server saw %q", bad)
			}
		}
	}
}

// wait returns once all connections have ended.
func (p *tap) wait() {
	_ = p.listener.Close()
	p.wg.Wait()
}
