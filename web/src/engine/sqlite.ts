import {
  type Pointer,
  SQLITE_DONE,
  SQLITE_NOMEM,
  SQLITE_OK,
  SQLITE_OPEN_CREATE,
  SQLITE_OPEN_READWRITE,
  SQLITE_ROW,
  type SqliteWasm,
  TYPE_BLOB,
  TYPE_FLOAT,
  TYPE_INTEGER,
  TYPE_TEXT,
} from "./wasm.ts";

/**
 * One SQLite value with its storage class told by its JavaScript type: INTEGER is a bigint, REAL a
 * number (2 is REAL 2.0), TEXT a string, BLOB a Uint8Array. NaN is stored as NULL. TEXT that is not
 * valid UTF-8 reads with U+FFFD in place of the bad bytes; the sync path reads its bytes instead.
 */
export type SqlValue = null | bigint | number | string | Uint8Array;

/** Prepared statements kept for reuse; the least recently used one goes when another is needed. */
export const STATEMENT_CACHE = 128;

/** The largest number of statements in one text that is executed at once. */
export const MAX_STATEMENTS = 10_000;

const INT64_MIN = -(2n ** 63n);
const INT64_MAX = 2n ** 63n - 1n;

/** A failed SQLite call: `code` is SQLite's primary result code, the message is SQLite's own. */
export class SqliteError extends Error {
  override readonly name = "SqliteError";
  constructor(
    message: string,
    readonly code: number,
    readonly sql: string = "",
  ) {
    super(message);
  }
}

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

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

/** A compiled statement. Parameters and columns are typed one by one, so no storage class is ever guessed. */
export class Statement {
  readonly #wasm: SqliteWasm;
  readonly #free: Pointer;
  readonly #message: () => string;
  #handle: Pointer;
  #busy = false;
  readonly sql: string;
  readonly parameterCount: number;

  /** Made by Database only. */
  constructor(wasm: SqliteWasm, handle: Pointer, free: Pointer, message: () => string, sql: string) {
    this.#wasm = wasm;
    this.#handle = handle;
    this.#free = free;
    this.#message = message;
    this.sql = sql;
    this.parameterCount = wasm._sqlite3_bind_parameter_count(handle);
  }

  /** Whether a row is current; such a statement has to be reset before it is bound again. */
  get busy(): boolean {
    return this.#busy;
  }

