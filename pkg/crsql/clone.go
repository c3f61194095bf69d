package crsql

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/mattn/go-sqlite3"
)

const (
	clonePages  = 4096                   // copied between two looks at the context
	cloneSuffix = "-crmesh.clone"        // of the unfinished copy beside the destination
	cloneWait   = 5 * time.Second        // for a lock on the source
	clonePause  = 100 * time.Millisecond // until a locked source is tried again
)

// CloneProgress is how far a Clone is.
type CloneProgress struct{ Done, Total int64 } // bytes

// Clone makes a copy of the database at source, as it is at one moment, in a new file. The copy has a site id of its
// own, and what the source wrote stays the source's: peers that have it do not get it again. The source may be in use, by
// a peer or anybody else; they go on meanwhile, though the source's write-ahead log grows until the copy is there. Only a source without such a
// log, which no peer has open, takes no writes for that long.
//
// Clone does not overwrite: an existing destination is an error, and one that failed leaves no destination. It blocks in
// proportion to the size of the source, and ends soon after ctx. progress, which may be nil, is called now and then.
func Clone(ctx context.Context, source, destination string, progress func(CloneProgress), o Options) error {
	if _, err := os.Stat(source); err != nil {
		return pathError(source, err)
	}
	if err := checkPath(source); err != nil {
		return err
	}
	source, err := realPath(source)
	if err != nil {
		return err
	}
	if destination, err = realPath(destination); err != nil {
		return err
	}
	for _, suffix := range []string{"", "-wal", "-journal"} {
		if _, err := os.Lstat(destination + suffix); err == nil {
			return fmt.Errorf("%s exists already: name a new file for the copy, or remove it first", destination+suffix)
		}
	}
	if err := checkPath(destination); err != nil {
		return err
	}
	unfinished := destination + cloneSuffix
	lock, err := takeLock(unfinished)
	if err != nil {
		return err
	}
	defer func() {
		_ = lock.Close()
		for _, suffix := range []string{"", "-wal", "-shm", "-journal", LockSuffix} {
			_ = os.Remove(unfinished + suffix) // most do not exist
		}
	}()
	if err := os.Remove(unfinished); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a Clone that was killed
		return pathError(unfinished, err)
	}
	if err := copyDatabase(ctx, source, unfinished, progress); err != nil {
		return fmt.Errorf("the database %s could not be copied: %w", source, err)
	}
	// A file is linked only where there is none. The copy has no home: whoever opens it gives it a site id of its own, should
	// this process end before it has.
	err = os.Link(unfinished, destination)
	if err != nil && !errors.Is(err, fs.ErrExist) { // a file system without links
		err = os.Rename(unfinished, destination)
	}
	if err != nil {
		return pathError(destination, err)
	}
	if err := openClone(ctx, destination, o); err != nil {
		for _, suffix := range []string{"-wal", "-shm", LockSuffix, ""} {
			_ = os.Remove(destination + suffix) // most do not exist
		}
		var code sqlite3.Error
		if errors.As(err, &code) && code.Code == sqlite3.ErrCorrupt { // the copy is what the source is
			return openError(ctx, source, code)
		}
		return err
	}
	return nil
}

// openClone opens a copy for the first time, which gives it its site id.
func openClone(ctx context.Context, path string, o Options) error {
	db, err := Open(ctx, path, o)
	if err != nil {
		return err
	}
	_, err = OpenReplica(ctx, db)
	return errors.Join(err, db.Close())
}

// copyDatabase copies source into a new file, in one snapshot, and takes the home out of the copy.
func copyDatabase(ctx context.Context, source, destination string, progress func(CloneProgress)) (err error) {
	from, err := plainConn(dsn(source, "ro"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	to, err := plainConn(dsn(destination, "rwc"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	// The transaction keeps the snapshot: without it, each commit of others would make the backup start over.
	for _, sql := range []string{"BEGIN", "SELECT count(*) FROM sqlite_master"} {
		if _, err := queryOn(from, sql); err != nil {
			return err
		}
	}
	pageSize, err := queryOn(from, "PRAGMA page_size")
	if err != nil {
		return err
	}
	if err := backup(ctx, to, from, toInt64(pageSize[0][0]), progress); err != nil {
		return err
	}
	for _, sql := range []string{
		"PRAGMA synchronous=FULL",
		"CREATE TABLE IF NOT EXISTS crmesh_meta (key TEXT PRIMARY KEY, value ANY) WITHOUT ROWID",
		"INSERT OR REPLACE INTO crmesh_meta VALUES ('" + metaHome + "', '')",
		"PRAGMA journal_mode=DELETE", // all of it in one file, which can be moved
	} {
		if _, err := queryOn(to, sql); err != nil {
			return err
		}
	}
	return nil
}

// plainConn opens a connection without an engine, which would write.
func plainConn(name string) (*sqlite3.SQLiteConn, error) {
	c, err := (&sqlite3.SQLiteDriver{}).Open(name)
	if err != nil {
		return nil, err
	}
	return c.(*sqlite3.SQLiteConn), nil
}

// backup copies all pages. It waits for a source that is locked, for up to cloneWait at a time.
func backup(ctx context.Context, to, from *sqlite3.SQLiteConn, pageSize int64, progress func(CloneProgress)) error {
	b, err := to.Backup("main", from, "main")
	if err != nil {
		return err
	}
	var last CloneProgress
	for deadline := time.Now().Add(cloneWait); ; {
		done, err := b.Step(clonePages)
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return errors.Join(err, b.Finish())
		}
		total, left := int64(b.PageCount()), int64(b.Remaining())
		now := CloneProgress{Done: (total - left) * pageSize, Total: total * pageSize}
		if now != last {
			last, deadline = now, time.Now().Add(cloneWait)
			if progress != nil {
				progress(now)
			}
		}
		if done {
			return b.Finish()
		}
		if time.Now().After(deadline) {
			return errors.Join(ErrWriteLocked, b.Finish())
		}
		if left == total { // mattn takes a lock for a step without progress
			select {
			case <-ctx.Done():
			case <-time.After(clonePause):
			}
		}
	}
}
