// Merging changes into the database, inside the caller's transaction; what cannot be merged is parked.

import { type Change, SentinelCID, type SiteID } from "../changeset/change.ts";
import { PackedError, parsePacked } from "../changeset/pack.ts";
import { compareBytes, KindNull } from "../changeset/value.ts";
import { ChangeBinder } from "./changes.ts";
import { logEntry } from "./log.ts";
import { park, type Quota } from "./parked.ts";
import { VERSION_BOUND } from "./pinned.ts";
import type { Catalog } from "./schema.ts";
import { type Database, SqliteError, type Statement } from "./sqlite.ts";
import { bindValue } from "./values.ts";
import { SQLITE_CONSTRAINT } from "./wasm.ts";

/** What became of one group. */
export interface GroupOutcome {
  /** The local version that it got; 0: it had no effect. */
  readonly l: number;
  /** Rows that it changed, as crsql_rows_impacted counts them. */
  readonly changed: number;
  /** Changes that were put aside, whether or not they had been already. */
  readonly parked: number;
}

/** SQLite's codes for an error that lies in the row and not in the database: error, constraint, mismatch, too big. */
const ROW_ERRORS: ReadonlySet<number> = new Set([1, SQLITE_CONSTRAINT, 20, 18]);

const INSERT = `INSERT INTO crsql_changes ("table", pk, cid, val, col_version, db_version, site_id, cl, seq)
  VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`;

/**
 * Merges a group that `origin` wrote at `version`, under local version `l`, and logs it there if it had an effect.
 * Needs an open transaction with no local write in it. Throws a ParkedError where no more may be parked, and otherwise only
 * for what makes the database unusable or is full.
 */
export function applyGroup(
  db: Database,
  catalog: Catalog,
  l: number,
  origin: SiteID,
  version: number,
  changes: readonly Change[],
  quota: Quota,
): GroupOutcome {
  const before = rowsImpacted(db);
  const rejected = mergeChanges(db, catalog, l, changes);
  let parkedNew = 0;
  for (const { change, reason } of rejected) {
    quota.reserve(change, reason);
    if (park(db, l, change, reason)) parkedNew++;
  }
  const changed = rowsImpacted(db) - before;
  if (changed === 0 && parkedNew === 0) return { l: 0, changed, parked: rejected.length };
  logEntry(db, l, origin, version);
  return { l, changed, parked: rejected.length };
}

/** A change that the engine refused, and why in a few words. */
export interface Rejected {
  readonly change: Change;
  readonly reason: string;
}

/** Merges `changes` under local version `l` and returns those that were refused. */
export function mergeChanges(
  db: Database,
  catalog: Catalog,
  l: number,
  changes: readonly Change[],
): Rejected[] {
  const rejected: Rejected[] = [];
  const check = new Checker(catalog);
  const insert = db.prepare(INSERT);
  const binder = new ChangeBinder();
  const version = BigInt(l);
  for (const change of changes) {
    const reason = check.reason(change) ?? mergeChange(db, insert, binder, version, change);
    if (reason !== undefined) rejected.push({ change, reason });
  }
  return rejected;
}

function mergeChange(
  db: Database,
  insert: Statement,
  binder: ChangeBinder,
  l: bigint,
  change: Change,
): string | undefined {
  insert.bindText(1, binder.name(change.table));
  insert.bindBlob(2, change.pk);
  insert.bindText(3, binder.name(change.cid));
  bindValue(insert, 4, change.val);
  insert.bindInteger(5, change.colVersion);
  insert.bindInteger(6, l);
  insert.bindBlob(7, binder.site(change.site));
  insert.bindInteger(8, change.cl);
  insert.bindInteger(9, change.seq);
  try {
    insert.step();
    return undefined;
  } catch (error) {
    // After a refused row stock cr-sqlite goes on as if it were merging: later local writes would not be tracked.
    db.run("SELECT crsql_internal_sync_bit(0)");
    if (error instanceof SqliteError && ROW_ERRORS.has(error.code)) return error.message;
    throw error;
  }
}

/** Says what is wrong with a change before the engine sees it: some of it would end the process. */
class Checker {
  readonly #catalog: Catalog;
  #table = "";
  #pk: Uint8Array | undefined;
  #keyReason: string | undefined;

  constructor(catalog: Catalog) {
    this.#catalog = catalog;
  }

  /** Undefined for a change that may be merged. */
  reason(change: Change): string | undefined {
    const table = this.#catalog.byName.get(change.table);
    if (table === undefined) return "there is no such table here";
    if (change.cid !== SentinelCID && !table.cells.has(change.cid)) {
      return `the table has no column "${change.cid}"`;
    }
    if (change.cl > VERSION_BOUND || change.colVersion > VERSION_BOUND || change.colVersion < 0n) {
      return "version out of range";
    }
    if (change.seq > VERSION_BOUND || change.seq < 0n) return "seq out of range";
    // The changes of a row come one after the other, and share its key.
    const same =
      this.#pk !== undefined && this.#table === change.table && compareBytes(this.#pk, change.pk) === 0;
    if (!same) {
      this.#table = change.table;
      this.#pk = change.pk;
      this.#keyReason = keyReason(change.pk, table.keys.length);
    }
    return this.#keyReason;
  }
}

function keyReason(pk: Uint8Array, columns: number): string | undefined {
  try {
    const values = parsePacked(pk);
    if (values.length !== columns) return `bad key: ${values.length} values for ${columns} key columns`;
    return values.some((value) => value.kind === KindNull) ? "bad key: NULL in it" : undefined;
  } catch (error) {
    if (error instanceof PackedError) return `bad key: ${error.reason}`;
    throw error;
  }
}

/** Rows changed by merges in this transaction so far. */
export function rowsImpacted(db: Database): number {
  return Number(db.get("SELECT crsql_rows_impacted()")?.[0] ?? 0);
}
