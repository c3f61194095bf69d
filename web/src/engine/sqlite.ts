import { readCString, SqliteError, type SqlValue, Statement } from "./statement.ts";
import {
  type Pointer,
  SQLITE_NOMEM,
  SQLITE_OK,
  SQLITE_OPEN_CREATE,
  SQLITE_OPEN_READWRITE,
  type SqliteWasm,
} from "./wasm.ts";

export { SqliteError, type SqlValue, Statement } from "./statement.ts";

/** Prepared statements kept for reuse; the least recently used one goes when another is needed. */
export const STATEMENT_CACHE = 128;

/** The largest number of statements in one text that is executed at once. */
export const MAX_STATEMENTS = 10_000;

const encoder = new TextEncoder();

/**
 * One open database. Every call is synchronous and runs to its end; nothing is shared between two of
 * them but the wasm module. Owned by whoever opened it, who calls close.
 */
export class Database {
  readonly #wasm: SqliteWasm;
  readonly #free: Pointer;
  readonly #scratch: Pointer;
  #db: Pointer;
  readonly #cache = new Map<string, Statement>();

  /** Opens `name` on the VFS `vfs`, or on the module's default one (memory). Throws SqliteError. */
  constructor(wasm: SqliteWasm, name: string, vfs?: string) {
    this.#wasm = wasm;
    this.#free = wasm._getSqliteFree();
    this.#scratch = wasm._malloc(8);
    const path = this.cstring(name);
    const vfsName = vfs === undefined ? 0 : this.cstring(vfs);
    const flags = SQLITE_OPEN_CREATE | SQLITE_OPEN_READWRITE;
    const code = wasm._sqlite3_open_v2(path, this.#scratch, flags, vfsName);
    this.#db = this.#word(0);
    wasm._sqlite3_free(path);
    if (vfsName !== 0) wasm._sqlite3_free(vfsName);
    if (code !== SQLITE_OK) {
      const error = new SqliteError(this.#message(), code);
      if (this.#db !== 0) wasm._sqlite3_close(this.#db);
      this.#db = 0;
      wasm._free(this.#scratch);
      throw error;
    }
    wasm._RegisterExtensionFunctions(this.#db);
  }

  /** Whether a transaction is open. */
  get inTransaction(): boolean {
    return this.#wasm._sqlite3_get_autocommit(this.#handle()) === 0;
  }

  /** Rows changed by the last finished INSERT, UPDATE or DELETE, triggers not counted. */
  get changes(): number {
    return this.#wasm._sqlite3_changes(this.#handle());
  }

  /** A cached statement for `sql`, reset and without bindings. It belongs to the cache: do not finalize it. */
  prepare(sql: string): Statement {
    const cached = this.#cache.get(sql);
    if (cached !== undefined) {
      this.#cache.delete(sql);
      this.#cache.set(sql, cached);
      if (cached.busy) throw new SqliteError("this statement is already being stepped through", 21, sql);
      return cached;
    }
    const statement = this.compile(sql);
    if (this.#cache.size >= STATEMENT_CACHE) this.#evict();
    this.#cache.set(sql, statement);
    return statement;
  }

  /** An uncached statement, owned by the caller, who finalizes it. `sql` holds exactly one statement. */
  compile(sql: string): Statement {
    const text = this.cstring(sql);
    try {
      const [statement] = this.#compileAt(text, sql);
      if (statement === undefined) throw new SqliteError("the SQL text holds no statement", 1, sql);
      return statement;
    } finally {
      this.#wasm._sqlite3_free(text);
    }
  }

  /** Runs one statement to its end and returns its rows. */
  all(sql: string, ...params: readonly SqlValue[]): SqlValue[][] {
    return this.prepare(sql).all(...params);
  }

  /** Runs one statement and returns its first row. */
  get(sql: string, ...params: readonly SqlValue[]): SqlValue[] | undefined {
    return this.prepare(sql).get(...params);
  }

  /** Runs one statement whose rows, if any, do not matter. */
  run(sql: string, ...params: readonly SqlValue[]): void {
    this.prepare(sql).run(...params);
  }

  /** Hands each statement of a text to `each`, in order, compiled when its turn comes and finalized after it. */
  script(sql: string, each: (statement: Statement) => void = (statement) => statement.run()): void {
    const text = this.cstring(sql);
    try {
      for (let at = text, n = 0; ; n++) {
        const [statement, tail] = this.#compileAt(at, sql);
        if (statement === undefined) {
          // Nothing but a comment or a semicolon stood there.
          if (this.#wasm.HEAPU8[tail] === 0) return;
          at = tail;
          continue;
        }
        if (n >= MAX_STATEMENTS) {
          statement.finalize();
          throw new SqliteError(
            `the SQL text holds more than ${MAX_STATEMENTS} statements; split it`,
            1,
            sql,
          );
        }
        try {
          each(statement);
        } finally {
          statement.finalize();
        }
        at = tail;
      }
    } finally {
      this.#wasm._sqlite3_free(text);
    }
  }

  /** Runs `body` in a transaction: committed when it returns, rolled back when it throws. */
  transaction<T>(body: () => T): T {
    this.run("BEGIN IMMEDIATE");
    try {
      const result = body();
      if (!this.inTransaction) {
        throw new SqliteError("the transaction was ended by a statement inside it; nothing of it is kept", 1);
      }
      this.run("COMMIT");
      return result;
    } catch (error) {
      if (this.inTransaction) this.run("ROLLBACK");
      throw error;
    }
  }

  /** Finalizes the cached statements, lets cr-sqlite release its own, and closes. A second call does nothing. */
  close(): void {
    if (this.#db === 0) return;
    this.script("SELECT crsql_finalize()");
    for (const statement of this.#cache.values()) statement.finalize();
    this.#cache.clear();
    const code = this.#wasm._sqlite3_close(this.#db);
    if (code !== SQLITE_OK) throw new SqliteError(this.#message(), code);
    this.#db = 0;
    this.#wasm._free(this.#scratch);
  }

  /** A NUL-terminated copy of `text` in the wasm memory, to be freed with _sqlite3_free. */
  private cstring(text: string): Pointer {
    if (text.includes("\0")) {
      throw new SqliteError("SQL text holds a NUL character; bind the value as a parameter instead", 1, text);
    }
    const bytes = encoder.encode(text);
    const address = this.#wasm._sqlite3_malloc(bytes.length + 1);
    if (address === 0) throw new SqliteError("out of memory", SQLITE_NOMEM);
    this.#wasm.HEAPU8.set(bytes, address);
    this.#wasm.HEAPU8[address + bytes.length] = 0;
    return address;
  }

  #compileAt(at: Pointer, sql: string): [Statement | undefined, Pointer] {
    const code = this.#wasm._sqlite3_prepare_v2(this.#handle(), at, -1, this.#scratch, this.#scratch + 4);
    if (code !== SQLITE_OK) throw new SqliteError(this.#message(), code, sql);
    const handle = this.#word(0);
    if (handle === 0) return [undefined, this.#word(4)];
    return [new Statement(this.#wasm, handle, this.#free, () => this.#message(), sql), this.#word(4)];
  }

  #evict(): void {
    for (const [sql, statement] of this.#cache) {
      if (statement.busy) continue;
      statement.finalize();
      this.#cache.delete(sql);
      return;
    }
  }

  #word(offset: number): number {
    return this.#wasm.HEAPU32[(this.#scratch + offset) >> 2] ?? 0;
  }

  #message(): string {
    return readCString(this.#wasm, this.#wasm._sqlite3_errmsg(this.#db));
  }

  #handle(): Pointer {
    if (this.#db === 0) throw new SqliteError("the database is closed; open it again", 21);
    return this.#db;
  }
}

/** `name` as an SQL identifier. */
export function quoteIdentifier(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}
