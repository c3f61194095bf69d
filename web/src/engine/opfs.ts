// A database kept in the origin private file system, through synchronous access handles.

import { AccessHandlePoolVFS } from "@vlcn.io/wa-sqlite/src/examples/AccessHandlePoolVFS.js";
import { ioError, StorageError } from "./errors.ts";
import type { Storage } from "./store.ts";
import { SQLITE_FULL, SQLITE_IOERR, SQLITE_OK } from "./wasm.ts";

/** How long to wait for a worker that still has the files open, which a dying one has for up to a second, and on a busy machine for many. */
const BUSY_DEADLINE_MS = 30_000;

/** Pause between two attempts. */
const RETRY_MS = 50;

/** Files that the pool can hold at least: the database, its journal, and room for a copy. */
const CAPACITY = 6;

/** Whether this worker can keep files in OPFS. */
export async function canUseOPFS(): Promise<boolean> {
  const handles = (globalThis as { FileSystemFileHandle?: { prototype: object } }).FileSystemFileHandle;
  if (handles === undefined || !("createSyncAccessHandle" in handles.prototype)) return false;
  try {
    await navigator.storage.getDirectory();
    return true;
  } catch (error) {
    // Where the user or the browser's mode forbids it, it says so like this.
    if (
      error instanceof DOMException &&
      ["SecurityError", "NotAllowedError", "UnknownError"].includes(error.name)
    ) {
      return false;
    }
    throw error;
  }
}

/**
 * Opens the pool of files of a database, waiting up to BUSY_DEADLINE_MS while another worker has it. Rejects with a
 * StorageError: busy after that time.
 */
export async function openPool(name: string): Promise<Pool> {
  const deadline = performance.now() + BUSY_DEADLINE_MS;
  const failed: Pool[] = [];
  for (;;) {
    const pool = new Pool(`crmesh/${encodeURIComponent(name)}`);
    try {
      await pool.isReady;
      const missing = CAPACITY - pool.getCapacity();
      if (missing > 0) await pool.addCapacity(missing);
      return pool;
    } catch (error) {
      failed.push(pool);
      if (!(error instanceof DOMException) || error.name !== "NoModificationAllowedError") {
        await closeAll(failed);
        throw ioError(error);
      }
      if (performance.now() > deadline) {
        await closeAll(failed);
        throw new StorageError(
          "busy",
          "this database is open in another tab; close that tab, or use it there",
          {
            cause: error,
          },
        );
      }
    }
    // A failed attempt may come by some of the files later, and would keep them from the next: close all of them.
    await closeAll(failed);
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    await closeAll(failed);
  }
}

async function closeAll(pools: readonly Pool[]): Promise<void> {
  for (const pool of pools) await pool.close();
}

/** AccessHandlePoolVFS whose failures are result codes: an exception must not pass through SQLite's own code. */
export class Pool extends AccessHandlePoolVFS implements Storage {
  /** There was no room for something that was to be written. */
  full = false;

  /** Every commit is flushed by SQLite itself, with synchronous=FULL. */
  async sync(): Promise<void> {}

  /** Whether there is a file of this name. */
  has(name: string): boolean {
    const there = new DataView(new ArrayBuffer(4));
    this.xAccess(name, 0, there);
    return there.getInt32(0, true) !== 0;
  }

  override xRead(fileId: number, data: Uint8Array, offset: number): number {
    return guarded(() => super.xRead(fileId, data, offset));
  }

  override xWrite(fileId: number, data: Uint8Array, offset: number): number {
    // Where there is no room, Chromium throws nothing, and returns a number other than that of the bytes. What takes less without an
    // exception is full, as for SQLite's own file systems.
    const code = guarded(() => (super.xWrite(fileId, data, offset) === SQLITE_OK ? SQLITE_OK : SQLITE_FULL));
    if (code === SQLITE_FULL) this.full = true;
    return code;
  }

  override xTruncate(fileId: number, size: number): number {
    return guarded(() => super.xTruncate(fileId, size));
  }

  override xSync(fileId: number, flags: number): number {
    return guarded(() => super.xSync(fileId, flags));
  }

  override xFileSize(fileId: number, size: DataView): number {
    return guarded(() => super.xFileSize(fileId, size));
  }

  override xClose(fileId: number): number {
    return guarded(() => super.xClose(fileId));
  }

  override xDelete(name: string, syncDir: number): number {
    return guarded(() => super.xDelete(name, syncDir));
  }
}

function guarded(call: () => number): number {
  try {
    return call();
  } catch (error) {
    return error instanceof DOMException && error.name === "QuotaExceededError" ? SQLITE_FULL : SQLITE_IOERR;
  }
}
