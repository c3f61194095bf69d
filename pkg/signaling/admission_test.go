package signaling_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/crmesh/crmesh/pkg/signaling"
)

var admissionReasons = map[string]error{
	"not-admitted": signaling.ErrNotAdmitted,
	"expired":      signaling.ErrAdmissionExpired,
	"room":         signaling.ErrAdmissionRoom,
}

func parseRoom(t *testing.T, text string) (room signaling.RoomID) {
	t.Helper()
	if text != "" {
		if err := room.UnmarshalText([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	return room
}

func TestGoldenAdmission(t *testing.T) {
	type token struct {
		Name    string `json:"name"`
		Key     string `json:"key"`
		Expires int64  `json:"expires"`
		Room    string `json:"room"`
		Token   string `json:"token"`
	}
	type refusal struct {
		Name   string `json:"name"`
		Key    string `json:"key"`
		Now    int64  `json:"now"`
		Room   string `json:"room"`
		Token  string `json:"token"`
		Reason string `json:"reason"`
	}
	type link struct {
		Name  string `json:"name"`
		Link  string `json:"link"`
		Base  string `json:"base"`
		Token string `json:"token"`
	}
	type vectors struct {
		Signed  []token   `json:"signed"`
		Refused []refusal `json:"refused"`
		Links   []link    `json:"links"`
	}
	golden(t, "admission.json", func(t *testing.T, v *vectors) {
		for i := range v.Signed {
			s := &v.Signed[i]
			room := parseRoom(t, s.Room)
			var err error
			s.Token, err = signaling.Admission{Expires: time.Unix(s.Expires, 0), Room: room}.Sign([]byte(s.Key))
			if err != nil || signaling.CheckJoinToken(s.Token) != nil {
				t.Fatalf("%s: %v", s.Name, err)
			}
			if err := signaling.VerifyAdmission(s.Token, []byte(s.Key), room, time.Unix(s.Expires-1, 0)); err != nil {
				t.Errorf("%s: %v", s.Name, err)
			}
			if err := signaling.VerifyAdmission(s.Token, []byte(s.Key), room, time.Unix(s.Expires, 0)); !errors.Is(err, signaling.ErrAdmissionExpired) {
				t.Errorf("%s, at its end: %v", s.Name, err)
			}
		}
		for _, r := range v.Refused {
			err := signaling.VerifyAdmission(r.Token, []byte(r.Key), parseRoom(t, r.Room), time.Unix(r.Now, 0))
			if !errors.Is(err, admissionReasons[r.Reason]) || admissionReasons[r.Reason] == nil {
				t.Errorf("%s: %v, want %s", r.Name, err, r.Reason)
			}
		}
		for _, l := range v.Links {
			link, err := signaling.ParseLink(l.Link)
			if err != nil || link.Base != l.Base || link.Token != l.Token {
				t.Errorf("%s: %q, %q, %v", l.Name, link.Base, link.Token, err)
			}
			if l.Token != "" {
				again, err := signaling.ParseLink(link.Keys.ReadLink(signaling.WithToken(link.Base, link.Token)))
				if err != nil || again.Base != l.Base || again.Token != l.Token {
					t.Errorf("%s comes back as %q, %q, %v", l.Name, again.Base, again.Token, err)
				}
			}
		}
	})
}

func TestAdmissionLimits(t *testing.T) {
	long := time.Unix(1<<40, 0)
	if _, err := (signaling.Admission{Expires: long}).Sign([]byte("0123456789abcde")); err == nil {
		t.Error("a key of 15 bytes signs")
	}
	if _, err := (signaling.Admission{}).Sign([]byte("0123456789abcdef")); err == nil {
		t.Error("a token that never was good is signed")
	}
	for text, good := range map[string]bool{"": false, "a": true, "AZaz09-._~": true, "a b": false, "a&b": false, "a%20": false, "ä": false,
		"@": false, "[": false, "`": false, "{": false, strings.Repeat("a", 256): true, strings.Repeat("a", 257): false} {
		if err := signaling.CheckJoinToken(text); (err == nil) != good {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// No text that was not signed is taken, and a token has one spelling only. The key is none of the vectors'.
func FuzzVerifyAdmission(f *testing.F) {
	key, room, now := []byte("fedcba9876543210"), signaling.RoomID{1}, time.Unix(1_700_000_000, 0)
	for _, a := range []signaling.Admission{{Expires: now.Add(time.Hour)}, {Expires: now.Add(time.Hour), Room: room}} {
		token, err := a.Sign(key)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(token)
	}
	for _, seed := range vectors(f, "admission.json", "token") {
		f.Add(seed)
	}
	f.Add(strings.Repeat(".", 300))
	f.Fuzz(func(t *testing.T, token string) {
		err := signaling.VerifyAdmission(token, key, room, now)
		switch {
		case err == nil:
			var a signaling.Admission
			for _, r := range []signaling.RoomID{{}, room} {
				for hour := range int64(3) {
					a = signaling.Admission{Expires: now.Add(time.Duration(hour) * time.Hour), Room: r}
					if again, err := a.Sign(key); err == nil && again == token {
						return
					}
				}
			}
			t.Fatalf("%q is taken, and was never signed", token)
		case !errors.Is(err, signaling.ErrNotAdmitted) && !errors.Is(err, signaling.ErrAdmissionExpired) && !errors.Is(err, signaling.ErrAdmissionRoom):
			t.Fatalf("an error of another kind: %v", err)
		}
	})
}
