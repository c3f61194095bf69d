package signalserver_test

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/crmesh/crmesh/pkg/signaling"
	"github.com/crmesh/crmesh/pkg/signaling/signalcluster"
	"github.com/crmesh/crmesh/pkg/signaling/signalcluster/natsbus/natstest"
	"github.com/crmesh/crmesh/pkg/signaling/signalserver"
)

// samples returns the value of each series, histograms as their count: "name" or "name{label}".
func (h *harness) samples(t *testing.T) map[string]float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(h.Collectors()...)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := strings.TrimPrefix(f.GetName(), "crmesh_signal_")
			for _, l := range m.GetLabel() {
				name += "{" + l.GetValue() + "}"
			}
			values[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return values
}

func (h *harness) expectSamples(t *testing.T, want map[string]float64) {
	t.Helper()
	for name, value := range want {
		if _, ok := h.samples(t)[name]; !ok {
			t.Errorf("there is no %s", name)
			continue
		}
		poll(t, name, func() bool { return h.samples(t)[name] == value })
	}
}

func TestMetrics(t *testing.T) {
	h := start(t, func(c *signalserver.Config) {
		c.MaxConnectionsPerAddress, c.JoinTokens = 3, []string{joinToken}
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	enter := func() (*peer, signaling.Joined) {
		p := h.connect(t)
		p.send(signaling.Join{Room: room, Peer: p.id, Admission: joinToken})
		return p, expect[signaling.Joined](p)
	}
	a, _ := enter()
	b, joined := enter()
	expect[signaling.MemberJoined](a)
	talk(a, b)
	a.send(signaling.SignalTo{To: signaling.PeerID{9}, Sealed: "AQID"})
	expect[signaling.Error](a)
	h.expectSamples(t, map[string]float64{"connections": 2, "rooms": 1, "members": 2, "joins_total": 2, "resumes_total": 0,
		"envelopes_total": 2, "relay_seconds": 2, "queue_drops_total": 0, "refusals_total{unreachable}": 1})
	before := h.samples(t)
	a.send(signaling.SignalTo{To: b.id, Sealed: strings.Repeat("A", 1000)})
	expect[signaling.SignalFrom](b)
	poll(t, "the bytes are counted", func() bool {
		now := h.samples(t)
		in, out := now["received_bytes_total"]-before["received_bytes_total"], now["sent_bytes_total"]-before["sent_bytes_total"]
		return in > 1000 && in < 1200 && out > 1000 && out < 1600 // the error before may be counted after it was read
	})

	c := h.connect(t)
	h.refused(t, http.StatusTooManyRequests, nil)
	c.send(signaling.Join{Room: room, Peer: c.id})
	c.expectEnd(signaling.CodeNotAdmitted)
	poll(t, "its place is free", func() bool { return h.Stats().Connections == 2 })
	again := h.connect(t)
	again.send(signaling.Join{Room: room, Peer: b.id, Token: joined.Token})
	expect[signaling.Joined](again)
	from := func(o *websocket.DialOptions) {
		o.HTTPHeader = http.Header{"X-Forwarded-For": {"192.0.2.1"}, "Origin": {"https://elsewhere.example"}}
	}
	h.refused(t, http.StatusForbidden, from)
	b.expectEnd(signaling.CodeReplaced)
	poll(t, "the place of the one that was replaced is free", func() bool { return h.Stats().Connections == 2 })
	get(t, h, "/v1/signal")
	h.expectSamples(t, map[string]float64{"joins_total": 2, "resumes_total": 1, "refusals_total{http-address-connections}": 1,
		"refusals_total{http-origin}": 1, "refusals_total{http-upgrade}": 1, "refusals_total{not-admitted}": 1,
		"refusals_total{replaced}": 1, "refusals_total{bad-message}": 0, "connections": 2, "members": 2})
}

// The log of a whole run names no address, no room and no peer, unless the operator wants addresses and rooms.
func TestLogNamesNobody(t *testing.T) {
	for _, named := range []bool{false, true} {
		h := start(t, func(c *signalserver.Config) {
			c.LogAddresses = named
			c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
			c.JoinTimeout = 50 * time.Millisecond
		})
		const v4, v6 = "192.0.2.77", "2001:db8:7::7"
		secret := signaling.RoomID{7, 7, 7, 7}
		var peers []*peer
		for _, address := range []string{v4, v6} {
			p, _, err := h.dial(t, func(o *websocket.DialOptions) { o.HTTPHeader = http.Header{"X-Forwarded-For": {address}} })
			if err != nil {
				t.Fatal(err)
			}
			joined := p.join(secret, "")
			if joined.Token == "" {
				t.Fatal("no token")
			}
			peers = append(peers, p)
		}
		expect[signaling.MemberJoined](peers[0])
		talk(peers[0], peers[1])
		peers[0].send(signaling.SignalTo{To: signaling.PeerID{9}, Sealed: "AQID"})
		expect[signaling.Error](peers[0])
		peers[0].send(signaling.Join{Room: secret, Peer: peers[0].id})
		peers[0].expectEnd(signaling.CodeBadMessage)
		peers[1].send(signaling.Leave{})
		peers[1].expectClose(1000, "leave")
		h.refused(t, http.StatusForbidden, func(o *websocket.DialOptions) {
			o.HTTPHeader = http.Header{"X-Forwarded-For": {v4}, "Origin": {"https://" + v4}}
		})
		h.connect(t).expectEnd(signaling.CodeIdle)
		poll(t, "the end of all is logged", func() bool { return strings.Count(h.log.String(), "connection ended") == 3 })
		log := h.log.String()
		for what, id := range map[string]string{"address": v4, "IPv6 address": "2001:db8:7:", "room": secret.String()} {
			if strings.Contains(log, id) != named {
				t.Errorf("LogAddresses=%v, and the %s is in the log or not:\n%s", named, what, log)
			}
		}
		for _, never := range []string{peers[0].id.String(), peers[1].id.String(), v6, h.web.Listener.Addr().String()} {
			if strings.Contains(log, never) {
				t.Errorf("the log holds %s:\n%s", never, log)
			}
		}
		for line := range strings.Lines(log) {
			if !strings.Contains(line, "conn=") && !strings.Contains(line, "no WebSocket") {
				t.Errorf("whose line is this? %s", line)
			}
		}
	}
}

// lossy is a bus that has lost messages.
type lossy struct{ signalcluster.Bus }

func (lossy) Missed() uint64 { return 7 }

// What the bus lost of what came in is shown.
func TestMetricsOfMissedMessages(t *testing.T) {
	start(t, nil).expectSamples(t, map[string]float64{"cluster_missed_total": 0})
	nats := natstest.Start(t, nil)
	startNode(t, nats.URL(), func(c *signalserver.Config) { c.Cluster = lossy{c.Cluster} }).
		expectSamples(t, map[string]float64{"cluster_missed_total": 7})
}
