package main

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/crmesh/crmesh/pkg/signaling/signalcluster/natsbus"
)

// onCommandLine returns the names of the flags that were given as arguments.
func onCommandLine(k *kong.Context) map[string]bool {
	given := map[string]bool{}
	for _, p := range k.Path {
		if p.Flag != nil && !p.Resolved {
			given[p.Flag.Name] = true
		}
	}
	return given
}

func isSecret(flag *kong.Flag) bool { return flag.Tag.Has("secret") }

// isAddress tells whether the flag is a list of addresses that may have a user and password in them.
func isAddress(flag *kong.Flag) bool { return flag.Tag.Has("address") }

func hasUser(flag *kong.Flag) bool {
	return strings.Contains(strings.Join(addresses(flag), ""), "@")
}

func addresses(flag *kong.Flag) []string {
	list, _ := flag.Target.Interface().([]string)
	return list
}

// shown is the value of a flag for people; of secrets only whether and how many there are.
func shown(flag *kong.Flag) string {
	v := flag.Target
	if v.Kind() == reflect.Slice {
		switch {
		case v.Len() == 0:
			return "-"
		case isSecret(flag):
			return fmt.Sprintf("(%d secret)", v.Len())
		case isAddress(flag):
			return (&natsbus.Config{URLs: addresses(flag)}).Redacted()
		}
		return strings.Trim(fmt.Sprint(v.Interface()), "[]")
	}
	switch text := fmt.Sprint(v.Interface()); {
	case text == "":
		return "-"
	case isSecret(flag):
		return "(secret)"
	default:
		return text
	}
}
