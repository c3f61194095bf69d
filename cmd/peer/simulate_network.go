package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/pion/logging"
	"github.com/pion/transport/v5/vnet"
)

// makingNetworks is held while a virtual network is made: vnet counts MAC addresses in a variable without a lock.
var makingNetworks sync.Mutex

// simNetwork is a virtual network with one machine for each peer. Everything that peers say to each other passes filter.
type simNetwork struct {
	router *vnet.Router
	hosts  []*vnet.Net
	loss   float64 // of each packet, 0 to 1

	mu     sync.Mutex // guards the following
	random *rand.Rand
	off    []bool // the machine has no current
	side   []bool // of the partition, one of two
	split  bool   // the two cannot reach each other
	count  packets
}

// packets counts what the peers sent.
type packets struct {
	Sent  int64 // UDP packets
	Bytes int64 // of their payload, lost ones included
	Lost  int64 // by chance
	Cut   int64 // by a partition
}

// hostsPerNet is how many machines share the first three bytes of an address.
const hostsPerNet = 250

func newSimNetwork(peers int, loss float64, delay time.Duration, random *rand.Rand) (*simNetwork, error) {
	makingNetworks.Lock()
	defer makingNetworks.Unlock()
	n := &simNetwork{loss: loss, random: random, off: make([]bool, peers), side: make([]bool, peers)}
	var err error
	n.router, err = vnet.NewRouter(&vnet.RouterConfig{
		CIDR: "10.0.0.0/16", MinDelay: delay, LoggerFactory: &logging.DefaultLoggerFactory{DefaultLogLevel: logging.LogLevelDisabled},
	})
	if err != nil {
		return nil, err
	}
	for i := range peers {
		host, err := vnet.NewNet(&vnet.NetConfig{StaticIPs: []string{fmt.Sprintf("10.0.%d.%d", i/hostsPerNet, i%hostsPerNet+1)}})
		if err == nil {
			err = n.router.AddNet(host)
		}
		if err != nil {
			return nil, err
		}
		n.hosts = append(n.hosts, host)
	}
	n.router.AddChunkFilter(n.filter)
	return n, n.router.Start()
}

func (n *simNetwork) close() error { return n.router.Stop() }

// hostOf returns the machine that has an address; false for one that is not of this network.
func (n *simNetwork) hostOf(addr net.Addr) (int, bool) {
	udp, ok := addr.(*net.UDPAddr)
	if !ok {
		return 0, false
	}
	ip := udp.IP.To4()
	if ip == nil {
		return 0, false
	}
	i := int(ip[2])*hostsPerNet + int(ip[3]) - 1
	return i, i >= 0 && i < len(n.hosts)
}

// filter says whether a packet arrives.
func (n *simNetwork) filter(c vnet.Chunk) bool {
	from, ok1 := n.hostOf(c.SourceAddr())
	to, ok2 := n.hostOf(c.DestinationAddr())
	n.mu.Lock()
	defer n.mu.Unlock()
	if !ok1 || !ok2 || n.off[from] || n.off[to] {
		return false
	}
	n.count.Sent++
	n.count.Bytes += int64(len(c.UserData()))
	switch {
	case n.split && n.side[from] != n.side[to]:
		n.count.Cut++
		return false
	case n.random.Float64() < n.loss:
		n.count.Lost++
		return false
	}
	return true
}

// power switches a machine off or on.
func (n *simNetwork) power(i int, on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.off[i] = !on
}

// partition cuts the network into two, of which each has a machine at least, and says how many the first has.
func (n *simNetwork) partition(random *rand.Rand) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	first := 1 + random.IntN(len(n.side)-1)
	for place, i := range random.Perm(len(n.side)) {
		n.side[i] = place < first
	}
	n.split = true
	return first
}

func (n *simNetwork) heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.split = false
}

func (n *simNetwork) counts() packets {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.count
}
