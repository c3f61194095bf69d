package syncproto

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
)

type namedFrames struct {
	name   string
	frames [][]byte // of one link, in order
	what   []string // what the assembler makes of each
}

// testFrames: each frame with a description; the code of an error ends the list.
func testFrames() []namedFrames {
	long := strings.Repeat("m", MaxFrame)
	frame, rest := AppendFrame(nil, []byte(long))
	last, _ := AppendFrame(nil, rest)
	return []namedFrames{
		{"one", [][]byte{{1, 5, 0}}, []string{`{"message":"0500"}`}},
		{"two-parts", [][]byte{{0, 5}, {1, 0}}, []string{`{"part":true}`, `{"message":"0500"}`}},
		{"two-messages", [][]byte{{1, 5}, {0, 6}, {1, 7}, {1, 8}}, []string{`{"message":"05"}`, `{"part":true}`, `{"message":"0607"}`, `{"message":"08"}`}},
		{"ping-between-parts", [][]byte{{0, 5}, {2, 1, 2, 3, 4, 5, 6, 7, 8}, {3, 255, 2, 3, 4, 5, 6, 7, 8}, {1, 0}}, []string{
			`{"part":true}`, `{"ping":"0102030405060708"}`, `{"pong":"ff02030405060708"}`, `{"message":"0500"}`,
		}},
		{"largest-sent", [][]byte{frame, last}, []string{`{"part":true}`, `{"message":"` + hex.EncodeToString([]byte(long)) + `"}`}},
		{"empty", [][]byte{{}}, []string{`{"error":"malformed"}`}},
		{"no-payload", [][]byte{{1}}, []string{`{"error":"malformed"}`}},
		{"part-no-payload", [][]byte{{0}}, []string{`{"error":"malformed"}`}},
		{"unknown-type", [][]byte{{4, 1}}, []string{`{"error":"malformed"}`}},
		{"ping-short", [][]byte{{2, 1, 2, 3, 4, 5, 6, 7}}, []string{`{"error":"malformed"}`}},
		{"pong-long", [][]byte{{3, 1, 2, 3, 4, 5, 6, 7, 8, 9}}, []string{`{"error":"malformed"}`}},
	}
}

func describeFrame(f Frame, err error) string {
	o := object{}
	var e *Error
	switch {
	case errors.As(err, &e):
		o["error"] = e.Code.String()
	case f.Kind == FramePart:
		o["part"] = true
	case f.Kind == FrameLast:
		o["message"] = hex.EncodeToString(f.Message)
	case f.Kind == FramePing:
		o["ping"] = fmt.Sprintf("%016x", f.Token)
	case f.Kind == FramePong:
		o["pong"] = fmt.Sprintf("%016x", f.Token)
	}
	b, _ := json.Marshal(o)
	return string(b)
}

// A line of frames.txt: name, JSON list of what an assembler makes of each frame, the frames in hex parted by spaces.
func TestFrameVectors(t *testing.T) {
	if *rewrite {
		var lines []string
		for _, f := range testFrames() {
			var hexes []string
			for _, b := range f.frames {
				hexes = append(hexes, hex.EncodeToString(b))
			}
			lines = append(lines, f.name+"\t["+strings.Join(f.what, ",")+"]\t"+strings.Join(hexes, " "))
		}
		rewriteVectors(t, "frames.txt", lines)
	}
	for _, v := range readVectors(t, "frames.txt", 3) {
		a := NewAssembler(MaxMessage)
		var got []string
		for _, h := range strings.Split(v[2], " ") {
			got = append(got, describeFrame(a.Frame(unhex(t, h))))
		}
		if s := "[" + strings.Join(got, ",") + "]"; s != v[1] {
			t.Errorf("%s: got\n%s, not\n%s", v[0], s, v[1])
		}
	}
}

