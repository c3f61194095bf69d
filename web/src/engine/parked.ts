// The quarantine: changes that could not be merged, kept to be passed on and tried again.

import { type Change, fromHex } from "../changeset/change.ts";
import { valueSize } from "../changeset/value.ts";
import type { Parked } from "../worker/store.ts";
import { ChangeReader } from "./changes.ts";
import type { Database, Statement } from "./sqlite.ts";
import { bindValue } from "./values.ts";

/** Changes that are parked at a time. */
export const MAX_PARKED = 200_000;
/** Bytes that these take, about. */
export const MAX_PARKED_BYTES = 64 * 1024 * 1024;
/** Bytes that are counted for each beside its names, key and value. */
const rowBytes = 100;

/** What a row of crmesh_parked takes, in SQL. */
export function parkedBytes(row: string): string {
  const text = (columns: string) => `length(CAST(${columns} AS BLOB))`;
  const names = [`${row}tbl`, `${row}cid`, `${row}reason`].join(" || ");
  return `${rowBytes} + length(${row}pk) + ${text(`coalesce(${row}val, '')`)} + ${text(names)}`;
}

/** A change that can be neither merged nor parked, because as much is parked as may be. */
export class ParkedError extends Error {
  override readonly name = "ParkedError";
}

/** Counts what is parked in one transaction against what may be. */
export class Quota {
  readonly #db: Database;
  readonly #changes: number;
  readonly #bytes: number;
  #now: { changes: number; bytes: number } | undefined;

  constructor(db: Database, changes = MAX_PARKED, bytes = MAX_PARKED_BYTES) {
    this.#db = db;
    this.#changes = changes;
    this.#bytes = bytes;
  }

  /** Takes room for a change that is about to be parked. Throws a ParkedError where there is none. */
  reserve(change: Change, reason: string): void {
    const size =
      rowBytes +
      change.pk.length +
      valueSize(change.val) +
      change.table.length +
      change.cid.length +
      reason.length;
    // Past the quota it looks how much there really is: what was there already counts once.
    for (const now of [this.#now, parkedSum(this.#db)]) {
      if (now === undefined || now.changes >= this.#changes || now.bytes + size > this.#bytes) continue;
      this.#now = { changes: now.changes + 1, bytes: now.bytes + size };
      return;
    }
    throw new ParkedError(
      `${parkedSum(this.#db).changes} changes are put aside already because they do not fit the tables here, and no more are taken: ` +
        "bring the tables of this database up to date, or end the peer that sends them",
    );
  }
}

function parkedSum(db: Database): { changes: number; bytes: number } {
  const row = db.get("SELECT coalesce(sum(changes), 0), coalesce(sum(bytes), 0) FROM crmesh_parked_count");
  return { changes: Number(row?.[0]), bytes: Number(row?.[1]) };
}

/** Lines that `readParked` returns. */
const maxLines = 50;

/** What is parked now. */
export function readParked(db: Database): Parked {
  const rows = db.all(
    `SELECT tbl, reason, changes, count(*) OVER () FROM crmesh_parked_count ORDER BY changes DESC, tbl, reason LIMIT ${maxLines}`,
  );
  const tables = rows.map(([table, reason, changes]) => ({
    table: String(table),
    reason: String(reason),
    changes: Number(changes),
  }));
  return { ...parkedSum(db), tables, more: Number(rows[0]?.[3] ?? 0) - tables.length };
}

/** The lowest seq there can be: where the changes of an entry begin. */
export const FIRST_SEQ = -(2n ** 63n);

/** A change and its row in crmesh_parked. */
export interface ParkedChange extends Change {
  readonly id: bigint;
}

/** The changes that are parked under `l`, from seq `first` on, in order of seq. */
export function* parkedChanges(db: Database, l: number, first: bigint): Generator<ParkedChange> {
  const reader = new ChangeReader();
  const statement = db.prepare(
    `SELECT tbl, pk, cid, val, col_version, site, cl, seq, id FROM crmesh_parked
     WHERE local_version = ? AND seq >= ? ORDER BY seq, id`,
  );
  try {
    statement.bindAll([BigInt(l), first]);
    while (statement.step()) {
      yield { ...reader.change(statement, l), id: statement.columnInteger(8) };
    }
  } finally {
    statement.reset();
  }
}

/** Puts a change aside under `l`; false if the very same one is there already. */
export function park(db: Database, l: number, change: Change, reason: string): boolean {
  const known = db.prepare(
    `SELECT 1 FROM crmesh_parked WHERE tbl = ?1 AND pk = ?2 AND cid = ?3 AND val IS ?4 AND typeof(val) = typeof(?4)
       AND col_version = ?5 AND site = ?6 AND cl = ?7 AND seq = ?8`,
  );
  bindParked(known, change);
  const there = known.step();
  known.reset();
  if (there) return false;
  const insert = db.prepare(
    `INSERT INTO crmesh_parked (tbl, pk, cid, val, col_version, site, cl, seq, local_version, reason)
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
  );
  bindParked(insert, change);
  insert.bindInteger(9, BigInt(l));
  insert.bind(10, reason);
  insert.step();
  return true;
}

function bindParked(statement: Statement, change: Change): void {
  statement.bind(1, change.table);
  statement.bindBlob(2, change.pk);
  statement.bind(3, change.cid);
  bindValue(statement, 4, change.val);
  statement.bindInteger(5, change.colVersion);
  statement.bindBlob(6, fromHex(change.site));
  statement.bindInteger(7, change.cl);
  statement.bindInteger(8, change.seq);
}
