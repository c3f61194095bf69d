//go:build unix

package crsql

import (
	"os"
	"syscall"
)

// fileID returns what tells the file from others on this machine, also after a rename. Device numbers may change when
// the machine starts anew.
func fileID(path string) (device, inode uint64, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, 0, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, nil
	}
	return uint64(st.Dev), uint64(st.Ino), nil
}

// machineID returns a text that is this machine's alone, empty where there is none, as in most containers.
func machineID() string {
	for _, name := range []string{"/etc/machine-id", "/var/lib/dbus/machine-id"} {
		if id, err := os.ReadFile(name); err == nil {
			return string(id)
		}
	}
	return ""
}