func TestFramesCarryMessagesOfEverySize(t *testing.T) {
	for _, size := range []int{1, 2, MaxFrame - 2, MaxFrame - 1, MaxFrame, 2*MaxFrame - 2, 2*MaxFrame - 1, 1 << 20} {
		message := make([]byte, size)
		for i := range message {
			message[i] = byte(i * 7)
		}
		a := NewAssembler(1 << 20)
		for rest := message; ; {
			var frame []byte
			frame, rest = AppendFrame(nil, rest)
			if len(frame) > MaxFrame {
				t.Fatalf("a frame of %d bytes", len(frame))
			}
			f, err := a.Frame(frame)
			if err != nil {
				t.Fatal(err)
			}
			if (rest == nil) != (f.Kind == FrameLast) {
				t.Fatalf("size %d: kind %d with %d bytes left", size, f.Kind, len(rest))
			}
			if rest == nil {
				if !bytes.Equal(f.Message, message) {
					t.Fatalf("size %d: another message came out", size)
				}
				break
			}
		}
	}
}

func TestFrameLimits(t *testing.T) {
	a := NewAssembler(100)
	if _, err := a.Frame(append([]byte{0}, make([]byte, 60)...)); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Frame(append([]byte{0}, make([]byte, 41)...)); !errors.Is(err, &Error{Code: CodeTooLarge}) {
		t.Errorf("a message over the limit: %v", err)
	}
	if f, err := a.Frame(append([]byte{1}, make([]byte, 40)...)); err != nil || len(f.Message) != 100 {
		t.Errorf("a message at the limit: %d bytes, %v", len(f.Message), err)
	}
	a = NewAssembler(MaxMessage)
	if _, err := a.Frame(make([]byte, MaxFrameAccepted+1)); !errors.Is(err, &Error{Code: CodeTooLarge}) {
		t.Errorf("a frame over the limit: %v", err)
	}
	if _, err := a.Frame(make([]byte, MaxFrameAccepted)); err != nil {
		t.Errorf("a frame at the limit: %v", err)
	}
}

// Who has not claimed to be a writer gets no more memory than it needs, whatever else it has sent.
func TestLargeMessagesAreForWriters(t *testing.T) {
	fits := func(hello *Hello, size int) bool {
		a := NewAssembler(MaxMessage)
		if hello != nil {
			frame, _ := AppendFrame(nil, hello.AppendMarshal(nil))
			if _, err := a.Frame(frame); err != nil {
				t.Fatal(err)
			}
		}
		for ; size > MaxFrame-1; size -= MaxFrame - 1 {
			if _, err := a.Frame(make([]byte, MaxFrame)); err != nil {
				return false
			}
		}
		_, err := a.Frame(make([]byte, 1+size))
		return err == nil
	}
	reader := &Hello{Site: self, MaxMessage: MaxMessage, Feed: true, Busy: true}
	writer := &Hello{Site: self, MaxMessage: MaxMessage, Writer: true, Proof: make([]byte, ProofLen)}
	for _, x := range []struct {
		hello *Hello
		size  int
		want  bool
	}{
		{nil, MinMaxMessage, true}, {nil, MinMaxMessage + 1, false}, {reader, MinMaxMessage, true}, {reader, MinMaxMessage + 1, false},
		{writer, MinMaxMessage + 1, true}, {writer, MaxMessage, true}, {writer, MaxMessage + 1, false},
	} {
		if got := fits(x.hello, x.size); got != x.want {
			t.Errorf("after %+v a message of %d bytes: %v", x.hello, x.size, got)
		}
	}
	// Nothing that a reader says is longer.
	v := Vector{}
	for i := range MaxVectorSites {
		v[SiteID(fmt.Sprintf("%016d", i))] = MaxVersion
	}
	if n := len((&Hello{Site: self, MaxMessage: MaxMessage, Resume: MaxVersion, Neighbours: v.Sites()[:MaxNeighbours], Vector: v}).AppendMarshal(nil)); n > MinMaxMessage {
		t.Errorf("a hello has up to %d bytes", n)
	}
}

func FuzzAssembler(f *testing.F) {
	for _, v := range readVectors(f, "frames.txt", 3) {
		h := strings.Split(v[2], " ")
		f.Add(unhex(f, h[0]), unhex(f, h[len(h)-1]))
	}
	f.Fuzz(func(t *testing.T, one, two []byte) {
		a := NewAssembler(64)
		for _, b := range [][]byte{one, two} {
			fr, err := a.Frame(b)
			if len(fr.Message) > 64 {
				t.Fatalf("a message of %d bytes", len(fr.Message))
			}
			if err != nil {
				return
			}
		}
	})
}
