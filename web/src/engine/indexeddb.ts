// A database kept in IndexedDB: read into memory as a whole when it is opened, written block by block after each commit.

import { damaged, ioError, StorageError } from "./errors.ts";
import { BLOCK, type PageChanges, PagedFile } from "./pages.ts";
import type { Storage } from "./store.ts";

/** Blocks read from IndexedDB at once. */
const READ_BATCH = 1024;

const BLOCKS = "blocks";
const META = "meta";
const FILE = "file";

/** What IndexedDB holds about the file, beside its blocks. */
interface FileRecord {
  size: number;
  /** The token of whoever opened it last; only that one may write. */
  owner: string;
}

/** Whether a database of this name is kept in IndexedDB. False where that cannot be told without making one. */
export async function existsInIndexedDB(name: string): Promise<boolean> {
  if (typeof indexedDB === "undefined" || typeof indexedDB.databases !== "function") return false;
  const wanted = databaseName(name);
  return (await indexedDB.databases()).some((database) => database.name === wanted);
}

/**
 * The file of a database, and what keeps it. Whoever opens it takes it over: a store that had it open before cannot
 * write any more, and is told so. Each commit is one IndexedDB transaction of strict durability.
 */
export async function openIndexedDB(name: string): Promise<{ file: PagedFile; storage: IndexedDBStorage }> {
  const idb = await openDatabase(databaseName(name));
  try {
    const owner = Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16)).join("");
    const size = await takeOver(idb, owner);
    const file = new PagedFile(await readBlocks(idb, Math.ceil(size / BLOCK)), size);
    return { file, storage: new IndexedDBStorage(idb, file, owner) };
  } catch (error) {
    idb.close();
    throw ioError(error);
  }
}

/** Keeps a PagedFile in IndexedDB. */
export class IndexedDBStorage implements Storage {
  readonly #idb: IDBDatabase;
  readonly #file: PagedFile;
  readonly #owner: string;

  /** Made by openIndexedDB. */
  constructor(idb: IDBDatabase, file: PagedFile, owner: string) {
    this.#idb = idb;
    this.#file = file;
    this.#owner = owner;
  }

  async sync(): Promise<void> {
    const changes = this.#file.takeChanges();
    if (changes !== undefined) await this.#keep(changes);
  }

  async close(): Promise<void> {
    this.#idb.close();
  }

  /** Writes `changes`, all or none, unless another has taken the file over. */
  #keep(changes: PageChanges): Promise<void> {
    return new Promise((resolve, reject) => {
      const transaction = this.#idb.transaction([BLOCKS, META], "readwrite", { durability: "strict" });
      let lost = false;
      transaction.oncomplete = () => resolve();
      transaction.onabort = () => reject(lost ? takenOver() : ioError(transaction.error));
      const meta = transaction.objectStore(META);
      const read = meta.get(FILE) as IDBRequest<FileRecord | undefined>;
      read.onsuccess = () => {
        if (read.result?.owner !== this.#owner) {
          lost = true;
          transaction.abort();
          return;
        }
        const blocks = transaction.objectStore(BLOCKS);
        for (const [number, block] of changes.blocks) blocks.put(block, number);
        const end = Math.ceil(changes.size / BLOCK);
        if (end < Math.ceil(read.result.size / BLOCK)) blocks.delete(IDBKeyRange.lowerBound(end));
        meta.put({ size: changes.size, owner: this.#owner } satisfies FileRecord, FILE);
      };
    });
  }
}

function databaseName(name: string): string {
  return `crmesh ${name}`;
}

function openDatabase(name: string): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(name, 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore(BLOCKS);
      request.result.createObjectStore(META);
    };
    request.onsuccess = () => resolve(request.result);
    request.onerror = () =>
      reject(
        new StorageError(
          "unsupported",
          "this browser offers no storage here; allow site data, or leave private mode",
        ),
      );
  });
}

/** Makes `owner` the only one that may write, and returns the size of the file, 0 for a new one. */
async function takeOver(idb: IDBDatabase, owner: string): Promise<number> {
  const transaction = idb.transaction(META, "readwrite", { durability: "strict" });
  const done = completed(transaction);
  const meta = transaction.objectStore(META);
  const record = await result<FileRecord | undefined>(meta.get(FILE));
  const size = record?.size ?? 0;
  meta.put({ size, owner } satisfies FileRecord, FILE);
  await done;
  return size;
}

async function readBlocks(idb: IDBDatabase, count: number): Promise<Uint8Array[]> {
  const blocks: Uint8Array[] = [];
  const store = idb.transaction(BLOCKS, "readonly").objectStore(BLOCKS);
  for (let from = 0; from < count; from += READ_BATCH) {
    const range = IDBKeyRange.bound(from, Math.min(from + READ_BATCH, count) - 1);
    blocks.push(...(await result<Uint8Array[]>(store.getAll(range))));
  }
  if (blocks.length !== count) throw damaged(`${count - blocks.length} of its ${count} blocks are missing`);
  return blocks;
}

function result<T>(request: IDBRequest): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result as T);
    request.onerror = () => reject(request.error);
  });
}

function completed(transaction: IDBTransaction): Promise<void> {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error);
  });
}

function takenOver(): StorageError {
  return new StorageError("busy", "another tab has opened this database; close one of the two and reload");
}