  /** The text of this one statement, where `sql` holds several. */
  text(): string {
    return readCString(this.#wasm, this.#wasm._sqlite3_sql(this.#handle));
  }

  get columnCount(): number {
    return this.#wasm._sqlite3_column_count(this.#handle);
  }

  columnName(index: number): string {
    return readCString(this.#wasm, this.#wasm._sqlite3_column_name(this.#handle, index));
  }

  /** Binds `values` to the parameters 1.. in order; there must be exactly as many as the statement has. */
  bindAll(values: readonly SqlValue[]): void {
    if (values.length !== this.parameterCount) {
      const need = `${this.parameterCount} parameter${this.parameterCount === 1 ? "" : "s"}`;
      throw new SqliteError(`the statement takes ${need}, ${values.length} given`, 25, this.sql);
    }
    for (let i = 0; i < values.length; i++) this.bind(i + 1, values[i] as SqlValue);
  }

  /** Binds one parameter, counted from 1. */
  bind(index: number, value: SqlValue): void {
    if (value === null) this.bindNull(index);
    else if (typeof value === "bigint") this.bindInteger(index, value);
    else if (typeof value === "number") this.bindReal(index, value);
    else if (typeof value === "string") this.bindText(index, encoder.encode(value));
    else if (value instanceof Uint8Array) this.bindBlob(index, value);
    else
      throw new SqliteError(
        `parameter ${index} is a ${typeof value}, which SQLite cannot store`,
        25,
        this.sql,
      );
  }

  bindNull(index: number): void {
    this.#check(this.#wasm._sqlite3_bind_null(this.#handle, index));
  }

  bindInteger(index: number, value: bigint): void {
    if (value < INT64_MIN || value > INT64_MAX) {
      throw new SqliteError(`parameter ${index} does not fit a 64-bit INTEGER`, 25, this.sql);
    }
    const low = Number(BigInt.asIntN(32, value));
    const high = Number(BigInt.asIntN(32, value >> 32n));
    this.#check(this.#wasm._sqlite3_bind_int64(this.#handle, index, low, high));
  }

  bindReal(index: number, value: number): void {
    this.#check(this.#wasm._sqlite3_bind_double(this.#handle, index, value));
  }

  /** Binds UTF-8 bytes as TEXT, whole: a NUL or bytes that are not UTF-8 are kept. */
  bindText(index: number, utf8: Uint8Array): void {
    const address = this.#copyIn(utf8);
    this.#check(this.#wasm._sqlite3_bind_text(this.#handle, index, address, utf8.length, this.#free));
  }

  bindBlob(index: number, bytes: Uint8Array): void {
    const address = this.#copyIn(bytes);
    this.#check(this.#wasm._sqlite3_bind_blob(this.#handle, index, address, bytes.length, this.#free));
  }

  /** Steps once; true when a row is there to be read. After false, or an error, the statement is reset. */
  step(): boolean {
    const code = this.#wasm._sqlite3_step(this.#handle);
    if (code === SQLITE_ROW) {
      this.#busy = true;
      return true;
    }
    const error = code === SQLITE_DONE ? undefined : new SqliteError(this.#message(), code, this.sql);
    this.reset();
    if (error !== undefined) throw error;
    return false;
  }

  /** Makes it ready to be bound and stepped again; bindings are dropped. */
  reset(): void {
    this.#wasm._sqlite3_reset(this.#handle);
    this.#wasm._sqlite3_clear_bindings(this.#handle);
    this.#busy = false;
  }

  /** The storage class of a column of the current row: TYPE_INTEGER, TYPE_FLOAT, TYPE_TEXT, TYPE_BLOB, else NULL. */
  columnType(index: number): number {
    return this.#wasm._sqlite3_column_type(this.#handle, index);
  }

  columnInteger(index: number): bigint {
    const low = this.#wasm._sqlite3_column_int64(this.#handle, index);
    const high = this.#wasm.getTempRet0();
    if (high === low >> 31) return BigInt(low);
    return (BigInt(high) << 32n) | BigInt(low >>> 0);
  }

  columnReal(index: number): number {
    return this.#wasm._sqlite3_column_double(this.#handle, index);
  }

  /** The bytes of a TEXT or BLOB, copied out and owned by the caller. */
  columnBytes(index: number): Uint8Array {
    return this.view(index).slice();
  }

  /** The text of a TEXT, bad UTF-8 replaced. */
  columnText(index: number): string {
    return decoder.decode(this.view(index));
  }

  /** The value of a column of the current row, its storage class kept. */
  column(index: number): SqlValue {
    switch (this.columnType(index)) {
      case TYPE_INTEGER:
        return this.columnInteger(index);
      case TYPE_FLOAT:
        return this.columnReal(index);
      case TYPE_TEXT:
        return this.columnText(index);
      case TYPE_BLOB:
        return this.columnBytes(index);
      default:
        return null;
    }
  }

  /** The current row. */
  row(): SqlValue[] {
    const row: SqlValue[] = [];
    for (let i = 0, n = this.columnCount; i < n; i++) row.push(this.column(i));
    return row;
  }

  /** Binds, runs to the end, and returns all rows. */
  all(...params: readonly SqlValue[]): SqlValue[][] {
    const rows: SqlValue[][] = [];
    this.each(params, () => rows.push(this.row()));
    return rows;
  }

  /** Binds, runs, and returns the first row. */
  get(...params: readonly SqlValue[]): SqlValue[] | undefined {
    this.bindAll(params);
    try {
      return this.step() ? this.row() : undefined;
    } finally {
      this.reset();
    }
  }

  /** Binds and runs to the end. */
  run(...params: readonly SqlValue[]): void {
    this.each(params, () => {});
  }

  /** Binds and calls `row` while each row is current; false from it stops early. */
  each(params: readonly SqlValue[], row: () => unknown): void {
    this.bindAll(params);
    try {
      while (this.step()) if (row() === false) return;
    } finally {
      this.reset();
    }
  }

  /** Releases it. For statements from compile only. */
  finalize(): void {
    if (this.#handle === 0) return;
    this.#wasm._sqlite3_finalize(this.#handle);
    this.#handle = 0;
    this.#busy = false;
  }

  /** The bytes of a TEXT or BLOB where they lie: to be looked at before the next call of any method. */
  view(index: number): Uint8Array {
    // For a TEXT column the blob accessor returns the same bytes, with its length beside it.
    const address = this.#wasm._sqlite3_column_blob(this.#handle, index);
    const length = this.#wasm._sqlite3_column_bytes(this.#handle, index);
    return this.#wasm.HEAPU8.subarray(address, address + length);
  }

  #copyIn(bytes: Uint8Array): Pointer {
    // An address is needed for an empty value too: SQLite takes the NULL pointer for a NULL.
    const address = this.#wasm._sqlite3_malloc(Math.max(bytes.length, 1));
    if (address === 0) throw new SqliteError("out of memory", SQLITE_NOMEM, this.sql);
    this.#wasm.HEAPU8.set(bytes, address);
    return address;
  }

  #check(code: number): void {
    if (code !== SQLITE_OK) throw new SqliteError(this.#message(), code, this.sql);
  }
}

/** `name` as an SQL identifier. */
export function quoteIdentifier(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

function readCString(wasm: SqliteWasm, address: Pointer): string {
  const end = wasm.HEAPU8.indexOf(0, address);
  return decoder.decode(wasm.HEAPU8.subarray(address, end));
}
