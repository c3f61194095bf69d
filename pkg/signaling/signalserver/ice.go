package signalserver

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/crmesh/crmesh/pkg/signaling"
)

// iceServers returns what a member may gather candidates with, and for how
// many seconds the credentials are good (0: there are none).
func (s *Server) iceServers(requestHost string, peer signaling.PeerID, now time.Time) ([]signaling.ICEServer, int) {
	cfg := s.cfg.Load()
	var list []signaling.ICEServer
	if cfg.STUNPort != 0 {
		if host := stunHost(cfg.PublicHost, requestHost); host != "" {
			address := "stun:" + net.JoinHostPort(host, strconv.Itoa(cfg.STUNPort))
			list = append(list, signaling.ICEServer{URLs: []string{address}})
		}
	}
	if len(cfg.TURNURLs) == 0 {
		return list, 0
	}
	username := strconv.FormatInt(now.Add(cfg.TURNTTL).Unix(), 10) + ":" + peer.String()
	mac := hmac.New(sha1.New, []byte(cfg.TURNSecret))
	mac.Write([]byte(username))
	list = append(list, signaling.ICEServer{
		URLs:       cfg.TURNURLs,
		Username:   username,
		Credential: base64.StdEncoding.EncodeToString(mac.Sum(nil)),
	})
	return list, int(cfg.TURNTTL / time.Second)
}

// stunHost returns the host that clients reach this machine by: the one the
// operator names, else the one this client has used, without its port.
func stunHost(public, requestHost string) string {
	if public != "" {
		return strings.Trim(public, "[]")
	}
	u, err := url.Parse("//" + requestHost)
	if err != nil {
		return ""
	}
	if host := u.Hostname(); IsHost(host) {
		return host
	}
	return ""
}
