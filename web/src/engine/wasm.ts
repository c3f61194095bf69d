import type { Base } from "@vlcn.io/wa-sqlite/src/VFS.js";

/** An address in the wasm memory; 0 is NULL. */
export type Pointer = number;

/** The exports of the synchronous cr-sqlite build that this engine calls. 64-bit integers cross as two halves. */
export interface SqliteWasm {
  readonly HEAPU8: Uint8Array;
  readonly HEAPU32: Uint32Array;
  /** The upper half of the last 64-bit integer returned. */
  getTempRet0(): number;
  registerVFS(vfs: Base & { readonly name: string }, makeDefault: boolean): number;
  _malloc(size: number): Pointer;
  _free(address: Pointer): void;
  _getSqliteFree(): Pointer;
  _RegisterExtensionFunctions(db: Pointer): void;
  _sqlite3_malloc(size: number): Pointer;
  _sqlite3_free(address: Pointer): void;
  _sqlite3_open_v2(name: Pointer, db: Pointer, flags: number, vfs: Pointer): number;
  _sqlite3_close(db: Pointer): number;
  _sqlite3_errmsg(db: Pointer): Pointer;
  _sqlite3_get_autocommit(db: Pointer): number;
  _sqlite3_changes(db: Pointer): number;
  _sqlite3_prepare_v2(db: Pointer, sql: Pointer, bytes: number, statement: Pointer, tail: Pointer): number;
  _sqlite3_sql(statement: Pointer): Pointer;
  _sqlite3_step(statement: Pointer): number;
  _sqlite3_reset(statement: Pointer): number;
  _sqlite3_finalize(statement: Pointer): number;
  _sqlite3_clear_bindings(statement: Pointer): number;
  _sqlite3_bind_parameter_count(statement: Pointer): number;
  _sqlite3_bind_null(statement: Pointer, index: number): number;
  _sqlite3_bind_int64(statement: Pointer, index: number, low: number, high: number): number;
  _sqlite3_bind_double(statement: Pointer, index: number, value: number): number;
  _sqlite3_bind_text(statement: Pointer, i: number, data: Pointer, bytes: number, free: Pointer): number;
  _sqlite3_bind_blob(statement: Pointer, i: number, data: Pointer, bytes: number, free: Pointer): number;
  _sqlite3_column_count(statement: Pointer): number;
  _sqlite3_column_name(statement: Pointer, index: number): Pointer;
  _sqlite3_column_type(statement: Pointer, index: number): number;
  _sqlite3_column_int64(statement: Pointer, index: number): number;
  _sqlite3_column_double(statement: Pointer, index: number): number;
  _sqlite3_column_text(statement: Pointer, index: number): Pointer;
  _sqlite3_column_blob(statement: Pointer, index: number): Pointer;
  _sqlite3_column_bytes(statement: Pointer, index: number): number;
}

export interface SqliteWasmOptions {
  /** The module's bytes; when given, nothing is fetched. */
  wasmBinary?: Uint8Array;
  /** Where the file is fetched from. */
  locateFile?: (file: string) => string;
}

// Result codes and constants of sqlite3.h that the engine uses.
export const SQLITE_OK = 0;
export const SQLITE_CORRUPT = 11;
export const SQLITE_FULL = 13;
export const SQLITE_NOTADB = 26;
export const SQLITE_IOERR = 10;
export const SQLITE_CANTOPEN = 14;
export const SQLITE_NOTFOUND = 12;
export const SQLITE_CONSTRAINT = 19;
export const SQLITE_NOMEM = 7;
export const SQLITE_ROW = 100;
export const SQLITE_DONE = 101;
export const SQLITE_IOERR_SHORT_READ = 522;
export const SQLITE_OPEN_READWRITE = 0x2;
export const SQLITE_OPEN_CREATE = 0x4;
export const SQLITE_OPEN_DELETEONCLOSE = 0x8;
export const SQLITE_OPEN_MAIN_DB = 0x100;
export const TYPE_INTEGER = 1;
export const TYPE_FLOAT = 2;
export const TYPE_TEXT = 3;
export const TYPE_BLOB = 4;

/**
 * Instantiates a fresh cr-sqlite, with a memory of its own. In Node give the bytes; in a browser the
 * file is fetched from beside the script. Rejects with an Error that says what to do if it cannot be had.
 */
export async function instantiate(options: SqliteWasmOptions): Promise<SqliteWasm> {
  try {
    const { default: factory } = await import("@vlcn.io/wa-sqlite/dist/crsqlite-sync.mjs");
    return await factory(options);
  } catch (error) {
    const detail = error instanceof Error ? error.message : String(error);
    throw new Error(
      `the database engine, a file of this page, could not be loaded (${detail}); see whether the server can be reached, and try again`,
      { cause: error },
    );
  }
}
