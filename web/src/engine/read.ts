// Reading entries: which local versions there are, and the changes of each, in chunks.

import type { Change, SiteID } from "../changeset/change.ts";
import {
  DecideHold,
  DecideSend,
  DecideSkip,
  DecideStop,
  type Entry,
  type ReadRequest,
} from "../syncproto/ops.ts";
import { EntryEnd, type Position } from "../syncproto/vector.ts";
import { CHANGE_COLUMNS, ChangeReader } from "./changes.ts";
import { originOf } from "./log.ts";
import { movedColumns } from "./moved.ts";
import { FIRST_SEQ, parkedChanges } from "./parked.ts";
import { type Catalog, clockOf, type Table } from "./schema.ts";
import { type Database, quoteIdentifier, SqliteError } from "./sqlite.ts";
import { SQLITE_FULL } from "./wasm.ts";

/** Entries that one read decides on; where there are more it ends early, to let writers in between. */
export const MAX_DECIDED = 4096;

/**
 * An entry of more changes than this is read by ranges of seq, over an index that is made when the first such entry
 * of a table is met: without it each chunk of it would scan, and sort, all of it.
 */
export const BIG_ENTRY = 8192;

/** The range of seq that such an entry is read by: the engine sorts all of it before the first row comes. */
const SEQ_WINDOW = 1024n;

/** What a read found; the store adds its own and newest. */
export interface ReadOutcome {
  readonly entries: Entry[];
  readonly next: Position;
  readonly end: boolean;
  readonly remaining: number;
}

/** Bytes that a change takes on the wire besides its key and the bytes of its value, about. */
const CHANGE_OVERHEAD = 16;

function sizeOf({ pk, val }: Change): number {
  return CHANGE_OVERHEAD + pk.length + ("bytes" in val ? val.bytes.length : 0);
}

/** Answers `request` from what `db` holds now. May create an index: not inside a transaction of the caller's. */
export function readEntries(db: Database, catalog: Catalog, self: SiteID, request: ReadRequest): ReadOutcome {
  const entries: Entry[] = [];
  const left = { bytes: request.maxBytes, changes: request.maxChanges };
  let next = request.after;
  let end = true;
  let decided = 0;
  let any = false;
  for (const l of versions(db, catalog, request)) {
    const spent = left.bytes < request.maxBytes / 4 || left.changes < request.maxChanges / 4;
    // To look into an entry costs as much as all of it: one that would hardly fit is left to the next read.
    if (decided++ >= MAX_DECIDED || (any && spent)) {
      end = false;
      break;
    }
    const { origin, version } = originOf(db, l, self);
    const decision = request.decide(origin, version);
    if (decision === DecideStop) {
      end = false;
      break;
    }
    if (decision === DecideSend) {
      const first = l === request.after.l ? request.after.seq + 1n : FIRST_SEQ;
      const part = readEntry(db, catalog, l, first, left, any);
      if (part.changes.length > 0) {
        entries.push({ l, origin, version, changes: part.changes, held: false });
        any = true;
      }
      if (part.seq !== EntryEnd) {
        if (part.changes.length > 0) next = { l, seq: part.seq };
        end = false;
        break;
      }
    } else if (decision === DecideHold) {
      entries.push({ l, origin, version, changes: [], held: true });
    } else if (decision !== DecideSkip) {
      throw new Error(`a read was decided with ${decision}, which is no decision`);
    }
    next = { l, seq: EntryEnd };
  }
  const remaining = request.count ? countBehind(db, catalog, request.after) : 0;
  return { entries, next, end, remaining };
}

/** The local versions to go through, ascending. */
function* versions(db: Database, catalog: Catalog, { after, only }: ReadRequest): Generator<number> {
  const first = after.seq === EntryEnd ? after.l + 1 : after.l;
  if (only === undefined) {
    for (let l = versionFrom(db, catalog, first); l > 0; l = versionFrom(db, catalog, l + 1)) yield l;
    return;
  }
  for (const l of only) if (l >= first && versionFrom(db, catalog, l) === l) yield l;
}

/** The lowest local version from `first` on that has a row; 0 if there is none. */
function versionFrom(db: Database, catalog: Catalog, first: number): number {
  let lowest = Number.POSITIVE_INFINITY;
  const take = (sql: string): void => {
    const row = db.get(`SELECT min(l) FROM (${sql})`, BigInt(first));
    if (row?.[0] != null) lowest = Math.min(lowest, Number(row[0]));
  };
  take("SELECT min(local_version) AS l FROM crmesh_parked WHERE local_version >= ?1");
  for (const sql of catalog.overClocks(
    (clock) => `SELECT min(db_version) AS l FROM ${clock} WHERE db_version >= ?1`,
  )) {
    take(sql);
  }
  return Number.isFinite(lowest) ? lowest : 0;
}

/** The changes behind `after`, in clock tables and parked. */
function countBehind(db: Database, catalog: Catalog, after: Position): number {
  const within = after.seq === EntryEnd ? 0n : BigInt(after.l); // there is no local version 0
  const bounds = [BigInt(after.l), within, after.seq];
  const behind = (table: string, l: string): string =>
    `(SELECT count(*) FROM ${table} WHERE ${l} > ?1) + (SELECT count(*) FROM ${table} WHERE ${l} = ?2 AND seq > ?3)`;
  let n = Number(db.get(`SELECT ${behind("crmesh_parked", "local_version")}`, ...bounds)?.[0] ?? 0);
  for (const sql of catalog.overClocks((clock) => `SELECT ${behind(clock, "db_version")} AS n`)) {
    n += Number(db.get(`SELECT sum(n) FROM (${sql})`, ...bounds)?.[0] ?? 0);
  }
  return n;
}

