//go:build !unix

package signalserver

import "errors"

const canRest = false

func readSocket(uintptr, []byte) (int, error) { return 0, errors.ErrUnsupported }

func writeSocket(uintptr, []byte) (int, error) { return 0, errors.ErrUnsupported }

func closeSocket(int) error { return errors.ErrUnsupported }
