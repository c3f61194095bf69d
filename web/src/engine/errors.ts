// Why a database cannot be had, or cannot go on.

import { SqliteError } from "./statement.ts";
import { SQLITE_CANTOPEN, SQLITE_CORRUPT, SQLITE_FULL, SQLITE_IOERR, SQLITE_NOTADB } from "./wasm.ts";

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

/** A failure of the storage under a database. */
export class StorageError extends Error {
  override readonly name = "StorageError";
  /** `passing`: what failed was undone, and can be tried again. After any other, the store is to be opened again. */
  readonly passing: boolean;

  constructor(
    readonly reason: StorageReason,
    message: string,
    { passing = false, ...options }: ErrorOptions & { readonly passing?: boolean } = {},
  ) {
    super(message, options);
    this.passing = passing;
  }
}

/** A statement that exec or query does not take; the message says what to use instead. */
export class StatementError extends Error {
  override readonly name = "StatementError";
}

/** The StorageError that an error of the engine's stands for; any other error as it is. */
export function explain(error: unknown): unknown {
  if (!(error instanceof SqliteError)) return error;
  switch (error.code) {
    case SQLITE_IOERR:
    case SQLITE_CANTOPEN:
      return ioError(error);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return damaged(error.message, error);
    case SQLITE_FULL:
      return new StorageError(
        "full",
        "there is no room left for this database; free some storage and try again",
        { cause: error, passing: true },
      );
  }
  return error;
}

/** What a person is told where a database cannot go on because of `error`. */
export function ending(error: unknown): string {
  if (error instanceof StorageError) return error.message;
  const detail = error instanceof Error ? error.message : String(error);
  return `the database stopped (${detail}); reload the page; nothing that was saved is lost`;
}

/** What is kept is no database that can be read: `detail` says how. */
export function damaged(detail: string, cause?: unknown): StorageError {
  return new StorageError(
    "corrupt",
    `this browser's copy of the database is damaged (${detail}); keep the room's link, delete the data of this page in the browser's settings, and open the link again: what other members hold comes back from them`,
    { cause },
  );
}

/** There was no room for what was to be kept: `cause` says so. */
export function noRoom(cause: unknown): StorageError {
  return new StorageError("full", "there is no room left for this database; free some storage and reload", {
    cause,
  });
}

/** The storage refused: `cause` says how. */
export function ioError(cause: unknown): StorageError {
  if (cause instanceof StorageError) return cause;
  if (cause instanceof DOMException && cause.name === "QuotaExceededError") return noRoom(cause);
  const detail = cause instanceof Error ? cause.message : String(cause);
  return new StorageError(
    "io",
    `the browser's storage failed (${detail}); reload the page, and if it fails again, see whether the disk works and has room, and start the browser anew`,
    { cause },
  );
}
