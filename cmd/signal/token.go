package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/alecthomas/kong"

	"github.com/crmesh/crmesh/cmd/internal/program"
	"github.com/crmesh/crmesh/pkg/signaling"
)

// token makes a join token.
type token struct {
	Keys    []string      `name:"key" required:"" env:"CRMESH_JOIN_HMAC_KEY" placeholder:"KEY" help:"The key, as for --join-hmac-key of serve; of several the first. Better in the environment."`
	Expires time.Duration `default:"24h" placeholder:"TIME" help:"How long the token is good (${default})."`
	Room    string        `placeholder:"LINK" help:"The only room it is good for: the room's id or its link; by default any room."`
}

// Run prints the token.
func (c *token) Run(out program.Output, k *kong.Context) error {
	if len(c.Keys) == 0 {
		return errors.New("the key is empty; give the server's own to --key, or to CRMESH_JOIN_HMAC_KEY")
	}
	if c.Expires < time.Second {
		return errors.New("a token must be good for a second or more (--expires)")
	}
	a := signaling.Admission{Expires: time.Now().Add(c.Expires)}
	if isSet(k.Selected().Flags, "room") { // also to nothing, which is a variable that was forgotten and not any room
		if err := a.Room.UnmarshalText([]byte(c.Room)); err != nil {
			link, err := signaling.ParseLink(c.Room)
			if err != nil {
				return fmt.Errorf("--room is neither a room id of 22 characters nor a link: %w", err)
			}
			a.Room = link.Keys.Room
		}
		if a.Room == (signaling.RoomID{}) {
			return errors.New("--room has the id of no room")
		}
	}
	text, err := a.Sign([]byte(c.Keys[0]))
	if err != nil {
		return err
	}
	fmt.Fprintln(out.Stdout, text)
	return nil
}
