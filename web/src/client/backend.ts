// What does the work for a client: this tab's Worker, or another tab.

import type { ExecAnswer, QueryAnswer } from "../worker/protocol.ts";
import type { ClientStatus } from "./status.ts";
import type { SqlValue } from "./values.ts";

/** Runs statements. Whoever made it ends it. */
export interface Backend {
  /** A write, at most once for each id. Rejects with a GoneError if it is not known whether it was done. */
  exec(id: string, sql: string, args: readonly SqlValue[]): Promise<ExecAnswer>;
  /** Rejects with a GoneError if there is no answer. */
  query(sql: string, args: readonly SqlValue[]): Promise<QueryAnswer>;
}

/** What a backend tells the client. */
export interface BackendEvents {
  changed(tables: readonly string[]): void;
  status(status: ClientStatus): void;
  /** It cannot go on. Whoever made it ends it. */
  failed(error: Error): void;
}

/** The backend is gone; the next one is asked again. */
export class GoneError extends Error {
  override readonly name = "GoneError";

  constructor() {
    super("the tab that has the database is gone");
  }
}
