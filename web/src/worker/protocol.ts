// What a page and its Worker say to each other, through client/rpc.ts.

import type { SqlValue } from "../client/values.ts";
import type { LinkID } from "../syncproto/ops.ts";
import type { SiteID } from "../syncproto/vector.ts";
import type { DriverStatus } from "./driver.ts";
import type { AcceptSchema } from "./store.ts";

/** Where the database's bytes are. */
export type StorageKind = "opfs" | "indexeddb";

/** What a started Worker tells of its database. */
export interface Started {
  readonly site: SiteID;
  readonly storage: StorageKind;
}

/** The outcome of a write. */
export interface ExecAnswer {
  /** Rows inserted, updated and deleted. */
  readonly changes: number;
}

/** The rows of a query. */
export interface QueryAnswer {
  readonly columns: readonly string[];
  readonly rows: readonly (readonly SqlValue[])[];
}

/** What a page asks of its Worker. `start` comes first, and once. */
export interface WorkerMethods {
  start(p: {
    readonly database: string;
    readonly writer: boolean;
    readonly accept: AcceptSchema;
  }): Promise<Started>;
  /** A local write; see `Store.exec`. */
  exec(p: {
    readonly id: string;
    readonly sql: string;
    readonly args: readonly SqlValue[];
  }): Promise<ExecAnswer>;
  query(p: { readonly sql: string; readonly args: readonly SqlValue[] }): Promise<QueryAnswer>;
  open(p: {
    readonly link: LinkID;
    readonly own: SiteID;
    readonly remote: SiteID;
    readonly proof: Uint8Array;
  }): void;
  message(p: { readonly link: LinkID; readonly bytes: Uint8Array }): void;
  refuse(p: { readonly link: LinkID; readonly code: number; readonly sentence: string }): void;
  closed(p: { readonly link: LinkID }): void;
  /** Closes the database; the Worker may be ended afterwards. */
  stop(p: null): Promise<void>;
}

/** What a Worker tells its page. */
export interface PageMethods {
  /** Send a message on a link. */
  send(p: { readonly link: LinkID; readonly bytes: Uint8Array }): void;
  /** Send what is queued, close the link, and call `closed`. `reason`: why, a sentence. */
  closeLink(p: { readonly link: LinkID; readonly reason: string | undefined }): void;
  /** Tables of which rows changed, by a local write or by others'. */
  changed(p: { readonly tables: readonly string[] }): void;
  /** A new picture of the core, some times a second. */
  status(p: DriverStatus): void;
  /** Something that a person should know: an entry could not be applied, a schema differs. */
  notice(p: { readonly sentence: string }): void;
  /** The database goes on as `site`: all are to be met anew. `line`: of a new site id, for the log. */
  renewed(p: { readonly site: SiteID; readonly line: string | undefined }): void;
  /** The Worker cannot go on. `sentence`: why, and what to do. */
  failed(p: { readonly sentence: string }): void;
}
