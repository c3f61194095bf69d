package crsql

import (
	"os"
	"syscall"
)

// fileID returns what tells the file from others on this machine, also after a rename.
func fileID(path string) (device, inode uint64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = f.Close() }() // nothing was written
	var info syscall.ByHandleFileInformation
	if err := syscall.GetFileInformationByHandle(syscall.Handle(f.Fd()), &info); err != nil {
		return 0, 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return uint64(info.VolumeSerialNumber), uint64(info.FileIndexHigh)<<32 | uint64(info.FileIndexLow), nil
}

// machineID returns a text that is this machine's alone.
func machineID() string {
	name, _ := os.Hostname() // none tells nothing
	return name
}
