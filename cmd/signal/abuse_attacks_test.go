//go:build linux

package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/crmesh/crmesh/pkg/signaling"
)

// attack is one kind of abuse.
type attack struct {
	name string
	// run does it, and returns what the server did that it must not do. It ends by itself.
	run func(v *victim) error
	// refused is how often the server has to refuse it at least, by cause.
	refused map[string]float64
	// flags are those of the server that are other ones than usual.
	flags []string
}

// Limits of the server under attack, as flags.
const (
	abuseConnections = 32 // of an address
	abuseSockets     = 28 // of an address, and joins of it at once; fewer than WebSockets, which do not count as sockets
	abuseRooms       = 100
	abuseTimeout     = 1500 * time.Millisecond // for headers, and for the join
	abuseGrace       = time.Second
)

var attacks = []attack{
	{name: "half-open", run: halfOpen, refused: map[string]float64{"http-address-sockets": abuseSockets, "http-timeout": 1}},
	{name: "silent", run: silent, refused: map[string]float64{"idle": 1, "http-address-connections": 1}},
	{name: "slow-readers", run: slowReaders, refused: map[string]float64{"slow": 6}},
	{name: "unread-page", run: unreadPage, refused: map[string]float64{"http-address-sockets": 1}},
	{name: "joins", run: joins, refused: map[string]float64{"join-rate": 100}},
	{name: "rooms", run: rooms, refused: map[string]float64{"join-rate": 100, "http-rate": 100}},
	{name: "rooms-unlimited", run: rooms, refused: map[string]float64{"server-full": 1},
		flags: []string{"--join-rate=1e9", "--join-burst=1000000", "--request-rate=1e9", "--request-burst=1000000"}},
	{name: "envelopes", run: envelopes, refused: map[string]float64{"rate|slow": 16}},
	{name: "large", run: large, refused: map[string]float64{"rate": 8, "bad-message": 8}},
	{name: "frames", run: frames, refused: map[string]float64{"rate|slow": float64(len(frameFloods))}},
	{name: "requests", run: requests, refused: map[string]float64{"http-rate": 10}},
	{name: "not-text", run: notText, refused: map[string]float64{"bad-utf8": 3, "bad-message": 6, "binary": 1}},
	{name: "headers", run: headers},
	{name: "no-upgrade", run: noUpgrade, refused: map[string]float64{"http-upgrade": 5, "http-origin": 1, "subprotocol": 1}},
	{name: "bombs", run: bombs, refused: map[string]float64{"too-large": 5}},
	{name: "http", run: oddRequests},
}

func attackNamed(name string) (attack, bool) {
	i := slices.IndexFunc(attacks, func(a attack) bool { return a.name == name })
	if i < 0 {
		return attack{}, false
	}
	return attacks[i], true
}

func anyRoom() (room signaling.RoomID) {
	_, _ = rand.Read(room[:])
	return room
}

// gone reads until the server has closed the connection.
func gone(c *rawConn) error {
	_, err := io.Copy(io.Discard, c.r)
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		return fmt.Errorf("the server keeps a connection for %v", patience)
	}
	return nil
}

// halfOpen opens sockets that ask for nothing, and some that ask for ever.
func halfOpen(v *victim) error {
	return each(3*abuseSockets, 3*abuseSockets, func(i int) error {
		c, err := v.dial()
		if err != nil {
			return nil // refused before connect saw it
		}
		defer func() { _ = c.Close() }()
		switch i % 3 {
		case 0:
			_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: h\r\nX: ")
		case 1: // a byte now and then
			ctx, cancel := context.WithCancel(context.Background())
			var trickle sync.WaitGroup
			defer trickle.Wait()
			defer cancel()
			trickle.Go(func() {
				tick := time.NewTicker(abuseTimeout / 50)
				defer tick.Stop()
				for _, b := range []byte("GET / HTTP/1.1\r\nHost: h\r\nX: " + strings.Repeat("x", 1<<20)) {
					select {
					case <-tick.C:
					case <-ctx.Done():
						return
					}
					if _, err := c.Write([]byte{b}); err != nil {
						return
					}
				}
			})
		}
		return gone(c)
	})
}

