//go:build unix

package signalserver

import (
	"errors"
	"io"
	"syscall"

	"golang.org/x/sys/unix"
)

// canRest: a socket is read by the call that finds out whether it can be.
const canRest = true

// readSocket reads what is there; errRest: nothing is, yet.
func readSocket(fd uintptr, p []byte) (int, error) {
	for {
		switch n, err := syscall.Read(int(fd), p); {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EAGAIN):
			return 0, errRest
		case err == nil && n == 0 && len(p) > 0:
			return 0, io.EOF
		default:
			return max(n, 0), err
		}
	}
}

// writeSocket writes what fits into the socket's buffer.
func writeSocket(fd uintptr, p []byte) (int, error) {
	for {
		switch n, err := syscall.Write(int(fd), p); {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EAGAIN):
			return 0, nil
		default:
			return max(n, 0), err
		}
	}
}

func closeSocket(fd int) error { return unix.Close(fd) }
