//go:build unix

package crsql

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// The reference engine opens files in Node, which cannot lock a part of a file. A process beside each oracle does it:
// locks of this kind belong to a process, so it must be none that has the database open through SQLite.

func init() { children["filelocks"] = fileLocks }

// startFileLocks starts that process, and gives the oracle's, which is not started yet, the files through which it asks
// and gets answers. The process ends when the oracle has.
func startFileLocks(t testing.TB, oracle *exec.Cmd) *exec.Cmd {
	t.Helper()
	locks := child(t, "filelocks")
	locks.Stderr = os.Stderr
	requests, ask, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	answer, answers, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	locks.Stdin, locks.Stdout = requests, answers
	if err := locks.Start(); err != nil {
		t.Fatal(err)
	}
	_, _ = requests.Close(), answers.Close() // they are the child's now
	oracle.ExtraFiles = []*os.File{ask, answer}
	return locks
}

// fileLocks answers requests until there are no more. A request is a line, its answer one letter, y or n:
//
//	open ID PATH               only one ID at a time may have a file
//	close ID
//	read|write ID START LENGTH    lock these bytes, if nobody else has them
//	unlock ID START LENGTH
//	locked ID START LENGTH        whether another process has them
func fileLocks([]string) error {
	files := map[string]*os.File{}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		words := strings.SplitN(lines.Text(), " ", 3)
		yes, err := fileLock(files, words)
		if err != nil {
			return fmt.Errorf("%s: %w", lines.Text(), err)
		}
		answer := "n"
		if yes {
			answer = "y"
		}
		if _, err := io.WriteString(os.Stdout, answer); err != nil {
			return err
		}
	}
	return lines.Err()
}

func fileLock(files map[string]*os.File, words []string) (bool, error) {
	verb, id := words[0], words[1]
	f := files[id]
	switch verb {
	case "open":
		for _, other := range files {
			if other.Name() == words[2] {
				return false, fmt.Errorf("it is open already")
			}
		}
		f, err := os.OpenFile(words[2], os.O_RDWR|os.O_CREATE, 0o644)
		files[id] = f
		return err == nil, err
	case "close":
		delete(files, id)
		return true, f.Close()
	}
	lock := syscall.Flock_t{Whence: io.SeekStart}
	if _, err := fmt.Sscan(words[2], &lock.Start, &lock.Len); err != nil {
		return false, err
	}
	command := syscall.F_SETLK
	switch verb {
	case "read":
		lock.Type = syscall.F_RDLCK
	case "write":
		lock.Type = syscall.F_WRLCK
	case "unlock":
		lock.Type = syscall.F_UNLCK
	case "locked":
		command, lock.Type = syscall.F_GETLK, syscall.F_WRLCK
	}
	err := syscall.FcntlFlock(f.Fd(), command, &lock)
	if err == syscall.EAGAIN || err == syscall.EACCES {
		return false, nil
	}
	if verb == "locked" {
		return lock.Type != syscall.F_UNLCK, err
	}
	return err == nil, err
}
