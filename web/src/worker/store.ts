// What the Worker needs of a database.

import type { Value } from "../changeset/value.ts";
import type { TableSchema } from "../syncproto/message.ts";
import type { ApplyRequest, ApplyResult, ReadRequest, ReadResult } from "../syncproto/ops.ts";
import type { SiteID, Vector } from "../syncproto/vector.ts";

/**
 * The database that a Worker keeps in sync. Calls may overlap: the store does them one after the other. What it returns
 * belongs to the caller; what it is given may be kept, but not changed. A rejection of `exec`, `query` or
 * `createTables` is the caller's fault and leaves the store usable; any other rejection is final, because a database that
 * cannot be read or written has nothing to say to others.
 */
export interface Store {
  /** Everything that must be known at the start. */
  state(): Promise<State>;
  /** What may have changed through a commit. Cheap. */
  heads(): Promise<Heads>;
  /** Reads entries in one snapshot. */
  read(r: ReadRequest): Promise<ReadResult>;
  /**
   * Applies groups in one transaction; resolves once it is durable. A change that cannot be applied is the store's to
   * put aside, and no error.
   */
  apply(r: ApplyRequest): Promise<ApplyResult>;
  /** The tables that are synced. */
  schema(): Promise<TableSchema[]>;
  /** Creates those of the tables that do not exist, as CRRs. Rejects for a statement that is not acceptable. */
  createTables(tables: readonly TableSchema[]): Promise<void>;
  /** Applies changes that were put aside and now can be applied. Called after the schema changed. */
  replay(): Promise<void>;
  /**
   * Runs a local write transaction; resolves once it is durable. A second call with the id of one that succeeded does
   * nothing and has the same result, also after a restart. `sql` may be several statements; `args` bind to the first.
   */
  exec(id: string, sql: string, args: readonly Value[]): Promise<ExecResult>;
  /** Runs one statement that reads only. */
  query(sql: string, args: readonly Value[]): Promise<QueryResult>;
  /** Closes the database. Nothing may be called afterwards. */
  close(): Promise<void>;
}

/** How far a database is. */
export interface Heads {
  /** Highest version of its own that has rows, or was ever announced. */
  readonly own: number;
  /** Highest local version of any entry. */
  readonly newest: number;
  /** 32 bytes, see docs/PROTOCOL.md; zero: no CRR. */
  readonly schemaHash: Uint8Array;
}

/** What `Store.state` returns. */
export interface State extends Heads {
  readonly site: SiteID;
  /** Foreign claims. */
  readonly vector: Vector;
  /** What was reached in the walks of others. */
  readonly resume: ReadonlyMap<SiteID, number>;
  readonly tables: readonly TableSchema[];
}

/** What a local write did. */
export interface ExecResult {
  /** Rows that the statements inserted, updated and deleted. */
  readonly changes: number;
  /** Names of the synced tables that they changed. */
  readonly tables: readonly string[];
}

/** The rows of a query. */
export interface QueryResult {
  readonly columns: readonly string[];
  readonly rows: readonly (readonly Value[])[];
}
