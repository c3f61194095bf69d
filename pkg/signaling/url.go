package signaling

import (
	"fmt"
	"net/url"
	"strings"
)

// WebSocketURL returns the address of the WebSocket of the server at base,
// which is the address of its page (http, https) or the WebSocket's own (ws,
// wss, with or without the path v1/signal). What follows '?' or '#' is cut.
func WebSocketURL(base string) (string, error) {
	u, err := url.Parse(strings.TrimSpace(base))
	if err != nil || u.Host == "" {
		return "", fmt.Errorf("the signaling address %q is not like https://host or wss://host", cutFragment(base))
	}
	switch u.Scheme {
	case "http", "ws":
		u.Scheme = "ws"
	case "https", "wss":
		u.Scheme = "wss"
	default:
		return "", fmt.Errorf("the signaling address %q must start with https://, http://, wss:// or ws://", cutFragment(base))
	}
	u.User, u.RawQuery, u.ForceQuery, u.Fragment, u.RawFragment = nil, "", false, "", ""
	if strings.HasSuffix(u.Path, "/"+Path) {
		return u.String(), nil
	}
	u.Path, u.RawPath = u.Path[:strings.LastIndexByte(u.Path, '/')+1], ""
	if u.Path == "" {
		u.Path = "/"
	}
	u.Path += Path
	return u.String(), nil
}

// cutFragment keeps the secret of a room link out of error messages.
func cutFragment(s string) string {
	before, _, _ := strings.Cut(s, "#")
	return before
}
