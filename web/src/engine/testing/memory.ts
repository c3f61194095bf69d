// Databases for tests in Node: in memory, without anything that keeps them.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { blob, integer, nullValue, real, textString, type Value } from "../../changeset/value.ts";
import { DecideSend, type Decision, type Entry, type ReadRequest } from "../../syncproto/ops.ts";
import { EntryEnd, type Position } from "../../syncproto/vector.ts";
import { PagedFile } from "../pages.ts";
import { Database, type SqlValue } from "../sqlite.ts";
import { SqliteStore, type Storage } from "../store.ts";
import { instantiate, type SqliteWasm } from "../wasm.ts";

const require = createRequire(import.meta.url);
export const wasmBinary = readFileSync(require.resolve("@vlcn.io/wa-sqlite/dist/crsqlite-sync.wasm"));

const noStorage: Storage = { sync: async () => {}, close: async () => {} };

export async function memoryDatabase(): Promise<Database> {
  return new Database(await instantiate({ wasmBinary }), ":memory:");
}

/** A store in memory, and the database in it for a look past the store, until that has got a new site id. */
export async function memoryStore(): Promise<{ store: SqliteStore; db: Database }> {
  const wasm = await instantiate({ wasmBinary });
  const file = new PagedFile([], 0);
  wasm.registerVFS(file, false);
  let db: Database | undefined;
  const store = new SqliteStore(() => {
    db = openPaged(wasm, file);
    return db;
  }, noStorage);
  return { store, db: db as unknown as Database };
}

/** The database in a paged file. */
export function openPaged(wasm: SqliteWasm, file: PagedFile): Database {
  const db = new Database(wasm, "x.db", file.name);
  db.script("PRAGMA locking_mode = exclusive; PRAGMA journal_mode = memory; PRAGMA temp_store = memory");
  return db;
}

/** The core's value of an SQL value. */
export function value(v: SqlValue): Value {
  if (v === null) return nullValue();
  if (typeof v === "bigint") return integer(v);
  if (typeof v === "number") return real(v);
  return typeof v === "string" ? textString(v) : blob(v);
}

let requests = 0;

/** Runs a write under a request id of its own. */
export async function exec(store: SqliteStore, sql: string, ...args: SqlValue[]): Promise<void> {
  await store.exec(`test ${requests++}`, sql, args.map(value));
}

export const START: Position = { l: 0, seq: EntryEnd };

/** A read of everything behind `after` in one piece, unless `options` say otherwise. */
export function readRequest(after: Position, options: Partial<ReadRequest> = {}): ReadRequest {
  return {
    id: 1,
    link: 1,
    after,
    only: undefined,
    maxBytes: 1e9,
    maxChanges: 1e9,
    count: false,
    decide: (): Decision => DecideSend,
    ...options,
  };
}

/** All entries behind `after`, read in pieces as `options` say. */
export async function readAll(
  store: SqliteStore,
  after: Position,
  options: Partial<ReadRequest> = {},
): Promise<{ entries: Entry[]; next: Position; reads: number }> {
  const entries: Entry[] = [];
  let next = after;
  for (let reads = 1; ; reads++) {
    const result = await store.read(readRequest(next, options));
    entries.push(...result.entries);
    next = result.next;
    if (result.end) return { entries, next, reads };
  }
}

/** Sends all that `from` has behind `after` to `to`; returns where it got. */
export async function transfer(
  from: SqliteStore,
  to: SqliteStore,
  after: Position = START,
  options: Partial<ReadRequest> = {},
): Promise<Position> {
  const { entries, next } = await readAll(from, after, options);
  const groups = entries.map(({ origin, version, changes }) => ({ link: 1, origin, version, changes }));
  await to.apply({ id: 1, groups, claims: new Map(), resume: new Map() });
  return next;
}

/** A small pseudo-random generator: the same seed gives the same numbers in [0, 1). */
export function random(seed: number): () => number {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), a | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
