package mesh

import (
	"context"
	"fmt"
	"slices"

	"github.com/crmesh/crmesh/pkg/signaling"
)

// visit makes a link to a member that is no neighbour of ours, and returns once both sides have said hello. It fails where no
// link comes about within the time of an attempt. In either case part has to be called in the end.
func (n *Node) visit(ctx context.Context, id signaling.PeerID) (verifyLink, MemberStatus, error) {
	within, cancel := context.WithTimeout(ctx, n.timing.attempt)
	defer cancel()
	err := n.onLoop(within, func(l *loop) {
		l.visits[id] = struct{}{}
		l.choose()
	})
	var status Status
	if err == nil {
		status, err = n.wait(request{ctx: within, live: id, reply: make(chan reply, 1)})
	}
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return verifyLink{}, MemberStatus{}, errVerifyTime
	case within.Err() != nil:
		return verifyLink{}, MemberStatus{}, fmt.Errorf("no link came about within %v", n.timing.attempt)
	default:
		return verifyLink{}, MemberStatus{}, err
	}
	var link verifyLink
	err = n.onLoop(ctx, func(l *loop) {
		if k := l.linkTo(id); k != nil {
			link = verifyLink{k.id, k.conn}
		}
	})
	at := slices.IndexFunc(status.Members, func(m MemberStatus) bool { return m.Peer == id.String() })
	if err == nil && (link.conn == nil || at < 0) {
		err = errEnded
	}
	if err != nil {
		return verifyLink{}, MemberStatus{}, err
	}
	return link, status.Members[at], nil
}

// part lets go of a member that was visited. A link that nobody else wants is closed after SurplusAfter.
func (n *Node) part(id signaling.PeerID) {
	_ = n.onLoop(n.ctx, func(l *loop) { // else the Node has ended
		delete(l.visits, id)
		l.choose()
	})
}
