// Why a database cannot be had, or cannot go on.

/** What went wrong with the storage. */
export type StorageReason =
  /** Another tab or worker has the database open, or took it over. */
  | "busy"
  /** There is no room left. */
  | "full"
  /** The browser refused to read or write. */
  | "io"
  /** The browser offers no durable storage here. */
  | "unsupported"
  /** The file is no database of ours. */
  | "corrupt";

/** A failure of the storage under a database. After one of a write, the store is to be opened again. */
export class StorageError extends Error {
  override readonly name = "StorageError";
  constructor(
    readonly reason: StorageReason,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** A statement that exec or query does not take; the message says what to use instead. */
export class StatementError extends Error {
  override readonly name = "StatementError";
}