// silent opens WebSockets that never join.
func silent(v *victim) error {
	var open []*rawConn
	for range 2 * abuseConnections {
		if c, err := v.webSocket(0); err == nil {
			open = append(open, c)
		}
	}
	return each(len(open), len(open), func(i int) error {
		defer func() { _ = open[i].Close() }()
		code, _ := open[i].end()
		if code != signaling.CodeIdle && code != signaling.CodeJoinRate && code != "" {
			return fmt.Errorf("one that does not join gets %q", code)
		}
		return nil
	})
}

// slowReaders are members that never read, and others that send them what they can.
func slowReaders(v *victim) error {
	const readers, senders = 6, 22
	room := anyRoom()
	var all []*rawConn
	defer func() {
		for _, c := range all {
			_ = c.Close()
		}
	}()
	for i := range readers + senders {
		receive := 0
		if i < readers {
			receive = 4096
		}
		c, err := v.member(room, signaling.PeerID{byte(i + 1)}, receive)
		if err != nil {
			return err
		}
		all = append(all, c)
	}
	large := strings.Repeat("A", signaling.MaxSealed)
	return each(senders, senders, func(i int) error {
		c := all[readers+i]
		var reading sync.WaitGroup
		reading.Go(func() { c.end() }) // ends with rate
		for range 100 {
			if c.message(signaling.SignalTo{To: signaling.PeerID{byte(i%readers + 1)}, Sealed: large}) != nil {
				break
			}
		}
		reading.Wait()
		return nil
	})
}

// unreadPage asks for the page over and over on each socket, and reads nothing but the first line of an answer.
func unreadPage(v *victim) error {
	held := make([]*rawConn, 2*abuseSockets)
	defer func() {
		for _, c := range held {
			if c != nil {
				_ = c.Close()
			}
		}
	}()
	return each(len(held), len(held), func(i int) error {
		c, err := v.dialBuffered(4096)
		if err != nil {
			return nil
		}
		held[i] = c
		_, _ = io.WriteString(c, strings.Repeat("GET / HTTP/1.1\r\nHost: h\r\n\r\n", 10))
		line, err := c.r.ReadString('\n')
		if err == nil && line != "HTTP/1.1 200 OK\r\n" {
			return fmt.Errorf("the page is %q", line)
		}
		return nil
	})
}

// joins joins and goes, as fast as it can, always in one room.
func joins(v *victim) error {
	room := anyRoom()
	return each(500*v.scale, 16, func(i int) error {
		c, err := v.member(room, signaling.PeerID{byte(i), byte(i >> 8)}, 0)
		if err != nil {
			return nil
		}
		return c.Close()
	})
}

// rooms joins another room each time, and leaves a member there.
func rooms(v *victim) error {
	return each(3000*v.scale, 16, func(i int) error {
		c, err := v.member(anyRoom(), signaling.PeerID{1}, 0)
		if err != nil {
			return nil
		}
		return c.Close()
	})
}

// envelopes sends small envelopes to another member as fast as it can.
func envelopes(v *victim) error {
	room := anyRoom()
	to, err := v.member(room, signaling.PeerID{0xff}, 0)
	if err != nil {
		return err
	}
	defer func() { _ = to.Close() }()
	var reading sync.WaitGroup
	reading.Go(func() { to.end() })
	defer reading.Wait()
	defer func() { _ = to.Close() }()
	return each(16, 16, func(i int) error {
		c, err := v.member(room, signaling.PeerID{byte(i + 1)}, 0)
		if err != nil {
			return err
		}
		frame, err := signaling.MarshalMessage(signaling.SignalTo{To: signaling.PeerID{0xff}, Sealed: "AQID"})
		if err != nil {
			return err
		}
		// slow: the answers to envelopes for the one that they have made slow are too many for them, too.
		return c.floodedOut(wireFrame(fin|opText, frame), signaling.CodeRate, signaling.CodeSlow)
	})
}

const floodLimit = 1 << 30 // bytes that a flood may get rid of

