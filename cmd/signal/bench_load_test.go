package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/crmesh/crmesh/pkg/signaling"
)

// secureKind is at the end of a kind of server that is reached over TLS.
const secureKind = "-tls"

// asLoad makes the test binary the clients of BenchmarkSignaling. Its value is the kind of server and the address.
const asLoad = "CRMESH_BENCH_LOAD"

// loadResult is what the clients saw, in seconds.
type loadResult struct {
	Rate     float64 // joins a second
	P50, P99 float64
	Seconds  float64
	Error    string
}

// runLoad does what the lines of in say, and answers each.
func runLoad(kind string, in io.Reader, out io.Writer) int {
	var l load
	var address string
	if _, err := fmt.Sscan(kind, &l.kind, &address); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	l.address = address
	l.kind, l.secure = strings.CutSuffix(l.kind, secureKind)
	answers := json.NewEncoder(out)
	for lines := bufio.NewScanner(in); lines.Scan(); {
		var r loadResult
		var what string
		var n, rate int
		_, err := fmt.Sscan(lines.Text()+" 0 0", &what, &n, &rate)
		switch {
		case err != nil:
		case what == "join":
			r, err = l.join(n, rate)
		case what == "relay":
			r, err = l.relay(n)
		case what == "room":
			r, err = l.room(n)
		case what == "check":
			err = l.check()
		default:
			err = errors.New("what is " + what)
		}
		if err != nil {
			r.Error = err.Error()
		}
		if answers.Encode(r) != nil {
			return 1
		}
	}
	return 0
}

// load has the clients.
type load struct {
	kind, address string
	secure        bool
	idle          []*benchClient
	pair          []*benchClient
	heard         chan time.Time // when the second of pair got an envelope
}

// roomOf is the room of client i: four share one.
func roomOf(i int) string { return fmt.Sprintf("%08x", i/4+1) }

// connect connects and joins a room, each in the way of its server. onFrame gets what comes after that.
func (l *load) connect(room string, onFrame func([]byte)) (*benchClient, error) {
	id := signaling.PeerID(randomID())
	path, protocol, answer := "/", "", `"pong"`
	var frames [][]byte
	switch l.kind {
	case "signal":
		path, protocol, answer = "/"+signaling.Path, signaling.Subprotocol, `"joined"`
		frames = [][]byte{joinFrame(room, id)}
	case "y-webrtc": // says nothing to subscribe, but answers in order
		frames = [][]byte{fmt.Appendf(nil, `{"type":"subscribe","topics":[%q]}`, room), []byte(`{"type":"ping"}`)}
	case "peerjs":
		path, answer = "/peerjs?key=peerjs&token=t&id="+id.String(), `"OPEN"`
	}
	joined := make(chan struct{})
	is := false
	c, err := dialBench(l.address, l.secure, path, protocol, func(frame []byte) {
		if !is && bytes.Contains(frame, []byte(answer)) {
			is = true
			close(joined)
		}
		if onFrame != nil {
			onFrame(frame)
		}
	})
	if err != nil {
		return nil, err
	}
	c.id, c.room = id, room
	for _, f := range frames {
		if err := c.write(opText, f); err != nil {
			return nil, err
		}
	}
	select {
	case <-joined:
		return c, nil
	case <-c.done:
		return nil, fmt.Errorf("closed before it had joined: %w", c.err)
	case <-time.After(patience):
		return nil, errors.New("no answer to the join in time")
	}
}

func joinFrame(room string, id signaling.PeerID) []byte {
	var r signaling.RoomID
	copy(r[:], room)
	frame, err := signaling.MarshalMessage(signaling.Join{Room: r, Peer: id, Meta: signaling.Meta{Name: "bench"}})
	if err != nil {
		panic(err)
	}
	return frame
}

// join lets n more clients connect and join at a rate. Who is late counts from when it should have begun.
func (l *load) join(n, rate int) (loadResult, error) {
	first := len(l.idle)
	l.idle = append(l.idle, make([]*benchClient, n)...)
	took := make([]float64, n)
	errs := make([]error, n)
	var all sync.WaitGroup
	start := time.Now()
	for i := range n {
		due := start.Add(time.Duration(i) * time.Second / time.Duration(rate))
		time.Sleep(time.Until(due))
		all.Go(func() {
			l.idle[first+i], errs[i] = l.connect(roomOf(first+i), nil)
			took[i] = time.Since(due).Seconds()
		})
	}
	all.Wait()
	r := percentiles(took)
	r.Seconds = time.Since(start).Seconds()
	r.Rate = float64(n) / r.Seconds
	failed := slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if len(failed) > 0 {
		return r, fmt.Errorf("%d of %d did not join, the first: %w", len(failed), n, failed[0])
	}
	return r, nil
}

