package main

import (
	"math"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/prometheus/procfs"
)

// machine is what a configuration has to fit into; 0: not known here.
type machine struct {
	memory uint64 // bytes that the server may use
	files  uint64 // descriptors that it may have open
}

// thisMachine looks at the machine, the control group and the runtime's own limit. Only Linux tells.
func thisMachine() machine {
	var m machine
	if fs, err := procfs.NewDefaultFS(); err == nil {
		if info, err := fs.Meminfo(); err == nil && info.MemTotalBytes != nil {
			m.memory = *info.MemTotalBytes
		}
		if self, err := fs.Self(); err == nil {
			if limits, err := self.Limits(); err == nil {
				m.files = limits.OpenFiles
			}
		}
	}
	for _, file := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		if text, err := os.ReadFile(file); err == nil {
			if n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err == nil && m.memory > 0 { // or "max"
				m.memory = min(m.memory, n)
			}
		}
	}
	if n := debug.SetMemoryLimit(-1); n > 0 && n < math.MaxInt64 && m.memory > 0 {
		m.memory = min(m.memory, uint64(n))
	}
	return m
}

// fromEnvironment tells whether a flag that was not given has its value from the environment.
func fromEnvironment(flag *kong.Flag) bool {
	for _, name := range flag.Envs {
		if _, set := os.LookupEnv(name); set {
			return true
		}
	}
	return false
}

// unknownVariables returns the names of variables in the environment that look like settings of this program and are none,
// such as CRMESH_JOIN_TOKENS.
func unknownVariables(k *kong.Context, environment []string) []string {
	known := map[string]bool{}
	for _, command := range k.Model.Children {
		for _, flag := range command.Flags {
			for _, name := range flag.Envs {
				known[name] = true
			}
		}
	}
	var unknown []string
	for _, variable := range environment {
		name, _, _ := strings.Cut(variable, "=")
		if strings.HasPrefix(name, "CRMESH_") && !known[name] {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	return unknown
}

// isSet tells whether a flag has a value from somewhere, be it an empty one.
func isSet(flags []*kong.Flag, name string) bool {
	for _, flag := range flags {
		if flag.Name == name {
			return flag.Set
		}
	}
	return false
}
