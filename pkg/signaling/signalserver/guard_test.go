package signalserver

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// Frames are counted wherever the stream is cut, and pings as several.
func TestFrameScanner(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var stream []byte
		want, closed := 0, false
		for range 1 + random.IntN(20) {
			length := []int{0, 1, 125, 126, 1000, 65535, 65536, 70000}[random.IntN(8)]
			opcode := []byte{0, 1, 2, 8, 9, 10}[random.IntN(6)]
			closed = closed || opcode == 8
			mask := byte(0x80 * random.IntN(2))
			stream = append(stream, 0x80|opcode)
			switch {
			case length < 126:
				stream = append(stream, mask|byte(length))
			case length < 1<<16:
				stream = binary.BigEndian.AppendUint16(append(stream, mask|126), uint16(length))
			default:
				stream = binary.BigEndian.AppendUint64(append(stream, mask|127), uint64(length))
			}
			if mask != 0 {
				length += 4
			}
			for range length {
				stream = append(stream, byte(random.Uint32()))
			}
			want++
			if opcode == 9 {
				want += framesPerMessage - 1
			}
		}
		var f frameScanner
		got := 0
		for rest := stream; len(rest) > 0; {
			n := 1 + random.IntN(min(len(rest), 1+random.IntN(4096)))
			got += f.scan(rest[:n])
			rest = rest[n:]
		}
		if f.closed != closed {
			t.Fatalf("a close frame: %v instead of %v", f.closed, closed)
		}
		if got != want || f.skip != 0 || f.have != 0 {
			t.Fatalf("%d frames of %d, and %d bytes are missing", got, want, f.skip)
		}
	}
}

// A large message is not parsed when it would take many times the work of one that means something.
func TestMarks(t *testing.T) {
	s := &Server{large: make(chan struct{}, 1)}
	pad := strings.Repeat("A", largeMessage)
	for name, c := range map[string]struct {
		frame string
		bad   bool
	}{
		"one large string":      {`{"type":"ping","x":"` + pad + `"}`, false},
		"many, but not large":   {`{"type":"ping","x":[1` + strings.Repeat(",1", 300) + `]}`, false},
		"many elements":         {`{"type":"ping","y":"` + pad + `","x":[1` + strings.Repeat(",1", maxMarks) + `]}`, true},
		"many fields":           {`{"type":"ping","y":"` + pad + `"` + strings.Repeat(`,"x":1`, maxMarks/2) + `}`, true},
		"deep":                  {`{"type":"ping","y":"` + pad + `","x":` + strings.Repeat("[", maxMarks) + strings.Repeat("]", maxMarks) + `}`, true},
		"many escapes":          {`{"type":"ping","y":"` + pad + strings.Repeat(`\n`, maxMarks) + `"}`, true},
		"the most that is read": {`{"type":"ping","y":"` + pad + strings.Repeat(`\n`, maxMarks-4) + `"}`, false},
	} {
		_, err := s.parse([]byte(c.frame))
		if errors.Is(err, errMarks) != c.bad || !c.bad && err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// However many wait to be read from, none waits longer than lingerWaitMost, also not who comes after them.
func TestLingerWaitIsBounded(t *testing.T) {
	var s Server
	before := sinceEpoch()
	for range 10 * lingerWaitMost / lingerPause {
		if wait := s.lingerWait(); wait > lingerWaitMost {
			t.Fatalf("a connection waits for %v", wait)
		}
	}
	if next := time.Duration(s.nextLinger.Load()); next > sinceEpoch()+lingerWaitMost+lingerPause {
		t.Errorf("the next turn is %v away", next-before)
	}
}
