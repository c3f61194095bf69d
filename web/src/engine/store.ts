// The database of one peer: the crmesh log beside the synced tables, and what is done with them.

import { type SiteID, toHex } from "../changeset/change.ts";
import type { Place } from "../changeset/digest.ts";
import { compareBytes, type Value } from "../changeset/value.ts";
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
import { withVersion } from "../syncproto/vector.ts";
import type {
  AcceptSchema,
  ExecResult,
  Heads,
  Parked,
  QueryResult,
  Renewal,
  State,
  Store,
} from "../worker/store.ts";
import { applyGroup } from "./apply.ts";
import { Digester, readRows } from "./digest.ts";
import { checkDropped } from "./dropped.ts";
import { explain, ioError, StatementError, StorageError } from "./errors.ts";
import { doneBefore, MAX_REQUEST_ID, rememberDone, runQuery, runStatements } from "./exec.ts";
import {
  clearMeta,
  createLog,
  getMeta,
  newestEntry,
  raiseVector,
  readResume,
  readVector,
  setMeta,
  storeResume,
  tablesAbove,
} from "./log.ts";
import { MAX_PARKED, MAX_PARKED_BYTES, ParkedError, Quota, readParked } from "./parked.ts";
import { checkPinned } from "./pinned.ts";
import { readEntries } from "./read.ts";
import { RenewalError, renewSite } from "./renew.ts";
import { replayParked } from "./replay.ts";
import { Catalog, readTables, SchemaError, schemaHash } from "./schema.ts";
import type { Database } from "./sqlite.ts";
import { takeTable } from "./take.ts";

/** What keeps a database's bytes. Owned by the store that was given it. */
export interface Storage {
  /** Resolves once everything committed so far is durable; rejects with a StorageError, after which it is unusable. */
  sync(): Promise<void>;
  /** Releases files and locks. The database is closed before. */
  close(): Promise<void>;
}

/**
 * A Store on a database, which it opens and owns, with what keeps its bytes. Operations run one after the
 * other, each to its end and durable before the next begins, so that nothing is ever read that could still be lost.
 */
export class SqliteStore implements Store {
  readonly #open: () => Database;
  readonly #storage: Storage;
  #db: Database;
  #site: SiteID;
  #digester: Digester;
  #queue: Promise<unknown> = Promise.resolve();
  #closed = false;
  #failure: StorageError | undefined;
  /** The floor of the next local version, as stored. */
  #highWater: number;
  #own: number;
  /** Own versions above it may be in use elsewhere, if this database was put back from a copy or is one. */
  #opened: number;
  /** A peer was met since the database was opened: it read entries, or brought some. */
  #met = false;
  #catalog = new Catalog([]);
  #schemaVersion: bigint | undefined;
  /** What may be parked. */
  readonly #quota: { readonly changes: number; readonly bytes: number };
  #hash: { readonly of: Catalog; readonly value: Uint8Array } | undefined;

