package mesh

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/pion/stun/v4"

	"github.com/crmesh/crmesh/pkg/signaling"
)

// ParseICEServer reads the address of an ICE server as a person writes it: stun:HOST[:PORT], or
// turn:USER:PASSWORD@HOST[:PORT][?transport=udp|tcp], and stuns and turns for TLS. In user and password, what would
// separate them is written %3A for a colon, %40 for an at sign and %25 for a percent sign. An error does not show the password.
func ParseICEServer(address string) (signaling.ICEServer, error) {
	scheme, rest, ok := strings.Cut(address, ":")
	if !ok {
		return signaling.ICEServer{}, errICEServer
	}
	var s signaling.ICEServer
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		user, password, _ := strings.Cut(rest[:at], ":")
		var err1, err2 error
		s.Username, err1 = url.PathUnescape(user)
		s.Credential, err2 = url.PathUnescape(password)
		if err1 != nil || err2 != nil {
			return signaling.ICEServer{}, errors.New("in user and password of an ICE server a percent sign is written %25")
		}
		rest = rest[at+1:]
	}
	s.URLs = []string{scheme + ":" + rest}
	return s, checkICEServer(s)
}

var errICEServer = errors.New("an ICE server is written stun:HOST:PORT or turn:USER:PASSWORD@HOST:PORT")

// checkICEServer refuses what pion would refuse later, for every connection.
func checkICEServer(s signaling.ICEServer) error {
	if len(s.URLs) == 0 {
		return errICEServer
	}
	for _, u := range s.URLs {
		uri, err := stun.ParseURI(u)
		if err != nil || uri.Host == "" {
			return fmt.Errorf("%q: %w", u, errICEServer)
		}
		turn := uri.Scheme == stun.SchemeTypeTURN || uri.Scheme == stun.SchemeTypeTURNS
		switch {
		case turn && (s.Username == "" || s.Credential == ""):
			return fmt.Errorf("%q: a TURN server asks for user and password: %w", u, errICEServer)
		case !turn && (s.Username != "" || s.Credential != ""):
			return fmt.Errorf("%q: a STUN server takes no user and password: %w", u, errICEServer)
		}
	}
	return nil
}
