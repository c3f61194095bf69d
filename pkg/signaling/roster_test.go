package signaling_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/crmesh/crmesh/pkg/signaling"
)

// The roster against a model that is a plain list, over random scripts of
// joins with good, bad and no tokens, losses, leaves and time.
func TestRosterModel(t *testing.T) {
	const most, grace = 4, 15 * time.Second
	type member struct {
		token string
		meta  signaling.Meta
		conn  signaling.ConnID
		lost  time.Time
	}
	rapid.Check(t, func(t *rapid.T) {
		r := signaling.NewRoster(most, grace)
		model := map[signaling.PeerID]*member{}
		now := time.Unix(1_000_000, 0)
		var conns []signaling.ConnID // every connection that ever was
		next := signaling.ConnID(1)
		owner := func(c signaling.ConnID) (signaling.PeerID, *member) {
			for peer, m := range model {
				if m.conn == c {
					return peer, m
				}
			}
			return signaling.PeerID{}, nil
		}
		someConn := func() signaling.ConnID { return rapid.SampledFrom(append(conns, 9999)).Draw(t, "conn") }
		t.Repeat(map[string]func(*rapid.T){
			"join": func(t *rapid.T) {
				peer := signaling.PeerID{rapid.Byte().Filter(func(b byte) bool { return b < 6 }).Draw(t, "peer")}
				meta := signaling.Meta{Replica: rapid.Bool().Draw(t, "replica")}
				token := rapid.SampledFrom([]string{"", "wrong", "right"}).Draw(t, "token")
				m := model[peer]
				if token == "right" && m != nil {
					token = m.token
				}
				conn := next
				next++
				fresh := "token" + string(rune('a'+conn%20)) + peer.String()
				e, err := r.Join(conn, peer, meta, token, fresh)
				switch {
				case m == nil && len(model) == most:
					if !errors.Is(err, signaling.ErrRoomFull) {
						t.Fatalf("full, but %v", err)
					}
					return
				case m != nil && token != m.token:
					if !errors.Is(err, signaling.ErrPeerInUse) {
						t.Fatalf("stolen: %v", err)
					}
					return
				case err != nil:
					t.Fatal(err)
				case m == nil:
					if e.Resumed || e.Replaced != 0 || !e.Announce || e.Token != fresh {
						t.Fatalf("new member: %+v", e)
					}
					model[peer] = &member{token: fresh, meta: meta, conn: conn}
				default:
					if !e.Resumed || e.Replaced != m.conn || e.Announce != (m.meta != meta) || e.Token != m.token {
						t.Fatalf("resume of %+v: %+v", m, e)
					}
					m.conn, m.meta = conn, meta
				}
				conns = append(conns, conn)
				var others []signaling.PeerID
				for p := range model {
					if p != peer {
						others = append(others, p)
					}
				}
				slices.SortFunc(others, signaling.PeerID.Compare)
				if !slices.EqualFunc(e.Others, others, func(a signaling.Member, b signaling.PeerID) bool { return a.Peer == b && a.Meta == model[b].meta }) {
					t.Fatalf("others %v, want %v", e.Others, others)
				}
			},
			"disconnect": func(t *rapid.T) {
				c := someConn()
				if _, m := owner(c); m != nil {
					m.conn, m.lost = 0, now
				}
				r.Disconnect(now, c)
			},
			"leave": func(t *rapid.T) {
				c := someConn()
				peer, m := owner(c)
				got, ok := r.Leave(c)
				if ok != (m != nil) || (ok && got != peer) {
					t.Fatalf("leave of %d: %v %v", c, got, ok)
				}
				if m != nil {
					delete(model, peer)
				}
			},
			"time": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.Int64Range(0, int64(grace)).Draw(t, "passes")))
				var gone []signaling.PeerID
				for peer, m := range model {
					if m.conn == 0 && now.Sub(m.lost) >= grace {
						gone = append(gone, peer)
						delete(model, peer)
					}
				}
				slices.SortFunc(gone, signaling.PeerID.Compare)
				if got := r.Tick(now); !slices.Equal(got, gone) {
					t.Fatalf("gone %v, want %v", got, gone)
				}
			},
			"": func(t *rapid.T) {
				waiting, live := 0, map[signaling.PeerID]signaling.ConnID{}
				for peer, m := range model {
					conn, ok := r.Conn(peer)
					if ok != (m.conn != 0) || conn != m.conn {
						t.Fatalf("conn of %v is %d, want %d", peer, conn, m.conn)
					}
					if m.conn == 0 {
						waiting++
						continue
					}
					live[peer] = m.conn
					if p, ok := r.Peer(m.conn); !ok || p != peer {
						t.Fatalf("peer of %d is %v", m.conn, p)
					}
				}
				for peer, conn := range r.Conns() {
					if live[peer] != conn {
						t.Fatalf("%v is live on %d, want %d", peer, conn, live[peer])
					}
					delete(live, peer)
				}
				if len(live) != 0 || r.Len() != len(model) || r.Waiting() != waiting || r.Len() > most {
					t.Fatalf("missing %v, %d members, %d waiting; want %d, %d", live, r.Len(), r.Waiting(), len(model), waiting)
				}
			},
		})
	})
}