  /** `open`: opens the database, again after a renewal. `quota`: what may be parked; for tests. */
  constructor(
    open: () => Database,
    storage: Storage,
    quota = { changes: MAX_PARKED, bytes: MAX_PARKED_BYTES },
  ) {
    this.#quota = quota;
    this.#open = open;
    const db = open();
    this.#db = db;
    this.#digester = new Digester(db);
    this.#storage = storage;
    createLog(db);
    this.#site = siteOf(db);
    this.#refreshCatalog();
    const newest = newestEntry(db, this.#catalog);
    this.#highWater = Math.max(getMeta(db, "high_water") ?? 0, newest);
    // A database without a log has nothing of others.
    this.#own = getMeta(db, "own_high_water") ?? newest;
    // Where nobody was met since an earlier open, nobody could tell that the database had been put back before it.
    this.#opened = Math.min(this.#own, getMeta(db, "unmet_own") ?? this.#own);
    db.transaction(() => {
      setMeta(db, "high_water", this.#highWater);
      setMeta(db, "own_high_water", this.#own);
      setMeta(db, "unmet_own", this.#opened);
    });
  }

  state(): Promise<State> {
    return this.#exclusive(async () => {
      const [heads, parked] = [await this.#heads(), readParked(this.#db)];
      return {
        ...heads,
        site: this.#site,
        vector: readVector(this.#db),
        resume: readResume(this.#db),
        tables: this.#tables(),
        parked,
        untried: parked.changes > 0 && getMeta(this.#db, "schema_tried") !== heads.schema,
      };
    });
  }

  heads(): Promise<Heads> {
    return this.#exclusive(() => this.#heads());
  }

  read(request: ReadRequest): Promise<ReadResult> {
    return this.#exclusive(() => {
      this.#meet();
      const outcome = readEntries(this.#db, this.#catalog, this.#site, request);
      return { id: request.id, link: request.link, ...outcome, own: this.#own, newest: this.#newest() };
    });
  }

  apply(request: ApplyRequest): Promise<ApplyResult> {
    return this.#exclusive(() => {
      const ls: number[] = [];
      const changed: number[] = [];
      const parked: number[] = [];
      const rest = () => ({ id: request.id, own: this.#own, newest: this.#newest() });
      this.#meet();
      const apply = () => {
        let l = this.#nextVersion();
        const quota = new Quota(this.#db, this.#quota.changes, this.#quota.bytes);
        for (const { origin, version, changes } of request.groups) {
          const outcome = applyGroup(this.#db, this.#catalog, l, origin, version, changes, quota);
          if (outcome.l !== 0) l++;
          ls.push(outcome.l);
          changed.push(outcome.changed);
          parked.push(outcome.parked);
        }
        raiseVector(this.#db, request.claims);
        storeResume(this.#db, request.resume);
      };
      try {
        this.#write(apply);
      } catch (error) {
        if (!(error instanceof ParkedError)) throw error;
        const refused = { group: ls.length, reason: error.message };
        return { ls: [], changed: [], parked: undefined, refused, ...rest() };
      }
      return { ls, changed, parked: parked.some((n) => n > 0) ? parked : undefined, ...rest() };
    });
  }

  digest(request: DigestRequest): Promise<DigestContent> {
    return this.#exclusive(() => {
      const vector = withVersion(readVector(this.#db), this.#site, this.#own);
      return this.#digester.answer(this.#catalog, vector, request);
    });
  }

  rows(table: string, places: readonly Place[], maxBytes: number): Promise<Entry[]> {
    return this.#exclusive(() => readRows(this.#db, this.#catalog, this.#site, table, places, maxBytes));
  }

  schema(): Promise<TableSchema[]> {
    return this.#exclusive(() => this.#tables());
  }

  takeSchema(r: SchemaRequest, accept: AcceptSchema): Promise<string[]> {
    return this.#exclusive(async () => {
      const refused: string[] = [];
      const differs = compareBytes((await this.#heads()).schemaHash, r.hash) !== 0;
      // One at a time: a table that this engine refuses costs no other.
      for (const table of differs && accept === "additive" ? r.tables : []) {
        try {
          this.#write(() => takeTable(this.#db, this.#catalog, table));
        } catch (error) {
          if (!(error instanceof SchemaError)) throw error;
          refused.push(error.message);
        }
      }
      const { schemaHash, generation } = await this.#heads();
      if (r.generation > generation && compareBytes(schemaHash, r.hash) === 0) {
        this.#db.transaction(() => setMeta(this.#db, "schema_generation", r.generation));
      }
      return refused;
    });
  }

  parked(): Promise<Parked> {
    return this.#exclusive(() => readParked(this.#db));
  }

  replay(): Promise<void> {
    return this.#exclusive(() => {
      this.#write(() => {
        replayParked(this.#db, this.#catalog, this.#site, this.#nextVersion());
        setMeta(this.#db, "schema_tried", Number(this.#schemaVersion));
      });
    });
  }

  exec(id: string, sql: string, args: readonly Value[]): Promise<ExecResult> {
    return this.#exclusive(() => {
      if (id === "" || id.length > MAX_REQUEST_ID) {
        throw new StatementError(`a request id has 1 to ${MAX_REQUEST_ID} characters`);
      }
      const done = doneBefore(this.#db, id);
      if (done !== undefined) return { changes: done, tables: [] };
      const floor = this.#highWater;
      let changes = 0;
      const before = this.#catalog.tables;
      this.#write(() => {
        // The engine may have forgotten numbers that others have seen; a local write takes none at or below the floor.
        if (this.#engineVersion() < floor) this.#db.get("SELECT crsql_next_db_version(?)", BigInt(floor + 1));
        changes = runStatements(this.#db, sql, args);
        rememberDone(this.#db, id, changes);
        this.#refreshCatalog();
        checkDropped(this.#db, before, this.#catalog);
        checkPinned(this.#db, this.#catalog, floor);
      }, "local");
      return { changes, tables: tablesAbove(this.#db, this.#catalog, floor) };
    });
  }

  query(sql: string, args: readonly Value[]): Promise<QueryResult> {
    return this.#exclusive(() => runQuery(this.#db, sql, args));
  }

  renew(): Promise<Renewal> {
    return this.#exclusive(async () => {
      const started = performance.now();
      const old = this.#site;
      const certain = Math.min(this.#own, this.#opened);
      const high = Math.max(this.#highWater, this.#newest());
      try {
        const done = this.#db.transaction(() =>
          renewSite(this.#db, this.#catalog, { site: old, high, own: this.#own, certain }),
        );
        await this.#sync();
        this.#reopen();
        [this.#highWater, this.#own, this.#opened] = [done.high, done.own, done.own];
        return { ...done, old, millis: performance.now() - started };
      } catch (error) {
        if (!(error instanceof RenewalError)) throw error;
        return { refused: error.message };
      }
    });
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#queue;
    try {
      this.#db.close();
    } finally {
      await this.#storage.close();
    }
  }

  /** Runs `operation` after all before it, and resolves once what it committed is durable. */
  #exclusive<T>(operation: () => T | Promise<T>): Promise<T> {
    if (this.#closed) return Promise.reject(new StorageError("io", "the database is closed; open it again"));
    const run = this.#queue.then(async () => {
      if (this.#failure !== undefined) throw this.#failure;
      try {
        this.#refreshCatalog();
        return await operation();
      } catch (error) {
        throw explain(error);
      } finally {
        await this.#sync();
      }
    });
    this.#queue = run.catch(() => {});
    return run;
  }

  async #sync(): Promise<void> {
    try {
      await this.#storage.sync();
    } catch (error) {
      // What is in memory is ahead of what is kept: nobody may see it any more.
      this.#failure = error instanceof StorageError ? error : ioError(error);
      throw this.#failure;
    }
  }

  /** Connects anew, for what the engine remembers of a database since it was opened. */
  #reopen(): void {
    this.#db.close();
    this.#db = this.#open();
    this.#digester = new Digester(this.#db);
    this.#site = siteOf(this.#db);
    this.#schemaVersion = undefined;
    this.#refreshCatalog();
  }

  /** Remembers that a peer was met. */
  #meet(): void {
    if (this.#met) return;
    this.#db.transaction(() => clearMeta(this.#db, "unmet_own"));
    this.#met = true;
  }

  /** Runs a write transaction, and raises the high-water mark in it; of a local write the own one too. */
  #write(body: () => void, kind: "local" | "merge" = "merge"): void {
    let own = this.#own;
    let highWater = this.#highWater;
    try {
      this.#db.transaction(() => {
        body();
        this.#refreshCatalog();
        const newest = newestEntry(this.#db, this.#catalog);
        if (newest <= highWater) return;
        highWater = newest;
        setMeta(this.#db, "high_water", newest);
        if (kind === "merge") return;
        own = newest;
        setMeta(this.#db, "own_high_water", newest);
      });
    } catch (error) {
      this.#refreshCatalog();
      throw error;
    }
    this.#own = own;
    this.#highWater = highWater;
  }

  /** The next local version for a merge. */
  #nextVersion(): number {
    return Math.max(this.#engineVersion(), this.#highWater) + 1;
  }

  #engineVersion(): number {
    return Number(this.#db.get("SELECT crsql_db_version()")?.[0] ?? 0);
  }

  #newest(): number {
    return newestEntry(this.#db, this.#catalog);
  }

  async #heads(): Promise<Heads> {
    if (this.#hash?.of !== this.#catalog) {
      const catalog = this.#catalog;
      this.#hash = { of: catalog, value: await schemaHash(catalog.tables) };
    }
    return {
      own: this.#own,
      newest: this.#newest(),
      schemaHash: this.#hash.value,
      generation: getMeta(this.#db, "schema_generation") ?? 0,
      schema: Number(this.#schemaVersion),
    };
  }

  #tables(): TableSchema[] {
    return this.#catalog.tables.map(({ name, sql, columns }) => ({ name, sql, columns }));
  }

  /** Reads the CRRs again if the schema is another than it was. */
  #refreshCatalog(): void {
    const version = this.#db.get("PRAGMA schema_version")?.[0] as bigint;
    if (version === this.#schemaVersion) return;
    this.#catalog = new Catalog(readTables(this.#db));
    this.#schemaVersion = version;
  }
}

function siteOf(db: Database): SiteID {
  return toHex(db.get("SELECT crsql_site_id()")?.[0] as Uint8Array);
}
