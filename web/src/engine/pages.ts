// A SQLite file system in memory whose databases are kept, page by page, in something asynchronous.

import { Base } from "@vlcn.io/wa-sqlite/src/VFS.js";
import {
  SQLITE_FULL,
  SQLITE_IOERR_SHORT_READ,
  SQLITE_OK,
  SQLITE_OPEN_DELETEONCLOSE,
  SQLITE_OPEN_MAIN_DB,
} from "./wasm.ts";

/** Bytes of a block, the unit in which a database is kept. SQLite's default page size. */
export const BLOCK = 4096;

/** The largest database that is kept this way: it is in memory as a whole. */
export const MAX_PAGED_BYTES = 512 * 1024 * 1024;

/** What changed in a database file since it was last kept. */
export interface PageChanges {
  /** Length of the file in bytes. */
  readonly size: number;
  /** Blocks by number from 0, each of BLOCK bytes; those at or behind the size are gone. */
  readonly blocks: ReadonlyMap<number, Uint8Array>;
}

/**
 * Holds one database file in memory, for the synchronous engine, and remembers which blocks changed. Whoever owns it
 * takes the changes after each commit and keeps them, all or none; so what is kept is always the state after some
 * commit. SQLite's journals and temporary files are in memory only.
 */
export class PagedFile extends Base {
  readonly name = "crmesh-paged";
  readonly #main: MemoryFile;
  /** Journals, by name. */
  readonly #others = new Map<string, MemoryFile>();
  readonly #open = new Map<number, MemoryFile>();
  /** The size when the changes were last taken. */
  #takenSize: number;

  /** `blocks` and `size` are the file as it was kept; owned from now on. */
  constructor(blocks: Uint8Array[], size: number) {
    super();
    this.#main = new MemoryFile(blocks, size);
    this.#takenSize = size;
  }

  /** What changed since the last call; undefined: nothing. To be called outside a transaction only. */
  takeChanges(): PageChanges | undefined {
    const { dirty, size } = this.#main;
    if (dirty.size === 0 && size === this.#takenSize) return undefined;
    const blocks = new Map<number, Uint8Array>();
    for (const n of dirty) {
      const block = this.#main.blocks[n];
      if (block !== undefined) blocks.set(n, block);
    }
    dirty.clear();
    this.#takenSize = size;
    return { size, blocks };
  }

  override xOpen(name: string | null, fileId: number, flags: number, outFlags: DataView): number {
    this.#open.set(fileId, this.#find(name ?? "", flags));
    outFlags.setInt32(0, flags, true);
    return SQLITE_OK;
  }

  override xClose(fileId: number): number {
    this.#open.delete(fileId);
    return SQLITE_OK;
  }

  override xRead(fileId: number, data: Uint8Array, offset: number): number {
    return this.#file(fileId).read(data, offset) ? SQLITE_OK : SQLITE_IOERR_SHORT_READ;
  }

  override xWrite(fileId: number, data: Uint8Array, offset: number): number {
    return this.#file(fileId).write(data, offset) ? SQLITE_OK : SQLITE_FULL;
  }

  override xTruncate(fileId: number, size: number): number {
    this.#file(fileId).truncate(size);
    return SQLITE_OK;
  }

  override xSync(): number {
    return SQLITE_OK;
  }

  override xFileSize(fileId: number, size: DataView): number {
    size.setBigInt64(0, BigInt(this.#file(fileId).size), true);
    return SQLITE_OK;
  }

  override xAccess(name: string, _flags: number, result: DataView): number {
    result.setInt32(0, this.#others.has(name) ? 1 : 0, true);
    return SQLITE_OK;
  }

  override xDelete(name: string): number {
    this.#others.delete(name);
    return SQLITE_OK;
  }

  override xSectorSize(): number {
    return BLOCK;
  }

  #find(name: string, flags: number): MemoryFile {
    if ((flags & SQLITE_OPEN_MAIN_DB) !== 0) return this.#main;
    const file = this.#others.get(name) ?? new MemoryFile([], 0);
    if ((flags & SQLITE_OPEN_DELETEONCLOSE) === 0) this.#others.set(name, file);
    return file;
  }

  #file(fileId: number): MemoryFile {
    return this.#open.get(fileId) as MemoryFile;
  }
}

/** A file as an array of blocks; a missing one is zeros. */
class MemoryFile {
  readonly blocks: Uint8Array[];
  size: number;
  /** Numbers of the blocks written since somebody cleared it. */
  readonly dirty = new Set<number>();

  constructor(blocks: Uint8Array[], size: number) {
    this.blocks = blocks;
    this.size = size;
  }

  /** Fills `data`, with zeros from the end of the file on; false if it got there. */
  read(data: Uint8Array, offset: number): boolean {
    const end = Math.min(offset + data.length, this.size);
    for (let at = offset; at < end; ) {
      const within = at % BLOCK;
      const n = Math.min(BLOCK - within, end - at);
      const block = this.blocks[(at - within) / BLOCK];
      if (block === undefined) data.fill(0, at - offset, at - offset + n);
      else data.set(block.subarray(within, within + n), at - offset);
      at += n;
    }
    if (end === offset + data.length) return true;
    data.fill(0, Math.max(end - offset, 0));
    return false;
  }

  /** False where the file would become too large. */
  write(data: Uint8Array, offset: number): boolean {
    const end = offset + data.length;
    if (end > MAX_PAGED_BYTES) return false;
    for (let at = offset; at < end; ) {
      const within = at % BLOCK;
      const n = Math.min(BLOCK - within, end - at);
      const number = (at - within) / BLOCK;
      let block = this.blocks[number];
      if (block === undefined) {
        block = new Uint8Array(BLOCK);
        this.blocks[number] = block;
      }
      block.set(data.subarray(at - offset, at - offset + n), within);
      this.dirty.add(number);
      at += n;
    }
    this.size = Math.max(this.size, end);
    return true;
  }

  truncate(size: number): void {
    if (size >= this.size) return;
    this.size = size;
    this.blocks.length = Math.ceil(size / BLOCK);
  }
}
