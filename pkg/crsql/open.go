package crsql

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/mattn/go-sqlite3"
)

// LockSuffix is what the name of the file beside a database ends with that its only user holds locked. The file
// stays: a Replica keeps a line in it that shows when somebody has put an older copy in the database's place.
const LockSuffix = "-crmesh.lock"

// ErrInUse is wrapped by the error of Open for a database that another DB, of this or another process, has open.
var ErrInUse = errors.New("it is in use already")

// errLocked is returned by lockFile.
var errLocked = errors.New("locked")

// header is what a file of SQLite starts with.
var header = []byte("SQLite format 3\x00")

// checkPath finds what is wrong with a path before SQLite has to, which would say "unable to open database file".
func checkPath(path string) error {
	if path == "" || strings.HasPrefix(path, ":memory:") {
		return errors.New("name a file for the database: one in memory cannot be replicated")
	}
	dir := filepath.Dir(path)
	switch info, err := os.Stat(dir); {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no directory %s for the database %s: create it first", dir, path)
	case err != nil:
		return pathError(path, err)
	case !info.IsDir():
		return fmt.Errorf("%s is no directory, so %s cannot be in it: name another file", dir, path)
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it will be created
	}
	if err != nil {
		return pathError(path, err)
	}
	if info.IsDir() {
		return fmt.Errorf("%s is a directory: name a file for the database", path)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return pathError(path, err)
	}
	start := make([]byte, len(header))
	n, err := io.ReadFull(f, start)
	if closing := f.Close(); err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = closing
	}
	if err != nil {
		return pathError(path, err)
	}
	if n > 0 && !bytes.Equal(start[:n], header) {
		return notDatabase(path)
	}
	return nil
}

func notDatabase(path string) error {
	return fmt.Errorf("%s is not an SQLite database: name another file", path)
}

// pathError makes a sentence of what the operating system said about path.
func pathError(path string, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("no permission to read and write %s: change its mode or owner, or name another file: %w", path, err)
	}
	return fmt.Errorf("cannot open the database %s: %w", path, err)
}

// openError makes a sentence of what SQLite said while it opened path.
func openError(ctx context.Context, path string, err error) error {
	var code sqlite3.Error
	if ctx.Err() != nil || !errors.As(err, &code) {
		return fmt.Errorf("cannot open the database %s: %w", path, err)
	}
	switch code.Code {
	case sqlite3.ErrNotADB:
		return notDatabase(path)
	case sqlite3.ErrCorrupt:
		return fmt.Errorf("the database %s is damaged: restore it from a copy (%w)", path, err)
	case sqlite3.ErrBusy, sqlite3.ErrLocked:
		return fmt.Errorf("the database %s is locked by another program: close that program and try again (%w)", path, err)
	case sqlite3.ErrPerm, sqlite3.ErrReadonly, sqlite3.ErrCantOpen, sqlite3.ErrAuth:
		return fmt.Errorf("no permission to write the database %s or to create files beside it: change the directory's mode or owner (%w)", path, err)
	case sqlite3.ErrFull:
		return fmt.Errorf("the disk that holds the database %s is full: make room (%w)", path, err)
	}
	return fmt.Errorf("cannot open the database %s: %w", path, err)
}

// takeLock makes this the only DB on path. The lock ends with the process, however it ends.
func takeLock(path string) (*os.File, error) {
	name := path + LockSuffix
	f, err := lockFile(name)
	if errors.Is(err, errLocked) {
		return nil, fmt.Errorf("the database %s cannot be opened: %w (%s is locked); stop the other peer, or give this one a database of its own", path, ErrInUse, name)
	}
	if err != nil {
		return nil, pathError(name, err)
	}
	return f, nil
}

// realPath returns the absolute path of the file behind links, so that two names of one file have one lock.
func realPath(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("cannot find the database: %w", err)
	}
	real, err := filepath.EvalSymlinks(path)
	if err == nil {
		return real, nil
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		return filepath.Join(dir, filepath.Base(path)), nil
	}
	return path, nil // checkPath says what is wrong with it
}

// dsn returns the name of path for mattn, whatever characters are in it.
func dsn(path, mode string) string {
	path = filepath.ToSlash(path)
	if runtime.GOOS == "windows" {
		path = "/" + path
	}
	u := url.URL{Scheme: "file", Path: path, RawQuery: "mode=" + mode + "&_stmt_cache_size=64"}
	return u.String()
}
