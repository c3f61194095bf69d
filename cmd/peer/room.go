package main

import (
	"crypto/rand"
	"fmt"
	"net/url"
	"strings"

	"github.com/crmesh/crmesh/cmd/internal/program"
	"github.com/crmesh/crmesh/pkg/signaling"
)

type roomCommand struct {
	New roomNewCommand `cmd:"" help:"Make a room and print its links. No server is asked."`
}

type roomNewCommand struct {
	Signal string `placeholder:"URL" help:"Address of the signaling server and the page, put before the key. Without it the links are keys alone."`
}

// Run prints the write link and the read link, each on a line after its name and a tab.
func (c *roomNewCommand) Run(out program.Output) error {
	base, err := pageBase(c.Signal)
	if err != nil {
		return err
	}
	keys, err := signaling.NewRoom(rand.Reader)
	if err != nil {
		return err
	}
	write, _ := keys.WriteLink(base)
	_, err = fmt.Fprintf(out.Stdout, "write\t%s\nread\t%s\n", write, keys.ReadLink(base))
	return err
}

// pageBase returns the address of a page as links have it; "" stays "".
func pageBase(address string) (string, error) {
	if address == "" {
		return "", nil
	}
	u, err := url.Parse(address)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return "", fmt.Errorf("the signaling server %q is no address like https://sync.example.org/", address)
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	if !strings.HasSuffix(u.Path, "/") {
		u.Path += "/"
	}
	return u.String(), nil
}
