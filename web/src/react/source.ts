// What the hooks and the page need of a client: a structural subset of the client library's, so that a test can
// stand in for it.

import type { SqlValue } from "../engine/sqlite.ts";

export type { SqlValue };

/** Rows of a query, in order. */
export interface Rows {
  readonly columns: readonly string[];
  readonly rows: readonly (readonly SqlValue[])[];
}

/** How a link to a member stands; `stage` names the step that it is in or failed at. */
export interface MemberView {
  readonly peer: string;
  readonly name: string;
  readonly replica: boolean;
  readonly state: "none" | "connecting" | "open" | "suspect" | "failed";
  readonly stage: string;
  readonly error?: string | undefined;
  readonly roundTrip?: number | undefined;
}

/** Everything the page shows about the mesh. A new object whenever something in it changed. */
export interface StatusView {
  readonly writer: boolean;
  readonly leader: boolean;
  readonly storage: "opfs" | "indexeddb";
  readonly signal: { readonly state: string; readonly error?: string | undefined };
  readonly members: readonly MemberView[];
  readonly synced: boolean;
  readonly received: number;
  readonly remaining: number;
  readonly problem?: string | undefined;
}

/** A room's database as the page uses it. */
export interface Source {
  /** Runs SQL that may write; resolves once it is durable. */
  exec(sql: string, args?: readonly SqlValue[]): Promise<{ readonly changes: number }>;
  /** Runs one statement that only reads. */
  query(sql: string, args?: readonly SqlValue[]): Promise<Rows>;
  /** Calls `listener` after commits, coalesced, with the names of the tables they touched. Returns its end. */
  onChange(listener: (tables: ReadonlySet<string>) => void): () => void;
  /** The latest status; the same object until it changes. */
  status(): StatusView;
  /** Calls `listener` whenever `status()` has changed. Returns its end. */
  subscribe(listener: () => void): () => void;
}
