// What the Worker needs of a database.

import type { Place } from "../changeset/digest.ts";
import type { Value } from "../changeset/value.ts";
import type { DigestContent, DigestRequest } from "../syncproto/digest.ts";
import type { TableSchema } from "../syncproto/message.ts";
import type {
  ApplyRequest,
  ApplyResult,
  Entry,
  ReadRequest,
  ReadResult,
  SchemaRequest,
} from "../syncproto/ops.ts";
import type { SiteID, Vector } from "../syncproto/vector.ts";

/**
 * The database that a Worker keeps in sync. Calls may overlap: the store does them one after the other. What it returns
 * belongs to the caller; what it is given may be kept, but not changed. A rejection of `exec` or `query` is the caller's
 * fault and leaves the store usable; any other rejection is final, because a database that cannot be read or written has
 * nothing to say to others.
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
   * put aside, and no error; where it can put no more aside, `refused` says so.
   */
  apply(r: ApplyRequest): Promise<ApplyResult>;
  /**
   * Answers what the database holds, in one snapshot. The digest of a whole table is read anew each time, which takes 1.5
   * seconds for 100,000 rows; nothing else is done meanwhile.
   */
  digest(r: DigestRequest): Promise<DigestContent>;
  /** All changes of some rows of a table, as entries in ascending order: about `maxBytes`, and one row at least. */
  rows(table: string, places: readonly Place[], maxBytes: number): Promise<Entry[]>;
  /** The tables that are synced. */
  schema(): Promise<TableSchema[]>;
  /**
   * Takes of another's schema what `accept` lets it take: tables and columns that are missing. Returns what was not taken
   * though it was to be, a sentence each. Where the hash is the database's own, its generation rises to the other's.
   */
  takeSchema(r: SchemaRequest, accept: AcceptSchema): Promise<readonly string[]>;
  /** What is put aside. */
  parked(): Promise<Parked>;
  /** Applies changes that were put aside and now can be applied. Called after the schema changed, and at the start where `state` says so. */
  replay(): Promise<void>;
  /**
   * Runs a local write transaction; resolves once it is durable. A second call with the id of one that succeeded does
   * nothing and has the same result, also after a restart. `sql` may be several statements; `args` bind to the first.
   */
  exec(id: string, sql: string, args: readonly Value[]): Promise<ExecResult>;
  /** Runs one statement that reads only. */
  query(sql: string, args: readonly Value[]): Promise<QueryResult>;
  /**
   * Gives the database a new site id, because others have seen writes of its site that it does not hold, or another one has
   * the same: all in one transaction, as docs/PROTOCOL.md has it, in a time in proportion to all that the database holds. What
   * was asked for before is done before, under the old site.
   */
  renew(): Promise<Renewal>;
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
  /** Of the schema. */
  readonly generation: number;
  /** Another number whenever anything in the schema may have changed, also what the hash does not heed. */
  readonly schema: number;
}

/** What is taken of the schemas of others: nothing, or tables and columns that are missing. */
export type AcceptSchema = "never" | "additive";

/** What is put aside, because it does not fit the tables here. */
export interface Parked {
  readonly changes: number;
  /** Bytes that these take, about. */
  readonly bytes: number;
  /** Those with the most changes. */
  readonly tables: readonly ParkedTable[];
  /** How many lines `tables` lacks. */
  readonly more: number;
}

/** The changes to a table that are put aside for one reason. */
export interface ParkedTable {
  readonly table: string;
  readonly reason: string;
  readonly changes: number;
}

/** What `Store.state` returns. */
export interface State extends Heads {
  readonly site: SiteID;
  /** Foreign claims. */
  readonly vector: Vector;
  /** What was reached in the walks of others. */
  readonly resume: ReadonlyMap<SiteID, number>;
  readonly tables: readonly TableSchema[];
  readonly parked: Parked;
  /** The schema has changed since what is put aside was tried, as by a page that was closed before it could. */
  readonly untried: boolean;
}

/** What became of a renewal. */
export type Renewal =
  | {
      readonly old: SiteID;
      readonly site: SiteID;
      /** Entries that keep the old site as their origin. */
      readonly entries: number;
      /** Cells that were written anew, since the old site's versions of them may be in use elsewhere. */
      readonly reasserted: number;
      readonly millis: number;
    }
  /** The database keeps its site id: why, and what to do. */
  | { readonly refused: string };

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
