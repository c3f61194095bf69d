// A VFS for wa-sqlite over files on disk. Its locks are those of SQLite's own unix VFS, so that other processes may use
// the same database. Node cannot lock a part of a file: another process does it (filelock_test.go), which reads requests
// from this one's file descriptor 3 and answers on 4.
//
// There is no shared memory here, and so no WAL. Nothing is synced: nobody cuts the power.

import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

// Where SQLite puts its locks, and what they are called; see os_unix.c.
const PENDING = 0x40000000;
const RESERVED = PENDING + 1;
const SHARED = PENDING + 2;
const SHARED_SIZE = 510;
const [NONE, LOCK_SHARED, LOCK_RESERVED, , LOCK_EXCLUSIVE] = [0, 1, 2, 3, 4];

const OK = 0;
const BUSY = 5;
const CANTOPEN = 14;
const IOERR_SHORT_READ = 522;
const IOERR_DELETE_NOENT = 5898;
const OPEN_DELETEONCLOSE = 0x8;
const OPEN_MAIN_DB = 0x100;

// ask sends a request to the process that locks, waits for its answer, and returns whether that is yes.
function ask(...words) {
  fs.writeSync(3, `${words.join(" ")}\n`);
  const answer = Buffer.alloc(1);
  if (fs.readSync(4, answer) !== 1) throw new Error("the process that locks has ended");
  return answer.toString() === "y";
}

export class FileVFS {
  name = "file";
  #paths = new Map(); // of databases, by the name that they are opened with: a VFS takes 64 bytes only
  #open = new Map();
  #temporary = 0;

  // add makes the file at path known as name.
  add(name, path) {
    this.#paths.set(name, path);
  }

  // abandon closes what SQLite leaves open when it fails to open a database.
  abandon(name) {
    const path = this.#paths.get(name);
    for (const [id, file] of this.#open) if (file.path === path) this.xClose(id);
  }

  #path(name) {
    const [, base, suffix] = /^(.*?)(-journal|-wal)?$/.exec(name);
    return this.#paths.get(base) + (suffix ?? "");
  }

  xOpen(name, id, flags, outFlags) {
    const path = name ? this.#path(name) : join(tmpdir(), `oracle-${process.pid}-${this.#temporary++}`);
    const main = (flags & OPEN_MAIN_DB) !== 0;
    if (main && !ask("open", id, path)) return CANTOPEN;
    const fd = fs.openSync(path, fs.constants.O_RDWR | fs.constants.O_CREAT, 0o644);
    this.#open.set(id, { fd, path, main, lock: NONE, temporary: (flags & OPEN_DELETEONCLOSE) !== 0 });
    outFlags.setInt32(0, flags, true);
    return OK;
  }

  xClose(id) {
    const file = this.#open.get(id);
    this.#open.delete(id);
    fs.closeSync(file.fd);
    if (file.main) ask("close", id);
    if (file.temporary) fs.unlinkSync(file.path);
    return OK;
  }

  xRead(id, data, offset) {
    const n = fs.readSync(this.#open.get(id).fd, data, 0, data.length, offset);
    if (n === data.length) return OK;
    data.fill(0, n);
    return IOERR_SHORT_READ;
  }

  xWrite(id, data, offset) {
    fs.writeSync(this.#open.get(id).fd, data, 0, data.length, offset);
    return OK;
  }

  xTruncate(id, size) {
    fs.ftruncateSync(this.#open.get(id).fd, size);
    return OK;
  }

  xSync() {
    return OK;
  }

  xFileSize(id, out) {
    out.setBigInt64(0, BigInt(fs.fstatSync(this.#open.get(id).fd).size), true);
    return OK;
  }

  xDelete(name) {
    const path = this.#path(name);
    if (!fs.existsSync(path)) return IOERR_DELETE_NOENT;
    fs.unlinkSync(path);
    return OK;
  }

  xAccess(name, _flags, out) {
    const path = this.#path(name);
    out.setInt32(0, fs.existsSync(path) ? 1 : 0, true);
    return OK;
  }

  xLock(id, level) {
    const file = this.#open.get(id);
    if (!file.main || file.lock >= level) return OK;
    if (!this.#raise(id, file, level)) return BUSY;
    file.lock = level;
    return OK;
  }

  #raise(id, file, level) {
    if (level === LOCK_SHARED) {
      if (!ask("read", id, PENDING, 1)) return false;
      const shared = ask("read", id, SHARED, SHARED_SIZE);
      ask("unlock", id, PENDING, 1);
      return shared;
    }
    if (level === LOCK_RESERVED) return ask("write", id, RESERVED, 1);
    if (!ask("write", id, PENDING, 1)) return false;
    file.lock = 3; // pending: it stays when the rest fails, and keeps new readers out
    return level < LOCK_EXCLUSIVE || ask("write", id, SHARED, SHARED_SIZE);
  }

  xUnlock(id, level) {
    const file = this.#open.get(id);
    if (!file.main || file.lock <= level) return OK;
    if (level === LOCK_SHARED) {
      if (file.lock === LOCK_EXCLUSIVE) ask("read", id, SHARED, SHARED_SIZE);
      ask("unlock", id, PENDING, 2);
    } else {
      ask("unlock", id, PENDING, 2 + SHARED_SIZE);
    }
    file.lock = level;
    return OK;
  }

  xCheckReservedLock(id, out) {
    const file = this.#open.get(id);
    out.setInt32(0, file.lock >= LOCK_RESERVED || ask("locked", id, RESERVED, 1) ? 1 : 0, true);
    return OK;
  }

  xFileControl() {
    return 12; // SQLITE_NOTFOUND
  }

  xSectorSize() {
    return 4096;
  }

  xDeviceCharacteristics() {
    return 0;
  }
}