// check tells whether all clients are still connected.
func (l *load) check() error {
	for i, c := range l.idle {
		select {
		case <-c.done:
			return fmt.Errorf("client %d is no longer connected: %w", i, c.err)
		default:
		}
	}
	return nil
}

// relayPace is the time between two envelopes of a pair.
const relayPace = 2 * time.Millisecond

// envelopeText is 1 KiB of what members say to each other.
func envelopeText(i int) string { return fmt.Sprintf("seq%08d%s", i, strings.Repeat("A", 1024-11)) }

// relay sends n envelopes from one client to another, one after the other, all others being idle.
func (l *load) relay(n int) (loadResult, error) {
	if l.pair == nil {
		l.heard = make(chan time.Time, 1)
		for i := range 2 {
			c, err := l.connect("pair", func(frame []byte) {
				if i == 1 && bytes.Contains(frame, []byte("seq")) {
					l.heard <- time.Now()
				}
			})
			if err != nil {
				return loadResult{}, err
			}
			l.pair = append(l.pair, c)
		}
	}
	from, to := l.pair[0], l.pair[1]
	took := make([]float64, n)
	for i := range n {
		frame, err := l.envelope(to, envelopeText(i))
		if err != nil {
			return loadResult{}, err
		}
		sent := time.Now()
		if err := from.write(opText, frame); err != nil {
			return loadResult{}, err
		}
		select {
		case at := <-l.heard:
			took[i] = at.Sub(sent).Seconds()
		case <-time.After(patience):
			return loadResult{}, errors.New("an envelope did not arrive in time")
		}
		time.Sleep(relayPace)
	}
	return percentiles(took), nil
}

func (l *load) envelope(to *benchClient, text string) ([]byte, error) {
	switch l.kind {
	case "y-webrtc":
		return fmt.Appendf(nil, `{"type":"publish","topic":%q,"data":%q}`, to.room, text), nil
	case "peerjs":
		return fmt.Appendf(nil, `{"type":"OFFER","dst":%q,"payload":%q}`, to.id, text), nil
	}
	return signaling.MarshalMessage(signaling.SignalTo{To: to.id, Sealed: text})
}

// room lets n clients that are connected join one new room at once. The time is until all know all.
func (l *load) room(n int) (loadResult, error) {
	name := fmt.Sprintf("one%x", randomID())
	complete := make(chan struct{}, n)
	var clients []*benchClient
	defer func() {
		for _, c := range clients {
			c.close()
		}
	}()
	for range n {
		known := 0
		c, err := dialBench(l.address, l.secure, "/"+signaling.Path, signaling.Subprotocol, func(frame []byte) {
			m, err := signaling.ParseServerMessage(frame)
			if err != nil {
				panic(err)
			}
			switch m := m.(type) {
			case signaling.Joined:
				known += len(m.Members)
			case signaling.MemberJoined:
				known++
			}
			if known == n-1 {
				complete <- struct{}{}
			}
		})
		if err != nil {
			return loadResult{}, err
		}
		clients = append(clients, c)
	}
	frames := make([][]byte, n)
	for i := range frames {
		frames[i] = joinFrame(name, randomID())
	}
	start := time.Now()
	for i, c := range clients {
		if err := c.write(opText, frames[i]); err != nil {
			return loadResult{}, err
		}
	}
	timeout := time.After(patience)
	for range n {
		select {
		case <-complete:
		case <-timeout:
			return loadResult{}, errors.New("not all know all in time")
		}
	}
	return loadResult{Seconds: time.Since(start).Seconds()}, nil
}

func percentiles(took []float64) loadResult {
	slices.Sort(took)
	at := func(p float64) float64 { return took[min(int(p*float64(len(took))), len(took)-1)] }
	return loadResult{P50: at(0.5), P99: at(0.99)}
}