/**
 * The changes of `l` from seq `first` on, as far as `left` reaches, which is lowered by what was read; at least one run
 * of equal seq unless `optional`. Returns the seq it ends at, EntryEnd where that is the entry's end.
 */
function readEntry(
  db: Database,
  catalog: Catalog,
  l: number,
  first: bigint,
  left: { bytes: number; changes: number },
  optional: boolean,
): { changes: Change[]; seq: bigint } {
  const changes: Change[] = [];
  let whole = 0; // changes of complete runs
  let seq: bigint | undefined;
  let bytes = 0;
  let wholeBytes = 0;
  for (const change of merged(clockChanges(db, catalog, l, first), parkedChanges(db, l, first))) {
    if (change.seq !== seq) {
      whole = changes.length;
      wholeBytes = bytes;
      seq = change.seq;
    }
    changes.push(change);
    bytes += sizeOf(change);
    for (const moved of movedColumns(db, catalog, change)) {
      changes.push(moved);
      bytes += sizeOf(moved);
    }
    if ((bytes > left.bytes || changes.length > left.changes) && (whole > 0 || optional)) {
      const lastSeq = changes[whole - 1]?.seq ?? first - 1n;
      changes.length = whole;
      left.bytes -= wholeBytes;
      left.changes -= whole;
      return { changes, seq: lastSeq };
    }
  }
  left.bytes -= bytes;
  left.changes -= changes.length;
  return { changes, seq: EntryEnd };
}

/** The changes of `l` from seq `first` on that the clock tables hold, in order of seq. */
function* clockChanges(db: Database, catalog: Catalog, l: number, first: bigint): Generator<Change> {
  const reader = new ChangeReader();
  const big = bigTables(db, catalog, l);
  if (big.length === 0) {
    yield* changesBetween(db, reader, l, first, undefined);
    return;
  }
  for (const table of big) indexBySeq(db, table);
  for (let from = seqFrom(db, catalog, l, first); from !== undefined; ) {
    const to: bigint = from + SEQ_WINDOW < EntryEnd ? from + SEQ_WINDOW : EntryEnd;
    yield* changesBetween(db, reader, l, from, to);
    from = to < EntryEnd ? seqFrom(db, catalog, l, to + 1n) : undefined;
  }
}

function* changesBetween(
  db: Database,
  reader: ChangeReader,
  l: number,
  first: bigint,
  last: bigint | undefined,
): Generator<Change> {
  const range = last === undefined ? "" : " AND seq <= ?";
  const statement = db.compile(
    `SELECT ${CHANGE_COLUMNS} FROM crsql_changes WHERE db_version = ? AND seq >= ?${range}`,
  );
  try {
    statement.bindAll(last === undefined ? [BigInt(l), first] : [BigInt(l), first, last]);
    while (statement.step()) {
      yield reader.change(statement, l);
    }
  } finally {
    statement.finalize();
  }
}

/** Two streams in order of seq as one. */
function* merged(a: Generator<Change>, b: Generator<Change>): Generator<Change> {
  try {
    let x = a.next();
    let y = b.next();
    while (!x.done || !y.done) {
      if (!x.done && (y.done || x.value.seq <= y.value.seq)) {
        yield x.value;
        x = a.next();
      } else if (!y.done) {
        yield y.value;
        y = b.next();
      }
    }
  } finally {
    a.return(undefined);
    b.return(undefined);
  }
}

/** The tables with rows of `l`, if they are more than BIG_ENTRY together; else none. */
function bigTables(db: Database, catalog: Catalog, l: number): Table[] {
  let n = 0;
  const found: Table[] = [];
  const arms = catalog.overClocks(
    (clock, table) =>
      `SELECT ${catalog.tables.indexOf(table)} AS i, (SELECT count(*) FROM
         (SELECT 1 FROM ${clock} WHERE db_version = ?1 LIMIT ${BIG_ENTRY + 1})) AS n`,
  );
  for (const sql of arms) {
    for (const [i, count] of db.all(`SELECT i, n FROM (${sql}) WHERE n > 0`, BigInt(l))) {
      n += Number(count);
      found.push(catalog.tables[Number(i)] as Table);
    }
  }
  return n > BIG_ENTRY ? found : [];
}

/** Without room for the index reading goes on, slower. */
function indexBySeq(db: Database, table: Table): void {
  const name = quoteIdentifier(`crmesh_seq_${table.name}`);
  try {
    db.run(`CREATE INDEX IF NOT EXISTS ${name} ON ${clockOf(table)} (db_version, seq)`);
  } catch (error) {
    if (!(error instanceof SqliteError) || error.code !== SQLITE_FULL) throw error;
  }
}

/** The lowest seq of `l` from `first` on; undefined if there is none. */
function seqFrom(db: Database, catalog: Catalog, l: number, first: bigint): bigint | undefined {
  let lowest: bigint | undefined;
  const arms = catalog.overClocks(
    (clock) => `SELECT min(seq) AS s FROM ${clock} WHERE db_version = ?1 AND seq >= ?2`,
  );
  for (const sql of arms) {
    const seq = db.get(`SELECT min(s) FROM (${sql})`, BigInt(l), first)?.[0];
    if (typeof seq === "bigint" && (lowest === undefined || seq < lowest)) lowest = seq;
  }
  return lowest;
}
