// Compiled statements, and values in and out of them.

import {
  type Pointer,
  SQLITE_DONE,
  SQLITE_NOMEM,
  SQLITE_OK,
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

/** The NUL-terminated text at `address`. */
export function readCString(wasm: SqliteWasm, address: Pointer): string {
  const end = wasm.HEAPU8.indexOf(0, address);
  return decoder.decode(wasm.HEAPU8.subarray(address, end));
}
