package signalserver

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/crmesh/crmesh/pkg/signaling"
)

// Causes of refusals besides the codes of the protocol: answers to the HTTP request, before there is a WebSocket.
const (
	causeSockets            = "http-sockets"             // closed
	causeAddressSockets     = "http-address-sockets"     // closed
	causeRequests           = "http-rate"                // 429, or closed
	causeTimeout            = "http-timeout"             // closed
	causeShutdown           = "http-shutdown"            // 503
	causeConnections        = "http-connections"         // 503
	causeAddressConnections = "http-address-connections" // 429
	causeOrigin             = "http-origin"              // 403
	causeUpgrade            = "http-upgrade"             // not a WebSocket handshake
)

// causes are all of them, so that each is a series from the start.
var causes = []string{
	causeSockets, causeAddressSockets, causeRequests, causeTimeout,
	causeShutdown, causeConnections, causeAddressConnections, causeOrigin, causeUpgrade,
	string(signaling.CodeBadMessage), string(signaling.CodeBinary), string(signaling.CodeBadUTF8), string(signaling.CodeTooLarge),
	string(signaling.CodeSubprotocol), string(signaling.CodePeerInUse), string(signaling.CodeReplaced), string(signaling.CodeIdle),
	string(signaling.CodeSlow), string(signaling.CodeRate), string(signaling.CodeJoinRate), string(signaling.CodeNotAdmitted),
	string(signaling.CodeRoomFull), string(signaling.CodeServerFull), string(signaling.CodeShutdown), string(signaling.CodeUnreachable),
}

// metrics counts what the server does. None of it tells one room, peer or address from another.
type metrics struct {
	joins, resumes prometheus.Counter
	envelopes      prometheus.Counter
	received, sent prometheus.Counter
	drops          prometheus.Counter
	refusals       *prometheus.CounterVec
	relay          prometheus.Histogram

	clusterIn, clusterOut, clusterLost, clusterBad prometheus.Counter
}

const namespace, subsystem = "crmesh", "signal"

func newMetrics() *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help})
	}
	m := &metrics{
		joins:     counter("joins_total", "Memberships that began."),
		resumes:   counter("resumes_total", "Joins that went on with a membership."),
		envelopes: counter("envelopes_total", "Envelopes passed on."),
		received:  counter("received_bytes_total", "Bytes of the frames that came in, without those of WebSocket, TLS and TCP."),
		sent:      counter("sent_bytes_total", "Bytes of the frames that went out, likewise."),
		drops:     counter("queue_drops_total", "Frames that were never sent, because the connection they waited for was too slow or broke."),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Subsystem: subsystem, Name: "refusals_total",
			Help: "What was refused, by cause: a code of the protocol, or http-... before there was a WebSocket."}, []string{"cause"}),
		relay: prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: namespace, Subsystem: subsystem, Name: "relay_seconds",
			Help:    "Time from the end of reading an envelope to the end of writing it to the other member.",
			Buckets: prometheus.ExponentialBuckets(50e-6, 4, 9)}), // 50 us to 3.3 s; a write may take writeTimeout

		clusterIn:   counter("cluster_received_total", "Messages from other servers of the cluster."),
		clusterOut:  counter("cluster_sent_total", "Messages to other servers of the cluster."),
		clusterLost: counter("cluster_lost_total", "Messages to other servers that were not sent: there was no connection to NATS, or its queue was full."),
		clusterBad:  counter("cluster_bad_total", "Messages over NATS that were dropped, since no server of the cluster can have sent them."),
	}
	for _, cause := range causes {
		m.refusals.WithLabelValues(cause)
	}
	return m
}

func (m *metrics) refused(cause string) { m.refusals.WithLabelValues(cause).Inc() }

// ended counts what ended a connection.
func (m *metrics) ended(e *signaling.Error) {
	if e != nil {
		m.refused(string(e.Code))
	}
}

// wrote counts a frame that went out.
func (m *metrics) wrote(f outgoing) {
	m.sent.Add(float64(len(f.frame)))
	if !f.received.IsZero() {
		m.relay.Observe(time.Since(f.received).Seconds())
	}
}

// load is what is not counted as it happens: one snapshot for each time it is asked for.
type load struct{ server *Server }

var (
	connectionsDesc = desc("connections", "Open WebSockets.")
	roomsDesc       = desc("rooms", "Rooms with members.")
	queuedDesc      = desc("queued_bytes", "Bytes that wait to be sent, on all connections together.")
	membersDesc     = desc("members", "Members, those within the grace time included; not those at other servers.")

	connectedDesc = desc("cluster_connected", "1: there is a connection to NATS, or no cluster.")
	serversDesc   = desc("cluster_servers", "Other servers of the cluster that are there.")
	missedDesc    = desc("cluster_missed_total", "Messages from other servers that were lost, since they came faster than this server took them.")
	remoteDesc    = desc("cluster_members", "Members of the rooms of this server who are at other servers.")
)

func desc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(namespace, subsystem, name), help, nil, nil)
}

// Describe implements prometheus.Collector.
func (load) Describe(ch chan<- *prometheus.Desc) {
	ch <- connectionsDesc
	ch <- roomsDesc
	ch <- membersDesc
	ch <- queuedDesc
	ch <- connectedDesc
	ch <- serversDesc
	ch <- remoteDesc
	ch <- missedDesc
}

// Collect implements prometheus.Collector.
func (l load) Collect(ch chan<- prometheus.Metric) {
	st := l.server.Stats()
	connected, missed := 1, uint64(0)
	if bus := l.server.cfg.Load().Cluster; bus != nil {
		missed = bus.Missed()
		if !bus.Connected() {
			connected = 0
		}
	}
	ch <- prometheus.MustNewConstMetric(missedDesc, prometheus.CounterValue, float64(missed))
	for _, g := range []struct {
		desc  *prometheus.Desc
		value int
	}{{connectionsDesc, st.Connections}, {roomsDesc, st.Rooms}, {membersDesc, st.Members}, {queuedDesc, int(l.server.queued.Load())},
		{connectedDesc, connected}, {serversDesc, st.Servers}, {remoteDesc, st.Remote}} {
		ch <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, float64(g.value))
	}
}

// Collectors returns the metrics of the server, to be registered where the operator looks at them. Their names begin with
// crmesh_signal_; docs/OPERATING.md lists them.
func (s *Server) Collectors() []prometheus.Collector {
	m := s.metrics
	return []prometheus.Collector{load{s}, m.joins, m.resumes, m.envelopes, m.received, m.sent, m.drops, m.refusals, m.relay,
		m.clusterIn, m.clusterOut, m.clusterLost, m.clusterBad}
}
