// Package syncproto is the sync protocol of docs/PROTOCOL.md as a pure core: messages, their codec, and for each link what
// to send, to read, to apply and to claim. It does no I/O, reads no clock and starts no goroutine: the same calls give
// the same results.
//
// A peer's entries are numbered by local version L. To serve a link, the core walks through them in order (walk.go): it
// sends, skips what the other side covers, or holds back what the other side should get from a better place. At the end
// of the walk it claims its vector, on the condition (deps) that the other side covers what was held. On the
// receiving side (inbox.go) groups are applied at once and claims wait for their deps.
//
// # The driver's duties
//
//  1. One goroutine calls the core. After each call, or after a few, it calls Ready and does what that says.
//  2. Sends of a link go out in order. Messages are passed to Step in the order in which they came, each parsed by Parse;
//     bytes that do not parse go to Refuse.
//  3. The proof in a hello is verified before Step; a bad one goes to Refuse. Hello.Writer is trusted.
//  4. At most one link is open to a site. A newer one makes the core close the older one.
//  5. A Read is answered by ReadDone, an Apply by Applied, a Schema by SchemaApplied, also when their link is gone. They may
//     be answered late and in any order. If one fails for good, the driver ends the core: it cannot go on.
//  6. Everything a Read returns is durable, and so is an Apply before Applied, and a commit before Committed.
//  7. An L that a Read, State or Applied has reported never comes back with other content.
//  8. A Read answers from one snapshot that is taken after the request came out of Ready.
//  9. Tick is called every TickMillis, Committed after each local commit (several may share one call).
//  10. After a Close the driver flushes the link's Sends, closes it and calls Core.Close. It calls Core.Close also
//     when a link ends by itself. Until then, and afterwards, calls for that link are ignored.
//  11. A Look is answered by LookDone, also when its link is gone. It takes its time without delaying Reads and Applies.
//  12. SchemaChanged is called once after New, and after each change of the schema before its Committed.
package syncproto
