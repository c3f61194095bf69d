// Opening a database in a browser's dedicated Worker: the engine, where its bytes are kept, and the store on top.

import wasmUrl from "@vlcn.io/wa-sqlite/dist/crsqlite-sync.wasm?url";
import { damaged, explain, noRoom } from "./errors.ts";
import { existsInIndexedDB, openIndexedDB } from "./indexeddb.ts";
import { canUseOPFS, openPool } from "./opfs.ts";
import { Database, SqliteError } from "./sqlite.ts";
import { SqliteStore } from "./store.ts";
import { instantiate, type SqliteWasm } from "./wasm.ts";

/** Where a database is kept. */
export type StorageKind = "opfs" | "indexeddb";

/** The longest name of a database, in UTF-16 units. */
export const MAX_DATABASE_NAME = 64;

/** The database file's name inside its own pool. */
const FILE = "crmesh.db";

/** Pages that SQLite keeps in memory, in KiB. */
const CACHE_KIB = 32 * 1024;

/**
 * Opens the database `name` of this origin, or makes it, and resolves to its store, which the caller closes. One
 * opener at a time: a second one waits some seconds for the first to go, then gets a StorageError "busy"; callers put
 * a Web Lock on top. It is kept in OPFS where there is one, else in IndexedDB, and stays where it was made; `kind` asks
 * for one of them instead. Nothing is acknowledged before it is durable, in either. Rejects with a StorageError.
 */
export async function openStore(name: string, kind?: StorageKind): Promise<SqliteStore> {
  if (name === "" || name.length > MAX_DATABASE_NAME) {
    throw new RangeError(`a database name has 1 to ${MAX_DATABASE_NAME} characters`);
  }
  const chosen = kind ?? ((await canUseOPFS()) && !(await existsInIndexedDB(name)) ? "opfs" : "indexeddb");
  return chosen === "opfs" ? openOnOPFS(name) : openOnIndexedDB(name);
}

async function openOnOPFS(name: string): Promise<SqliteStore> {
  const wasm = instantiate({ locateFile: () => wasmUrl });
  const pool = await openPool(name);
  const made = pool.has(FILE);
  try {
    const module = await wasm;
    module.registerVFS(pool, false);
    // Of the journal modes that survive a kill, PERSIST is the one whose file opens again without further steps: a
    // WAL file is refused, because cr-sqlite reads it while it is being opened, before any pragma.
    const pragmas = ["locking_mode = exclusive", "journal_mode = persist", "synchronous = full"];
    return new SqliteStore(() => openDatabase(module, pool.name, pragmas), pool);
  } catch (error) {
    // A database that the engine could not make to its end is none that it opens again.
    if (!made) for (const file of [FILE, `${FILE}-journal`]) pool.xDelete(file, 0);
    await pool.close();
    // The engine has many words for what it could not write while it was being opened.
    throw pool.full ? noRoom(error) : unreadable(error);
  }
}

async function openOnIndexedDB(name: string): Promise<SqliteStore> {
  const wasm = instantiate({ locateFile: () => wasmUrl });
  const { file, storage } = await openIndexedDB(name);
  try {
    const module = await wasm;
    module.registerVFS(file, false);
    // The file in memory is rolled back from a journal in memory, and kept after the commit.
    const pragmas = ["locking_mode = exclusive", "journal_mode = memory", "synchronous = off"];
    return new SqliteStore(() => openDatabase(module, file.name, pragmas), storage);
  } catch (error) {
    await storage.close();
    throw unreadable(error);
  }
}

function openDatabase(module: SqliteWasm, vfs: string, pragmas: readonly string[]): Database {
  const db = new Database(module, FILE, vfs);
  for (const pragma of [...pragmas, `cache_size = -${CACHE_KIB}`, "temp_store = memory"]) {
    db.script(`PRAGMA ${pragma}`);
  }
  return db;
}

// Whatever keeps the engine from opening a file that can be read, the file is damaged.
function unreadable(error: unknown): unknown {
  const told = explain(error);
  return told instanceof SqliteError ? damaged(told.message, told) : told;
}