// floodedOut sends bytes until the server ends the connection, which it must do with one of these codes, if that still arrives.
func (c *rawConn) floodedOut(b []byte, want ...signaling.Code) error {
	defer func() { _ = c.Close() }()
	var code signaling.Code
	var reading sync.WaitGroup
	reading.Go(func() { code, _ = c.end() })
	for len(b) < 16<<10 { // as many at once as a careful attacker would
		b = append(b, b...)
	}
	sent, err := 0, error(nil)
	for ; err == nil && sent < floodLimit; sent += len(b) {
		_, err = c.Write(b)
	}
	_ = c.CloseWrite()
	reading.Wait()
	if err == nil {
		return fmt.Errorf("the server takes %d bytes of a flood", sent)
	}
	if code != "" && !slices.Contains(want, code) {
		return fmt.Errorf("the flood ends with %q instead of %q", code, want)
	}
	return nil
}

// CloseWrite ends what is sent.
func (c *rawConn) CloseWrite() error {
	return c.Conn.(interface{ CloseWrite() error }).CloseWrite()
}

// large sends messages that are as much work as can be in one frame: the most that are read, for nobody, and such as would be
// more work still.
func large(v *victim) error {
	text, err := signaling.MarshalMessage(signaling.SignalTo{To: signaling.PeerID{0xff}, Sealed: strings.Repeat("A", signaling.MaxSealed)})
	if err != nil {
		return err
	}
	marks := `{"type":"ping","x":[1` + strings.Repeat(",1", signaling.MaxClientFrame/2-20) + "]}"
	floods := []struct {
		frame []byte
		end   signaling.Code
	}{{wireFrame(fin|opText, text), signaling.CodeRate}, {wireFrame(fin|opText, []byte(marks)), signaling.CodeBadMessage}}
	room := anyRoom()
	return each(16, 16, func(i int) error {
		c, err := v.member(room, signaling.PeerID{byte(i + 1)}, 0)
		if err != nil {
			return err
		}
		f := floods[i%len(floods)]
		return c.floodedOut(f.frame, f.end)
	})
}

// frameFloods are frames that are messages of no effect, or none.
var frameFloods = map[string][2][]byte{ // what comes once, and what is repeated
	"pings":                {nil, wireFrame(fin|opPing, nil)},
	"pings with a payload": {nil, wireFrame(fin|opPing, make([]byte, 125))},
	"pongs":                {nil, wireFrame(fin|opPong, nil)},
	"empty fragments":      {wireFrame(opText, []byte("{")), wireFrame(opContinuation, nil)},
	"fragments of a byte":  {wireFrame(opText, []byte("{")), wireFrame(opContinuation, []byte(" "))},
	"pings of JSON":        {nil, wireFrame(fin|opText, []byte(`{"type":"ping"}`))},
	"unknown types":        {nil, wireFrame(fin|opText, []byte(`{"type":"later"}`))},
}

func frames(v *victim) error {
	var errs []error
	for name, f := range frameFloods {
		c, err := v.webSocket(0)
		if err != nil {
			return err
		}
		_, err = c.Write(f[0])
		if err == nil {
			err = c.floodedOut(f[1], signaling.CodeRate, signaling.CodeSlow) // slow: who cannot take the answers
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// requests sends one request behind the other, on as many sockets as it may have.
func requests(v *victim) error {
	block := []byte(strings.Repeat("GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n", 100))
	return each(abuseSockets/2, abuseSockets/2, func(int) error {
		c, err := v.dial()
		if err != nil {
			return nil
		}
		defer func() { _ = c.Close() }()
		var reading sync.WaitGroup
		last := 0
		reading.Go(func() {
			for {
				response, err := http.ReadResponse(c.r, nil)
				if err != nil {
					return
				}
				last = response.StatusCode
				_, _ = io.Copy(io.Discard, response.Body)
			}
		})
		c.flood(block, 100)
		reading.Wait()
		if last != http.StatusTooManyRequests && last != 0 {
			return fmt.Errorf("10,000 requests end with HTTP %d", last)
		}
		return nil
	})
}
