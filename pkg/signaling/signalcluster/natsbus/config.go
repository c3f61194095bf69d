package natsbus

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/nats-io/nkeys"
)

// Config says where NATS is.
type Config struct {
	// URLs are nats://HOST:PORT or tls://HOST:PORT, with user:password@ or token@ before the host if NATS asks for it.
	URLs []string
	// Credentials is a file with a user's JWT and its key, as nsc makes them; "": none. It is read at each connection.
	Credentials string
	// Name is what NATS shows the connection as.
	Name string
	// Logger may be nil.
	Logger *slog.Logger
}

// isPort tells whether text is a port of TCP, or none.
func isPort(text string) bool {
	n, err := strconv.ParseUint(text, 10, 16)
	return text == "" || err == nil && n > 0
}

// Check returns what is wrong with the configuration, without connecting. No error quotes an address, which may have a
// password in it.
func (c *Config) Check() error {
	if len(c.URLs) == 0 {
		return errors.New("a cluster needs the address of NATS")
	}
	var errs []error
	for i, text := range c.URLs {
		u, err := url.Parse(text)
		if err != nil || !isPort(u.Port()) || u.Scheme != "nats" && u.Scheme != "tls" || u.Hostname() == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
			errs = append(errs, fmt.Errorf("address number %d of NATS is not like nats://host:4222 or tls://host:4222", i+1))
		}
	}
	if c.Credentials != "" {
		text, err := os.ReadFile(c.Credentials)
		if err != nil {
			return errors.Join(append(errs, fmt.Errorf("the credentials for NATS cannot be read: %w", err))...)
		}
		_, errJWT := nkeys.ParseDecoratedJWT(text)
		key, errKey := nkeys.ParseDecoratedUserNKey(text)
		if errJWT != nil || errKey != nil {
			errs = append(errs, fmt.Errorf("the file %s has no user JWT with its key, as nsc makes them", c.Credentials))
		} else {
			key.Wipe()
		}
	}
	return errors.Join(errs...)
}

// Redacted returns the addresses without user, password and token.
func (c *Config) Redacted() string {
	list := make([]string, 0, len(c.URLs))
	for _, text := range c.URLs {
		if u, err := url.Parse(text); err == nil && u.Host != "" {
			list = append(list, u.Scheme+"://"+u.Host)
		} else {
			list = append(list, "?")
		}
	}
	return strings.Join(list, ",")
}
