package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/webrtc/v4"
)

// candidates gathers candidates as a link does, and counts them by kind.
func (d *doctor) candidates(ctx context.Context) {
	d.doing("gathering candidates")
	counts, relay, err := d.gather(ctx)
	switch {
	case err != nil:
		d.bad("candidates", "look for a mistake in --ice-server", "no candidates can be gathered: %v", err)
	case len(counts) == 0:
		d.bad("candidates", "connect this machine to a network", "there is no candidate: no interface has an address that others can reach")
	case relay && counts["relay IPv4"]+counts["relay IPv6"] == 0:
		d.bad("candidates", "see the findings about TURN servers above",
			"%s; the TURN server gives no relay", countsText(counts))
	default:
		d.good("candidates", "%s", countsText(counts))
	}
}

// gather returns the number of candidates by kind and family, and whether a TURN server was asked.
func (d *doctor) gather(ctx context.Context) (counts map[string]int, relay bool, err error) {
	s := webrtc.SettingEngine{}
	s.SetNet(d.net)
	s.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	config := webrtc.Configuration{}
	for _, x := range d.servers {
		w := webrtc.ICEServer{URLs: x.URLs, Username: x.Username}
		if x.Credential != "" {
			w.Credential = x.Credential
		}
		for _, u := range x.URLs {
			relay = relay || strings.HasPrefix(u, "turn")
		}
		config.ICEServers = append(config.ICEServers, w)
	}
	pc, err := webrtc.NewAPI(webrtc.WithSettingEngine(s)).NewPeerConnection(config)
	if err != nil {
		return nil, relay, err
	}
	defer func() { _ = pc.GracefulClose() }()
	var mu sync.Mutex
	counts = map[string]int{}
	done := make(chan struct{})
	pc.OnICECandidate(func(c *webrtc.ICECandidate) {
		if c == nil {
			close(done)
			return
		}
		family := "IPv4"
		if strings.Contains(c.Address, ":") {
			family = "IPv6"
		}
		mu.Lock()
		counts[c.Typ.String()+" "+family]++
		mu.Unlock()
	})
	if _, err := pc.CreateDataChannel("doctor", nil); err != nil {
		return nil, relay, err
	}
	offer, err := pc.CreateOffer(nil)
	if err != nil {
		return nil, relay, err
	}
	if err := pc.SetLocalDescription(offer); err != nil {
		return nil, relay, err
	}
	select {
	case <-done:
	case <-time.After(d.gatherTimeout):
	case <-ctx.Done():
	}
	mu.Lock()
	defer mu.Unlock()
	out := map[string]int{}
	for k, v := range counts {
		out[k] = v
	}
	return out, relay, nil
}

func countsText(counts map[string]int) string {
	var out []string
	for _, k := range sortedKeys(counts) {
		out = append(out, fmt.Sprintf("%d %s", counts[k], k))
	}
	return "candidates: " + strings.Join(out, ", ")
}
