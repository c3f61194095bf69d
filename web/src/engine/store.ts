// The database of one peer: the crmesh log beside the synced tables, and what is done with them.

import { type SiteID, toHex } from "../changeset/change.ts";
import type { Value } from "../changeset/value.ts";
import type { TableSchema } from "../syncproto/message.ts";
import type { ApplyRequest, ApplyResult, ReadRequest, ReadResult } from "../syncproto/ops.ts";
import type { ExecResult, Heads, QueryResult, State, Store } from "../worker/store.ts";
import { applyGroup } from "./apply.ts";
import { StatementError, StorageError } from "./errors.ts";
import { doneBefore, MAX_REQUEST_ID, rememberDone, runQuery, runStatements } from "./exec.ts";
import {
  createLog,
  getMeta,
  newestEntry,
  raiseVector,
  readResume,
  readVector,
  setMeta,
  storeResume,
} from "./log.ts";
import { readEntries } from "./read.ts";
import { replayParked } from "./replay.ts";
import { Catalog, createTables, readTables, schemaHash } from "./schema.ts";
import { type Database, SqliteError } from "./sqlite.ts";
import { SQLITE_FULL, SQLITE_IOERR } from "./wasm.ts";

/** What keeps a database's bytes. Owned by the store that was given it. */
export interface Storage {
  /** Resolves once everything committed so far is durable; rejects with a StorageError, after which it is unusable. */
  sync(): Promise<void>;
  /** Releases files and locks. The database is closed before. */
  close(): Promise<void>;
}

/**
 * A Store on an open database, which it owns from now on, with what keeps its bytes. Operations run one after the
 * other, each to its end and durable before the next begins, so that nothing is ever read that could still be lost.
 */
export class SqliteStore implements Store {
  readonly #db: Database;
  readonly #storage: Storage;
  readonly #site: SiteID;
  #queue: Promise<unknown> = Promise.resolve();
  #closed = false;
  #failure: StorageError | undefined;
  /** The floor of the next local version, as stored. */
  #highWater: number;
  #own: number;
  #catalog = new Catalog([]);
  #schemaVersion: bigint | undefined;
  #hash: { readonly of: Catalog; readonly value: Uint8Array } | undefined;

  constructor(db: Database, storage: Storage) {
    this.#db = db;
    this.#storage = storage;
    createLog(db);
    this.#site = toHex(db.get("SELECT crsql_site_id()")?.[0] as Uint8Array);
    this.#refreshCatalog();
    const newest = newestEntry(db, this.#catalog);
    this.#highWater = Math.max(getMeta(db, "high_water") ?? 0, newest);
    // A database without a log has nothing of others.
    this.#own = getMeta(db, "own_high_water") ?? newest;
    db.transaction(() => {
      setMeta(db, "high_water", this.#highWater);
      setMeta(db, "own_high_water", this.#own);
    });
  }

  state(): Promise<State> {
    return this.#exclusive(async () => ({
      ...(await this.#heads()),
      site: this.#site,
      vector: readVector(this.#db),
      resume: readResume(this.#db),
      tables: this.#tables(),
    }));
  }

  heads(): Promise<Heads> {
    return this.#exclusive(() => this.#heads());
  }

  read(request: ReadRequest): Promise<ReadResult> {
    return this.#exclusive(() => {
      const outcome = readEntries(this.#db, this.#catalog, this.#site, request);
      return { id: request.id, link: request.link, ...outcome, own: this.#own, newest: this.#newest() };
    });
  }

  apply(request: ApplyRequest): Promise<ApplyResult> {
    return this.#exclusive(() => {
      const ls: number[] = [];
      const changed: number[] = [];
      const parked: number[] = [];
      this.#write(() => {
        let l = this.#nextVersion();
        for (const { origin, version, changes } of request.groups) {
          const outcome = applyGroup(this.#db, this.#catalog, l, origin, version, changes);
          if (outcome.l !== 0) l++;
          ls.push(outcome.l);
          changed.push(outcome.changed);
          parked.push(outcome.parked);
        }
        raiseVector(this.#db, request.claims);
        storeResume(this.#db, request.resume);
      });
      return {
        id: request.id,
        ls,
        changed,
        parked: parked.some((n) => n > 0) ? parked : undefined,
        own: this.#own,
        newest: this.#newest(),
      };
    });
  }

  schema(): Promise<TableSchema[]> {
    return this.#exclusive(() => this.#tables());
  }

  createTables(tables: readonly TableSchema[]): Promise<void> {
    return this.#exclusive(() => {
      this.#write(() => {
        createTables(this.#db, tables);
      });
    });
  }

  replay(): Promise<void> {
    return this.#exclusive(() => {
      this.#write(() => replayParked(this.#db, this.#catalog, this.#site, this.#nextVersion()));
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
      this.#write(() => {
        // The engine may have forgotten numbers that others have seen; a local write takes none at or below the floor.
        if (this.#engineVersion() < floor) this.#db.get("SELECT crsql_next_db_version(?)", BigInt(floor + 1));
        changes = runStatements(this.#db, sql, args);
        rememberDone(this.#db, id, changes);
      }, "local");
      return { changes, tables: this.#tablesAt(floor) };
    });
  }

  query(sql: string, args: readonly Value[]): Promise<QueryResult> {
    return this.#exclusive(() => runQuery(this.#db, sql, args));
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
        throw this.#explain(error);
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
    return { own: this.#own, newest: this.#newest(), schemaHash: this.#hash.value };
  }

  #tables(): TableSchema[] {
    return this.#catalog.tables.map(({ name, sql }) => ({ name, sql }));
  }

  /** Names of the CRRs with rows above local version `l`. */
  #tablesAt(l: number): string[] {
    const names: string[] = [];
    const arms = this.#catalog.overClocks((clock, table) => {
      const i = this.#catalog.tables.indexOf(table);
      return `SELECT ${i} AS i WHERE EXISTS (SELECT 1 FROM ${clock} WHERE db_version > ?1)`;
    });
    for (const sql of arms) {
      for (const [i] of this.#db.all(sql, BigInt(l))) names.push(this.#catalog.tables[Number(i)]?.name ?? "");
    }
    return names;
  }

  /** Reads the CRRs again if the schema is another than it was. */
  #refreshCatalog(): void {
    const version = this.#db.get("PRAGMA schema_version")?.[0] as bigint;
    if (version === this.#schemaVersion) return;
    this.#catalog = new Catalog(readTables(this.#db));
    this.#schemaVersion = version;
  }

  #explain(error: unknown): unknown {
    if (!(error instanceof SqliteError)) return error;
    if (error.code === SQLITE_FULL) {
      return new StorageError(
        "full",
        "there is no room left for this database; free some storage and try again",
        {
          cause: error,
        },
      );
    }
    if (error.code === SQLITE_IOERR) return ioError(error);
    return error;
  }
}

function ioError(cause: unknown): StorageError {
  const detail = cause instanceof Error ? cause.message : String(cause);
  return new StorageError("io", `the browser's storage failed (${detail}); reload the page`, { cause });
}
