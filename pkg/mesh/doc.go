// Package mesh keeps one database in sync with the other members of a room, over WebRTC data channels.
//
// A Node holds a direct link to every member. A commit takes this way: Store says that it committed, the loop asks the
// core (syncproto) what to send, the core asks for entries, the store reads them, the core makes messages, a conn cuts
// them into frames. On the other side a conn puts frames together, the loop hands messages to the core, the core asks
// for an apply, the store applies it in one transaction, the core answers with have.
//
// Who does what, each in a file of its name: node.go is the public face; loop.go is the one goroutine that owns the
// core, and links.go what it does with links; store.go and signaler.go are what a Node needs from outside; member.go is one goroutine for each member of the
// room, which owns the connection to it; negotiate.go is how it offers and answers; attempt.go is one PeerConnection;
// ports.go, udpport.go and tcpport.go are sockets that all connections share;
// conn.go, send.go and receive.go are an open channel; heartbeat.go tells whether it lives.
//
// What one member sends, however wrong, ends at most the link to that member.
package mesh
